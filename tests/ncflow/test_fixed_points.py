"""Run to rest from the default random start, the simulator stands on the closed forms of THEORY, written out here."""

import numpy as np
import pytest
from scipy.optimize import brentq

from ncflow import UFM, Decay, DeepLinear, Isotropic, Status, simulate
from ncflow.initial import draw
from theory import fixed_point

C = 0.5


def at_rest(model, seeds=(0, 1), rest=1e-11, rtol=1e-6, **options):
    run = simulate(model, seeds=seeds, until=1e6, rest=rest, rtol=rtol, save_at=[1e6], events=[], **options)
    assert run.status == [Status.AT_REST] * run.lanes
    return run


def last(run, name):
    return run.data[name].values[:, -1]


def means(run, model):
    """(lanes, p, K) class means of the features."""
    return np.stack([run.final["H"][:, :, model.labels == k].mean(2) for k in range(model.classes)], 2)


def gram(M):
    return M.swapaxes(1, 2) @ M


# One layer: THEORY 1.1


@pytest.mark.parametrize("lw, lh", [(0.02, 0.02), (0.03, 0.005), (0.004, 0.05)])
@pytest.mark.parametrize("width", [4, 7])
def test_without_bias_an_orthogonal_frame(lw, lh, width):
    K, n = 4, 5
    model = UFM(classes=K, samples_per_class=n, width=width, decay=Decay(lw, lh))
    run = at_rest(model)
    sigma = 1 - K * np.sqrt(n * lw * lh) / (2 * C)
    m2, w2 = sigma * np.sqrt(lw / (n * lh)), sigma * np.sqrt(n * lh / lw)
    np.testing.assert_allclose(last(run, "fn"), np.sqrt(m2), rtol=1e-8)
    np.testing.assert_allclose(last(run, "weight_norm")[:, 0], np.sqrt(K * w2), rtol=1e-8)
    np.testing.assert_allclose(gram(means(run, model)), np.broadcast_to(m2 * np.eye(K), (2, K, K)), atol=1e-8)
    loss = C / K * K * ((1 - sigma) ** 2 + 2 * sigma * (1 - sigma))
    np.testing.assert_allclose(last(run, "energy"), loss, rtol=1e-10)


@pytest.mark.parametrize("scale", [C, 0.25])
def test_a_free_bias_makes_a_simplex(scale):
    K, n, lw, lh = 4, 5, 0.02, 0.01
    run = at_rest(UFM(classes=K, samples_per_class=n, width=6, bias="free", decay=Decay(lw, lh), loss_scale=scale))
    sigma = 1 - K * np.sqrt(n * lw * lh) / (2 * scale)
    m2, w2 = sigma * np.sqrt(lw / (n * lh)), sigma * np.sqrt(n * lh / lw)
    np.testing.assert_allclose(last(run, "fn"), np.sqrt(m2 * (K - 1) / K), rtol=1e-8)
    np.testing.assert_allclose(last(run, "weight_norm")[:, 0], np.sqrt((K - 1) * w2), rtol=1e-8)
    np.testing.assert_allclose(run.final["b"], 1 / K, atol=1e-8)
    np.testing.assert_allclose(last(run, "nc2_equiangular_l1"), 0, atol=1e-7)


@pytest.mark.parametrize("lb", [0.01, 0.2])
def test_a_decayed_bias_below_and_above_the_critical_decay(lb):
    K, n, lw, lh = 4, 5, 0.02, 0.01
    model = UFM(classes=K, samples_per_class=n, width=6, bias="decayed", decay=Decay(lw, lh, lb))
    run = at_rest(model)
    kappa = K * np.sqrt(n * lw * lh) / (2 * C)
    sigma, critical = 1 - kappa, 2 * C * kappa / (1 - kappa)
    m2 = sigma * np.sqrt(lw / (n * lh))
    if lb <= critical:
        fn, beta, m02 = np.sqrt(m2 * (K - 1) / K), 2 * C / K / (2 * C + lb), 0.0
    else:
        beta = np.sqrt(n * lw * lh) / lb
        m02 = (sigma - K * beta) * np.sqrt(lw / (n * lh))
        fn = np.sqrt(((K - 1) * m2 + m02) / K)
    assert (lb <= critical) == (lb == 0.01)
    np.testing.assert_allclose(last(run, "fn"), fn, rtol=1e-8)
    np.testing.assert_allclose(run.final["b"], beta, atol=1e-8)
    G = gram(means(run, model))
    np.testing.assert_allclose(G[:, 0, 1], (m02 - m2) / K, atol=1e-8)
    np.testing.assert_allclose(G[:, 0, 0], fn**2, atol=1e-8)


