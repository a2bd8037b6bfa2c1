"""How lanes are stepped: PyTorch's own optimisers, the schedules, the order of the mini-batches, threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from ncflow.errors import require

OPTIMISERS = ("adam", "sgd")
SCHEDULES = ("cosine", "constant")


def optimiser(
    theta: Tensor,
    grad: Tensor,
    decays: Sequence[float],
    lr: float | Sequence[float],
    *,
    kind: str = "adam",
    momentum: float = 0.9,
    nesterov: bool = True,
) -> torch.optim.Optimizer:
    """`torch.optim.Adam` (default betas and eps) or `SGD` on the rows of `theta`, with coupled decay.

    Neighbouring lanes of equal decay and rate form one parameter group, a view of rows, updated by one fused
    kernel: no lane sees another, and the arithmetic is that of the library on each lane alone.

    Args:
        theta, grad: (L, P), contiguous, updated in place; `grad` is read at every step.
        decays: lambda of each lane, applied to all its parameters.
        lr: learning rate, one or one per lane.
        kind: "adam" or "sgd"; `momentum` and `nesterov` are for "sgd".
    """
    require(kind in OPTIMISERS, "optimiser", kind, f"one of {', '.join(OPTIMISERS)}")
    lanes = theta.shape[0]
    rates = [float(lr)] * lanes if isinstance(lr, int | float) else list(lr)
    require(len(decays) == lanes, "decays", decays, f"{lanes} numbers, one per lane")
    require(len(rates) == lanes, "lr", lr, f"one number or {lanes}, one per lane")
    groups = []
    for (decay, rate), run in groupby(range(lanes), key=lambda i: (float(decays[i]), rates[i])):
        rows = list(run)
        part = theta[rows[0] : rows[-1] + 1]
        part.grad = grad[rows[0] : rows[-1] + 1]
        groups.append({"params": [part], "lr": rate, "weight_decay": decay})
    if kind == "adam":
        return torch.optim.Adam(groups, fused=True)
    return torch.optim.SGD(groups, momentum=momentum, nesterov=nesterov and momentum > 0, fused=True)


def learning_rate(schedule: str, lr: float, epoch: int, epochs: int) -> float:
    """Rate during `epoch` (from 0) of a phase of `epochs`: lr, or lr/2 (1 + cos(pi epoch/epochs)).

    The cosine is that of `CosineAnnealingLR(T_max=epochs)` stepped once per epoch (Loshchilov & Hutter 2017,
    no restart).
    """
    require(schedule in SCHEDULES, "schedule", schedule, f"one of {', '.join(SCHEDULES)}")
    return lr if schedule == "constant" else lr / 2 * (1 + math.cos(math.pi * epoch / epochs))


def order(seed: int, phase: int, epoch: int, samples: int) -> np.ndarray:
    """(samples,) permutation in which a lane of `seed` visits the data in `epoch` (from 0) of `phase`.

    A function of its arguments alone, so the same whatever else is in the batch of lanes.
    """
    return np.random.default_rng([seed, phase, epoch]).permutation(samples)
