"""Products of linear layers, taken from the head down so that every factor is only K rows tall."""

from __future__ import annotations

import torch
from torch import Tensor


def products_above(W: list[Tensor]) -> list[Tensor]:
    """[W_M .. W_1, W_M .. W_2, ..., W_M]: entry l is what stands above layer l, the whole product first."""
    above = [W[-1]]
    for w in reversed(W[:-1]):
        above.append(torch.bmm(above[-1], w))
    return above[::-1]


def weight_gradients(W: list[Tensor], above: list[Tensor], gradient: Tensor) -> list[Tensor]:
    """dL/dW_1 .. dL/dW_M from dL/dA = `gradient` (lanes, K, d) for A = W_M .. W_1, `above` = `products_above`(W)."""
    out = []
    for w, top in zip(W[:-1], above[1:], strict=True):
        out.append(torch.bmm(top.mT, gradient))
        gradient = torch.bmm(gradient, w.mT)
    return [*out, gradient]


def chain(W: list[Tensor]) -> Tensor:
    """W_l .. W_1 of a non-empty list."""
    product = W[0]
    for w in W[1:]:
        product = torch.bmm(w, product)
    return product
