"""The driver: every lane takes its own steps, and switches on its own between the explicit and the stabilised method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm

from ncflow.flows import Flow
from ncflow.integrators.batch import EXPLICIT, FIXED, RUNNING, STABILISED, Batch, Control, Inside, Watch
from ncflow.integrators.chebyshev import Chebyshev, spectral_radius
from ncflow.integrators.dormand_prince import DormandPrince
from ncflow.integrators.extrapolated_chebyshev import ExtrapolatedChebyshev
from ncflow.integrators.replay import Replay
from ncflow.integrators.runge_kutta4 import RungeKutta4
from ncflow.integrators.step import Step
from ncflow.trajectory import Status

METHODS = ("auto", "dopri5", "rkc2", "rkc3", "rkc4", "rk4")
_LEASH = 0.1  # share of its norm by which a fixed step may move a state
_CHECK = 4  # times the patience: explicit steps between measurements of the spectral radius
_MARGIN = 1.05  # by which the measured spectral radius is enlarged, as it is found from below and moves
_UNSEEN = {"cpu": 0}  # at most so many steps between two looks of the host; reading back is free on the CPU
_UNSEEN_ELSEWHERE = 15


def integrate(flow: Flow, batch: Batch, until: float, control: Control, watch: Watch) -> None:
    """Advance all running lanes of `batch` to `until`, in place.

    Each lane has its own step, chosen by a proportional-integral controller on the rms of error / (atol + rtol |y|).
    A lane that fails keeps its last good state and a status that says why; the others go on. Every operation is on the whole
    batch, idle lanes taking steps of length 0: the bits of a lane do not depend on what its neighbours do.

    On a GPU most steps are taken without reading anything back, recorded as one launch where they are many. A lane that needs
    the host (an event to locate, the spectral radius to measure) waits for its next look, which comes after a number of steps
    that depends on nothing; it loses no accuracy, and a step that it takes again is not counted.
    """
    if control.method.startswith("rkc"):
        batch.mode.fill_(STABILISED)
    elif control.method == "rk4" or (control.method == "auto" and not flow.smooth):
        batch.mode.fill_(FIXED)
    while bool((batch.running & (batch.t < until)).any()):
        for leg in (_ExplicitLeg, _StabilisedLeg, _FixedLeg):
            leg(flow, batch, until, control, watch).run()


def _rms(x: Tensor) -> Tensor:
    return vector_norm(x, dim=1) / x.shape[1] ** 0.5


def _coarse(x: Tensor) -> Tensor:
    """x to single precision. Powers round differently in the last bit with the place of a lane in its batch, and where stability
    holds steps back such a bit decides, hundreds of steps later, which of them is rejected."""
    return x.float().double()


def _anywhere(f: Tensor) -> Tensor:
    """A direction with a share in every eigenvector of the Jacobian, whatever the symmetries of the state."""
    start = torch.randn(f.shape[1], generator=torch.Generator().manual_seed(0), dtype=f.dtype)
    return start.to(f.device).expand_as(f)


class _Leg:
    """Lanes that follow one method, until each is done or wants the other method."""

    mode: int
    order: int
    error_order: int
    blind = True  # whether a step can be taken without the host
    changing = ("f", "open", "error", "count", "waiting")  # what a step replaces, besides the batch

    def __init__(self, flow: Flow, batch: Batch, until: float, control: Control, watch: Watch):
        self.field, self.project, self.atol = flow.field, flow.project, control.atol * flow.unit
        self.batch, self.until, self.control, self.watch = batch, until, control, watch
        self.switch = control.method == "auto"
        self.open = batch.running & (batch.t < until) & (batch.mode == self.mode)
        self.error = torch.ones_like(batch.t)  # of the last accepted step
        self.count = torch.zeros_like(batch.steps)  # evidence for the other method
        self.waiting = torch.zeros_like(self.open)  # for the next look of the host
        self.peek: Callable[[Inside], Tensor] | None = getattr(watch, "peek", None) if self.blind else None
        self.unseen = 0 if self.peek is None else _UNSEEN.get(batch.y.device.type, _UNSEEN_ELSEWHERE)

    def run(self) -> None:
        if not bool(self.open.any()):
            return
        self.f = self.field(self.batch.y)
        self.batch.evaluations += self.open
        self.begin()
        fresh = self.open & self.batch.h.isnan()
        if bool(fresh.any()):
            self.batch.h.copy_(torch.where(fresh, self._first_step(), self.batch.h))
            self.batch.evaluations += fresh
        owners: list[tuple[Any, Any]] = [(self, self.changing), (self.batch, [f.name for f in fields(self.batch)])]
        unseen = Replay(partial(self._step, look=False), [*owners, (self.watch, getattr(self.watch, "peeking", ()))],
                        self.batch.y.device)  # fmt: skip
        few = 0
        while bool(self.open.any()):
            for _ in range(few):
                unseen()
            self._step(look=True)
            few = min(2 * few + 1, self.unseen)  # a leg may be short

    def begin(self) -> None:
        """What the method wants to know before its first step."""

    def solver(self) -> DormandPrince | Chebyshev | ExtrapolatedChebyshev | RungeKutta4:
        raise NotImplementedError

    def judge(self, h: Tensor, good: Tensor, step: Step, look: bool) -> None:
        """Look at the step just tried: which lanes want the other method? Reads nothing back unless `look`."""
        raise NotImplementedError

    def size(self, step: Step, y0: Tensor) -> Tensor:
        """(lanes,) size of a trial step's error; at most 1 is accepted."""
        return _rms(step.error / self._scale(torch.maximum(y0.abs(), step.y.abs())))

    def _scale(self, size: Tensor) -> Tensor:
        return size.mul(self.control.rtol).add_(self.atol)

    def _first_step(self) -> Tensor:
        """Hairer, Norsett and Wanner (1993), section II.4."""
        y = self.batch.y
        scale = self._scale(y.abs())
        d0, d1 = _rms(y / scale), _rms(self.f / scale)
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), torch.full_like(d0, 1e-6), 0.01 * d0 / d1)
        d2 = _rms((self.field(y + h0[:, None] * self.f) - self.f) / scale) / h0
        largest = torch.maximum(d1, d2)
        h1 = torch.where(largest <= 1e-15, torch.clamp(h0 * 1e-3, min=1e-6), (0.01 / largest) ** (1 / (self.order + 1)))
        return _coarse(torch.minimum(100 * h0, h1).nan_to_num(nan=1e-6, posinf=1e-6))

    def _step(self, look: bool) -> None:
        """Try one step of all lanes that go; those that wait for the host take part if it does `look`."""
        batch, solver = self.batch, self.solver()
        going = self.open & ~self.waiting if self.unseen else self.open
        left = self.until - batch.t
        h = batch.h.clamp(max=solver.largest_step)
        ends = h * 1.01 >= left
        h = torch.where(going, torch.where(ends, left, h), torch.zeros_like(h))
        y0, f0, t0 = batch.y, self.f, batch.t
        step = solver.step(self.field, y0, f0, h)
        error = self.size(step, y0)
        good = going & (error <= 1)  # false for NaN
        t1 = torch.where(ends, torch.full_like(h, self.until), t0 + h)
        inside = Inside(good, t0, t1, step)
        if look or self.peek is None:
            self.watch(inside)
        else:
            again = self.peek(inside)
            going, good = going & ~again, good & ~again
        batch.t = torch.where(good, t1, t0)
        batch.y = torch.where(good[:, None], self.project(step.y), y0)
        self.f = torch.where(good[:, None], step.f, f0)
        batch.steps = batch.steps + going
        batch.rejected = batch.rejected + (going & ~good)
        batch.evaluations = batch.evaluations + step.evaluations * going
        self._next_size(h, error, going, good, ends)
        self._close(error, going, good)
        self.judge(h, good, step, look)

    def _next_size(self, h: Tensor, error: Tensor, going: Tensor, good: Tensor, ends: Tensor) -> None:
        error = torch.where(error.isfinite(), error.clamp(min=1e-10), torch.full_like(error, 1e30))
        grow = 0.9 * error ** (-0.85 / self.error_order) * self.error ** (0.2 / self.error_order)
        shrink = (0.9 * error ** (-1 / self.error_order)).clamp(0.1, 0.9)
        new = h * _coarse(torch.where(good, grow.clamp(0.2, 8.0), shrink))
        # A step cut short by a pause says nothing against the one that was planned.
        new = torch.where(good & ends, torch.maximum(new, self.batch.h), new)
        self.batch.h = torch.where(going, new, self.batch.h)
        self.error = torch.where(good, error, self.error)

    def _close(self, error: Tensor, going: Tensor, good: Tensor) -> None:
        """Lanes that are done, at rest or stuck."""
        batch, control = self.batch, self.control
        tiny = going & ~good & (batch.h <= 1e-15 * torch.clamp(batch.t.abs(), min=1e-8 * self.until))
        status = batch.status.masked_fill(tiny, Status.STEP_TOO_SMALL).masked_fill(tiny & ~error.isfinite(), Status.NON_FINITE)
        if control.rest is not None:
            calm = _rms(self.f) <= control.rest * _rms(batch.y)
            status = status.masked_fill(good & (calm | (batch.y.abs().amax(1) <= control.atol)), Status.AT_REST)
        on = self.open & (status == RUNNING) & (batch.t < self.until)
        spent = on & (batch.steps >= control.max_steps)
        batch.status = status.masked_fill(spent, Status.MAX_STEPS)
        self.open = on & ~spent

    def change(self, wants: Tensor, to: int) -> None:
        """Leave the lanes of `wants` to the other method."""
        wants = wants & self.open
        self.batch.mode = self.batch.mode.masked_fill(wants, to)
        self.open = self.open & ~wants


