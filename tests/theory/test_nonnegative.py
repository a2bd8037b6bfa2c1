"""Non-negative features: the orthogonal frame against projected minimisation of the full loss."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import theory
from ncflow.errors import BadInput
from ncflow.losses import Loss
from ncflow.model import UFM, Decay
from theory import strength, ufm
from theory.nonnegative import fixed_point, point

EXTRA = {"label_smoothing": dict(smoothing=0.15), "focal": dict(focal_gamma=2.0)}


def model(
    loss="mse", layers=1, bias="none", K=3, n=2, weights=6e-3, features=4e-3, lb=0.0, c=0.4, relu=False
):
    weights = (tuple(np.broadcast_to(weights, layers)),)
    return UFM(
        classes=K,
        samples_per_class=n,
        width=K + 1,
        layers=layers,
        loss=loss,
        bias=bias,
        loss_scale=c,
        decay=Decay(weights=weights, features=features, bias=lb),
        nonnegative=not relu,
        activation="relu" if relu else "linear",
        **EXTRA.get(loss, {}),
    )


def full_loss(m):
    """L of a flat vector of blocks (H, W_1, ..., W_M[, b])."""
    shapes = [(m.widths[0], m.samples), *m.weight_shapes] + [(m.classes,)] * (m.bias != "none")
    data = Loss.of(
        m.loss,
        torch.as_tensor(m.labels),
        m.classes,
        scale=m.loss_scale,
        smoothing=m.smoothing,
        gamma=m.focal_gamma,
    )
    decays = [float(m.feature_decays[0]), *m.weight_decays[0], float(m.bias_decays[0])]

    def split(v):
        return [
            b.reshape(s)
            for b, s in zip(torch.split(v, [int(np.prod(s)) for s in shapes]), shapes, strict=True)
        ]

    def loss(v):
        blocks = split(v)
        z = blocks[0]
        for i, W in enumerate(blocks[1 : m.layers + 1], 1):
            z = W @ z
            z = z.clamp(min=0) if m.activation == "relu" and i < m.layers else z
        z = z + blocks[-1][:, None] if m.bias != "none" else z
        return data.value(z[None])[0] + sum(
            d / 2 * (b**2).sum() for d, b in zip(decays, blocks, strict=False)
        )

    return loss, split


def descend(m, rng):
    """L-BFGS-B with H >= 0, then Newton on the face that it found: loss and blocks."""
    loss, split = full_loss(m)
    first = m.widths[0] * m.samples
    size = first + sum(int(np.prod(s)) for s in m.weight_shapes) + m.classes * (m.bias != "none")

    def value(v):
        t = torch.tensor(v, requires_grad=True)
        out = loss(t)
        return float(out.detach()), torch.autograd.grad(out, t)[0].numpy()

    v = np.concatenate([np.abs(rng.standard_normal(first)), 0.7 * rng.standard_normal(size - first)])
    bounds = [(0, None)] * first + [(None, None)] * (size - first)
    v = minimize(
        value,
        v,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options=dict(maxiter=20000, maxfun=40000, ftol=0, gtol=1e-9, maxcor=30),
    ).x
    free = np.flatnonzero((v > 1e-6) | (np.arange(size) >= first))
    v[np.setdiff1d(np.arange(size), free)] = 0.0
    for _ in range(8):
        gradient = value(v)[1]
        hessian = torch.autograd.functional.hessian(loss, torch.tensor(v), vectorize=True).numpy()
        v[free] -= np.linalg.lstsq(hessian[np.ix_(free, free)], gradient[free], rcond=1e-9)[0]
    return value(v)[0], [b.numpy() for b in split(torch.tensor(v))], value(v)[1], free


def measured(m, blocks):
    W, H = blocks[1 : m.layers + 1], blocks[0]
    layers = [H]
    for V in W[:-1]:
        layers.append(np.maximum(V @ layers[-1], 0) if m.activation == "relu" else V @ layers[-1])
    means = np.stack([layers[-1][:, m.labels == k].mean(axis=1) for k in range(m.classes)], axis=1)
    norms = np.linalg.norm(means, axis=0)
    cos = (means.T @ means / np.outer(norms, norms))[np.triu_indices(m.classes, 1)]
    return dict(
        feature_norm=np.linalg.norm(layers[-1], axis=0).mean(),
        class_mean_norms=norms,
        layer_feature_norms=[np.linalg.norm(h, axis=0).mean() for h in layers],
        weight_norms=[np.linalg.norm(V) for V in W],
        class_mean_cosine=cos,
        bias=blocks[-1] if m.bias != "none" and m.loss == "mse" else np.zeros(m.classes),
    )


def check(m, rng, record, starts=4):
    """The lowest of a few descents is the record, to 1e-9, and none is lower; how many got there."""
    ends = sorted((descend(m, rng) for _ in range(starts)), key=lambda end: end[0])
    value, blocks, gradient, free = ends[0]
    assert value == pytest.approx(record.loss, rel=1e-11)
    assert np.abs(gradient[free]).max() < 1e-12 and gradient.min() > -1e-12
    for name, found in measured(m, blocks).items():
        claimed = getattr(record, name)
        assert np.asarray(found) == pytest.approx(
            np.broadcast_to(claimed, np.shape(found)), rel=1e-9, abs=1e-9
        ), name
    return sum(end[0] < value * (1 + 1e-9) for end in ends)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "label_smoothing", "focal"])
@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
def test_one_layer_against_projected_descent(loss, bias):
    rng = np.random.default_rng([len(loss), len(bias)])
    for _ in range(2):
        lam = np.exp(rng.uniform(np.log(1e-3), np.log(2e-2), 2))
        K, lb = int(rng.integers(3, 6)), np.exp(rng.uniform(-5, 1)) if bias == "decayed" else 0.0
        m = model(loss, 1, bias, K, int(rng.integers(1, 3)), lam[1], lam[0], lb, rng.uniform(0.3, 0.6))
        check(m, rng, fixed_point(m))


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(["mse", "cross_entropy", "label_smoothing", "focal"]), st.sampled_from(["none", "free", "decayed"]),
       st.integers(3, 4), st.integers(1, 2), st.floats(0.03, 0.5), st.integers(0, 10**6))
def test_drawn_models_against_projected_descent(loss, bias, K, n, share, seed):
    """Decays of features, head and bias and the loss scale drawn, at a share of the fold."""
    rng = np.random.default_rng(seed)
    lam, c = 10 ** rng.uniform(-0.4, 0.4, 2), rng.uniform(0.3, 0.6)
    lb = 10 ** rng.uniform(-2, 0.3) if bias == "decayed" else 0.0
    at = share * theory.fold(model(loss, 1, "free" if lb else bias, K, n, lam[1], lam[0], 0.0, c)).factor
    m = model(loss, 1, bias, K, n, at * lam[1], at * lam[0], lb, c)
    check(m, rng, fixed_point(m))


@pytest.mark.parametrize("bias,loss", [("none", "mse"), ("free", "mse"), ("free", "cross_entropy")])
@pytest.mark.parametrize("layers", [2, 3])
def test_linear_layers_above(layers, bias, loss):
    m = model(loss, layers, bias, 3, 2, 8e-3, 5e-3)
    check(m, np.random.default_rng(layers), fixed_point(m), starts=6)


def test_unequal_classes_without_bias():
    m = model(n=(1, 2, 3))
    record = fixed_point(m)
    check(m, np.random.default_rng(0), record)
    assert record.feature_norm == pytest.approx(ufm.fixed_point(m, 0).feature_norm, rel=1e-15)


def test_proof_of_the_bound():
    """x (K-1) <= sqrt((K-1)/K) |W| |M| for random means >= 0 and centred heads, tight on the frame."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        K, p = rng.integers(2, 7, 2)
        M, W = np.abs(rng.standard_normal((p, K))) ** 3, rng.standard_normal((K, p))
        W = W - W.mean(axis=0)
        assert np.trace(W @ M) <= np.sqrt((K - 1) / K) * np.linalg.norm(W) * np.linalg.norm(M) + 1e-12
    W = np.eye(5) - 0.2
    assert np.trace(W) == pytest.approx(np.sqrt(0.8) * np.linalg.norm(W) * np.sqrt(5), rel=1e-14)