def test_beyond_the_critical_decay_nothing_is_left():
    K, n = 3, 4
    critical = 2 * C / (K * np.sqrt(n))
    for factor, alive in ((0.97, True), (1.03, False)):
        run = at_rest(UFM(classes=K, samples_per_class=n, width=5, decay=factor * critical), rest=1e-10)
        assert ((last(run, "fn") > 1e-2) == alive).all() and (alive or (last(run, "fn") < 1e-9).all())


# Imbalance: THEORY 8.2


def test_unbalanced_classes_have_norms_of_their_own_and_the_smallest_vanishes():
    counts, lw, lh = (1, 4, 9), 0.03, 0.02
    N = sum(counts)
    model = UFM(classes=3, samples_per_class=counts, width=5, decay=Decay(lw, lh))
    run = at_rest(model)
    sigma = np.maximum(0, 1 - N * np.sqrt(lw * lh) / (2 * C * np.sqrt(counts)))
    assert sigma[0] > 0
    m2, w2 = sigma * np.sqrt(lw / (lh * np.array(counts))), sigma * np.sqrt(lh * np.array(counts) / lw)
    np.testing.assert_allclose(gram(means(run, model)), np.broadcast_to(np.diag(m2), (2, 3, 3)), atol=1e-8)
    W = run.final["W_1"]
    np.testing.assert_allclose(W @ W.swapaxes(1, 2), np.broadcast_to(np.diag(w2), (2, 3, 3)), atol=1e-8)
    scale = 1.2 / (N * np.sqrt(lw * lh) / (2 * C))  # n_1 = 1 just below its threshold N^2 lW lH / (4 c^2)
    gone = at_rest(UFM(classes=3, samples_per_class=counts, width=5, decay=Decay(lw * scale, lh * scale)), seeds=[0])
    G = gram(means(gone, model))[0]
    assert abs(G[0, 0]) < 1e-8 and G[1, 1] > 1e-2


# Layers: THEORY 3


def signal(K, n, lh, weights):
    """Largest root of x^(D-2) (1 - x)^D = n lH prod(l) (K/2c)^D."""
    D = len(weights) + 1
    gamma = n * lh * np.prod(weights) * (K / (2 * C)) ** D
    return brentq(lambda x: x ** (D - 2) * (1 - x) ** D - gamma, (D - 2) / (2 * D - 2), 1, xtol=1e-15)


@pytest.mark.parametrize("weights", [(0.01, 0.01), (0.02, 0.005), (0.01, 0.01, 0.01), (0.02, 0.01, 0.005)])
@pytest.mark.parametrize("bias", ["none", "free"])
def test_layers_share_the_signal(weights, bias):
    K, n, lh, M = 3, 4, 0.01, len(weights)
    model = UFM(classes=K, samples_per_class=n, width=(5, 4, 6)[:M], layers=M, bias=bias, decay=Decay([weights], lh))
    run = at_rest(model)
    x = signal(K, n, lh, weights)
    e = 2 * C / K * x * (1 - x)
    R, share = (K, 1.0) if bias == "none" else (K - 1, (K - 1) / K)
    norms = [np.sqrt(e / lh / n * share)]
    for w in weights[:-1]:
        norms.append(norms[-1] * np.sqrt(e / w))
    np.testing.assert_allclose(
        last(run, "weight_norm"), np.broadcast_to([np.sqrt(R * e / w) for w in weights], (2, M)), rtol=1e-8
    )
    np.testing.assert_allclose(last(run, "layer_feature_norm"), np.broadcast_to(norms, (2, M)), rtol=1e-8)
    np.testing.assert_allclose(last(run, "fn"), np.sqrt(K * weights[-1] / (2 * C) * x / (1 - x) * share), rtol=1e-8)
    np.testing.assert_allclose(last(run, "energy"), C / K * (R * ((1 - x) ** 2 + (M + 1) * x * (1 - x)) + 0), rtol=1e-8)


