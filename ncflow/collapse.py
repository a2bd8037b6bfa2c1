"""`summarise`: from a recorded trajectory, simulated or trained, to one `Collapse` per lane."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import numpy as np

from ncflow import metrics
from ncflow.errors import require
from ncflow.events import crossing_name
from ncflow.model import _numbers
from ncflow.trajectory import Status, Trajectory


class Regime(Enum):
    """What became of the features; the value says it for people."""

    COLLAPSED = "collapsed"
    NOT_COLLAPSED = "not collapsed"
    ZERO_FEATURES = "collapsed to zero features"
    FAILED = "failed"

    @property
    def sentence(self) -> str:
        return {
            Regime.COLLAPSED: "NC1 passed the threshold",
            Regime.NOT_COLLAPSED: "NC1 stayed above the threshold to the end of the record",
            Regime.ZERO_FEATURES: "the features vanished; NC1, a ratio, can fall all the same",
            Regime.FAILED: "the lane stopped early, see its status",
        }[self]


@dataclass(frozen=True)
class Collapse:
    """Summary of one lane. Times are flow time or epochs, as the record's `time_kind` says; NaN means "did not happen".

    Attributes:
        seed, decay: what distinguishes the lane (decay of the head).
        nc1, threshold: the definition and level of T_NC.
        t_nc: first time that NC1 is below the threshold, from the start of the run: the located event where the run tracked
            just this crossing, else interpolated in log NC1 between records (flows) or the first measured epoch (networks).
        t_nc_in_phase: the same, from the start of the phase it fell in: the last record of the phase before.
        phase: loss phase of t_nc, 1 cross-entropy or 2 MSE; 0 where a run has no phases or did not collapse.
        fn_star: fn at t_nc, which is what the paper measures.
        fn_end, nc1_end: fn and NC1 at the end of the record.
        fn_drift: relative change of fn over the last tenth of the record.
        fn_inf: fn at rest: fn_end if the lane came to rest, or did not fail and |fn_drift| < 1e-3; else NaN.
        rate: -d log NC1/dt, fitted to the second half of what is above 1e-13, up to rest.
        fn_rate: -d log |fn - fn_inf|/dt, fitted where it is below 1e-2 of fn_inf and above 1e-6 and ten drifts; NaN where
            fn_inf is.
        regime, status: what became of the features; how the lane ended.
    """

    seed: int
    decay: float
    nc1: str
    threshold: float
    time_kind: str
    t_nc: float
    t_nc_in_phase: float
    phase: int
    fn_star: float
    fn_end: float
    nc1_end: float
    fn_drift: float
    fn_inf: float
    rate: float
    fn_rate: float
    regime: Regime
    status: Status

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values; None for NaN."""
        named = asdict(self) | {"regime": self.regime.value, "status": self.status.name.lower()}
        return {name: None if value != value else value for name, value in named.items()}


def summarise(
    run: Trajectory, *, nc1: str = "nc1_trace_ratio", threshold: float = 0.01, zero: float = 1e-3
) -> list[Collapse]:
    """One `Collapse` per lane of `run`.

    Args:
        nc1: which definition of NC1, a name in `metrics.NAMES` that the record holds.
        threshold: level of NC1 between 0 and 1.
        zero: fn below this, at t_nc or at the end, is `Regime.ZERO_FEATURES`: NC1, a ratio, can fall while everything vanishes.

    Raises:
        BadInput: an unknown metric, or a threshold outside (0, 1).
    """
    known = [n for n in metrics.NAMES if n.startswith(("nc1", "cdnv")) and n in run.data]
    require(nc1 in known, "nc1", nc1, f"one of {', '.join(known)}")
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    require(number and 0 < threshold < 1, "threshold", threshold, "a number between 0 and 1")
    _numbers("zero", zero, ndim=0)
    return [_lane(run, i, nc1, float(threshold), zero) for i in range(run.lanes)]