def test_published_form():
    """sigma = 1 - kappa sqrt(K/(K-1)), fn^2 = sigma sqrt(lW (K-1)/(lH n K)) and its cross-entropy twin."""
    K, n, lw, lh, c = 5, 3, 4e-3, 2e-3, 0.5
    m = fixed_point(model("mse", 1, "free", K, n, lw, lh, c=c))
    x = 1 - K * np.sqrt(n * lw * lh) / (2 * c) * np.sqrt(K / (K - 1))
    assert m.signal == pytest.approx(x, rel=1e-14)
    assert m.feature_norm**2 == pytest.approx(x * np.sqrt(lw * (K - 1) / (lh * n * K)), rel=1e-14)
    ce = fixed_point(model("cross_entropy", 1, "free", K, n, lw, lh))
    gap = np.log(1 / np.sqrt(n * lw * lh * K / (K - 1)) - K + 1)
    assert ce.signal == pytest.approx(gap, rel=1e-14)
    assert ce.feature_norm**2 == pytest.approx(gap * np.sqrt(lw * (K - 1) / (lh * n * K)), rel=1e-14)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 4), st.booleans())
def test_decayed_bias_joins_the_other_two(seed, degree, relu):
    """lambda_b -> 0 and -> infinity are the free bias and none, of which the signal and norms are known."""
    rng = np.random.default_rng(seed)
    K, n, decays = int(rng.integers(3, 8)), int(rng.integers(1, 5)), np.exp(rng.uniform(-7, -5, degree))
    if degree > 2 and not relu:
        return
    loss = strength.Square(K, 0.5)
    for lb, bias in ((1e-13, "free"), (1e13, "none")):
        near = point(loss, np.full(K, n), decays, "decayed", lb, deep=degree > 2)
        end = point(loss, np.full(K, n), decays, bias, deep=degree > 2)
        for name in ("feature_norm", "loss", "weight_norms", "layer_feature_norms"):
            assert getattr(near, name) == pytest.approx(getattr(end, name), rel=1e-7), name
        assert np.max(near.signal) == pytest.approx(end.signal, rel=1e-7)


