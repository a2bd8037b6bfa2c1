"""Closed forms against the simulator run to rest: the two were written apart and must meet."""

from __future__ import annotations

import numpy as np
import pytest

from ncflow import UFM, Decay, DeepLinear, Isotropic, Status, simulate
from theory import fixed_point

RNG = np.random.default_rng(5)


def aligned(model: UFM, seed: int = 0) -> dict:
    """A start in the basin of the full-rank point: positive on every mode, with noise."""
    rng = np.random.default_rng(seed)
    K = model.classes

    def near_identity(rows: int, columns: int) -> np.ndarray:
        return np.eye(rows, columns) + 0.05 * rng.normal(size=(rows, columns))

    W = [near_identity(*shape) for shape in model.weight_shapes]
    H = near_identity(model.widths[0], K)[:, model.labels] + 0.05 * rng.normal(size=(model.widths[0], model.samples))
    return {"H": H, "W": W}


UFMS = {
    "balanced": dict(classes=4, samples_per_class=5, width=7, decay=Decay(0.02, 0.01)),
    "free bias": dict(classes=4, samples_per_class=5, width=7, bias="free", decay=Decay(0.02, 0.01)),
    "decayed bias, small": dict(classes=3, samples_per_class=4, width=6, bias="decayed", decay=Decay(0.02, 0.02, 0.01)),
    "decayed bias, large": dict(classes=3, samples_per_class=4, width=6, bias="decayed", decay=Decay(0.02, 0.02, 2.0)),
    "unbalanced": dict(classes=3, samples_per_class=[3, 6, 12], width=5, decay=Decay(0.02, 0.01)),
    "unbalanced, free bias": dict(classes=3, samples_per_class=[3, 6, 12], width=5, bias="free", decay=Decay(0.02, 0.01)),
    "unbalanced, minority lost": dict(classes=3, samples_per_class=[1, 20, 20], width=5, decay=Decay(0.03, 0.03)),
    "two layers": dict(classes=4, samples_per_class=5, width=[7, 6], layers=2, decay=Decay([[0.02, 0.03]], 0.01)),
    "three layers, free bias": dict(classes=4, samples_per_class=5, width=6, layers=3, bias="free", decay=0.01),
    "four layers, unbalanced": dict(classes=3, samples_per_class=[8, 10, 12], width=4, layers=4, decay=0.005),
}


@pytest.mark.parametrize("name", UFMS)
def test_ufm_comes_to_rest_on_the_closed_form(name):
    model = UFM(**UFMS[name])
    run = simulate(model, initial=aligned(model), until=1e5, save_at=[1e5], rest=1e-11, rtol=1e-6, events=[])
    assert run.status == [Status.AT_REST]
    point, data = fixed_point(model), run.data.isel(lane=0, time=-1)
    assert float(data["fn"]) == pytest.approx(point.feature_norm, rel=1e-8)
    np.testing.assert_allclose(data["weight_norm"], point.weight_norms, rtol=1e-8)
    np.testing.assert_allclose(data["layer_feature_norm"], point.layer_feature_norms, rtol=1e-8)
    assert float(data["energy"]) == pytest.approx(point.loss, rel=1e-10)
    if model.bias != "none":
        np.testing.assert_allclose(run.final["b"][0], point.bias, atol=1e-9)


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
def test_data_tied_networks_come_to_rest_on_the_fixed_point(layers, bias):
    X = RNG.normal(size=(6, 15)) + 2 * np.eye(6, 3)[:, np.repeat(np.arange(3), 5)]
    model = DeepLinear(inputs=X, classes=3, samples_per_class=5, layers=layers, width=6, bias=bias, decay=[0.02, 0.005])
    run = simulate(model, seeds=[1], until=1e5, save_at=[1e5], rest=1e-11, rtol=1e-6, events=[])
    assert run.status == [Status.AT_REST] * 2
    point, data = fixed_point(model), run.data.isel(time=-1)
    np.testing.assert_allclose(data["fn"], point.feature_norm, rtol=1e-8)
    np.testing.assert_allclose(data["nc1_trace_ratio"], point.nc1_floor, rtol=1e-7)
    np.testing.assert_allclose(data["energy"], point.loss, rtol=1e-10)


def test_isotropic_data_come_to_rest_on_the_closed_form():
    model = DeepLinear(inputs=Isotropic(amplitude=2.0, noise=0.3), classes=4, layers=3, width=4, decay=[0.02, 0.005])
    run = simulate(model, seeds=[0], until=1e5, save_at=[1e5], rest=1e-11, rtol=1e-6, events=[])
    np.testing.assert_allclose(run.data["fn"][:, -1], fixed_point(model).feature_norm, rtol=1e-8)
    np.testing.assert_allclose(run.data["nc1_trace_ratio"][:, -1], 0.3 / 4 * 4 / 3, rtol=1e-8)


def test_beyond_the_fold_features_vanish():
    model = UFM(classes=3, samples_per_class=4, width=4, layers=2, decay=0.5)
    assert not fixed_point(model).exists
    run = simulate(model, initial=aligned(model), until=200.0, save_at=[200.0], events=[])
    assert float(run.data["fn"][0, -1]) < 1e-8
