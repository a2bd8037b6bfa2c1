"""The response to a rescaled layer against the flow of its amplitudes and of all weights."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from ncflow.errors import BadInput
from ncflow.model import UFM, DeepLinear, Isotropic
from theory import fixed_point, intervention_response


def amplitudes(m, alpha, hit, times):
    """fn from D amplitudes, exact for modes that are all alike; `hit` counts factors from the first."""
    point: Any = fixed_point(m)
    z, n, free = point.modes[1].mean(), m.class_counts[0], isinstance(m, UFM)
    D, lam, scale = m.layers + free, m.weight_decays[0][0], 2 * m.loss_scale / m.samples
    b, g = (
        (np.sqrt(n), 1.0) if free else (n * m.inputs.amplitude, n * (m.inputs.amplitude**2 + m.inputs.noise))
    )
    w = np.full(D, z ** (1 / D))
    w[hit] *= alpha
    path = solve_ivp(
        lambda _, w: -lam * w + scale * (b - g * np.prod(w)) * np.prod(w) / w,
        (0, times[-1]),
        w,
        t_eval=times,
        method="DOP853",
        rtol=1e-12,
        atol=1e-14,
    )
    return point.feature_norm / z ** ((D - 1) / D) * np.prod(path.y[: D - 1], axis=0)


@pytest.mark.parametrize("alpha", [0.3, 0.7, 2.0, 3.0])
@pytest.mark.parametrize(
    "m,layer,hit",
    [
        (
            DeepLinear(inputs=Isotropic(2.0, 0.1), classes=4, samples_per_class=10, layers=3, decay=2e-3),
            -2,
            1,
        ),
        (
            DeepLinear(
                inputs=Isotropic(2.0, 0.1), classes=4, samples_per_class=10, layers=6, bias="free", decay=5e-4
            ),
            0,
            0,
        ),
        (UFM(classes=4, samples_per_class=10, layers=2, bias="free", decay=2e-3), -2, 1),
        (UFM(classes=4, samples_per_class=10, layers=1, decay=2e-3), "features", 0),
        (UFM(classes=4, samples_per_class=10, layers=2, decay=2e-3), -1, 2),
    ],
    ids=["M3", "M6", "UFM 2", "H", "head"],
)
def test_quasi_rest(m, layer, hit, alpha):
    """Once the fast modes have settled: 2e-4 of fn, the rate 2 lambda."""
    settled = intervention_response(m, alpha, 0.0, layer=layer).settled
    rate = 2 * m.weight_decays[0][0]
    times = np.union1d(settled * np.array([1, 1.5, 2, 4]), np.linspace(1, 6, 20) / rate)
    found = intervention_response(m, alpha, times, layer=layer)
    known = amplitudes(m, alpha, hit, times)
    later = times >= settled
    assert np.abs(found.feature_norm / known - 1)[later].max() < 2e-4
    assert found.rate == rate and found.start == pytest.approx(
        found.fn_inf * (alpha if layer != -1 else 1), rel=1e-12
    )
    end = np.abs(known[-6:] / found.fn_inf - 1)
    assert -np.polyfit(times[-6:], np.log(end), 1)[0] == pytest.approx(rate, rel=0.03)


def test_all_weights_follow_their_amplitudes(brute):
    """The whole network on noisy data with those moments, its last hidden layer scaled down."""
    K, n, r, v2, lam = 3, 8, 1.6, 0.2, 0.01
    labels = np.repeat(np.eye(K), n, axis=1)
    rows = np.linalg.qr(np.concatenate([labels, np.random.default_rng(0).standard_normal((K, K * n))]).T)[
        0
    ].T[K:]
    words: Any = dict(classes=K, samples_per_class=n, layers=3, width=4, decay=lam)
    exact = DeepLinear(inputs=Isotropic(r, v2), **words)
    m = DeepLinear(inputs=r * labels + np.sqrt(n * v2) * rows, **words)
    point: Any = fixed_point(exact)
    U, z, V = point.modes
    frames = [np.linalg.qr(np.random.default_rng(i).standard_normal((4, 4)))[0][:, :K] for i in (1, 2)]
    W = [o * z ** (1 / 3) @ i.T for o, i in zip([*frames, U], [V, *frames], strict=True)]
    W[1] = 0.3 * W[1]
    loss, shapes = brute.deep_linear_loss(m), [w.shape for w in W]
    ends = np.cumsum([w.size for w in W])[:-1]

    def split(v):
        return [part.reshape(s) for part, s in zip(np.split(v, ends), shapes, strict=True)]

    def speed(_, v):
        parts = [torch.tensor(w, requires_grad=True) for w in split(v)]
        return -np.concatenate([g.numpy().ravel() for g in torch.autograd.grad(loss(parts), parts)])

    times = np.array([40.0, 80.0, 160.0])
    path = solve_ivp(
        speed, (0, 160), np.concatenate([w.ravel() for w in W]), t_eval=times, rtol=1e-9, atol=1e-11
    )
    known = [np.sqrt(np.mean(np.sum((A[1] @ A[0] @ m.inputs) ** 2, axis=0))) for A in map(split, path.y.T)]
    found = intervention_response(exact, 0.3, times)
    assert found.settled < 40 and found.feature_norm == pytest.approx(known, rel=3e-4)


def test_shapes_and_refusals():
    m = UFM(classes=3, samples_per_class=4, layers=2, decay=1e-3)
    found = intervention_response(m, [[0.5, 1.0, 2.0]], np.linspace(0, 100, 7))
    assert found.feature_norm.shape == (1, 3, 7) and found.start.shape == (1, 3)
    assert found.feature_norm[0, 1] == pytest.approx(np.full(7, found.fn_inf), rel=1e-12)
    assert r"\sum" in found.formula and found.status == "asymptotic"
    decays: Any = (1e-3, 1e-2)
    wrong: Any = (
        (UFM(classes=3, decay=decays), {}, "model"),
        (m, dict(alpha=-1.0), "alpha"),
        (UFM(classes=3, mobility=2.0, decay=1e-3), dict(layer=-1), "mobility"),
        (m, dict(layer=2), "layer"),
        (UFM(classes=3, samples_per_class=(1, 2, 3), layers=2), {}, "samples_per_class"),
        (UFM(classes=3, layers=2, decay=9.0), {}, "decay"),
        (DeepLinear(inputs=np.eye(3), classes=3, samples_per_class=1, layers=2), {}, "inputs"),
    )
    for model, words, field in wrong:
        with pytest.raises(BadInput, match=field):
            intervention_response(model, **{**dict(alpha=0.5, times=1.0), **words})
