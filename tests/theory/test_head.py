"""The head's identities: against a direct solution of its stationarity, against real fixed points, and
inverted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ncflow.errors import BadInput
from ncflow.model import UFM, Decay
from theory import (
    derivations,
    feature_norm_estimate,
    feature_norm_from_head,
    fixed_point,
    gram_scales,
    head_from_gram,
)

BIASES = ["none", "free", "decayed"]


def solve_head(M, lam, c, bias, lb, shares):
    """W and b from the normal equations of the head over K class means with weights `shares`, one row of [W,
    b] per class."""
    p, K = M.shape
    Z = np.vstack([M, np.ones(K)]) if bias != "none" else M
    penalty = np.diag([lam] * p + [lb] * (len(Z) - p))
    system = 2 * c * (Z * shares) @ Z.T + penalty
    solution = np.linalg.solve(system, 2 * c * (Z * shares)).T
    return solution[:, :p], solution[:, p] if bias != "none" else np.zeros(K)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(BIASES), st.booleans())
def test_against_the_normal_equations(seed, bias, balanced):
    rng = np.random.default_rng(seed)
    K = int(rng.integers(2, 6))
    M, lam, c = rng.standard_normal((K + 2, K)) + 0.4, 10 ** rng.uniform(-3, 0), rng.uniform(0.1, 1)
    shares = np.full(K, 1 / K) if balanced else rng.dirichlet(np.full(K, 5.0))
    lb = {"none": 0.0, "free": 0.0, "decayed": 10 ** rng.uniform(-3, 1)}[bias]
    W, b = solve_head(M, lam, c, bias, lb, shares)
    head = head_from_gram(
        M.T @ M, lam, c, bias, bias_decay=lb if bias == "decayed" else None, shares=shares * 7
    )
    assert head.weight_norm == pytest.approx(np.linalg.norm(W), rel=1e-9)
    assert head.bias == pytest.approx(b, abs=1e-9)
    assert head.residual == pytest.approx(W @ M + b[:, None] - np.eye(K), abs=1e-9)


@pytest.mark.parametrize("bias", BIASES)
def test_decay_on_all_parameters_is_a_constant_feature(bias):
    """lambda_b = lambda by default, and that is the bias-free head on Gram G + 11^T, bias column included."""
    rng = np.random.default_rng(0)
    G = (lambda M: M.T @ M)(rng.standard_normal((6, 4)))
    head = head_from_gram(G, 0.01, 0.25, "decayed")
    plain = head_from_gram(G + 1, 0.01, 0.25)
    assert np.hypot(head.weight_norm, np.linalg.norm(head.bias)) == pytest.approx(
        plain.weight_norm, rel=1e-12
    )
    assert head.residual == pytest.approx(plain.residual, abs=1e-12)


@pytest.mark.parametrize("counts", [5, (3, 5, 9)])
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("layers", [1, 3])
def test_holds_at_fixed_points_and_inverts(layers, bias, counts, brute):
    """At the fixed point of a UFM: head norm and bias from the Gram, and fn from the head norm and the Gram's
    shape."""
    m = UFM(classes=3, samples_per_class=counts, width=4, layers=layers, bias=bias, loss_scale=1 / 3,
            decay=Decay(weights=2e-3, features=2e-3, bias=2e-3 if bias == "decayed" else 0.0))
    blocks, _ = brute.lowest(m, np.random.default_rng(0))
    H = np.linalg.multi_dot([*blocks[1:layers][::-1], blocks[0], np.eye(m.samples)])
    M = np.stack([H[:, m.labels == k].mean(axis=1) for k in range(3)], axis=1)
    shares = np.asarray(m.class_counts) / m.samples
    head = head_from_gram(M.T @ M, 2e-3, 1 / 3, bias, shares=shares)
    point = fixed_point(m)
    assert head.weight_norm == pytest.approx(
        point.weight_norms[-1], rel=1e-10
    ) and head.bias == pytest.approx(point.bias, abs=1e-10)
    fn = feature_norm_from_head(point.weight_norms[-1], 3.7 * M.T @ M, 2e-3, 1 / 3, bias, shares=shares)
    assert fn == pytest.approx(point.feature_norm, rel=1e-9)


@pytest.mark.parametrize("bias", BIASES)
def test_inverse_finds_every_scale(bias):
    rng = np.random.default_rng(4)
    M = rng.standard_normal((6, 5)) * 0.3 + 0.5
    G = M.T @ M
    for lam in (1e-4, 1e-3, 1e-2):
        for factor in (0.5, 3.0, 50.0):
            norm = float(head_from_gram(factor * G, lam, 0.2, bias).weight_norm)
            scales = gram_scales(norm, G, lam, 0.2, bias)
            assert np.min(np.abs(scales / factor - 1)) < 1e-11
            back = [float(head_from_gram(s * G, lam, 0.2, bias).weight_norm) for s in scales]
            assert back == pytest.approx([norm] * len(scales), rel=1e-11)
    assert np.isnan(feature_norm_from_head(1e6, G, 1e-3, 0.2, bias))


def test_estimate_is_exact_for_one_cosine():
    """Equal norms and one raw cosine rho: m |W| = x sqrt((K-1)/(1-rho)) with the bias, rho = 0 without."""
    K, lam, c = 5, 1e-3, 0.2
    for rho, bias in ((0.0, "none"), (0.0, "free"), (0.3, "free"), (-0.25, "free")):
        G = 2.1**2 * ((1 - rho) * np.eye(K) + rho)
        norm = head_from_gram(G, lam, c, bias).weight_norm
        assert feature_norm_estimate(norm, K, lam, c, bias, cosine=rho) == pytest.approx(2.1, rel=1e-12)
        assert feature_norm_from_head(norm, G / 4.41, lam, c, bias) == pytest.approx(2.1, rel=1e-9)
    assert np.isnan(feature_norm_estimate(1e3, K, lam, c))


def test_batches_and_torch():
    rng = np.random.default_rng(6)
    M = rng.standard_normal((2, 3, 7, 4))
    G = np.swapaxes(M, -1, -2) @ M
    head = head_from_gram(torch.tensor(G, requires_grad=True), 1e-3, 0.25, "free")
    assert (
        head.weight_norm.shape == (2, 3)
        and head.bias.shape == (2, 3, 4)
        and head.residual.shape == (2, 3, 4, 4)
    )
    one = head_from_gram(G[1, 2], 1e-3, 0.25, "free")
    assert head.weight_norm[1, 2] == pytest.approx(one.weight_norm, rel=1e-13)
    fn = feature_norm_from_head(torch.tensor(head.weight_norm), torch.tensor(5 * G), 1e-3, 0.25, "free")
    assert fn == pytest.approx(np.sqrt(np.einsum("...ii->...i", G)).mean(axis=-1), rel=1e-9)


def test_rank_deficient_shapes():
    """A centred simplex carries a free-bias head; its null direction is not a scale."""
    K = 6
    G = 3.0 * (np.eye(K) - 1 / K)
    norm = float(head_from_gram(G, 1e-5, 0.2, "free").weight_norm)
    assert feature_norm_from_head(norm, np.eye(K) - 1 / K, 1e-5, 0.2, "free") == pytest.approx(
        np.sqrt(3 * (1 - 1 / K)), rel=1e-9
    )
    norm = float(head_from_gram(G, 1e-5, 0.2).weight_norm)
    assert feature_norm_from_head(norm, np.eye(K) - 1 / K, 1e-5, 0.2) == pytest.approx(
        np.sqrt(3 * (1 - 1 / K)), rel=1e-9
    )


@pytest.mark.parametrize(
    "classes,bias,equal",
    [(2, "none", False), (2, "free", False), (2, "decayed", False), (3, "none", False), (3, "decayed", True)],
)
def test_identity_symbolically(classes, bias, equal):
    on_weights, on_bias = derivations.head(classes, bias, equal=equal)
    assert on_weights.is_zero_matrix and on_bias.is_zero_matrix


@pytest.mark.parametrize("argument,call", [
    ("gram", lambda: head_from_gram(np.ones((2, 3)), 1e-3, 0.5)),
    ("gram", lambda: head_from_gram(np.full((3, 3), np.nan), 1e-3, 0.5)),
    ("decay", lambda: head_from_gram(np.eye(3), 0.0, 0.5)),
    ("loss_scale", lambda: head_from_gram(np.eye(3), 1e-3, -1.0)),
    ("bias", lambda: head_from_gram(np.eye(3), 1e-3, 0.5, "yes")),
    ("bias_decay", lambda: head_from_gram(np.eye(3), 1e-3, 0.5, "free", bias_decay=1.0)),
    ("shares", lambda: head_from_gram(np.eye(3), 1e-3, 0.5, shares=[1, 2])),
    ("shape", lambda: feature_norm_from_head(1.0, np.eye(3)[0], 1e-3, 0.5)),
    ("shape", lambda: gram_scales(1.0, np.zeros((3, 3)), 1e-3, 0.5)),
    ("weight_norm", lambda: gram_scales(0.0, np.eye(3), 1e-3, 0.5)),
    ("cosine", lambda: feature_norm_estimate(1.0, 3, 1e-3, 0.5, cosine=0.2)),
    ("bias", lambda: feature_norm_estimate(1.0, 3, 1e-3, 0.5, "decayed")),
])
def test_what_is_refused(argument, call):
    with pytest.raises(BadInput) as caught:
        call()
    assert caught.value.argument == argument
