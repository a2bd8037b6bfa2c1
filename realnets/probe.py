r"""The tangent kernel of a trained network's features, on demand (THEORY 6.1, 6.3; `theory.closure` says what follows).

Theta = J J^T, J the derivative of the features h (p x N) by the decayed parameters theta. With U the residual that pulls on
the outputs (Y - F for squared loss, Y - softmax F for cross-entropy), V = W^T U the pull on the features and Vbar the same
with every sample replaced by its class mean,

    rayleigh = |J^T Vbar|^2 / |Vbar|^2,        degree = <Vbar, J theta> / <Vbar, h> = <J^T Vbar, theta> / <Vbar, h>,

whatever the scale of U. J^T W^T U is the gradient of <U, F> by all parameters but the head's, so it needs nothing of a
network but `gradient`: squared loss with targets F - U (B K/2) has that gradient.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from ncflow.errors import require
from realnets.network import Network

_BLOCK = 2**19  # activations of one layer and lane held at a time
_ABOVE = 2.0**10  # how far the targets are from the outputs: what rounding of the outputs leaves of U


@dataclass(frozen=True, eq=False)
class TangentKernel:
    """(L,) float64 each; NaN for a lane without residual.

    Attributes:
        rayleigh: of the kernel on the class-mean part of the pull: `theta` of `theory.closure.tangent_kernel`.
        degree: Euler degree of the features along that part; d for d ReLU layers without biases.
        rayleigh_full: of the kernel on the whole pull, which at small decay is within-class and says nothing of the
            features.
    """

    rayleigh: Tensor
    degree: Tensor
    rayleigh_full: Tensor


@torch.no_grad()
def tangent_kernel(net: Network, x: Tensor, y: Tensor, loss: str = "mse", *,
                   decayed: Collection[str] | None = None) -> TangentKernel:
    """The kernel's Rayleigh quotients and the degree on (x (N, ...), y (N,)).

    A network with running statistics is taken with those of x, all in one batch, since its features have no derivative
    sample by sample otherwise; its running statistics stay as they are, and so does `grad`.

    Args:
        loss: "mse" or "cross_entropy", whose residual pulls.
        decayed: names of the parameters that are decayed; None for all. Those of the head do not count.

    Raises:
        BadInput: loss or a name unknown.
    """
    require(loss in ("mse", "cross_entropy"), "loss", loss, "mse or cross_entropy")
    named = net.named()
    for name in decayed or ():
        require(name in named, "decayed", name, f"names among {', '.join(named)}")
    heads = {view.data_ptr() for view in net.head if view is not None}
    chosen = [view for name, view in named.items() if view.data_ptr() not in heads and (decayed is None or name in decayed)]
    normalised = bool(net.buffers())
    rows = len(y) if normalised else max(1, _BLOCK // getattr(net, "widest", net.head[0].shape[-1]))
    kept = [(state, state.clone()) for state in (net.grad, *net.buffers().values())]
    try:
        parts = [_residual(net, xb, yb, loss) for xb, yb in zip(x.split(rows), y.split(rows), strict=True)]
        U = torch.cat([part[0] for part in parts], 1)
        onehot = torch.nn.functional.one_hot(y, net.classes).to(U)
        means = onehot.T @ U / onehot.sum(0).clamp(min=1)[:, None]
        found = [_quotient(net, x, V, chosen, rows) for V in (onehot @ means, U)]
    finally:
        for state, before in kept:
            state.copy_(before)
    (rayleigh, radial), (full, _) = found
    h = torch.cat([part[1] for part in parts], 1)
    V = onehot @ means @ net.head[0]
    return TangentKernel(rayleigh, radial / (V * h).sum((1, 2), dtype=torch.float64), full)


def _residual(net: Network, x: Tensor, y: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """U (L, B, K) and features (L, B, p)."""
    logits, features = net.forward(x, "batch")
    outputs = logits.softmax(-1) if loss == "cross_entropy" else logits
    return torch.nn.functional.one_hot(y, net.classes).to(outputs) - outputs, features


def _quotient(net: Network, x: Tensor, U: Tensor, chosen: list[Tensor], rows: int) -> tuple[Tensor, Tensor]:
    """|J^T W^T U|^2/|W^T U|^2 and <J^T W^T U, theta> of U (L, N, K), over the `chosen` parameters."""
    size = U.abs().amax((1, 2), keepdim=True)
    pulled = torch.zeros_like(net.theta, dtype=torch.float64)
    for xb, Ub in zip(x.split(rows), U.split(rows, 1), strict=True):
        logits, _ = net.forward(xb, "batch")
        step = _ABOVE * logits.abs().amax((1, 2), keepdim=True) / size
        net.gradient(xb.expand(net.lanes, *xb.shape), logits - step * Ub, "mse")
        pulled += net.grad / (2 * step[:, :, 0] / Ub[0].numel()).double()
    views = [(_like(view, net.theta, pulled), view) for view in chosen]
    square = sum(back.square().flatten(1).sum(1) for back, _ in views)
    radial = sum((back * view).flatten(1).sum(1) for back, view in views)
    return square / (U @ net.head[0]).double().square().sum((1, 2)), torch.as_tensor(radial)


def _like(view: Tensor, whole: Tensor, other: Tensor) -> Tensor:
    """What `view` is of `whole`, of `other`."""
    return other.as_strided(view.shape, view.stride(), view.storage_offset() - whole.storage_offset())
