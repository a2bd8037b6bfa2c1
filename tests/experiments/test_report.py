"""The report: one page that stands alone, whose numbers are those of the runs, and which shows what is missing."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import main
from experiments.paper import MODULES, Judgement, Verdict, find
from experiments.paper.evidence import LOGS, Evidence
from experiments.published import published
from experiments.report.collect import COUNTED, Part, Section, _ruling
from experiments.report.sheets import _csv
from experiments.sweeps import Catalogue
from experiments.sweeps.measure_costs import studies
from realnets import train

R, P, C, U = Judgement.REPLICATES, Judgement.IN_PART, Judgement.CONTRADICTED, Judgement.UNTESTABLE


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The smoke runs of two experiments, one network missing and one stopped half-way."""
    out = tmp_path_factory.mktemp("runs")
    assert main(["run", "depth", "weight_decay", "--preset", "smoke", "--workers", "1", "--out", str(out), "--json"]) == 0
    return out


def test_times_of_studies_come_from_their_records(runs):
    there = [h for h in Catalogue.scan([runs]).finished if isinstance(h.setting, dict)]
    found, slow = studies([str(runs)], 1.0), studies([str(runs)], 10.0)
    assert len(found) == len(there) > 0 and all(name.startswith("linear-flow digits") for name in found)
    assert sum(found.values()) == pytest.approx(sum(h.record().provenance["seconds"]["all"] for h in there), rel=0.01)
    assert sum(slow.values()) == pytest.approx(sum(found.values()) / 10, rel=0.01)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.sources, self.tags = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        about = dict(attrs)
        self.tags.append(tag)
        if "id" in about:
            self.ids.add(about["id"])
        if tag == "a":
            self.links.append(about["href"])
        if "src" in about:
            self.sources.append(about["src"])


