"""Discrete optimisers as members of the laboratory: one step is one full-batch update, and time counts steps.

The updates are those of PyTorch's `SGD`, `Adam` and `AdamW`, here over lanes of one flat float64 state, with a learning rate
per lane.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncflow.errors import require
from ncflow.model import Numbers, _numbers


@dataclass(frozen=True)
class Schedule(ABC):
    """Factor on the learning rate as a function of the step within its phase."""

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """At `step` (from 0) of a phase of `steps`."""


@dataclass(frozen=True)
class Constant(Schedule):
    """Always one."""

    def factor(self, step: int, steps: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Cosine(Schedule):
    """(1 + cos(pi t / T))/2 over the phase, in `intervals` equal pieces of constant rate (epochs), or every step if None."""

    intervals: int | None = None

    def __post_init__(self) -> None:
        require(self.intervals is None or (isinstance(self.intervals, int) and self.intervals > 0), "schedule.intervals",
                self.intervals, "a whole number greater than 0, or None for every step")

    def factor(self, step: int, steps: int) -> float:
        share = step / steps if self.intervals is None else math.floor(self.intervals * step / steps) / self.intervals
        return (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class MultiStep(Schedule):
    """Times `gamma` at each milestone; milestones are steps of the phase."""

    milestones: Sequence[int] = ()
    gamma: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        require(all(isinstance(m, int) and m >= 0 for m in self.milestones), "schedule.milestones", self.milestones,
                "whole numbers of steps")
        _numbers("schedule.gamma", self.gamma, ndim=0, positive=True)

    def factor(self, step: int, steps: int) -> float:
        return self.gamma ** sum(step >= m for m in self.milestones)


@dataclass(frozen=True, kw_only=True)
class Optimiser(ABC):
    """A full-batch update rule.

    Attributes:
        lr: learning rate greater than 0, one number or one per lane.
        schedule: factor on `lr` over a phase.
    """

    lr: Numbers
    schedule: Schedule = field(default_factory=Constant)

    #: Whether decay is part of the gradient ("coupled", L2) or applied to the parameters beside it (AdamW).
    coupled = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", _numbers("optimiser.lr", self.lr, positive=True))
        require(isinstance(self.schedule, Schedule), "optimiser.schedule", self.schedule, "a Schedule")

    def rates(self, lanes: int, device: torch.device) -> Tensor:
        """(lanes,) learning rates before the schedule."""
        lr = np.atleast_1d(np.asarray(self.lr, dtype=float))
        require(lr.size in (1, lanes), "optimiser.lr", self.lr, f"one number or one per lane ({lanes})")
        return torch.as_tensor(np.broadcast_to(lr, (lanes,)).copy(), device=device)

    def memory(self, y: Tensor) -> dict[str, Tensor]:
        """What the rule remembers between steps, zeros to begin with."""
        return {}

    @abstractmethod
    def update(self, y: Tensor, gradient: Tensor, lr: Tensor, step: int, memory: dict[str, Tensor]) -> Tensor:
        """The next state; `lr` (lanes, 1) with the schedule applied, `step` counts from 1 within the phase."""


@dataclass(frozen=True, kw_only=True)
class GradientDescent(Optimiser):
    """y <- y - lr g."""

    def update(self, y: Tensor, gradient: Tensor, lr: Tensor, step: int, memory: dict[str, Tensor]) -> Tensor:
        return torch.addcmul(y, lr, gradient, value=-1)


@dataclass(frozen=True, kw_only=True)
class SGD(Optimiser):
    """v <- m v + g; y <- y - lr v, or y - lr (g + m v) with Nesterov, as `torch.optim.SGD`.

    Slow motion follows the flow with t = lr steps/(1 - momentum).
    """

    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        m = self.momentum
        require(isinstance(m, int | float) and 0 <= m < 1, "optimiser.momentum", m, "a number in [0, 1)")

    def memory(self, y: Tensor) -> dict[str, Tensor]:
        return {"v": torch.zeros_like(y)}

    def update(self, y: Tensor, gradient: Tensor, lr: Tensor, step: int, memory: dict[str, Tensor]) -> Tensor:
        v = memory["v"].mul_(self.momentum).add_(gradient)
        return torch.addcmul(y, lr, gradient.add(v, alpha=self.momentum) if self.nesterov else v, value=-1)


@dataclass(frozen=True, kw_only=True)
class Adam(Optimiser):
    """Kingma and Ba (2015) with decay coupled to the gradient, as `torch.optim.Adam(weight_decay=...)`."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        good = len(self.betas) == 2 and all(isinstance(b, int | float) and 0 <= b < 1 for b in self.betas)
        require(good, "optimiser.betas", self.betas, "two numbers in [0, 1)")
        _numbers("optimiser.eps", self.eps, ndim=0, positive=True)

    def memory(self, y: Tensor) -> dict[str, Tensor]:
        return {"m": torch.zeros_like(y), "v": torch.zeros_like(y)}

    def update(self, y: Tensor, gradient: Tensor, lr: Tensor, step: int, memory: dict[str, Tensor]) -> Tensor:
        b1, b2 = self.betas
        m = memory["m"].lerp_(gradient, 1 - b1)
        v = memory["v"].mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
        size = v.sqrt().div_(math.sqrt(1 - b2**step)).add_(self.eps)
        return y - lr / (1 - b1**step) * (m / size)


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Loshchilov and Hutter (2019): decay beside the gradient, y <- (1 - lr lambda) y first; rests elsewhere than `Adam`."""

    coupled = False


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of `steps` with one loss (the model's own if None) and a new optimiser.

    The two-phase protocol is (Phase(loss="cross_entropy", ...), Phase(loss="mse", ...)).
    """

    steps: int
    optimiser: Optimiser
    loss: str | None = None

    def __post_init__(self) -> None:
        require(isinstance(self.steps, int) and self.steps > 0, "phase.steps", self.steps, "a whole number greater than 0")
        require(isinstance(self.optimiser, Optimiser), "phase.optimiser", type(self.optimiser).__name__,
                "GradientDescent, SGD, Adam or AdamW")

    def config(self) -> dict[str, Any]:
        """JSON-ready description for the record."""
        return {"steps": self.steps, "loss": self.loss, "optimiser": repr(self.optimiser)}
