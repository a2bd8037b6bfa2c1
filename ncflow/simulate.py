"""`simulate`: integrate the gradient flow of a model, many lanes at once, into a `Trajectory`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncflow import initial as initial_state
from ncflow import memory, metrics
from ncflow.descent import label_steps
from ncflow.errors import BadInput, require
from ncflow.events import Crossing
from ncflow.flows import Horizon, one_layer
from ncflow.integrators import METHODS, Control
from ncflow.interventions import Rescale
from ncflow.job import Job
from ncflow.model import UFM, DeepLinear, Isotropic
from ncflow.optimisers import Phase
from ncflow.provenance import provenance
from ncflow.record import merge
from ncflow.trajectory import Trajectory

DEFAULT_SAVES = 256


def simulate(
    model: UFM | DeepLinear,
    *,
    seeds: Iterable[int] = (0,),
    initial: dict[str, Any] | None = None,
    until: float | None = None,
    save_at: Sequence[float] | np.ndarray | None = None,
    rtol: float = 1e-8,
    atol: float = 1e-12,
    flow: str = "auto",
    method: str = "auto",
    step: float | None = None,
    phases: Sequence[Phase] = (),
    interventions: Sequence[Rescale] = (),
    events: Sequence[Crossing] = (Crossing(),),
    rest: float | None = None,
    max_steps: int = 1_000_000,
    device: str | torch.device = "cpu",
    workers: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Trajectory:
    """Integrate dx/dt = -dL/dx (features at speed theta) from t = 0.

    Args:
        model: `UFM` or `DeepLinear`; each of its lanes (sequences in decay or mobility) is run for every seed.
        seeds: whole numbers; the initial state is a function of the seed and the model's shape (`initial.draw`).
        initial: instead of seeds: {"H": (p, N), "W": [W_1 .. W_M], "b": (K,)}, each optionally with a leading lane axis; for
            linear MSE models moments may stand for H, {"M": (p, K), "scatter": s2 or (p, p)} (see `initial.given`).
        until: flow time of the end; may be left out when `save_at` is given.
        save_at: increasing times to record; default 0 and 256 times spaced evenly in the logarithm up to `until`.
        rtol, atol: tolerances of every step, relative to each number of the state.
        flow: "full"; "gram" (linear networks on fixed data, no cost in N); for linear UFMs under MSE, exact and without cost in
            N: "reduced", and where they hold "subspace", "equal_decays", "spectral"; or "auto", the smallest of these.
        method: "dopri5" (explicit, order 5), "rkc2", "rkc3", "rkc4" (stabilised, order 2 to 4), "rk4" (fixed step, for kinked
            fields) or "auto": the explicit and a stabilised one (its order by `rtol`), switching lane by lane, or "rk4" where the
            field has kinks.
        step: of "rk4"; default the inverse of the spectral radius, measured on the way.
        phases: `Phase`s of a discrete optimiser instead of the flow: time then counts full-batch steps, from the first phase on;
            `until` and `save_at` are whole numbers of steps, by default the end and about 256 of them. Tolerances are not used.
        interventions: `Rescale`s, applied at their time.
        events: `Crossing`s to locate; their times and fn there are in the record (`event_time`, `event_fn`).
        rest: a lane stops once rms(dy/dt) <= rest * rms(y); None never stops early.
        max_steps: steps that a lane may take; a lane that needs more is kept and marked so.
        device: a torch device.
        workers: processes of one thread that share the lanes of a CPU run; worth it from seconds of work on.
        progress: called with the fraction of the time done by the slowest lane.

    Returns:
        Trajectory with dims (lane, time[, layer]): metrics of `metrics.NAMES`, `energy`, `weight_norm`, `bias_norm`,
        `layer_feature_norm`; per lane `status`, `t_end`, `steps` .... Times a lane did not reach are NaN; a lane that
        came to rest keeps its last state for the times after.

    Raises:
        BadInput: an argument outside what is accepted, or more than memory holds; the message is one line that names it.
        RunFailed: a worker was ended from outside.
    """
    require(isinstance(model, UFM | DeepLinear), "model", type(model).__name__, "a UFM or a DeepLinear")
    times = _step_times(phases, until, save_at) if len(phases) else _times(until, save_at)
    for name, value in (("rtol", rtol), ("atol", atol)) + ((("rest", rest),) if rest is not None else ()):
        require(_is_number(value) and 0 < value < 1, name, value, "a number between 0 and 1")
    whole = isinstance(max_steps, int | np.integer) and not isinstance(max_steps, bool)
    require(whole and max_steps > 0, "max_steps", max_steps, "a whole number greater than 0")
    for name, value, kind in (("interventions", interventions, Rescale), ("events", events, Crossing),
                              ("phases", phases, Phase)):
        require(isinstance(value, Sequence) and all(isinstance(v, kind) for v in value), name, value,
                f"a sequence of {kind.__name__}")
    require(step is None or (_is_number(step) and 0 < step < float("inf")), "step", step, "a number greater than 0")
    require(method in METHODS, "method", method, f"one of {', '.join(METHODS)}")
    place = find_device(device)
    whole = isinstance(workers, int | np.integer) and not isinstance(workers, bool)
    require(whole and workers > 0 and (workers == 1 or place.type == "cpu"), "workers", workers,
            "a whole number greater than 0, and 1 where the device is not the CPU")
    drawn = _seeds(seeds) if initial is None else []
    numbers = sum(int(np.prod(shape)) for shape in model.block_shapes.values())  # as drawn, and stacked
    memory.check(16 * len(drawn) * numbers, torch.device("cpu"), len(drawn) * model.lanes, len(times))
    blocks, row, lane, seed = _lanes(model, drawn, initial)
    _locatable(model, events, samples="M" not in blocks and not isinstance(getattr(model, "inputs", None), Isotropic))
    stops = _stops(model, interventions, float(times[-1]), len(lane))
    # What is kept is measured under the loss of its phase, so a phase's end is a pause too.
    for at in np.cumsum([p.steps for p in phases], dtype=float).tolist():
        stops.setdefault(at, [])
    if len(phases):
        require(flow in ("auto", "full"), "flow", flow, '"auto" or "full" with an optimiser')
        flow = "full"
    settings = {"interventions": [repr(i) for i in interventions], "device": place.type}
    settings |= {"phases": [p.config() for p in phases]} if len(phases) else {
        "method": method, "rtol": rtol, "atol": atol, "rest": rest}
    job = Job(model, flow, blocks, lane, row, seed, np.arange(len(lane)), len(lane), times, stops, events,
              Control(rtol, atol, rest, max_steps, method, step), phases,
              Horizon(float(times[-1]), bool(interventions)), provenance(model=describe(model), **settings), place)
    runs, order = job.run(progress) if workers == 1 else job.share(workers, progress)
    run = runs[0] if len(runs) == 1 else merge(runs, order)
    return label_steps(run, phases) if len(phases) else run


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


def _times(until: float | None, save_at: Sequence[float] | np.ndarray | None) -> np.ndarray:
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


def _step_times(phases: Sequence[Phase], until: float | None, save_at: Sequence[float] | np.ndarray | None) -> np.ndarray:
    """Recorded steps of a run of `phases`: whole numbers, the last step included."""
    end = sum(p.steps for p in phases if isinstance(p, Phase))
    require(until in (None, end), "until", until, f"{end}, the steps of all phases, or left out")
    if save_at is not None:
        times = _times(end, save_at)
        require(bool((times == np.round(times)).all()), "save_at", save_at, "whole numbers of steps")
        return times
    ends = np.cumsum([p.steps for p in phases])  # where phases begin counts: t_nc_in_phase
    return np.unique(np.concatenate([[0], ends, np.logspace(0, np.log10(end), DEFAULT_SAVES).round()]))


def _seeds(seeds: Any) -> list[int]:
    seeds = list(seeds) if isinstance(seeds, Iterable) else [seeds]
    for s in seeds:
        whole = isinstance(s, int | np.integer) and not isinstance(s, bool)
        require(whole and bool(s >= 0), "seeds", s, "whole numbers, not negative")
    require(len(seeds) > 0, "seeds", seeds, "at least one seed")
    return seeds


def _lanes(model, seeds: list[int], initial: dict[str, Any] | None
           ) -> tuple[dict[str, Tensor], np.ndarray, np.ndarray, np.ndarray]:
    """Initial states; and of every lane which of them it starts from, its model lane, and its seed (-1: state given)."""
    if initial is None:
        states = [initial_state.draw(model, s) for s in seeds]
        blocks = {name: torch.stack([s[name] for s in states]) for name in states[0]}
        row = np.tile(np.arange(len(seeds)), model.lanes)
        return blocks, row, np.repeat(np.arange(model.lanes), len(seeds)), np.asarray(seeds)[row]
    blocks, count = initial_state.given(model, initial)
    require(count == 1 or model.lanes in (1, count), "initial", f"{count} lanes",
            f"1 lane or as many as decay and mobility span, {model.lanes}")
    lanes = max(count, model.lanes)
    return blocks, np.arange(lanes) % count, np.arange(lanes) % model.lanes, np.full(lanes, -1)


def _locatable(model: UFM | DeepLinear, events: Sequence[Crossing], samples: bool) -> None:
    """Refuse events on metrics that need what the model or its state does not have."""
    for event in events:
        needs = metrics.METRICS[event.metric].needs if event.metric in metrics.METRICS else ()
        require(samples or "samples" not in needs, "event.metric", event.metric,
                "one that moments determine, as the state has no samples")
        require("loss" not in needs or one_layer(model), "event.metric", event.metric,
                "with a UFM of one layer under MSE, head and features free")


def _stops(model, interventions: Sequence[Rescale], end: float, lanes: int) -> dict[float, list]:
    """Times at which the integration pauses, with the (block, alpha (lanes,)) to apply there."""
    changes: dict[float, list] = {0.0: [], end: []}
    for change in interventions:
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
    return changes
