"""The vectorised path against the one-model path at random points, and its speed."""

import time

import numpy as np
import pytest

from ncflow.errors import BadInput
from ncflow.model import UFM, Decay, DeepLinear, Isotropic
from theory import fixed_point, floor, fold, grid, maxwell, rates


def points(rng, count):
    return dict(
        K=rng.integers(2, 8, count),
        n=rng.integers(2, 300, count),
        M=rng.integers(1, 7, count),
        c=rng.choice([0.5, 0.1], count),
        bias=rng.choice(["none", "free"], count),
    )


def close(a, b, rel=1e-11):
    return a == pytest.approx(b, rel=rel, nan_ok=True)


def test_free_features_at_random_points():
    rng, count = np.random.default_rng(0), 150
    p = points(rng, count)
    lw, lh, theta = (
        10 ** rng.uniform(-4, -0.5, count),
        10 ** rng.uniform(-4, -0.5, count),
        rng.choice([1.0, 3.0], count),
    )
    wide = rng.choice([True, False], count)
    found = grid.free_features(
        p["K"], p["n"], p["M"], lw, lh, p["c"], p["bias"], spare_width=wide, mobility=theta
    )
    assert 0.3 < found.exists.mean() < 0.97
    for i in range(count):
        K, bias = int(p["K"][i]), str(p["bias"][i])
        if bias == "free" and not wide[i]:
            continue  # widths are at least K, one more than the modes
        m = UFM(
            classes=K,
            samples_per_class=int(p["n"][i]),
            layers=int(p["M"][i]),
            width=K + 2 * wide[i],
            bias=bias,
            loss_scale=p["c"][i],
            decay=Decay(lw[i], lh[i]),
            mobility=theta[i],
        )
        one, edge, speed = fixed_point(m), fold(m), rates(m)
        assert found.exists[i] == one.exists
        assert close(found.fold[i], edge.decay) and close(found.factor[i], edge.factor)
        assert close(found.maxwell[i], maxwell(m).decay)
        if one.exists:
            near = 1e-14 / max(edge.factor - 1, 1e-12)  # roots meet at the fold
            assert close(found.signal[i], one.signal, 1e-11 + near)
            assert close(found.feature_norm[i], one.feature_norm, 1e-11 + near)
            assert close(found.nc1_rate[i], speed.nc1.value, 1e-10 + near)
            assert close(found.signal_rate[i], speed.signal.value, 1e-9 + 1e3 * near)
        else:
            assert np.isnan(found.signal[i]) and np.isnan(found.feature_norm[i])


def test_data_at_random_points():
    rng, count = np.random.default_rng(1), 120
    p = points(rng, count)
    r, v2, lam = (
        10 ** rng.uniform(-0.5, 0.7, count),
        rng.uniform(0, 1, count),
        10 ** rng.uniform(-5, 0.3, count),
    )
    found = grid.on_data(p["K"], r, v2, p["M"], lam, p["c"], p["bias"])
    assert 0.3 < found.exists.mean() < 0.97
    for i in range(count):
        m = DeepLinear(
            inputs=Isotropic(r[i], v2[i]),
            classes=int(p["K"][i]),
            samples_per_class=int(p["n"][i]),
            layers=int(p["M"][i]),
            bias=str(p["bias"][i]),
            loss_scale=p["c"][i],
            decay=lam[i],
        )
        one, edge = fixed_point(m), fold(m)
        assert found.exists[i] == one.exists and close(found.fold[i], edge.decay)
        assert close(found.maxwell[i], maxwell(m).decay)
        if one.exists:
            assert close(found.signal[i], one.signal, 1e-10) and close(
                found.feature_norm[i], one.feature_norm, 1e-10
            )
            assert close(found.floor[i], floor(m).nc1, 1e-10)
            assert close(found.signal_rate[i], rates(m).signal.value, 1e-8)


def test_a_million_points_in_five_seconds():
    """Fixed point, fold, Maxwell point, floor and rates of both models: measured 0.6 s on one core."""
    rng, count = np.random.default_rng(2), 1_000_000
    p = points(rng, count)
    lw, lh = 10 ** rng.uniform(-6, -1, count), 10 ** rng.uniform(-6, -1, count)
    start = time.process_time()
    free = grid.free_features(p["K"], p["n"], p["M"], lw, lh, p["c"], p["bias"])
    data = grid.on_data(
        p["K"], 10 ** rng.uniform(-1, 1, count), rng.uniform(0, 2, count), p["M"], lw, p["c"], p["bias"]
    )
    assert time.process_time() - start < 5
    assert free.signal.shape == data.floor.shape == (count,) and free.exists.mean() > 0.5
    assert np.array_equal(np.isfinite(data.signal), data.exists)


def test_broadcast_and_refusals():
    found = grid.free_features(4, 100, np.array([[1], [3]]), np.geomspace(1e-5, 1e-2, 5), 5e-4)
    assert found.signal.shape == (2, 5)
    for words, field in (
        (dict(classes=1), "classes"),
        (dict(layers=1.5), "layers"),
        (dict(weights=0.0), "weights"),
        (dict(bias="decayed"), "bias"),
    ):
        with pytest.raises(BadInput, match=field):
            grid.free_features(
                **{**dict(classes=3, samples_per_class=2, layers=1, weights=1e-3, features=1e-3), **words}
            )
