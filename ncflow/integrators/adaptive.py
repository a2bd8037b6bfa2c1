"""The driver: every lane takes its own steps, and switches on its own between the explicit and the stabilised method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor
from torch.linalg import vector_norm

from ncflow.flows import Flow
from ncflow.integrators.chebyshev import Chebyshev, spectral_radius
from ncflow.integrators.dormand_prince import DormandPrince
from ncflow.integrators.extrapolated_chebyshev import ExtrapolatedChebyshev
from ncflow.integrators.runge_kutta4 import RungeKutta4
from ncflow.integrators.step import Step
from ncflow.trajectory import Status

METHODS = ("auto", "dopri5", "rkc2", "rkc3", "rkc4", "rk4")
_RUNNING = -1
_EXPLICIT, _STABILISED, _FIXED = 0, 1, 2
_LEASH = 0.1  # share of its norm by which a fixed step may move a state
_CHECK = 4  # times the patience: explicit steps between measurements of the spectral radius
_MARGIN = 1.05  # by which the measured spectral radius is enlarged, as it is found from below and moves


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
        return cls(t=zero, y=y.clone(), status=count + _RUNNING, steps=count.clone(), rejected=count.clone(),
                   evaluations=zero.clone(), stabilised=count.clone(), h=zero + torch.nan, mode=count + _EXPLICIT,
                   patience=count + 15)

    @classmethod
    def join(cls, batches: Sequence[Batch]) -> Batch:
        return cls(**{f.name: torch.cat([getattr(b, f.name) for b in batches]) for f in fields(cls)})

    @property
    def running(self) -> Tensor:
        return self.status == _RUNNING

    def wake(self, lanes: Tensor, t: float) -> None:
        """Let `lanes` (a mask) run on from time t, whatever has been done to them."""
        self.t[lanes], self.status[lanes], self.h[lanes] = t, _RUNNING, torch.nan


class Watch(Protocol):
    """Called after every step with what it needs to look inside accepted steps."""

    def __call__(self, inside: Inside) -> None: ...


@dataclass(frozen=True)
class Inside:
    """The step just tried, for `Watch`; `accepted` marks the lanes whose step counts."""

    accepted: Tensor
    t0: Tensor
    t1: Tensor
    step: Step


def integrate(flow: Flow, batch: Batch, until: float, control: Control, watch: Watch) -> None:
    """Advance all running lanes of `batch` to `until`, in place.

    Each lane has its own step, chosen by a proportional-integral controller on the rms of error / (atol + rtol |y|).
    A lane that fails keeps its last good state and a status that says why; the others go on. Every operation is on the whole
    batch, idle lanes taking steps of length 0: the bits of a lane do not depend on what its neighbours do.
    """
    if control.method.startswith("rkc"):
        batch.mode.fill_(_STABILISED)
    elif control.method == "rk4" or (control.method == "auto" and not flow.smooth):
        batch.mode.fill_(_FIXED)
    while bool((batch.running & (batch.t < until)).any()):
        for leg in (_ExplicitLeg, _StabilisedLeg, _FixedLeg):
            leg(flow, batch, until, control, watch).run()


def _rms(x: Tensor) -> Tensor:
    return vector_norm(x, dim=1) / x.shape[1] ** 0.5


def _anywhere(f: Tensor) -> Tensor:
    """A direction with a share in every eigenvector of the Jacobian, whatever the symmetries of the state."""
    start = torch.randn(f.shape[1], generator=torch.Generator().manual_seed(0), dtype=f.dtype)
    return start.to(f.device).expand_as(f)


class _Leg:
    """Lanes that follow one method, until each is done or wants the other method."""

    mode: int
    order: int
    error_order: int

    def __init__(self, flow: Flow, batch: Batch, until: float, control: Control, watch: Watch):
        self.field, self.project, self.atol = flow.field, flow.project, control.atol * flow.unit
        self.batch, self.until, self.control, self.watch = batch, until, control, watch
        self.switch = control.method == "auto"
        self.open = batch.running & (batch.t < until) & (batch.mode == self.mode)
        self.error = torch.ones_like(batch.t)  # of the last accepted step
        self.count = torch.zeros_like(batch.steps)  # evidence for the other method

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
        while bool(self.open.any()):
            self._step()

    def begin(self) -> None:
        """What the method wants to know before its first step."""

    def solver(self) -> DormandPrince | Chebyshev | ExtrapolatedChebyshev | RungeKutta4:
        raise NotImplementedError

    def judge(self, h: Tensor, good: Tensor, step: Step) -> None:
        """Look at the step just tried: which lanes want the other method?"""
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
        return torch.minimum(100 * h0, h1).nan_to_num(nan=1e-6, posinf=1e-6)

    def _step(self) -> None:
        batch, solver = self.batch, self.solver()
        left = self.until - batch.t
        h = batch.h.clamp(max=solver.largest_step)
        ends = h * 1.01 >= left
        h = torch.where(self.open, torch.where(ends, left, h), torch.zeros_like(h))
        y0, f0, t0 = batch.y, self.f, batch.t
        step = solver.step(self.field, y0, f0, h)
        error = self.size(step, y0)
        good = self.open & (error <= 1)  # false for NaN
        t1 = torch.where(ends, torch.full_like(h, self.until), t0 + h)
        self.watch(Inside(good, t0, t1, step))
        batch.t = torch.where(good, t1, t0)
        batch.y = torch.where(good[:, None], self.project(step.y), y0)
        self.f = torch.where(good[:, None], step.f, f0)
        batch.steps += self.open
        batch.rejected += self.open & ~good
        batch.evaluations += step.evaluations * self.open
        self._next_size(h, error, good)
        self._close(error, good)
        self.judge(h, good, step)

    def _next_size(self, h: Tensor, error: Tensor, good: Tensor) -> None:
        error = torch.where(error.isfinite(), error.clamp(min=1e-10), torch.full_like(error, 1e30))
        grow = 0.9 * error ** (-0.85 / self.error_order) * self.error ** (0.2 / self.error_order)
        shrink = (0.9 * error ** (-1 / self.error_order)).clamp(0.1, 0.9)
        new = h * torch.where(good, grow.clamp(0.2, 8.0), shrink)
        self.batch.h = torch.where(self.open, new, self.batch.h)
        self.error = torch.where(good, error, self.error)

    def _close(self, error: Tensor, good: Tensor) -> None:
        """Lanes that are done, at rest or stuck."""
        batch, control = self.batch, self.control
        tiny = self.open & ~good & (batch.h <= 1e-15 * torch.clamp(batch.t.abs(), min=1e-8 * self.until))
        batch.status[tiny] = Status.STEP_TOO_SMALL
        batch.status[tiny & ~error.isfinite()] = Status.NON_FINITE
        if control.rest is not None:
            calm = _rms(self.f) <= control.rest * _rms(batch.y)
            batch.status[good & (calm | (batch.y.abs().amax(1) <= control.atol))] = Status.AT_REST
        self.open &= batch.running & (batch.t < self.until)
        spent = self.open & (batch.steps >= control.max_steps)
        batch.status[spent] = Status.MAX_STEPS
        self.open &= ~spent

    def change(self, wants: Tensor, to: int) -> None:
        """Leave the lanes of `wants` to the other method."""
        wants = wants & self.open
        self.batch.mode[wants] = to
        self.open &= ~wants


class _ExplicitLeg(_Leg):
    mode, order, error_order = _EXPLICIT, DormandPrince.order, DormandPrince.error_order

    def begin(self) -> None:
        self.direction, self.age = _anywhere(self.f), torch.zeros_like(self.count)  # steps since the radius was measured

    def solver(self) -> DormandPrince:
        return DormandPrince()

    def judge(self, h: Tensor, good: Tensor, step: Step) -> None:
        if not self.switch:
            return
        far = self.until - self.batch.t > 100 * h
        held = good & (h * step.radius > 0.9 * DormandPrince.stability) & far
        self.count = torch.where(held, self.count + 1, (self.count - good.long()).clamp(min=0))
        self.change(self.count >= self.batch.patience, _STABILISED)
        # At tight tolerances little of the stiffest direction is left for `step.radius` to see: now and then it is measured.
        self.age += good
        due = self.open & good & far & (self.age >= _CHECK * self.batch.patience)
        if bool(due.any()):
            radius, self.direction, count = spectral_radius(self.field, self.batch.y, self.f, self.direction, due)
            self.batch.evaluations += count
            self.age = torch.where(due, 0, self.age)
            self.change(due & (h * radius > 0.9 * DormandPrince.stability), _STABILISED)


class _StabilisedLeg(_Leg):
    mode = _STABILISED

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
        self.work = torch.where(wanted, 0.0, self.work)
        self.batch.evaluations += count

    def solver(self) -> Chebyshev | ExtrapolatedChebyshev:
        return Chebyshev(self.radius) if self.order == 2 else ExtrapolatedChebyshev(self.radius, self.order)

    def judge(self, h: Tensor, good: Tensor, step: Step) -> None:
        self.batch.stabilised += good
        if self.switch:
            # Below this the explicit method does the same step with fewer evaluations and three orders more.
            cheap = self.batch.h * self.radius < 0.5 * DormandPrince.stability
            self.count = torch.where(good, torch.where(cheap, self.count + 1, 0), self.count)
            back = self.open & (self.count >= 10)
            self.batch.patience[back] *= 4  # before it comes here again
            self.change(back, _EXPLICIT)
        fresh = self.work == 0
        self.work += step.evaluations
        # A step far beyond the interval of stability is rejected: measure again before the next, unless it was just done.
        stale = self.open & ((self.work >= 100) | (~good & ~fresh))
        if bool(stale.any()):
            self._measure(stale)


class _FixedLeg(_Leg):
    mode, order, error_order = _FIXED, RungeKutta4.order, RungeKutta4.order + 1

    def begin(self) -> None:
        self.age = 0
        if self.control.step is not None:
            self.batch.h.fill_(self.control.step)
            return
        self.direction = _anywhere(self.f)
        self._measure()

    def _measure(self) -> None:
        radius, self.direction, count = spectral_radius(self.field, self.batch.y, self.f, self.direction, self.open)
        self.batch.evaluations += count
        self.batch.h = torch.where(self.open, 1 / (_MARGIN * radius.clamp(min=1e-12)), self.batch.h)

    def solver(self) -> RungeKutta4:
        return RungeKutta4()

    def size(self, step: Step, y0: Tensor) -> Tensor:
        """A leash instead of an error: across a kink the spectral radius can jump, and no step may move far."""
        return (step.y - y0).norm(dim=1) / (_LEASH * y0.norm(dim=1) + self.control.atol)

    def _next_size(self, h: Tensor, error: Tensor, good: Tensor) -> None:
        self.batch.h = torch.where(good | ~self.open, self.batch.h, h / 2)

    def judge(self, h: Tensor, good: Tensor, step: Step) -> None:
        self.age += 1
        if self.control.step is None and self.age % 25 == 0 and bool(self.open.any()):
            self._measure()