class _ExplicitLeg(_Leg):
    mode, order, error_order = EXPLICIT, DormandPrince.order, DormandPrince.error_order
    changing = (*_Leg.changing, "age", "tried")

    def begin(self) -> None:
        self.direction, self.age = _anywhere(self.f), torch.zeros_like(self.count)  # steps since the radius was measured
        self.tried = torch.zeros_like(self.batch.h)  # step of the lanes whose radius is to be measured

    def solver(self) -> DormandPrince:
        return DormandPrince()

    def judge(self, h: Tensor, good: Tensor, step: Step, look: bool) -> None:
        if not self.switch:
            return
        far = self.until - self.batch.t > 100 * h
        held = good & (h * step.radius > 0.9 * DormandPrince.stability) & far
        self.count = torch.where(held, self.count + 1, (self.count - good.long()).clamp(min=0))
        self.change(self.count >= self.batch.patience, STABILISED)
        # At tight tolerances little of the stiffest direction is left for `step.radius` to see: now and then it is measured.
        self.age = self.age + good
        due = self.open & good & far & (self.age >= _CHECK * self.batch.patience)
        if self.unseen:
            self.tried, self.waiting = torch.where(due, h, self.tried), self.waiting | due
        if not look:
            return
        if self.unseen:
            h, due, self.waiting = self.tried, self.open & self.waiting, torch.zeros_like(self.waiting)
        if bool(due.any()):
            radius, self.direction, count = spectral_radius(self.field, self.batch.y, self.f, self.direction, due)
            self.batch.evaluations = self.batch.evaluations + count
            self.age = self.age.masked_fill(due, 0)
            self.change(due & (h * radius > 0.9 * DormandPrince.stability), STABILISED)


