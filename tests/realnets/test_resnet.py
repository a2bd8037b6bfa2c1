"""The batched ResNet against the same network written with PyTorch's own modules, and what its docstring claims."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ncflow.errors import BadInput
from realnets.network import Network
from realnets.resnet import ResNet

SWITCHES = [(n, s) for n in ("batch", "none") for s in (True, False)]


def normal(channels, normalization):
    return nn.BatchNorm2d(channels) if normalization == "batch" else nn.Identity()


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride, normalization, skip, shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = normal(outputs, normalization)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = normal(outputs, normalization)
        self.skip, self.shortcut, self.stride, self.grown = skip, None, stride, outputs - inputs
        if skip and shortcut == "B" and stride != 1:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, normal(outputs, normalization))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if not self.skip:
            return F.relu(y)
        if self.shortcut is not None:
            return F.relu(y + self.shortcut(x))
        x = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + torch.cat([x, x.new_zeros(len(x), self.grown, *x.shape[2:])], 1))


class Reference(nn.Module):
    """ResNet-(6n + 2) on images of `channels`."""

    def __init__(self, n, width, channels, normalization="batch", skip=True, shortcut="B"):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(channels, width, 3, 1, 1, bias=False), normal(width, normalization)
        sizes = [width] + [width << i // n for i in range(3 * n)]
        self.blocks = nn.ModuleList(
            Block(a, b, 1 + (a != b), normalization, skip, shortcut) for a, b in pairwise(sizes)
        )
        self.head = nn.Linear(4 * width, 10)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        features = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.head(features), features

    def pairs(self):
        """(label, convolution, normalisation) in the names of `realnets.resnet`, and the head."""
        yield "1", self.stem, self.bn
        for i, block in enumerate(self.blocks):
            yield str(2 + 2 * i), block.conv1, block.bn1
            yield str(3 + 2 * i), block.conv2, block.bn2
            if block.shortcut is not None:
                yield f"p{1 + i // (len(self.blocks) // 3)}", *block.shortcut


@torch.no_grad()
def copy(net, lane, reference):
    """Give `reference` the parameters of a lane; returns name -> parameter or buffer of `reference`."""
    twins = {}
    for label, conv, bn in reference.pairs():
        twins[f"W_{label}"] = conv.weight
        if isinstance(bn, nn.BatchNorm2d):
            twins |= {f"gamma_{label}": bn.weight, f"beta_{label}": bn.bias}
            twins |= {f"mean_{label}": bn.running_mean, f"var_{label}": bn.running_var}
    twins |= {f"W_{net.depth}": reference.head.weight, f"b_{net.depth}": reference.head.bias}
    for name, view in {**net.named(), **net.buffers()}.items():
        twins[name].copy_(view[lane])
    assert set(twins) == set(net.named()) | set(net.buffers())
    return twins


def value(logits, targets, loss):
    return F.cross_entropy(logits, targets.argmax(-1)) if loss == "cross_entropy" else F.mse_loss(logits, targets)


def some(net, batch, shape, seed=0):
    torch.manual_seed(seed)
    for name, view in net.named().items():
        if name.startswith(("gamma", "beta", "b_")) or not view.any():
            view.add_(0.3 * torch.randn_like(view))
    x = torch.randn(net.lanes, batch, *shape, dtype=net.theta.dtype)
    return x, F.one_hot(torch.randint(10, (net.lanes, batch)), 10).to(x)


CASES = [
    (8, 4, 1, 3, "batch", True, "B", "cross_entropy"),
    (8, 4, 1, 1, "batch", True, "A", "mse"),
    (8, 4, 3, 3, "batch", False, "B", "mse"),
    (8, 4, 1, 1, "none", True, "B", "cross_entropy"),
    (8, 4, 1, 1, "none", True, "A", "mse"),
    (8, 4, 3, 3, "none", False, "B", "cross_entropy"),
    (20, 16, 1, 3, "batch", True, "B", "mse"),
]


@pytest.mark.parametrize(("depth", "width", "grey", "channels", "normalization", "skip", "shortcut", "loss"), CASES)
def test_equals_plain_modules(depth, width, grey, channels, normalization, skip, shortcut, loss):
    """Logits, features, gradients and running statistics, over three steps, two lanes."""
    shape = (grey, 9, 8)
    switches = {"normalization": normalization, "skip": skip, "shortcut": shortcut}
    net = ResNet(shape, 10, (0, 3), depth=depth, width=width, channels=channels, dtype=torch.float64, **switches)
    some(net, 1, shape)
    references = [Reference(depth // 6, width, channels, **switches).double() for _ in range(2)]
    twins = [copy(net, lane, r) for lane, r in enumerate(references)]
    for step in range(3):
        torch.manual_seed(step)
        x = torch.randn(2, 5, *shape, dtype=torch.float64)
        Y = F.one_hot(torch.randint(10, (2, 5)), 10).double()
        net.gradient(x.flatten(2) if step else x, Y, loss)
        for lane, reference in enumerate(references):
            reference.train().zero_grad()
            value(reference(x[lane].expand(-1, channels, -1, -1))[0], Y[lane], loss).backward()
        names = net.named()
        grads = dict(zip(names, net._views(net.grad).values(), strict=True))
        for lane, twin in enumerate(twins):
            for name, grad in grads.items():
                torch.testing.assert_close(grad[lane], twin[name].grad, rtol=1e-12, atol=1e-12)
            for name, state in net.buffers().items():
                torch.testing.assert_close(state[lane], twin[name], rtol=1e-12, atol=1e-12)
    logits, features = net.forward(x[0])
    batch, _ = net.forward(x[0], "batch")
    kept = {name: state.clone() for name, state in net.buffers().items()}
    for lane, reference in enumerate(references):
        with torch.no_grad():
            found = reference.eval()(x[0].expand(-1, channels, -1, -1))
            torch.testing.assert_close((logits[lane], features[lane]), found, rtol=1e-12, atol=1e-12)
            found = reference.train()(x[0].expand(-1, channels, -1, -1))[0]
            torch.testing.assert_close(batch[lane], found, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(kept[name], state) for name, state in net.buffers().items())
    hidden = net.hidden(x[0])
    assert torch.equal(hidden[-1], features) and len(hidden) == 1 + depth // 2 - 1


def test_paper_size_and_names():
    """0.27M parameters (Table 2 of the paper); the authors' notebook prints 0.272M."""
    net = ResNet((3, 32, 32), 10, (0,))
    assert net.parameters == 272_474 and isinstance(net, Network)
    assert ResNet((3, 32, 32), 10, (0,), shortcut="A").parameters == 269_722  # He et al.: 0.27M
    assert net.parameters == sum(view.numel() for view in net.named().values())
    W, b = net.head
    assert W.shape == (1, 10, 64) and b is not None and b.shape == (1, 10)
    assert W.data_ptr() == net.named()["W_20"].data_ptr() and net.weight_layers[-1] == "W_20"
    assert net.streams == [["1", "3", "5", "7"], ["p2", "9", "11", "13"], ["p3", "15", "17", "19"]]
    assert len(ResNet((3, 32, 32), 10, (0,), shortcut="A").streams) == 1 and net.widest == 16 * 32 * 32
    products = 40_813_184  # multiplications of one image in He et al.'s network, projections included
    assert net.work(1) == pytest.approx(2 * products / 22, rel=2e-3)


