"""Tangent kernel and degree against explicit Jacobians and against theory's definitions."""

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian
from torch.nn import functional as F

from ncflow.errors import BadInput
from ncflow.metrics import compute
from realnets import measure
from realnets.mlp import LaneMLP
from realnets.probe import tangent_kernel
from realnets.residual_mlp import ResidualMLP
from realnets.resnet import ResNet
from theory import closure

N, K = 12, 3


def samples(inputs=5, seed=0):
    torch.manual_seed(seed)
    return torch.randn(N, inputs, dtype=torch.float64), torch.tensor([0, 1, 2, 1] * (N // 4))


def perceptron(activation="relu", biases=False, dtype=torch.float64):
    net = LaneMLP((5, 7, 6, K), (0, 1), activation=activation, biases=biases, dtype=dtype)
    torch.manual_seed(1)
    for b in net.biases:
        b.normal_(0, 0.3)
    return net


def features_of_mlp(net, lane, x):
    """flat row -> features (N, p), differentiable."""

    def at(row):
        a = x
        views = net._views(row[None], bool(net.biases))
        for i, W in enumerate(views[0][:-1]):
            a = a @ W[0].T
            a = net.phi.forward(a + views[1][i][0] if net.biases else a.clone())
        return a

    return at


def expected(at, net, lane, x, y, loss, decayed):
    """Rayleigh quotients and degree from the Jacobian (p N, P) and `theory.closure`."""
    row = net.theta[lane].clone()
    h, W = at(row), net.head[0][lane]
    outputs = net.forward(x, "batch")[0][lane]
    U = F.one_hot(y, K) - (outputs.softmax(-1) if loss == "cross_entropy" else outputs)
    pull = (U @ W).T.numpy() * 0.37  # (p, N); any scale
    J = jacobian(at, row).numpy() * decayed  # (N, p, P)
    J = np.moveaxis(J, 0, 1)
    mean = closure.class_mean_part(pull, y)
    quotients = [closure.rayleigh(np.einsum("pn,pnq->q", V, J), V) for V in (mean, pull)]
    radial = J @ row.numpy()
    return [quotients[0], closure.euler_degree(h.T.numpy(), radial, mean), quotients[1]]


def mask(net, names):
    theta = torch.zeros_like(net.theta[0])
    for name, view in net.named().items():
        if names is None or name in names:
            theta.as_strided(view[0].shape, view[0].stride(), view.storage_offset() - net.theta.storage_offset()).fill_(1)
    return theta.numpy()


@pytest.mark.parametrize("rows", [None, 5])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(("activation", "biases", "decayed"), [
    ("relu", False, None), ("relu", True, None), ("relu", True, ("W_1", "W_2")), ("gelu", True, None), ("tanh", False, None),
])  # fmt: skip
def test_equals_explicit_jacobians(activation, biases, decayed, loss, rows, monkeypatch):
    if rows:
        monkeypatch.setattr("realnets.probe._BLOCK", rows * 7)
    net, (x, y) = perceptron(activation, biases), samples()
    net.grad.fill_(3.0)
    found = tangent_kernel(net, x, y, loss, decayed=decayed)
    assert (net.grad == 3).all()
    for lane in (0, 1):
        at = features_of_mlp(net, lane, x)
        torch.testing.assert_close(at(net.theta[lane].clone()), net.forward(x)[1][lane])
        rayleigh, degree, full = expected(at, net, lane, x, y, loss, mask(net, decayed))
        assert float(found.rayleigh[lane]) == pytest.approx(rayleigh, rel=1e-10)
        assert float(found.degree[lane]) == pytest.approx(degree, rel=1e-10)
        assert float(found.rayleigh_full[lane]) == pytest.approx(full, rel=1e-10)
    if activation == "relu" and not biases:
        assert found.degree.numpy() == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize(("normalization", "skip"), [("batch", True), ("batch", False), ("none", False)])
def test_networks_on_autograd(normalization, skip):
    """With BatchNorm in training mode, and its running statistics left alone."""
    net = ResidualMLP((5, 6, K), (0, 1), blocks=3, normalization=normalization, skip=skip, dtype=torch.float64)
    x, y = samples()
    net.gradient(x, F.one_hot(y, K).double(), "mse")
    before = {name: state.clone() for name, state in net.buffers().items()}
    found = tangent_kernel(net, x, y)
    assert all(torch.equal(before[name], state) for name, state in net.buffers().items())

    def at(row):
        rows = row.expand(2, -1)
        return net._run(net._views(rows), x.expand(2, -1, -1), net.buffers(), "batch", None)[1][0]

    rayleigh, degree, full = expected(at, net, 0, x, y, "mse", mask(net, None))
    assert float(found.rayleigh[0]) == pytest.approx(rayleigh, rel=1e-10)
    assert float(found.degree[0]) == pytest.approx(degree, rel=1e-9)
    assert float(found.rayleigh_full[0]) == pytest.approx(full, rel=1e-10)
    # Euler: BatchNorm leaves the degree of the last stream's scales, up to epsilon; without it every layer counts.
    assert found.degree.numpy() == pytest.approx(1.0 if normalization == "batch" else 5.0, rel=5e-3)


def test_residual_network_of_images():
    net = ResNet((1, 8, 8), 3, (0, 1), depth=8, width=4, dtype=torch.float64)
    x, y = samples(64)
    found = tangent_kernel(net, x, y, "cross_entropy")
    assert found.degree.numpy() == pytest.approx(1.0, rel=2e-3) and (found.rayleigh > 0).all()


def test_single_precision_is_enough_and_a_perfect_fit_is_not_a_number():
    x, y = samples()
    single, double = perceptron(dtype=torch.float32), perceptron()
    double.theta.copy_(single.theta)
    a, b = tangent_kernel(single, x.float(), y), tangent_kernel(double, x, y)
    torch.testing.assert_close(a.rayleigh, b.rayleigh, rtol=1e-5, atol=0)
    torch.testing.assert_close(a.degree, b.degree, rtol=1e-5, atol=0)
    double.theta.zero_()
    double.named()["W_1"].fill_(1.0)
    assert tangent_kernel(double, x, y).rayleigh.isnan().all()  # a head of zeros pulls on nothing


@pytest.mark.parametrize("make", [
    lambda: perceptron("relu", True), lambda: ResidualMLP((5, 6, K), (0, 1), dtype=torch.float64),
    lambda: ResNet((1, 5, 1), K, (0, 1), depth=8, width=2, dtype=torch.float64),
])  # fmt: skip
def test_layerwise_nc1_is_that_of_hidden(make):
    """Progressive feedforward collapse (`realnets.measure.nc1_hidden`) on every architecture, layer by layer."""
    net, (x, y) = make(), samples()
    found = measure.nc1_hidden(net, x, y)
    for layer, features in enumerate(net.hidden(x)):
        torch.testing.assert_close(found[:, layer], compute(features, y)["nc1_trace_ratio"], rtol=1e-10, atol=0)
    torch.testing.assert_close(found[:, -1], compute(net.forward(x)[1], y)["nc1_trace_ratio"], rtol=1e-10, atol=0)


@pytest.mark.parametrize(("argument", "how"), [("loss", {"loss": "hinge"}), ("decayed", {"decayed": ["W_9"]})])
def test_what_is_refused(argument, how):
    with pytest.raises(BadInput) as caught:
        tangent_kernel(perceptron(), *samples(), **how)
    assert caught.value.argument == argument
