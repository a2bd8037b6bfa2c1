"""Products of linear layers, taken from the head down so that every factor is only K rows tall."""

from __future__ import annotations

from torch import Tensor


def products_above(W: list[Tensor]) -> list[Tensor | None]:
    """[W_M .. W_1, W_M .. W_2, ..., W_M, None]: entry l is what stands above layer l (None for the identity)."""
    above: list[Tensor | None] = [None]
    for w in reversed(W):
        above.append(w if above[-1] is None else above[-1] @ w)
    return above[::-1]


def weight_gradients(W: list[Tensor], above: list[Tensor | None], gradient: Tensor) -> list[Tensor]:
    """dL/dW_1 .. dL/dW_M from dL/dA = `gradient` (lanes, K, d) for A = W_M .. W_1."""
    out = []
    for i, w in enumerate(W, 1):
        top = above[i]
        out.append(gradient if top is None else top.mT @ gradient)
        gradient = gradient @ w.mT
    return out


def chain(W: list[Tensor]) -> Tensor:
    """W_l .. W_1 of a non-empty list."""
    product = W[0]
    for w in W[1:]:
        product = w @ product
    return product
