"""Asymptotic rates against integration of the full gradient flow, written from the loss."""

from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from ncflow.errors import BadInput
from ncflow.model import UFM, Decay, DeepLinear, Isotropic
from theory import fixed_point, rates, spectrum
from theory.rest import points


def flow(m, until, push=(0.05, 0.0, 0.0), count=300, seed=0):
    """Times, NC1 of H_1 and of the penultimate features, |fn/fn_inf - 1| from a disturbed fixed point.

    `push`: relative disturbance of all entries, and of the mean of the features inside and outside the
    modes' span."""
    rng, point = np.random.default_rng(seed), next(points(m))
    assert point.modes is not None
    U, z, V = point.modes
    lam = np.concatenate([m.feature_decays, m.weight_decays[0]])
    lb, theta, M = m.bias_decays[0], m.mobilities[0], m.layers
    frames = [np.linalg.qr(rng.standard_normal((p, p)))[0] for p in m.widths]
    hidden = [frame[:, : len(z)] for frame in frames]
    first = (V.T / np.sqrt(np.asarray(m.class_counts)))[:, m.labels]
    mean = np.exp(np.log(lam).mean())
    X = [
        np.sqrt(mean / d) * (o * z ** (1 / len(lam))) @ i
        for d, o, i in zip(lam, [*hidden, U], [first, *(h.T for h in hidden)], strict=True)
    ]
    X += [np.array(point.bias)] if m.bias != "none" else []
    X = [b + push[0] * rng.standard_normal(b.shape) * np.sqrt(np.mean(b**2)) for b in X]
    shift = push[1] * hidden[0].mean(axis=1, keepdims=True) + push[2] * frames[0][:, -1:]
    X[0] += np.linalg.norm(X[0], axis=0).mean() * shift
    ends = np.cumsum([b.size for b in X])[:-1]
    Y = np.eye(m.classes)[:, m.labels]

    def split(v):
        return [a.reshape(b.shape) for a, b in zip(np.split(v, ends), X, strict=True)]

    def outputs(B):
        out = [B[0]]
        for W in B[1 : M + 1]:
            out.append(W @ out[-1])
        return out

    def speed(_, v):
        B = split(v)
        out = outputs(B)
        G = 2 * m.loss_scale / m.samples * (out[-1] + (B[-1][:, None] if m.bias != "none" else 0) - Y)
        tail, back = ([G.sum(axis=1) + lb * B[-1]] if m.bias != "none" else []), []
        for i in range(M, 0, -1):
            back.insert(0, G @ out[i - 1].T + lam[i] * B[i])
            G = B[i].T @ G
        return -np.concatenate([g.ravel() for g in [theta * (G + lam[0] * B[0]), *back, *tail]])

    t = np.linspace(0, until, count)
    path = solve_ivp(
        speed,
        (0, until),
        np.concatenate([b.ravel() for b in X]),
        method="DOP853",
        t_eval=t,
        rtol=1e-11,
        atol=1e-15,
    )
    seen = []
    for v in path.y.T:
        layers = outputs(split(v))[:M]
        row = []
        for H in (layers[0], layers[-1]):
            means = np.stack([H[:, m.labels == k].mean(axis=1) for k in range(m.classes)], axis=1)
            within = np.sum((H - means[:, m.labels]) ** 2) / m.samples
            row.append(within / (np.sum((means - H.mean(axis=1, keepdims=True)) ** 2) / m.classes))
        seen.append([*row, abs(np.linalg.norm(layers[-1], axis=0).mean() / point.feature_norm - 1)])
    return t, np.array(seen).T


