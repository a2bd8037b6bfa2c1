"""The fixed point of the unconstrained-features model against minimisation of the full loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ncflow.errors import BadInput
from ncflow.model import UFM, Decay
from theory import derivations, fixed_point, fold, mode
from theory.point import NUMBERS


def model(layers=1, bias="none", counts=2, weights=None, features=6e-3, lb=0.0, c=0.4, K=3, width=4):
    weights = np.geomspace(4e-3, 9e-3, layers) if weights is None else weights
    return UFM(classes=K, samples_per_class=counts, width=width, layers=layers, bias=bias, loss_scale=c,
               decay=Decay(weights=(tuple(np.broadcast_to(weights, layers)),), features=features, bias=lb))


def test_the_number_of_the_design():
    point = fixed_point(
        UFM(
            classes=4,
            samples_per_class=100,
            width=64,
            layers=1,
            loss="mse",
            loss_scale=0.5,
            bias="none",
            decay=Decay(weights=5e-4, features=5e-4),
        )
    )
    assert point.feature_norm == pytest.approx(np.sqrt(0.98 / 10), rel=1e-15)
    assert (
        point.signal == pytest.approx(0.98, rel=1e-15) and point.status == "exact" and point.other_roots == ()
    )
    assert isinstance(point.feature_norm, float) and point.weight_norms.shape == (1,) and point.exists is True


@pytest.mark.parametrize("counts", [2, (2, 3, 5)], ids=["equal", "unequal"])
@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_against_minimisation(brute, layers, bias, counts):
    """Random decays per layer, bias decays on both sides of the mean mode's threshold; everything to
    1e-11."""
    rng = np.random.default_rng([layers, len(bias), np.size(counts)])
    for lb in (2e-3, 0.7) if bias == "decayed" else (0.0,):
        lam = np.exp(rng.uniform(np.log(2e-3), np.log(2e-2), layers + 1))
        m = model(layers, bias, counts, lam[1:], lam[0], lb, c=rng.uniform(0.3, 0.6))
        blocks, gradient = brute.lowest(m, rng)
        assert gradient < 1e-13
        errors = brute.errors(m, blocks, fixed_point(m))
        assert max(errors.values()) < 1e-11, errors


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2, 4), st.integers(1, 3), st.sampled_from(["none", "free", "decayed"]), st.booleans(), st.floats(0.02, 0.6),
       st.integers(0, 10**6))
def test_drawn_models_against_minimisation(brute, K, layers, bias, equal, share, seed):
    """Classes, sizes, widths, depth, every decay and the loss scale drawn, at a share of the fold; everything to 1e-9."""
    assume(equal or bias != "decayed" or layers == 1)  # two minima, of which the record has the cheaper: drawn by seed above
    rng = np.random.default_rng(seed)
    counts = int(rng.integers(1, 4)) if equal else tuple(int(n) for n in rng.integers(1, 5, K))
    lam = 10 ** rng.uniform(-0.5, 0.5, layers + 1)
    widths = [K + int(w) for w in rng.integers(0, 2, layers)]

    def at(scale, lb=0.0):
        return UFM(classes=K, samples_per_class=counts, width=widths, layers=layers, bias=bias, loss_scale=c,
                   decay=Decay(weights=(tuple(scale * lam[1:]),), features=scale * lam[0], bias=lb))

    c = rng.uniform(0.1, 0.8)
    edge = fold(replace(at(1.0), bias="none" if bias == "decayed" else bias)).factor
    lb = 10 ** rng.uniform(-3, 0.3) if bias == "decayed" else 0.0
    m = at(share * edge, lb)
    point = fixed_point(m)
    loss, weak = brute.ufm_loss(m), brute.ufm_loss(at(0.03 * edge, lb))
    # with a decayed bias and several layers both states of the mean mode are minima, and the start decides
    states = [point, *(root for root in point.other_roots if root.branch.startswith("mean mode"))]
    for centred in (False, True) if bias != "none" else (False,):
        start = brute.aligned_start(m, rng, centred)
        if layers > 1:  # through weaker decay, so that no mode starts in the basin of zero
            start = [b + 0.01 * rng.standard_normal(b.shape) for b in brute.descend(weak, start, newton=0)[0]]
        blocks, gradient = brute.lowest(m, rng) if layers == 1 else brute.descend(loss, start)
        value = float(loss([torch.tensor(b) for b in blocks]))
        assert gradient < 1e-12 and value >= point.loss * (1 - 1e-11)
        errors = brute.errors(m, blocks, min(states, key=lambda state: abs(state.loss - value)))
        assert max(errors.values()) < 1e-9, errors


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_bias_decay_threshold_of_one_layer(brute, factor):
    """The mean mode appears at the lambda_b that sympy derives, K lambda_W / m^2."""
    d = derivations
    at = float(d.mean_mode_threshold().subs({d.c: 0.4, d.K: 3, d.n: 2, d.lam_W: 6e-3, d.lam_H: 5e-3}))
    assert at == pytest.approx(
        3 * 6e-3 / fixed_point(model(1, "none", 2, 6e-3, 5e-3)).feature_norm ** 2, rel=1e-13
    )
    m = model(1, "decayed", 2, 6e-3, 5e-3, at * factor)
    point = fixed_point(m)
    assert point.rank == (3 if factor > 1 else 2)
    blocks, _ = brute.descend(brute.ufm_loss(m), brute.aligned_start(m, np.random.default_rng(1)))
    assert max(brute.errors(m, blocks, point).values()) < 1e-11


def test_closed_forms_of_one_layer_are_the_derived_ones():
    d, m = derivations, model(1, "none", 7, 6e-3, 3e-3)
    values = {d.c: 0.4, d.K: 3, d.n: 7, d.lam_W: 6e-3, d.lam_H: 3e-3}
    two, point = d.two_factors(), fixed_point(m)
    signal = float(two.signal.rhs.subs(values))
    assert point.signal == pytest.approx(signal, rel=1e-14)
    assert point.feature_norm**2 == pytest.approx(
        float(two.class_mean.rhs.subs(values | {d.sigma: signal})), rel=1e-14
    )
    assert point.weight_norms[0] ** 2 == pytest.approx(
        3 * float(two.weight.rhs.subs(values | {d.sigma: signal})), rel=1e-14
    )


@pytest.mark.parametrize("bias", ["none", "free"])
@pytest.mark.parametrize("counts", [2, (1, 3, 6)])
def test_one_layer_is_the_global_minimum(brute, bias, counts):
    m, rng = model(1, bias, counts), np.random.default_rng(5)
    shapes = [(4, m.samples), (3, 4)] + ([(3,)] if bias == "free" else [])
    loss, point = brute.ufm_loss(m), fixed_point(m)
    for _ in range(12):
        blocks, _ = brute.descend(loss, [rng.standard_normal(s) for s in shapes], newton=0)
        assert float(loss([torch.tensor(b) for b in blocks])) == pytest.approx(point.loss, rel=1e-8)


@pytest.mark.parametrize("layers", [2, 3])
def test_random_starts_never_go_below(brute, layers):
    """Below the Maxwell point the collapsed point is the global minimum; other starts end on it or on fewer
    modes."""
    m, rng = model(layers, "none", 2), np.random.default_rng(layers)
    shapes, loss, point = [(4, 6), *m.weight_shapes], brute.ufm_loss(m), fixed_point(m)
    ends = []
    for size in np.geomspace(0.1, 1.5, 15):
        blocks, _ = brute.descend(loss, [size * rng.standard_normal(s) for s in shapes], newton=0)
        ends.append(float(loss([torch.tensor(b) for b in blocks])))
    assert min(ends) > point.loss - 1e-12 and min(ends) == pytest.approx(point.loss, rel=1e-8)


def blocks_of(m, root):
    """Factors of equal classes whose end-to-end map has the signals of `root`, the mean direction last, decay
    shared equally."""
    rng, K, D = np.random.default_rng(0), m.classes, m.layers + 1
    frame = np.linalg.qr(np.column_stack([np.ones(K), rng.standard_normal((K, K - 1))]))[0][:, ::-1]
    x = np.zeros(K)
    x[: root.rank] = root.signal
    z = np.sqrt(m.class_counts[0]) * x
    decays = np.array([m.feature_decays[0], *m.weight_decays[0]])
    each = [np.sqrt(np.exp(np.log(decays).mean()) / decay) * np.diag(z ** (1 / D)) for decay in decays]
    inner = [np.linalg.qr(rng.standard_normal((p, p)))[0][:, :K] for p in m.widths]
    H = inner[0] @ each[0] @ frame.T[:, m.labels] / np.sqrt(m.class_counts[0])
    W = [U @ w @ V.T for U, w, V in zip([*inner[1:], frame], each[1:], inner, strict=True)]
    return [H, *W] + ([root.bias] if m.bias != "none" else [])


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("layers", [2, 3])
def test_both_roots_are_stationary_and_the_lower_is_a_saddle(brute, layers, bias):
    m = model(layers, bias, 2, 0.05, 0.04, 0.04 if bias == "decayed" else 0.0)
    point = fixed_point(m)
    (saddle,) = point.other_roots
    assert saddle.branch == "saddle" and saddle.signal < mode.fold(layers + 1)[0] < point.signal
    for root, sign in ((point, 1), (saddle, -1)):
        blocks = blocks_of(m, root)
        assert brute.gradient(brute.ufm_loss(m), blocks) < 1e-15
        assert max(brute.errors(m, blocks, root).values()) < 1e-12
        assert np.sign(brute.curvature(brute.ufm_loss(m), blocks)[0] + 1e-12) == sign
    assert saddle.loss > point.loss


def test_mean_mode_of_a_deep_model_has_two_local_minima(brute):
    """With a decayed bias and M >= 2 both states of the mean mode are minima; the record holds the cheaper
    one first."""
    for lb, branch in ((0.13, "mean mode active"), (0.4, "mean mode inactive")):
        m = model(3, "decayed", 2, 1e-2, 1e-2, lb)
        point = fixed_point(m)
        other = point.other_roots[1]
        assert other.branch == branch and other.loss > point.loss
        for root in (point, other):
            blocks = blocks_of(m, root)
            assert brute.gradient(brute.ufm_loss(m), blocks) < 1e-15
            assert brute.curvature(brute.ufm_loss(m), blocks)[0] > -1e-12
            assert max(brute.errors(m, blocks, root).values()) < 1e-12


@given(
    st.integers(2, 6), st.integers(1, 1000), st.integers(2, 20), st.floats(1e-6, 1e-2), st.floats(0.05, 0.5)
)
def test_equal_decays_leave_the_mean_mode_at_zero(layers, n, K, lam, c):
    point = fixed_point(
        UFM(classes=K, samples_per_class=n, layers=layers, bias="decayed", loss_scale=c, decay=lam, width=K)
    )
    assert point.rank in (0, K - 1) and len(point.other_roots) <= 1


@pytest.mark.parametrize("layers", [2, 3])
def test_fold_by_continuation(brute, layers):
    """Newton continuation of the full problem in the common decay brackets the formula within 1e-5."""
    def at(lam):
        return UFM(classes=2, samples_per_class=2, width=2, layers=layers, loss_scale=0.5, decay=lam)

    D = layers + 1
    formula = 2 * 0.5 / 2 * mode.fold(D)[1] / 2 ** (1 / D)
    lam = 0.8 * formula
    blocks, _ = brute.descend(brute.ufm_loss(at(lam)), brute.aligned_start(at(lam), np.random.default_rng(0)))
    size, step = np.linalg.norm(blocks[0]), 0.05 * formula
    while step > 2e-6 * formula:
        new, gradient = brute.descend(brute.ufm_loss(at(lam + step)), blocks, newton=25, lbfgs=False)
        if gradient < 1e-12 and np.linalg.norm(new[0]) > 0.8 * size:
            lam, blocks, size = lam + step, new, np.linalg.norm(new[0])
        else:
            step /= 2
    assert lam <= formula <= lam * (1 + 1e-5)
    assert fixed_point(at(lam)).exists and not fixed_point(at(formula * (1 + 1e-12))).exists


def test_beyond_the_critical_decay_nothing_is_left():
    for layers in (1, 3):
        point = fixed_point(model(layers, "free", 2, 1.0, 1.0))
        assert (
            not point.exists and point.rank == 0 and point.feature_norm == 0 and not point.weight_norms.any()
        )
        assert (
            point.loss == pytest.approx(0.4 * 2 / 3)
            and np.allclose(point.bias, 1 / 3)
            and np.isnan(point.nc1_floor)
        )


def test_critical_product_of_one_layer():
    product = 4 * 0.4**2 / (3 * 6)
    lam = np.sqrt(product)
    assert fixed_point(model(1, weights=lam, features=lam * 0.999)).exists
    assert not fixed_point(model(1, weights=lam, features=lam * 1.001)).exists


def test_small_classes_vanish_first(brute):
    """Class k is gone iff n_k <= N^2 lambda_W lambda_H / 4c^2."""
    m = model(1, "none", (1, 5, 9), 0.05, 0.05)
    threshold = 15**2 * 0.05**2 / (4 * 0.4**2)
    point = fixed_point(m)
    assert 0 < threshold < 1 and point.rank == 3
    m = model(1, "none", (1, 5, 9), 0.06, 0.06)
    point = fixed_point(m)
    assert point.rank == 2 and point.class_mean_norms[0] == 0 and point.signal.shape == (2,)
    blocks, _ = brute.descend(brute.ufm_loss(m), brute.aligned_start(m, np.random.default_rng(0)), newton=0)
    assert point.feature_norm == pytest.approx(brute.measure(m, blocks)["feature_norm"], rel=1e-5)


def test_unequal_classes_given_equal_are_equal():
    for bias in ("none", "free", "decayed"):
        a, b = (
            fixed_point(model(2, bias, counts, lb=0.01 * (bias == "decayed"))) for counts in (4, (4, 4, 4))
        )
        assert all(np.array_equal(getattr(a, f), getattr(b, f), equal_nan=True) for f in NUMBERS)


@settings(max_examples=25)
@given(st.permutations([2, 3, 7]), st.sampled_from(["none", "free", "decayed"]), st.integers(1, 3))
def test_classes_have_no_order(counts, bias, layers):
    lb = 0.3 if bias == "decayed" else 0.0
    point, sorted_point = (fixed_point(model(layers, bias, tuple(n), lb=lb)) for n in (counts, [2, 3, 7]))
    assert point.class_mean_norms == pytest.approx(
        sorted_point.class_mean_norms[np.searchsorted([2, 3, 7], counts)], rel=1e-9
    )
    assert point.loss == pytest.approx(sorted_point.loss, rel=1e-11)


def test_numerical_path_meets_the_closed_form():
    """Nearly equal classes with a decayed bias are solved numerically and must approach the closed form of
    equal ones."""
    for layers, lb in ((1, 0.01), (1, 0.5), (2, 0.01), (2, 5.0)):
        point = fixed_point(model(layers, "decayed", (100000, 100001, 99999), 1e-4, 1e-4, lb))
        exact = fixed_point(model(layers, "decayed", 100000, 1e-4, 1e-4, lb))
        assert point.status == "numerical" and exact.status == "exact" and point.stationarity < 1e-13
        assert point.rank == exact.rank and point.feature_norm == pytest.approx(exact.feature_norm, rel=1e-9)
        assert point.class_mean_cosine == pytest.approx(exact.class_mean_cosine, abs=1e-5)


@pytest.mark.parametrize(
    "bias,counts", [("none", 2), ("decayed", 2), ("free", (2, 3, 5)), ("decayed", (2, 3, 5))]
)
@pytest.mark.parametrize("layers", [1, 3])
def test_lanes_are_models_of_their_own(layers, bias, counts):
    weights = np.geomspace(1e-3, 0.5, 5)
    many = fixed_point(
        UFM(
            classes=3,
            samples_per_class=counts,
            width=4,
            layers=layers,
            bias=bias,
            decay=Decay(
                weights=tuple((w,) for w in weights), features=2e-3, bias=0.2 if bias == "decayed" else 0
            ),
        )
    )
    for i, w in enumerate(weights):
        one = fixed_point(UFM(classes=3, samples_per_class=counts, width=4, layers=layers, bias=bias,
                              decay=Decay(weights=w, features=2e-3, bias=0.2 if bias == "decayed" else 0)))
        for name in NUMBERS:
            a, b = np.asarray(getattr(many, name)[i]), np.asarray(getattr(one, name))
            b = np.full(one.rank, b) if name == "signal" and a.ndim and not b.ndim else b
            assert np.array_equal(a[: b.size] if a.ndim else a, b, equal_nan=True), name
        branches = {root.branch: root for root in one.other_roots}
        for root in many.other_roots:
            assert root.exists[i] == (root.branch in branches)
            if root.branch in branches:
                assert root.feature_norm[i] == branches[root.branch].feature_norm


def test_mobility_lanes_rest_in_one_place():
    point = fixed_point(UFM(classes=3, mobility=(1.0, 10.0), decay=1e-3))
    assert point.feature_norm.shape == (2,) and np.ptp(point.feature_norm) == 0


def test_what_is_refused():
    with pytest.raises(BadInput, match=r"decay\.features"):
        fixed_point(UFM(classes=3, decay=Decay(weights=1e-3, features=0.0)))
    with pytest.raises(BadInput, match=r"decay\.weights"):
        fixed_point(UFM(classes=3, layers=2, decay=Decay(weights=(1e-3, 0.0), features=1e-3)))
    with pytest.raises(BadInput, match="model"):
        fixed_point("UFM")
    odd = UFM(classes=3)
    object.__setattr__(odd, "activation", "relu")
    with pytest.raises(BadInput, match="activation"):
        fixed_point(odd)
    object.__setattr__(odd, "activation", "linear")
    object.__setattr__(odd, "loss", "hinge")
    with pytest.raises(BadInput, match="loss"):
        fixed_point(odd)


def test_every_point_has_a_formula_and_a_source():
    for layers in (1, 2):
        for bias, counts in (("none", 2), ("decayed", (2, 3, 4))):
            point = fixed_point(model(layers, bias, counts, lb=0.1 if bias == "decayed" else 0.0))
            assert "=" in point.formula and point.assumptions and "20" in point.source
