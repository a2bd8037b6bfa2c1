"""Lanes under way: where they stand, how accurate they are to be, and what a step shows to whoever watches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from ncflow.integrators.step import Step

RUNNING = -1  # of a lane that has no `Status` yet
EXPLICIT, STABILISED, FIXED = 0, 1, 2


@dataclass(frozen=True)
class Control:
    """Accuracy and limits of an integration: relative and absolute tolerance, when a lane counts as being at rest
    (rms of dy/dt over rms of y, or all of y below `atol`; None for never), and the number of steps that no lane may exceed."""

    rtol: float = 1e-8
    atol: float = 1e-12
    rest: float | None = None
    max_steps: int = 1_000_000
    method: str = "auto"
    step: float | None = None  # of the fixed-step method; None: the inverse of the spectral radius


@dataclass
class Batch:
    """Where all lanes stand; tensors over lanes, changed in place by `integrate`."""

    t: Tensor
    y: Tensor
    status: Tensor
    steps: Tensor
    rejected: Tensor
    evaluations: Tensor
    stabilised: Tensor  # steps taken by the stabilised method
    h: Tensor  # size of the next step; NaN where it is to be chosen afresh
    mode: Tensor  # the method in use
    patience: Tensor  # how much stiffness it takes to leave the explicit method

    @classmethod
    def start(cls, y: Tensor) -> Batch:
        zero = y.new_zeros(len(y))
        count = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        return cls(t=zero, y=y.clone(), status=count + RUNNING, steps=count.clone(), rejected=count.clone(),
                   evaluations=zero.clone(), stabilised=count.clone(), h=zero + torch.nan, mode=count + EXPLICIT,
                   patience=count + 15)

    @classmethod
    def join(cls, batches: Sequence[Batch]) -> Batch:
        return cls(**{f.name: torch.cat([getattr(b, f.name) for b in batches]) for f in fields(cls)})

    @property
    def running(self) -> Tensor:
        return self.status == RUNNING

    def wake(self, lanes: Tensor, t: float) -> None:
        """Let `lanes` (a mask) run on from time t, whatever has been done to them."""
        self.t[lanes], self.status[lanes], self.h[lanes] = t, RUNNING, torch.nan


@dataclass(frozen=True)
class Inside:
    """The step just tried, for `Watch`; `accepted` marks the lanes whose step counts."""

    accepted: Tensor
    t0: Tensor
    t1: Tensor
    step: Step


class Watch(Protocol):
    """Called after every step with what it needs to look inside accepted steps.

    A watch that has a method `peek` (Inside -> mask of lanes) allows steps that the host does not see, which is worth it on a
    GPU: `peek` does what it can without reading anything back, and the lanes of the mask take their step once more.
    """

    def __call__(self, inside: Inside) -> None: ...
