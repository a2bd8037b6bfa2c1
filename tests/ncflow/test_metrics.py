"""Parity of every metric with its published definition in plain numpy; invariances; streams; edge cases."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ncflow import metrics
from ncflow.metrics import (
    METRICS,
    NAMES,
    NEEDS_SAMPLES,
    NEEDS_W,
    Moments,
    compute,
    compute_streamed,
    from_moments,
)

BALANCED, UNBALANCED = (7, 7, 7, 7), (3, 9, 5, 14)
CHOICES = list(product(("samples", "classes"), repeat=3))
LOSS = {"decay_weights": 3e-3, "decay_features": 1e-3, "loss_scale": 0.5}
NC1 = ("nc1_trace_ratio", "nc1_pinv_over_k", "nc1_pinv", "cdnv")


def draw(counts, p, seed=0, noise=0.7, lanes=()):
    """Features around class means with a common part, shuffled labels, a classifier near them, a bias."""
    rng = np.random.default_rng(seed)
    K = len(counts)
    labels = rng.permutation(np.repeat(np.arange(K), counts))
    means = rng.normal(size=(*lanes, K, p)) + rng.normal(size=(*lanes, 1, p))
    features = means[..., labels, :] + noise * rng.normal(size=(*lanes, len(labels), p))
    W = means + 0.5 * rng.normal(size=(*lanes, K, p))
    return features, labels, W, 0.3 * rng.normal(size=(*lanes, K))


def published(H, y, W, b, sigma_w="samples", global_mean="samples", sigma_b="classes", loss=LOSS):
    """Every metric by its published definition: loops over classes and samples, p x p matrices, pinv."""
    N, K = len(H), len(W)
    n = [int((y == c).sum()) for c in range(K)]
    mu = np.stack([H[y == c].mean(0) for c in range(K)])
    mu_G = H.mean(0) if global_mean == "samples" else mu.mean(0)
    M = mu - mu_G
    scatter = [sum(np.outer(h - mu[c], h - mu[c]) for h in H[y == c]) for c in range(K)]
    Sw = sum(scatter) / N if sigma_w == "samples" else sum(scatter[c] / n[c] for c in range(K)) / K
    share = [1 / K if sigma_b == "classes" else n[c] / N for c in range(K)]
    Sb = sum(share[c] * np.outer(M[c], M[c]) for c in range(K))
    pinv = np.trace(Sw @ np.linalg.pinv(Sb, rcond=1e-12))
    var = [((H[y == c] - mu[c]) ** 2).sum(1).mean() for c in range(K)]
    pairs = [(i, j) for i in range(K) for j in range(K) if i != j]
    cos = [[M[i] @ M[j] / np.linalg.norm(M[i]) / np.linalg.norm(M[j]) for j in range(K)] for i in range(K)]
    E = (np.eye(K) - np.ones((K, K)) / K) / np.sqrt(K - 1)
    norms = [np.linalg.norm(m) for m in M]
    c, lw, lh = loss["loss_scale"], loss["decay_weights"], loss["decay_features"]
    signal = [max(0.0, 1 - N * np.sqrt(lw * lh) / (2 * c * np.sqrt(n_k))) for n_k in n]
    m2 = np.diag([s * np.sqrt(lw / (lh * n_k)) for s, n_k in zip(signal, n, strict=True)])
    w2 = np.diag([s * np.sqrt(lh * n_k / lw) for s, n_k in zip(signal, n, strict=True)])

    def fro(A):
        return np.linalg.norm(A, "fro")

    def gram(A, target):
        return fro(A / fro(A) - target / fro(target))

    net = [np.argmax(W @ h + b) for h in H]
    nearest = [np.argmin([np.linalg.norm(h - m) for m in mu]) for h in H]
    Wc = W - W.mean(0)
    return {
        "nc1_trace_ratio": np.trace(Sw) / np.trace(Sb),
        "nc1_pinv_over_k": pinv / K,
        "nc1_pinv": pinv,
        "cdnv": np.mean([(var[i] + var[j]) / (2 * ((mu[i] - mu[j]) ** 2).sum()) for i, j in pairs]),
        "nc2_equiangular_l1": np.mean([abs(cos[i][j] + 1 / (K - 1)) for i, j in pairs]),
        "nc2_gram_fro_over_K": fro(np.array(cos) - K / (K - 1) * (np.eye(K) - np.ones((K, K)) / K)) / K,
        "nc2_equinorm_cov": np.std(norms) / np.mean(norms),
        "nc2_etf_fro_W": fro(W @ W.T / fro(W @ W.T) - E),
        "nc2_etf_fro_Wc": fro(Wc @ Wc.T / fro(Wc @ Wc.T) - E),
        "nc2_etf_fro_M": fro(M @ M.T / fro(M @ M.T) - E),
        "nc2_of_fro_M": fro(mu @ mu.T / fro(mu @ mu.T) - np.eye(K) / np.sqrt(K)),
        "nc2_gof_M": gram(mu @ mu.T, m2),
        "nc2_gof_W": gram(W @ W.T, w2),
        "nc3_one_minus_cos": 1 - np.mean([W[k] @ M[k] / np.linalg.norm(W[k]) / norms[k] for k in range(K)]),
        "nc3_dual_sq": fro(W / fro(W) - M / fro(M)) ** 2,
        "nc3_etf_fro": fro(W @ M.T / fro(W @ M.T) - E),
        "nc4_mismatch": np.mean([i != j for i, j in zip(net, nearest, strict=True)]),
        "nc0": np.linalg.norm(sum(W)),
        "fn": np.mean([np.linalg.norm(h) for h in H]),
        "class_mean_norm": np.mean([np.linalg.norm(m) for m in mu]),
    }


def numbers(values):
    return {name: value.numpy() for name, value in values.items()}


def assert_same(a, b, rel=1e-11, abs=1e-13):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=rel, atol=abs, err_msg=name)


# Parity ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sigma_w", "global_mean", "sigma_b"), CHOICES)
@pytest.mark.parametrize("p", [9, 2])  # wider than K; narrower than K - 1, where Sigma_B has rank p
@pytest.mark.parametrize("counts", [BALANCED, UNBALANCED])
def test_every_metric_is_the_published_one(counts, p, sigma_w, global_mean, sigma_b):
    choices = {"sigma_w": sigma_w, "global_mean": global_mean, "sigma_b": sigma_b}
    data = draw(counts, p)
    found = compute(*data, **choices, **LOSS)
    assert tuple(found) == NAMES
    assert all(value.dtype == torch.float64 and value.shape == () for value in found.values())
    expected = published(*data, **choices)
    assert 0 < expected["nc4_mismatch"] < 1  # else the case says nothing of it
    assert_same(numbers(found), expected, rel=1e-10)


def test_the_names_are_those_of_the_specification():
    assert NAMES == (
        "nc1_trace_ratio", "nc1_pinv_over_k", "nc1_pinv", "cdnv", "nc2_equiangular_l1", "nc2_gram_fro_over_K",
        "nc2_equinorm_cov", "nc2_etf_fro_W", "nc2_etf_fro_Wc", "nc2_etf_fro_M", "nc2_of_fro_M", "nc2_gof_M",
        "nc2_gof_W", "nc3_one_minus_cos", "nc3_dual_sq", "nc3_etf_fro", "nc4_mismatch", "nc0", "fn",
        "class_mean_norm",
    )  # fmt: skip
    for name in NAMES:
        line = str(METRICS[name])
        assert line.startswith(f"{name} = ") and METRICS[name].source in line and "\n" not in line
    assert {METRICS[name].unit for name in NAMES} == {"1", "weight", "feature"}


def test_defaults_are_those_of_the_paper():
    data = draw(UNBALANCED, 9)
    theirs = compute(*data, sigma_w="samples", global_mean="samples", sigma_b="classes")
    assert_same(numbers(compute(*data)), numbers(theirs))


def test_choices_coincide_on_balanced_data():
    data = draw(BALANCED, 9)
    first, *others = (compute(*data, sigma_w=w, global_mean=g, sigma_b=b, **LOSS) for w, g, b in CHOICES)
    for other in others:
        assert_same(numbers(other), numbers(first))


@pytest.mark.parametrize("choice", ["sigma_w", "global_mean", "sigma_b"])
def test_choices_differ_on_unbalanced_data(choice):
    data = draw(UNBALANCED, 9)
    names = ["nc1_trace_ratio", "nc1_pinv"]
    a, b = (compute(*data, **{choice: value}, names=names) for value in ("samples", "classes"))
    for name in a:
        assert abs(a[name] / b[name] - 1) > 1e-2, name


# Invariances ----------------------------------------------------------------------------------------------

problems = st.fixed_dictionaries(
    {
        "counts": st.lists(st.integers(1, 8), min_size=2, max_size=5),
        "p": st.integers(1, 7),
        "seed": st.integers(0, 2**32 - 1),
    }
)


@settings(max_examples=40, deadline=None)
@given(problems, st.sampled_from(CHOICES))
def test_invariant_to_rotation_and_permutation(problem, choice):
    choices = dict(zip(("sigma_w", "global_mean", "sigma_b"), choice, strict=True)) | LOSS
    H, y, W, b = draw(**problem)
    rng = np.random.default_rng(problem["seed"])
    before = numbers(compute(H, y, W, b, **choices))
    Q = np.linalg.qr(rng.normal(size=(problem["p"],) * 2))[0]
    samples, relabel = rng.permutation(len(y)), rng.permutation(len(W))
    where = np.argsort(relabel)  # row c of W belongs to the class that is now relabel[c]
    for after in (
        compute(H @ Q, y, W @ Q, b, **choices),
        compute(H[samples], y[samples], W, b, **choices),
        compute(H, relabel[y], W[where], b[where], **choices),
    ):
        # A direction of the means may be nearly degenerate, and Sigma_B^+ squares its condition number.
        assert_same(numbers(after), before, rel=1e-6, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(problems, st.floats(1e-3, 3))
def test_fn_lies_between_its_bounds_on_balanced_data(problem, noise):
    problem["counts"] = [max(problem["counts"])] * len(problem["counts"])
    H, y, *_ = draw(**problem, noise=noise)
    moments = Moments.of(H, y, len(problem["counts"]))
    found = from_moments(moments, names=["fn", "class_mean_norm"])
    mean_square = moments.means.square().sum(-1).mean()
    upper = (mean_square + moments.within.sum() / moments.counts.sum()).sqrt()
    assert found["class_mean_norm"] * (1 - 1e-12) <= found["fn"] <= upper * (1 + 1e-12)


# Layers: lanes, moments, streams --------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [(3,), (2, 3)])
def test_lanes_are_the_same_as_one_at_a_time(lanes):
    H, y, W, b = draw(UNBALANCED, 9, lanes=lanes)
    decay = np.random.default_rng(1).uniform(1e-3, 4e-3, lanes)
    together = compute(H, y, W, b, **(LOSS | {"decay_weights": decay}))
    assert {tuple(value.shape) for value in together.values()} == {lanes}
    for index in np.ndindex(*lanes):
        alone = compute(H[index], y, W[index], b[index], **(LOSS | {"decay_weights": decay[index]}))
        here = {name: value[index] for name, value in numbers(together).items()}
        assert_same(here, numbers(alone), rel=1e-12)


def test_one_classifier_serves_all_lanes():
    H, y, *_ = draw(UNBALANCED, 9, lanes=(3,))
    _, _, W, b = draw(UNBALANCED, 9)
    copies = np.stack([W] * 3), np.stack([b] * 3)
    assert_same(numbers(compute(H, y, W, b)), numbers(compute(H, y, *copies)))
    assert compute(H, y, W)["nc0"].shape == (3,)


def test_moments_merge_exactly():
    H, y, W, _ = draw(UNBALANCED, 9, lanes=(2,))
    parts = [Moments.of(H[:, i], y[i], 4) for i in np.split(np.arange(len(y)), [1, 6, 20])]
    assert any((part.counts == 0).any() for part in parts)  # classes are missing from parts
    whole = Moments.of(H, y, 4)
    for merged in (
        parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3]),
        parts[3].merge(parts[1].merge(parts[0].merge(parts[2]))),
    ):
        for field in ("counts", "means", "within", "norm_sum"):
            torch.testing.assert_close(getattr(merged, field), getattr(whole, field), rtol=1e-13, atol=1e-14)
        assert_same(numbers(from_moments(merged, W)), numbers(from_moments(whole, W)), rel=1e-12)
    with pytest.raises(ValueError, match=r"means.shape = \(2, 4, 3\): \(2, 4, 9\) is accepted"):
        whole.merge(Moments.of(H[..., :3], y, 4))


def test_moments_determine_all_but_two_kinds():
    H, y, W, b = draw(UNBALANCED, 9)
    complete = numbers(compute(H, y, W, b, **LOSS))
    from_them = from_moments(Moments.of(H, y, 4), W, b, **LOSS)
    assert set(NEEDS_SAMPLES) == {"nc1_pinv", "nc1_pinv_over_k", "nc4_mismatch"}
    assert set(complete) - set(from_them) == set(NEEDS_SAMPLES)
    assert_same(numbers(from_them), {name: complete[name] for name in from_them})


def test_unknown_norms_leave_the_rest():
    H, y, W, _ = draw(UNBALANCED, 9)
    moments = Moments.of(H, y, 4)
    unknown = Moments(moments.counts, moments.means, moments.within, moments.norm_sum * torch.nan)
    found, known = from_moments(unknown, W), from_moments(moments, W)
    assert found.pop("fn").isnan() and known.pop("fn").isfinite()
    assert_same(numbers(found), numbers(known))


class Passes:
    """Samples in uneven batches; counts how often they were asked for."""

    def __init__(self, H, y, cuts):
        self.calls, self.batches = 0, [(H[..., i, :], y[i]) for i in np.split(np.arange(len(y)), cuts)]

    def __call__(self):
        self.calls += 1
        return iter(self.batches)


def test_streams_are_the_same_as_in_memory():
    H, y, W, b = draw(UNBALANCED, 9, lanes=(2,))
    passes = Passes(H, y, [1, 4, 20])
    streamed = compute_streamed(passes, 4, W, b, **LOSS)
    assert passes.calls == 2
    assert_same(numbers(streamed), numbers(compute(H, y, W, b, **LOSS)), rel=1e-12)


def test_the_second_pass_is_made_only_for_what_needs_it():
    H, y, W, b = draw(UNBALANCED, 9)
    for names, calls in ((("fn", "cdnv"), 1), (("fn", "nc1_pinv"), 2), (("nc4_mismatch",), 2)):
        passes = Passes(H, y, [9])
        found = compute_streamed(passes, 4, W, b, names=names)
        assert passes.calls == calls and tuple(found) == names
        assert_same(numbers(found), {name: published(H, y, W, b)[name] for name in names})


def test_streams_that_end_are_noticed():
    H, y, W, b = draw(UNBALANCED, 9)
    once = iter([(H, y)])
    with pytest.raises(ValueError, match="samples in the second pass over batches = 0: 31, as in the first"):
        compute_streamed(lambda: once, 4, W, b)
    with pytest.raises(ValueError, match="batches = 'no batch'"):
        compute_streamed(lambda: [], 4)
    with pytest.raises(ValueError, match="batches = 'list': a function"):
        compute_streamed([(H, y)], 4)


def test_blocks_do_not_show():
    counts, p = (900, 400, 1700), 150  # 450,000 elements: two blocks
    H, y, W, b = draw(counts, p, noise=2.0)
    assert len(list(metrics._blocks(H, y, 3))) > 1
    assert_same(numbers(compute(H, y, W, b, **LOSS)), published(H, y, W, b), rel=1e-10)


class NoReadBack(TorchDispatchMode):
    """Raises where a tensor would be read back from its device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


