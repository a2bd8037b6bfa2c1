"""Every eigenvalue of the Hessian against automatic differentiation of the loss."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ncflow.errors import BadInput
from ncflow.model import UFM, Decay, DeepLinear, Isotropic
from theory import derivations_hessian
from theory import spectrum as public
from theory.rest import points, root_of
from theory.spectrum import spectrum


def model(
    layers=1,
    bias="none",
    counts: Any = 2,
    weights: Any = 8e-3,
    features=6e-3,
    lb=0.0,
    c=0.4,
    K=3,
    width: Any = 4,
):
    return UFM(
        classes=K,
        samples_per_class=counts,
        width=width,
        layers=layers,
        bias=bias,
        loss_scale=c,
        decay=Decay(weights=(tuple(np.broadcast_to(weights, layers)),), features=features, bias=lb),
    )


def placed(m, point, seed=0):
    """Blocks (H, W.., b) at `point`, hidden layers rotated at random, from its end-to-end map alone."""
    rng = np.random.default_rng(seed)
    U, z, V = point.modes
    free = isinstance(m, UFM)
    decays = m.weight_decays[0]
    if free:
        decays = np.concatenate([m.feature_decays, decays])
    mean = np.exp(np.log(decays).mean())
    hidden = [np.linalg.qr(rng.standard_normal((p, p)))[0][:, : len(z)] for p in m.widths]
    first = (V.T / np.sqrt(np.asarray(m.class_counts)))[:, m.labels] if free else V.T
    into, out = [first, *(h.T for h in hidden)], [*hidden, U]
    blocks = [
        np.sqrt(mean / d) * (o * z ** (1 / len(decays))) @ i
        for d, o, i in zip(decays, out, into, strict=True)
    ]
    return blocks + ([np.asarray(point.bias)] if m.bias != "none" else [])


def difference(brute, m, branch: Any = "collapsed", seed=0):
    """Largest difference of the sorted spectra over the largest eigenvalue, and the spectrum."""
    point = root_of(next(points(m)), branch)
    blocks = placed(m, point, seed)
    loss = (brute.ufm_loss if isinstance(m, UFM) else brute.deep_linear_loss)(m)
    assert brute.gradient(loss, blocks) < 1e-12
    known, found = brute.curvature(loss, blocks), spectrum(m, branch=branch)
    assert found.eigenvalues.shape == known.shape
    return np.abs(found.eigenvalues - known).max() / np.abs(known).max(), found


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_random_models(brute, data):
    """Depth, widths, class sizes, bias and decays random, collapsed or vanished: measured 4e-15 over 600."""
    draw = data.draw
    K, M = draw(st.integers(2, 3), "K"), draw(st.integers(1, 3), "M")
    bias = draw(st.sampled_from(["none", "free", "decayed"]), "bias")
    counts = draw(st.one_of(st.integers(1, 3), st.lists(st.integers(1, 4), min_size=K, max_size=K)), "counts")
    low = K - 1 if bias == "free" else K
    widths = draw(st.lists(st.integers(low, K + 2), min_size=M, max_size=M), "widths")
    exponent = st.floats(-3, 0)
    decays = [10 ** draw(exponent) for _ in range(M + 1)]
    lb = draw(st.sampled_from([3e-3, 0.05, 1.0]), "lb") if bias == "decayed" else 0.0
    m = UFM(
        classes=K,
        samples_per_class=counts,
        layers=M,
        width=widths,
        bias=bias,
        loss_scale=draw(st.sampled_from([0.5, 0.3])),
        decay=Decay(weights=(tuple(decays[1:]),), features=decays[0], bias=lb),
    )
    point = next(points(m))
    if point.status == "numerical" and point.stationarity > 1e-13:
        return  # a mode that is just dying is located less sharply
    error, _ = difference(brute, m)
    assert error < 1e-10


@pytest.mark.parametrize(
    "bias,lb,status",
    [("none", 0, "exact"), ("free", 0, "exact"), ("decayed", 6e-3, "exact"), ("decayed", 0.9, "exact")],
)
@pytest.mark.parametrize("counts", [2, (1, 2, 4)], ids=["equal", "unequal"])
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_every_block_is_met(brute, layers, bias, lb, status, counts):
    lam = np.geomspace(3e-3, 9e-3, layers + 1)
    widths = tuple(3 + (i + 1) % 3 for i in range(layers))
    error, found = difference(brute, model(layers, bias, counts, lam[1:], lam[0], lb, width=widths))
    assert error < 1e-13
    assert found.status == (status if counts == 2 or bias != "decayed" else "numerical")
    assert found.stable and found.zeros == np.sum(found.eigenvalues == 0)
    sizes = sum(b.size for b in found.blocks)
    assert sizes == found.eigenvalues.size and all(
        "=" in b.formula or r"\in" in b.formula for b in found.blocks
    )
    values, times = found.multiplicities
    assert times.sum() == sizes and np.all(np.diff(values) > 0)


@pytest.mark.parametrize("bias,lb", [("none", 0), ("free", 0), ("decayed", 0.04)])
@pytest.mark.parametrize("layers", [2, 3])
def test_saddles_descend(brute, layers, bias, lb):
    m = model(layers, bias, 2, 0.05, 0.04, lb)
    error, found = difference(brute, m, "saddle")
    assert error < 1e-13 and not found.stable and found.slowest < 0
    with pytest.raises(BadInput, match="branch"):
        spectrum(m, branch="mean mode active")


def test_both_states_of_the_mean_mode(brute):
    for lb in (0.13, 0.4):
        m = model(3, "decayed", 2, 1e-2, 1e-2, lb)
        for branch in ("collapsed", "mean mode active" if lb < 0.2 else "mean mode inactive"):
            error, found = difference(brute, m, branch)
            assert error < 1e-13 and found.stable


def test_vanished_and_partly_vanished(brute):
    for m in (
        model(1, "free", 2, 1.0, 1.0),
        model(3, "decayed", 2, 1.0, 1.0, 0.5),
        model(1, "none", (1, 5, 9), 0.06, 0.06),
        model(2, "none", (1, 5, 30), 0.05, 0.05),
    ):
        error, found = difference(brute, m)
        assert error < 1e-13 and found.stable
        assert ("No mode is active" in " ".join(found.assumptions)) == (not next(points(m)).exists)


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_networks_on_data(brute, layers, bias):
    """Data that are not aligned mix all modes; fewer or more inputs than samples."""
    rng, counts = np.random.default_rng(layers), (2, 3, 3)
    for d in (4, 9):
        X = rng.standard_normal((d, 8)) + 2 * np.repeat(rng.standard_normal((d, 3)), counts, axis=1)
        m = DeepLinear(
            inputs=X, classes=3, samples_per_class=counts, layers=layers, width=4, bias=bias, decay=4e-3
        )
        if layers == 1 and bias != "none":
            m = DeepLinear(inputs=X, classes=3, samples_per_class=counts, layers=1, bias=bias, decay=0.05)
        point = next(points(m))
        loss = brute.deep_linear_loss(m)
        blocks = placed(m, point) if layers > 1 else _ridge(m, point)
        known, found = brute.curvature(loss, blocks), spectrum(m)
        assert brute.gradient(loss, blocks) < 1e-11
        assert np.abs(found.eigenvalues - known).max() < 1e-11 * known.max()


def _ridge(m, point):
    U, z, V = point.modes
    return [(U * z) @ V.T] + ([np.asarray(point.bias)] if m.bias != "none" else [])


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("layers", [2, 4])
def test_isotropic_data_have_closed_blocks(brute, layers, bias):
    K, n, r, v2 = 3, 6, 1.5, 0.3
    labels = np.repeat(np.eye(K), n, axis=1)
    noise = np.linalg.qr(np.concatenate([labels, np.random.default_rng(0).standard_normal((K, K * n))]).T)[
        0
    ].T[K:]
    X = r * labels + np.sqrt(n * v2) * noise
    words: Any = dict(classes=K, samples_per_class=n, layers=layers, width=5, bias=bias, decay=0.01)
    exact, array = DeepLinear(inputs=Isotropic(r, v2), **words), DeepLinear(inputs=X, **words)
    loss, found = brute.deep_linear_loss(array), spectrum(exact)
    blocks = placed(exact, next(points(exact)))
    assert brute.gradient(loss, blocks) < 1e-14 and found.status == "exact"
    known = brute.curvature(loss, blocks)
    assert np.abs(found.eigenvalues - known).max() < 1e-13 * known.max()
    assert "rotation" in {b.name for b in found.blocks}


def test_numbers_of_the_two_factor_model():
    """Slow mode, stiffness and multiplicities of the closed table; decays equal: 2 lambda exactly."""
    lam, K, n, p = 5e-4, 4, 100, 64
    found = spectrum(UFM(classes=K, samples_per_class=n, width=p, decay=lam))
    q = 1 / (K * np.sqrt(n))
    assert found.eigenvalues.size == K * n * p + K * p
    assert found.block("symmetric").eigenvalues == pytest.approx([2 * lam, 2 * (q - lam)], rel=1e-12)
    assert found.block("within-class, seen by the head").eigenvalues == pytest.approx([q], rel=1e-12)
    assert found.block("within-class, unseen").multiplicity == (p - K) * (K * n - K)
    assert found.zeros == K * (K - 1) // 2 + K * (p - K)
    assert found.slowest == lam and found.stiffest == pytest.approx(2 * q, rel=1e-12)
    assert found.stiffness == pytest.approx(2 * q / lam, rel=1e-12)
    with pytest.raises(BadInput, match="name"):
        found.block("nothing")


def test_slow_mode_is_the_derived_one():
    d = derivations_hessian
    for lw, lh in ((1e-3, 1e-3), (4e-3, 5e-4), (1e-4, 2e-3)):
        m = model(1, "none", 5, lw, lh)
        found, x = spectrum(m).block("symmetric").eigenvalues, next(points(m)).signal
        values = {d.lam_W: lw, d.lam_H: lh, d.sigma: x}
        assert found == pytest.approx([float(v.subs(values)) for v in d.two_factor_symmetric()], rel=1e-9)
        assert found[0] == pytest.approx(float(d.slow_mode().subs(values)), rel=2.5 * found[0] / found[1])


def test_lanes_and_refusals():
    decays: Any = (1e-3, 0.01, 1.0)
    many = spectrum(UFM(classes=3, samples_per_class=2, width=4, layers=2, decay=decays))
    for i, lam in enumerate(decays):
        one = spectrum(UFM(classes=3, samples_per_class=2, width=4, layers=2, decay=lam))
        assert np.array_equal(many.eigenvalues[i], one.eigenvalues) and many.zeros[i] == one.zeros
        assert many.slowest[i] == one.slowest and many.stiffness[i] == one.stiffness and many.stable[i]
    with pytest.raises(BadInput, match="lanes"):
        _ = many.multiplicities
    with pytest.raises(BadInput, match=r"decay\.features"):
        spectrum(UFM(classes=3, decay=Decay(1e-3, 0.0)))
    with pytest.raises(BadInput, match="loss"):
        spectrum(UFM(classes=3, loss="cross_entropy"))
    with pytest.raises(BadInput, match="nonnegative"):
        spectrum(UFM(classes=3, nonnegative=True))
    with pytest.raises(BadInput, match="coupled directions"):
        spectrum(UFM(classes=70, samples_per_class=(1,) * 69 + (2,), width=70, bias="decayed", decay=1e-4))
    assert public is spectrum
