"""Pairs of units as a code of low rank: against the loss of the network itself, one-sided derivatives and descent."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ncflow.errors import BadInput
from ncflow.model import UFM, Decay
from theory import fixed_point, low_rank


def relu_loss(m):
    """L of blocks (H, W_1, ..., W_M[, b]) with a ReLU between the layers, from its definition."""
    Y = torch.eye(m.classes, dtype=torch.float64)[:, m.labels]
    lh, lw = m.feature_decays[0], m.weight_decays[0]

    def features(blocks):
        out = [blocks[0]]
        for W in blocks[1:m.layers]:
            out.append((W @ out[-1]).clamp(min=0))
        return out

    def loss(blocks):
        z = blocks[m.layers] @ features(blocks)[-1]
        if m.bias == "free":
            z = z + blocks[-1][:, None]
        decay = lh * (blocks[0] ** 2).sum() + sum(d * (W**2).sum() for d, W in zip(lw, blocks[1:], strict=False))
        return m.loss_scale / m.samples * ((z - Y) ** 2).sum() + decay / 2

    return loss, features


def blocks_of(m, point):
    """The state written out, from the norms and signals of the record alone."""
    K, n, M = m.classes, m.class_counts[0], m.layers
    r = low_rank.units(K)
    left, right = np.triu_indices(r, 1)
    B = np.eye(r)[:, left] + np.eye(r)[:, right]
    T = B.T @ B - 2 * np.eye(K)
    U, s, Vt = np.linalg.svd(B, full_matrices=False)
    H = np.sqrt(s)[:, None] * Vt
    W = [U * np.sqrt(s)]
    H *= point.layer_feature_norms[0] * np.sqrt(K) / np.linalg.norm(H)
    W[0] *= point.weight_norms[0] / np.linalg.norm(W[0])
    W += [np.eye(r) * norm / np.sqrt(r) for norm in point.weight_norms[1:M - 2]]
    # cosine of the last features fixes the leak: H_M = own I + shared T
    rho = leak(r, point.class_mean_cosine)
    W.append(B.T - rho * (1 - B.T))
    W[-1] *= point.weight_norms[M - 2] / np.linalg.norm(W[-1])
    h = np.maximum(np.linalg.multi_dot([*W[::-1], H]), 0)
    unit, modes = np.eye(K), []
    for theta in (2 * (r - 2), r - 4, -2):
        others = [t for t in (2 * (r - 2), r - 4, -2) if t != theta]
        modes.append(np.linalg.multi_dot([(T - t * unit) / (theta - t) for t in others]))
    centre = modes[1:] if m.bias == "free" else modes
    q, lam = 2 * m.loss_scale / K, m.weight_decays[0, -1]
    values = [np.trace(P @ h) / np.trace(P) for P in centre]
    head = sum(q * v / (q * v**2 + lam) * P for v, P in zip(values, centre, strict=True))
    blocks = [np.repeat(H, n, axis=1), *W, head] + ([np.full(K, 1 / K)] if m.bias == "free" else [])
    return [torch.tensor(b) for b in blocks], rho


def leak(r, cosine):
    """rho from the mean cosine of the columns of 2 I + (1 - rho) T, by bisection."""
    left, right = np.triu_indices(r, 1)
    B = np.eye(r)[:, left] + np.eye(r)[:, right]
    T, i = B.T @ B - 2 * np.eye(len(left)), np.triu_indices(len(left), 1)
    low, high = 0.0, 1.0
    for _ in range(60):
        rho = (low + high) / 2
        G = (2 * np.eye(len(left)) + (1 - rho) * T) @ (2 * np.eye(len(left)) + (1 - rho) * T)
        low, high = (rho, high) if G[i].mean() / G[0, 0] > cosine else (low, rho)
    return (low + high) / 2


def model(K=10, layers=4, lam=2e-3, n=1, bias="none", c=0.5):
    return UFM(classes=K, samples_per_class=n, layers=layers, width=K, activation="relu", bias=bias, loss_scale=c,
               decay=Decay(weights=[[w] for w in np.ravel(lam)], features=lam))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([6, 10, 15, 21]), st.integers(3, 6), st.floats(-5, -2.7), st.integers(1, 5),
       st.sampled_from(["none", "free"]), st.integers(0, 10**6))
def test_it_is_a_stationary_state_of_the_network(K, layers, exponent, n, bias, seed):
    """Norms, loss and features are those of the network; no direction descends at first order."""
    rng = np.random.default_rng(seed)
    decays = 10 ** (exponent + rng.uniform(-0.3, 0.3, layers + 1))
    m = UFM(classes=K, samples_per_class=n, layers=layers, width=K, activation="relu", bias=bias, loss_scale=0.4,
            decay=Decay(weights=(tuple(decays[1:]),), features=decays[0]))
    point = low_rank.pairs(m)
    assert point.stationarity < 1e-12 and point.branch == "pairs" and point.status == "numerical"
    blocks, rho = blocks_of(m, point)
    loss, features = relu_loss(m)
    value = float(loss(blocks))
    assert value == pytest.approx(point.loss, rel=1e-11)
    norms = [float(h.norm(dim=0).mean()) for h in features(blocks)]
    assert norms == pytest.approx(list(point.layer_feature_norms), rel=1e-10)
    assert float(blocks[layers].norm()) == pytest.approx(point.weight_norms[-1], rel=1e-10) and 0.5 < rho < 1
    # one-sided derivatives: along random directions, and along what the state has nothing of
    scale = value * 1e-9
    for _ in range(30):
        move = [torch.tensor(rng.standard_normal(b.shape)) * float(b.norm() + 0.1) / b.numel() ** 0.5 for b in blocks]
        if bias == "none":
            move = move[: layers + 1]
        step = 1e-7
        after = float(loss([b + step * d for b, d in zip(blocks, move, strict=True)]))
        assert (after - value) / step > -1e-5 * (value + 1) and after > value - scale


@pytest.mark.parametrize(("K", "layers", "lam", "cheaper"), [(6, 3, 1e-2, False), (10, 3, 2e-3, False), (10, 4, 2e-3, True),
                                                             (6, 4, 1e-2, True), (21, 4, 1e-4, True), (21, 3, 1e-4, False)])
def test_low_rank_is_cheaper_from_four_layers_on(K, layers, lam, cheaper):
    m = model(K, layers, lam)
    frame, found = fixed_point(m), low_rank.pairs(m)
    assert (found.loss < frame.loss) == cheaper
    assert found.feature_norm > frame.feature_norm
    (same,) = [root for root in frame.other_roots if root.branch == "pairs"]
    assert same.loss == found.loss and "lower rank" in " ".join(frame.assumptions)


def test_numbers_that_the_documents_quote():
    m = model()
    frame, found = fixed_point(m), low_rank.pairs(m)
    assert found.loss / frame.loss == pytest.approx(0.8829, abs=1e-4)
    assert (frame.feature_norm, found.feature_norm) == pytest.approx((0.9838, 1.1448), abs=1e-4)
    deep = model(layers=6)
    assert low_rank.pairs(deep).loss / fixed_point(deep).loss == pytest.approx(0.7509, abs=1e-4)


def test_descent_from_near_it_ends_close_by():
    """Disturbed and let go, the network stays a code of low rank and costs less than the frame."""
    m = UFM(classes=6, samples_per_class=1, layers=4, width=6, activation="relu", decay=1e-2)
    point, frame = low_rank.pairs(m), fixed_point(m)
    loss, _ = relu_loss(m)
    rng = np.random.default_rng(0)
    blocks = [(b + 0.01 * torch.tensor(rng.standard_normal(b.shape))).requires_grad_() for b in blocks_of(m, point)[0]]
    speed = [torch.zeros_like(b) for b in blocks]
    for size, count in ((0.3, 2500), (0.03, 800)):
        for _ in range(count):
            gradient = torch.autograd.grad(loss(blocks), blocks)
            with torch.no_grad():
                for b, v, g in zip(blocks, speed, gradient, strict=True):
                    b += v.mul_(0.9).sub_(g, alpha=size)
    end = float(loss(blocks).detach())
    assert end < frame.loss and end == pytest.approx(point.loss, rel=0.01)


def test_lanes_and_what_is_refused():
    several = fixed_point(model(lam=[1e-3, 2e-3, 0.5]))
    one = low_rank.pairs(model(lam=2e-3))
    pairs = next(root for root in several.other_roots if root.branch == "pairs")
    assert pairs.loss[1] == one.loss and pairs.exists.tolist() == [True, True, False]
    for change, field in (({"K": 9}, "classes"), ({"K": 28}, "classes"), ({"layers": 2}, "layers"), ({"bias": "decayed"}, "bias"),
                          ({"lam": 0.5}, "decay"), ({"lam": 0.0}, r"decay\.features")):
        with pytest.raises(BadInput, match=field):
            low_rank.pairs(model(**change))
    linear = UFM(classes=10, layers=4, width=10, samples_per_class=1)
    with pytest.raises(BadInput, match="activation"):
        low_rank.pairs(linear)
    softmax = UFM(classes=10, layers=4, width=10, samples_per_class=1, activation="relu", loss="cross_entropy")
    with pytest.raises(BadInput, match="loss"):
        low_rank.pairs(softmax)
    odd = UFM(classes=6, layers=4, width=10, samples_per_class=[1, 2, 1, 1, 1, 1], activation="relu")
    with pytest.raises(BadInput, match="samples_per_class"):
        low_rank.pairs(odd)
