"""Times to collapse against integration of the gradient flow of all weights and features."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from ncflow import initial
from ncflow.errors import BadInput
from ncflow.model import UFM, Decay, DeepLinear, Isotropic
from theory import Regime, fixed_point, fold, lead_time, maxwell, rates, regime, time_to_collapse
from theory.aligned import aligned, crossing


def integrate(brute, m, blocks, until):
    """(path, measure): the flow of all parameters, and (log NC1, fn) of layer -1 or another at its states."""
    shapes, loss = [b.shape for b in blocks], brute.ufm_loss(m)
    ends = np.cumsum([b.size for b in blocks])[:-1]
    speeds = np.concatenate(
        [
            np.full(b.size, v)
            for b, v in zip(blocks, [m.mobilities[0]] + [1.0] * (len(blocks) - 1), strict=True)
        ]
    )

    def split(v):
        return [part.reshape(s) for part, s in zip(np.split(v, ends), shapes, strict=True)]

    def speed(_, v):
        parts = [torch.tensor(b, requires_grad=True) for b in split(v)]
        return -speeds * np.concatenate([g.numpy().ravel() for g in torch.autograd.grad(loss(parts), parts)])

    def measure(v, layer=-1):
        X = split(v)
        H = [X[0]]
        for W in X[1 : m.layers]:
            H.append(W @ H[-1])
        h = H[layer]
        means = np.stack([h[:, m.labels == k].mean(axis=1) for k in range(m.classes)], axis=1)
        between = np.sum((means - h.mean(axis=1, keepdims=True)) ** 2) / m.classes
        within = np.sum((h - means[:, m.labels]) ** 2) / m.samples
        return float(np.log(within / between)), float(np.linalg.norm(h, axis=0).mean())

    path = solve_ivp(
        speed,
        (0, until),
        np.concatenate([b.ravel() for b in blocks]),
        method="DOP853",
        rtol=1e-10,
        atol=1e-13,
        dense_output=True,
    )
    return path, measure


def aligned_blocks(m, signal, scatter, seed=0):
    """All parameters at an aligned start; spare singular values of the hidden weights are 1."""
    rng, K, n = np.random.default_rng(seed), m.classes, m.class_counts[0]
    flow = aligned(m, 0, signal, 1.0)
    frames = [np.linalg.qr(rng.standard_normal((p, p)))[0] for p in m.widths]
    P = np.eye(K) - (m.bias == "free") / K
    U = np.linalg.svd(P)[0][:, : flow.active]
    r = flow.active
    noise = rng.standard_normal((m.widths[0] - r, K * n))
    groups = np.eye(K)[:, m.labels]
    noise -= noise @ groups.T @ groups / n
    noise /= np.linalg.norm(noise, axis=0)  # equal norms: fn is then the root mean square
    noise *= np.sqrt(scatter / np.sum(noise**2))
    H = frames[0][:, :r] @ (flow.start[0] / np.sqrt(n) * U.T @ groups) + frames[0][:, r:] @ noise
    W = []
    for k in range(m.layers - 1):
        rest = np.eye(m.widths[k + 1] - r, m.widths[k] - r)
        W.append(
            frames[k + 1][:, :r] * flow.start[k + 1] @ frames[k][:, :r].T
            + frames[k + 1][:, r:] @ rest @ frames[k][:, r:].T
        )
    W.append(flow.start[-1] * U @ frames[-1][:, :r].T)
    return [H, *W] + ([np.full(K, 1 / K)] if m.bias == "free" else [])


@pytest.mark.parametrize(
    "m,layer",
    [
        (UFM(classes=3, samples_per_class=2, width=4, decay=0.03), -1),
        (UFM(classes=3, samples_per_class=2, width=4, bias="free", decay=0.03), -1),
        (UFM(classes=3, samples_per_class=2, width=5, decay=Decay(0.02, 0.05), mobility=0.7), -1),
        (UFM(classes=3, samples_per_class=2, width=(5, 6), layers=2, decay=Decay((0.03, 0.02), 0.04)), -1),
        (UFM(classes=3, samples_per_class=2, width=(5, 6), layers=2, decay=Decay((0.03, 0.02), 0.04)), 0),
        (UFM(classes=3, samples_per_class=2, width=5, layers=3, bias="free", decay=0.02), -1),
    ],
    ids=["M1", "M1 free", "M1 mobility", "M2", "M2 H_1", "M3"],
)
def test_aligned_start_is_exact(brute, m, layer):
    """Two samples per class deviate oppositely: noise stays outside the modes; T to 1e-7."""
    signal, scatter, eps = 0.7, 0.8, 0.01
    blocks = aligned_blocks(m, signal, scatter)
    found = time_to_collapse(m, eps, signal=signal, scatter=scatter, layer=layer)
    path, measure = integrate(brute, m, blocks, found.time * 1.1)
    t = crossing(lambda v: measure(path.sol(v), layer)[0] - np.log(eps), 0.0, found.time * 1.1)
    assert found.time == pytest.approx(t, rel=1e-7) and found.status == "exact"
    assert found.feature_norm == pytest.approx(measure(path.sol(t), layer)[1], rel=1e-6)
    assert found.regime is Regime.COLLAPSE


@settings(max_examples=40, deadline=None)
@given(
    st.floats(1e-3, 1.5), st.floats(0.01, 1.0), st.floats(0.1, 100.0), st.integers(2, 6), st.integers(2, 50)
)
def test_logistic_is_the_aligned_flow(strength, s0, scatter, K, n):
    """Decay below, at and beyond the critical q: the closed form against integration, to 1e-8."""
    q = 1 / (K * np.sqrt(n))
    m = UFM(classes=K, samples_per_class=n, width=K + 2, decay=strength * q)
    found = time_to_collapse(m, 0.01, signal=s0, scatter=scatter)
    flow = aligned(m, 0, s0, scatter)
    if found.time == 0:
        assert flow.log_nc1(0.0, np.log(flow.start)) <= np.log(0.01)
        return
    path = flow.run(found.time)
    assert flow.log_nc1(found.time, path.y[:, -1]) == pytest.approx(np.log(0.01), abs=1e-8)
    assert flow.feature_norm(found.time, path.y[:, -1]) == pytest.approx(found.feature_norm, rel=1e-8)
    assert abs(strength - 1) < 1e-9 or (found.regime is Regime.VANISHING) == (strength > 1)


def test_at_the_critical_decay():
    q = 1 / (4 * 3)
    times = [
        time_to_collapse(
            UFM(classes=4, samples_per_class=9, width=6, decay=q * f), signal=0.2, scatter=9.0
        ).time
        for f in (1 - 1e-7, 1, 1 + 1e-7)
    ]
    assert times == pytest.approx([times[1]] * 3, rel=1e-6)


def test_small_decay():
    """T = ln(A/(eps s_inf))/2l: to 1e-3 up to 0.36 q, 3.5% at 0.6 q (K = 4, n = 9, S = 12)."""
    q, scatter = 1 / 12, 12.0
    for share, error in ((0.05, 1e-4), (0.36, 2e-3), (0.6, 0.06)):
        l = share * q  # noqa: E741
        found = time_to_collapse(
            UFM(classes=4, samples_per_class=9, width=6, decay=l), signal=0.2, scatter=scatter
        )
        assert found.time == pytest.approx(np.log(scatter / 9 / 0.01 / (1 - share)) / (2 * l), rel=error)


def test_beyond_the_fold():
    """D = 2: the ratio falls on at 2 q while features vanish. D >= 3: it freezes, or crosses before that."""
    q = 1 / 12
    far = [
        time_to_collapse(
            UFM(classes=4, samples_per_class=9, width=6, decay=2 * q), eps, signal=0.5, scatter=9.0
        )
        for eps in (1e-6, 1e-8)
    ]
    assert far[1].time - far[0].time == pytest.approx(np.log(100) / (2 * q), rel=1e-6)
    assert far[0].regime is Regime.VANISHING and far[1].feature_norm < 1e-3
    words: Any = dict(classes=4, samples_per_class=9, width=6, layers=2)
    edge = fold(UFM(**words, decay=1e-3)).decay
    frozen = time_to_collapse(UFM(**words, decay=1.5 * edge), signal=0.9, scatter=200.0, layer=0)
    crosses = time_to_collapse(UFM(**words, decay=1.001 * edge), signal=0.9, scatter=3.0, layer=0)
    assert frozen.time == np.inf and frozen.regime is Regime.VANISHING and np.isnan(frozen.feature_norm)
    assert np.isfinite(crosses.time) and crosses.regime is Regime.VANISHING


def test_the_basin_of_zero():
    """Below the fold, a start under the lower root goes to zero."""
    m = UFM(classes=4, samples_per_class=9, width=6, layers=2, decay=0.03)
    (saddle,) = fixed_point(m).other_roots
    over, under = (time_to_collapse(m, signal=saddle.signal * f, scatter=9.0, layer=0) for f in (1.01, 0.99))
    assert over.regime is Regime.COLLAPSE and np.isfinite(over.time) and under.regime is Regime.VANISHING


@pytest.mark.parametrize(
    "m,error",
    [
        (UFM(classes=4, samples_per_class=5, width=16, decay=0.02), 1.2),
        (UFM(classes=4, samples_per_class=5, width=12, bias="free", decay=Decay(0.03, 0.01)), 1.2),
        (UFM(classes=3, samples_per_class=5, width=12, layers=2, decay=0.01), 1.35),
        (UFM(classes=3, samples_per_class=5, width=12, layers=3, decay=0.01), 1.75),
        (UFM(classes=3, samples_per_class=5, width=12, decay=0.01, mobility=4.0), 1.2),
    ],
    ids=["M1", "M1 free", "M2", "M3", "mobility"],
)
def test_random_starts(brute, m, error):
    """NC1 of flows from drawn starts, at the time that the estimate gives for it."""
    for seed in (0, 1):
        drawn = {name: v.numpy() for name, v in initial.draw(m, seed).items()}
        blocks = [drawn["H"], *(drawn[f"W_{i}"] for i in range(1, m.layers + 1))]
        found = time_to_collapse(m, 1e-3, initial={"H": blocks[0], "W": blocks[1:]})
        assert found.status == "empirical" and (seed or time_to_collapse(m, 1e-3).time == found.time)
        path, measure = integrate(brute, m, blocks + ([drawn["b"]] if "b" in drawn else []), found.time)
        ratio, fn = measure(path.y[:, -1])
        assert abs(ratio - np.log(1e-3)) < np.log(error) and found.feature_norm == pytest.approx(fn, rel=0.01)


def test_fn_and_nc1_race():
    """lambda_W/lambda_H decides who is first in the end; tie at 1. Times against the path itself."""
    for ratio, first in ((0.1, False), (1.0, False), (3.0, True), (10.0, True)):
        m = UFM(
            classes=4,
            samples_per_class=10,
            width=8,
            decay=Decay(1e-2 * np.sqrt(ratio), 1e-2 / np.sqrt(ratio)),
        )
        found = lead_time(m, signal=1.0, scatter=40.0)
        assert found.fn_first is first and found.lead == found.collapse_time - found.settling_time
        flow, rest = aligned(m, 0, 1.0, 40.0), fixed_point(m).feature_norm
        path = flow.run(found.settling_time * 2)
        t = np.linspace(found.settling_time, found.settling_time * 2, 400)
        apart = np.abs(flow.feature_norm(t, path.sol(t)) / rest - 1)
        assert apart[0] == pytest.approx(0.01, rel=1e-6) and np.all(apart[1:] < 0.01)
    assert lead_time(m, signal=1.0, scatter=40.0, tolerance=1e-3).lead < found.lead


@settings(max_examples=80, deadline=None)
@given(st.floats(-4, -1), st.floats(-4, -1), st.integers(2, 6), st.integers(2, 30), st.sampled_from(["none", "free"]))
def test_who_is_first_in_the_end(log_w, log_h, K, n, bias):
    """One layer: fn iff lambda_W > lambda_H and sigma > 1/2, not 2 sigma lambda_W > lambda_W + lambda_H."""
    lw, lh = 10**log_w, 10**log_h
    m = UFM(classes=K, samples_per_class=n, width=K + 2, bias=bias, decay=Decay(lw, lh))
    found, x = rates(m), fixed_point(m).signal
    if not x or abs(x - 0.5) < 1e-6 or abs(lw / lh - 1) < 1e-6:
        return
    assert (found.signal.value > found.nc1_first.value) == (lw > lh and x > 0.5)


def test_the_exact_condition_differs_from_its_leading_order():
    m = UFM(classes=4, samples_per_class=100, width=8, decay=Decay(1.2e-2, 1e-2))
    x, found = fixed_point(m).signal, lead_time(m)
    assert 0.5 < x < 0.6 and 2 * x * 1.2e-2 < 1.2e-2 + 1e-2 and found.fn_first
    assert not lead_time(UFM(classes=4, samples_per_class=100, width=8, decay=Decay(1e-2, 1.2e-2))).fn_first


def test_regimes():
    words: Any = dict(classes=3, samples_per_class=4, width=3, layers=3)
    edges = fold(UFM(**words, decay=1.0)).decay, maxwell(UFM(**words, decay=1.0)).decay
    decays: Any = (edges[1] * 0.99, edges[1] * 1.01, edges[0] * 0.99, edges[0] * 1.01)
    m = UFM(**words, decay=decays)
    assert regime(m) == (Regime.COLLAPSE, Regime.METASTABLE, Regime.METASTABLE, Regime.VANISHING)
    data = DeepLinear(inputs=Isotropic(2.0, 0.3), classes=4, layers=3, decay=1e-3)
    assert regime(data, 0.05) is Regime.FLOOR and regime(data, 0.2) is Regime.COLLAPSE
    assert time_to_collapse(data, 0.05).time == np.inf


def test_lanes_and_refusals():
    decays: Any = (1e-3, 1e-2, 5.0)
    many = time_to_collapse(UFM(classes=3, samples_per_class=4, width=6, decay=decays))
    one = time_to_collapse(UFM(classes=3, samples_per_class=4, width=6, decay=1e-2))
    assert many.time[1] == one.time and many.time[2] == np.inf and many.regime[2] is Regime.VANISHING
    assert one.scatter > 0 and "T_{NC}" in one.formula
    for words, field in (
        (dict(samples_per_class=(1, 2, 3)), "samples_per_class"),
        (dict(width=3), "width"),
        (dict(samples_per_class=1), "width"),
        (dict(loss="cross_entropy"), "loss"),
    ):
        with pytest.raises(BadInput, match=field):
            time_to_collapse(UFM(**{**dict(classes=3, samples_per_class=2, width=6), **words}))
    calls: Any = ((dict(signal=2.0), "signal"), (dict(scatter=-1.0), "scatter"), (dict(layer=3), "layer"))
    for call, field in calls:
        with pytest.raises(BadInput, match=field):
            time_to_collapse(UFM(classes=3, samples_per_class=2, width=6), **call)
    with pytest.raises(BadInput, match="bias"):
        time_to_collapse(UFM(classes=3, samples_per_class=2, width=6, bias="decayed", decay=0.01), signal=0.5)
    with pytest.raises(BadInput, match="floor"):
        time_to_collapse(DeepLinear(inputs=Isotropic(2.0), classes=3, layers=2))
    with pytest.raises(BadInput, match="decay"):
        lead_time(UFM(classes=3, samples_per_class=2, width=6, decay=1.0))
