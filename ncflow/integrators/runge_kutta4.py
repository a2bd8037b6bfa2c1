"""The classical Runge-Kutta method with a fixed step, for fields with kinks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ncflow.integrators.step import Step


class RungeKutta4:
    """Kutta (1901). At a kink every method falls back to order one, and one that adapts its step spends it there: a fixed step
    does not look. `order` holds between kinks. Real stability interval: h |eigenvalue| <= 2.78.
    """

    name = "rk4"
    order = 4
    stability = 2.78
    largest_step = float("inf")

    def step(self, field: Callable[[Tensor], Tensor], y: Tensor, f0: Tensor, h: Tensor) -> Step:
        """One step of size h (lanes,) from y (lanes, n), where f0 = field(y)."""
        h = h[:, None]
        k2 = field(torch.addcmul(y, h, f0, value=0.5))
        k3 = field(torch.addcmul(y, h, k2, value=0.5))
        k4 = field(torch.addcmul(y, h, k3))
        new = torch.addcmul(y, h, f0 + 2 * (k2 + k3) + k4, value=1 / 6)
        f1 = field(new)

        def interpolate(share: Tensor) -> Tensor:
            """Cubic Hermite."""
            x, d = share[:, None], new - y
            a, b = h * f0, h * f1
            return y + x * (a + x * (3 * d - 2 * a - b + x * (a + b - 2 * d)))

        nothing = h.squeeze(1) * 0
        return Step(new, f1, torch.zeros_like(y), nothing + 4, nothing, interpolate)
