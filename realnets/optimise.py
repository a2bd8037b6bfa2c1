"""How lanes are stepped: PyTorch's own optimisers, the schedules, the order of the mini-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from ncflow.errors import require
from realnets.network import Network

OPTIMISERS = ("adam", "sgd", "adamw")
SCHEDULES = ("cosine", "cosine_run", "multistep", "constant")


class Stepper:
    """PyTorch's own optimisers on the rows of a parameter tensor, a parameter group per run of equal lanes.

    Neighbouring lanes of equal decay and rate form one group, a view of rows, updated by one fused kernel: no lane sees
    another, and the arithmetic is that of the library on each lane alone.

    Args:
        theta, grad: (L, P), contiguous, updated in place; `grad` is read (and with a `mask` changed) at every step.
        decays: lambda of each lane.
        lr: learning rate, one or one per lane.
        kind: "adam" (default betas and eps, decay coupled to the gradient), "adamw" (decay apart from it) or "sgd" (coupled)
            with `momentum` and `nesterov`.
        mask: (P,) of 0 and 1, the parameters that decay; None for all. The library decays whole groups, so with a mask
            the decay is added here.
        apart: a group for each lane, so that each can have a rate of its own.

    Attributes:
        recordable: `step` reads nothing from the host, so that a CUDA graph of it stays right when rates change.
    """

    def __init__(
        self,
        theta: Tensor,
        grad: Tensor,
        decays: Sequence[float],
        lr: float | Sequence[float],
        *,
        kind: str = "adam",
        momentum: float = 0.9,
        nesterov: bool = True,
        mask: Tensor | None = None,
        apart: bool = False,
    ):
        require(kind in OPTIMISERS, "optimiser", kind, f"one of {', '.join(OPTIMISERS)}")
        lanes = theta.shape[0]
        rates = [float(lr)] * lanes if isinstance(lr, int | float) else list(lr)
        require(len(decays) == lanes, "decays", decays, f"{lanes} numbers, one per lane")
        require(len(rates) == lanes, "lr", lr, f"one number or {lanes}, one per lane")
        self.theta, self.grad, self.rates, self.coupled = theta, grad, rates, kind != "adamw"
        self.own = None if mask is None else theta.new_tensor(decays).unsqueeze(1) * mask
        self.recordable = mask is None or self.coupled
        self.first: list[int] = []  # lane of each group
        groups = []
        for (decay, rate, _), run in groupby(range(lanes), key=lambda i: (float(decays[i]), rates[i], i * apart)):
            rows = list(run)
            part = theta[rows[0] : rows[-1] + 1]
            part.grad = grad[rows[0] : rows[-1] + 1]
            shown = torch.tensor(rate, device=theta.device) if theta.is_cuda else rate  # a recorded step reads it anew
            groups.append({"params": [part], "lr": shown, "weight_decay": 0.0 if mask is not None else decay})
            self.first.append(rows[0])
        if kind == "sgd":
            self.library: torch.optim.Optimizer = torch.optim.SGD(
                groups, momentum=momentum, nesterov=nesterov and momentum > 0, fused=True
            )
        else:
            make = torch.optim.Adam if kind == "adam" else torch.optim.AdamW
            self.library = make(groups, fused=True, capturable=theta.is_cuda)

    def set_rates(self, lr: Sequence[float]) -> None:
        """Set the rate of each lane; lanes of one group have the same."""
        for group, lane in zip(self.library.param_groups, self.first, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr[lane])
            else:
                group["lr"] = lr[lane]
        self.rates = list(lr)

    @torch.no_grad()
    def step(self) -> None:
        if self.own is not None and self.coupled:
            self.grad.addcmul_(self.own, self.theta)
        elif self.own is not None:
            self.theta.mul_(1 - self.own * self.theta.new_tensor(self.rates).unsqueeze(1))
        self.library.step()

    @torch.no_grad()
    def clear(self) -> None:
        """Set to zero what is too small to matter but not to cost: call it once per epoch.

        What neither data nor rounding moves any more, such as the weights of a unit that is always off, decays into the
        subnormal numbers, and so do its moments. Some processors are slow on those: the last epochs of a small perceptron
        took 12 times as long on an Intel Xeon. Entries of parameters and first moments whose squares underflow (below 1e-19
        in float32) go to zero, seen by no step that moves anything; of second moments, the subnormal ones.
        """
        tiny = torch.finfo(self.theta.dtype).tiny
        self.theta.masked_fill_(self.theta.abs() < tiny**0.5, 0.0)
        for part in self.library.state.values():
            for name, value in part.items():
                if isinstance(value, Tensor) and value.ndim:
                    value.masked_fill_(value.abs() < (tiny if name == "exp_avg_sq" else tiny**0.5), 0.0)

    def state(self) -> list[dict[str, Tensor]]:
        """Tensors by name of each group; empty before the first step."""
        found = self.library.state_dict()["state"]
        return [{k: v for k, v in found.get(i, {}).items() if v is not None} for i in range(len(self.first))]

    def restore(self, state: list[dict[str, Tensor]]) -> None:
        """Go on from what `state` gave."""
        whole = self.library.state_dict()
        self.library.load_state_dict({**whole, "state": {i: part for i, part in enumerate(state) if part}})


def decay_mask(net: Network) -> Tensor:
    """(P,) with 1 for the entries of `weight_layers`, 0 for biases, batch normalisations and padding."""
    kept = net.theta.clone()
    named = net.named()
    net.theta.zero_()
    for name in net.weight_layers:
        named[name].fill_(1)
    mask = net.theta[0].clone()
    net.theta.copy_(kept)
    return mask


def learning_rate(
    schedule: str, lr: float, epoch: int, epochs: int, milestones: Sequence[int] = (), factor: float = 0.1
) -> float:
    """Rate during `epoch` (from 0) of a span of `epochs`.

    - "constant": lr
    - "cosine": lr/2 (1 + cos(pi epoch/epochs)), as `CosineAnnealingLR(T_max=epochs)` stepped once per epoch (Loshchilov &
      Hutter 2017, no restart); the span is a phase, and for "cosine_run" the whole run
    - "multistep": lr times `factor` for each milestone reached, as `MultiStepLR`
    """
    require(schedule in SCHEDULES, "schedule", schedule, f"one of {', '.join(SCHEDULES)}")
    if schedule == "multistep":
        return lr * factor ** sum(epoch >= m for m in milestones)
    return lr if schedule == "constant" else lr / 2 * (1 + math.cos(math.pi * epoch / epochs))


def order(seed: int, phase: int, epoch: int, samples: int) -> np.ndarray:
    """(samples,) permutation in which a lane of `seed` visits the data in `epoch` (from 0) of `phase`.

    A function of its arguments alone, so the same whatever else is in the batch of lanes.
    """
    return np.random.default_rng([seed, phase, epoch]).permutation(samples)
