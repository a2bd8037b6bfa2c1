"""Folds, Maxwell points and thresholds against continuation and minimisation of the full loss."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ncflow.errors import BadInput
from ncflow.model import UFM, Decay, DeepLinear, Isotropic
from theory import fixed_point, fold, maxwell, mean_mode_threshold, minority_threshold, mode


def scaled(m, factor):
    """`m` with all its decays multiplied."""
    if isinstance(m, DeepLinear):
        return replace(m, decay=m.decay * factor)
    return replace(
        m,
        decay=Decay(
            weights=tuple(map(tuple, m.weight_decays * factor)),
            features=m.feature_decays[0] * factor,
            bias=m.bias_decays[0] * factor,
        ),
    )


def continued(brute, m, first=0.777, drop=0.8):
    """Largest multiple of the decays of `m` that Newton reaches from below without falling off the branch;
    the start is `first` times the formula's."""
    loss = brute.ufm_loss if isinstance(m, UFM) else brute.deep_linear_loss
    rng, formula = np.random.default_rng(0), fold(m).factor
    low, step = first * formula, 0.05 * formula
    start = scaled(m, low)
    blocks, gradient = brute.descend(loss(start), brute.aligned_start(start, rng, m.bias != "none"))
    assert gradient < 1e-12

    def size(b):
        return np.linalg.svd(b[0], compute_uv=False)[: m.classes - (m.bias != "none")].min()

    while step > 1e-6 * formula:
        new, gradient = brute.descend(loss(scaled(m, low + step)), blocks, newton=30, lbfgs=False)
        if gradient < 1e-12 and size(new) > drop * size(blocks):
            low, blocks = low + step, new
        else:
            step /= 2
    return low


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("layers", [2, 3])
def test_fold_of_free_features(brute, layers, bias):
    """Decays of every layer different: the multiple at which Newton's continuation ends, to 1e-5."""
    lam = np.geomspace(0.01, 0.03, layers + 1)
    m = UFM(
        classes=2,
        samples_per_class=2,
        width=2,
        layers=layers,
        bias=bias,
        decay=Decay(weights=(tuple(lam[1:]),), features=lam[0], bias=0.02 if bias == "decayed" else 0),
    )
    found = fold(m)
    assert 0 <= found.factor / continued(brute, m) - 1 < 1e-5
    assert found.signal == mode.fold(layers + 1)[0] and found.status == "exact"
    assert found.decay == pytest.approx(found.factor * np.exp(np.log(lam).mean()), rel=1e-13)
    assert found.product == pytest.approx(np.prod(lam) * found.factor ** (layers + 1), rel=1e-12)


@pytest.mark.parametrize("layers", [3, 4])
def test_fold_of_isotropic_data(brute, layers):
    K, n, r, v2 = 2, 4, 1.5, 0.2
    labels = np.repeat(np.eye(K), n, axis=1)
    rows = np.linalg.qr(np.concatenate([labels, np.random.default_rng(0).standard_normal((K, K * n))]).T)[
        0
    ].T[K:]
    words: Any = dict(classes=K, samples_per_class=n, layers=layers, width=2, decay=0.01)
    exact = DeepLinear(inputs=Isotropic(r, v2), **words)
    array = DeepLinear(inputs=r * labels + np.sqrt(n * v2) * rows, **words)
    s0, u = r / (r**2 + v2), (layers - 2) / (2 * layers - 2)
    known = 1 / K * r * s0 ** (1 - 2 / layers) * (1 - u) * u ** (1 - 2 / layers)
    assert fold(exact).decay == pytest.approx(known, rel=1e-13)
    assert fold(exact).signal == pytest.approx(u * s0, rel=1e-13)
    assert 0 <= fold(exact).factor / continued(brute, array) - 1 < 1e-5
    assert fold(array).decay == pytest.approx(known, rel=2e-6) and fold(array).status == "numerical"


@pytest.mark.parametrize("layers,bias", [(2, "none"), (3, "none"), (3, "free"), (3, "decayed")])
def test_fold_on_data_that_mix_modes(brute, layers, bias):
    rng = np.random.default_rng(layers)
    X = 0.4 * rng.standard_normal((4, 6)) + np.repeat(rng.standard_normal((4, 2)) + 0.5, 3, axis=1)
    m = DeepLinear(inputs=X, classes=2, samples_per_class=3, layers=layers, width=2, bias=bias, decay=0.01)
    found = fold(m)
    assert found.modes[-1] == found.last >= found.decay and len(found.modes) == (2 if bias == "none" else 1)
    alone = fold(m, first=True)
    assert alone.decay == found.decay and alone.last == found.decay and alone.factor == found.factor
    if layers > 2:
        assert abs(found.factor / continued(brute, m, 0.6) - 1) < 1e-5
    below, above = (fixed_point(scaled(m, found.factor * f)) for f in (0.999, 1.001))
    assert below.rank > above.rank