def _lane(run: Trajectory, i: int, nc1: str, threshold: float, zero: float) -> Collapse:
    data = run.data.isel(lane=i)
    time, ratio, fn = data["time"].values.astype(float), data[nc1].values, data["fn"].values
    seen = np.isfinite(fn)
    status = Status(int(data["status"]))
    phases = data["phase"].values if "phase" in data else np.zeros(len(time), int)
    t_nc, fn_star = _first_below(data, nc1, threshold, time, ratio, fn)
    collapsed = bool(np.isfinite(t_nc))
    phase = int(phases[min(np.searchsorted(time, t_nc), len(time) - 1)]) if collapsed else 0
    start = time[phases < phase].max(initial=0.0)
    last = int(np.flatnonzero(seen)[-1]) if seen.any() else 0
    tenth = np.interp(0.9 * time[last], time[seen], fn[seen]) if seen.any() else np.nan
    drift = (fn[last] - tenth) / fn[last] if fn[last] else 0.0
    sound = status in (Status.FINISHED, Status.MAX_STEPS) and last > 0  # what broke off says nothing of rest
    settled = status is Status.AT_REST or (sound and abs(drift) < 1e-3)
    if not collapsed and (status not in (Status.FINISHED, Status.AT_REST) or not seen.any()):
        regime = Regime.FAILED
    elif fn[last] < zero or fn_star < zero:
        regime = Regime.ZERO_FEATURES
    else:
        regime = Regime.COLLAPSED if collapsed else Regime.NOT_COLLAPSED
    fn_inf = float(fn[last]) if settled else np.nan
    moving = time <= float(data["t_end"]) if status is Status.AT_REST and "t_end" in data else seen
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(fn / fn_inf - 1)
    return Collapse(
        seed=int(data["seed"]), decay=float(data["decay"]), nc1=nc1, threshold=threshold,
        time_kind=run.data.attrs["time_kind"], t_nc=float(t_nc), t_nc_in_phase=float(t_nc - start), phase=phase,
        fn_star=float(fn_star), fn_end=float(fn[last]), nc1_end=float(ratio[last]), fn_drift=float(drift), fn_inf=fn_inf,
        rate=_decay_rate(time[moving], ratio[moving], 1e-13, np.inf, half=True),
        fn_rate=_decay_rate(time[moving], distance[moving], max(1e-6, 10 * abs(drift)), 1e-2),
        regime=regime, status=status,
    )


def _first_below(data, nc1: str, threshold: float, time, ratio, fn) -> tuple[float, float]:
    """(time, fn there) of the first NC1 below the threshold, NaN if there is none: the event if the run located just this
    one, else interpolated between records of a flow, else the first record."""
    if "event" in data.coords:
        match = np.flatnonzero(data["event"].values == crossing_name(nc1, threshold))
        if len(match) and np.isfinite(data["event_time"].values[match[0]]):
            return float(data["event_time"].values[match[0]]), float(data["event_fn"].values[match[0]])
    below = np.flatnonzero(ratio < threshold)
    if len(below) == 0:
        return np.nan, np.nan
    k = int(below[0])
    if data.attrs["time_kind"] != "flow" or k == 0 or not np.isfinite(ratio[k - 1]):
        return float(time[k]), float(fn[k])
    with np.errstate(divide="ignore"):
        a, b = np.log(ratio[k - 1] / threshold), np.log(ratio[k] / threshold)
    share = a / (a - b) if np.isfinite(b) else 1.0
    return float(time[k - 1] + share * (time[k] - time[k - 1])), float(fn[k - 1] + share * (fn[k] - fn[k - 1]))


def _decay_rate(time, value, low: float, high: float, half: bool = False) -> float:
    """Least-squares slope of -log(value) against time where low < value < high; with `half`, over the later half of it."""
    use = np.isfinite(value) & (value > low) & (value < high)
    if half and use.any():
        use &= time >= time[use].max() / 2
    if use.sum() < 3 or np.ptp(time[use]) == 0:
        return np.nan
    return float(-np.polyfit(time[use], np.log(value[use]), 1)[0])