def test_draw_depends_on_the_seed_alone():
    net = ResNet((1, 8, 8), 10, (3, 8, 3), depth=8)
    assert torch.equal(net.theta[0], net.theta[2]) and not torch.equal(net.theta[0], net.theta[1])
    alone = ResNet((1, 8, 8), 10, (8,), depth=8, dtype=torch.float64, channels_last=False)
    assert torch.equal(alone.theta[0].float(), net.theta[1])
    big = ResNet((3, 8, 8), 10, (0,))
    assert float(big.named()["W_16"].std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)  # fan out
    assert float(big.named()["W_14"].std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert float(big.head[0].abs().max()) <= 1 / 8 and float(big.head[0].std()) == pytest.approx(1 / 8 / 3**0.5, rel=0.1)


def test_lanes_and_formats_do_not_matter():
    lanes = ResNet((1, 8, 8), 10, (0, 1), depth=8, width=4)
    x, Y = some(lanes, 6, (1, 8, 8))
    for lane in (0, 1):
        alone = ResNet((1, 8, 8), 10, (9,), depth=8, width=4)
        alone.theta[0] = lanes.theta[lane]
        assert torch.equal(alone.gradient(x[lane], Y[lane], "mse")[0], lanes.gradient(x, Y, "mse")[lane])
    straight = ResNet((1, 8, 8), 10, (0, 1), depth=8, width=4, dtype=torch.float64, channels_last=False)
    last = ResNet((1, 8, 8), 10, (0, 1), depth=8, width=4, dtype=torch.float64)
    torch.testing.assert_close(straight.gradient(x.double(), Y.double(), "mse"), last.gradient(x.double(), Y.double(), "mse"),
                               rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize(("normalization", "skip"), SWITCHES)
def test_degrees_cancelling_and_rescale(normalization, skip, shortcut):
    net = ResNet((1, 8, 8), 10, (0, 1), depth=14, width=4, normalization=normalization, skip=skip, shortcut=shortcut,
                 dtype=torch.float64)
    x, _ = some(net, 12, (1, 8, 8))
    start, before = net.theta.clone(), net.forward(x, "batch")[1]

    def after(factors):
        net.theta.copy_(start)
        for name, factor in factors.items():
            net.named()[name].mul_(factor)
        return net.forward(x, "batch")[1]

    assert net.degrees and 1 in net.degrees.values()
    for group, degree in net.degrees.items():
        torch.testing.assert_close(after(dict.fromkeys(group, 1.5)), before * 1.5**degree, rtol=1e-3, atol=1e-4)
    for first, second in net.cancelling:
        torch.testing.assert_close(after({first: 1.5, second: 1 / 1.5}), before, rtol=1e-9, atol=1e-12)
    net.theta.copy_(start)
    net.rescale(torch.tensor([0.3, 2.0]))
    expected = before * torch.tensor([0.3, 2.0], dtype=torch.float64).view(2, 1, 1)
    torch.testing.assert_close(net.forward(x, "batch")[1], expected, rtol=2e-3, atol=1e-4)


def test_streams_are_what_is_summed():
    """The BatchNorms of the last stream, with a ReLU after every sum, give what enters the last ReLU."""
    net = ResNet((1, 8, 8), 10, (0, 1), depth=14, width=4, dtype=torch.float64)
    x, _ = some(net, 5, (1, 8, 8))
    trace = net.trace(x)
    stream = None
    for label in net.streams[-1]:
        y = trace[f"y_{label}"]
        stream = y if stream is None else (stream if label == net.streams[-1][1] else stream.relu()) + y
    torch.testing.assert_close(stream, trace["s"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(trace["s"].relu().mean((-2, -1)), net.forward(x)[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("normalization", "skip"), SWITCHES)
def test_all_four_train(normalization, skip):
    """ResNet-20 on four classes of digits: cross-entropy falls from about log 4 in 60 steps (Adam for the plainest)."""
    from realnets import load

    data = load("digits", subset=200)
    pick = data.y_train < 4
    x, y = torch.as_tensor(data.x_train[pick]), torch.as_tensor(data.y_train[pick])
    net = ResNet((1, 8, 8), 4, (0,), normalization=normalization, skip=skip)
    Y, net.theta.grad = F.one_hot(y, 4).float(), net.grad
    step = torch.optim.SGD([net.theta], lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)
    if normalization == "none" and not skip:
        step = torch.optim.Adam([net.theta], lr=1e-3, weight_decay=1e-4)
    start = F.cross_entropy(net.forward(x, "batch")[0][0], y)
    for i in range(60):
        net.gradient(x[i % 2 :: 2], Y[i % 2 :: 2], "cross_entropy")
        step.step()
    end = F.cross_entropy(net.forward(x, "batch")[0][0], y)
    assert 1 < float(start) < 3 and float(end) < 0.5


def test_balance_vanishes_where_it_should():
    net = ResNet((1, 8, 8), 10, (0, 1), depth=8, width=4)
    gaps = net.balance()
    head = net.head[0].square().flatten(1).sum(1)
    scales = sum(net.named()[f"gamma_{label}"].square().sum(1) for label in net.streams[-1])
    norm = torch.stack([net.named()[name].square().flatten(1).sum(1) for name in net.weight_layers], 1).mean(1)
    torch.testing.assert_close(gaps[:, 0], ((scales - head) / norm).double(), rtol=1e-5, atol=0)
    assert gaps.shape == (2, 1) and gaps.dtype == torch.float64
    assert ResNet((1, 8, 8), 10, (0,), depth=8, normalization="none").balance().shape == (1, 3 + 3)
    assert ResNet((1, 8, 8), 10, (0,), depth=8, normalization="none", skip=False).balance().shape == (1, 7)


@pytest.mark.parametrize(("argument", "change"), [
    ("depth", {"depth": 19}), ("normalization", {"normalization": "layer"}), ("shortcut", {"shortcut": "C"}),
    ("channels", {"shape": (3, 8, 8), "channels": 1}), ("seeds", {"seeds": ()}), ("shape", {"shape": (0, 8, 8)}),
    ("width", {"width": 5, "normalization": "none", "skip": False}),
])  # fmt: skip
def test_what_is_refused(argument, change):
    with pytest.raises(BadInput) as caught:
        ResNet(**{"shape": (1, 8, 8), "classes": 10, "seeds": (0,), **change})
    assert caught.value.argument == argument


def test_calls_that_are_refused():
    net = ResNet((1, 8, 8), 10, (0,), depth=8, width=4)
    x, Y = some(net, 2, (1, 8, 8))
    with pytest.raises(BadInput, match="statistics = 'frozen'"):
        net.forward(x, "frozen")
    with pytest.raises(BadInput, match="loss = 'hinge'"):
        net.gradient(x, Y, "hinge")
    with pytest.raises(BadInput, match="batch = 1"):
        net.gradient(x[:, :1], Y[:, :1], "mse")
