"""Many multilayer perceptrons of one shape, trained side by side.

L lanes share one flat parameter tensor (L, P) and one flat gradient tensor; layers are views into them, so an
optimiser sees one tensor and a lane is one row. The backward pass is written out (a dozen batched matrix
products straight into the gradient's views), because at these sizes autograd's bookkeeping would cost more
than the arithmetic.

Letters as in the engine: layer l maps A_{l-1} to phi(A_{l-1} W_l^T + b_l), A_0 = inputs; the last of the M =
depth + 1 layers is the head and has no activation; the features are A_{M-1}, what enters the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ncflow.errors import require
from realnets.activations import ACTIVATIONS, scaled
from realnets.products import affine, product

if TYPE_CHECKING:
    from realnets.protocol import TwoPhase

_ROW = 64  # rows are multiples of this, so that vector kernels treat a lane alike wherever it stands


#: d(mean loss)/d(logits) for logits (L, B, K) and one-hot targets Y of the same shape; overwrites the logits.
LOSSES = MappingProxyType(
    {
        "cross_entropy": lambda z, Y: torch.softmax(z, -1).sub_(Y).div_(z.shape[1]),
        "mse": lambda z, Y: z.sub_(Y).mul_(2 / (z.shape[1] * z.shape[2])),
    }
)


class LaneMLP:
    """L perceptrons Flatten -> (Linear -> phi) x depth -> Linear of one shape.

    Args:
        sizes: (d, p_1, ..., p_depth, K).
        seeds: one per lane; weights are Kaiming normal (fan in, gain sqrt(2), head included; He et al. 2015),
            biases zero. A lane's draw depends on its seed and the shape only: not on the other lanes, the
            dtype or the device.
        activation: a name of `realnets.activations.ACTIVATIONS`, as a phi(z/a) with a = `activation_scale`.
        biases: with b_l, or without.
        dtype, device: of parameters and arithmetic.

    Attributes:
        theta, grad: (L, P) parameters and gradient, each row [W_1 .. W_M, b_1 .. b_M] and zeros up to P.
        parameters: of one lane.
        weights, biases: views W_l (L, p_l, p_{l-1}) and b_l (L, p_l) into `theta`; `biases` is empty without
            biases.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        seeds: Sequence[int],
        *,
        activation: str = "relu",
        activation_scale: float = 1.0,
        biases: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        require(len(sizes) >= 2 and min(sizes) >= 1, "sizes", sizes, "(inputs, ..., classes), all positive")
        require(activation in ACTIVATIONS, "activation", activation, f"one of {', '.join(ACTIVATIONS)}")
        require(len(seeds) >= 1, "seeds", seeds, "one per lane, at least one")
        require(activation_scale > 0, "activation_scale", activation_scale, "greater than 0")
        self.phi = scaled(activation, activation_scale)
        self.shapes = tuple(zip(sizes[1:], sizes[:-1], strict=True))
        self.parameters = sum(o * i + o * biases for o, i in self.shapes)
        row = -(-self.parameters // _ROW) * _ROW
        self.theta = torch.zeros(len(seeds), row, dtype=dtype, device=device)
        self.grad = torch.zeros_like(self.theta)
        self.weights, self.biases = self._views(self.theta, biases)
        self._draw(seeds)
        self._rows = [b.unsqueeze(1) for b in self.biases] or [None] * len(self.shapes)
        self._weight_grads, bias_grads = self._views(self.grad, biases)
        self._bias_grads = bias_grads or [None] * len(self.shapes)

    @property
    def lanes(self) -> int:
        return self.theta.shape[0]

    @property
    def classes(self) -> int:
        return self.shapes[-1][0]

    @property
    def layers(self) -> int:
        """M = depth + 1."""
        return len(self.shapes)

    @property
    def widest(self) -> int:
        return max(outputs for outputs, _ in self.shapes)

    @property
    def weight_layers(self) -> list[str]:
        return [f"W_{i}" for i in range(1, self.layers + 1)]

    @property
    def head(self) -> tuple[Tensor, Tensor | None]:
        """W_M (L, K, p) and b_M (L, K), or None without biases."""
        return self.weights[-1], self.biases[-1] if self.biases else None

    def named(self) -> dict[str, Tensor]:
        """Views by name: "W_1" .. "W_M" (L, outputs, inputs), "b_1" .. "b_M" (L, outputs)."""
        return {
            f"{letter}_{i}": view
            for letter, views in (("W", self.weights), ("b", self.biases))
            for i, view in enumerate(views, 1)
        }

    def buffers(self) -> dict[str, Tensor]:
        """Nothing: all state is in `theta`."""
        return {}

    def balance(self) -> Tensor:
        """(L, M - 1) float64: (t |W_{l+1}|^2 - |W_l|^2 - |b_l|^2) over the mean |W_l|^2.

        Zero at any stationary point of a network with activations of degree t whose parameters are all decayed alike; with
        one that is not homogeneous (t = 1 is taken) nothing is said of zero.
        """
        squares = torch.stack([W.double().square().sum((-2, -1)) for W in self.weights], -1)
        below = squares[:, :-1]
        if self.biases:
            below = below + torch.stack([b.double().square().sum(-1) for b in self.biases[:-1]], -1)
        return ((self.phi.degree or 1) * squares[:, 1:] - below) / squares.mean(-1, keepdim=True)

    def rescale(self, alpha: Tensor, layer: int = -2) -> None:
        """Multiply weight and bias of a layer, the last hidden one by default, of each lane by alpha (L,)."""
        require(self.layers >= -layer, "alphas", alpha.tolist(), "a network with a hidden layer")
        self.weights[layer].mul_(alpha.view(-1, 1, 1).to(self.theta))
        if self.biases:
            self.biases[layer].mul_(alpha.view(-1, 1).to(self.theta))

    def work(self, batch: int) -> float:
        """Floating-point operations of one batched product, mean over the layers, at this batch size."""
        return 2 * self.lanes * batch * sum(o * i for o, i in self.shapes) / self.layers

    def forward(self, x: Tensor, statistics: str = "running") -> tuple[Tensor, Tensor]:
        """Logits (L, B, K) and features (L, B, p_depth) of inputs (L, B, d), or (B, d) for all lanes.

        `statistics` is for networks that have some.
        """
        a = x if x.ndim == 3 else x.expand(self.lanes, *x.shape)
        for W, b in zip(self.weights[:-1], self._rows, strict=False):
            a = self.phi.forward(affine(a, W, b))
        return affine(a, self.weights[-1], self._rows[-1]), a

    def hidden(self, x: Tensor) -> list[Tensor]:
        """A_1 .. A_{M-1}, each (L, B, p_l), of inputs as in `forward`."""
        a = x if x.ndim == 3 else x.expand(self.lanes, *x.shape)
        found = []
        for W, b in zip(self.weights[:-1], self._rows, strict=False):
            a = self.phi.forward(affine(a, W, b))
            found.append(a)
        return found

    def gradient(self, x: Tensor, targets: Tensor, loss: str) -> Tensor:
        """Set `grad` to the gradient of each lane's mean loss over its batch, without decay, and return it.

        Args:
            x: (L, B, d).
            targets: (L, B, K), one-hot.
            loss: "cross_entropy", mean over B; or "mse", mean over B K.
        """
        phi, a = self.phi, x
        inputs, kept = [a], []
        for W, b in zip(self.weights[:-1], self._rows, strict=False):
            z = affine(a, W, b)
            a = phi.forward(z)
            inputs.append(a)
            kept.append(a if phi.in_place else z)
        delta = LOSSES[loss](affine(a, self.weights[-1], self._rows[-1]), targets)
        for i in range(self.layers - 1, -1, -1):
            product(delta.mT, inputs[i], self._weight_grads[i])
            if (b := self._bias_grads[i]) is not None:
                torch.sum(delta, 1, out=b)
            if i:
                delta = phi.backward(product(delta, self.weights[i]), kept[i - 1])
        return self.grad

    def _views(self, flat: Tensor, biases: bool) -> tuple[list[Tensor], list[Tensor]]:
        weights = [o * i for o, i in self.shapes]
        parts = flat[:, : self.parameters].split(weights + [o for o, _ in self.shapes] * biases, dim=1)
        W = [part.view(-1, o, i) for part, (o, i) in zip(parts, self.shapes, strict=False)]
        return W, list(parts[len(weights) :])

    def _draw(self, seeds: Sequence[int]) -> None:
        for lane, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            for W in self.weights:
                drawn = torch.empty(W.shape[1:])
                torch.nn.init.kaiming_normal_(drawn, nonlinearity="relu", generator=generator)
                W[lane] = drawn


def build(
    protocol: TwoPhase, shape: tuple[int, int, int], classes: int, seeds: Sequence[int], dtype: torch.dtype,
    device: torch.device,
) -> LaneMLP:  # fmt: skip
    """The perceptron of `protocol` on images of `shape`, one lane per seed."""
    sizes = (prod(shape), *(protocol.width,) * protocol.depth, classes)
    return LaneMLP(sizes, seeds, activation=protocol.activation, activation_scale=protocol.activation_scale,
                   biases=protocol.biases, dtype=dtype, device=device)  # fmt: skip
