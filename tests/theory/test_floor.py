"""The NC1 floor of features tied to data."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ncflow.errors import BadInput
from ncflow.model import UFM, DeepLinear, Isotropic
from theory import fixed_point, floor, floor_boundary, fold


def network(d, counts=(4, 4, 4), layers=2, bias="none", decay=1e-4, seed=0):
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((d, len(counts))) + 0.5
    X = np.concatenate(
        [means[:, [k]] + 0.4 * rng.standard_normal((d, n)) for k, n in enumerate(counts)], axis=1
    )
    return DeepLinear(
        inputs=X, classes=len(counts), samples_per_class=counts, layers=layers, bias=bias, decay=decay
    )


@pytest.mark.parametrize("counts", [(4, 4, 4), (2, 4, 5)], ids=["equal", "unequal"])
@pytest.mark.parametrize("bias", ["none", "free"])
@pytest.mark.parametrize("layers", [2, 3, 5])
def test_interpolated_data_rise_quadratically(layers, bias, counts):
    """The coefficient is met as the decay falls, its error of first order: measured 3% at 1e-4, 0.3% at
    1e-5."""
    m = network(20, counts, layers, bias)
    found, errors = floor(m), []
    for lam in (1e-4, 1e-5, 1e-6):
        errors.append(abs(fixed_point(replace(m, decay=lam)).nc1_floor / lam**2 / found.coefficient - 1))
    assert found.limit == 0 and errors[0] < 0.03 and errors[1] < 3e-3 and errors[2] < 3e-4
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.1)


@pytest.mark.parametrize("layers", [2, 4])
def test_within_class_part_is_exact_at_any_decay(layers):
    """H Pi_w = -(N lambda/2c) S^{1/M-1} V^T X (X^T X)^+ Pi_w, from which the coefficient comes."""
    m = network(20, layers=layers, decay=0.01)
    modes = fixed_point(m).modes
    assert modes is not None
    U, s, V = modes
    X, lam = np.asarray(m.inputs), 0.01
    between = np.repeat(np.eye(3), 4, axis=1)
    within = np.eye(12) - between.T @ between / 4
    H = s[:, None] ** (1 - 1 / layers) * (V.T @ X)
    stated = -12 * lam * s[:, None] ** (1 / layers - 1) * (V.T @ X @ np.linalg.pinv(X.T @ X) @ within)
    assert U.shape == (3, 3) and np.abs(H @ within - stated).max() < 1e-10 * np.abs(H).max()


@pytest.mark.parametrize("bias,R", [("none", 4), ("free", 3), ("decayed", 3)])
@pytest.mark.parametrize("layers", [2, 6])
def test_isotropic_floor(layers, bias, R):
    m = DeepLinear(inputs=Isotropic(2.0, 0.3), classes=4, layers=layers, bias=bias, decay=(1e-4, 1e-2))
    found = floor(m)
    assert found.status == "exact" and found.nc1 == pytest.approx([0.3 / 4 * R / 3] * 2, rel=1e-12)
    below, above = (floor_boundary(replace(m, decay=1e-3), found.limit * f) for f in (1.01, 0.99))
    assert below.decay == fold(m).decay and above.decay == 0


def test_limits_where_data_cannot_be_interpolated():
    m = network(5, layers=3)
    found = floor(m)
    assert found.limit == pytest.approx(fixed_point(replace(m, decay=1e-9)).nc1_floor, rel=1e-6)
    assert np.isnan(found.coefficient) and floor_boundary(m, found.limit * 0.9).decay == 0
    assert floor(network(20, bias="decayed")).law == "floor_limit"
    one = floor(network(20, layers=1))
    assert one.nc1 == one.limit > 0


@pytest.mark.parametrize("layers,bias", [(2, "none"), (3, "free"), (5, "none")])
def test_too_much_decay_prevents_collapse(layers, bias):
    m = network(20, layers=layers, bias=bias)
    for threshold in (1e-2, 1e-4):
        edge = floor_boundary(m, threshold)
        assert edge.factor == pytest.approx(edge.decay / 1e-4)
        assert fixed_point(replace(m, decay=edge.decay)).rank == 3 - (bias == "free")
        nc1 = [fixed_point(replace(m, decay=edge.decay * f)).nc1_floor for f in (0.99, 1, 1.01)]
        assert nc1[0] < threshold < nc1[2] and nc1[1] == pytest.approx(threshold, rel=1e-8)
    assert edge.decay == pytest.approx(np.sqrt(1e-4 / floor(m).coefficient), rel=0.3)


def test_refusals():
    decays: Any = (1e-3, 1e-2)
    zero = floor(UFM(classes=3, decay=decays))
    assert not zero.nc1.any() and zero.status == "exact"
    with pytest.raises(BadInput, match="model"):
        floor_boundary(UFM(classes=3))
    with pytest.raises(BadInput, match="threshold"):
        floor_boundary(network(20), 1.5)
    assert r"\frac" in floor(network(20)).formula
