"""Every flow against the gradient of the loss, taken by automatic differentiation of its definition; flows against each other."""

import numpy as np
import pytest
import torch

from ncflow import UFM, BadInput, Decay, DeepLinear, Isotropic, metrics
from ncflow.flows import choose
from ncflow.flows.layout import Layout
from ncflow.initial import given
from ncflow.recorder import measure

CPU = torch.device("cpu")
BIASES = ("none", "free", "decayed")
COUNTS = (2, 5, 3)


def data(d, N=10, seed=0, rank=None):
    X = np.random.default_rng(seed).normal(size=(d, N))
    if rank is None:
        return X
    U, S, Vt = np.linalg.svd(X, full_matrices=False)
    return U[:, :rank] * S[:rank] @ Vt[:rank]


def lanes(model, name, count=2):
    lane = torch.arange(count) % model.lanes
    return choose(name, model, lane, CPU)


def ufm(layers, bias, **more):
    decay = Decay(
        weights=[[1e-2 * (i + 1) for i in range(layers)], [3e-2] * layers],
        features=[2e-2, 5e-3],
        bias=[4e-2, 7e-3] if bias == "decayed" else 0.0,
    )
    return UFM(
        **(
            {
                "classes": 3,
                "samples_per_class": COUNTS,
                "width": tuple(range(4, 4 + layers)),
                "layers": layers,
                "bias": bias,
                "decay": decay,
                "mobility": [1.0, 7.0],
                "loss_scale": 0.3,
            }
            | more
        )
    )


def deep(layers, bias, X, **more):
    return DeepLinear(
        **(
            {
                "inputs": X,
                "classes": 3,
                "samples_per_class": COUNTS,
                "width": tuple(range(4, 3 + layers)),
                "layers": layers,
                "bias": bias,
                "decay": [1e-2, 3e-3],
                "loss_scale": 0.3,
            }
            | more
        )
    )


DATA = {"d < N": data(4), "d > N": data(14), "rank 2": data(5, rank=2), "rank 3 of d > N": data(13, rank=3), "d = N": data(10)}
MODELS = [pytest.param(ufm(layers, bias), "full", id=f"ufm-{layers}-{bias}") for layers in (1, 2, 3, 4) for bias in BIASES]
MODELS += [
    pytest.param(deep(layers, bias, DATA["d < N"]), name, id=f"deep-{layers}-{bias}-{name}")
    for layers in (1, 2, 3)
    for bias in BIASES
    for name in ("full", "gram")
]
MODELS += [
    pytest.param(deep(2, "decayed", X), name, id=f"deep-{what}-{name}") for what, X in DATA.items() for name in ("full", "gram")
]


def start(model, flow, brute, seed=0):
    """A random state of two lanes, packed."""
    blocks, _ = given(model, brute.initial(model, seed, lanes=2))
    return flow.start(blocks)


@pytest.mark.parametrize("model, name", MODELS)
def test_the_field_is_the_descent_of_the_loss(model, name, brute):
    flow = lanes(model, name)
    y = start(model, flow, brute)
    velocity = flow.state(flow.field(y))  # `state` is linear: the field in the user's coordinates
    state = flow.state(y)
    for lane in range(2):
        x = np.concatenate([state[n][lane].numpy().ravel() for n in brute.names(model)])
        expected = brute.field(model, lane)(0.0, x)
        found = np.concatenate([velocity[n][lane].numpy().ravel() for n in brute.names(model)])
        assert np.abs(found - expected).max() < 1e-13 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("model, name", MODELS)
def test_the_energy_is_the_loss_and_the_state_survives_packing(model, name, brute):
    flow = lanes(model, name)
    initial = brute.initial(model, 1, lanes=2)
    y = flow.start(given(model, initial)[0])
    energy, state = flow.observe(y).energy, flow.state(y)
    for lane in range(2):
        blocks = brute.split(model, brute.flat(model, initial, lane))
        assert float(energy[lane]) == pytest.approx(float(brute.loss(model, lane)(blocks)), rel=1e-12)
        for n, block in zip(brute.names(model), blocks, strict=True):
            torch.testing.assert_close(state[n][lane], block, rtol=0, atol=1e-13)


@pytest.mark.parametrize("model, name", MODELS)
def test_what_is_observed_is_what_the_state_says(model, name, brute):
    flow = lanes(model, name)
    y = start(model, flow, brute, 2)
    seen, state, found = flow.observe(y), flow.state(y), measure(flow, y)
    for lane in range(2):
        blocks = {n: v[lane].numpy() for n, v in state.items()}
        H = brute.features(model, blocks)
        np.testing.assert_allclose(seen.features[lane].numpy().T, H, rtol=0, atol=1e-12)
        for i, W in enumerate(seen.weights, 1):
            np.testing.assert_allclose(W[lane].numpy(), blocks[f"W_{i}"], rtol=0, atol=1e-13)
        expected = metrics.compute(H.T, model.labels, blocks[f"W_{model.layers}"], blocks.get("b"))
        for key, value in expected.items():
            assert float(found[key][lane]) == pytest.approx(float(value), rel=1e-9, abs=1e-12), key
        assert float(found["fn"][lane]) == pytest.approx(brute.fn(model, blocks), rel=1e-12)
        assert float(found["layer_feature_norm"][lane, -1]) == pytest.approx(brute.fn(model, blocks), rel=1e-12)
        norms = [np.linalg.norm(blocks[f"W_{i + 1}"]) for i in range(model.layers)]
        np.testing.assert_allclose(found["weight_norm"][lane].numpy(), norms, rtol=1e-12)


