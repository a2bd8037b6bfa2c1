"""`ncflow theory` and `ncflow theory phase`: the numbers are those of `theory`, bad input is one line, files are whole."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from matplotlib.mathtext import MathTextParser

import theory
from experiments.cli import main
from experiments.phase import PAPER, Space, phase, placed
from experiments.theory_model import Setting, _load, build, describe
from experiments.theory_report import Rescaled, document, report
from experiments.theory_sweep import COLUMNS, axis
from ncflow import UFM, Decay, DeepLinear, Isotropic
from theory import derivations, derivations_dynamics
from theory.existence import existence


def said(capsys, *args):
    """The JSON that the command line prints, and nothing else."""
    assert main([*args, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return json.loads(printed.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize(("args", "names"), [
    (["theory", "--model", "nope"], ["model", "'nope'", "deep_linear"]),
    (["theory", "--loss", "nope"], ["loss", "'nope'", "cross_entropy"]),
    (["theory", "--decay", "0"], ["decay", "greater than 0"]),
    (["theory", "--decay", "-1"], ["decay", "-1"]),
    (["theory", "--weight-decay", "1e-3", "1e-3"], ["decay.weights", "1 or 1"]),
    (["theory", "--width", "3"], ["width", "3", "at least 4"]),
    (["theory", "--classes", "1"], ["classes", "1"]),
    (["theory", "--samples-per-class", "3", "4"], ["samples_per_class", "4"]),
    (["theory", "--amplitude", "2"], ["amplitude", "deep_linear"]),
    (["theory", "--model", "deep_linear", "--mobility", "2"], ["mobility", "ufm"]),
    (["theory", "--bias-decay", "1e-3"], ["bias_decay", "decayed"]),
    (["theory", "--threshold", "0"], ["threshold", "between 0 and 1"]),
    (["theory", "--signal", "2"], ["signal", "2"]),
    (["theory", "--activation", "tanh", "--layers", "2"], ["activation", "'tanh'"]),
    (["theory", "--sweep", "decay"], ["sweep", "LOW:HIGH"]),
    (["theory", "--sweep", "colour=1:2:lin:3"], ["sweep", "decay"]),
    (["theory", "--sweep", "decay=0:1:log:10"], ["sweep", "above 0"]),
    (["theory", "--sweep", "decay=1:0.1:log:10"], ["sweep", "LOW below HIGH"]),
    (["theory", "--sweep", "decay=a:b:log:10"], ["sweep", "'decay=a:b:log:10'"]),
    (["theory", "--sweep", "decay=1e-3:1e-1:log:1"], ["sweep", "points"]),
    (["theory", "--sweep", "decay=1e-3:1e-1:log:5", "--latex"], ["sweep", "--latex"]),
    (["theory", "--sweep", "mobility=1:2:lin:3", "--model", "deep_linear"], ["mobility", "ufm"]),
    (["theory", "--sweep", "width=2:8:lin:3"], ["width", "at least 4"]),
    (["theory", "--alpha", "0"], ["alpha", "greater than 0"]),
    (["theory", "--alpha", "2", "--sweep", "decay=1e-3:1e-1:log:5"], ["sweep", "--alpha"]),
    (["theory", "--dataset", "digits"], ["dataset", "deep_linear"]),
    (["theory", "--model", "deep_linear", "--dataset", "nope"], ["dataset", "'nope'", "digits"]),
    (["theory", "--model", "deep_linear", "--dataset", "digits", "--classes", "3"], ["classes", "3", "left out"]),
    (["theory", "--model", "deep_linear", "--dataset", "digits", "--noise", "1"], ["noise", "isotropic"]),
    (["theory", "--model", "deep_linear", "--subset", "50"], ["subset", "50", "--dataset"]),
    (["theory", "phase", "--layers", "3"], ["layers", "LOW HIGH"]),
    (["theory", "phase", "--decays", "1", "0.1"], ["decays", "LOW < HIGH"]),
    (["theory", "phase", "--noise", "1", "--inputs", "50"], ["inputs", "50", "100"]),
    (["theory", "phase", "--bias", "decayed"], ["bias", "'decayed'"]),
    (["theory", "phase", "--threshold", "2"], ["threshold", "2"]),
])
def test_bad_input_is_one_line(args, names, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*args, "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    for name in names:
        assert name in printed.err
    assert not out.exists()


def test_json_is_what_theory_says(capsys):
    found = said(capsys, "theory", "--classes", "5", "--layers", "2", "--bias", "free", "--width", "9", "7", "--weight-decay",
                 "2e-3", "1e-3", "--feature-decay", "5e-4", "--mobility", "3", "--spectrum")
    model = UFM(classes=5, layers=2, bias="free", width=(9, 7), mobility=3.0, decay=Decay(weights=[[2e-3, 1e-3]], features=5e-4))
    point, rates, fold = theory.fixed_point(model), theory.rates(model), theory.fold(model)
    at = found["fixed_point"]
    assert at["feature_norm"] == point.feature_norm and at["weight_norms"] == point.weight_norms.tolist()
    assert at["loss"] == point.loss and at["signal"] == point.signal and at["status"] == "exact"
    assert [r["branch"] for r in at["other_roots"]] == ["saddle"]
    assert at["other_roots"][0]["feature_norm"] == point.other_roots[0].feature_norm
    for name in ("nc1", "nc1_first", "fn", "signal"):
        assert found["rates"][name]["value"] == getattr(rates, name).value
    assert found["rates"]["balance"]["value"] is None  # unequal decays
    assert found["boundaries"]["fold"]["factor"] == fold.factor
    assert found["boundaries"]["maxwell"]["decay"] == theory.maxwell(model).decay
    assert found["boundaries"]["minority_threshold"]["not_known"].startswith("bias = 'free'")
    assert found["time_to_collapse"]["time"] == theory.time_to_collapse(model).time
    assert found["lead_time"]["lead"] == theory.lead_time(model).lead
    spectrum = theory.spectrum(model)
    assert found["spectrum"]["zeros"] == spectrum.zeros and found["spectrum"]["parameters"] == spectrum.eigenvalues.size
    assert found["latex"]["Fixed point: fixed point"] == {"latex": point.formula, "status": "exact"}
    assert found["latex"]["Rates: balance"]["latex"] == rates.balance.formula


def test_the_model_is_named_first(capsys):
    args = ["--layers", "2", "--weight-decay", "1e-3", "2e-3", "--nonnegative", "--loss", "focal", "--focal-gamma", "2"]
    assert main(["theory", *args]) == 0
    first = capsys.readouterr().out.split("\n\n")[0].replace("\n", " ")
    for words in ("free features", "K = 4", "M = 2", "focal", "gamma 2", "weight decay 0.001, 0.002", "H >= 0"):
        assert words in first
    assert "c = " not in first and "smoothing" not in first


def test_every_entry_says_what_it_rests_on(capsys):
    found = said(capsys, "theory", "--layers", "3", "--classes", "6", "--activation", "relu", "--bias", "free", "--spectrum")
    soft = said(capsys, "theory", "--loss", "cross_entropy")
    plain = said(capsys, "theory", "--layers", "2", "--alpha", "2", "--spectrum")
    for entry in (found["fixed_point"], found["boundaries"]["fold"], soft["boundaries"]["fold"], soft["rates"]["nc1_first"],
                  *plain["rates"].values(), plain["boundaries"]["maxwell"], plain["time_to_collapse"], plain["lead_time"],
                  plain["spectrum"], plain["rescaled"], plain["boundaries"]["minority_threshold"]):
        assert entry["status"] in ("exact", "asymptotic", "empirical", "numerical")
        assert entry["assumptions"] and entry["source"]
    assert [r["branch"] for r in found["fixed_point"]["other_roots"]] == ["saddle", "pairs"]
    assert soft["boundaries"]["fold"]["decay"] == pytest.approx(1 / 40, rel=1e-12)


def test_rescaled_layer(capsys):
    args = ["--layers", "3", "--decay", "2e-3", "--alpha", "0.3", "1", "3", "--tolerance", "0.02"]
    found = said(capsys, "theory", *args)["rescaled"]
    model = UFM(classes=4, layers=3, decay=2e-3)
    times = np.array(found["times"])
    response = theory.intervention_response(model, [0.3, 1.0, 3.0], times)
    assert [row["alpha"] for row in found["rows"]] == [0.3, 1.0, 3.0]
    for i, row in enumerate(found["rows"]):
        np.testing.assert_allclose(row["feature_norm"], response.feature_norm[i], rtol=1e-12)
        assert row["start"] == pytest.approx(response.start[i], rel=1e-12)
        late = theory.intervention_response(model, row["alpha"], [row["back"], 2 * row["back"]]).feature_norm
        assert np.all(np.abs(late / response.fn_inf - 1) <= 0.021)
    assert found["rows"][1]["back"] == 0.0 and found["rows"][2]["back"] > found["settled"]
    known = report(UFM(classes=4, layers=2, loss="cross_entropy"), rescaled=Rescaled(alphas=(2.0,)))
    assert known["rescaled"]["not_known"].startswith("loss = 'cross_entropy'")
    assert main(["theory", "--alpha", "0.3", "3", "--layer", "-1"]) == 0
    assert "multiplied by alpha" in capsys.readouterr().out


def test_real_inputs(capsys):
    args = ["theory", "--model", "deep_linear", "--dataset", "digits", "--subset", "20", "--layers", "2", "--loss-scale", "0.1",
            "--decay", "1e-3"]
    found = said(capsys, *args)
    x, y, classes = _load("digits", 20, None)
    model = DeepLinear(inputs=x, classes=classes, samples_per_class=np.bincount(y).tolist(), width=10, layers=2, decay=1e-3,
                       loss_scale=0.1)
    assert found["fixed_point"]["feature_norm"] == theory.fixed_point(model).feature_norm
    assert found["fixed_point"]["status"] == "numerical" and found["fixed_point"]["stationarity"] < 1e-10
    assert found["boundaries"]["floor"]["nc1"] == theory.floor(model).nc1
    assert found["boundaries"]["fold"]["status"] == "numerical" and found["boundaries"]["fold"]["factor"] > 1
    assert "20 samples of 64 inputs" in describe(Setting(model="deep_linear", dataset="digits"), model)


def test_data_tied(capsys):
    found = said(capsys, "theory", "--model", "deep_linear", "--layers", "3", "--amplitude", "2", "--noise", "0.3",
                 "--decay", "1e-3")
    model = DeepLinear(inputs=Isotropic(2.0, 0.3), classes=4, layers=3, decay=1e-3)
    assert found["fixed_point"]["feature_norm"] == theory.fixed_point(model).feature_norm
    assert found["boundaries"]["floor"]["nc1"] == theory.floor(model).nc1
    assert found["boundaries"]["floor_boundary"]["decay"] == 0.0  # the floor is above the threshold at any decay
    assert found["regime"]["name"] == "floor" and found["time_to_collapse"]["time"] is None  # infinite


MODELS = [
    {}, {"layers": 3, "bias": "free"}, {"bias": "decayed"}, {"classes": 3, "samples_per_class": (3, 5, 9)},
    {"loss": "cross_entropy", "bias": "free"}, {"loss": "cross_entropy", "layers": 2}, {"loss": "focal", "focal_gamma": 2.0},
    {"loss": "label_smoothing", "smoothing": 0.1}, {"layers": 3, "activation": "relu", "bias": "free"},
    {"nonnegative": True, "bias": "decayed"}, {"classifier": "etf", "loss": "cross_entropy"},
    {"normalization": "batch", "bias": "free", "streams": 2},
    {"model": "deep_linear", "layers": 4, "noise": 0.2}, {"model": "deep_linear", "layers": 1},
]


@pytest.mark.parametrize("fields", MODELS)
def test_every_model_has_a_report_and_latex(fields):
    """Numbers or the assumption that fails; a document whose braces and environments close, mathtext permitting its formulas."""
    found = report(build(Setting(**fields)), spectrum=True)
    assert found["fixed_point"]["exists"]
    for entry in (found["rates"], found["regime"], found["time_to_collapse"], found["lead_time"], *found["boundaries"].values()):
        assert "not_known" not in entry or " = " in entry["not_known"]
    text = document(found)
    assert text.startswith(r"\documentclass") and text.endswith(r"\end{document}")
    for open_, close in (("{", "}"), (r"\[", r"\]")):
        assert text.count(open_) - (2 * text.count(r"\{") if open_ == "{" else 0) == \
            text.count(close) - (2 * text.count(r"\}") if open_ == "{" else 0)
    assert text.count(r"\left") == text.count(r"\right")
    assert sorted(re.findall(r"\\begin{(\w+)}", text)) == sorted(re.findall(r"\\end{(\w+)}", text))
    parser = MathTextParser("path")
    formulas = re.findall(r"\\\[\n(.*?)\n\\\]", text, flags=re.DOTALL)
    assert formulas
    for latex in formulas:
        # what amsmath has and mathtext lacks
        if r"\begin" not in latex:
            parser.parse("$" + latex.replace(r"\operatorname{spec}", r"\mathrm{spec}").replace(r"\displaystyle", "")
                         .replace(r"\le ", r"\leq ").replace(r"\operatorname", r"\mathrm") + "$")


def test_latex_is_a_document_and_nothing_else(capsys):
    assert main(["theory", "--latex", "--layers", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(r"\documentclass") and printed.rstrip().endswith(r"\end{document}")
    assert derivations.latex("mode") in printed and derivations_dynamics.latex("fold") in printed
    assert derivations_dynamics.latex("balance") in printed


@pytest.mark.parametrize("args", [[], ["--loss", "cross_entropy"], ["--model", "deep_linear", "--layers", "3", "--noise", "1"],
                                  ["--spectrum", "--layers", "2", "--decay", "1"]])
def test_terminal(args, capsys):
    assert main(["theory", *args]) == 0
    printed = capsys.readouterr()
    assert "Where it rests" in printed.out and printed.err == "" and "nan" not in printed.out
    assert max(map(len, printed.out.splitlines())) <= 80 or "not known" in printed.out.lower()


def test_sweep_beyond_the_fold(tmp_path, capsys):
    found = said(capsys, "theory", "--layers", "2", "--sweep", "decay=1e-3:1e-1:log:40", "--signal", "0.5", "--scatter", "3",
                 "--out", str(tmp_path))
    values, columns = np.array(found["values"]), found["columns"]
    assert len(values) == 40 and set(columns) == set(COLUMNS)
    fold = theory.fold(UFM(classes=4, layers=2)).decay
    np.testing.assert_allclose(found["edges"], [fold], rtol=1e-10)
    alive = np.array(columns["exists"])
    np.testing.assert_array_equal(alive, values < fold)
    assert 0 < alive.sum() < 40
    for i in (0, int(alive.sum()) - 1):
        one = UFM(classes=4, layers=2, decay=float(values[i]))
        point, time = theory.fixed_point(one), theory.time_to_collapse(one, signal=0.5, scatter=3.0)
        assert columns["feature_norm"][i] == point.feature_norm
        assert columns["saddle_signal"][i] == pytest.approx(point.other_roots[0].signal, rel=1e-12)
        assert columns["t_nc"][i] == pytest.approx(time.time, rel=1e-9)
        assert columns["nc1_rate"][i] == pytest.approx(theory.rates(one).nc1.value, rel=1e-12)
    assert columns["regime"][-1] == "vanishing" and columns["t_nc"][-1] is None and columns["feature_norm"][-1] == 0
    rows = list(csv.DictReader((tmp_path / "theory-decay" / "sweep.csv").read_text().splitlines()))
    assert len(rows) == 40 and rows[-1]["exists"] == "False" and rows[-1]["t_nc"] == "inf"
    assert float(rows[0]["feature_norm"]) == columns["feature_norm"][0]
    assert (tmp_path / "theory-decay" / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "theory-decay" / "sweep.json").read_text())["edges"] == found["edges"]


@pytest.mark.parametrize(("setting", "spec", "check"), [
    ({"layers": 2}, "layers=1:4:lin:4", lambda v: UFM(classes=4, layers=int(v))),
    ({}, "classes=2,4,8", lambda v: UFM(classes=int(v))),
    ({}, "loss_scale=0.1:1:lin:3", lambda v: UFM(classes=4, loss_scale=v)),
    ({"bias": "decayed"}, "bias_decay=1e-4:1:log:4", None),
    ({"loss": "cross_entropy"}, "decay=1e-3:1:log:4", lambda v: UFM(classes=4, loss="cross_entropy", decay=v)),
    ({"model": "deep_linear", "layers": 3}, "noise=0:1:lin:3", lambda v: DeepLinear(classes=4, layers=3, inputs=Isotropic(1, v))),
])
def test_other_sweeps(setting, spec, check, tmp_path, capsys):
    args = [w for key, value in setting.items() for w in (f"--{key}", str(value))]
    found = said(capsys, "theory", *args, "--sweep", spec, "--out", str(tmp_path))
    for i, value in enumerate(found["values"]):
        if check:
            assert found["columns"]["feature_norm"][i] == pytest.approx(theory.fixed_point(check(value)).feature_norm, rel=1e-12)
    if spec.startswith("bias_decay"):  # lanes for which T_NC is not known leave the others alone
        assert found["columns"]["t_nc"][0] is not None and found["columns"]["t_nc"][-1] is None
        assert "mean mode" in found["not_known"]["t_nc"]
    if setting.get("loss"):
        assert found["columns"]["exists"] == [True, True, False, False]
        np.testing.assert_allclose(found["edges"], 1 / 40, rtol=1e-9)  # sqrt(n) decay = 1/K
        assert main(["theory", *args, "--sweep", spec, "--out", str(tmp_path)]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("Sweep of") and "ends at decay = 0.025." in printed and "never" not in printed


def test_unequal_classes_are_lost_one_by_one(tmp_path, capsys):
    args = ["theory", "--classes", "3", "--samples-per-class", "3", "10", "40", "--sweep", "decay=1e-2:0.3:log:20"]
    assert main([*args, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    model = UFM(classes=3, samples_per_class=(3, 10, 40))
    assert f"The first mode is lost at decay = {theory.fold(model).decay:.6g}." in printed
    low, high = map(float, re.search(r"ends between decay = (\S+) and (\S+)\.\n", printed).groups())
    assert low < theory.fold(model).last < high


def test_axis():
    assert axis("layers=1:8:lin:20")[1].tolist() == list(range(1, 9))
    name, values, scale = axis("weight-decay=1e-4:1e-2:log:3")
    assert (name, scale) == ("weight_decay", "log")
    np.testing.assert_allclose(values, [1e-4, 1e-3, 1e-2])


def test_existence_is_the_fold():
    for layers in (1, 3):
        model = UFM(classes=3, layers=layers, samples_per_class=7)
        assert existence(model) == pytest.approx(theory.fold(model).factor, rel=1e-9)


def test_phase_grid(tmp_path, capsys):
    args = ["theory", "phase", "--classes", "3", "--samples-per-class", "5", "--width", "8", "--decays", "1e-3", "0.2",
            "--points", "6", "--layers", "1", "3", "--noise", "0.5", "--amplitude", "2", "--inputs", "20", "--data-samples", "4"]
    found = said(capsys, *args, "--out", str(tmp_path))
    free, data = found["free_features"], found["data"]
    for i, layers in enumerate(found["layers"]):
        model = UFM(classes=3, samples_per_class=5, width=8, layers=layers, loss_scale=1 / 3, decay=found["decays"][2])
        time = theory.time_to_collapse(model)
        assert free["t_nc"][i][2] == pytest.approx(time.time, rel=1e-12)
        assert free["fold"][i] == theory.fold(model).decay and free["maxwell"][i] == theory.maxwell(model).decay
        gone = np.array(found["decays"]) > free["fold"][i]
        assert gone.any()
        for j in np.flatnonzero(gone):
            assert free["t_nc"][i][j] is None and free["regime"][i][j] == "vanishing"
    floors = np.array(data["floor"], dtype=float)
    assert floors[0, 0] == floors[0, -1]  # one layer: the NC1 of the data
    for i in (1, 2):
        assert np.isfinite(data["boundary"][i])
        below = np.array(found["decays"]) < data["boundary"][i]
        live = np.isfinite(floors[i])
        np.testing.assert_array_equal((floors[i] < 0.01)[live], below[live])
    assert (tmp_path / "theory-phase" / "phase.png").read_bytes()[:4] == b"\x89PNG"
    rows = list(csv.DictReader((tmp_path / "theory-phase" / "phase.csv").read_text().splitlines()))
    assert len(rows) == 18


def test_paper_is_placed_by_tension():
    """The linear network on orthogonal class means has the signal of free features at the decay where the mark sits."""
    space = Space(samples_per_class=7, amplitude=3.0)
    for mark, (_, depth, decay, _) in zip(placed(space), PAPER, strict=False):
        tied = DeepLinear(classes=10, samples_per_class=7, inputs=Isotropic(3.0), layers=depth + 1, decay=decay,
                          loss_scale=0.1, width=10)
        free = UFM(classes=10, samples_per_class=7, layers=depth, decay=mark["free_decay"], loss_scale=0.1)
        assert 1 - theory.fixed_point(tied).signal * 3.0 == pytest.approx(1 - theory.fixed_point(free).signal, rel=1e-6)
    resnet = placed(space)[-1]
    batch = UFM(classes=10, samples_per_class=7, normalization="batch", streams=4, bias="free", decay=1e-3, loss_scale=0.1)
    free = UFM(classes=10, samples_per_class=7, decay=resnet["free_decay"], loss_scale=0.1)
    assert 1 - theory.fixed_point(batch).signal == pytest.approx(1 - theory.fixed_point(free).signal, rel=1e-6)


def test_phase_without_noise_has_no_data():
    found = phase(Space(classes=3, loss_scale=0.5, points=3, layers=(1, 2)))
    assert found.data is None and found.json()["data"] is None
    assert np.isfinite(found.time[:, 0]).all()
