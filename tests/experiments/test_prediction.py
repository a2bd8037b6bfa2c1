"""The forecaster's trial against numbers worked out by hand, and what keeps its constants from what they are judged by."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from experiments.paper.evidence import Evidence, Row, gather
from experiments.paper.experiment import Judgement
from experiments.paper.networks import Network
from experiments.sweeps import Catalogue
from experiments.sweeps.work import work
from experiments.why import forecast_law, forecast_resnet, prediction
from experiments.why.forecast_law import (
    CALIBRATION,
    FROZEN,
    Case,
    Constants,
    Expected,
    Seen,
    cross_validated,
    fit,
    forecast,
    frozen,
)
from experiments.why.forecast_score import Pair, fn_rules, is_calibration, score, time_rules
from experiments.why.forecasting import Forecasting
from ncflow.errors import BadInput
from realnets import TwoPhase, preset

BASE = TwoPhase(subset=300, depth=2, width=12, batch_size=30, epochs_ce=2, epochs_mse=10, seeds=(0,), decays=(1e-3,),
                measure_every=1)  # fmt: skip
KNOWN = {"nc1_1": 0.4, "noise": 1e-3, "steps": 10.0, "kernel_fn": 2.0, "data_fn": 1.0, "means_fn": 4.0}
TRUE = Constants(rate=0.3, bulk=0.5, stir=2.0, floor=4.0, scale=0.7, imbalance=0.8)


def network(fn, nc1, **other):
    """Two epochs of phase 1 and as many of phase 2 as there are values."""
    time = np.arange(1.0, len(fn) + 3)
    phase = np.where(time <= 2, 1, 2)
    values = {name: np.concatenate([[9.0, 9.0], v]) for name, v in {"fn": fn, "nc1_trace_ratio": nc1, **other}.items()}
    for name in ("mse", "norm_product", "balance"):
        values.setdefault(name, np.full(len(time), 1.0))
    return Network("r", 0, time, phase, values, {1: "cross_entropy", 2: "mse"}, layers={"weight_norm": np.ones((len(time), 3))})


def pair(label, fn, t_nc, expected, *, calibration=False, networks=None, **changes):
    """A condition whose run ends after 12 epochs; t_nc 12 stands for never."""
    n = len(fn)
    epochs = np.arange(3.0, 13)
    drawn = zip(fn, t_nc, strict=True)
    nets = networks or tuple(network(np.full(10, v), np.where(epochs >= t, 0.001, 1.0)) for v, t in drawn)
    t = np.array(t_nc, float)
    hats = tuple(Expected(f, at, f * 0.9, f * 1.1, at - 2, at + 2, 0.9) for f, at in expected)
    return Pair(label, replace(BASE, **changes), calibration, nets, hats, np.array(fn, float), t, t < 12, 12.0,
                np.full(n, np.nan), np.full(n, np.nan))  # fmt: skip


def test_baselines_by_hand():
    calibration = [pair("c", [1.0, 1.2], [6, 8], [(1.0, 6), (1.0, 6)], calibration=True)]
    held_out = [pair("a", [1.0, 1.0], [5, 7], [(1.1, 6), (1.1, 6)], width=20),
                pair("b", [2.0, 2.0], [12, 12], [(1.8, np.inf), (1.8, 11)], width=20, dataset="mnist"),
                pair("d", [1.5, 1.5], [9, 9], [(1.5, 9), (1.5, 9)], width=30)]  # fmt: skip
    fn = {r.name: r.error for r in fn_rules(held_out, calibration)}
    np.testing.assert_allclose(fn["forecast"], [0.1, 0.1, 0.0], atol=1e-12)
    np.testing.assert_allclose(fn["one constant"], [0.1, 0.45, 1 - 1.1 / 1.5], atol=1e-12)
    np.testing.assert_allclose(fn["mean of the same width"], [1.0, 0.5, np.nan])
    np.testing.assert_allclose(fn["mean of the same data set"], [0.3, np.nan, 1 - 1.05 / 1.5], atol=1e-12)  # c and d; c and a
    assert np.isnan(fn["matched model alone"]).all()
    time = {r.name: r.error for r in time_rules(held_out, calibration)}
    np.testing.assert_allclose(time["forecast"], [1.0, 0.5, 0.0])
    np.testing.assert_allclose(time["one constant"], [1.0, 5.0, 2.0])  # 0.5 of phase 2 is epoch 7
    found = score([*calibration, *held_out])
    assert found is not None
    assert found.skill["T_NC, one constant"] == pytest.approx(1 - 0.5 / (8 / 3))
    assert found.skill["fn, mean of the same data set"] == pytest.approx(1 - 0.05 / ((0.3 + 0.3) / 2))
    assert found.fn_covered == pytest.approx(4 / 6)  # 2 is not within 1.8 +- 10%
    assert found.t_covered == pytest.approx(5 / 6)  # infinity is not within 9 to 13
    assert found.fn_order[0] == pytest.approx(1)
    assert score([*calibration, *held_out[:2]]) is None


def test_the_papers_rule_counts_every_run():
    """Threshold fn = 2 and lead 3 from the calibration; a crossing at 5 expects 8, one that never comes expects the end."""
    falling = np.array([4.0, 4, 1.9, 1.8, 1.8, 2.0, 2, 2, 2, 2])  # crosses 2 at epoch 5; collapses at 8, where fn is 2
    nc1 = np.where(np.arange(3.0, 13) >= 8, 0.001, 1.0)
    calibration = [pair("c", [2.0], [8], [(1, 8)], calibration=True, networks=(network(falling, nc1),))]
    late, high = network(falling, np.where(np.arange(3.0, 13) >= 10, 0.001, 1.0)), network(falling + 5, nc1)
    held_out = [pair("a", [2.0], [10], [(1, 8)], networks=(late,)), pair("b", [7.0], [8], [(1, 8)], networks=(high,))]
    rules = {r.name: r for r in time_rules(held_out, calibration)}
    np.testing.assert_allclose(rules["the paper's rule: fn"].error, [abs(5 + 3 - 10), 12 - 8])
    assert rules["the paper's rule: fn"].sees
    np.testing.assert_allclose(rules["the paper's rule: fn, from other seeds"].error, [12 - 10, 12 - 8])  # there are none


def cases():
    out = []
    for decay in (1e-4, 1e-3, 1e-2):
        setting = replace(BASE, decays=(decay,), epochs_mse=60)
        for seed in (0, 1):
            case = Case(setting, {**KNOWN, "noise": 1e-3 * (1 + seed)})
            out.append((case, Seen(np.arange(1.0, 61), case.nc1(TRUE)[1:], float(case.fn(TRUE)[-1]))))
    return out


def test_law_by_hand_and_fitted_back():
    (case, _), *_ = cases()
    u = np.exp(-0.3 * 1e-2 * 10 * sum(case.setting.rates(2, e)[0] for e in range(60)) / 1e-3)
    assert case.left(0.3)[-1] == pytest.approx(u)
    assert case.fn(TRUE)[-1] == pytest.approx(0.7 * np.sqrt(2.0 * 2.0) * (1 + 0.8 * u))
    assert case.nc1(TRUE)[0] == pytest.approx(0.5 * 0.4 * 3 + 4e-4)
    sgd = Case(replace(case.setting, optimiser="sgd", momentum=0.5), KNOWN)
    assert sgd.left(123.0)[1] == pytest.approx(np.exp(-2 * 1e-4 * 10 * case.rates[0] / 0.5))
    found = fit(cases())
    for name in ("rate", "bulk", "stir", "floor", "scale", "imbalance"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=1e-3), name
    every = cross_validated([cases()[i : i + 2] for i in (0, 2, 4)])
    assert every.fn_error < 0.5  # of an exact law only what three groups do not determine
    expected = forecast(case, replace(TRUE, fn_error=0.1, t_nc_error=0.2))
    below = np.flatnonzero(case.nc1(TRUE)[1:] < 0.01)
    assert expected.t_nc == (2 + 1 + below[0] if len(below) else np.inf)
    assert np.log(expected.fn_high / expected.fn) == pytest.approx(0.1 * 1.6448536)


def test_constants_are_frozen_and_saw_the_calibration_alone(monkeypatch):
    held = json.loads(FROZEN.read_text())
    assert [len(c["runs"]) > 0 for c in held["calibration"]] == [True] * len(CALIBRATION)
    assert {c["condition"] for c in held["calibration"]} == {f"{s.dataset}, decay {s.decays[0]:g}" for s in CALIBRATION}
    assert held["provenance"]["torch"]
    assert asdict(frozen()) == pytest.approx(held["constants"])
    monkeypatch.setattr(forecast_law, "fit", lambda cases: pytest.fail("fitted again"))
    made = prediction.conditions("laptop")
    roles = {c.label: c.parameters["role"] for c in made if isinstance(c.setting, TwoPhase)}
    assert sum(role == "calibration" for role in roles.values()) == len(CALIBRATION)
    assert {"Fashion-MNIST", "CIFAR-10", "MNIST, width 64", "digits, depth 2"} <= {k for k, v in roles.items() if v == "held out"}
    assert not is_calibration(preset("digits", decays=(1e-4,), seeds=(0, 1, 2), width=32))
    assert is_calibration(preset("digits", decays=(1e-4,), seeds=(5,), measure_every=1))


def test_constants_that_are_not_there(tmp_path):
    with pytest.raises(BadInput, match="forecast_law wrote"):
        frozen(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"constants": {"rate": 1}}')
    with pytest.raises(BadInput, match="forecast_law wrote"):
        frozen(tmp_path / "bad.json")
    with pytest.raises(BadInput, match="folders with the runs and the forecast of digits, decay 1e-05"):
        forecast_law.calibrate([tmp_path], tmp_path / "to.json")
    assert not (tmp_path / "to.json").exists()


@pytest.mark.parametrize(("changes", "line"), [
    ({"decays": (0.0,)}, "decays"), ({"decays": (1e-4, 1e-3)}, "one decay"), ({"epochs_mse": 0}, "a phase of squared error"),
    ({"second_loss": "cross_entropy"}, "a phase of squared error"), ({"architecture": "residual_mlp"}, "mlp"),
])  # fmt: skip
def test_settings_without_a_forecast(changes, line):
    with pytest.raises(BadInput, match=line):
        Forecasting(setting=replace(BASE, **changes))


def test_smoke(tmp_path):
    """Conditions and forecasts made by the runner's worker, scored, judged and drawn."""
    made = prediction.conditions("smoke")
    for c in made:
        work(c.setting, tmp_path)
    (evidence,) = gather(prediction.EXPERIMENT, "smoke", Catalogue.scan([tmp_path]))
    assert evidence.complete
    verdicts = prediction.judge(evidence)
    assert [v.claim for v in verdicts] == [s.id for s in prediction.STATEMENTS]
    assert all(v.judgement in Judgement and np.isfinite([len(v.found)]).all() for v in verdicts)
    found = prediction.scored(evidence)
    assert found is not None
    assert len(found.held_out) == 4
    assert not found.calibration
    assert all(np.isfinite(r.error).all() for r in (found.fn[0], found.fn[1], found.time[0], found.time[1]))
    record = next(r.record for r in evidence.studies if r.record is not None)
    assert np.isfinite(record.data["model_fn"].values[0]).all()
    assert np.isnan(record.data["model_fn"].values[1]).all()
    prediction.figure(evidence, None).savefig(tmp_path / "figure.png")
    few = replace(evidence, rows=evidence.rows[:2])
    assert {v.judgement for v in prediction.judge(few)} == {Judgement.UNTESTABLE}


