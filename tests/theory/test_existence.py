"""Where the collapsed state of other losses and constraints ends: the formula, its own fixed point, and continuation."""

from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from ncflow.model import UFM, Decay
from theory import derivations_nonlinear, existence, fixed_point, fold, strength

MODELS = {
    "cross-entropy": dict(loss="cross_entropy"),
    "deep cross-entropy": dict(loss="cross_entropy", layers=3),
    "focal": dict(loss="focal", focal_gamma=2.0),
    "deep focal": dict(loss="focal", focal_gamma=2.0, layers=2),
    "label smoothing": dict(loss="label_smoothing", smoothing=0.1, bias="free"),
    "non-negative": dict(nonnegative=True),
    "non-negative, free bias": dict(nonnegative=True, bias="free"),
    "non-negative, linear layers": dict(nonnegative=True, bias="free", layers=3),
    "non-negative, decayed bias": dict(nonnegative=True, bias="decayed"),
    "relu": dict(layers=3, activation="relu"),
    "relu, free bias": dict(layers=3, activation="relu", bias="free"),
    "relu, decayed bias": dict(layers=2, activation="relu", bias="decayed"),
    "relu, cross-entropy": dict(layers=3, activation="relu", loss="cross_entropy"),
    "batch": dict(normalization="batch", streams=2),
    "batch, free bias": dict(normalization="batch", bias="free", streams=3),
    "batch, decayed bias": dict(normalization="batch", bias="decayed"),
    "batch, cross-entropy": dict(normalization="batch", loss="cross_entropy"),
    "fixed head": dict(classifier="etf", layers=3),
    "fixed head, cross-entropy": dict(classifier="etf", loss="cross_entropy", layers=2),
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(MODELS)), st.integers(3, 12), st.integers(1, 50), st.integers(0, 10**6))
def test_collapse_exists_up_to_it_and_not_beyond(name, K, n, seed):
    """Decays of every layer drawn: the fixed point is there just inside the fold and gone just outside."""
    rng, fields = np.random.default_rng(seed), MODELS[name]
    lam = 10 ** rng.uniform(-4, -2, fields.get("layers", 1) + 2)
    decay = Decay(weights=(tuple(lam[2:]),), features=lam[0], bias=lam[1] if fields.get("bias") == "decayed" else 0.0)
    m = UFM(classes=K, samples_per_class=n, width=K, loss_scale=rng.uniform(0.1, 0.6), decay=decay, **fields)
    found = fold(m)
    assert found.status == ("numerical" if fields.get("bias") == "decayed" else "exact")
    for f, exists in ((1 - 1e-9, True), (1 + 1e-9, False)):
        w, h, b = ((v * found.factor * f) for v in (m.weight_decays, m.feature_decays[0], m.bias_decays[0]))
        assert fixed_point(replace(m, decay=Decay(weights=w.tolist(), features=float(h), bias=float(b)))).exists is exists
    common = replace(m, decay=Decay(found.decay * (1 - 1e-9), found.decay * (1 - 1e-9),
                                    found.decay if m.bias == "decayed" else 0.0))
    inside = fixed_point(common)
    assert inside.exists
    if not np.shape(inside.signal):  # the two roots meet like a square root
        assert inside.signal == pytest.approx(found.signal, rel=1e-2, abs=1e-3)
    assert found.formula and found.assumptions


@pytest.mark.parametrize("name", ["cross-entropy", "deep cross-entropy", "relu, free bias", "batch", "fixed head"])
def test_bisection_agrees(name):
    m = UFM(classes=4, samples_per_class=7, decay=2e-3, **MODELS[name])
    assert existence.existence(m) == pytest.approx(fold(m).factor, rel=1e-9)


def test_published_forms():
    """sqrt(n lambda_H lambda_W) = 1/K, (1 - a)/K with smoothing; n lambda_H lambda_W K^2 = (2c)^2 (K-1)/K under H >= 0."""
    K, n = 10, 7
    ce = fold(UFM(classes=K, samples_per_class=n, loss="cross_entropy"))
    assert ce.decay * np.sqrt(n) == pytest.approx(1 / K, rel=1e-12) and ce.signal == 0
    smooth = fold(UFM(classes=K, samples_per_class=n, loss="label_smoothing", smoothing=0.2))
    assert smooth.decay * np.sqrt(n) == pytest.approx(0.8 / K, rel=1e-12)
    frame = fold(UFM(classes=K, samples_per_class=n, nonnegative=True, bias="free"))
    assert frame.decay * K * np.sqrt(n * K / (K - 1)) == pytest.approx(1, rel=1e-12)
    assert fold(UFM(classes=K, classifier="etf")).decay == np.inf
    lanes = fold(UFM(classes=K, samples_per_class=n, loss="cross_entropy", decay=[1e-3, 2e-3]))
    assert lanes.factor == pytest.approx([lanes.decay / 1e-3, lanes.decay / 2e-3], rel=1e-12)


@pytest.mark.parametrize("degree", [2, 3, 5])
def test_the_largest_value_is_where_the_derivative_vanishes(degree):
    """(D - 2) + D x g'/g from sympy, at the x that numpy finds."""
    d = derivations_nonlinear
    condition = d.fold_condition(degree)
    pull = sp.Function("g")(d.x)
    assert sp.simplify(condition - ((degree - 2) + degree * d.x * sp.diff(pull, d.x) / pull)) == 0
    if degree > 2:
        x, limit = strength.fold(strength.Softmax(5), degree)
        g = d.claim("cross_entropy").subs(d.K, 5)
        assert float(condition.subs(pull, g).doit().subs(d.x, x)) == pytest.approx(0, abs=1e-10)
        assert limit == pytest.approx(float((d.x ** (1 - 2 / degree) * g).subs(d.x, x)), rel=1e-12)
