"""Dormand-Prince 5(4): the explicit pair for accuracy where the flow is not stiff."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.linalg import vector_norm

from ncflow.integrators.step import Step

# Dormand and Prince (1980), table 2, with the quartic continuous extension of Shampine (1986): the rows of `_DENSE` are
# the coefficients of theta, theta^2, theta^3, theta^4 of each stage's weight.
_A = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_DENSE = (
    (1.0, -8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432),
    (0.0, 0.0, 0.0, 0.0),
    (0.0, 131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799),
    (0.0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072),
    (0.0, 127303824393 / 49829197408, -318862633887 / 49829197408, 701980252875 / 199316789632),
    (0.0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844),
    (0.0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423),
)


class DormandPrince:
    """Dormand-Prince 5(4) with first-same-as-last, local extrapolation and a quartic interpolant.

    `order` is that of the solution, `error_order` that of the step's error estimate in the step size (h^5).
    Real stability interval: h |eigenvalue| <= 3.3.
    """

    name = "dopri5"
    order = 5
    error_order = 5
    stability = 3.3
    largest_step = float("inf")

    def step(self, field: Callable[[Tensor], Tensor], y: Tensor, f0: Tensor, h: Tensor) -> Step:
        """One step of size h (lanes,) from y (lanes, n), where f0 = field(y)."""
        h = h[:, None]
        stages, last, sixth = [f0], y, y
        for row in _A:
            sixth, last = last, _combine(y, h, row, stages)
            stages.append(field(last))
        # The last two stages stand at the same time: their difference quotient sees the stiffest direction (Hairer and
        # Wanner 1996, section IV.2).
        radius = vector_norm(stages[6] - stages[5], dim=1) / vector_norm(last - sixth, dim=1).clamp(min=1e-300)
        error = _combine(y.new_zeros(()), h, _ERROR, stages).abs_()

        def interpolate(theta: Tensor) -> Tensor:
            powers = theta[:, None] ** torch.arange(1, 5, device=y.device, dtype=y.dtype)
            weights = (powers @ _dense(y.device, y.dtype)).unbind(1)
            return _combine(y, h, [w[:, None] for w in weights], stages)

        return Step(last, stages[6], error, y.new_full((len(y),), 6.0), radius, interpolate)


@lru_cache
def _dense(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(4, stages) `_DENSE`, made once: a copy to a GPU waits for it."""
    return torch.tensor(_DENSE, device=device, dtype=dtype).T


def _combine(y: Tensor, h: Tensor, weights: Sequence[float | Tensor], stages: list[Tensor]) -> Tensor:
    """y + h sum_i weights_i stages_i, one pass for each stage that counts."""
    (first, k), *others = [(w, k) for w, k in zip(weights, stages, strict=False) if not isinstance(w, float) or w]
    total = torch.addcmul(y, h * first, k)
    for w, k in others:
        total.addcmul_(h * w, k)
    return total
