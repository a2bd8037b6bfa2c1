"""The recorder: what a simulation writes down, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ncflow import metrics
from ncflow.events import OF_STATE, Crossing
from ncflow.flows import Flow
from ncflow.integrators import Batch, Inside
from ncflow.trajectory import Status

_TOGETHER = 2**20  # numbers of the states that are measured in one go
_DETAILED = ("fn", "cdnv")  # metrics that need more than class means and total scatter


class Recorder:
    """Keeps the states of lanes at the recorded times, measures them in bulk, and locates events.

    The driver calls it after every step. What it does to a lane does not depend on the other lanes of the batch.

    On a GPU it is asked between two looks of the host by `peek` instead, which reads nothing back.

    Attributes:
        columns: name -> (lanes, times, ...) of what has been measured, NaN where a lane did not get to.
        event_time, event_fn: (lanes, events), NaN for what did not happen.
    """

    peeking = ("next", "level")  # what `peek` replaces

    def __init__(self, flow: Flow, batch: Batch, times: Sequence[float] | np.ndarray, events: Sequence[Crossing], slots: int,
                 progress: Callable[[float], None] | None = None):
        """`slots` states are kept per lane before `flush` measures them; a pause every `slots` times is the caller's part."""
        self.flow, self.batch, self.events, self.progress = flow, batch, events, progress
        self.times = torch.as_tensor(np.asarray(times, dtype=float), device=batch.y.device)
        self.columns: dict[str, Tensor] = {}
        lanes = len(batch.y)
        self.next = torch.zeros(lanes, dtype=torch.int64, device=batch.y.device)
        self.first = 0  # time of the first slot
        self.slots = batch.y.new_full((lanes, min(slots, len(self.times)), batch.y.shape[1]), torch.nan)
        self.event_time = batch.y.new_full((lanes, len(events)), torch.nan)
        self.event_fn = self.event_time.clone()
        self.level = self.event_time.clone()  # signed log distance to each event at the last step; NaN: not known

    def resume(self, time: float) -> None:
        """Look at all running lanes anew: at the start, and after an intervention, whose effect a record at that time shows."""
        running = self.batch.running
        at = (self.times == time).nonzero().flatten().tolist()
        if at:
            self.slots[running, at[0] - self.first] = self.batch.y[running]
            self.next[running] = at[0] + 1
        if self.events:
            self.level = self._levels(self.batch.y)
            happened = running[:, None] & self.event_time.isnan() & (self.level <= 0)
            self._note(happened, self.batch.t, self.batch.y)

    def __call__(self, inside: Inside) -> None:
        if self.events:
            self._look_for_events(inside)
        while True:
            ready = self._due(inside)
            if not bool(ready.any()):
                return
            due = self.times[self.next.clamp(max=len(self.times) - 1)]
            within = ready & (due < inside.t1)
            y = inside.step.y
            if bool(within.any()):
                share = torch.where(within, (due - inside.t0) / (inside.t1 - inside.t0), 1.0)
                y = torch.where(within[:, None], inside.step.interpolate(share), y)
            self._keep(ready, y)
            if self.progress is not None:
                self.progress(float(self.next.double().mean()) / len(self.times))

    def peek(self, inside: Inside) -> Tensor:
        """Keep at most two states of each lane; returns the lanes that have more to show in this step, an event or another
        state, and have to take it again."""
        again = torch.zeros_like(inside.accepted)
        if self.events:
            after = self._levels(inside.step.y)
            again = (self._pending(inside) & (after <= 0) & ~(self.level <= 0)).any(1)
        lanes = torch.arange(len(again), device=again.device)
        for _ in range(2):  # about as many as there are steps
            ready = self._due(inside) & ~again
            due = self.times[self.next.clamp(max=len(self.times) - 1)]
            share = torch.where(ready & (due < inside.t1), (due - inside.t0) / (inside.t1 - inside.t0), torch.ones_like(due))
            y = torch.where((share < 1)[:, None], inside.step.interpolate(share), inside.step.y)
            slot = (self.next - self.first).clamp(0, self.slots.shape[1] - 1)
            self.slots[lanes, slot] = torch.where(ready[:, None], self.flow.project(y), self.slots[lanes, slot])
            self.next = self.next + ready
        again = again | self._due(inside)
        if self.events:
            self.level = torch.where((inside.accepted & ~again)[:, None], after, self.level)
        return again

    def _due(self, inside: Inside) -> Tensor:
        """(lanes,) whether a time to record is inside an accepted step."""
        due = self.times[self.next.clamp(max=len(self.times) - 1)]
        return inside.accepted & (self.next < len(self.times)) & (due <= inside.t1)

    def _keep(self, lanes: Tensor, y: Tensor) -> None:
        """Put the states `y` of the lanes in the mask into the next slot of each."""
        self.slots[lanes, self.next[lanes] - self.first] = self.flow.project(y)[lanes]
        self.next += lanes

    def hold(self, time: float) -> None:
        """Lanes that came to rest stay where they are up to `time`."""
        while bool((late := (self.batch.status == Status.AT_REST) & (self.next < self._end(time))).any()):
            self._keep(late, self.batch.y)

    def _end(self, time: float) -> int:
        return int((self.times <= time).sum())

    def flush(self, time: float) -> None:
        """Measure what has been kept; all lanes have got to `time`, or stopped before."""
        end = self._end(time)
        count = end - self.first
        if count == 0:
            return
        lanes, size = len(self.slots), self.slots.shape[2]
        states = self.slots[:, :count].reshape(-1, size)
        index = torch.arange(lanes, device=states.device).repeat_interleave(count)
        together = max(1, _TOGETHER // self.flow.numbers)
        parts = [measure(self.flow.select(i), y) for i, y in zip(index.split(together), states.split(together), strict=True)]
        for name, value in _joined(parts).items():
            value = value.unflatten(0, (lanes, count))
            if name not in self.columns:
                self.columns[name] = value.new_full((lanes, len(self.times), *value.shape[2:]), torch.nan)
            self.columns[name][:, self.first : end] = value
        self.first, self.next = end, torch.full_like(self.next, end)
        self.slots.fill_(torch.nan)

    # Events

    def _levels(self, y: Tensor) -> Tensor:
        """(lanes, events) signed log distance to each level, positive before the crossing; NaN where undefined."""
        wanted = {e.metric for e in self.events}
        names = [e.metric for e in self.events if e.metric not in (*OF_STATE, *metrics.NEEDS_SAMPLES)]
        values: dict[str, Tensor] = {}
        if names:
            moments = self.flow.moments(y, detailed=any(name in _DETAILED for name in names))
            values |= metrics.from_moments(moments, self.flow.head(y), names=names, **self.flow.choices())
        if wanted & {"energy", *metrics.NEEDS_SAMPLES}:
            parts = torch.arange(len(y), device=y.device).split(max(1, _TOGETHER // self.flow.numbers))
            values |= _joined([self._observed(self.flow.select(i), y[i], wanted) for i in parts])
        if "stationarity" in wanted:
            values["stationarity"] = self.flow.field(y).norm(dim=1) / y.norm(dim=1)
        # Rounding can take a metric that is zero below it.
        logs = [(values[e.metric].clamp(min=0) / e.level).log() for e in self.events]
        return torch.stack([x if e.falling else -x for x, e in zip(logs, self.events, strict=True)], 1)

    @staticmethod
    def _observed(flow: Flow, y: Tensor, wanted: set[str]) -> dict[str, Tensor]:
        """What of `wanted` takes all samples."""
        seen, names = flow.observe(y), [name for name in metrics.NEEDS_SAMPLES if name in wanted]
        found = metrics.compute(seen.features, flow.labels, seen.weights[-1], seen.bias, names=names) if names else {}
        return found | {"energy": seen.energy}

    def _note(self, happened: Tensor, time: Tensor, y: Tensor) -> None:
        """Write down the events of the mask `happened` (lanes, events), all at `time` and `y` of their lane."""
        lanes = happened.any(1).nonzero()
        if len(lanes):
            fn = torch.full_like(time, torch.nan)
            for i in lanes:  # one at a time, as norms may take a pass over samples that the state does not hold
                fn[i] = metrics.from_moments(self.flow.select(i).moments(y[i], detailed=True), names=["fn"])["fn"]
            self.event_time = torch.where(happened, time[:, None], self.event_time)
            self.event_fn = torch.where(happened, fn[:, None], self.event_fn)

    def _pending(self, inside: Inside) -> Tensor:
        """(lanes, events) what has not happened yet, where a step was accepted."""
        return inside.accepted[:, None] & self.event_time.isnan()

    def _look_for_events(self, inside: Inside) -> None:
        pending = self._pending(inside)
        if not bool(pending.any()):
            return
        after, before = self._levels(inside.step.y), self.level
        # A level that was undefined before the step (features that start at zero) counts as not crossed.
        crossed = pending & (after <= 0) & ~(before <= 0)
        for e in range(len(self.events)):
            if bool(crossed[:, e].any()):
                self._locate(inside, crossed[:, e], e, before[:, e], after[:, e])
        self.level = torch.where(inside.accepted[:, None], after, before)

    def _locate(self, inside: Inside, lanes: Tensor, e: int, before: Tensor, after: Tensor) -> None:
        """Root of the level on the interpolant of the step, which is as accurate as the step."""
        share = root(lambda x: self._levels(inside.step.interpolate(x))[:, e], before, after, lanes)
        happened = torch.zeros_like(self.event_time, dtype=torch.bool)
        happened[:, e] = lanes
        self._note(happened, inside.t0 + share * (inside.t1 - inside.t0), inside.step.interpolate(share))


def root(g: Callable[[Tensor], Tensor], g0: Tensor, g1: Tensor, wanted: Tensor) -> Tensor:
    """Elementwise root in [0, 1] of a function with g(0) = g0 > 0 >= g1 = g(1), where `wanted`: regula falsi in the Illinois
    form, which keeps the bracket and converges superlinearly; halving where values are not finite."""
    low, high, side = torch.zeros_like(g0), torch.ones_like(g0), torch.zeros_like(g0)
    x = low
    for _ in range(80):
        x = (low * g1 - high * g0) / (g1 - g0)
        x = torch.where(x.isfinite(), x, (low + high) / 2).clamp(0, 1)
        value = g(x)
        right = value > 0  # of x lies the root
        g1 = torch.where(right, torch.where(side > 0, g1 / 2, g1), value)
        g0 = torch.where(right, value, torch.where(side < 0, g0 / 2, g0))
        low, high = torch.where(right, x, low), torch.where(right, high, x)
        side = torch.where(right, 1.0, -1.0)
        if bool((~wanted | (high - low <= 1e-13) | (value.abs() <= 1e-13)).all()):
            break
    return x


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Values of lanes that were looked at in parts."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def measure(flow: Flow, y: Tensor) -> dict[str, Tensor]:
    """Everything recorded of states y: metrics, energy, norms; (lanes,) or (lanes, layers) each."""
    seen = flow.observe(y)
    if seen.moments is not None:
        out = metrics.from_moments(seen.moments, seen.weights[-1], seen.bias, **flow.choices())
    else:
        out = metrics.compute(seen.features, flow.labels, seen.weights[-1], seen.bias, **flow.choices())
    out["energy"] = seen.energy
    out["weight_norm"] = torch.stack([w.flatten(1).norm(dim=1) for w in seen.weights], 1)
    if seen.bias is not None:
        out["bias_norm"] = seen.bias.norm(dim=1)
    out["layer_feature_norm"] = seen.layer_feature_norms
    return out
