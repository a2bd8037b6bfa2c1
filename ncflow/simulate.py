"""`simulate`: integrate the gradient flow of a model, many lanes at once, into a `Trajectory`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncflow import initial as initial_state
from ncflow import metrics
from ncflow.errors import BadInput, require
from ncflow.events import Crossing
from ncflow.flows import Flow, GramFlow, choose
from ncflow.integrators import METHODS, Batch, Control, Inside, integrate
from ncflow.interventions import Rescale
from ncflow.model import UFM, DeepLinear
from ncflow.provenance import provenance
from ncflow.record import build
from ncflow.trajectory import Status, Trajectory

DEFAULT_SAVES = 256


def simulate(
    model: UFM | DeepLinear,
    *,
    seeds: Iterable[int] = (0,),
    initial: dict[str, Any] | None = None,
    until: float | None = None,
    save_at: Sequence[float] | None = None,
    rtol: float = 1e-8,
    atol: float = 1e-12,
    flow: str = "auto",
    method: str = "auto",
    interventions: Sequence[Rescale] = (),
    events: Sequence[Crossing] = (Crossing(),),
    rest: float | None = None,
    max_steps: int = 1_000_000,
    device: str | torch.device = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Trajectory:
    """Integrate dx/dt = -dL/dx (features at speed theta) from t = 0.

    Args:
        model: `UFM` or `DeepLinear`; each of its lanes (sequences in decay or mobility) is run for every seed.
        seeds: whole numbers; the initial state is a function of the seed and the model's shape (`initial.draw`).
        initial: instead of seeds: {"H": (p, N), "W": [W_1 .. W_M], "b": (K,)}, each optionally with a leading lane axis.
        until: flow time of the end; may be left out when `save_at` is given.
        save_at: increasing times to record; default 0 and 256 times spaced evenly in the logarithm up to `until`.
        rtol, atol: tolerances of every step, relative to each number of the state.
        flow: "full", "gram" (linear networks on fixed data, no cost in N) or "auto".
        method: "dopri5" (explicit, order 5), "rkc2" (stabilised, order 2) or "auto" (switches lane by lane).
        interventions: `Rescale`s, applied at their time.
        events: `Crossing`s to locate; their times and fn there are in the record (`event_time`, `event_fn`).
        rest: a lane stops once rms(dy/dt) <= rest * rms(y); None never stops early.
        max_steps: steps that a lane may take; a lane that needs more is kept and marked so.
        device: a torch device.
        progress: called with the fraction of the time done by the slowest lane.

    Returns:
        Trajectory with dims (lane, time[, layer]): metrics of `metrics.NAMES`, `energy`, `weight_norm`, `bias_norm`,
        `layer_feature_norm`; per lane `status`, `t_end`, `steps` .... Times a lane did not reach are NaN; a lane that
        came to rest keeps its last state for the times after.

    Raises:
        BadInput: an argument outside what is accepted; the message is one line that names it.
    """
    require(isinstance(model, UFM | DeepLinear), "model", type(model).__name__, "a UFM or a DeepLinear")
    times = _times(until, save_at)
    for name, value in (("rtol", rtol), ("atol", atol)) + ((("rest", rest),) if rest is not None else ()):
        require(_is_number(value) and 0 < value < 1, name, value, "a number between 0 and 1")
    require(isinstance(max_steps, int) and max_steps > 0, "max_steps", max_steps, "a whole number greater than 0")
    require(method in METHODS, "method", method, f"one of {', '.join(METHODS)}")
    place = find_device(device)
    blocks, lane, seed = _lanes(model, seeds, initial)
    stops = _stops(model, interventions, float(times[-1]), len(lane))
    chosen = choose(flow, model, torch.as_tensor(lane, device=place), place)
    blocks = {name: value.to(place) for name, value in blocks.items()}
    y = chosen.pack_initial(blocks) if isinstance(chosen, GramFlow) else chosen.layout.pack(blocks)
    batch = Batch.start(y)
    recorder = _Recorder(chosen, batch, times, tuple(events), progress)
    control = Control(rtol, atol, rest, max_steps, method)
    with torch.no_grad():
        now = 0.0
        for at, changes in stops:
            if at > now:
                integrate(chosen, batch, at, control, recorder)
                now = at
            for layer, alpha in changes:
                _rescale(chosen, batch, layer, torch.as_tensor(alpha, device=place))
            if now == 0:
                recorder.begin()
        batch.status[batch.status < 0] = Status.FINISHED
        recorder.finish()
    settings = {"flow": chosen.name, "method": method, "rtol": rtol, "atol": atol, "rest": rest,
                "interventions": [repr(i) for i in interventions], "device": place.type}
    return build(model, chosen, batch, recorder, lane, seed, provenance(model=describe(model), **settings))


def describe(model: UFM | DeepLinear) -> dict[str, Any]:
    """The fields of a model as JSON-ready values; data arrays by shape."""
    out: dict[str, Any] = {"kind": type(model).__name__}
    for name in model.__dataclass_fields__:
        value = getattr(model, name)
        out[name] = f"array {value.shape}" if isinstance(value, np.ndarray) else (
            value if isinstance(value, int | float | str | tuple) else repr(value))
    return out


def find_device(device: str | torch.device) -> torch.device:
    """The torch device called `device`, or `BadInput` when this machine lacks it."""
    try:
        place = torch.device(device)
        torch.zeros(1, device=place)
    except Exception as e:
        reason = str(e).splitlines()[0][:100]
        raise BadInput("device", str(device), f'a device of this machine, such as "cpu" ({reason})') from None
    return place


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _times(until: float | None, save_at: Sequence[float] | None) -> np.ndarray:
    if save_at is not None:
        try:
            times = np.asarray(save_at, dtype=float)
        except (TypeError, ValueError):
            raise BadInput("save_at", save_at, "a sequence of numbers") from None
        good = times.ndim == 1 and times.size > 0 and np.isfinite(times).all()
        require(bool(good and times[0] >= 0 and (np.diff(times) > 0).all() and times[-1] > 0), "save_at", save_at,
                "finite, not negative, strictly increasing times")
        if until is not None:
            require(_is_number(until) and np.isfinite(until) and until >= times[-1] * (1 - 1e-12), "until", until,
                    f"at least the last of save_at, {times[-1]:g}")
            times = times if until <= times[-1] else np.append(times, float(until))
        return times
    require(until is not None and _is_number(until) and 0 < until < float("inf"), "until", until,
            "a finite flow time greater than 0 (or give save_at)")
    assert until is not None
    return np.concatenate([[0.0], until * np.logspace(-6, 0, DEFAULT_SAVES)])


def _lanes(model, seeds: Iterable[int], initial: dict[str, Any] | None) -> tuple[dict[str, Tensor], np.ndarray, np.ndarray]:
    """Initial blocks, the model lane of every lane, and its seed (-1 where the state was given)."""
    if initial is None:
        seeds = [seeds] if isinstance(seeds, int | np.integer) else list(seeds)
        for s in seeds:
            require(isinstance(s, int | np.integer) and not isinstance(s, bool) and s >= 0, "seeds", s,
                    "whole numbers, not negative")
        require(len(seeds) > 0, "seeds", seeds, "at least one seed")
        states = [initial_state.draw(model, s) for s in seeds]
        blocks = {name: torch.stack([s[name] for s in states]) for name in states[0]}
        repeat = {name: value.repeat(model.lanes, *[1] * (value.ndim - 1)) for name, value in blocks.items()}
        return repeat, np.repeat(np.arange(model.lanes), len(seeds)), np.tile(np.asarray(seeds), model.lanes)
    blocks, count = initial_state.given(model, initial)
    require(count == 1 or model.lanes in (1, count), "initial", f"{count} lanes",
            f"1 lane or as many as decay and mobility span, {model.lanes}")
    lanes = max(count, model.lanes)
    blocks = {name: value.expand(lanes, *value.shape[1:]) for name, value in blocks.items()}
    return blocks, np.arange(lanes) % model.lanes, np.full(lanes, -1)


def _stops(model, interventions: Sequence[Rescale], end: float, lanes: int) -> list[tuple[float, list]]:
    """Times at which the integration pauses, in order, with the (block, alpha (lanes,)) to apply there."""
    changes: dict[float, list] = {0.0: [], end: []}
    for change in interventions:
        require(isinstance(change, Rescale), "interventions", change, "a sequence of Rescale")
        require(change.at <= end, "intervention.at", change.at, f"at most the end of the run, {end:g}")
        if change.layer == "features":
            require(isinstance(model, UFM), "intervention.layer", change.layer, "a UFM, whose features are free")
            block = "H"
        else:
            require(-model.layers <= change.layer < model.layers, "intervention.layer", change.layer,
                    f"an index into the {model.layers} weight layer(s), from {-model.layers} to {model.layers - 1}")
            block = f"W_{change.layer % model.layers + 1}"
        alpha = np.atleast_1d(np.asarray(change.alpha, dtype=float))
        require(alpha.size in (1, lanes), "intervention.alpha", change.alpha, f"one number or one per lane ({lanes})")
        changes.setdefault(change.at, []).append((block, np.broadcast_to(alpha, (lanes,)).copy()))
    return sorted(changes.items())


def _rescale(flow: Flow, batch: Batch, block: str, alpha: Tensor) -> None:
    y = batch.y.clone()
    part = flow.layout.unpack(y)[block]
    part *= alpha.reshape(-1, *[1] * (part.ndim - 1))
    batch.y = torch.where((batch.status < 0)[:, None], y, batch.y)


class _Recorder:
    """Measures lanes at the recorded times and locates events; called by the driver after every step."""

    def __init__(self, flow: Flow, batch: Batch, times: np.ndarray, events: tuple[Crossing, ...], progress):
        for event in events:
            require(isinstance(event, Crossing), "events", event, "a sequence of Crossing")
        self.flow, self.batch, self.events, self.progress = flow, batch, events, progress
        self.times = torch.as_tensor(times, device=batch.y.device)
        lanes = len(batch.y)
        self.columns: dict[str, Tensor] = {}
        self.next = torch.zeros(lanes, dtype=torch.int64, device=batch.y.device)
        self.event_time = batch.y.new_full((lanes, len(events)), torch.nan)
        self.event_fn = self.event_time.clone()
        self.level = batch.y.new_zeros(lanes, len(events))
        self.names = [e.metric for e in events]
        self.logs = batch.y.new_tensor([np.log(e.level) for e in events])
        self.signs = batch.y.new_tensor([1.0 if e.falling else -1.0 for e in events])

    def begin(self) -> None:
        """Measure t = 0 (after interventions there); an event that already holds happened at 0."""
        every = torch.arange(len(self.batch.y), device=self.batch.y.device)
        if float(self.times[0]) == 0:
            self._store(every, self.batch.y)
        if self.events:
            self.level, fn = self._levels(self.flow, self.batch.y)
            self._event(every, self.level <= 0, torch.zeros_like(self.batch.t), fn)

    def _event(self, lanes: Tensor, happened: Tensor, time: Tensor, fn: Tensor) -> None:
        new = happened & self.event_time[lanes].isnan()
        self.event_time[lanes] = torch.where(new, time[:, None], self.event_time[lanes])
        self.event_fn[lanes] = torch.where(new, fn[:, None], self.event_fn[lanes])

    def _levels(self, flow: Flow, y: Tensor) -> tuple[Tensor, Tensor]:
        """(lanes, events) signed log distance to each level, positive before the crossing; and fn."""
        values = metrics.from_moments(flow.moments(y), flow.head(y), names=[*self.names, "fn"])
        logs = torch.stack([values[name].log() for name in self.names], 1)
        return self.signs * (logs - self.logs), values["fn"]

    def __call__(self, inside: Inside) -> None:
        if self.events:
            self._look_for_events(inside)
        while True:
            step = self.next[inside.lanes]
            due = self.times[step.clamp(max=len(self.times) - 1)]
            rows = (inside.accepted & (step < len(self.times)) & (due <= inside.t1)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            end = due[rows] >= inside.t1[rows]
            y = inside.step.y[rows]
            if not bool(end.all()):
                within = rows[~end]
                y[~end] = inside.land(within, due[within])
            self._store(inside.lanes[rows], y)
            if self.progress is not None:
                self.progress(float(self.times[(self.next - 1).clamp(min=0)].min() / self.times[-1]))

    def _look_for_events(self, inside: Inside) -> None:
        lanes = inside.lanes
        after, fn = self._levels(self.flow.select(lanes), inside.step.y)
        before = self.level[lanes]
        crossed = inside.accepted[:, None] & (before > 0) & (after <= 0) & self.event_time[lanes].isnan()
        if bool(crossed.any()):
            for e in crossed.any(0).nonzero().squeeze(1).tolist():
                rows = crossed[:, e].nonzero().squeeze(1)
                self._locate(inside, rows, e, before[rows, e], after[rows, e], fn[rows])
        self.level[lanes] = torch.where(inside.accepted[:, None], after, before)

    def _locate(self, inside: Inside, rows: Tensor, e: int, before: Tensor, after: Tensor, fn: Tensor) -> None:
        """Root of the level inside the step: bracketed on the dense output, then polished on steps of their own."""
        lanes, flow = inside.lanes[rows], self.flow.select(inside.lanes[rows])
        t0, h = inside.t0[rows], inside.t1[rows] - inside.t0[rows]
        theta = _root(lambda x: self._levels(flow, inside.step.interpolate(x, rows))[0][:, e], before, after)
        slope = (after - before).clamp(max=-1e-300) / h
        time, value = t0 + theta * h, fn
        for _ in range(3):
            level, value = self._levels(flow, inside.land(rows, time))
            shift = (-level[:, e] / slope).nan_to_num(0.0)
            time = torch.minimum(torch.maximum(time + shift, t0), t0 + h)
        self.event_time[lanes, e] = time
        self.event_fn[lanes, e] = value

    def _store(self, lanes: Tensor, y: Tensor) -> None:
        """Measure the states `y` of `lanes` into the next column of each."""
        for name, value in measure(self.flow.select(lanes), y).items():
            if name not in self.columns:
                shape = (len(self.batch.y), len(self.times), *value.shape[1:])
                self.columns[name] = value.new_full(shape, torch.nan)
            self.columns[name][lanes, self.next[lanes]] = value
        self.next[lanes] += 1

    def finish(self) -> None:
        """A lane at rest stays where it is: its last state holds for the times that remain."""
        rest = (self.batch.status == Status.AT_REST).nonzero().squeeze(1)
        if len(rest) == 0:
            return
        last = measure(self.flow.select(rest), self.batch.y[rest])
        later = self.times[None, :] > self.batch.t[rest, None]
        for name, value in last.items():
            column = self.columns[name]
            mask = later.reshape(*later.shape, *[1] * (value.ndim - 1))
            column[rest] = torch.where(mask, value[:, None], column[rest])


def _root(g: Callable[[Tensor], Tensor], g0: Tensor, g1: Tensor) -> Tensor:
    """Elementwise root in [0, 1] of a function with g(0) = g0 > 0 >= g1 = g(1): regula falsi in the Illinois form, which
    keeps the bracket and converges superlinearly."""
    low, high, side = torch.zeros_like(g0), torch.ones_like(g0), torch.zeros_like(g0)
    x = low
    for _ in range(80):
        x = (low * g1 - high * g0) / (g1 - g0)
        x = torch.where(x.isfinite(), x, (low + high) / 2).clamp(0, 1)
        value = g(x)
        before = value > 0  # the root lies to the right of x
        g1 = torch.where(before, torch.where(side > 0, g1 / 2, g1), value)
        g0 = torch.where(before, value, torch.where(side < 0, g0 / 2, g0))
        low, high = torch.where(before, x, low), torch.where(before, high, x)
        side = torch.where(before, 1.0, -1.0)
        if bool(((high - low <= 1e-13) | (value.abs() <= 1e-13)).all()):
            break
    return x


def measure(flow: Flow, y: Tensor) -> dict[str, Tensor]:
    """Everything recorded of states y: metrics, energy, norms; (lanes,) or (lanes, layers) each."""
    seen = flow.observe(y)
    if seen.features is None:
        out = metrics.from_moments(seen.moments, seen.weights[-1], seen.bias)
    else:
        out = metrics.compute(seen.features, flow.labels, seen.weights[-1], seen.bias)
    out["energy"] = seen.energy
    out["weight_norm"] = torch.stack([w.flatten(1).norm(dim=1) for w in seen.weights], 1)
    if seen.bias is not None:
        out["bias_norm"] = seen.bias.norm(dim=1)
    out["layer_feature_norm"] = seen.layer_feature_norms
    return out
