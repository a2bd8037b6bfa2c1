"""What a network must offer to be trained and measured: the interface that architectures are written against."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

Statistics = Literal["running", "batch"]


@runtime_checkable
class Network(Protocol):
    """L networks of one architecture, side by side; a lane is one row of every tensor.

    L lanes, B samples, K classes, p features (what enters the head), P >= `parameters` numbers per row.

    A network may also offer, and is asked for them by name:

    - `work(batch) -> float`: floating-point operations of one typical product, which decides how many threads are used;
    - `widest`: the largest number of activations that one sample has in one layer, which decides the size of blocks;
    - `balance() -> Tensor` (L, n) float64: residuals of the identities between parameter norms that hold at rest under
      equal decay, over the mean squared layer norm;
    - `rescale(alpha)`: multiply the last hidden layer of each lane by alpha (L,), the paper's intervention; `MLP` takes another
      layer, too.

    Attributes:
        lanes, classes: L and K.
        parameters: of one lane.
        theta, grad: (L, P) parameters and gradient; what stands beyond a lane's parameters is zero.
        weight_layers: names (of `named`) of the weights, from the input to the head.
    """

    theta: Tensor
    grad: Tensor

    @property
    def lanes(self) -> int: ...

    @property
    def classes(self) -> int: ...

    @property
    def parameters(self) -> int: ...

    @property
    def weight_layers(self) -> list[str]: ...

    @property
    def head(self) -> tuple[Tensor, Tensor | None]:
        """W (L, K, p) and b (L, K), or None without biases: views into `theta`."""
        ...

    def named(self) -> dict[str, Tensor]:
        """Views (L, ...) of all parameters by name."""
        ...

    def buffers(self) -> dict[str, Tensor]:
        """Mutable views (L, ...) of the state outside `theta`: running statistics; {} where there is none."""
        ...

    def forward(self, x: Tensor, statistics: Statistics = "running") -> tuple[Tensor, Tensor]:
        """Logits (L, B, K) and features (L, B, p) of x (B, ...) or (L, B, ...).

        `statistics` says what a batch normalisation subtracts: its running averages, or the mean of this batch. Nothing
        is updated.
        """
        ...

    def gradient(self, x: Tensor, targets: Tensor, loss: str) -> Tensor:
        """Set `grad` to the gradient of each lane's mean loss over its batch, without decay, and return it.

        x is (L, B, ...), targets (L, B, K) one-hot, loss "cross_entropy" or "mse" (mean over B K). Running statistics are
        updated.
        """
        ...

    def hidden(self, x: Tensor) -> list[Tensor]:
        """Features (L, B, p_l) after each hidden layer, the penultimate last, with running statistics."""
        ...