def slope(t, y, low, high):
    """-d log y/dt over the later fifth of what lies between low and high."""
    inside = np.flatnonzero((y > low) & (y < high))
    use = inside[-max(6, len(inside) // 5) :]
    return -np.polyfit(t[use], np.log(y[use]), 1)[0]


def model(weights, features, lb=0.0, **words):
    return UFM(
        **{**dict(classes=3, samples_per_class=3, width=6), **words},
        decay=Decay(weights=weights, features=features, bias=lb),
    )


@pytest.mark.parametrize(
    "m,error,push",
    [
        (model(0.01, 0.03), 1e-6, 0.05),
        (model(0.03, 0.01), 1e-6, 0.05),
        (model(0.03, 0.01, width=3), 1e-3, 0.05),
        (model(0.02, 0.02, mobility=3.0), 1e-6, 0.05),
        (model(0.02, 0.02, layers=2), 1e-5, 0.05),
        (model(0.02, 0.02, layers=2, width=(3, 6)), 1e-3, 0.05),
        (model(0.02, 0.02, layers=2, width=(6, 3)), 1e-4, 0.05),
        (model((0.01, 0.01, 0.01), 0.04, layers=3, width=(6, 6, 3)), 0.03, 0.5),
        (model((0.01, 0.01, 0.01), 0.04, layers=3, width=(6, 3, 3)), 5e-3, 0.05),
        (model((0.01, 0.02), 0.02, layers=2, bias="free", mobility=0.5), 1e-5, 0.05),
    ],
    ids=lambda v: "" if isinstance(v, float) else f"M{v.layers} width {v.width} {v.decay.weights}",
)
def test_nc1_tails(m, error, push):
    """Spare width or none, every layer, mobility; the error is what is left of the modes' own relaxation, or
    of a second way that starts larger."""
    found = rates(m)
    t, (first, last, _) = flow(m, 22 / min(found.nc1.value, found.nc1_first.value) + 150, (push, 0, 0))
    assert slope(t, first, 1e-18, 1e-4) == pytest.approx(found.nc1_first.value, rel=error)
    assert slope(t, last, 1e-18, 1e-4) == pytest.approx(found.nc1.value, rel=error)


def test_the_way_through_the_second_layer():
    """p_2 = R closes the way outside throughout; with lambda_H > l_1 + l_2 the deviations leave the modes'
    complement in layer 2, not in layer 1: lambda_H + 2 l_1 + l_2 < 2 lambda_H + l_1."""
    m = model((0.01, 0.01, 0.01), 0.04, layers=3, width=(6, 6, 3))
    found = rates(m).nc1.value
    assert found == pytest.approx(2 * (0.04 + 2 * 0.01 + 0.01), rel=1e-12) and found < 2 * (2 * 0.04 + 0.01)


@pytest.mark.parametrize(
    "m,push",
    [
        (model(0.01, 0.03), (0.1, 0, 0)),
        (model(0.03, 0.01, width=3), (0.1, 0, 0)),
        (model(0.02, 0.02, mobility=3.0), (0.1, 0, 0)),
        (model(0.04, 0.02, bias="free"), (0, 0.5, 0)),
        (model(0.02, 0.02, 0.02, bias="decayed"), (0, 0.1, 0.8)),
        (model(0.02, 0.04, 0.5, bias="decayed"), (0, 0.1, 0)),
        (model((0.01, 0.02), 0.02, layers=2, bias="free"), (0, 0.5, 0)),
        (model(0.06, 0.06, samples_per_class=(1, 5, 9)), (0.1, 0, 0)),
    ],
    ids=lambda v: "" if isinstance(v, tuple) else f"M{v.layers} {v.bias}",
)
def test_feature_norm(m, push):
    """The slowest way in which fn still moves: signal, NC1, or the mean of the features with the bias."""
    found = rates(m)
    t, (_, _, fn) = flow(m, 18 / found.fn.value, push)
    assert slope(t, fn, 1e-8, 1e-3) == pytest.approx(found.fn.value, rel=0.03)


def test_closed_values():
    m = UFM(classes=4, samples_per_class=100, width=64, decay=Decay(1e-3, 2e-3))
    found, x = rates(m), fixed_point(m).signal
    assert found.nc1.value == found.nc1_first.value == pytest.approx(4e-3, rel=1e-13)
    assert found.signal.value == pytest.approx(4 * x * 2e-6 / 3e-3, rel=0.1)
    assert found.signal.value == spectrum(m).block("symmetric").eigenvalues[0]
    tight = rates(UFM(classes=4, samples_per_class=100, width=4, decay=1e-3))
    assert tight.nc1.value == pytest.approx(2 * 2 * 0.5 / 4 / 10, rel=1e-12)  # 2 q
    assert tight.balance.value == 2e-3 and np.isnan(found.balance.value)
    data = rates(DeepLinear(inputs=Isotropic(1.5, 0.2), classes=3, layers=3, decay=1e-3))
    assert [data.balance.value, data.signal.value] == pytest.approx([2e-3] * 2) and np.isnan(data.nc1.value)


def test_lanes_and_refusals():
    decays: Any = (1e-3, 1e-2, 5.0)
    many = rates(UFM(classes=3, samples_per_class=2, layers=2, decay=decays))
    assert many.nc1.value[:2] == pytest.approx([4e-3, 4e-2]) and np.isnan(many.fn.value[2])
    assert many.nc1.status == "asymptotic" and many.balance.status == "exact" and many.fn.assumptions
    assert all(r"\rho" in r.formula for r in (many.nc1, many.fn, many.balance, many.nc1_first))
    with pytest.raises(BadInput, match="inputs"):
        rates(DeepLinear(inputs=np.eye(3), classes=3, samples_per_class=1, layers=2))
