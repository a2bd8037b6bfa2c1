"""Softmax losses: fixed points against minimisation of the full loss, spectra against its Hessian."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import theory
from ncflow.errors import BadInput
from ncflow.losses import Loss
from ncflow.model import UFM, Decay, DeepLinear
from theory import batchnorm, cross_entropy, nonnegative, strength, ufm
from theory.cross_entropy import fixed_point, lambert, within_class

EXTRA = {"cross_entropy": {}, "label_smoothing": dict(smoothing=0.15), "focal": dict(focal_gamma=2.0)}


def model(
    loss="cross_entropy", layers=1, bias="none", K=3, n=2, weights=6e-3, features=4e-3, lb=0.0, width=None
):
    weights = (tuple(np.broadcast_to(weights, layers)),)
    return UFM(
        classes=K,
        samples_per_class=n,
        width=width or K + 1,
        layers=layers,
        loss=loss,
        bias=bias,
        decay=Decay(weights=weights, features=features, bias=lb),
        **EXTRA[loss],
    )


def full_loss(m):
    """L of blocks (H, W_1, ..., W_M[, b])."""
    data = Loss.of(m.loss, torch.as_tensor(m.labels), m.classes, smoothing=m.smoothing, gamma=m.focal_gamma)
    decays = [float(m.feature_decays[0]), *m.weight_decays[0], float(m.bias_decays[0])]

    def loss(blocks):
        z = blocks[0]
        for W in blocks[1 : m.layers + 1]:
            z = W @ z
        if m.bias != "none":
            z = z + blocks[-1][:, None]
        decay = sum(d / 2 * (v**2).sum() for d, v in zip(decays, blocks, strict=False))
        return decay + data.value(z[None])[0]

    return loss


def errors(m, blocks, point):
    """Largest relative difference of what the record says and what the blocks are."""
    H, W = blocks[0], blocks[1 : m.layers + 1]
    layers = [H]
    for V in W[:-1]:
        layers.append(V @ layers[-1])
    means = layers[-1].reshape(-1, m.classes, m.class_counts[0]).mean(axis=2)
    norms = np.linalg.norm(means, axis=0)
    cos = (means.T @ means / np.outer(norms, norms))[np.triu_indices(m.classes, 1)]
    found = dict(
        feature_norm=np.linalg.norm(layers[-1], axis=0),
        class_mean_norms=norms,
        class_mean_cosine=cos,
        layer_feature_norms=[np.linalg.norm(h, axis=0).mean() for h in layers],
        weight_norms=[np.linalg.norm(V) for V in W],
        loss=float(full_loss(m)([torch.tensor(v) for v in blocks])),
    )
    return {k: float(np.max(np.abs(np.asarray(v) / getattr(point, k) - 1))) for k, v in found.items()}


@pytest.mark.parametrize("loss", EXTRA)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_against_minimisation(brute, loss, layers):
    """Random decays, sizes and bias modes; everything to 1e-9."""
    rng = np.random.default_rng([layers, len(loss)])
    for bias, lb in (("none", 0.0), ("free", 0.0), ("decayed", 0.02)):
        lam = np.exp(rng.uniform(np.log(1.5e-3), np.log(8e-3), layers + 1))
        m = model(loss, layers, bias, int(rng.integers(3, 5)), int(rng.integers(1, 3)), lam[1:], lam[0], lb)
        start = [3 ** (i == 0) * v for i, v in enumerate(brute.aligned_start(m, rng, centred=True))]
        blocks, gradient = brute.descend(full_loss(m), start)
        assert gradient < 1e-12
        found = errors(m, blocks, fixed_point(m))
        assert max(found.values()) < 1e-9, found


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.sampled_from(list(EXTRA)), st.integers(1, 3), st.sampled_from(["none", "free", "decayed"]),
       st.integers(2, 4), st.floats(0.02, 0.5))
def test_drawn_models_against_minimisation(brute, seed, loss, layers, bias, K, share):
    """Every decay, class sizes and depth drawn, at a share of the fold; everything to 1e-9.

    Where codes of lower rank cost less than the simplex (from four classes under three layers on) descent may end at one.
    """
    assume(layers < 3 or K < 4)
    rng = np.random.default_rng(seed)
    lam, n = 10 ** rng.uniform(-0.4, 0.4, layers + 1), int(rng.integers(1, 4))
    at = share * theory.fold(model(loss, layers, bias, K, n, lam[1:], lam[0])).factor
    m = model(loss, layers, bias, K, n, at * lam[1:], at * lam[0], 10 ** rng.uniform(-3, 0) if bias == "decayed" else 0.0)
    point = fixed_point(m)
    start = brute.aligned_start(m, rng, centred=True)
    # at the size of the state itself, where only its basin is asked
    sizes = [point.layer_feature_norms[0] * np.sqrt(m.samples), *point.weight_norms]
    start[: layers + 1] = [b * size / np.linalg.norm(b) for b, size in zip(start, sizes, strict=False)]
    blocks, gradient = brute.descend(full_loss(m), start)
    assert gradient < 1e-12
    found = errors(m, blocks, point)
    assert max(found.values()) < 1e-9, found


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from(list(EXTRA)))
def test_one_layer_from_random_starts(brute, seed, loss):
    """Random parameters, random starts: the minimum found is the formula's, zero beyond the active
    condition."""
    rng = np.random.default_rng(seed)
    K, n = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    lam = np.exp(rng.uniform(np.log(1e-3), np.log(1.0), 2))
    m = model(loss, 1, "none", K, n, lam[1], lam[0])
    curve, gamma = strength.of(m), np.sqrt(n * lam.prod())
    limit = {"cross_entropy": 1 / K, "label_smoothing": 0.85 / K}.get(loss, strength.fold(curve, 2)[1])
    point = fixed_point(m)
    assert point.exists == (gamma < limit)
    if abs(gamma / limit - 1) < 0.05:
        return  # the landscape is flat there
    start = [rng.standard_normal(s) for s in ((K + 1, K * n), (K, K + 1))]
    blocks, _ = brute.descend(full_loss(m), start)
    if point.exists:
        found = errors(m, blocks, point)
        assert max(found.values()) < 1e-9, found
    else:
        assert np.linalg.norm(blocks[0]) < 1e-6 and point.feature_norm == 0 and point.rank == 0
        assert point.loss == pytest.approx(float(curve.value(0.0)), rel=1e-14)


@pytest.mark.parametrize("loss", EXTRA)
@pytest.mark.parametrize("layers", [2, 3])
def test_both_roots_are_stationary(brute, loss, layers):
    """Blocks built from the record: no gradient; the upper root a minimum, the saddle not."""
    m = model(loss, layers, K=4, n=1, weights=6e-3, features=3e-3, width=4)
    point = fixed_point(m)
    saddle = point.other_roots[0]
    assert (
        saddle.branch == "saddle"
        and saddle.signal < strength.fold(strength.of(m), layers + 1)[0] < point.signal
    )
    Q = np.linalg.svd(np.eye(4) - 0.25)[0][:, :3]
    for root in (point, saddle):
        first = root.layer_feature_norms[0] * np.sqrt(4 / 3) * np.eye(4, 3) @ Q.T
        hidden = [w / np.sqrt(3) * np.diag([1.0, 1, 1, 0]) for w in root.weight_norms[:-1]]
        blocks = [first, *hidden, root.weight_norms[-1] / np.sqrt(3) * Q @ np.eye(3, 4)]
        assert brute.gradient(full_loss(m), blocks) < 1e-14
        assert float(full_loss(m)([torch.tensor(b) for b in blocks])) == pytest.approx(root.loss, rel=1e-13)
        lowest = brute.curvature(full_loss(m), blocks)[0]
        assert lowest > -1e-12 if root is point else lowest < -1e-5


def test_lower_rank_is_cheaper_for_deep_networks(brute):
    """K = 5, D = 3: a stationary point of rank 3 below the simplex, which itself is a minimum."""
    m = model(layers=2, K=5, n=1, weights=4e-3, features=4e-3)
    point, rng = fixed_point(m), np.random.default_rng(0)
    ends = [
        brute.descend(
            full_loss(m), [rng.standard_normal(s) * 0.6 for s in ((6, 5), (6, 6), (5, 6))], newton=3
        )
        for _ in range(6)
    ]
    losses = [float(full_loss(m)([torch.tensor(b) for b in blocks])) for blocks, _ in ends]
    best = ends[int(np.argmin(losses))][0]
    logits = np.linalg.svd(best[2] @ best[1] @ best[0], compute_uv=False)
    assert min(losses) / point.loss == pytest.approx(1 - 0.01108, abs=1e-4)
    assert (logits > 1e-6 * logits[0]).sum() == 3 and "lower rank" in point.assumptions[1]


@pytest.mark.parametrize("loss", EXTRA)
@pytest.mark.parametrize("layers,width", [(1, 3), (1, 5), (2, 4)])
def test_within_class_spectrum(brute, loss, layers, width):
    """Against the Hessian in the directions in which the two samples of a class part, to 1e-10."""
    m = model(loss, layers, K=4 if width > 3 else 3, n=2, width=width)
    K, claimed = m.classes, within_class(m)
    blocks, _ = brute.descend(full_loss(m), brute.aligned_start(m, np.random.default_rng(1), centred=True))
    apart = np.kron(np.eye(K), [[1], [-1]]) / np.sqrt(2)
    frozen = [torch.tensor(b) for b in blocks]

    def parted(v):
        return full_loss(m)([frozen[0] + v.reshape(width, K) @ torch.tensor(apart.T), *frozen[1:]])

    hessian = torch.autograd.functional.hessian(parted, torch.zeros(width * K, dtype=torch.float64))
    found = np.linalg.eigvalsh(hessian.numpy())
    assert found == pytest.approx(np.sort(np.repeat(claimed.eigenvalues, claimed.multiplicities)), rel=1e-10)
    assert claimed.nc1_rate == pytest.approx(2 * found[0], rel=1e-10)


def test_lambert_branch():
    """Too large by the stated share, exactly so for weak decay; nan where the branch ends."""
    for K, degree in ((3, 3), (10, 4), (10, 7)):
        x = np.linspace(4, 20, 60)
        gamma = np.exp(strength.Softmax(K).log_strength(x) + (1 - 2 / degree) * np.log(x))
        root, share = lambert(degree, K, gamma)
        assert ((root / x - 1 > 0) & (np.abs(share / (root / x - 1) - 1) < 0.25)).all()
        assert share[-1] == pytest.approx(root[-1] / x[-1] - 1, rel=1e-5)
        assert root ** (degree - 2) * np.exp(-degree * root) == pytest.approx(gamma**degree, rel=1e-10)
    assert np.isnan(lambert(3, 3, 1.0)[0])


def test_dispatch():
    """`theory.fixed_point` finds the formula of each kind of model, lane by lane."""
    lanes = dict(classes=3, width=4, decay=Decay(weights=[1e-3, 2e-3], features=1e-3))
    kinds = {
        ufm: {},
        cross_entropy: dict(loss="cross_entropy"),
        nonnegative: dict(nonnegative=True, bias="free"),
        batchnorm: dict(loss="cross_entropy", normalization="batch", streams=2),
    }
    for module, fields in kinds.items():
        m = UFM(**lanes | fields)
        both, ones = theory.fixed_point(m), [module.fixed_point(m, lane) for lane in (0, 1)]
        assert both.feature_norm == pytest.approx([one.feature_norm for one in ones], rel=1e-15)
        assert both.weight_norms.shape == (2, 1) and both.law == ones[0].law
    relu = UFM(classes=3, width=4, layers=2, activation="relu")
    assert theory.fixed_point(relu).class_mean_cosine == 0
    for argument, fields in (
        ("nonnegative", dict(classifier="etf", nonnegative=True)),
        ("activation", dict(layers=2, activation="gelu")),
    ):
        with pytest.raises(BadInput) as caught:
            theory.fixed_point(UFM(classes=3, width=4, **fields))
        assert caught.value.argument == argument
    with pytest.raises(BadInput) as caught:
        theory.fixed_point(
            DeepLinear(classes=2, samples_per_class=1, layers=2, inputs=np.eye(2), loss="cross_entropy")
        )
    assert caught.value.argument == "loss"


def test_record():
    point = fixed_point(model(K=10, n=100, weights=5e-4, features=5e-4))
    gamma = np.sqrt(100 * 5e-4**2)
    assert point.signal == pytest.approx(np.log(1 / gamma - 9), rel=1e-14) and point.status == "exact"
    assert point.feature_norm == pytest.approx(np.sqrt(0.9 * point.signal / 10), rel=1e-14)
    assert r"\log" in point.formula and point.other_roots == () and point.rank == 9


@pytest.mark.parametrize(
    "argument,change",
    [
        ("samples_per_class", dict(samples_per_class=(1, 2, 3))),
        ("loss", dict(loss="mse")),
        ("decay.features", dict(decay=Decay(1e-3, 0.0))),
        ("decay.weights", dict(decay=Decay(0.0, 1e-3))),
        ("activation", dict(layers=2, activation="gelu")),
    ],
)
def test_what_is_refused(argument, change):
    with pytest.raises(BadInput) as caught:
        fixed_point(UFM(**dict(classes=3, width=4, loss="cross_entropy") | change))
    assert caught.value.argument == argument
    if argument == "loss":
        with pytest.raises(BadInput):
            lambert(2, 3, 0.1)


def test_within_class_needs_a_collapsed_point():
    with pytest.raises(BadInput) as caught:
        within_class(model(weights=10.0, features=10.0))
    assert caught.value.argument == "decay"