def test_a_forecast_knows_its_network_by_what_that_says_of_itself():
    """So that a field with its default, added later, makes no other run of it."""
    assert Forecasting(setting=BASE).config()["setting"] == BASE.config()


def test_resnets_are_held_against_the_closed_form(tmp_path):
    made = prediction.conditions("laptop-resnet")
    assert {c.setting.dataset for c in made} == {"mnist", "cifar10", "fashion_mnist", "digits"}
    assert {(c.setting.architecture, c.setting.second_loss) for c in made} == {("resnet20", "mse")}
    ends = {"mnist": (2.0, 2.2), "cifar10": (1.8, 1.8), "digits": (2.4, 2.4)}

    def net(fn: float) -> Network:
        values = {"fn": np.array([fn]), "nc1_trace_ratio": np.array([0.1])}
        return Network("x", 0, np.array([9.0]), np.array([2]), values, {2: "mse"})

    rows = tuple(Row(c, tuple(net(fn) for fn in ends.get(c.setting.dataset, ()))) for c in made)
    evidence = Evidence("prediction", "laptop-resnet", made[0].group, rows)
    found = {e.label: e for e in forecast_resnet.expectations(evidence)}
    assert set(found) == {"MNIST", "CIFAR-10", "digits"}
    level = np.sqrt(1 - 1e-3 * 5 * np.sqrt(10 / 4) * np.sqrt(10 / 9)) * 36**0.25  # THEORY 6.5, c = 1/K, L = 4, free bias
    assert found["MNIST"].closed == pytest.approx(level, rel=1e-3)
    assert found["MNIST"].error == pytest.approx(level / 2.1 - 1, rel=1e-2) and found["CIFAR-10"].others == pytest.approx(2.25)
    verdict = prediction.judge(evidence)[-1]
    assert verdict.claim == "prediction.resnet" and verdict.judgement == Judgement.CONTRADICTED
    assert {v.judgement for v in prediction.judge(evidence)[:-1]} == {Judgement.UNTESTABLE}
    prediction.figure(evidence, None).savefig(tmp_path / "figure.png")
    alone = replace(evidence, rows=rows[:1])
    assert prediction.judge(alone)[-1].judgement == Judgement.UNTESTABLE