class _StabilisedLeg(_Leg):
    mode = STABILISED
    blind = False  # the host has to know the number of stages, once in some hundred evaluations

    def begin(self) -> None:
        # Fewest evaluations for the accuracy that comes out, measured on the flow of a UFM.
        automatic = 2 if self.control.rtol > 1e-7 else 3 if self.control.rtol > 1e-9 else 4
        self.order = automatic if self.switch else int(self.control.method[-1])
        self.error_order = max(self.order, Chebyshev.error_order)
        self.direction = _anywhere(self.f)
        self.radius = torch.ones_like(self.batch.t)
        self.work = torch.zeros_like(self.batch.t)
        self._measure(self.open)

    def _measure(self, wanted: Tensor) -> None:
        radius, self.direction, count = spectral_radius(self.field, self.batch.y, self.f, self.direction, wanted)
        # A decaying direction is always there: the radius cannot be zero.
        self.radius = torch.where(wanted, _MARGIN * radius.clamp(min=1e-12), self.radius)
        self.work = self.work.masked_fill(wanted, 0.0)
        self.batch.evaluations = self.batch.evaluations + count

    def solver(self) -> Chebyshev | ExtrapolatedChebyshev:
        return Chebyshev(self.radius) if self.order == 2 else ExtrapolatedChebyshev(self.radius, self.order)

    def judge(self, h: Tensor, good: Tensor, step: Step, look: bool) -> None:
        self.batch.stabilised = self.batch.stabilised + good
        if self.switch:
            # Below this the explicit method does the same step with fewer evaluations and three orders more.
            cheap = self.batch.h * self.radius < 0.5 * DormandPrince.stability
            self.count = torch.where(good, torch.where(cheap, self.count + 1, 0), self.count)
            back = self.open & (self.count >= 10)
            self.batch.patience = torch.where(back, 4 * self.batch.patience, self.batch.patience)  # before it comes here again
            self.change(back, EXPLICIT)
        fresh = self.work == 0
        self.work += step.evaluations
        # A step far beyond the interval of stability is rejected: measure again before the next, unless it was just done.
        stale = self.open & ((self.work >= 100) | (~good & ~fresh))
        if bool(stale.any()):
            self._measure(stale)


class _FixedLeg(_Leg):
    mode, order, error_order = FIXED, RungeKutta4.order, RungeKutta4.order + 1

    def begin(self) -> None:
        if self.control.step is not None:
            self.batch.h.fill_(self.control.step)
            return
        self.direction = _anywhere(self.f)
        self._measure(self.open)

    def _measure(self, wanted: Tensor) -> None:
        radius, self.direction, count = spectral_radius(self.field, self.batch.y, self.f, self.direction, wanted)
        self.batch.evaluations = self.batch.evaluations + count
        self.batch.h = torch.where(wanted, 1 / (_MARGIN * radius.clamp(min=1e-12)), self.batch.h)
        self.count = self.count.masked_fill(wanted, 0)  # steps since then

    def solver(self) -> RungeKutta4:
        return RungeKutta4()

    def size(self, step: Step, y0: Tensor) -> Tensor:
        """A leash instead of an error: across a kink the spectral radius can jump, and no step may move far."""
        return (step.y - y0).norm(dim=1) / (_LEASH * y0.norm(dim=1) + self.control.atol)

    def _next_size(self, h: Tensor, error: Tensor, going: Tensor, good: Tensor, ends: Tensor) -> None:
        self.batch.h = torch.where(good | ~going, self.batch.h, h / 2)
        self.count = self.count + going

    def judge(self, h: Tensor, good: Tensor, step: Step, look: bool) -> None:
        if self.control.step is not None:
            return
        due = self.open & (self.count >= 25)
        if self.unseen:
            self.waiting = due if not look else torch.zeros_like(due)
        if look and bool(due.any()):
            self._measure(due)