@pytest.mark.parametrize("model, name", MODELS)
def test_moments_are_those_of_the_features(model, name, brute):
    flow = lanes(model, name)
    y = start(model, flow, brute, 3)
    exact = metrics.Moments.of(flow.observe(y).features, flow.labels, 3)
    for detailed in (False, True):
        moments = flow.moments(y, detailed)
        torch.testing.assert_close(moments.means, exact.means, rtol=0, atol=1e-12)
        torch.testing.assert_close(moments.within.sum(1), exact.within.sum(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moments.within, exact.within, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(moments.norm_sum, exact.norm_sum, rtol=1e-12, atol=0)
    # What an event sees is what the record says, the classifier and the class means in one basis.
    seen = metrics.from_moments(flow.moments(y), flow.head(y), names=["nc3_one_minus_cos", "nc1_trace_ratio"])
    for key, value in seen.items():
        torch.testing.assert_close(value, measure(flow, y)[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("bias", BIASES)
def test_isotropic_is_an_array_with_just_these_moments(layers, bias, brute):
    """Orthonormal class means times r, and in every class scatter with the same total in every direction of their span."""
    K, r, v2, n = 3, 1.7, 0.3, 6
    pairs = np.kron(np.eye(K), [1, -1]) * np.sqrt(n * v2 / (2 * K))  # two samples along every axis
    E = np.tile(pairs, K)
    X = r * np.eye(K).repeat(n, axis=1) + E
    np.testing.assert_allclose(E @ E.T, n * v2 * np.eye(K), atol=1e-12)
    same = {"classes": K, "samples_per_class": n, "layers": layers, "width": 4, "bias": bias, "decay": [1e-2, 1e-3]}
    known, array = DeepLinear(inputs=Isotropic(r, v2), **same), DeepLinear(inputs=X, **same)
    blocks, _ = given(array, brute.initial(array, 4, lanes=2))
    flows = lanes(known, "gram"), lanes(array, "gram"), lanes(array, "full")
    fields = [f.state(f.field(f.start(blocks))) for f in flows]
    seen = [f.observe(f.start(blocks)) for f in flows]
    found = [measure(f, f.start(blocks)) for f in flows]
    for other in (1, 2):
        for name in fields[0]:
            torch.testing.assert_close(fields[0][name], fields[other][name], rtol=0, atol=1e-12)
        torch.testing.assert_close(seen[0].energy, seen[other].energy, rtol=1e-12, atol=0)
        for name in ("nc1_trace_ratio", "cdnv", "nc2_equiangular_l1", "class_mean_norm", "weight_norm", "nc3_one_minus_cos"):
            torch.testing.assert_close(found[0][name], found[other][name], rtol=1e-9, atol=1e-12)
        rms = seen[other].features.square().sum(2).mean(1).sqrt()
        torch.testing.assert_close(found[0]["fn"], rms, rtol=1e-12, atol=0)


def test_selected_lanes_are_lanes_of_the_whole(brute):
    model = ufm(2, "decayed")
    flow = lanes(model, "full", 4)
    y = torch.cat([start(model, flow, brute, s) for s in (0, 1)])
    pick = torch.tensor([3, 1, 1])
    torch.testing.assert_close(flow.select(pick).field(y[pick]), flow.field(y)[pick], rtol=0, atol=1e-15)


def test_the_gram_flow_costs_nothing_in_samples():
    """The state and every constant of the field are independent of N, and no (N x N) matrix is ever formed."""
    model = DeepLinear(inputs=data(3, 60_000), classes=2, samples_per_class=30_000, layers=2, width=4)
    flow = lanes(model, "gram")
    assert all(v.numel() <= 9 for v in (flow.gram, flow.cross, flow.total, flow.basis, flow.scatter_root))


def test_which_flow_is_chosen():
    assert lanes(ufm(1, "none"), "auto").name == "full" and lanes(deep(2, "none", data(4)), "auto").name == "gram"
    for model, name, why in (
        (ufm(1, "none"), "gram", "free"),
        (ufm(1, "none"), "fast", "auto, full, gram"),
        (deep(2, "none", Isotropic(1.0), samples_per_class=2), "full", "no samples"),
    ):
        with pytest.raises(BadInput, match=why) as caught:
            lanes(model, name)
        assert caught.value.argument == "flow"


def test_layout_round_trip():
    layout = Layout({"A": (2, 3), "b": (4,)})
    y = torch.arange(20.0, dtype=torch.float64).reshape(2, 10)
    blocks = layout.unpack(y)
    assert layout.size == 10 and blocks["A"].shape == (2, 2, 3) and blocks["b"].shape == (2, 4)
    assert torch.equal(layout.pack(blocks), y)
    blocks["b"].mul_(2)  # views
    assert y[1, 9] == 38
