"""The driver: every lane takes its own steps, and switches on its own between the explicit and the stabilised method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ncflow.flows import Flow
from ncflow.integrators.chebyshev import Chebyshev, spectral_radius
from ncflow.integrators.dormand_prince import DormandPrince
from ncflow.integrators.step import Step
from ncflow.trajectory import Status

METHODS = ("auto", "dopri5", "rkc2")
_RUNNING = -1
_EXPLICIT, _STABILISED = 0, 1
# Batches below this many numbers keep their shape when lanes finish, so that a lane's bits cannot depend on its neighbours.
_KEEP_SHAPE = 2**16


@dataclass(frozen=True)
class Control:
    """Accuracy and limits of an integration: relative and absolute tolerance, when a lane counts as being at rest
    (rms of dy/dt over rms of y; None for never), and the number of steps that no lane may exceed."""

    rtol: float = 1e-8
    atol: float = 1e-12
    rest: float | None = None
    max_steps: int = 1_000_000
    method: str = "auto"


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

    @classmethod
    def start(cls, y: Tensor) -> Batch:
        zero = y.new_zeros(len(y))
        count = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        return cls(zero, y, count + _RUNNING, count.clone(), count.clone(), zero.clone(), count.clone())


class Watch(Protocol):
    """Called after every step with what it needs to look inside accepted steps."""

    def __call__(self, inside: Inside) -> None: ...


@dataclass(frozen=True)
class Inside:
    """The step just tried, for `Watch`: `lanes` index into the batch, `accepted` marks those whose step counts."""

    lanes: Tensor
    accepted: Tensor
    t0: Tensor
    t1: Tensor
    y0: Tensor
    step: Step
    land: Callable[[Tensor, Tensor], Tensor]  # (rows, time) -> states there, by a step of their own from t0


def integrate(flow: Flow, batch: Batch, until: float, control: Control, watch: Watch) -> None:
    """Advance all running lanes of `batch` to `until`, in place.

    Each lane has its own step, chosen by a proportional-integral controller on the rms of error / (atol + rtol |y|).
    A lane that fails keeps its last good state and a status that says why; the others go on.
    """
    mode = torch.full_like(batch.status, _STABILISED if control.method == "rkc2" else _EXPLICIT)
    patience = torch.full_like(batch.status, 15)
    step_size = torch.full_like(batch.t, torch.nan)
    switch = control.method == "auto"
    for which in _alternate(batch, until, mode):
        rows = (_open(batch, until) & (mode == which)).nonzero().squeeze(1)
        if len(rows):
            _Leg(flow, batch, until, control, watch, rows, which, switch, mode, patience, step_size).run()


def _open(batch: Batch, until: float) -> Tensor:
    return (batch.status == _RUNNING) & (batch.t < until)


def _alternate(batch: Batch, until: float, mode: Tensor):
    while bool(_open(batch, until).any()):
        yield _EXPLICIT
        yield _STABILISED


def _rms(x: Tensor) -> Tensor:
    return x.square().mean(1).sqrt()


class _Leg:
    """Lanes that follow one method, until each is done or wants the other method."""

    def __init__(self, flow, batch, until, control, watch, rows, which, switch, mode, patience, step_size):
        self.batch, self.until, self.control, self.watch = batch, until, control, watch
        self.all_flow, self.which, self.switch = flow, which, switch
        self.mode, self.patience, self.step_size = mode, patience, step_size
        self.stable = which == _STABILISED
        self._take(rows)
        self.f = self.field(self.y)
        self.batch.evaluations[rows] += 1
        self.h = step_size[rows]
        self.error = torch.ones_like(self.t)
        self.stiff = torch.zeros_like(rows)
        self.age = torch.zeros_like(rows)
        self.open = torch.ones_like(rows, dtype=torch.bool)
        self.direction = self.f.clone()
        self.radius = torch.zeros_like(self.t)
        if self.stable:
            self._measure_radius(self.open)
        fresh = self.h.isnan()
        if bool(fresh.any()):
            self.h = torch.where(fresh, self._first_step(), self.h)

    def _take(self, rows: Tensor) -> None:
        self.rows = rows
        self.field = self.all_flow.select(rows).field
        self.t, self.y = self.batch.t[rows], self.batch.y[rows]

    def _scale(self, *states: Tensor) -> Tensor:
        size = states[0].abs()
        for s in states[1:]:
            size = torch.maximum(size, s.abs())
        return self.control.atol + self.control.rtol * size

    def _first_step(self) -> Tensor:
        """Hairer, Norsett and Wanner (1993), section II.4."""
        order = Chebyshev.order if self.stable else DormandPrince.order
        scale = self._scale(self.y)
        d0, d1 = _rms(self.y / scale), _rms(self.f / scale)
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), torch.full_like(d0, 1e-6), 0.01 * d0 / d1)
        f1 = self.field(self.y + h0[:, None] * self.f)
        self.batch.evaluations[self.rows] += 1
        d2 = _rms((f1 - self.f) / scale) / h0
        largest = torch.maximum(d1, d2)
        h1 = torch.where(largest <= 1e-15, torch.clamp(h0 * 1e-3, min=1e-6), (0.01 / largest) ** (1 / (order + 1)))
        return torch.minimum(100 * h0, h1).nan_to_num(nan=1e-6, posinf=1e-6)

    def _measure_radius(self, which: Tensor) -> None:
        radius, self.direction, count = spectral_radius(self.field, self.y, self.f, self.direction)
        # A decaying direction is always there: the radius cannot be zero.
        self.radius = torch.where(which, radius.clamp(min=1e-12), self.radius)
        self.age = torch.where(which, torch.zeros_like(self.age), self.age)
        self.batch.evaluations[self.rows] += count * which

    def run(self) -> None:
        while bool(self.open.any()):
            self._step()
            self._shrink()
        self._give_back()

    def _solver(self, rows: Tensor | None = None):
        if not self.stable:
            return DormandPrince()
        return Chebyshev(self.radius if rows is None else self.radius[rows])

    def _step(self) -> None:
        left = self.until - self.t
        h = self.h
        if self.stable:
            h = torch.minimum(h, Chebyshev(self.radius).largest_step)
        ends = h * 1.01 >= left
        h = torch.where(self.open, torch.where(ends, left, h), torch.zeros_like(h))
        solver = self._solver()
        step = solver.step(self.field, self.y, self.f, h)
        error = _rms(step.error / self._scale(self.y, step.y))
        good = error.isfinite() & (error <= 1) & self.open
        t1 = torch.where(ends, torch.full_like(h, self.until), self.t + h)
        y0, f0, t0 = self.y, self.f, self.t

        def land(rows: Tensor, time: Tensor) -> Tensor:
            part = time - t0[rows]
            here = self._solver(rows).step(self.all_flow.select(self.rows[rows]).field, y0[rows], f0[rows], part)
            self.batch.evaluations[self.rows[rows]] += here.evaluations
            return here.y

        self.watch(Inside(self.rows, good, t0, t1, y0, step, land))
        self.t = torch.where(good, t1, self.t)
        self.y = torch.where(good[:, None], step.y, self.y)
        self.f = torch.where(good[:, None], step.f, self.f)
        self.batch.steps[self.rows] += self.open.long()
        self.batch.rejected[self.rows] += (self.open & ~good).long()
        self.batch.evaluations[self.rows] += step.evaluations * self.open
        if self.stable:
            self.batch.stabilised[self.rows] += good.long()
        self._next_size(h, error, good, solver.error_order)
        self._judge(h, error, good, step)

    def _next_size(self, h: Tensor, error: Tensor, good: Tensor, order: int) -> None:
        error = torch.where(error.isfinite(), error.clamp(min=1e-10), torch.full_like(error, 1e30))
        grow = 0.9 * error ** (-0.7 / order) * self.error ** (0.4 / order)
        shrink = (0.9 * error ** (-1 / order)).clamp(0.1, 0.9)
        new = torch.where(good, h * grow.clamp(0.2, 8.0), h * shrink)
        self.h = torch.where(self.open, new, self.h)
        self.error = torch.where(good, error, self.error)

    def _judge(self, h: Tensor, error: Tensor, good: Tensor, step: Step) -> None:
        """Which lanes are done, at rest, stuck, or better served by the other method."""
        status = self.batch.status
        if self.control.rest is not None:
            calm = good & (_rms(self.f) <= self.control.rest * _rms(self.y))
            status[self.rows[calm]] = Status.AT_REST
        tiny = self.open & ~good & (self.h <= 1e-15 * torch.clamp(self.t.abs(), min=1e-8 * self.until))
        status[self.rows[tiny & error.isfinite()]] = Status.STEP_TOO_SMALL
        status[self.rows[tiny & ~error.isfinite()]] = Status.NON_FINITE
        many = self.open & (self.batch.steps[self.rows] >= self.control.max_steps) & (self.t < self.until)
        status[self.rows[many & (status[self.rows] == _RUNNING)]] = Status.MAX_STEPS
        self.open &= (status[self.rows] == _RUNNING) & (self.t < self.until)
        self.age += 1
        if self.stable:
            if self.switch:
                # Below this the explicit method does the same step with fewer evaluations and three orders more.
                cheap = good & (self.h * self.radius < 0.5 * DormandPrince.stability)
                self.stiff = torch.where(cheap, self.stiff + 1, torch.where(good, torch.zeros_like(self.stiff), self.stiff))
                self._change(self.stiff >= 10, _EXPLICIT, longer=True)
            stale = self.open & ((self.age >= 25) | (~good & (self.age > 1)))
            if bool(stale.any()):
                self._measure_radius(stale)
        elif self.switch:
            held = good & (h * step.radius > 0.9 * DormandPrince.stability) & (self.until - self.t > 100 * h)
            self.stiff = torch.where(held, self.stiff + 1, torch.where(good, self.stiff - (self.stiff > 0).long(), self.stiff))
            self._change(self.stiff >= self.patience[self.rows], _STABILISED, longer=False)

    def _change(self, wants: Tensor, to: int, longer: bool) -> None:
        wants = wants & self.open
        self.mode[self.rows[wants]] = to
        if longer:
            # It came back: ask for more evidence before the next change.
            self.patience[self.rows[wants]] *= 4
        self.open &= ~wants

    def _shrink(self) -> None:
        """Drop finished lanes once they are half of a large batch."""
        alive = int(self.open.sum())
        if alive == 0 or 2 * alive > len(self.rows) or self.y.numel() < _KEEP_SHAPE:
            return
        keep = self.open.nonzero().squeeze(1)
        self._give_back()
        for name in ("rows", "t", "y", "f", "h", "error", "stiff", "age", "open", "direction", "radius"):
            setattr(self, name, getattr(self, name)[keep])
        self.field = self.all_flow.select(self.rows).field

    def _give_back(self) -> None:
        self.batch.t[self.rows], self.batch.y[self.rows] = self.t, self.y
        self.step_size[self.rows] = self.h
