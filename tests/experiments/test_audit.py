"""The audit of the paper's own numbers: honest roundings pass, wrong numbers do not, and the findings come from the numbers."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from experiments.audit import Check, Verdict, audit_tables, counts
from experiments.audit.check import compare, decimals, either, number, over
from experiments.audit.paper import epochs, interventions, pooling, tables, widths
from experiments.audit.paper.widths import mlp_parameters, resnet20_parameters
from experiments.cli import main
from experiments.published import Printed, Row, Spread, published
from experiments.statistics import anova, summary


@pytest.fixture(scope="module")
def checks():
    return audit_tables()


def one(checks: list[Check], where: str, what: str) -> Check:
    found = [c for c in checks if c.where == where and c.what.startswith(what)]
    assert len(found) == 1, (where, what, len(found))
    return found[0]


def printed(value: float, digits: int) -> Printed:
    return Printed(f"{value:.{digits}f}")


def changed(monkeypatch, module, claim: str, **values: str) -> None:
    """`module` sees published numbers in which a claim says something else."""
    p = published()
    new = tuple(dataclasses.replace(c, values={**c.values, **{k: Printed(v) for k, v in values.items()}}) if c.id == claim else c
                for c in p.claims)  # fmt: skip
    monkeypatch.setattr(module, "published", lambda: dataclasses.replace(p, claims=new))


# Rounding


@given(st.floats(0.5, 9), st.floats(0.5, 9), st.integers(2, 4), st.integers(0, 3))
@settings(deadline=None)
def test_true_ratios_survive_their_roundings(a, b, digits, shown):
    stated = printed(a / b, shown)
    found = over(lambda x, y: x / y, printed(a, digits), printed(b, digits))
    assert compare(stated, found) is Verdict.AGREES
    assert found.low <= a / b <= found.high


@given(st.lists(st.floats(0.8, 1.3), min_size=3, max_size=5), st.sampled_from([0, 1]))
@settings(deadline=None, max_examples=50)
def test_true_cvs_survive_their_roundings(values, ddof):
    s = summary(values, ddof)
    assume(s.std > 0.002)
    found = over(lambda m, d: 100 * d / m, printed(s.mean, 3), printed(s.std, 3))
    assert compare(printed(100 * s.cv, 1), found) is Verdict.AGREES


def test_what_is_off_by_less_than_a_unit_is_a_slip_and_by_more_is_not():
    exact = over(lambda x: x, Printed("1.0000"))
    verdicts = [compare(Printed(text), exact) for text in ("1.00", "1.01", "1.02", "0.99")]
    assert verdicts == [Verdict.AGREES, Verdict.SLIP, Verdict.DISAGREES, Verdict.SLIP]
    assert decimals(Printed("12")) == 0 and decimals(Printed("0.056")) == 3 and decimals(Printed("~130")) == 0


def test_one_of_several_ways_is_enough_and_is_named():
    ways = {"ddof 0": over(lambda x: x, Printed("0.053")), "ddof 1": over(lambda x: x, Printed("0.065"))}
    right = either("t", "std", Printed("0.065"), ways, "")
    assert right.verdict is Verdict.AGREES and right.note == "as ddof 1"
    assert either("t", "std", Printed("0.099"), ways, "").verdict is Verdict.DISAGREES
    assert number("t", "n", Printed("3"), over(lambda: 3.0), "").found == "3"


# Times and ddof


@given(st.lists(st.integers(21, 45), min_size=3, max_size=3), st.sampled_from([0, 1]))
@settings(deadline=None, max_examples=40)
def test_times_on_the_grid_are_found_with_their_ddof(tens, ddof):
    values = [10 * t for t in tens]
    assume(len(set(values)) > 1)
    s = summary(values, ddof)
    found = epochs.times(Spread(printed(s.mean, 0), printed(s.std, 0)), 3)
    assert found.on_grid and ddof in found.ddofs
    assert tuple(sorted(values)) in found.sets[ddof]


def test_times_off_the_grid_are_told():
    found = epochs.times(Spread(Printed("285"), Printed("20")), 3)  # 3 x 285 is no multiple of 10, nor are its neighbours
    assert not found.on_grid and found.ddofs == () and found.chance == pytest.approx(0.3)


# Pooling


@given(st.lists(st.lists(st.floats(0.9, 1.5), min_size=3, max_size=3), min_size=2, max_size=3))
@settings(deadline=None, max_examples=30)
def test_pooled_holds_the_mean_and_std_of_the_values_themselves(groups):
    rows = []
    for n, g in enumerate(groups):
        s = summary(g, n % 2)
        rows.append(Row(str(n), 3, {}, {"fn": Spread(printed(s.mean, 3), printed(s.std, 3))}))
    mean, spread = pooling.pooled(rows)
    every = np.concatenate(groups)
    assert mean.low - 1e-12 <= every.mean() <= mean.high + 1e-12
    for ddof in (0, 1):
        assert spread[f"ddof {ddof}"].low - 1e-5 <= every.std(ddof=ddof) <= spread[f"ddof {ddof}"].high + 1e-5


@pytest.mark.parametrize("chosen", [(0, 2, 5), (1, 3, 4), (5, 6, 7)])
def test_the_rows_behind_a_pooled_number_are_found(chosen):
    rows = [pooling.conditions()[k] for k in chosen]
    mean, spread = pooling.pooled([row for _, row in rows])
    stated = Spread(printed(mean.value, 3), printed(spread["ddof 1"].value, 3))
    assert " + ".join(name for name, _ in rows) in pooling.reproducing(stated, 9)
    assert pooling.reproducing(Spread(Printed("3.000"), Printed("0.100")), 9) == []


# Parameters


def test_parameters_are_those_of_networks():
    layers = [torch.nn.Linear(784, 512), *(torch.nn.Linear(512, 512) for _ in range(4)), torch.nn.Linear(512, 10)]
    assert mlp_parameters(512) == sum(p.numel() for layer in layers for p in layer.parameters())

    def conv(a: int, b: int, size: int = 3) -> int:
        block = torch.nn.Sequential(torch.nn.Conv2d(a, b, size, bias=False), torch.nn.BatchNorm2d(b))
        return sum(p.numel() for p in block.parameters())

    stages = sum(conv(max(w // 2, 16), w) + 5 * conv(w, w) for w in (16, 32, 64))
    plain = conv(3, 16) + stages + 650
    assert resnet20_parameters() == {"A": plain, "B": plain + conv(16, 32, 1) + conv(32, 64, 1)}


# Findings


def test_every_check_says_what_it_did(checks):
    assert len(checks) > 100 and sum(counts(checks).values()) == len(checks)
    for c in checks:
        assert c.where and c.what and c.stated and c.found and c.arithmetic
    assert json.loads(json.dumps([c.as_dict() for c in checks], allow_nan=False))
    names = [(c.where, c.what) for c in checks]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("where", "what", "verdict"), [
    ("Table 1", "ratio, depth 7", Verdict.AGREES),
    ("Table 5", "fn*, depth sweep", Verdict.DISAGREES),
    ("Table 5", "fn*, decay sweep", Verdict.DISAGREES),
    ("Table 5", "fn*, width sweep", Verdict.AGREES),
    ("Table 6", "95% t-interval, MLP-5 on MNIST", Verdict.DISAGREES),
    ("Table 6", "95% t-interval, ResNet-20 on MNIST", Verdict.AGREES),
    ("Table 6", "ANOVA between the four pairs, F", Verdict.DISAGREES),
    ("Table 7", "parameters, width 512", Verdict.DISAGREES),
    ("Figure 5", "all nine values", Verdict.DISAGREES),
    ("Section 2.3", "cross-entropy alone does not collapse", Verdict.DISAGREES),
    ("Section 5.5", "ResNet-20/MNIST above the multiplicative prediction", Verdict.AGREES),
    ("Section 5.6", "exponent of width", Verdict.AGREES),
    ("Section 6.4", "the scaled-down arm starts", Verdict.DISAGREES),
    ("Abstract", "fn* of scale-up equals", Verdict.DISAGREES),
    ("Abstract", "fn* of scale-down equals", Verdict.AGREES),
])  # fmt: skip
def test_what_was_worked_out_by_hand(checks, where, what, verdict):
    assert one(checks, where, what).verdict is verdict


def test_the_decay_row_comes_from_another_width_row(checks):
    assert "width 512 (Table 7)" in one(checks, "Table 5", "fn*, decay sweep").note


def test_ddof_is_mixed_within_table_4(checks):
    assert "Table 4 mixes both" in one(checks, "Tables 2-8", "standard deviations").note


def test_a_right_f_would_pass(monkeypatch):
    rows = [r for r in published().table(6).rows if r.n is not None]
    # Seeds with just these means and standard deviations (ddof 1), and what an ANOVA of the seeds themselves says.
    groups = []
    for r in rows:
        z = np.arange(r.n) - (r.n - 1) / 2
        groups.append(r["fn"].mean.value + z / z.std(ddof=1) * r["fn"].std.value)
    changed(monkeypatch, pooling, "grid.anova", f=f"{anova(groups).statistic:.2f}")
    assert pooling.analysis_of_variance()[0].verdict is Verdict.AGREES


def test_a_right_parameter_range_would_pass(monkeypatch):
    changed(monkeypatch, widths, "width.parameters", parameter_factor=f"{mlp_parameters(1024) / mlp_parameters(128):.0f}")
    assert [c.verdict for c in widths.checks() if c.where == "Section 6.5"] == [Verdict.AGREES]


def test_wrong_p_would_not_pass(monkeypatch):
    p = published()
    rows = [dataclasses.replace(r, cells={**r.cells, "p": Printed("0.02")}) if "p" in r.cells else r for r in p.table(8).rows]
    new = [dataclasses.replace(t, rows=tuple(rows)) if t.number == 8 else t for t in p.tables]
    monkeypatch.setattr(tables, "published", lambda: dataclasses.replace(p, tables=tuple(new)))
    assert [c.verdict for c in tables.table_8() if c.what.startswith("p of")] == [Verdict.DISAGREES] * 2


def test_an_arm_that_starts_below_would_pass(monkeypatch):
    p = published()
    rows = [dataclasses.replace(r, cells={**r.cells, "fn_after": Printed("0.4")}) if r.label == "scale-down" else r
            for r in p.table(8).rows]  # fmt: skip
    new = [dataclasses.replace(t, rows=tuple(rows)) if t.number == 8 else t for t in p.tables]
    monkeypatch.setattr(interventions, "published", lambda: dataclasses.replace(p, tables=tuple(new)))
    assert interventions.checks()[0].verdict is Verdict.AGREES


# The command


def test_the_command_prints_within_a_hundred_columns(capsys, monkeypatch, checks):
    monkeypatch.delenv("NCFLOW_LOGS", raising=False)
    assert main(["audit"]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and max(map(len, printed.out.splitlines())) <= 100
    n = counts(checks)
    tally = " ".join(printed.out.split())
    agree, slip, not_so = n.values()
    assert f"{agree} agree, {slip} are off in the last digit, {not_so} do not agree" in tally
    assert "--logs FOLDER" in printed.out


def test_the_command_prints_one_json_object_and_writes_files_whole(capsys, monkeypatch, tmp_path, checks):
    monkeypatch.delenv("NCFLOW_LOGS", raising=False)
    assert main(["audit", "--json", "--out", str(tmp_path / "a")]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert printed.err == "" and report["logs"] is None
    assert report["paper"]["counts"] == counts(checks) and len(report["paper"]["checks"]) == len(checks)
    assert sorted(f.name for f in (tmp_path / "a").iterdir()) == ["audit.csv", "audit.json"]
    assert len((tmp_path / "a" / "audit.csv").read_text().splitlines()) == len(checks) + 1
    assert all(math.isfinite(c["found_value"]) for c in report["paper"]["checks"] if "found_value" in c)


@pytest.mark.parametrize(("args", "names"), [
    (["--logs", "nowhere"], ["logs", "'nowhere'", "folder"]),
    (["--frobnicate"], ["--frobnicate"]),
])  # fmt: skip
def test_bad_input_is_one_line(capsys, args, names):
    assert main(["audit", *args]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    for name in names:
        assert name in printed.err


def test_help_has_an_example(capsys):
    assert main(["audit", "--help"]) == 0
    assert "ncflow audit --logs FOLDER" in capsys.readouterr().out
