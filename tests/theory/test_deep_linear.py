"""The fixed point of linear networks on data against minimisation over the factors, and against its aligned
closed form."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ncflow.model import DeepLinear, Isotropic
from theory import deep_linear, derivations, fixed_point, linear, mode, schatten
from theory.point import NUMBERS


def data(rng, d=5, counts=(4, 4, 4)):
    """Class means far apart plus noise, with a common offset."""
    means = rng.standard_normal((d, len(counts))) + 0.5
    return np.concatenate(
        [means[:, [k]] + 0.4 * rng.standard_normal((d, n)) for k, n in enumerate(counts)], axis=1
    )


def network(X, counts, layers, bias="none", decay=5e-3, width=3, c=0.4):
    return DeepLinear(
        inputs=X,
        classes=len(counts),
        samples_per_class=counts,
        layers=layers,
        bias=bias,
        decay=decay,
        width=width,
        loss_scale=c,
    )


@pytest.mark.parametrize("counts", [(4, 4, 4), (2, 4, 7)], ids=["equal", "unequal"])
@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_against_minimisation_of_the_factors(brute, layers, bias, counts):
    """Two widths, one answer; everything to 1e-10."""
    rng = np.random.default_rng([layers, len(bias), counts[0]])
    X = data(rng, counts=counts)
    for width in (3, 5) if layers > 1 else (3,):
        m = network(X, counts, layers, bias, width=width)
        point = fixed_point(m)
        blocks, gradient = brute.lowest(m, rng)
        assert gradient < 1e-12 and point.stationarity < 1e-13
        errors = brute.errors(m, blocks, point)
        assert max(errors.values()) < 1e-10, errors


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 4), st.sampled_from(["none", "free", "decayed"]), st.integers(3, 8), st.floats(-4, -2.5),
       st.integers(0, 10**6))
def test_drawn_data_against_minimisation(brute, layers, bias, d, exponent, seed):
    """Inputs, their number, class sizes, loss scale and decay drawn; everything to 1e-9."""
    rng = np.random.default_rng(seed)
    counts = tuple(int(n) for n in rng.integers(2, 6, int(rng.integers(2, 4))))
    m = network(data(rng, d, counts), counts, layers, bias, decay=10**exponent, width=len(counts) + int(rng.integers(0, 2)),
                c=rng.uniform(0.3, 0.6))
    point = fixed_point(m)
    if point.rank < len(counts) - (bias != "none"):
        return  # a mode has died: which of several states descent ends on depends on its start
    blocks, gradient = brute.lowest(m, rng)
    assert gradient < 1e-11 and point.stationarity < 1e-12
    errors = brute.errors(m, blocks, point)
    assert max(errors.values()) < 1e-9, errors


def test_a_mode_that_dies_late():
    """Steps end while the third mode still halves at 2e-13 of the first: without it the point is at rest, with it not."""
    rng = np.random.default_rng(208)
    counts = tuple(int(n) for n in rng.integers(2, 6, int(rng.integers(2, 4))))
    X = data(rng, 6, counts)
    width, c = len(counts) + int(rng.integers(0, 2)), rng.uniform(0.3, 0.6)
    point = fixed_point(network(X, counts, 2, "decayed", decay=10**-3.25, width=width, c=c))
    assert point.rank == 2 and point.stationarity < 1e-13


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_more_inputs_than_samples(brute, layers):
    rng = np.random.default_rng(layers)
    m = network(data(rng, 9, (2, 2, 2)), (2, 2, 2), layers)
    blocks, _ = brute.lowest(m, rng)
    assert max(brute.errors(m, blocks, fixed_point(m)).values()) < 1e-10


def isotropic_samples(rng, K, n, d, r, noise):
    """X with class means r times orthonormal vectors and E E^T = n noise I exactly, E having zero class
    means."""
    labels = np.repeat(np.eye(K) / np.sqrt(n), n, axis=1)
    rows = np.linalg.qr(np.concatenate([labels, rng.standard_normal((d, K * n))]).T)[0].T[K:]
    return (
        r * np.linalg.qr(rng.standard_normal((d, K)))[0] @ (np.sqrt(n) * labels) + np.sqrt(n * noise) * rows
    )


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("layers", [1, 2, 3, 6])
def test_isotropic_is_an_array_with_those_moments(layers, noise, bias):
    rng = np.random.default_rng(layers)
    for r, lam in ((1.4, 3e-3), (3.0, 0.02), (0.8, 1e-2)):
        K, n = 4, 8
        X = isotropic_samples(rng, K, n, K if layers == 1 else 6, r, noise)
        common = dict(classes=K, samples_per_class=n, layers=layers, bias=bias, decay=lam, loss_scale=0.3)
        exact = fixed_point(DeepLinear(inputs=Isotropic(r, noise), **common))
        array = fixed_point(DeepLinear(inputs=X, **common))
        assert array.rank == exact.rank and array.exists is exact.exists
        fields = ["weight_norms", "class_mean_norms", "class_mean_cosine", "bias", "loss", "signal"]
        if noise == 0:
            fields += ["feature_norm", "layer_feature_norms"]
        for name in [*fields, "nc1_floor"]:
            a, b = (np.asarray(getattr(p, name)) for p in (array, exact))
            assert a == pytest.approx(b, rel=1e-10, abs=1e-11, nan_ok=True), name


def test_isotropic_closed_forms():
    """NC1 floor, the lambda -> 0 feature norm, and the root mean square that the record admits to."""
    K, r, v2, M = 5, 1.7, 0.4, 4
    point = fixed_point(DeepLinear(inputs=Isotropic(r, v2), classes=K, layers=M, decay=1e-3))
    assert point.nc1_floor == pytest.approx(v2 / r**2 * K / (K - 1), rel=1e-13)
    s = point.signal
    assert point.class_mean_norms == pytest.approx(np.full(K, r * s ** (1 - 1 / M)), rel=1e-13)
    assert point.weight_norms == pytest.approx(np.full(M, np.sqrt(K) * s ** (1 / M)), rel=1e-13)
    assert point.feature_norm == pytest.approx(np.sqrt(r**2 + v2) * s ** (1 - 1 / M), rel=1e-13)
    assert any("root mean square" in sentence for sentence in point.assumptions)
    limit = fixed_point(DeepLinear(inputs=Isotropic(r, 0.0), classes=K, layers=M, decay=0.0))
    assert limit.feature_norm == pytest.approx(r ** (1 / M), rel=1e-13) and limit.status == "asymptotic"
    free = fixed_point(DeepLinear(inputs=Isotropic(r, v2), classes=K, layers=M, bias="free", decay=1e-3))
    assert free.nc1_floor == pytest.approx(v2 / r**2, rel=1e-13)


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_isotropic_solves_the_derived_equation(layers):
    d = derivations
    lam, c, K, r, v2 = 0.02, 0.3, 4, 1.6, 0.2
    theta = 2 * c / (2 * c + lam)
    symbols = {d.c: c, d.K: K, d.lam: lam, d.theta: theta, "M": layers, "r": r, "v2": v2}
    point = fixed_point(
        DeepLinear(inputs=Isotropic(r, v2), classes=K, layers=layers, bias="decayed", decay=lam, loss_scale=c)
    )
    signals = np.full(point.rank, point.signal)
    for equation, s in zip(d.isotropic(), (signals[0], signals[-1]), strict=True):
        if point.rank == K or s == signals[0]:
            named = {symbol.name: symbol for symbol in equation.free_symbols}
            values = {named.get(getattr(k, "name", k), k): v for k, v in (symbols | {"s": s}).items()}
            if equation is d.isotropic()[1] and point.rank < K:
                continue
            assert float((equation.lhs - equation.rhs).subs(values)) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("layers", [3, 4, 6])
def test_fold_of_isotropic_data(layers):
    """lambda_fold = (2c/K) r s0^{1-2/M} (1-u) u^{1-2/M}; the array solver holds on to the branch until just
    below it."""
    K, n, r, noise, c = 3, 4, 1.5, 0.2, 0.5
    s0, u = r / (r**2 + noise), (layers - 2) / (2 * layers - 2)
    lam = 2 * c / K * r * s0 ** (1 - 2 / layers) * (1 - u) * u ** (1 - 2 / layers)

    def at(inputs, factor):
        return fixed_point(
            DeepLinear(
                inputs=inputs, classes=K, samples_per_class=n, layers=layers, loss_scale=c, decay=lam * factor
            )
        )

    below, above = (at(Isotropic(r, noise), f) for f in (1 - 1e-9, 1 + 1e-9))
    assert below.exists and not above.exists and below.signal == pytest.approx(u * s0, rel=1e-3)
    (saddle,) = below.other_roots
    assert saddle.signal < u * s0 < below.signal
    X = isotropic_samples(np.random.default_rng(0), K, n, 5, r, noise)
    for factor in (0.9, 0.99, 0.9999):
        assert at(X, factor).signal == pytest.approx(at(Isotropic(r, noise), factor).signal, rel=1e-8)
    assert not at(X, 1.001).exists


def test_one_layer_is_ridge_regression():
    rng = np.random.default_rng(0)
    X, counts = data(rng, counts=(3, 5, 6)), (3, 5, 6)
    m = network(X, counts, 1)
    Y = np.eye(3)[:, m.labels]
    A = Y @ X.T @ np.linalg.inv(X @ X.T + 14 * 5e-3 / 0.8 * np.eye(5))
    point = fixed_point(m)
    assert point.weight_norms == pytest.approx([np.linalg.norm(A)], rel=1e-12) and point.status == "exact"
    assert point.feature_norm == pytest.approx(np.linalg.norm(X, axis=0).mean(), rel=1e-15)


def test_vanishing_decay_is_least_squares():
    rng = np.random.default_rng(1)
    X, counts = data(rng), (4, 4, 4)
    limit, near = (fixed_point(network(X, counts, 3, decay=lam)) for lam in (0.0, 1e-9))
    assert limit.status == "asymptotic" and near.feature_norm == pytest.approx(limit.feature_norm, rel=1e-7)


def objective(A, G, B, mu, D):
    return (
        0.5 * np.trace(A @ G @ A.T)
        - np.trace(A @ B.T)
        + mu * D / 2 * np.sum(np.linalg.svd(A, compute_uv=False) ** (2 / D))
    )


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_each_majorisation_step_descends(depth):
    rng = np.random.default_rng(depth)
    g, B, A = rng.uniform(0.5, 3, 6), rng.standard_normal((4, 6)), rng.standard_normal((4, 6))
    last = np.inf
    for _ in range(30):
        state = np.linalg.svd(A, full_matrices=False)
        step = schatten.majorise(state, g, B, 0.05, depth)
        assert step is not None
        value = objective(A, np.diag(g), B, 0.05, depth)
        assert value == pytest.approx(schatten.objective(state, g, B, 0.05, depth), rel=1e-12)
        assert value <= last + 1e-13 * abs(last)
        last, A = value, step


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_stationary_even_where_modes_have_died(depth):
    """Perturbations of the solution in any direction that keeps its rank change the objective at second order
    only."""
    rng = np.random.default_rng(10 + depth)
    g, B = rng.uniform(0.5, 3, 6), rng.standard_normal((4, 6)) * np.array([[3.0], [1.0], [0.7], [0.3]])
    found = schatten.minimise(g, B, 1.2, depth)
    assert 0 < len(found.s) < 4 and found.residual < 1e-13
    for _ in range(10):
        U = found.U + 1e-4 * rng.standard_normal(found.U.shape)
        V = found.V + 1e-4 * rng.standard_normal(found.V.shape)
        A = (U * (found.s * (1 + 1e-4 * rng.standard_normal(len(found.s))))) @ V.T
        away = np.linalg.norm(A - (found.U * found.s) @ found.V.T)
        assert abs(objective(A, np.diag(g), B, 1.2, depth) - found.objective) < 30 * away**2
    if depth == 2:  # convex: no direction descends
        for _ in range(50):
            A = (found.U * found.s) @ found.V.T + 0.1 * rng.standard_normal((4, 6))
            assert objective(A, np.diag(g), B, 1.2, 2) > found.objective


def test_nothing_is_left_under_a_heavy_decay():
    X, counts = data(np.random.default_rng(2)), (4, 4, 4)
    for layers in (2, 3, 6):
        for bias in ("none", "free", "decayed"):
            point = fixed_point(network(X, counts, layers, bias, decay=50.0))
            assert not point.exists and point.feature_norm == 0 and np.isnan(point.class_mean_cosine)
            assert point.loss == pytest.approx(0.4 * (1 - np.sum(point.bias) / 3), rel=1e-12)


def test_lanes_are_models_of_their_own():
    X, counts = data(np.random.default_rng(3)), (4, 4, 4)
    decays = (0.0, 1e-4, 1e-2, 0.1, 5.0)
    for layers, bias in ((1, "none"), (2, "free"), (3, "none"), (4, "decayed")):
        for inputs in (X, Isotropic(1.5, 0.1)):
            many = fixed_point(network(inputs, counts, layers, bias, decay=decays))
            for i, lam in enumerate(decays):
                one = fixed_point(network(inputs, counts, layers, bias, decay=lam))
                for name in set(NUMBERS) - {"signal"}:
                    assert np.array_equal(getattr(many, name)[i], getattr(one, name), equal_nan=True), name


def test_a_descent_that_stops_short_says_so(monkeypatch):
    short = schatten.minimise
    monkeypatch.setattr(linear.schatten, "minimise", lambda *a: short(*a, most=2))
    with pytest.warns(RuntimeWarning, match="not converged"):
        point = fixed_point(network(data(np.random.default_rng(4)), (4, 4, 4), 4, decay=0.05))
    assert point.stationarity > linear.TOLERANCE


def test_moments_are_read_once():
    m = network(data(np.random.default_rng(5)), (4, 4, 4), 2, decay=(1e-3, 1e-2))
    samples = deep_linear.moments(m)
    assert isinstance(samples, deep_linear.Samples)
    assert samples.eigen(0.0)[1] is samples.eigen(0.0)[1]
    assert mode.fold(2)[0] == 0