def report(runs, capsys, *args):
    assert main(["report", *args, "--out", str(runs), "--json"]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


def test_the_page_stands_alone_and_every_link_leads_somewhere(runs, capsys, tmp_path):
    found, err = report(runs, capsys)
    assert err == "" and set(found["files"]) == {"page", "verdicts", "conditions", "networks"}
    text = Path(found["files"]["page"]).read_text()
    page = Page(text)
    assert page.sources and all(s.startswith("data:image/png;base64,") for s in page.sources)
    assert "http" not in re.sub(r"data:image[^\"]*", "", text) and "script" not in page.tags and "link" not in page.tags
    folder = runs / "report"
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids, link
        else:
            assert (folder / link).exists(), link
    assert {f"claim-{c.id}" for c in (*published().claims, *published().later)} <= page.ids and set(MODULES) <= page.ids
    assert "Not run: " in text and "authors’ per-epoch logs were not given" in text and str(runs) not in text
    assert not list(folder.glob("*partial*"))


def test_its_numbers_are_those_of_the_records(runs, capsys):
    found, _ = report(runs, capsys, "depth")
    rows = list(csv.DictReader(Path(found["files"]["networks"]).read_text().splitlines()))
    held = Catalogue.scan([runs])
    conditions = {c.label: c for c in find("depth").conditions("smoke")}
    assert len(rows) == sum(len(c.lanes) for c in conditions.values())
    for row in rows:
        setting = conditions[row["condition"]].setting
        lane = next(x for x in setting.lanes if x.seed == int(row["seed"]))
        run = held.find(setting, lane)
        assert run is not None and run.run == row["run"] and run.folder.name == row["folder"]
        data = run.record().data.isel(lane=run.setting.lanes.index(lane))
        assert float(row["fn_end"]) == float(data["fn"][-1]) and float(row["nc1_end"]) == float(data["nc1_trace_ratio"][-1])
        assert row["t_nc"] == "" and row["last_epoch"] == "14.0", "no network collapses in 14 epochs"
    ends = [float(r["fn_end"]) for r in rows if r["condition"] == "depth 3"]
    text = Path(found["files"]["page"]).read_text()
    assert f"{np.mean(ends):.3f} ± {np.std(ends, ddof=1):.3f}" in text and "&gt; 14 (0 of 2)" in text


def test_smoke_runs_decide_nothing(runs, capsys):
    found, _ = report(runs, capsys, "depth", "weight_decay", "width", "grid")
    counted = {v["claim"]: v["verdict"] for v in found["verdicts"] if any(e["evidence"] == COUNTED for e in v["evidence"])}
    assert counted["width.parameters"] == C.value and counted["grid.parameters"] == R.value
    assert {v["verdict"] for v in found["verdicts"] if v["claim"] not in counted} == {U.value}
    assert sum(found["counts"].values()) == len(found["verdicts"])


def test_what_is_missing_or_stopped_is_shown(runs, capsys, tmp_path):
    for folder in runs.iterdir():
        if folder.name != "report":
            shutil.copytree(folder, tmp_path / folder.name)
    (first,) = [c for c in find("depth").conditions("smoke") if c.parameters["depth"] == 2]
    run = Catalogue.scan([tmp_path]).find(first.setting, first.lanes[0])
    assert run is not None
    shutil.rmtree(run.folder)
    longer = replace(first.setting, seeds=(1,))

    class Stop(Exception):
        pass

    def watch(at):
        if at.epoch == 6:
            raise Stop

    with pytest.raises(Stop):
        train(longer, checkpoint=tmp_path / "part", every=2, watch=watch)
    found, _ = report(tmp_path, capsys, "depth")
    text = Path(found["files"]["page"]).read_text()
    assert "depth 2, seed 0: missing" in text and "depth 2, seed 1: stopped at epoch 4 of 14" in text
    rows = {r["condition"]: r for r in csv.DictReader(Path(found["files"]["conditions"]).read_text().splitlines())}
    assert "stopped at epoch 4" in rows["depth 2"]["missing"] and rows["depth 3"]["missing"] == ""


def test_a_damaged_run_is_noted_and_not_used(runs, capsys, tmp_path):
    for folder in runs.iterdir():
        if folder.name != "report":
            shutil.copytree(folder, tmp_path / folder.name)
    victim = Catalogue.scan([tmp_path]).finished[0].folder
    (victim / "record.nc").write_bytes(b"nothing")
    found, err = report(tmp_path, capsys, "depth")
    assert err.count("\n") == 1 and "truncated or altered" in err and found["notes"] == [err.strip().removeprefix("ncflow: ")]


def test_logs_alone_make_a_report(capsys, tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    for seed in range(3):
        rows = "\n".join(f"{e},{1 if e <= 200 else 2},1.0,0.98,{0.1 if e < 290 else 0.005},0.1,0.1,{20 if e <= 200 else 1.1}"
                         for e in range(10, 601, 10))  # fmt: skip
        (folder / f"depth7_s{seed}.csv").write_text("epoch,phase,train,test,nc1,nc2,nc3,feat_norm\n" + rows + "\n")
    found, _ = report(tmp_path / "none", capsys, "depth", "--logs", str(folder), "--to", str(tmp_path / "page"))
    text = Path(found["files"]["page"]).read_text()
    assert "published logs: MNIST, 60,000 images" in text and "No finished runs were found" in text and "290 ± 0" in text
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("args", "names"), [
    ([], ["out", "a folder with runs", "ncflow run"]),
    (["depht"], ["experiment", "did you mean depth"]),
    (["--records", "nowhere"], ["records", "'nowhere'"]),
    (["--logs", "nowhere"], ["logs", "'nowhere'"]),
])  # fmt: skip
def test_bad_input_is_one_line(args, names, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("NCFLOW_LOGS", raising=False)
    assert main(["report", *args, "--out", str(tmp_path / "empty")]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and "Traceback" not in printed.err
    for name in names:
        assert name in printed.err
    assert not (tmp_path / "empty").exists()


def test_table_fits_and_help_has_an_example(runs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["report", "depth", "width", "--out", str(runs)]) == 0
    shown = capsys.readouterr().out.split("page:")[0]
    assert "width.parameters" in shown and all(len(line) <= 100 for line in shown.splitlines())
    assert main(["report", "--help"]) == 0
    assert "ncflow report depth weight_decay" in capsys.readouterr().out


# How verdicts add up


def ruling(*opinions, counted=()):
    """Of (preset, judgement) pairs on one claim."""
    claim = published().claim("depth.value")
    parts = tuple(
        Part(Evidence("depth", preset, f"g{i}", ()), (Verdict(claim.id, j, "x", "why"),))
        for i, (preset, j) in enumerate(opinions)
    )
    return _ruling(claim, [Section(find("depth"), parts, tuple(Verdict(claim.id, j, "x", "why") for j in counted), ())])


@pytest.mark.parametrize(("opinions", "overall"), [
    ([], U),
    ([("laptop", U), ("paper", U)], U),
    ([("paper", R)], R),
    ([("paper", R), ("laptop", U), (LOGS, R)], R),
    ([("paper", R), ("laptop", C)], P),
    ([("laptop", C), (LOGS, C)], C),
    ([(LOGS, R)], U),
    ([(LOGS, P)], P),
    ([(LOGS, C)], C),
    ([("laptop", R), (LOGS, C)], P),
])  # fmt: skip
def test_verdicts_add_up(opinions, overall):
    found = ruling(*opinions)
    assert found.overall is overall
    if len({j for _, j in opinions} - {U}) > 1:
        assert all(j.value in found.reason for _, j in opinions)


def test_that_logs_agree_replicates_nothing_and_counting_does():
    assert "no network trained here" in ruling((LOGS, R)).reason
    assert ruling(counted=(C,)).overall is C and ruling(counted=(C,)).lead.body == COUNTED


def test_the_strongest_evidence_leads():
    assert ruling(("laptop", R), ("paper", R)).lead.preset == "paper"
    assert ruling(("laptop", R), (LOGS, R)).lead.preset == "laptop", "logs do not lead what was trained here"


def test_numbers_that_are_not_there_are_empty_in_csv():
    assert _csv([{"a": float("nan"), "b": 1.5, "c": 'x, "y"'}]) == 'a,b,c\n,1.5,"x, ""y"""\n'
    assert next(csv.DictReader(io.StringIO(_csv([{"c": 'x, "y"'}]))))["c"] == 'x, "y"'
