"""What a network shows at one moment of its training: all that a forecast of the rest may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from realnets.measure import layers, measure
from realnets.mlp import LaneMLP
from realnets.network import Network
from realnets.probe import tangent_kernel
from realnets.protocol import Lane, TwoPhase

Array = np.ndarray
ALL = 400  # at most so many samples are kept one by one
_BATCHES = 20  # mini-batches whose gradients tell their noise


@dataclass(frozen=True, eq=False, kw_only=True)
class Checkpoint:
    """What one lane of a network shows at one moment.

    Attributes:
        epoch: done; `decay`, `lr` of the lane.
        fn, nc1: mean feature norm; Tr Sigma_W / Tr Sigma_B.
        means: (p, K) class means of the features; `scatter` (p, p) within-class scatter E E^T, summed over samples; `counts`
            (K,) samples of each class; `features` (p, N) with classes contiguous, where there are at most 400.
        weight, bias: head (K, p) and (K,) or None.
        theta, degree: mobility and Euler degree along the pull of the squared error.
        contrast: slope of the centred outputs on the centred targets; 1 once the targets are met.
        layer_norms: (M,) |W_l|_F; `balance` largest residual of the identities at rest, NaN where none are known.
        noise: standard deviation of a mini-batch gradient, root mean square over the hidden weights between the first layer
            and the head (or all hidden ones); NaN for networks other than perceptrons.
    """

    epoch: int
    decay: float
    lr: float
    fn: float
    nc1: float
    means: Array
    scatter: Array
    counts: Array
    features: Array | None
    weight: Array
    bias: Array | None
    theta: float
    degree: float
    contrast: float
    layer_norms: Array
    balance: float
    noise: float


@torch.no_grad()
def look(net: Network, x: Tensor, y: Tensor, protocol: TwoPhase, lanes: Sequence[Lane], epoch: int) -> list[Checkpoint]:
    """What every lane shows."""
    found, norms = measure(net, x, y), layers(net)
    kernel = tangent_kernel(net, x, y, "mse")
    K = net.classes
    order = torch.argsort(y, stable=True)
    counts = torch.bincount(y, minlength=K)
    H, F = _outputs(net, x[order])
    onehot = torch.nn.functional.one_hot(y[order], K).double()
    means = (onehot.T @ H) / counts.clamp(min=1)[:, None]
    E = H - onehot @ means
    scatter = E.mT @ E
    targets = onehot - 1 / K
    contrast = ((F - F.mean(-1, keepdim=True)) * targets).sum((1, 2)) / targets.square().sum()
    noise = _noise(net, x, y, protocol.batch_size, contrast)
    W, b = net.head
    out = []
    for i, lane in enumerate(lanes):
        out.append(Checkpoint(
            epoch=epoch, decay=lane.decay, lr=lane.lr, fn=float(found["fn"][i]), nc1=float(found["nc1_trace_ratio"][i]),
            means=means[i].T.cpu().numpy(), scatter=scatter[i].cpu().numpy(), counts=counts.cpu().numpy(),
            features=H[i].T.cpu().numpy() if len(y) <= ALL else None, weight=W[i].double().cpu().numpy(),
            bias=None if b is None else b[i].double().cpu().numpy(), theta=float(kernel.rayleigh[i]),
            degree=float(kernel.degree[i]), contrast=float(contrast[i]), layer_norms=norms["weight_norm"][i].cpu().numpy(),
            balance=float(norms["balance"][i]) if "balance" in norms else float("nan"), noise=float(noise[i])))  # fmt: skip
    return out


def _outputs(net: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features (L, N, p) and outputs (L, N, K) in float64."""
    parts = [net.forward(xb) for xb in x.split(2048)]
    return torch.cat([h for _, h in parts], 1).double(), torch.cat([f for f, _ in parts], 1).double()


@torch.no_grad()
def _noise(net: Network, x: Tensor, y: Tensor, batch: int, contrast: Tensor) -> Tensor:
    """(L,) see `Checkpoint.noise`; batches are drawn from a seed of their own. The network stays as it is, but for `grad`."""
    quiet = torch.full((net.lanes,), torch.nan if batch < len(y) else 0.0, dtype=torch.float64)
    if not isinstance(net, LaneMLP) or batch >= len(y):
        return quiet
    kept = net.theta.clone()
    M = net.layers
    scale = contrast.clamp(min=1e-12).pow(-1 / M).to(net.theta)
    for W in net.weights:
        W.mul_(scale[:, None, None])
    for i, b in enumerate(net.biases, 1):
        b.mul_(scale.pow(i)[:, None])
    try:
        total, squares = (torch.zeros_like(net.theta, dtype=torch.float64) for _ in range(2))
        generator = torch.Generator().manual_seed(0)
        targets = torch.nn.functional.one_hot(y, net.classes).to(net.theta)
        for _ in range(_BATCHES):
            rows = torch.randint(len(y), (batch,), generator=generator).to(x.device)
            net.gradient(x[rows].expand(net.lanes, *x[rows].shape).contiguous(),
                         targets[rows].expand(net.lanes, batch, net.classes).contiguous(), "mse")  # fmt: skip
            total += net.grad
            squares += net.grad.double().square()
    finally:
        net.theta.copy_(kept)
    variance = (squares - total.square() / _BATCHES) / (_BATCHES - 1)
    between = net.weights[1:-1] or net.weights[:-1] or net.weights
    parts = [variance.as_strided(W.shape, W.stride(), W.storage_offset() - net.theta.storage_offset()) for W in between]
    return torch.stack([v.flatten(1).mean(1) for v in parts], 1).mean(1).sqrt().cpu()
