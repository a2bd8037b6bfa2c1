"""The spectral flow against the full flow, and its closed forms in time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import ortho_group

from ncflow import UFM, BadInput, Crossing, Decay, simulate
from ncflow.flows.spectral import logistic, nc1, time_to_collapse

TIMES = (0.5, 5.0, 50.0)
TIGHT = dict(rtol=1e-11, atol=1e-15, events=())


def aligned(ufm: UFM, seed: int = 0, z=None, w=None, noise=None, beta: float = 0.2) -> dict:
    """A state with common singular bases: class means z, weights w (layers, K), and scatter `noise` (p)."""
    rng = np.random.default_rng(seed)
    K, M, counts = ufm.classes, ufm.layers, np.asarray(ufm.class_counts)
    z = rng.uniform(0.5, 2.0, K) if z is None else np.asarray(z)
    w = rng.uniform(0.3, 1.0, (M, K)) if w is None else np.asarray(w)
    R = ortho_group.rvs(K, random_state=rng) if ufm.balanced else np.eye(K)
    if ufm.bias != "none":
        R = np.linalg.qr(np.column_stack([np.ones(K), R[:, 1:]]))[0][:, ::-1]
    U = [ortho_group.rvs(p, random_state=rng) for p in ufm.widths]
    means = (U[0][:, :K] * z) @ R.T / np.sqrt(counts)
    Y = np.eye(K)[:, ufm.labels] / np.sqrt(counts)[:, None]
    E = rng.normal(size=(ufm.widths[0], ufm.samples))
    V = np.linalg.svd(E - E @ Y.T @ Y, full_matrices=False)[2]
    noise = rng.uniform(0.2, 1.0, ufm.widths[0]) if noise is None else np.asarray(noise)
    W = []
    for i in range(M - 1):
        p, q = ufm.widths[i : i + 2]
        rest = rng.uniform(0.2, 1.0, min(p, q) - K)
        W.append((U[i + 1][:, : min(p, q)] * np.concatenate([w[i], rest])) @ U[i][:, : min(p, q)].T)
    W.append((R * w[-1]) @ U[-1][:, :K].T)
    start = {"H": means[:, ufm.labels] + (U[0] * noise) @ V, "W": W}
    return start | ({} if ufm.bias == "none" else {"b": np.full(K, beta)})


MODELS = {
    "one layer": UFM(classes=4, samples_per_class=6, width=7, decay=Decay(1e-2, 5e-3)),
    "unbalanced, three layers": UFM(classes=4, samples_per_class=[6, 8, 5, 7], width=(7, 6, 8), layers=3, mobility=2.0,
                                    decay=Decay((1e-2, 5e-3, 2e-3), 1e-2)),
    "free bias": UFM(classes=4, samples_per_class=6, width=7, bias="free", decay=Decay(1e-2, 5e-3), loss_scale=0.25),
    "decayed bias, two layers": UFM(classes=4, samples_per_class=6, width=7, layers=2, bias="decayed",
                                    decay=Decay(1e-2, 1e-2, 3e-2)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_aligned_runs_are_those_of_the_full_flow(name):
    ufm = MODELS[name]
    shared = dict(initial=aligned(ufm), save_at=TIMES, **TIGHT)
    full, modes = simulate(ufm, flow="full", **shared), simulate(ufm, **shared)
    assert modes.data.attrs["flow"] == "spectral"
    assert modes.data.attrs["flow_size"] == (ufm.layers + 2) * 4 + ufm.layers + (ufm.bias != "none")
    for key in full.final:
        np.testing.assert_allclose(modes.final[key], full.final[key], atol=1e-10, err_msg=key)
    for key in (
        "fn",
        "nc1_trace_ratio",
        "energy",
        "weight_norm",
        "cdnv",
        "layer_feature_norm",
        "nc3_one_minus_cos",
    ):
        np.testing.assert_allclose(modes.data[key], full.data[key], rtol=1e-9, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("where", ["H", "W", "b"])
def test_misaligned_starts_are_refused(where):
    ufm = MODELS["decayed bias, two layers"]
    start = aligned(ufm)
    bump = 1e-6 * np.random.default_rng(1).normal(size=ufm.widths[0])
    if where == "H":
        start["H"] = start["H"] + bump[:, None] * (ufm.labels == 0)
    elif where == "W":
        start["W"] = [start["W"][0] + np.outer(bump, bump[::-1]) * 1e5, start["W"][1]]
    else:
        start["b"] = start["b"] + bump[:4]
    with pytest.raises(BadInput, match=r"^flow = 'spectral': .*not aligned"):
        simulate(ufm, initial=start, until=1.0, flow="spectral")
    assert simulate(ufm, initial=start, until=1.0).data.attrs["flow"] != "spectral"


def test_equal_and_dead_modes_are_aligned():
    """Degenerate singular values leave the modes free, and a dead mode leaves its direction free."""
    ufm = MODELS["one layer"]
    for z, w in (
        ([1, 1, 1, 1], [[0.5] * 4]),
        ([1, 1, 2, 0], [[0.5, 0.5, 1, 0]]),
        ([1, 0, 2, 1], [[0.5, 1, 0, 0.2]]),
    ):
        start = aligned(ufm, z=z, w=w)
        full, modes = (
            simulate(ufm, initial=start, save_at=[20.0], flow=flow, **TIGHT) for flow in ("full", "spectral")
        )
        np.testing.assert_allclose(modes.final["H"], full.final["H"], atol=1e-10)


# Closed forms


def balanced(ufm: UFM, s0: float, scatter: float, modes: int) -> dict:
    """Equal modes with signal s0 and w^2 = n m^2/theta, all scatter outside of them."""
    n, theta, K = ufm.class_counts[0], ufm.mobilities[0], ufm.classes
    amplitude = np.sqrt(s0 * np.sqrt(n / theta))
    active = np.arange(K) < modes
    noise = np.where(np.arange(ufm.widths[0]) < K, 0.0, np.sqrt(scatter / (ufm.widths[0] - K)))
    return aligned(
        ufm, z=np.sqrt(theta) * amplitude * active, w=[amplitude * active], noise=noise, beta=1 / K
    )


@pytest.mark.parametrize("bias, mobility, decay", [("none", 1.0, 0.02), ("none", 4.0, 0.05), ("free", 1.0, 0.02),
                                                   ("none", 1.0, 0.3)])  # fmt: skip
def test_logistic_and_nc1(bias, mobility, decay):
    K, n, s0, scatter = 4, 6, 0.05, 2.0
    ufm = UFM(
        classes=K,
        samples_per_class=n,
        width=7,
        bias=bias,
        mobility=mobility,
        decay=Decay(decay, decay / mobility),
    )
    start = balanced(ufm, s0, scatter, K - (bias == "free"))
    rate = 2 * 0.5 * np.sqrt(mobility) / (K * np.sqrt(n))
    closed = dict(rate=rate, decay=decay, signal=s0)
    spread = dict(scatter=scatter, modes=K - 1, samples=n, mobility=mobility)
    shared = TIGHT | dict(initial=start, save_at=TIMES, events=[Crossing(level=0.5)])
    for flow in ("full", "spectral"):
        run = simulate(ufm, flow=flow, **shared)
        np.testing.assert_allclose(run.data["nc1_trace_ratio"][0], nc1(TIMES, **closed, **spread), rtol=4e-9)
        np.testing.assert_allclose(
            run.data["event_time"][0, 0], time_to_collapse(0.5, **closed, **spread), rtol=1e-9
        )
        signal = np.linalg.svd(run.final["W_1"][0] @ run.final["H"][0].reshape(7, K, n).mean(2))[1][0]
        np.testing.assert_allclose(signal, logistic(TIMES[2], **closed), rtol=1e-9)


def test_closed_forms_at_their_limits():
    """lambda = q is no pole, large times neither overflow nor vanish early, and without decay NC1 has a floor."""
    shared = dict(rate=0.1, signal=0.01)
    t = np.array([0.0, 1.0, 50.0])
    near = logistic(t, decay=0.1 * (1 - 1e-9), **shared)
    np.testing.assert_allclose(logistic(t, decay=0.1, **shared), near, rtol=1e-7)
    np.testing.assert_allclose(logistic(1e9, decay=0.02, **shared), 0.8, rtol=1e-15)
    assert logistic(1e9, decay=0.2, **shared) == 0.0
    spread = dict(scatter=1.0, modes=3, samples=100)
    floor = 1 / 30
    assert time_to_collapse(floor * 1.1, decay=0.0, **shared, **spread) < np.inf
    assert time_to_collapse(floor * 0.9, decay=0.0, **shared, **spread) == np.inf
    assert time_to_collapse(1e9, decay=0.0, **shared, **spread) == 0.0
    slow = time_to_collapse(0.01, decay=1e-6, **shared, **spread)  # THEORY 9.1: ln(A/(eps s_inf))/(2 lambda)
    np.testing.assert_allclose(slow, np.log(floor / (0.01 * (1 - 1e-5))) / 2e-6, rtol=1e-9)
    for bad in ({"rate": 0.0}, {"decay": -1.0}, {"signal": 0.0}):
        with pytest.raises(BadInput):
            logistic(1.0, **({"rate": 1.0, "decay": 0.1, "signal": 0.1} | bad))


def test_layered_common_amplitude():
    """THEORY 9.3: u' = -l u + q u^(D-1) (1 - u^D/sqrt(n)), NC1(H_1) = S e^(-2 l t)/((K-1) u^2), D = M + 1."""
    K, n, decay, u0, scatter = 4, 6, 0.01, 1.1, 2.0
    ufm = UFM(classes=K, samples_per_class=n, width=7, layers=2, decay=decay)
    noise = np.where(np.arange(7) < K, 0.0, np.sqrt(scatter / 3))
    start = aligned(ufm, z=[u0] * K, w=[[u0] * K] * 2, noise=noise)
    run = simulate(ufm, initial=start, save_at=[40.0], flow="spectral", **TIGHT)
    u = np.linalg.svd(run.final["W_2"][0])[1][0]
    q = 1 / (K * np.sqrt(n))
    exact = solve_ivp(lambda _, v: -decay * v + q * v**2 * (1 - v**3 / np.sqrt(n)), (0, 40), [u0], rtol=1e-13, atol=0)
    np.testing.assert_allclose(u, exact.y[0, -1], rtol=1e-9)
    H = run.final["H"][0].reshape(7, K, n)
    means = H.mean(2)
    within, between = (
        ((H - means[:, :, None]) ** 2).sum() / (K * n),
        ((means - means.mean(1)[:, None]) ** 2).sum() / K,
    )
    np.testing.assert_allclose(
        within / between, scatter * np.exp(-2 * decay * 40) / ((K - 1) * u**2), rtol=1e-9
    )
