"""Runge-Kutta-Chebyshev of order two: the stabilised explicit method for the long stiff tail.

Sommeijer, Shampine and Verwer (1998), "RKC: an explicit solver for parabolic PDEs". A gradient flow's Jacobian is symmetric, so
its spectrum is real, which is what the method is made for: s stages reach 0.65 s^2 along the negative real axis.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ncflow.integrators.step import Step

DAMPING = 2 / 13


@lru_cache(maxsize=4096)
def coefficients(s: int) -> np.ndarray:
    """(s + 1, 4) rows (mu, nu, mu~, gamma~) of stages j = 0..s (row 0 unused; row 1 holds mu~_1)."""
    w0 = 1 + DAMPING / s**2
    T, dT, d2T = [1.0, w0], [0.0, 1.0], [0.0, 0.0]  # Chebyshev polynomials at w0 and their derivatives
    for _ in range(2, s + 1):
        T.append(2 * w0 * T[-1] - T[-2])
        dT.append(2 * T[-2] + 2 * w0 * dT[-1] - dT[-2])
        d2T.append(4 * dT[-2] + 2 * w0 * d2T[-1] - d2T[-2])
    w1 = dT[s] / d2T[s]
    b = np.zeros(s + 1)
    b[2:] = np.array(d2T[2:]) / np.array(dT[2:]) ** 2
    b[:2] = b[2]
    a = 1 - b * np.array(T)
    rows = np.zeros((s + 1, 4))
    rows[1, 2] = b[1] * w1
    rows[2:, 0] = 2 * w0 * b[2:] / b[1:-1]
    rows[2:, 1] = -b[2:] / b[:-2]
    rows[2:, 2] = 2 * w1 * b[2:] / b[1:-1]
    rows[2:, 3] = -a[1:-1] * rows[2:, 2]
    rows.setflags(write=False)
    return rows


class Chebyshev:
    """RKC2 whose number of stages follows, lane by lane, from the step and the spectral radius of the Jacobian."""

    name = "rkc2"
    order = 2
    error_order = 3
    max_stages = 2000

    def __init__(self, radius: Tensor):
        """`radius` (lanes,): bound on the spectral radius of the Jacobian, as from `spectral_radius`."""
        self.radius = radius

    @classmethod
    def reach(cls, stages: Tensor | float) -> Tensor | float:
        """Length of the real stability interval, 2/3 (s^2 - 1) (1 - 2 eps/15)."""
        return 2 / 3 * (stages**2 - 1) * (1 - 2 * DAMPING / 15)

    @property
    def largest_step(self) -> Tensor:
        """(lanes,) the step up to which `max_stages` are stable."""
        return self.reach(self.max_stages) / self.radius

    def step(self, field: Callable[[Tensor], Tensor], y: Tensor, f0: Tensor, h: Tensor) -> Step:
        """One step of size h (lanes,) from y (lanes, n), where f0 = field(y)."""
        s = torch.ceil(torch.sqrt(1 + h * self.radius / self.reach(2**0.5))).clamp(2, self.max_stages)
        per_lane = [int(count) for count in s.tolist()]
        most = max(per_lane)
        table = np.zeros((most + 1, 4, len(per_lane), 1))
        for lane, count in enumerate(per_lane):
            table[: count + 1, :, lane, 0] = coefficients(count)
        h = h[:, None]
        rows = torch.as_tensor(table, device=y.device)
        rows[:, 2] *= h
        hf0 = h * f0
        # The recurrence runs on the distance from y, so that its rounding is relative to the step and not to the state.
        before, now = torch.zeros_like(y), rows[1, 2] * f0
        uniform = min(per_lane) == most
        for j in range(2, most + 1):
            mu, nu, mu_t, gamma_t = rows[j].unbind(0)
            new = (mu * now).addcmul_(nu, before).addcmul_(gamma_t, hf0).addcmul_(mu_t, field(y + now))
            if not uniform:
                # Lanes that need fewer stages are done: they keep their last one.
                new = torch.where((s >= j)[:, None], new, now)
            before, now = now, new
        end = y + now
        f1 = field(end)
        error = (-0.8 * now + 0.4 * h * (f0 + f1)).abs_()

        def interpolate(theta: Tensor) -> Tensor:
            """Cubic Hermite: one order above the method."""
            x, d, b = theta[:, None], now, h * f1
            return y + x * (hf0 + x * (3 * d - 2 * hf0 - b + x * (hf0 + b - 2 * d)))

        return Step(end, f1, error, s, self.radius, interpolate)


def spectral_radius(
    field: Callable[[Tensor], Tensor], y: Tensor, f: Tensor, guess: Tensor, wanted: Tensor, *, iterations: int = 60
) -> tuple[Tensor, Tensor, Tensor]:
    """Spectral radius of the Jacobian of `field` at y by power iteration on difference quotients.

    Every lane stops on its own once its estimate changes by less than 1%, so that lanes do not influence each other.

    Args:
        field: (lanes, n) -> (lanes, n).
        y, f: state and field there.
        guess: (lanes, n) starting direction, best the vector that an earlier call returned.
        wanted: (lanes,) which lanes to measure; the others are left alone.

    Returns:
        (lanes,) radius, from below; the last direction; the number of field evaluations of each lane.
    """
    size = y.norm(dim=1, keepdim=True).clamp(min=1e-8) * 1e-7
    radius, count, active = y.new_zeros(len(y)), y.new_zeros(len(y)), wanted.clone()
    for _ in range(iterations):
        if not bool(active.any()):
            break
        v = guess * (size / guess.norm(dim=1, keepdim=True).clamp(min=1e-300))
        v = field(y + v) - f
        now = v.norm(dim=1) / size.squeeze(1)
        settled = (now - radius).abs() <= 0.01 * now
        guess = torch.where(active[:, None], v, guess)
        radius = torch.where(active, now, radius)
        count += active
        active = active & ~settled
    return radius, guess, count
