"""Small perceptrons on one residual stream, with and without BatchNorm and skip: ResNet's switches at seconds a run.

    h = relu(BN(W_1 x)),    h <- relu(h + y),  y = BN(W .. relu(BN(W h)))       L - 1 blocks of `branch` layers each

so that L BatchNorms write into the stream and a ReLU follows every sum: the network whose unconstrained model is
`UFM(normalization="batch", streams=L)`, where the inner ReLUs of the stream do not matter at the optimum
(`theory.batchnorm`). Without skip it is a plain perceptron of 1 + (L - 1) branch hidden layers. Hidden layers have no
bias: BatchNorm shifts, and without it the features are positively homogeneous; the head has one.

**Initialisation** by switch: weights Kaiming normal, fan in (He et al. 2015); for "none" with skip the last layer of a block
is zero and the others are times (L-1)^{-1/(2 branch - 2)} (Fixup's weights: Zhang, Dauphin, Ma 2019); for "none" without skip
`looks_linear`. gamma 1, beta 0, the head PyTorch's `Linear`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ncflow.errors import require
from realnets.autograd import NORMALIZATIONS, AutogradNet, batch_norm, linear_head, looks_linear

if TYPE_CHECKING:
    from realnets.protocol import TwoPhase


class ResidualMLP(AutogradNet):
    """L_lanes networks as one batch of matrix products.

    Args:
        sizes: (d, p, K): inputs, width of the stream and of every layer, classes.
        seeds: one per lane.
        blocks: L, how many times the stream is written to, the first layer included.
        branch: layers of a block.
        normalization: "batch" or "none".
        skip: whether blocks add to the stream or replace it.
        dtype, device: of parameters and arithmetic.
    """

    def __init__(self, sizes: tuple[int, int, int], seeds: Sequence[int], *, blocks: int = 3, branch: int = 2,
                 normalization: str = "batch", skip: bool = True, dtype: torch.dtype = torch.float32,
                 device: torch.device | str = "cpu"):
        require(len(sizes) == 3 and min(sizes) >= 1, "sizes", sizes, "(inputs, width, classes), all positive")
        require(blocks >= 1, "blocks", blocks, "1 or more")
        require(branch >= 1, "branch", branch, "1 or more")
        require(normalization in NORMALIZATIONS, "normalization", normalization, f"one of {', '.join(NORMALIZATIONS)}")
        inputs, width, classes = sizes
        paired = normalization == "batch" or skip
        require(paired or width % 2 == 0, "sizes", sizes, "an even width without skip and normalization")
        self.inputs, self.blocks, self.branch, self.skip = inputs, blocks, branch, skip
        self.batch, self.depth = normalization == "batch", 1 + (blocks - 1) * branch
        shapes: dict[str, tuple[int, ...]] = {}
        for label in range(1, self.depth + 1):
            shapes[f"W_{label}"] = (width, inputs if label == 1 else width)
            if self.batch:
                shapes[f"gamma_{label}"] = shapes[f"beta_{label}"] = (width,)
        shapes |= {f"W_{self.depth + 1}": (classes, width), f"b_{self.depth + 1}": (classes,)}
        super().__init__(shapes, seeds, together=True, dtype=dtype, device=device)
        last = [str(1 + i * branch) for i in range(blocks)]
        self.streams = [] if not self.batch else [last] if skip else [[label] for label in self.normalised]
        self.degrees, self.widest = self._degrees(), width
        inner = [label for label in range(2, self.depth + 1) if (label - 1) % branch]
        self.cancelling = [(f"W_{label}", f"W_{label + 1}") for label in inner] if skip and not self.batch else []

    def _draw(self, name: str, zero: Tensor, generator: torch.Generator) -> Tensor:
        kind, label = name.split("_")
        if int(label) > self.depth:
            return linear_head(self.shapes[f"W_{label}"][1], zero, generator)
        if kind != "W":
            return zero + (kind == "gamma")
        if not self.batch and not self.skip:
            return looks_linear(zero, label == "1", generator)
        inside = not self.batch and int(label) > 1
        if inside and (int(label) - 1) % self.branch == 0:
            return zero
        drawn = torch.nn.init.kaiming_normal_(zero, nonlinearity="relu", generator=generator)
        return drawn.mul_((self.blocks - 1) ** (-0.5 / (self.branch - 1))) if inside else drawn

    def _run(self, p: Mapping[str, Tensor], x: Tensor, state: Mapping[str, Tensor], statistics: str,
             kept: dict[str, Tensor] | None) -> tuple[Tensor, Tensor]:
        def layer(label: int, a: Tensor) -> Tensor:  # activations are (L, p, B): BatchNorm then sees L p channels
            z = torch.bmm(p[f"W_{label}"], a)
            if self.batch:
                z = batch_norm(z.view(1, -1, z.shape[2]), str(label), p, state, statistics).view_as(z)
                if kept is not None:
                    kept[f"y_{label}"] = z.mT.clone()
            return z

        def written(stream: Tensor, name: str) -> Tensor:
            if kept is not None:
                kept["s"] = stream.mT.clone()
            h = stream.relu()
            if kept is not None:
                kept[name] = h.mT
            return h

        h, label = written(layer(1, x.mT), "h_1"), 1
        for block in range(2, self.blocks + 1):
            y = h
            for i in range(self.branch):
                label += 1
                y = layer(label, y.relu() if i else y)
            h = written(h + y if self.skip else y, f"h_{block}")
        W, b = p[f"W_{self.depth + 1}"], p[f"b_{self.depth + 1}"]
        return torch.baddbmm(b.unsqueeze(2), W, h).mT, h.mT

    def _degrees(self) -> dict[tuple[str, ...], int]:
        hidden = self.weight_layers[:-1]
        if self.batch:
            last = self.streams[-1]
            still = {(f"gamma_{label}", f"beta_{label}"): 0 for label in self.normalised if label not in last}
            stream = tuple(f"{kind}_{label}" for label in last for kind in ("gamma", "beta"))
            return {(name,): 0 for name in hidden} | still | {stream: 1}
        return {("W_1",): 1} if self.skip else {(name,): 1 for name in hidden}


def build(protocol: TwoPhase, shape: tuple[int, int, int], classes: int, seeds: Sequence[int], dtype: torch.dtype,
          device: torch.device) -> ResidualMLP:
    """The network of `protocol` on images of `shape`, one lane per seed; `depth` is L, how often the stream is written to."""
    return ResidualMLP((prod(shape), protocol.width, classes), seeds, blocks=protocol.depth, normalization=protocol.normalization,
                       skip=protocol.skip, dtype=dtype, device=device)
