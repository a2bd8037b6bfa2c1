"""Losses, activations, non-negative features, the frozen classifier and batch normalisation: gradients and fixed points."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ncflow import UFM, BadInput, Decay, DeepLinear, simulate
from ncflow.activations import ACTIVATIONS, find, scaled
from ncflow.flows import BatchNormFlow, NetworkFlow, choose
from ncflow.initial import draw
from ncflow.losses import Loss

CPU = torch.device("cpu")
LOSSES = {"mse": {}, "cross_entropy": {}, "label_smoothing": {"smoothing": 0.1}, "focal": {"focal_gamma": 2.0},
          "focal, 1/2": {"loss": "focal", "focal_gamma": 0.5}}


def by_autograd(flow, y):
    """-dL/dx of the flow's own energy, features at their mobility."""
    y = y.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(flow.observe(y).energy.sum(), y)
    speed = torch.ones_like(gradient)
    for name, part in flow.layout.unpack(speed).items():
        if name in ("H", "Z"):
            part *= flow.lanes["mobility"].reshape(-1, *[1] * (part.ndim - 1))
    return -speed * gradient


POWERS = ("relu^1", "relu^1.5", "relu^2.7")


@pytest.mark.parametrize("activation", [*ACTIVATIONS, *POWERS])
@pytest.mark.parametrize("loss", LOSSES)
def test_field_is_the_gradient_of_the_energy(activation, loss):
    more = {"loss": loss.split(",")[0], **LOSSES[loss]}
    model = UFM(classes=3, samples_per_class=[2, 3, 4], width=[5, 6], layers=2, bias="decayed", activation=activation,
                activation_scale=[0.5, 2.0], decay=Decay(weights=0.1, features=0.2, bias=0.3), mobility=3.0, **more)
    flow = NetworkFlow(model, torch.arange(2), CPU)
    y = torch.randn(2, flow.layout.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2
    torch.testing.assert_close(flow.field(y), by_autograd(flow, y), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_batch_normalised_field_is_the_gradient_of_the_energy(streams, loss):
    more = {"loss": loss.split(",")[0], **LOSSES[loss]}
    model = UFM(classes=3, samples_per_class=[2, 3, 4], width=5, bias="free", normalization="batch", streams=streams,
                decay=Decay(weights=0.1, features=0.2), mobility=3.0, **more)
    flow = choose("auto", model, torch.zeros(2, dtype=torch.int64), CPU)
    assert isinstance(flow, BatchNormFlow)
    y = torch.randn(2, flow.layout.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(flow.field(y), by_autograd(flow, y), rtol=1e-10, atol=1e-12)


def test_losses_equal_their_definitions():
    Z = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    rows, truth = Z.mT.reshape(-1, 4), labels.repeat(2)
    each = F.cross_entropy(rows, truth, reduction="none").reshape(2, 7)
    p = torch.exp(-each)
    values = {
        "mse": 0.25 / 7 * (Z - F.one_hot(labels, 4).T).square().sum((1, 2)),
        "cross_entropy": each.mean(1),
        "label_smoothing": F.cross_entropy(rows, truth, reduction="none", label_smoothing=0.2).reshape(2, 7).mean(1),
        "focal": ((1 - p) ** 1.5 * each).mean(1),
    }
    for name, expected in values.items():
        loss = Loss.of(name, labels, 4, scale=0.25, smoothing=0.2, gamma=1.5)
        torch.testing.assert_close(loss.value(Z), expected, rtol=1e-12, atol=1e-14)


def test_saturated_samples_keep_focal_loss_finite():
    loss = Loss.of("focal", torch.tensor([0, 1]), 2, gamma=0.5)
    Z = torch.tensor([[[900.0, -900.0], [-900.0, 900.0]]], dtype=torch.float64)
    assert bool(loss.gradient(Z.clone()).eq(0).all()) and float(loss.value(Z)[0]) == 0.0


@pytest.mark.parametrize("name", [*ACTIVATIONS, *POWERS])
def test_slopes_and_the_knob(name):
    x = torch.tensor([-3.0, -0.7, -1e-3, 1e-3, 0.4, 2.5], dtype=torch.float64, requires_grad=True)
    a = torch.tensor(1.7, dtype=torch.float64)
    value, slope = scaled(name, a)
    (gradient,) = torch.autograd.grad(value(x).sum(), x)
    torch.testing.assert_close(slope(x.detach()), gradient, rtol=1e-12, atol=1e-14)
    phi = find(name)
    if phi.degree is not None:
        torch.testing.assert_close(phi.value(3 * x), 3**phi.degree * phi.value(x), rtol=1e-12, atol=0)
    s = torch.tensor(0.6, dtype=torch.float64)
    torch.testing.assert_close(value(s * x), s * scaled(name, a / s)[0](x), rtol=1e-12, atol=1e-14)


def test_activations_equal_torch():
    x = torch.linspace(-12, 12, 101, dtype=torch.float64)
    peers = {"linear": lambda z: z, "relu": F.relu, "leaky_relu": F.leaky_relu, "gelu": F.gelu, "silu": F.silu,
             "softplus": F.softplus, "tanh": torch.tanh, "relu^2": lambda z: F.relu(z) ** 2, "relu^3": lambda z: F.relu(z) ** 3,
             "tanh_relu": lambda z: torch.tanh(F.relu(z))}
    assert set(peers) == set(ACTIVATIONS)
    for name, peer in peers.items():
        torch.testing.assert_close(ACTIVATIONS[name].value(x), peer(x), rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("t, smooth", [(1.0, False), (1.5, False), (2.0, True), (2.5, True)])
def test_a_power_of_relu_balances_layers_at_its_degree(t, smooth):
    """d/dt of |W_1|^2 - t |W_2|^2 is -2 lambda times itself, by the Euler identity of a map of degree t."""
    model = UFM(classes=3, samples_per_class=2, width=[5, 6], layers=2, activation=f"relu^{t:g}", decay=0.02)
    start = draw(model, 0)
    initial = {"H": start["H"], "W": [start["W_1"], start["W_2"]]}
    assert NetworkFlow(model, torch.arange(1), CPU).smooth == smooth
    run = simulate(model, initial=initial, save_at=[0.0, 1.0, 4.0], events=[], **({} if smooth else {"step": 0.02}))
    first, second = run.data["weight_norm"].values[0].T ** 2
    gap = first - t * second
    np.testing.assert_allclose(gap, gap[0] * np.exp(-2 * 0.02 * run.data["time"].values), rtol=1e-6 if smooth else 1e-4)
    assert abs(first[-1] / first[0] - 1) > 1e-2  # it did move


@pytest.mark.parametrize("name", ["relu^0.5", "relu^", "relu^x", "relu^inf", "relu^nan", "relu^-2", "gelu^2", 3, None])
def test_what_is_no_activation_is_refused_in_a_line(name):
    with pytest.raises(BadInput, match=r"activation = .*relu\^t with a number t >= 1$"):
        UFM(classes=3, layers=2, activation=name)


@pytest.mark.parametrize("bias", ["none", "free"])
def test_non_negative_features_rest_on_the_orthogonal_frame(bias):
    """Exact with a free bias. Without one the last angle between class means closes along a flat valley: the error falls as a
    power of t, not exponentially, and is still visible."""
    K, n, decay = 4, 3, 0.01
    model = UFM(classes=K, samples_per_class=n, width=12, nonnegative=True, bias=bias, decay=decay)
    run = simulate(model, seeds=range(3), until=4000, save_at=[2000.0, 4000.0], events=[])
    root = math.sqrt(K / (K - 1)) if bias == "free" else 1.0
    sigma = 1 - K * math.sqrt(n) * decay * root
    fn = math.sqrt(sigma / (root * math.sqrt(n)))
    error = run.data["fn"].values / fn - 1
    assert (run.final["H"] >= 0).all()
    if bias == "free":
        np.testing.assert_allclose(error[:, -1], 0.0, atol=1e-10)
        np.testing.assert_allclose(run.data["nc2_of_fro_M"][:, -1], 0.0, atol=1e-8)
    else:
        assert (error > 0).all() and (error[:, 0] < 2e-4).all() and (error[:, 1] < error[:, 0] / 4).all()


def test_cross_entropy_rests_on_its_closed_form_and_rows_of_the_head_sum_to_zero():
    K, n, decay = 4, 3, 0.02
    model = UFM(classes=K, samples_per_class=n, width=6, loss="cross_entropy", decay=decay)
    times = [50.0, 100.0, 3000.0]
    run = simulate(model, seeds=[0, 1], until=3000.0, save_at=times, rtol=1e-10, events=[])
    sigma = math.log(1 / (math.sqrt(n) * decay) - K + 1)
    np.testing.assert_allclose(run.data["fn"][:, -1], math.sqrt((K - 1) / K * sigma / math.sqrt(n)), rtol=1e-8)
    # Softmax residuals sum to zero over classes: the row sum of W only decays, exactly.
    start = simulate(model, seeds=[0, 1], until=1e-9, save_at=[1e-9], events=[]).data["nc0"][:, 0]
    for i, t in enumerate(times[:2]):
        np.testing.assert_allclose(run.data["nc0"][:, i], start * math.exp(-decay * t), rtol=1e-7)


def test_batch_normalised_features_rest_near_their_closed_form():
    """The start knows the classes; kinks leave the last per mille to sliding along them."""
    K, n, p, decay = 4, 5, 16, 1e-2
    g = torch.Generator().manual_seed(0)
    base = torch.randn(1, p, K, generator=g, dtype=torch.float64).repeat_interleave(n, 2)
    start = {"Z": base + 0.3 * torch.randn(1, p, K * n, generator=g, dtype=torch.float64), "gamma": torch.ones(1, p),
             "beta": torch.zeros(1, p), "W": [0.3 * torch.randn(K, p, generator=g, dtype=torch.float64)], "b": torch.zeros(K)}
    model = UFM(classes=K, samples_per_class=n, width=p, normalization="batch", loss="cross_entropy", bias="free",
                decay=Decay(weights=decay, features=0.0))
    run = simulate(model, initial=start, until=2000, save_at=[2000.0], events=[])
    gap = math.log(math.sqrt(K - 1) / decay - K + 1)
    assert float(run.data["fn"][0, -1]) == pytest.approx(math.sqrt(gap) * (K - 1) ** 0.25, rel=3e-3)
    scales = np.square(run.final["gamma"]).sum() + np.square(run.final["beta"]).sum()
    assert scales == pytest.approx(np.square(run.final["W_1"]).sum(), rel=3e-3)


def test_frozen_classifier_is_a_simplex_and_stays():
    model = UFM(classes=4, samples_per_class=3, width=6, classifier="etf", decay=1e-3)
    run = simulate(model, seeds=[0], until=50.0, save_at=[25.0, 50.0], events=[])
    W = run.final["W_1"][0]
    np.testing.assert_allclose(W @ W.T, (4 * np.eye(4) - 1) / 3, atol=1e-12)
    np.testing.assert_allclose(run.data["nc2_etf_fro_W"][0], 0.0, atol=1e-12)
    # Each sample then solves a ridge problem of its own: H = (2c/N) [(2c/N) W^T W + lambda I]^{-1} W^T Y.
    c = 1 / 12
    H = np.linalg.solve(c * W.T @ W + 1e-3 * np.eye(6), c * W.T @ np.eye(4)[:, model.labels])
    long = simulate(model, initial={"H": run.final["H"][0], "W": [W]}, until=2e4, save_at=[2e4], events=[])
    np.testing.assert_allclose(long.final["H"][0], H, atol=1e-8)


def test_a_nonlinear_data_tied_model_is_an_mlp():
    X = np.random.default_rng(0).normal(size=(5, 12))
    model = DeepLinear(inputs=X, classes=3, samples_per_class=4, layers=3, width=6, activation="tanh", decay=0.01)
    flow = choose("auto", model, torch.zeros(1, dtype=torch.int64), CPU)
    W = [torch.randn(s, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) for s in model.weight_shapes]
    y = flow.layout.pack({f"W_{i}": w[None] for i, w in enumerate(W, 1)})
    net = torch.nn.Sequential(torch.nn.Linear(5, 6, bias=False), torch.nn.Tanh(), torch.nn.Linear(6, 6, bias=False),
                              torch.nn.Tanh(), torch.nn.Linear(6, 3, bias=False)).double()
    for layer, w in zip(net[::2], W, strict=True):
        layer.weight.data = w
    features = net[:4](torch.tensor(X.T))
    torch.testing.assert_close(flow.observe(y).features[0], features, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("fields", "names"), [
    ({"loss": "hinge"}, ["loss", "focal"]),
    ({"activation": "swish"}, ["activation", "silu"]),
    ({"activation": "relu"}, ["activation", "nonnegative"]),
    ({"smoothing": 0.1}, ["smoothing", "label_smoothing"]),
    ({"loss": "label_smoothing", "smoothing": 1.0}, ["smoothing", "below 1"]),
    ({"loss": "focal", "focal_gamma": -1.0}, ["focal_gamma"]),
    ({"layers": 2, "activation": "gelu", "activation_scale": 0.0}, ["activation_scale"]),
    ({"streams": 2}, ["streams", "batch"]),
    ({"normalization": "batch", "layers": 2}, ["layers", "1"]),
    ({"normalization": "layer"}, ["normalization", "batch"]),
    ({"normalization": "batch", "nonnegative": True}, ["nonnegative"]),
    ({"classifier": "frozen"}, ["classifier", "etf"]),
])
def test_bad_models(fields, names):
    with pytest.raises(BadInput) as caught:
        UFM(classes=3, samples_per_class=4, width=6, **fields)
    for name in names:
        assert name in str(caught.value)


def test_flows_that_do_not_hold_say_why():
    with pytest.raises(BadInput, match="the activation is tanh"):
        simulate(DeepLinear(inputs=np.ones((3, 4)), classes=2, samples_per_class=2, layers=2, width=3, activation="tanh"),
                 until=1.0, flow="gram")
    negative = {"H": -np.ones((3, 4)), "W": [np.ones((2, 3))]}
    with pytest.raises(BadInput, match="negative entries"):
        simulate(UFM(classes=2, samples_per_class=2, width=3, nonnegative=True), initial=negative, until=1.0)