@pytest.mark.parametrize(
    "loss,bias", [("mse", "none"), ("mse", "free"), ("mse", "decayed"), ("cross_entropy", "free")]
)
@pytest.mark.parametrize("layers", [2, 3])
def test_relu_layers_are_a_local_minimum(layers, bias, loss):
    """The frame in every layer: loss and norms as stated, no direction in which the loss falls."""
    m = model(loss, layers, bias, 4, 1, 3e-3, 2e-3, 0.3 if bias == "decayed" else 0.0, relu=True)
    record, K = fixed_point(m), 4
    head = record.weight_norms[-1] / np.sqrt(K if bias == "none" else K - 1)
    P = np.eye(K) if bias == "none" else np.eye(K) - 1 / K
    if bias == "decayed":
        u = record.feature_norm
        q, slack = 2 * m.loss_scale / K, 2 * m.loss_scale / 0.3
        v = q * u**2 / 3e-3
        P, head = q * u / 3e-3 * (np.eye(K) / (1 + v) + (1 / (1 + v + slack) - 1 / (1 + v)) / K), 1.0
    blocks = [
        record.layer_feature_norms[0] * np.eye(5, K),
        *[w / 2 * np.diag([1.0, 1, 1, 1, 0]) for w in record.weight_norms[:-1]],
        head * P @ np.eye(K, 5),
    ]
    flat = np.concatenate([b.ravel() for b in blocks] + [record.bias] * (bias != "none"))
    value, _ = full_loss(m)
    at, rng = float(value(torch.tensor(flat))), np.random.default_rng(0)
    assert at == pytest.approx(record.loss, rel=1e-13)
    for name, found in measured(m, [*blocks, record.bias]).items():
        assert np.asarray(found) == pytest.approx(
            np.broadcast_to(getattr(record, name), np.shape(found)), abs=1e-12
        )
    steps = rng.standard_normal((300, flat.size))
    for step in steps * (rng.random((300, flat.size)) < 0.3):
        moved = [float(value(torch.tensor(flat + h * step))) - at for h in (1e-4, -1e-4)]
        assert min(moved) > -1e-12
    assert "measured" in record.assumptions[1]


def test_deep_relu_with_a_bias_has_a_cheaper_minimum():
    """D = 3, K = 4: one class at the origin costs 1.3% less than the frame."""
    K, lam = 4, 4e-3
    frame = fixed_point(model("mse", 2, "free", K, 1, lam, lam, c=0.5, relu=True)).loss
    m = model("mse", 2, "free", K, 1, lam, lam, c=0.5, relu=True)
    value, split = full_loss(m)
    start = np.concatenate(
        [
            np.eye(5, 4)[:, [0, 1, 2, 3]].ravel() * np.tile([1, 1, 1, 0], 5),
            np.eye(5).ravel(),
            np.eye(4, 5).ravel() - 0.25,
            np.full(4, 0.25),
        ]
    )

    def both(v):
        t = torch.tensor(v, requires_grad=True)
        out = value(t)
        return float(out.detach()), torch.autograd.grad(out, t)[0].numpy()

    end = minimize(
        both,
        start + 0.02 * np.random.default_rng(0).standard_normal(start.size),
        jac=True,
        method="L-BFGS-B",
        options=dict(maxiter=5000, maxfun=20000, ftol=0, gtol=1e-10),
    )
    blocks = split(torch.tensor(end.x))
    hidden = (blocks[1] @ blocks[0]).clamp(min=0).numpy()
    assert end.fun / frame == pytest.approx(1 - 0.0132, abs=2e-4)
    assert np.sort(np.linalg.norm(hidden, axis=0))[0] < 1e-3


@pytest.mark.parametrize(
    "argument,call",
    [
        ("nonnegative", lambda: fixed_point(UFM(classes=3))),
        ("activation", lambda: fixed_point(UFM(classes=3, layers=2, activation="gelu", nonnegative=True))),
        ("samples_per_class", lambda: fixed_point(model("cross_entropy", n=(1, 2, 3)))),
        ("samples_per_class", lambda: fixed_point(model("mse", bias="free", n=(1, 2, 3)))),
        ("classes", lambda: fixed_point(model("mse", bias="free", K=2))),
        ("bias", lambda: fixed_point(model("mse", 2, "decayed", lb=0.1))),
        ("decay.features", lambda: fixed_point(model(features=0.0))),
    ],
)
def test_what_is_refused(argument, call):
    with pytest.raises(BadInput) as caught:
        call()
    assert caught.value.argument == argument