def test_from_moments_reads_nothing_back():
    H, y, W, b = (torch.as_tensor(x) for x in draw(UNBALANCED, 9, lanes=(2,)))
    moments = Moments.of(H, y, 4)
    with NoReadBack():
        from_moments(moments, W, b, **LOSS)
    with NoReadBack(), pytest.raises(AssertionError):
        Moments.of(H, y, 4)  # checks its labels, so the guard does catch what it should


# Accuracy -------------------------------------------------------------------------------------------------


def exact_trace_ratio(H, y):
    """Tr Sigma_W / Tr Sigma_B of the very numbers in H, in rational arithmetic."""
    H = [[Fraction(float(x)) for x in row] for row in H]
    rows = {c: [h for h, label in zip(H, y, strict=True) if label == c] for c in sorted(set(y.tolist()))}
    p = range(len(H[0]))
    mu = {c: [sum(h[j] for h in hs) / len(hs) for j in p] for c, hs in rows.items()}
    mu_G = [sum(h[j] for h in H) / len(H) for j in p]
    within = sum((h[j] - mu[c][j]) ** 2 for c, hs in rows.items() for h in hs for j in p) / len(H)
    return float(within / (sum((mu[c][j] - mu_G[j]) ** 2 for c in rows for j in p) / len(rows)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("noise", [1e-3, 1e-6, 1e-7])
def test_nc1_does_not_cancel(noise, dtype):
    H, y, *_ = draw((11, 30, 19), 5, noise=noise)
    H = H.astype(dtype)
    expected = exact_trace_ratio(H, y)
    assert expected < 20 * noise**2 or dtype is np.float32
    assert compute(H, y)["nc1_trace_ratio"].item() == pytest.approx(expected, rel=1e-11, abs=0)
    parts = [Moments.of(H[i], y[i], 3) for i in np.split(np.arange(len(y)), [20, 40])]
    merged = from_moments(parts[0].merge(parts[1]).merge(parts[2]))
    # The means of the parts are rounded to 1e-16, and their differences are as small as the noise.
    assert merged["nc1_trace_ratio"].item() == pytest.approx(expected, rel=1e-15 / noise + 1e-11, abs=0)


def plus_minus(means, eps):
    """Samples mu_c +- eps e_j for every coordinate j: Sigma_W = (eps^2/p) I exactly."""
    K, p = means.shape
    steps = np.concatenate([np.eye(p), -np.eye(p)]) * eps
    return (means[:, None] + steps).reshape(-1, p), np.repeat(np.arange(K), 2 * p)


def test_pinv_resolves_small_directions_of_the_means():
    frame = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 2  # orthonormal centred columns
    sizes = np.array([1.0, 1e-3, 1e-6])
    H, y = plus_minus(frame * sizes, 1e-3)
    expected = (1e-6 / 3) * (4 / sizes**2).sum()
    found = compute(H, y)
    assert found["nc1_pinv"].item() == pytest.approx(expected, rel=1e-7)
    assert found["nc1_pinv_over_k"].item() == pytest.approx(expected / 4, rel=1e-7)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize(("sigma_w", "global_mean", "sigma_b"), CHOICES)
def test_pinv_drops_what_is_structurally_zero(sigma_w, global_mean, sigma_b, offset):
    """Two equal class means, rank K - 2: rounding error in both null directions must not be inverted."""
    H, y, W, b = draw(UNBALANCED, 9, noise=0.0)
    H[y == 3] = H[y == 1][0]
    rng = np.random.default_rng(3)
    for c in range(4):  # centred noise, so that the two means stay equal
        noise = rng.normal(size=(int((y == c).sum()), 9))
        H[y == c] += 0.1 * (noise - noise.mean(0))
    H = np.round(H + offset, 9)
    choices = {"sigma_w": sigma_w, "global_mean": global_mean, "sigma_b": sigma_b}
    expected = published(H, y, W, b, **choices)["nc1_pinv"]  # with a cutoff of its own, 1e-12
    assert compute(H, y, **choices)["nc1_pinv"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("sigma_w", "global_mean", "sigma_b"), CHOICES)
def test_pinv_has_rank_k_minus_1_far_from_the_origin(sigma_w, global_mean, sigma_b):
    """Centring leaves errors of 1e-6 in the direction that the means do not span; no cutoff sees that."""
    H, y, *_ = draw(UNBALANCED, 9)
    choices = {"sigma_w": sigma_w, "global_mean": global_mean, "sigma_b": sigma_b}
    near, far = (compute(H + offset, y, **choices)["nc1_pinv"].item() for offset in (0.0, 1e10))
    assert far == pytest.approx(near, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(problems, st.sampled_from(CHOICES), st.floats(-9, 1), st.floats(0, 4))
def test_nc1_is_never_negative(problem, choice, exponent, offset):
    H, y, *_ = draw(**problem, noise=10**exponent)
    choices = dict(zip(("sigma_w", "global_mean", "sigma_b"), choice, strict=True))
    for name, value in compute(H + 10**offset, y, names=NC1, **choices).items():
        assert value >= 0, name


# Exact configurations -------------------------------------------------------------------------------------


def collapsed(means, counts):
    return np.repeat(means, counts, axis=0), np.repeat(np.arange(len(means)), counts)


def rotation(p, columns, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(p, columns)))[0].T


@pytest.mark.parametrize("K", [2, 5, 10])
def test_simplex_etf_is_zero(K):
    M = 1.7 * (np.eye(K) - 1 / K) @ rotation(13, K)
    H, y = collapsed(M + 0.3, [6] * K)
    found = numbers(compute(H, y, 0.4 * M, np.zeros(K)))
    biased = numbers(compute(H, y, 0.4 * M, -0.4 * M @ np.full(13, 0.3)))
    for name in NAMES:
        if name.startswith(("nc1", "cdnv", "nc2_e", "nc2_gram", "nc3", "nc0")):
            assert abs(found[name]) < 1e-13, name
    assert found["nc2_of_fro_M"] > 0.05
    assert biased["nc4_mismatch"] == 0
    assert found["fn"] == pytest.approx(found["class_mean_norm"], rel=1e-13)


def test_orthogonal_frame_is_zero():
    K = 6
    M = 2.0 * rotation(9, K)
    found = numbers(compute(*collapsed(M, [5] * K), 3.0 * M))
    for name in ("nc1_trace_ratio", "nc2_of_fro_M", "nc2_equiangular_l1", "nc2_etf_fro_M", "nc4_mismatch"):
        assert abs(found[name]) < 1e-13, name
    assert found["nc2_etf_fro_W"] > 0.1 and found["nc2_etf_fro_Wc"] < 1e-13  # one of them centres W
    assert found["fn"] == pytest.approx(2.0, rel=1e-13)
    assert found["nc0"] == pytest.approx(3 * 2 * K**0.5, rel=1e-13)


def test_general_orthogonal_frame_is_zero_and_stationary():
    n, p = np.array([4, 10, 25, 60]), 7
    N, K = n.sum(), len(n)
    lw, lh, c = 2e-3, 1e-3, 0.3
    signal = 1 - N * np.sqrt(lw * lh) / (2 * c * np.sqrt(n))
    assert signal.min() > 0.1
    Q = rotation(p, K)
    M = np.sqrt(signal * np.sqrt(lw / (lh * n)))[:, None] * Q
    W = np.sqrt(signal * np.sqrt(lh * n / lw))[:, None] * Q
    H, y = collapsed(M, n)
    error = W @ H.T - np.eye(K)[:, y]
    assert abs(2 * c / N * error @ H + lw * W).max() < 1e-15  # dL/dW, dL/dH: the prediction is a fixed point
    assert abs(2 * c / N * W.T @ error + lh * H.T).max() < 1e-15
    loss = {"decay_weights": lw, "decay_features": lh, "loss_scale": c}
    found = numbers(compute(H, y, W, **loss))
    assert abs(found["nc2_gof_M"]) < 1e-13 and abs(found["nc2_gof_W"]) < 1e-13 and found["nc2_of_fro_M"] > 0.1
    other = numbers(compute(H, y, W, **loss | {"decay_weights": 2 * lw}))
    assert other["nc2_gof_M"] > 1e-3 and other["nc2_gof_W"] > 1e-3


def test_a_class_below_its_threshold_vanishes_from_the_frame():
    n = np.array([1, 40, 40])
    loss = {"decay_weights": 0.02, "decay_features": 0.02, "loss_scale": 0.5}  # N^2 lW lH / (4 c^2) = 2.6
    M = np.array([0.0, 1.0, 1.0])[:, None] * rotation(5, 3)
    found = numbers(compute(*collapsed(M, n), M, **loss))
    assert abs(found["nc2_gof_M"]) < 1e-13 and abs(found["nc2_gof_W"]) < 1e-13


# Edge cases -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_lane_that_is_not_finite_is_nan_and_alone(value):
    H, y, W, b = draw(UNBALANCED, 9, lanes=(3,))
    clean = numbers(compute(H, y, W, b, **LOSS))
    H[1, 4, 2] = value
    found = numbers(compute(H, y, W, b, **LOSS))
    for name in NAMES:
        assert np.isnan(found[name][1]), name
        assert np.array_equal(found[name][[0, 2]], clean[name][[0, 2]]), name


def test_a_classifier_that_is_not_finite_spoils_only_what_uses_it():
    H, y, W, b = draw(UNBALANCED, 9, lanes=(3,))
    clean = numbers(compute(H, y, W, b, **LOSS))
    W[1, 0, 0] = np.nan
    found = numbers(compute(H, y, W, b, **LOSS))
    for name in NAMES:
        assert np.isnan(found[name][1]) == (name in NEEDS_W), name
        assert np.array_equal(found[name][[0, 2]], clean[name][[0, 2]]), name
    b[2] = np.inf
    nc4 = numbers(compute(H, y, W, b))["nc4_mismatch"]
    assert np.isfinite(nc4[0]) and np.isnan(nc4[1:]).all()


def test_without_class_structure_nothing_has_collapsed():
    steps = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    same = np.concatenate([steps, steps]), np.repeat([0, 1], 4)  # both means are exactly zero
    for name, value in compute(*same, names=NC1).items():
        assert value == np.inf, name
    zero = np.zeros((8, 2)), same[1]
    for name, value in compute(*zero, names=NC1).items():
        assert value.isnan(), name
    assert compute(*zero)["fn"] == 0


def test_a_class_without_samples_is_nan_in_from_moments():
    H, y, W, _ = draw(UNBALANCED, 9)
    found = from_moments(Moments.of(H[y != 2], y[y != 2], 4), W)
    assert all(value.isnan() for value in found.values())


def test_inputs_of_any_kind():
    H, y, W, b = draw(UNBALANCED, 9)
    expected = numbers(compute(H, y, W, b))
    frozen = H.copy()
    frozen.flags.writeable = False
    H_torch = torch.tensor(H, requires_grad=True)
    for features, labels, weights, bias in (
        (frozen, y.tolist(), W.tolist(), b.tolist()),
        (H[::-1][:, ::-1], y[::-1], W[:, ::-1], b),
        (H_torch, torch.tensor(y, dtype=torch.uint8), torch.nn.Parameter(torch.tensor(W)), torch.tensor(b)),
        (np.asfortranarray(H).astype(np.longdouble), y.astype(np.int16), np.asfortranarray(W), b),
    ):
        found = compute(features, labels, weights, bias)
        assert not any(value.requires_grad for value in found.values())
        assert_same(numbers(found), expected, rel=1e-12)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        low = torch.tensor(H).to(dtype)
        assert_same(numbers(compute(low, y, W, b)), numbers(compute(low.double(), y, W, b)), rel=0, abs=0)


def test_metrics_without_their_arguments_are_absent():
    H, y, W, _ = draw(UNBALANCED, 9)
    assert set(compute(H, y)) == set(NAMES) - set(NEEDS_W) - {"nc2_gof_M"}
    assert set(compute(H, y, W)) == set(NAMES) - {"nc2_gof_M", "nc2_gof_W"}
    assert set(compute(H, y, **LOSS)) == set(NAMES) - set(NEEDS_W)
    assert set(NEEDS_W) == {name for name in NAMES if name.startswith(("nc3", "nc4", "nc0")) or "_W" in name}
    assert tuple(compute(H, y, names="fn")) == ("fn",)


H0, Y0, W0, B0 = draw(BALANCED, 5)
H2 = np.stack([H0, H0])
M0 = Moments.of(H0, Y0, 4)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: compute(H0[0], Y0), "features.shape = (5,): (..., N, p) is accepted"),
        (lambda: compute(H0, Y0[1:]), "labels.shape = (27,): (28,) is accepted, one per sample, N >= 1"),
        (lambda: compute(H0, np.eye(4)[Y0]), "labels.shape = (28, 4): (28,) is accepted"),
        (lambda: compute(H0[:0], Y0[:0]), "labels.shape = (0,): (0,) is accepted, one per sample, N >= 1"),
        (lambda: compute(H0, Y0.astype(float)), "labels.dtype = torch.float64: integers are accepted"),
        (lambda: compute(H0, Y0 - 1), "labels = '-1..2': 0..K-1 is accepted"),
        (lambda: compute(H0, Y0 + 1, W0), "labels = '1..4': 0..3 is accepted"),
        (lambda: compute(H0, Y0 + 1), "labels = 'no sample of class 0': each of 0..4 must occur"),
        (lambda: compute(H0, Y0 * 0), "classes = 1: at least 2"),
        (lambda: compute(H0, Y0, W0[0]), "W.shape = (5,): (..., K, p) is accepted"),
        (lambda: compute(H0, Y0, W0[:, 1:]), "W.shape = (4, 4): (4, 5) is accepted"),
        (lambda: compute(H2, Y0, W0[None]), "W.shape = (1, 4, 5): (4, 5) or (2, 4, 5) is accepted"),
        (lambda: compute(H0, Y0, W0, B0[1:]), "b.shape = (3,): (4,) is accepted"),
        (lambda: compute(H0, Y0, b=B0), "b = 'given without W': W and b, or W alone, is accepted"),
        (lambda: compute(H0, Y0, sigma_w="class"), "sigma_w = 'class': samples or classes is accepted"),
        (lambda: compute(H0, Y0, decay_weights=1.0), "decay_weights, decay_features, loss_scale = (1.0"),
        (lambda: compute(H0, Y0, **LOSS | {"loss_scale": [1, 1]}), "loss_scale.shape = (2,): () is accepted"),
        (lambda: compute(H0, Y0, names=["nc9"]), "names = 'nc9': accepted are nc1_trace_ratio, nc1_pin"),
        (lambda: compute(H0, Y0, names=["fn", "nc0"]), "names = 'nc0': accepted only with W"),
        (lambda: compute(H0, Y0, W0, names="nc2_gof_W"), "names = 'nc2_gof_W': accepted only with decay"),
        (lambda: from_moments(M0, names="cdnw"), "names = 'cdnw': accepted are"),
        (lambda: from_moments(M0, names="nc1_pinv"), "names = 'nc1_pinv': accepted only with"),
        (lambda: Moments.of(H0, Y0, 3), "labels = '0..3': 0..2 is accepted"),
    ],
)
def test_bad_input_is_one_line(call, line):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
