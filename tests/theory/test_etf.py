"""A fixed simplex classifier: closed forms against the simulator at rest and against a direct solution."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from ncflow import UFM, Decay, simulate
from ncflow.errors import BadInput
from theory import derivations_nonlinear, etf, fixed_point

EXTRA = {"mse": {}, "cross_entropy": {}, "label_smoothing": {"smoothing": 0.15}, "focal": {"focal_gamma": 2.0}}


def aligned(model, signal):
    """A start on the rows of the simplex, so that a deep model keeps all modes."""
    K, rng = model.classes, np.random.default_rng(0)
    frame = np.linalg.svd(np.eye(K) - 1 / K)[0][:, : K - 1]
    bases = [np.linalg.qr(rng.normal(size=(p, K - 1)))[0] for p in model.widths]
    W = [bases[i + 1] @ bases[i].T for i in range(model.layers - 1)]
    W.append(np.sqrt(K / (K - 1)) * frame @ bases[-1].T)
    H = signal * np.sqrt((K - 1) / K) * bases[0] @ frame.T
    state = {"H": np.repeat(H, model.class_counts, axis=1), "W": W}
    return state | ({"b": np.zeros(K)} if model.bias != "none" else {})


@settings(max_examples=8, deadline=None)
@given(loss=st.sampled_from(sorted(EXTRA)), bias=st.sampled_from(["none", "free", "decayed"]),
       layers=st.sampled_from([1, 1, 2, 3]), K=st.integers(2, 5), n=st.integers(1, 3), strength=st.floats(0.05, 0.6),
       ratio=st.floats(0.4, 2.5), c=st.floats(0.2, 1.0))
def test_simulator_comes_to_rest_on_the_closed_form(loss, bias, layers, K, n, strength, ratio, c):
    """fn in every layer, norms, bias and loss, to 1e-9."""
    decay = strength / (2 * K) / np.sqrt(n) * (0.5 if layers > 2 else 1)
    decays = Decay(weights=[[decay] * layers], features=decay * ratio, bias=0.1 if bias == "decayed" else 0.0)
    model = UFM(classes=K, samples_per_class=n, width=K + 2, layers=layers, loss=loss, loss_scale=c, bias=bias,
                classifier="etf", decay=decays, **EXTRA[loss])
    point = fixed_point(model)
    assert point.exists and point.status == "exact" and point.rank == K - 1
    end = 40 / (decay * min(1, ratio))
    run = simulate(model, initial=aligned(model, point.signal * 0.8 + 0.1), until=end, save_at=[end], rtol=1e-11, atol=1e-13,
                   events=[])
    data = run.data.isel(lane=0, time=-1)
    assert float(data["fn"]) == pytest.approx(point.feature_norm, rel=1e-9)
    assert point.feature_norm == pytest.approx(point.signal * (K - 1) / K, rel=1e-12)
    np.testing.assert_allclose(data["layer_feature_norm"], point.layer_feature_norms, rtol=1e-9)
    np.testing.assert_allclose(data["weight_norm"], point.weight_norms, rtol=1e-9)
    assert float(data["energy"]) == pytest.approx(point.loss, rel=1e-10)
    H, W = run.final["H"][0], [run.final[f"W_{i}"][0] for i in range(1, layers + 1)]
    for w in W:
        H = w @ H
    logits = np.repeat(point.signal * (np.eye(K) - 1 / K), n, axis=1)
    np.testing.assert_allclose(H, logits, atol=1e-8)
    if bias != "none":
        np.testing.assert_allclose(run.final["b"][0], point.bias, atol=1e-9)


@pytest.mark.parametrize("loss", sorted(EXTRA))
def test_one_layer_is_found_from_a_random_start(loss):
    model = UFM(classes=4, samples_per_class=3, width=7, loss=loss, classifier="etf", decay=0.03, bias="free", **EXTRA[loss])
    run = simulate(model, seeds=[0], until=1e5, save_at=[1e5], rest=1e-11, rtol=1e-6, atol=1e-10, events=[])
    assert float(run.data["fn"][0, -1]) == pytest.approx(fixed_point(model).feature_norm, rel=1e-9)


@pytest.mark.parametrize("decay", [1e-9, 1e-3, 1.0, 1e3])
def test_every_decay_has_a_rest_point(decay):
    """A ridge problem per sample: squared loss in closed form, and g(x) = x n lambda_H (K-1)/K for cross-entropy."""
    K, n, c = 5, 4, 0.3
    square = fixed_point(UFM(classes=K, samples_per_class=n, loss_scale=c, classifier="etf", decay=decay))
    assert square.signal == pytest.approx(1 / (1 + n * (K - 1) * decay / (2 * c)), rel=1e-13) and square.exists
    soft = fixed_point(UFM(classes=K, samples_per_class=n, loss="cross_entropy", classifier="etf", decay=decay))
    x = soft.signal
    assert 1 / (np.exp(x) + K - 1) == pytest.approx(x * n * decay * (K - 1) / K, rel=1e-11)


def test_derived_from_the_loss():
    """h = alpha w_y: logits alpha W w_y = x (e_y - 1/K), and the slope of l(x) + lambda_H N alpha^2/2 is the stated equation."""
    K, n, lh, x = sp.symbols("K n lambda_H x", positive=True)
    curve = sp.Function("l")
    alpha = x * (K - 1) / K
    slope = sp.diff(curve(x) + lh * K * n * alpha**2 / 2, x)
    g = -sp.diff(curve(x), x) / (K - 1)
    assert sp.simplify(-slope / (K - 1) - (g - x * n * lh * (K - 1) / K)) == 0
    W = sp.sqrt(sp.Rational(4, 3)) * (sp.eye(4) - sp.ones(4, 4) / 4)
    assert (W * W.T)[0, 0] == 1 and sp.simplify(W * W[0, :].T - sp.sqrt(sp.Rational(4, 3)) * W[:, 0]).is_zero_matrix
    law = derivations_nonlinear.LAWS["simplex_head"]()
    i = sp.Symbol("i", integer=True)
    one = law.subs(derivations_nonlinear.D, 1).doit().replace(sp.Indexed, lambda *_: lh)
    stated = sp.Eq(sp.Function("g")(x) / x, n * lh * (K - 1) / K)
    assert sp.simplify(one.lhs - stated.lhs) == 0 and sp.simplify(one.rhs - stated.rhs) == 0 and not one.has(i)


def test_saddle_and_fold():
    """Three layers: two roots below the fold, none above."""
    words = dict(classes=4, samples_per_class=5, layers=3, classifier="etf")
    point = fixed_point(UFM(**words, decay=5e-3))
    assert [r.branch for r in point.other_roots] == ["saddle"] and point.other_roots[0].signal < point.signal
    gone = fixed_point(UFM(**words, decay=1.0))
    assert not gone.exists and gone.feature_norm == 0 and gone.loss == pytest.approx(0.5)


@pytest.mark.parametrize(("argument", "change"), [
    ("samples_per_class", {"samples_per_class": (3, 4, 5)}), ("nonnegative", {"nonnegative": True}),
    ("activation", {"activation": "relu", "layers": 2}), ("decay.features", {"decay": Decay(weights=0.1, features=0.0)}),
    ("decay.weights", {"layers": 2, "decay": Decay(weights=0.0, features=0.1)}),
])
def test_what_is_refused(argument, change):
    with pytest.raises(BadInput, match=argument):
        fixed_point(UFM(**{"classes": 3, "classifier": "etf", "decay": 0.01, **change}))
    with pytest.raises(BadInput, match="classifier"):
        etf.fixed_point(UFM(classes=3))
