"""The batched residual perceptron against PyTorch's own modules, and against the engine's model of its features."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ncflow.errors import BadInput
from realnets.network import Network
from realnets.residual_mlp import ResidualMLP

SIZES = (7, 12, 5)
SWITCHES = [(n, s) for n in ("batch", "none") for s in (True, False)]


class Reference(nn.Module):
    def __init__(self, sizes, blocks, branch, normalization, skip):
        super().__init__()
        inputs, width, classes = sizes
        depth = 1 + (blocks - 1) * branch
        self.linear = nn.ModuleList(nn.Linear(width if i else inputs, width, bias=False) for i in range(depth))
        make = (lambda: nn.BatchNorm1d(width)) if normalization == "batch" else nn.Identity
        self.normal = nn.ModuleList(make() for _ in range(depth))
        self.head, self.branch, self.skip = nn.Linear(width, classes), branch, skip

    def forward(self, x):
        layers = [nn.Sequential(*pair) for pair in zip(self.linear, self.normal, strict=True)]
        h = F.relu(layers.pop(0)(x))
        while layers:
            y = h
            for i in range(self.branch):
                y = layers.pop(0)(F.relu(y) if i else y)
            h = F.relu(h + y if self.skip else y)
        return self.head(h), h

    def named(self):
        for i, (linear, normal) in enumerate(zip(self.linear, self.normal, strict=True), 1):
            yield f"W_{i}", linear.weight
            if isinstance(normal, nn.BatchNorm1d):
                yield from ((f"gamma_{i}", normal.weight), (f"beta_{i}", normal.bias))
                yield from ((f"mean_{i}", normal.running_mean), (f"var_{i}", normal.running_var))
        yield from ((f"W_{len(self.linear) + 1}", self.head.weight), (f"b_{len(self.linear) + 1}", self.head.bias))


def value(logits, targets, loss):
    return F.cross_entropy(logits, targets.argmax(-1)) if loss == "cross_entropy" else F.mse_loss(logits, targets)


def shaken(net):
    torch.manual_seed(7)
    for name, view in net.named().items():
        if not name.startswith("W") or not view.any():
            view.add_(0.3 * torch.randn_like(view))
    return net


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize(("blocks", "branch"), [(3, 2), (4, 1), (1, 2)])
@pytest.mark.parametrize(("normalization", "skip"), SWITCHES)
def test_equals_plain_modules(normalization, skip, blocks, branch, loss):
    """Logits, features, gradients and running statistics, over three steps, three lanes."""
    switches = {"normalization": normalization, "skip": skip}
    net = shaken(ResidualMLP(SIZES, (0, 1, 5), blocks=blocks, branch=branch, dtype=torch.float64, **switches))
    references = [Reference(SIZES, blocks, branch, **switches).double() for _ in range(3)]
    twins = [dict(reference.named()) for reference in references]
    with torch.no_grad():
        for lane, twin in enumerate(twins):
            assert set(twin) == set(net.named()) | set(net.buffers())
            for name, view in {**net.named(), **net.buffers()}.items():
                twin[name].copy_(view[lane])
    for step in range(3):
        torch.manual_seed(step)
        x, Y = torch.randn(3, 9, 7).double(), F.one_hot(torch.randint(5, (3, 9)), 5).double()
        net.grad.fill_(torch.nan)
        net.gradient(x, Y, loss)
        grads = dict(zip(net.named(), net._views(net.grad).values(), strict=True))
        for lane, (reference, twin) in enumerate(zip(references, twins, strict=True)):
            reference.train().zero_grad()
            value(reference(x[lane])[0], Y[lane], loss).backward()
            for name, grad in grads.items():
                torch.testing.assert_close(grad[lane], twin[name].grad, rtol=1e-12, atol=1e-12)
            for name, state in net.buffers().items():
                torch.testing.assert_close(state[lane], twin[name], rtol=1e-12, atol=1e-12)
    logits, features = net.forward(x[0])
    batch, _ = net.forward(x[0], "batch")
    for lane, reference in enumerate(references):
        with torch.no_grad():
            torch.testing.assert_close((logits[lane], features[lane]), reference.eval()(x[0]), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(batch[lane], reference.train()(x[0])[0], rtol=1e-12, atol=1e-12)
    hidden = net.hidden(x[0])
    assert torch.equal(hidden[-1], features) and len(hidden) == blocks


def test_names_and_draw():
    net = ResidualMLP((300, 200, 10), (3, 8, 3))
    assert isinstance(net, Network) and net.weight_layers == [f"W_{i}" for i in range(1, 7)]
    assert net.parameters == sum(view[0].numel() for view in net.named().values()) and net.theta.shape[1] % 64 == 0
    assert torch.equal(net.theta[0], net.theta[2]) and not torch.equal(net.theta[0], net.theta[1])
    alone = ResidualMLP((300, 200, 10), (8,), dtype=torch.float64)
    assert torch.equal(alone.theta[0].float(), net.theta[1])
    assert float(net.named()["W_1"].std()) == pytest.approx((2 / 300) ** 0.5, rel=0.02)
    assert net.streams == [["1", "3", "5"]] and ResidualMLP(SIZES, (0,), skip=False).streams[-1] == ["5"]
    W, b = net.head
    assert W.shape == (3, 10, 200) and b is not None and b.shape == (3, 10)


@pytest.mark.parametrize(("normalization", "skip"), SWITCHES)
def test_degrees_cancelling_and_rescale(normalization, skip):
    net = shaken(ResidualMLP(SIZES, (0, 1), blocks=3, branch=3, normalization=normalization, skip=skip, dtype=torch.float64))
    x = torch.randn(20, 7, dtype=torch.float64)
    start, before = net.theta.clone(), net.forward(x, "batch")[1]

    def after(factors):
        net.theta.copy_(start)
        for name, factor in factors.items():
            net.named()[name].mul_(factor)
        return net.forward(x, "batch")[1]

    for group, degree in net.degrees.items():
        torch.testing.assert_close(after(dict.fromkeys(group, 1.5)), before * 1.5**degree, rtol=1e-3, atol=1e-3)
    for first, second in net.cancelling:
        torch.testing.assert_close(after({first: 1.5, second: 1 / 1.5}), before, rtol=1e-9, atol=1e-12)
    net.theta.copy_(start)
    net.rescale(torch.tensor([0.3, 2.0]))
    expected = before * torch.tensor([0.3, 2.0], dtype=torch.float64).view(2, 1, 1)
    torch.testing.assert_close(net.forward(x, "batch")[1], expected, rtol=2e-3, atol=1e-4)


def test_looks_linear_begins_linear():
    """Without normalisation and skip the pre-activations are linear in x, and of its size."""
    net = ResidualMLP((10, 20, 5), (0, 1), blocks=6, normalization="none", skip=False, dtype=torch.float64)
    x = torch.randn(30, 10, dtype=torch.float64)
    s, opposite, double = (net.trace(z)["s"] for z in (x, -x, 2 * x))
    torch.testing.assert_close(s, -opposite, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(2 * s, double, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(s.norm(dim=-1), 2**0.5 * x.norm(dim=-1).expand(2, -1), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("normalization", "skip"), SWITCHES)
def test_all_four_train(normalization, skip):
    from realnets import load

    data = load("digits", subset=300)
    x, Y = torch.as_tensor(data.x_train), F.one_hot(torch.as_tensor(data.y_train), 10).float()
    net = ResidualMLP((64, 32, 10), (0, 1), blocks=5, normalization=normalization, skip=skip)
    net.theta.grad = net.grad
    step = torch.optim.Adam([net.theta], lr=3e-3)
    for i in range(150):
        net.gradient(x[i % 6 :: 6], Y[i % 6 :: 6], "cross_entropy")
        step.step()
    logits, _ = net.forward(x, "batch")
    for lane in (0, 1):
        assert float(F.cross_entropy(logits[lane], Y)) < 0.4


def test_a_lane_does_not_see_the_others():
    both, alone = ResidualMLP(SIZES, (0, 1), dtype=torch.float64), ResidualMLP(SIZES, (1,), dtype=torch.float64)
    x, Y = torch.randn(2, 6, 7).double(), F.one_hot(torch.randint(5, (2, 6)), 5).double()
    torch.testing.assert_close(both.gradient(x, Y, "mse")[1], alone.gradient(x[1], Y[1], "mse")[0], rtol=1e-12, atol=1e-14)
    both.theta[0] = torch.nan
    both.gradient(x, Y, "mse")
    assert both.grad[1].isfinite().all() and not both.grad[0, : both.parameters].isfinite().any()


@pytest.mark.parametrize(("argument", "change"), [
    ("sizes", {"sizes": (7, 5)}), ("blocks", {"blocks": 0}), ("branch", {"branch": 0}),
    ("normalization", {"normalization": "layer"}), ("seeds", {"seeds": ()}),
    ("sizes", {"sizes": (7, 5, 3), "normalization": "none", "skip": False}),
])  # fmt: skip
def test_what_is_refused(argument, change):
    with pytest.raises(BadInput) as caught:
        ResidualMLP(**{"sizes": SIZES, "seeds": (0,), **change})
    assert caught.value.argument == argument


@pytest.mark.parametrize("skip", [True, False])
def test_features_rest_where_theory_says(skip):
    """fn of the collapsed network is that of a stream written by L BatchNorms (3 with skip, 1 without), sqrt(x) ((K-1) L)^{1/4},
    within 5%; L = 1 and L = 3 are 32% apart."""
    from ncflow import UFM, Decay, metrics
    from theory import fixed_point

    classes, each, inputs, decay = 4, 15, 12, 5e-3
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(classes).repeat_interleave(each)
    x = torch.randn(classes, inputs, generator=generator)[y] + 0.2 * torch.randn(len(y), inputs, generator=generator)
    net = ResidualMLP((inputs, 16, classes), (0, 1), blocks=3, branch=1, skip=skip)
    net.theta.grad, Y = net.grad, F.one_hot(y, classes).float()
    step = torch.optim.SGD([net.theta], lr=0.1, momentum=0.9, weight_decay=decay)
    for i in range(2000):
        if i == 1500:
            step.param_groups[0]["lr"] = 0.01
        net.gradient(x, Y, "mse")
        step.step()
    model = UFM(classes=classes, samples_per_class=each, width=16, loss_scale=1 / classes, bias="decayed", normalization="batch",
                streams=len(net.streams[-1]), decay=Decay(weights=decay, features=decay, bias=decay))
    found = metrics.compute(net.forward(x, "batch")[1], y)
    assert found["nc1_trace_ratio"].max() < 0.05
    assert found["fn"].numpy() == pytest.approx(float(fixed_point(model).feature_norm), rel=0.05)
