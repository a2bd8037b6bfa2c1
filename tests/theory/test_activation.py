"""Degrees of homogeneity: numpy against sympy against the engine's derivatives, and the knob's identities."""

import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from ncflow import activations as engine
from ncflow.errors import BadInput
from theory import derivations_nonlinear as d
from theory.activation import DEGREES, homogeneous, limits, local_degree, mean_degree

NAMES = list(engine.ACTIVATIONS)


def test_every_activation_of_the_engine_is_here():
    assert set(DEGREES) == set(engine.ACTIVATIONS) == set(d.ACTIVATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_degree_is_that_of_the_engine_and_of_sympy(name):
    """k_a(x) = x phi_a'(x)/phi_a(x) from the engine's value and slope, and from sympy's derivative."""
    phi, a = engine.ACTIVATIONS[name], 0.7
    x = np.concatenate([-np.geomspace(3, 0.05, 9), np.geomspace(0.05, 8, 9)])
    u = torch.tensor(x / a)
    value, slope = phi.value(u).numpy(), phi.slope(u).numpy()
    live = value != 0
    found = local_degree(name, x, a)
    assert found[live] == pytest.approx((u.numpy() * slope)[live] / value[live], rel=1e-12)
    assert np.isnan(found[~live]).all()
    law = d.degree(name)
    for xi, ki in zip(x[live], found[live], strict=True):
        assert float(sp.N(law.subs(d.u, sp.Float(xi / a, 40)), 30)) == pytest.approx(ki, rel=1e-11)


def test_far_tails_are_finite():
    far = np.array([-800.0, -50.0, 50.0, 800.0])
    for name in ("gelu", "silu", "softplus", "tanh"):
        assert np.isfinite(local_degree(name, far)).all()
    assert local_degree("softplus", -800.0) == -800 and local_degree("silu", 800.0) == 1


def test_scaled_relu_is_relu():
    """The test proposed for H-M1 compares a network with itself: alpha ReLU(x/alpha) = ReLU(x)."""
    alpha = sp.Symbol("alpha", positive=True)
    for side in (sp.Symbol("x", positive=True), sp.Symbol("x", negative=True), sp.Integer(0)):
        assert sp.simplify(d.knob(d.ACTIVATIONS["relu"], side, alpha) - sp.Max(side, 0)) == 0
    x = sp.Symbol("x", positive=True)
    assert sp.simplify(d.knob(d.ACTIVATIONS["gelu"], x, alpha) - d.ACTIVATIONS["gelu"].subs(d.u, x)) != 0


def test_knob_is_the_scale_of_the_data_for_any_activation():
    """phi_a(s x) = s phi_{a/s}(x), phi an undefined function; so a network turns its knob by scaling data."""
    phi, (a, s, x) = sp.Function("phi"), sp.symbols("a s x", positive=True)
    assert sp.simplify(a * phi(s * x / a) - s * (a / s) * phi(x / (a / s))) == 0
    rng, knob = np.random.default_rng(0), 0.3
    X, W1, W2 = (torch.tensor(rng.standard_normal(shape)) for shape in ((5, 7), (6, 5), (4, 6)))
    phi_a, _ = engine.scaled("gelu", torch.tensor(knob, dtype=torch.float64))
    plain = engine.ACTIVATIONS["gelu"].value
    deep = phi_a(W2 @ phi_a(W1 @ X))
    assert torch.allclose(deep, knob * plain(W2 @ plain(W1 @ X / knob)), rtol=1e-13, atol=1e-14)


@given(st.sampled_from(NAMES), st.floats(0.05, 5), st.floats(0.05, 5), st.floats(-5, 5))
def test_degree_depends_on_x_over_a(name, a, s, x):
    left, right = local_degree(name, s * x, a), local_degree(name, x, a / s)
    assert left == pytest.approx(right, rel=1e-12, nan_ok=True)


def test_table():
    """k_a(1), recomputed."""
    table = {
        "gelu": {1e-3: 1.0, 0.5: 1.1105, 1: 1.2876, 3: 1.1995, 100: 1.0079},
        "silu": {0.2: 1.0335, 1: 1.2689, 100: 1.005},
        "softplus": {0.5: 0.8282, 1: 0.5567, 0.1: 0.99995},
        "tanh": {1: 0.5514, 10: 0.9934},
    }
    for name, row in table.items():
        for a, k in row.items():
            assert float(local_degree(name, 1.0, a)) == pytest.approx(k, abs=5.1e-5), (name, a)
    knobs = np.geomspace(0.02, 200, 400)
    for name, monotone in (("gelu", False), ("silu", False), ("softplus", True), ("tanh_relu", True)):
        defect = np.abs(local_degree(name, 1.0, knobs) - 1)
        assert (np.all(np.diff(defect) >= -1e-15) or np.all(np.diff(defect) <= 1e-15)) == monotone


@pytest.mark.parametrize(
    "name,low,high",
    [
        ("gelu", sp.Max(d.u, 0), d.u / 2),
        ("silu", sp.Max(d.u, 0), d.u / 2),
        ("softplus", sp.Max(d.u, 0), None),
        ("tanh", None, d.u),
        ("tanh_relu", None, sp.Max(d.u, 0)),
        ("relu", sp.Max(d.u, 0), sp.Max(d.u, 0)),
    ],
)
def test_limits(name, low, high):
    """What the words say, at a = 1e-4 and 1e4, and in the limit by sympy on the positive side."""
    for a, limit in ((1e-4, low), (1e4, high)):
        if limit is None:
            continue
        phi_a, _ = engine.scaled(name, torch.tensor(a, dtype=torch.float64))
        for x in (-1.3, 0.4, 2.0):
            assert float(phi_a(torch.tensor(x, dtype=torch.float64))) == pytest.approx(
                float(limit.subs(d.u, x)), abs=2e-4
            )
    assert ("relu(x)" in limits(name)) == (sp.Max(d.u, 0) in (low, high))
    x, a = sp.symbols("x a", positive=True)
    if name == "softplus":  # a ln 2 + x/2 remains as a -> infinity
        assert sp.limit(d.knob(d.ACTIVATIONS[name], x, a) - a * sp.log(2), a, sp.oo) == x / 2


def test_degree_of_homogeneity():
    assert [homogeneous(n) for n in ("linear", "relu", "leaky_relu", "relu^2", "relu^3")] == [1, 1, 1, 2, 3]
    for name in ("gelu", "silu", "softplus", "tanh", "tanh_relu"):
        with pytest.raises(BadInput):
            homogeneous(name)


def test_mean_degree():
    """Homogeneous: the degree at every scale; gelu: 1 far from its bend, sampled between."""
    assert mean_degree("relu^2", [0.1, 3.0]) == pytest.approx([2, 2], rel=1e-9)
    ends = mean_degree("gelu", np.array([1e-3, 1e3]))
    assert ends == pytest.approx([1, 1], abs=2e-3)
    x = torch.tensor(np.random.default_rng(0).standard_normal(2_000_000))
    phi = engine.ACTIVATIONS["gelu"]
    sampled = float((x * phi.slope(x) * phi.value(x)).sum() / phi.value(x).square().sum())
    assert float(mean_degree("gelu", 1.0)) == pytest.approx(sampled, rel=3e-3)
    assert float(mean_degree("gelu", 2.0, a=2.0)) == pytest.approx(float(mean_degree("gelu", 1.0)), rel=1e-12)


@pytest.mark.parametrize(
    "argument,call",
    [
        ("activation", lambda: local_degree("elu", 1.0)),
        ("activation", lambda: limits("elu")),
        ("a", lambda: local_degree("relu", 1.0, 0.0)),
        ("a", lambda: mean_degree("gelu", 1.0, a=-1.0)),
    ],
)
def test_what_is_refused(argument, call):
    with pytest.raises(BadInput) as caught:
        call()
    assert caught.value.argument == argument


def test_any_power_of_relu_has_its_own_degree():
    x = np.array([0.3, 2.0])
    np.testing.assert_array_equal(local_degree("relu^1.5", x, 0.4), 1.5)
    assert homogeneous("relu^1.5") == 1.5 and limits("relu^1") == limits("relu")
    assert limits("relu^2.0") == limits("relu^2")
    np.testing.assert_allclose(mean_degree("relu^2.5", [0.5, 3.0]), 2.5, rtol=1e-12)