@pytest.mark.parametrize("classifier", ["free", "etf"])
@pytest.mark.parametrize("loss", [{"loss": "mse"}, {"loss": "cross_entropy"}, {"loss": "label_smoothing", "smoothing": 0.1},
                                  {"loss": "focal", "focal_gamma": 1.0}])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_simplex_fits_a_dimension_less_than_there_are_classes(layers, loss, classifier):
    """K - 1 are enough where the mean of the logits is not the features' business; the point is the same as in any width."""
    decay = Decay(0.01, 0.005)
    shared = dict(classes=4, samples_per_class=3, layers=layers, bias="free", classifier=classifier, decay=decay, **loss)
    narrow, wide = (UFM(width=width, **shared) for width in (3, 8))
    ends, point = [at_rest(model, seeds=(1,)) for model in (narrow, wide)], fixed_point(narrow)
    for name, known in (("fn", point.feature_norm), ("energy", point.loss), ("weight_norm", point.weight_norms)):
        np.testing.assert_allclose(last(ends[0], name), last(ends[1], name), rtol=1e-8)
        np.testing.assert_allclose(last(ends[0], name)[0], known, rtol=1e-8)
    assert last(ends[0], "nc1_trace_ratio") < 1e-12 and last(ends[0], "nc2_equiangular_l1") < 1e-6


def test_a_frozen_simplex_in_its_own_plane_has_the_gram_matrix_of_one():
    for width in (3, 4, 9):
        head = draw(UFM(classes=4, width=width, classifier="etf"), 5)["W_1"]
        np.testing.assert_allclose(head @ head.T, (4 * np.eye(4) - 1) / 3, atol=1e-14)


@pytest.mark.parametrize("layers, width", [(2, 4), (3, 64), (5, 4), (5, 16)])
def test_the_default_start_reaches_full_rank(layers, width):
    """Zero and every lower rank attract too (THEORY, section 3); `initial.draw` keeps clear of them."""
    K, n, decay = 4, 30, 5e-3
    run = at_rest(
        UFM(classes=K, samples_per_class=n, width=width, layers=layers, decay=decay), seeds=range(3), rest=1e-7, rtol=1e-4
    )
    x = signal(K, n, decay, [decay] * layers)
    np.testing.assert_allclose(last(run, "fn"), np.sqrt(K * decay / (2 * C) * x / (1 - x)), rtol=1e-4)


def test_the_start_is_a_function_of_seed_and_shape():
    a = UFM(classes=3, samples_per_class=4, width=(5, 7), layers=2)
    b = UFM(classes=3, samples_per_class=[2, 4, 6], width=(5, 7), layers=2, decay=0.3, loss_scale=0.1, mobility=7.0, bias="free")
    first, again, other = draw(a, 1), draw(b, 1), draw(a, 2)
    assert all((first[n] == again[n]).all() and (first[n] != other[n]).any() for n in first) and (again["b"] == 0).all()
    size = 4 ** (1 / 6)
    for i in (1, 2):
        values = np.linalg.svd(first[f"W_{i}"].numpy())[1]
        np.testing.assert_allclose(values, size, rtol=1e-12)
    norms = np.linalg.norm(draw(UFM(classes=2, samples_per_class=500, width=50), 0)["H"], axis=0)
    assert norms.mean() == pytest.approx(0.1, rel=0.02)


# Fixed data: THEORY 4.2


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("flow", ["moments", "samples"])
def test_a_deep_linear_network_on_isotropic_data(layers, noise, flow):
    K, r, n, decay = 3, 1.4, 6, 0.02
    if flow == "moments":
        inputs = Isotropic(r, noise)
    else:
        E = np.tile(np.kron(np.eye(K), [1, -1]) * np.sqrt(n * noise / (2 * K)), K)  # two samples along every axis
        inputs = np.linalg.qr(np.random.default_rng(0).normal(size=(4, K)))[0] @ (r * np.eye(K).repeat(n, axis=1) + E)
    run = at_rest(DeepLinear(inputs=inputs, classes=K, samples_per_class=n, layers=layers, width=4, decay=decay))
    u = 2 * C / K
    s0 = r / (r**2 + noise)
    low = s0 * ((layers - 2) / (2 * layers - 2) if layers > 1 else 0)  # the fold; the largest root lies above it
    s = brentq(lambda s: u * ((1 - s * r) * r - s * noise) - decay * s ** (2 / layers - 1), low + 1e-12, s0, xtol=1e-15)
    if layers > 1 or flow == "samples":
        np.testing.assert_allclose(last(run, "class_mean_norm"), r * s ** (1 - 1 / layers), rtol=1e-8)
    np.testing.assert_allclose(last(run, "weight_norm"), np.full((2, layers), np.sqrt(K) * s ** (1 / layers)), rtol=1e-8)
    np.testing.assert_allclose(last(run, "nc1_trace_ratio"), noise / r**2 * K / (K - 1), rtol=1e-8, atol=1e-14)
    if flow == "moments":
        np.testing.assert_allclose(last(run, "fn"), np.sqrt(r**2 + noise) * s ** (1 - 1 / layers), rtol=1e-8)
        assert "root mean square" in run.data.attrs["feature_norm"]
