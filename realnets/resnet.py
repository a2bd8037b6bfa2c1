"""ResNet-20 for small images (He et al. 2016), as the paper's authors built it, and with its parts taken out.

    stem:   h = relu(BN(W_1 * x))
    block:  h <- relu(BN(W_{l+1} * relu(BN(W_l * h))) + shortcut(h))      3 stages of n blocks, depth 6n + 2
    head:   W_{6n+2} mean_positions(h) + b_{6n+2}

* is a 3x3 convolution without bias; stages have w, 2w and 4w channels (w = 16) and each after the first begins
with stride 2. There the shortcut is a 1x1 convolution with BatchNorm of its own, labelled p2 and p3 (option B,
the authors'), or every other pixel with zeros for the new channels (option A); elsewhere it is the identity.

**Initialisation** by switch:

- normalization "batch": Kaiming normal, fan out (He et al. 2015), gamma 1, beta 0, as the authors. Also without
  skip: BatchNorm alone trains a plain network of 20 layers.
- "none", with skip: Fixup's weights (Zhang, Dauphin, Ma 2019, rules 1 and 2) on Kaiming normal, fan in: of the two
  convolutions of a block the second is zero and the first is times (3n)^{-1/2}, so the network begins as its
  shortcuts and a step moves it by an amount that does not grow with depth. Fixup's scalar biases and multipliers are left
  out, and so is its zero head. Fan in, since fan out starts one channel of input at 1/16 of the signal.
- "none", without skip: `looks_linear`. The authors' SGD rate of 0.1 is too large for it; 0.01 trains, and Adam
  at 1e-3.

The head is PyTorch's `Linear` in all four. Nothing but BatchNorm and the head shifts: without normalization the
features are positively homogeneous in x, and without skip in every weight, see `degrees`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ncflow.errors import require
from realnets.autograd import NORMALIZATIONS, AutogradNet, batch_norm, linear_head, looks_linear

if TYPE_CHECKING:
    from realnets.protocol import TwoPhase

SHORTCUTS = ("A", "B")


class ResNet(AutogradNet):
    """L residual networks side by side; lanes run one after another, since one fills the cores.

    Args:
        shape: (channels, height, width) of a sample; samples may come flat.
        classes: K.
        seeds: one per lane.
        depth: 6n + 2, 20 in the paper.
        width: w, channels of the first stage.
        normalization: "batch" or "none".
        skip: with shortcuts or without.
        shortcut: "A" or "B", where the size changes.
        channels: of the first convolution's input; a grey image is repeated, 3 times by the authors. None: as it is.
        channels_last: memory format of the activations; changes rounding only.
        dtype, device: of parameters and arithmetic.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, seeds: Sequence[int], *, depth: int = 20, width: int = 16,
                 normalization: str = "batch", skip: bool = True, shortcut: str = "B", channels: int | None = None,
                 channels_last: bool = True, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"):
        require(depth >= 8 and depth % 6 == 2, "depth", depth, "6n + 2, n at least 1: 8, 14, 20, ...")
        require(normalization in NORMALIZATIONS, "normalization", normalization, f"one of {', '.join(NORMALIZATIONS)}")
        require(shortcut in SHORTCUTS, "shortcut", shortcut, f"one of {', '.join(SHORTCUTS)}")
        require(len(shape) == 3 and min(shape) >= 1, "shape", shape, "(channels, height, width), all positive")
        paired = normalization == "batch" or skip
        require(width >= 1 and (paired or width % 2 == 0), "width", width, "1 or more; even without skip and normalization")
        channels = shape[0] if channels is None else channels
        require(channels == shape[0] or shape[0] == 1, "channels", channels, f"{shape[0]}, those of the images")
        self.shape, self.channels, self.depth = shape, channels, depth
        self.batch, self.skip, self.shortcut = normalization == "batch", skip, shortcut
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.blocks = [(2 + 2 * i, width << stage, stage + 1 if stage and not i % (depth // 6) else 0)
                       for i in range(depth // 2 - 1) for stage in [i // (depth // 6)]]  # first layer, channels, new stage
        super().__init__(self._shapes(classes, width), seeds, together=False, dtype=dtype, device=device)
        self.streams = self._streams()
        self.degrees = self._degrees()
        pairs = [(f"W_{first}", f"W_{first + 1}") for first, _, _ in self.blocks]
        self.cancelling = pairs if skip and not self.batch else []
        self.widest = width * self._positions("W_1")

    def _shapes(self, classes: int, width: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}

        def layer(label: int | str, outputs: int, inputs: int, side: int = 3) -> None:
            shapes[f"W_{label}"] = (outputs, inputs, side, side)
            if self.batch:
                shapes[f"gamma_{label}"] = shapes[f"beta_{label}"] = (outputs,)

        layer(1, width, self.channels)
        inputs = width
        for first, outputs, stage in self.blocks:
            layer(first, outputs, inputs)
            layer(first + 1, outputs, outputs)
            if stage and self.skip and self.shortcut == "B":
                layer(f"p{stage}", outputs, inputs, 1)
            inputs = outputs
        return shapes | {f"W_{self.depth}": (classes, inputs), f"b_{self.depth}": (classes,)}

    def _draw(self, name: str, zero: Tensor, generator: torch.Generator) -> Tensor:
        kind, label = name.split("_")
        if label == str(self.depth):
            return linear_head(self.shapes[f"W_{label}"][1], zero, generator)
        if kind != "W":
            return zero + (kind == "gamma")
        if not self.batch and not self.skip:
            return looks_linear(zero, label == "1", generator)
        inside = not self.batch and label.isdigit() and label != "1"
        if inside and int(label) % 2:
            return zero
        mode = "fan_out" if self.batch else "fan_in"
        drawn = torch.nn.init.kaiming_normal_(zero, mode=mode, nonlinearity="relu", generator=generator)
        return drawn.mul_(len(self.blocks) ** -0.5) if inside else drawn

    def _positions(self, name: str) -> int:
        label = name.removeprefix("W_")
        if label == str(self.depth):
            return 1
        stage = int(label[1:]) if label[0] == "p" else 1 + max(0, int(label) - 2) // (self.depth // 3)
        height, width = (-(-side // 2 ** (stage - 1)) for side in self.shape[1:])
        return height * width

    def _run(self, p: Mapping[str, Tensor], x: Tensor, state: Mapping[str, Tensor], statistics: str,
             kept: dict[str, Tensor] | None) -> tuple[Tensor, Tensor]:
        def layer(label: int | str, a: Tensor, stride: int = 1) -> Tensor:
            W = p[f"W_{label}"]
            z = F.conv2d(a, W, None, stride, W.shape[-1] // 2)
            if self.batch:
                z = batch_norm(z, str(label), p, state, statistics)
                if kept is not None:
                    kept[f"y_{label}"] = z.clone()
            return z

        images = x.reshape(len(x), *self.shape).expand(-1, self.channels, -1, -1)
        h = layer(1, images.contiguous(memory_format=self.format)).relu_()
        if kept is not None:
            kept["h_1"] = h.mean((2, 3))
        for i, (first, outputs, stage) in enumerate(self.blocks):
            stride = 2 if stage else 1
            z = layer(first + 1, layer(first, h, stride).relu_())
            if self.skip:
                if stage and self.shortcut == "B":
                    h = layer(f"p{stage}", h, 2)
                elif stage:
                    h = F.pad(h[:, :, ::2, ::2], (0, 0, 0, 0, 0, outputs - h.shape[1]))
                z = z.add_(h)
            if kept is not None:
                kept["s"] = z.clone()
            h = z.relu_()
            if kept is not None:
                kept[f"h_{i + 2}"] = h.mean((2, 3))
        features = h.mean((2, 3))
        return F.linear(features, p[f"W_{self.depth}"], p[f"b_{self.depth}"]), features

    def _streams(self) -> list[list[str]]:
        if not self.batch:
            return []
        if not self.skip:
            return [[label] for label in self.normalised]
        streams = [["1"]]
        for first, _, stage in self.blocks:
            if stage and self.shortcut == "B":
                streams.append([f"p{stage}"])
            streams[-1].append(str(first + 1))
        return streams

    def _degrees(self) -> dict[tuple[str, ...], int]:
        convolutions = self.weight_layers[:-1]
        if self.batch:
            def scales(labels: Sequence[str]) -> tuple[str, ...]:
                return tuple(f"{kind}_{label}" for label in labels for kind in ("gamma", "beta"))

            inside = [label for label in self.normalised if not any(label in stream for stream in self.streams)]
            still = [*self.streams[:-1], *([label] for label in inside)]
            return {(name,): 0 for name in convolutions} | {scales(s): 0 for s in still} | {scales(self.streams[-1]): 1}
        if not self.skip:
            return {(name,): 1 for name in convolutions}
        into = [(f"W_p{stage}", f"W_{first + 1}") for first, _, stage in self.blocks if stage and self.shortcut == "B"]
        return {("W_1",): 1} | {group: 1 for group in into}


def build(protocol: TwoPhase, shape: tuple[int, int, int], classes: int, seeds: Sequence[int], dtype: torch.dtype,
          device: torch.device) -> ResNet:
    """The residual network of `protocol` on images of `shape`, one lane per seed; `depth` counts layers, `width` the channels
    of the first stage."""
    return ResNet(shape, classes, seeds, depth=protocol.depth, width=protocol.width, normalization=protocol.normalization,
                  skip=protocol.skip, shortcut=protocol.shortcut, channels=protocol.channels, dtype=dtype, device=device)
