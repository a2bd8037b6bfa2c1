"""Runge-Kutta-Chebyshev of order two: the stabilised explicit method for the long stiff tail.

Sommeijer, Shampine and Verwer (1998), "RKC: an explicit solver for parabolic PDEs". A gradient flow's Jacobian is symmetric, so its
spectrum is real, which is what the method is made for: s stages reach 0.65 s^2 along the negative real axis.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ncflow.integrators.step import Step

DAMPING = 2 / 13


@lru_cache(maxsize=512)
def coefficients(s: int) -> np.ndarray:
    """(s + 1, 5) rows (mu, nu, mu~, gamma~, 1 - mu - nu) of stages j = 0..s (row 0 unused; row 1 holds mu~_1)."""
    w0 = 1 + DAMPING / s**2
    T, dT, d2T = np.zeros(s + 1), np.zeros(s + 1), np.zeros(s + 1)
    T[:2], dT[1] = (1, w0), 1
    for j in range(2, s + 1):
        T[j] = 2 * w0 * T[j - 1] - T[j - 2]
        dT[j] = 2 * T[j - 1] + 2 * w0 * dT[j - 1] - dT[j - 2]
        d2T[j] = 4 * dT[j - 1] + 2 * w0 * d2T[j - 1] - d2T[j - 2]
    w1 = dT[s] / d2T[s]
    b = np.zeros(s + 1)
    b[2:] = d2T[2:] / dT[2:] ** 2
    b[0] = b[1] = b[2]
    a = 1 - b * T
    rows = np.zeros((s + 1, 5))
    rows[1, 2] = b[1] * w1
    for j in range(2, s + 1):
        mu, nu, mu_t = 2 * b[j] * w0 / b[j - 1], -b[j] / b[j - 2], 2 * b[j] * w1 / b[j - 1]
        rows[j] = mu, nu, mu_t, -a[j - 1] * mu_t, 1 - mu - nu
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
    def reach(cls, stages: Tensor | int) -> Tensor | float:
        """Length of the real stability interval, 2/3 (s^2 - 1) (1 - 2 eps/15)."""
        return 2 / 3 * (stages**2 - 1) * (1 - 2 * DAMPING / 15)

    @property
    def largest_step(self) -> Tensor:
        """(lanes,) the step up to which `max_stages` are stable."""
        return self.reach(self.max_stages) / self.radius

    def select(self, rows: Tensor) -> Chebyshev:
        """The same method for a subset of the lanes."""
        return Chebyshev(self.radius[rows])

    def step(self, field: Callable[[Tensor], Tensor], y: Tensor, f0: Tensor, h: Tensor) -> Step:
        """One step of size h (lanes,) from y (lanes, n), where f0 = field(y)."""
        s = torch.ceil(torch.sqrt(1 + h * self.radius / self.reach(2**0.5))).clamp(2, self.max_stages)
        per_lane = [int(count) for count in s.tolist()]
        most = max(per_lane)
        table = np.zeros((len(per_lane), most + 1, 5))
        for lane, count in enumerate(per_lane):
            table[lane, : count + 1] = coefficients(count)
        rows = torch.as_tensor(table, device=y.device)
        h = h[:, None]
        hf0 = h * f0
        before, now = y, torch.addcmul(y, rows[:, 1, 2:3], hf0)
        uniform = min(per_lane) == most
        for j in range(2, most + 1):
            mu, nu, mu_t, gamma_t, rest = rows[:, j].unbind(1)
            new = rest[:, None] * y
            new.addcmul_(mu[:, None], now).addcmul_(nu[:, None], before).addcmul_(gamma_t[:, None], hf0)
            new.addcmul_(mu_t[:, None] * h, field(now))
            if not uniform:
                # Lanes that need fewer stages are done: they keep their last one.
                new = torch.where((s >= j)[:, None], new, now)
            before, now = now, new
        f1 = field(now)
        error = (0.8 * (y - now) + 0.4 * h * (f0 + f1)).abs_()

        def interpolate(theta: Tensor, rows: Tensor) -> Tensor:
            """Cubic Hermite: one order above the method."""
            x, d = theta[:, None], now[rows] - y[rows]
            a, b = h[rows] * f0[rows], h[rows] * f1[rows]
            return y[rows] + x * (a + x * (3 * d - 2 * a - b + x * (a + b - 2 * d)))

        return Step(now, f1, error, s, self.radius, interpolate)


def spectral_radius(
    field: Callable[[Tensor], Tensor], y: Tensor, f: Tensor, guess: Tensor, *, iterations: int = 60
) -> tuple[Tensor, Tensor, int]:
    """Spectral radius of the Jacobian of `field` at y by power iteration on difference quotients.

    Args:
        field: (lanes, n) -> (lanes, n).
        y, f: state and field there.
        guess: (lanes, n) starting direction, best the vector that an earlier call returned.

    Returns:
        (lanes,) radius with 5% added, the last direction, and the number of field evaluations.
    """
    size = y.norm(dim=1, keepdim=True).clamp(min=1e-8) * 1e-7
    v = torch.where(guess.norm(dim=1, keepdim=True) > 0, guess, torch.ones_like(guess))
    radius = y.new_zeros(len(y))
    done = 0
    for _ in range(iterations):
        v = v * (size / v.norm(dim=1, keepdim=True).clamp(min=1e-300))
        v = field(y + v) - f
        done += 1
        before, radius = radius, v.norm(dim=1) / size.squeeze(1)
        if bool(((radius - before).abs() <= 0.01 * radius).all()):
            break
    return 1.05 * radius, v, done
