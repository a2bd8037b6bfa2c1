"""Reading the authors' logs and auditing them, on logs made up here; the real ones are read where NCFLOW_LOGS says they are."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os

import numpy as np
import pytest

from experiments.audit import Standing, Verdict, audit_logs
from experiments.audit.logs import leads, runs, tables, witness
from experiments.audit.logs.runs import depth_orders, disagreements, groups
from experiments.cli import main
from experiments.published import Printed, Spread
from experiments.published.log_files import SPECS, SUMMARIES
from experiments.published.logs import find_logs, read_logs
from ncflow.errors import BadInput

REAL = os.environ.get("NCFLOW_LOGS")


def write(folder, name, *, collapse=300, fn=1.1, last=600, phase=True, nc1=None):
    """A log whose NC1 falls from 0.2 to pass 0.01 at epoch `collapse` (never, for None), with fn there and after."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [c for c in ("epoch", "phase", "train", "test", "nc1", "nc2", "nc3", "feat_norm") if phase or c != "phase"]
    with open(path, "w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(columns)
        for e in range(10, last + 1, 10):
            ratio = nc1(e) if nc1 else 0.009 if collapse is not None and e >= collapse else 0.2 if e <= 200 else 0.03
            values = {"epoch": e, "phase": 1 if e <= 200 else 2, "train": 1.0, "test": 0.98, "nc1": ratio, "nc2": 0.1, "nc3": 0.1,
                      "feat_norm": fn if collapse is not None and e >= collapse else 10.0}  # fmt: skip
            out.writerow([values[c] for c in columns])
    return path


def table(folder, name, rows):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(SUMMARIES[name])
        out.writerows(rows)


# Reading


def test_a_log_is_read_with_its_condition(tmp_path):
    write(tmp_path, "depth7_s1.csv", collapse=340, fn=1.15, last=340)
    logs = read_logs(tmp_path)
    (r,) = logs.runs
    assert (r.name, r.seed, r.condition["depth"], r.condition["decay"]) == ("depth7_s1", 1, 7, 1e-4)
    assert (r.t_nc(), r.fn_at(), r.at(340), r.last) == (340, 1.15, 1.15, 340)
    assert math.isnan(r.t_nc(0.001)) and math.isnan(r.fn_at(0.001)) and r.index(0.001) is None and math.isnan(r.at(345))
    assert logs.select("depth", depth=7) == (r,) and logs.select("depth", depth=5) == () and logs.select("width") == ()
    assert "depth7_s0.csv" in logs.missing and "sweep_width.csv" in logs.missing
    assert logs.run("depth7_s0") is None and logs.rows("sweep_width.csv", width=128) == ()


def test_a_threshold_can_be_asked_of_one_phase(tmp_path):
    write(tmp_path, "actTanh_s0.csv", nc1=lambda e: 0.04 if e in (110, 220) else 0.2)
    (r,) = read_logs(tmp_path).runs
    assert (r.t_nc(0.05), r.t_nc(0.05, 1), r.t_nc(0.05, 2)) == (110, 110, 220)


def test_phases_without_a_column_follow_the_epoch(tmp_path):
    write(tmp_path, "intervention_control_s0.csv", phase=False)
    write(tmp_path, "ce_only_ablation.csv", phase=False)
    logs = read_logs(tmp_path)
    arm, ce = logs.run("intervention_control_s0"), logs.run("ce_only_ablation")
    assert arm is not None and arm.phase.tolist() == [1] * 20 + [2] * 40
    assert ce is not None and set(ce.phase.tolist()) == {1}


def test_the_learning_rate_is_that_of_the_schedule(tmp_path):
    write(tmp_path, "depth5_s1.csv")
    write(tmp_path, "resnet20_mnist_s1.csv", last=110)
    write(tmp_path, "cifar10_s0.csv", last=660)
    logs = read_logs(tmp_path)
    mlp, mnist, cifar = (logs.run(n) for n in ("depth5_s1", "resnet20_mnist_s1", "cifar10_s0"))
    assert mlp is not None and mnist is not None and cifar is not None
    # Cosine over each phase, during the epoch that ended: lr (1 + cos(pi (e - 1) / T)) / 2, T = 200 and 400.
    local = np.where(mlp.epoch <= 200, (mlp.epoch - 1) / 200, (mlp.epoch - 201) / 400)
    assert mlp.learning_rate == pytest.approx(1e-3 * (1 + np.cos(np.pi * local)) / 2, rel=1e-12)
    assert mnist.learning_rate[mnist.epoch == 100] == pytest.approx(0.1) and mnist.learning_rate[-1] == pytest.approx(0.01)
    assert cifar.learning_rate[cifar.epoch == 650] == pytest.approx(0.01) and cifar.learning_rate[-1] == pytest.approx(0.001)


def test_epochs_before_accuracy_are_empty_not_zero(tmp_path):
    path = write(tmp_path, "depth2_s0.csv")
    lines = path.read_text().splitlines()
    lines[1] = "10,1,0.95,0.94,,,,"
    path.write_text("\n".join(lines) + "\n")
    (r,) = read_logs(tmp_path).runs
    assert math.isnan(r.nc1[0]) and math.isnan(r.fn[0]) and r.t_nc() == 300


@pytest.mark.parametrize(("text", "names"), [
    ("epoch,phase,nc1\n10,1,0.2\n", ["feat_norm", "lacks"]),
    ("epoch,phase,nc1,feat_norm\n", ["at least one row"]),
    ("epoch,phase,nc1,feat_norm\n10,1,0.2,ten\n", ["line 2", "feat_norm", "'ten'"]),
    ("epoch,phase,nc1,feat_norm\n10,1,0.2\n", ["4 values in line 2"]),
    ("epoch,phase,nc1,feat_norm\n10,1,0.2,1,7\n", ["4 values in line 2"]),
    ("epoch,phase,nc1,feat_norm\n20,1,0.2,1\n10,1,0.2,1\n", ["epochs that grow"]),
    ("epoch,phase,nc1,feat_norm\n10,3,0.2,1\n", ["phases 1 and 2"]),
    ("epoch,phase,nc1,feat_norm\n10,1,-0.2,1\n", ["not negative"]),
    ("epoch,phase,nc1,feat_norm\n10,1,,\n", ["at least one epoch"]),
    ("\x00\x00", ["depth2_s0.csv"]),
])  # fmt: skip
def test_a_malformed_log_is_one_line_that_names_it(tmp_path, capsys, text, names):
    (tmp_path / "depth2_s0.csv").write_text(text)
    assert main(["audit", "--logs", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "depth2_s0.csv" in said.err
    for name in names:
        assert name in said.err


def test_folders_are_told_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("NCFLOW_LOGS", raising=False)
    assert find_logs(None) is None
    with pytest.raises(BadInput, match="none is there"):
        read_logs(tmp_path)
    monkeypatch.setenv("NCFLOW_LOGS", str(tmp_path / "gone"))
    assert main(["audit"]) == 2
    said = capsys.readouterr().err
    assert "NCFLOW_LOGS" in said and said.count("\n") == 1
    monkeypatch.setenv("NCFLOW_LOGS", str(tmp_path))
    assert find_logs(None) == tmp_path
    write(tmp_path, "depth2_s0.csv")
    with pytest.raises(BadInput, match="mnist_twophase"):
        read_logs(tmp_path).run("nope")


def test_every_spec_is_told_once_and_its_setting_exists():
    assert len({s.name for s in SPECS}) == len(SPECS) == len({s.file for s in SPECS})
    presets = {(s.preset, json.dumps(dict(s.changes), sort_keys=True)): s for s in SPECS if s.preset is not None}
    for s in presets.values():
        protocol = dataclasses.replace(_log(s), spec=s).protocol
        for field, value in (("depth", "depth"), ("width", "width"), ("activation", "activation")):
            if value in s.condition and s.condition["architecture"] == "mlp":
                assert getattr(protocol, field) == s.condition[value]
        assert protocol.decays == (s.condition["decay"],)


def _log(spec):
    from experiments.published.logs import Log

    return Log(spec, np.array([10]), np.array([1]), {"nc1": np.array([0.1]), "fn": np.array([1.0])})


# What is made of them


def test_the_std_of_seeds_tells_its_ddof():
    values = [310.0, 290.0, 290.0]
    found = {text: witness.spread("t", "T_NC", Spread(Printed("297"), Printed(text)), values, "") for text in ("9", "12", "20")}
    assert found["9"].verdict is Verdict.AGREES and found["9"].numbers["ddof"] == 0
    assert found["12"].verdict is Verdict.AGREES and found["12"].numbers["ddof"] == 1
    assert found["20"].verdict is Verdict.DISAGREES
    assert witness.spread("t", "T_NC", Spread(Printed("290"), Printed("9")), values, "").verdict is Verdict.DISAGREES


def test_a_table_follows_its_seeds_and_a_changed_seed_is_found(tmp_path):
    write(tmp_path, "depth2_s0.csv")
    seeds = {128: (400, 370, 380), 256: (320, 320, 340), 512: (320, 300, 310), 1024: (250, 270, 250)}
    norms = {128: (1.1433, 1.3513, 1.2269), 256: (1.1002, 1.1029, 1.1718), 512: (1.08, 1.093, 1.1144),
             1024: (1.0282, 1.0667, 1.1437)}  # fmt: skip
    rows = [(w, s, seeds[w][s], norms[w][s]) for w in seeds for s in range(3)]
    table(tmp_path, "sweep_width.csv", rows)
    assert {c.verdict for c in tables.table_7(read_logs(tmp_path))} == {Verdict.AGREES}
    table(tmp_path, "sweep_width.csv", [(128, 0, 300, 1.1433), *rows[1:]])
    wrong = [c.what for c in tables.table_7(read_logs(tmp_path)) if c.verdict is not Verdict.AGREES]
    assert wrong == ["T_NC, width 128"]


def test_leads_leave_out_the_run_that_they_predict(tmp_path):
    head = "epoch,phase,nc1,feat_norm,train_loss"
    falls = {0: 1.0, 1: 1.2, 2: 1.4}  # fn at T_NC = 300; it falls by 0.01 an epoch from 300 on backwards
    for seed, star in falls.items():
        lines = [head]
        for e in range(10, 401, 10):
            nc1, fn = 0.009 if e >= 300 else 0.1, star + max(0, 300 - e) * 0.01
            lines.append(f"{e},{1 if e <= 200 else 2},{nc1},{fn:.4f},{1 / e:.6f}")
        path = tmp_path / f"early_warning/e8_mlp_mnist_adam_s{seed}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    some = read_logs(tmp_path).runs
    # Thresholds without the run itself: 1.3, 1.2, 1.1. Run 0 is below 1.3 from 280 on, runs 1 and 2 never below theirs.
    found = leads.leads(some, "fn", 2)
    assert found[0] == 20 and math.isnan(found[1]) and math.isnan(found[2])
    assert leads.cross(some[0], 1.3) == 280 and math.isnan(leads.cross(some[0], 0.9))
    assert leads.cross(some[0], 0.02, "train_loss", None) == 60 and leads.cross(some[0], 0.02, "train_loss", 2) == 210


def test_seeds_that_disagree_are_told_and_stopped_runs_are_not_blamed(tmp_path):
    write(tmp_path, "depth2_s0.csv", nc1=lambda e: 0.04 if e > 230 else 0.2, fn=1.0, collapse=240)
    write(tmp_path, "depth2_s1.csv", nc1=lambda e: 0.04 if e > 230 else 0.2, fn=2.0, collapse=240)
    write(tmp_path, "depth7_s0.csv", collapse=340, last=340, fn=1.10, nc1=lambda e: 0.009 if e >= 340 else 0.2)
    write(tmp_path, "depth7_s1.csv", collapse=350, last=350, fn=1.11, nc1=lambda e: 0.009 if e >= 350 else 0.2)
    found = groups(read_logs(tmp_path))
    said = disagreements(found)
    assert any("depth 2: fn at the end 1.00, 2.00" in line for line in said)
    assert not any("depth 7" in line for line in said)
    deep = next(g for g in found if g.label == "depth 7")
    assert deep.stopped and deep.censored(0.01).crossed == 2 and deep.censored(0.005).crossed == 0
    order = {row["threshold"]: [d["depth"] for d in row["order"]] for row in depth_orders(found)}
    assert order[0.05] == ["2", "7"] and order[0.01] == ["7", "2"]


def test_one_seed_that_crosses_and_one_that_does_not(tmp_path):
    write(tmp_path, "width128_s0.csv", collapse=300)
    write(tmp_path, "width128_s1.csv", collapse=None)
    (g,) = groups(read_logs(tmp_path))
    assert str(g.censored(0.01)) == "1 of 2 crossed, median 300"
    assert "width 128: 1 of 2 seeds pass NC1 < 0.01" in disagreements([g])
    assert runs.row(g.runs[1], 0.01)["phase_at_t_nc"] is None and json.dumps(runs.row(g.runs[0], 0.01))


def test_what_lacks_its_file_is_listed_and_not_dropped(tmp_path, capsys):
    write(tmp_path, "depth7_s0.csv", collapse=340)
    found = audit_logs(read_logs(tmp_path))
    assert found.skipped["Table 7"] == "sweep_width.csv" and found.skipped["baseline"] == "mnist_twophase.csv"
    assert all(r.standing is Standing.UNCHECKED and r.missing for r in found.readings) and len(found.readings) == 11
    assert main(["audit", "--logs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Table 7: sweep_width.csv is not there" in said and max(map(len, said.splitlines())) <= 100
    assert main(["audit", "--logs", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert report["logs"]["skipped"]["Table 7"] == "sweep_width.csv"
    assert report["logs"]["conditions"][0]["runs"][0]["t_nc"] == 340


def test_a_reading_is_refuted_by_logs_that_say_otherwise(tmp_path):
    for seed in range(3):
        write(tmp_path, f"wd0p0005_s{seed}.csv", collapse=300, fn=1.05)  # these collapse
    found = {r.claim.id: r for r in audit_logs(read_logs(tmp_path)).readings}
    assert found["f"].standing is Standing.REFUTED
    write(tmp_path, "actGELU_s0.csv", nc1=lambda e: 0.9 if e > 300 else 0.0463 if e == 240 else 0.2)  # this one diverges
    found = {r.claim.id: r for r in audit_logs(read_logs(tmp_path)).readings}
    assert found["j"].standing is Standing.IN_PART
    assert [c.verdict for c in found["j"].checks] == [Verdict.AGREES, Verdict.DISAGREES, Verdict.DISAGREES]


# The authors' own


@pytest.mark.skipif(REAL is None, reason="NCFLOW_LOGS is not set")
def test_the_authors_logs():
    logs = read_logs(find_logs(None) or "")
    assert logs.missing == ()
    found = audit_logs(logs)
    assert not found.skipped
    by = {(c.where, c.what): c for c in found.checks}
    assert by["Table 6", "ANOVA F, from the width sweep and ResNet-20/CIFAR-10"].verdict is Verdict.AGREES
    assert by["summary files", "T_NC and fn of the summaries are those of the logs"].verdict is Verdict.AGREES
    assert by["Table 3", "tanh: T_NC is the first epoch with NC1 < 0.05"].verdict is Verdict.DISAGREES
    standing = {r.claim.id: r.standing for r in found.readings}
    assert standing == {k: Standing.IN_PART if k in "bk" else Standing.CONFIRMED for k in "abcdefghijk"}