def test_strongest_mode_of_two_layers_dies_where_the_dual_says():
    """M = 2 is convex: zero is optimal iff lambda >= (2c/N)|Y X^T|_2."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((5, 9)) + np.repeat(rng.standard_normal((5, 3)), 3, axis=1)
    m = DeepLinear(inputs=X, classes=3, samples_per_class=3, layers=2, width=3, decay=0.01)
    strongest = np.linalg.norm(np.eye(3)[:, m.labels] @ X.T, 2) / 9
    assert fold(m).last == pytest.approx(strongest, rel=1e-5)
    assert fold(replace(m, layers=1, width=())).decay == np.inf


@pytest.mark.parametrize("layers", [2, 3, 5])
def test_maxwell_is_where_zero_costs_the_same(layers):
    for m in (
        UFM(classes=3, samples_per_class=4, width=3, layers=layers, bias="free", decay=1e-3),
        DeepLinear(inputs=Isotropic(1.7, 0.3), classes=3, samples_per_class=4, layers=layers + 1, decay=1e-3),
    ):
        tie = maxwell(m)
        assert tie.factor < fold(m).factor
        costs = [
            fixed_point(scaled(m, tie.factor * f)).loss - fixed_point(scaled(m, 1e4)).loss
            for f in (1 - 1e-7, 1, 1 + 1e-7)
        ]
        assert costs[0] < 0 < costs[2] and abs(costs[1]) < 1e-12
        assert fixed_point(scaled(m, tie.factor)).signal == pytest.approx(tie.signal, rel=1e-12)


def test_critical_product_of_two_factors():
    m = UFM(classes=3, samples_per_class=6, loss_scale=0.4, decay=Decay(weights=2e-3, features=5e-3))
    found = fold(m)
    assert found.product == pytest.approx(4 * 0.4**2 / (3 * 18), rel=1e-14) and found.signal == 0
    assert found.factor**2 * 1e-5 == pytest.approx(found.product, rel=1e-13)
    assert maxwell(m).decay == found.decay
    assert fixed_point(scaled(m, found.factor * (1 - 1e-12))).exists
    assert not fixed_point(scaled(m, found.factor * (1 + 1e-12))).exists


@pytest.mark.parametrize("bias", ["none", "free"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_unequal_classes_lose_their_modes_one_by_one(layers, bias):
    m = UFM(classes=3, samples_per_class=(2, 5, 11), width=3, layers=layers, bias=bias, decay=1e-3)
    found = fold(m)
    assert found.modes[0] == found.decay < found.last == found.modes[-1] and np.all(np.diff(found.modes) > 0)
    for lost, edge in enumerate(found.modes):
        for f, gone in ((1 - 1e-9, lost), (1 + 1e-9, lost + 1)):
            assert fixed_point(scaled(m, edge / 1e-3 * f)).rank == len(found.modes) - gone


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_minority_threshold(layers):
    """The class of 40 is lost just beyond its threshold, the total kept."""
    counts = (40, 60, 100)
    m = UFM(classes=3, samples_per_class=counts, width=3, layers=layers, decay=1e-3)
    edge: Any = scaled(m, fold(m).factor)
    assert float(minority_threshold(edge)) == pytest.approx(40, rel=1e-12)
    if layers == 1:
        assert minority_threshold(m).value == pytest.approx(200**2 * 1e-6, rel=1e-12)
    for counts, lost in (((39, 61, 100), 1), ((41, 59, 100), 0)):
        assert np.sum(fixed_point(replace(edge, samples_per_class=counts)).class_mean_norms == 0) == lost


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_mean_mode_threshold(layers):
    m = UFM(
        classes=3, samples_per_class=4, width=3, layers=layers, bias="decayed", decay=Decay(0.01, 0.02, 0.1)
    )
    at = float(mean_mode_threshold(m))
    for f, rank in ((1 - 1e-9, 2), (1 + 1e-9, 3)):
        assert fixed_point(replace(m, decay=Decay(0.01, 0.02, at * f))).rank == rank
    assert mean_mode_threshold(replace(m, decay=Decay(3.0, 3.0, 0.1))).value == np.inf


def test_lanes_and_refusals():
    decays: Any = (1e-3, 1e-2)
    many = fold(UFM(classes=3, samples_per_class=2, layers=2, decay=decays))
    assert many.factor == pytest.approx([many.decay / 1e-3, many.decay / 1e-2], rel=1e-12)
    assert fold(DeepLinear(inputs=Isotropic(1.0), classes=3, layers=3, decay=0.0)).factor == np.inf
    with pytest.raises(BadInput, match="samples_per_class"):
        fold(UFM(classes=3, samples_per_class=(1, 2, 3), bias="decayed", decay=1e-3))
    with pytest.raises(BadInput, match="bias"):
        minority_threshold(UFM(classes=3, bias="free"))
    with pytest.raises(BadInput, match="inputs"):
        maxwell(DeepLinear(inputs=np.eye(3), classes=3, samples_per_class=1, layers=3))
    with pytest.raises(BadInput, match="activation"):
        fold(UFM(classes=3, layers=2, activation="tanh"))
    assert r"\Gamma" in many.formula
    two = UFM(classes=3, decay=[1e-3, 2e-3])
    for found in (minority_threshold(two), mean_mode_threshold(two)):
        assert found.value.shape == (2,) and found.status == "exact" and found.assumptions and found.source
        assert r"\lambda" in found.formula
