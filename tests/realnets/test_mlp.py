"""The batched perceptron against autograd and PyTorch's own layers."""

import math

import pytest
import torch
from torch.nn import functional as F

from ncflow.errors import BadInput
from realnets.activations import ACTIVATIONS, scaled
from realnets.mlp import LaneMLP

SIZES = (7, 12, 11, 5)
PHI = {
    "linear": lambda z: z,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "tanh_relu": lambda z: torch.tanh(F.relu(z)),
    "relu^2": lambda z: F.relu(z) ** 2,
    "relu^3": lambda z: F.relu(z) ** 3,
}


def reference(net, lane, x, phi):
    """Logits and features of one lane, by `linear` on that lane's views."""
    a = x
    for i in range(net.layers):
        z = F.linear(a, net.weights[i][lane], net.biases[i][lane] if net.biases else None)
        if i == net.layers - 1:
            return z, a
        a = phi(z)


def test_every_activation_is_tested():
    assert set(PHI) == set(ACTIVATIONS)


@pytest.mark.parametrize("a", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_knob_and_its_pullback(name, a):
    torch.manual_seed(1)
    z = torch.randn(50, dtype=torch.float64, requires_grad=True)
    g = torch.randn_like(z)
    expected = a * PHI[name](z / a)
    (pull,) = torch.autograd.grad(expected, z, g)
    phi = scaled(name, a)
    value = phi.forward(z.detach().clone())
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(phi.backward(g, value if phi.in_place else z.detach()), pull, rtol=1e-12, atol=1e-12)
    if phi.degree is not None:
        torch.testing.assert_close(phi.forward(2 * z.detach()), 2**phi.degree * value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_gradient_equals_autograd(activation, biases, loss):
    net = LaneMLP(SIZES, (0, 1, 5), activation=activation, biases=biases, dtype=torch.float64)
    torch.manual_seed(0)
    for b in net.biases:
        b.normal_()
    x, y = torch.randn(3, 9, 7, dtype=torch.float64), torch.randint(0, 5, (3, 9))
    one_hot = F.one_hot(y, 5).double()
    net.grad.fill_(torch.nan)  # nothing of it may survive, except in the padding
    net.gradient(x, one_hot, loss)
    theta = net.theta.clone().requires_grad_()
    twin = LaneMLP(SIZES, (0, 1, 5), activation=activation, biases=biases, dtype=torch.float64)
    twin.weights, twin.biases = twin._views(theta, biases)
    for lane in range(3):
        logits, _ = reference(twin, lane, x[lane], PHI[activation])
        value = (
            F.cross_entropy(logits, y[lane]) if loss == "cross_entropy" else F.mse_loss(logits, one_hot[lane])
        )
        value.backward()
    assert theta.grad is not None
    torch.testing.assert_close(
        net.grad[:, : net.parameters], theta.grad[:, : net.parameters], rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_gives_logits_and_the_features_below_the_head(activation):
    net = LaneMLP(SIZES, (3, 4), activation=activation, dtype=torch.float64)
    x = torch.randn(6, 7, dtype=torch.float64)
    kept = x.clone()
    logits, features = net.forward(x)
    apart, _ = net.forward(x.expand(2, 6, 7).contiguous())
    assert logits.shape == (2, 6, 5) and features.shape == (2, 6, 11)
    assert torch.equal(x, kept) and torch.equal(logits, apart)
    for lane in range(2):
        z, a = reference(net, lane, x, PHI[activation])
        torch.testing.assert_close(logits[lane], z, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(features[lane], a, rtol=1e-12, atol=1e-14)


def test_a_network_without_hidden_layers_is_linear_regression():
    net = LaneMLP((4, 3), (0,), dtype=torch.float64)
    x = torch.randn(1, 8, 4, dtype=torch.float64)
    logits, features = net.forward(x)
    torch.testing.assert_close(logits, x @ net.weights[0].mT)
    assert torch.equal(features, x)


def test_names_and_padding():
    net = LaneMLP(SIZES, (0, 1))
    named = net.named()
    assert list(named) == ["W_1", "W_2", "W_3", "b_1", "b_2", "b_3"]
    assert named["W_2"].shape == (2, 11, 12) and named["b_3"].shape == (2, 5)
    assert net.parameters == sum(v[0].numel() for v in named.values())
    named["W_1"][1] = 7
    assert (net.theta[1, : 7 * 12] == 7).all()
    assert net.theta.shape[1] % 64 == 0 and not net.theta[:, net.parameters :].any()


def test_draw_is_kaiming_normal_and_depends_on_the_seed_alone():
    net = LaneMLP((300, 200, 10), (3, 8, 3))
    generator = torch.Generator().manual_seed(8)
    for W in net.weights:
        expected = torch.nn.init.kaiming_normal_(
            torch.empty(W.shape[1:]), nonlinearity="relu", generator=generator
        )
        assert torch.equal(W[1], expected)
    assert torch.equal(net.theta[0], net.theta[2]) and not torch.equal(net.theta[0], net.theta[1])
    assert float(net.weights[0].std()) == pytest.approx(math.sqrt(2 / 300), rel=0.02)
    assert not any(b.any() for b in net.biases)
    alone = LaneMLP((300, 200, 10), (8,), dtype=torch.float64, activation="tanh")
    assert torch.equal(alone.theta[0].float(), net.theta[1])


def test_refusals_name_the_argument():
    with pytest.raises(BadInput, match=r"activation = 'rleu': one of linear, relu"):
        LaneMLP(SIZES, (0,), activation="rleu")
    with pytest.raises(BadInput, match="seeds"):
        LaneMLP(SIZES, ())
    with pytest.raises(BadInput, match="sizes"):
        LaneMLP((3,), (0,))
