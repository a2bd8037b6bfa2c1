"""What one step of any integrator returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A trial step of a batch of lanes.

    Attributes:
        y: (lanes, n) state at the end.
        f: (lanes, n) field there.
        error: (lanes, n) absolute estimate of the local error.
        evaluations: (lanes,) field evaluations that each lane needed.
        radius: (lanes,) estimate of the spectral radius of the Jacobian along the step, from below.
        interpolate: theta (lanes,) -> (lanes, n) state at a fraction theta of the step.
    """

    y: Tensor
    f: Tensor
    error: Tensor
    evaluations: Tensor
    radius: Tensor
    interpolate: Callable[[Tensor], Tensor]
