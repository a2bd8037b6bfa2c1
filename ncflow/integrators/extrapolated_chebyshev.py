"""Extrapolated Runge-Kutta-Chebyshev, orders three and four: the stabilised explicit method for many digits in the stiff tail.

A step is taken by RKC2 (Sommeijer, Shampine and Verwer 1998) as one, as two halves and, for order four, as three thirds. The
global error of RKC2 has an expansion c_2 h^2 + c_3 h^3 + ..., so that

    y = (4 y_2 - y_1) / 3                    cancels c_2: order three, for 2.4 times the evaluations of one RKC2 step,
    y = (y_1 - 16 y_2 + 27 y_3) / 12         cancels c_2 and c_3: order four, 4.1 times

(Hairer, Norsett and Wanner 1993, section II.8). Evaluations grow as the root of the number of steps, so these need 6 (17) times
fewer of them than RKC2 to break even. The damping of RKC2 is raised until the combined stability polynomial stays below 0.97.

Short parts need fewer stages than long ones, and c_2, c_3 change by O(1/s^2) with their number s: the weights follow them, such
that linear problems keep their order whatever the numbers are. Nonlinear ones keep it with equal numbers (as when nothing is
stiff); with different ones a small share of RKC2's own error is left over, below 1e-4 of it.

Why not ROCK4 (Abdulle 2002), which reaches 0.35 s^2 at order four in one go? Along a curved slow manifold the stiff components
are forced, y' = -r (y - g(t)). The four finishing stages of ROCK4 are not damped: they multiply the defect of the recurrence
before them by up to (h r)^3, and steps shrink until that is harmless. Every stage of RKC2 beyond the first is exact for quadratic
g, it follows any g closely when h r is large, and a combination of such ends does so too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ncflow.integrators.step import Step


@dataclass(frozen=True)
class Plan:
    """How one order is put together.

    Attributes:
        parts: the step is taken in so many equal parts, once for each number.
        share: of the distance to the solution of one order less (without the undivided step) that counts as error: the solution
            is better than that companion. Chosen such that a UFM's flow ends within a few tolerances of 1e-6 to 1e-8.
        damping: epsilon of RKC2, which has 1 - epsilon / 3 as the largest modulus of its stability polynomial.
    """

    parts: tuple[int, ...]
    share: float
    damping: float


PLANS = {3: Plan((1, 2), 0.3, 0.35), 4: Plan((1, 2, 3), 0.1, 0.9)}
FEWEST = 6  # stages; below, the first stage (exact for linear g only) weighs too much
_FIRST = 0.1  # b_1 / b_2, which is free: small, so that little of that stage is left


@dataclass(frozen=True)
class Coefficients:
    """RKC2 of s stages.

    Attributes:
        rows: (s, 4) rows (mu, nu, mu~, gamma~) of the stages; the first has mu~_1 alone.
        error: alpha and beta of the stability polynomial exp(z + alpha z^3 + beta z^4 + ...).
    """

    rows: np.ndarray
    error: tuple[float, float]


@lru_cache(maxsize=4096)
def coefficients(stages: int, damping: float) -> Coefficients:
    """RKC2 with w0 = 1 + damping / stages^2."""
    w0 = 1 + damping / stages**2
    T = np.zeros((stages + 1, 5))  # Chebyshev polynomials at w0 and their derivatives
    T[0, 0], T[1, :2] = 1, (w0, 1)
    order = np.arange(5)
    for j in range(2, stages + 1):
        T[j] = 2 * w0 * T[j - 1] - T[j - 2]
        T[j, 1:] += 2 * order[1:] * T[j - 1, :-1]
    w1 = T[-1, 1] / T[-1, 2]
    b = np.empty(stages + 1)
    b[2:] = T[2:, 2] / T[2:, 1] ** 2
    b[0], b[1] = b[2], _FIRST * b[2]
    rows = np.zeros((stages, 4))
    rows[0, 2] = b[1] * w1
    rows[1:, 0] = 2 * w0 * b[2:] / b[1:-1]
    rows[1:, 1] = -b[2:] / b[:-2]
    rows[1:, 2] = 2 * w1 * b[2:] / b[1:-1]
    rows[1:, 3] = (b * T[:, 0] - 1)[1:-1] * rows[1:, 2]
    rows.setflags(write=False)
    alpha = b[-1] * w1**3 * T[-1, 3] / 6 - 1 / 6
    return Coefficients(rows, (alpha, b[-1] * w1**4 * T[-1, 4] / 24 - 1 / 24 - alpha))


@lru_cache(maxsize=4096)
def combination(order: int, stages: tuple[int, ...]) -> np.ndarray:
    """(2, parts) weights of the results in the solution and in its companion, for these numbers of stages.

    n parts have the polynomial exp(z + alpha z^3 / n^2 + beta z^4 / n^3 + ...): the weights sum to one and cancel alpha and, for
    order four, beta.
    """
    plan = PLANS[order]
    rows = [np.ones(len(stages))]
    for power in range(order - 2):
        errors = [coefficients(s, plan.damping).error[power] for s in stages]
        rows.append(np.array(errors) / np.array(plan.parts, dtype=float) ** (power + 2))
    system = np.array(rows)
    weights = np.zeros((2, len(stages)))
    weights[0] = np.linalg.solve(system, np.eye(len(stages))[0])
    weights[1, 1:] = np.linalg.solve(system[:-1, 1:], np.eye(len(stages) - 1)[0])
    weights.setflags(write=False)
    return weights


class ExtrapolatedChebyshev:
    """RKC2 extrapolated to order three or four, its stages following, lane by lane, from step and spectral radius."""

    max_stages = 2000  # of one RKC2 step

    def __init__(self, radius: Tensor, order: int = 4):
        """`radius` (lanes,): bound on the spectral radius of the Jacobian, as from `spectral_radius`."""
        self.radius, self.order, self.plan = radius, order, PLANS[order]
        self.error_order = order
        self.name = f"rkc{order}"

    def reach(self, stages: float) -> float:
        """Length of the real stability interval of RKC2, 2/3 (s^2 - 1) (1 - 2 eps/15) or a little more."""
        return 2 / 3 * (stages**2 - 1) * (1 - 2 * self.plan.damping / 15)

    @property
    def largest_step(self) -> Tensor:
        """(lanes,) the step up to which `max_stages` are stable."""
        return self.reach(self.max_stages) / self.radius

    def stages(self, h: Tensor) -> list[int]:
        """The number of stages that each lane needs for an RKC2 step h."""
        count = torch.ceil(torch.sqrt(1 + h * self.radius / self.reach(2**0.5)))
        return [int(s) for s in count.clamp(FEWEST, self.max_stages).tolist()]

    def step(self, field: Callable[[Tensor], Tensor], y: Tensor, f0: Tensor, h: Tensor) -> Step:
        """One step of size h (lanes,) from y (lanes, n), where f0 = field(y)."""
        plan, counts = self.plan, []  # stages of each lane
        moves, inner = [], []  # how far each of the results, and what lies between its parts, is from y
        for parts in plan.parts:
            counts.append(self.stages(h / parts))
            rows = self._rows(counts[-1], h / parts)
            move = _advance(field, y, f0, rows)
            for _ in range(1, parts):
                inner.append(move)
                here = y + move
                move = _advance(field, here, field(here), rows).add_(move)
            moves.append(move)
        weights = np.stack([combination(self.order, lane) for lane in zip(*counts, strict=True)], 1)
        weights = torch.as_tensor(weights, device=y.device)[..., None]
        move, error = torch.zeros_like(y), torch.zeros_like(y)
        for i, part in enumerate(moves):
            move.addcmul_(weights[0, :, i], part)
            error.addcmul_(weights[0, :, i] - weights[1, :, i], part, value=plan.share)
        end = y + move
        f1 = field(end)
        evaluations = 1 + np.array(plan.parts) @ np.array(counts) - len(counts)
        evaluations = torch.as_tensor(evaluations, dtype=h.dtype, device=h.device)
        terms = np.array([[coefficients(s, plan.damping).error for s in lanes] for lanes in counts])
        alpha, beta = torch.as_tensor(terms, device=y.device)[..., None].unbind(2)
        bends: list[Tensor] = []

        def interpolate(theta: Tensor) -> Tensor:
            """Local error h^4, for order four h^5 where linear; from states alone, so that it is as smooth as they are."""
            if not bends:
                bends.extend(_bends(inner, [part - move for part in moves], alpha, beta, move))
            x, c = theta[:, None], theta[:, None] - 0.5
            bend = bends[-1]
            for coefficient in bends[-2::-1]:
                bend = coefficient + c * bend
            return y + x * (move + (1 - x) * bend)

        return Step(end, f1, error.abs_(), evaluations, self.radius, interpolate)

    def _rows(self, count: list[int], h: Tensor) -> Tensor:
        """(stages, 4, lanes, 1) coefficients, those of the field times h; lanes that are done early stay where they are."""
        table = np.zeros((max(count), 4, len(count), 1))
        table[:, 0] = 1
        for lane, s in enumerate(count):
            table[:s, :, lane, 0] = coefficients(s, self.plan.damping).rows
        rows = torch.as_tensor(table, device=h.device)
        rows[:, 2:] *= h[:, None]
        return rows


def _advance(field: Callable[[Tensor], Tensor], y: Tensor, f0: Tensor, rows: Tensor) -> Tensor:
    """How far one RKC2 step leads from y: the recurrence runs on the distance, so that rounding is relative to the step."""
    before, now = torch.zeros_like(y), rows[0, 2] * f0
    for mu, nu, mu_t, gamma_t in rows[1:]:
        new = (mu * now).addcmul_(nu, before).addcmul_(gamma_t, f0).addcmul_(mu_t, field(y + now))
        before, now = now, new
    return now


def _bends(inner: list[Tensor], misses: list[Tensor], alpha: Tensor, beta: Tensor, move: Tensor) -> list[Tensor]:
    """p_0, p_1 .. of the interpolant y + x move + x (1 - x) (p_0 + c p_1 + c^2 p_2), c = x - 1/2, from where the parts meet.

    Slopes at the ends would not do: in them the errors of stiff components are multiplied by their eigenvalues. After k of n
    parts, at x = k/n, RKC2 is off by (alpha / n^2) e(x) + (beta / n^3) d(x), where its `misses` at the end give e(1), d(1), and

        order three: e(x) = x e(1), and e(1) is h^3 y^(3) = -6 p_1;
        order four:  e(x) = x e(1) + x (1 - x) g, d(x) = x d(1), and g is -h^4 y^(4) = 24 p_2, as it is in linear problems.
    """
    a2 = alpha[1] / 4
    if len(inner) == 1:
        return [4 * inner[0] - 2 * (move + misses[1]), misses[1] / (-6 * a2)]
    a3, b2, b3 = alpha[2] / 9, beta[1] / 8, beta[2] / 27
    scale = 1 / (a2 * b3 - a3 * b2)
    e, d = scale * (b3 * misses[1] - b2 * misses[2]), scale * (a2 * misses[2] - a3 * misses[1])
    half, third, thirds = (
        (there - x * (move + u * e + v * d)) / (x * (1 - x))
        for there, x, u, v in zip(inner, (1 / 2, 1 / 3, 2 / 3), (a2, a3, a3), (b2, b3, b3), strict=True)
    )
    p2 = ((third + thirds) / 2 - half) / (1 / 36 + 24 * (a3 - a2))
    return [half - 24 * a2 * p2, 3 * (thirds - third), p2]
