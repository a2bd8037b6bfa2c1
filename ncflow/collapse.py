"""`summarise`: from a recorded trajectory, simulated or trained, to one `Collapse` per lane."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import numpy as np

from ncflow import metrics
from ncflow.errors import require
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
            Regime.ZERO_FEATURES: "NC1 passed the threshold, but only while the features vanished",
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
        t_nc_in_phase: the same, from the start of the phase it fell in.
        phase: loss phase of t_nc, 1 cross-entropy or 2 MSE; 0 where a run has no phases or did not collapse.
        fn_star: fn at t_nc, which is what the paper measures.
        fn_end, nc1_end: fn and NC1 at the end of the record.
        fn_drift: relative change of fn over the last tenth of the record.
        fn_inf: fn at rest: fn_end if the lane came to rest or |fn_drift| < 1e-3, else NaN.
        rate: -d log NC1/dt, fitted to the second half of what is above 1e-13.
        fn_rate: -d log |fn - fn_inf|/dt, fitted where it is between 1e-6 and 1e-2 of fn_inf; NaN unless at rest.
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
        """JSON-ready values."""
        return asdict(self) | {"regime": self.regime.value, "status": self.status.name.lower()}


def summarise(
    run: Trajectory, *, nc1: str = "nc1_trace_ratio", threshold: float = 0.01, zero: float = 1e-3
) -> list[Collapse]:
    """One `Collapse` per lane of `run`.

    Args:
        nc1: which definition of NC1, a name in `metrics.NAMES` that the record holds.
        threshold: level of NC1 between 0 and 1.
        zero: a collapse with fn below this is `Regime.ZERO_FEATURES`: NC1, a ratio, can fall while everything vanishes.

    Raises:
        BadInput: an unknown metric, or a threshold outside (0, 1).
    """
    known = [n for n in metrics.NAMES if n.startswith(("nc1", "cdnv")) and n in run.data]
    require(nc1 in known, "nc1", nc1, f"one of {', '.join(known)}")
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    require(number and 0 < threshold < 1, "threshold", threshold, "a number between 0 and 1")
    return [_lane(run, i, nc1, float(threshold), zero) for i in range(run.lanes)]


def _lane(run: Trajectory, i: int, nc1: str, threshold: float, zero: float) -> Collapse:
    data = run.data.isel(lane=i)
    time, ratio, fn = data["time"].values.astype(float), data[nc1].values, data["fn"].values
    seen = np.isfinite(fn)
    status = Status(int(data["status"]))
    phases = data["phase"].values if "phase" in data else np.zeros(len(time), int)
    flow = run.data.attrs["time_kind"] == "flow"
    t_nc, fn_star, k = _first_below(data, nc1, threshold, time, ratio, fn, flow)
    phase = int(phases[k]) if k >= 0 else 0
    start = time[phases < phase].max(initial=0.0) if phase else 0.0
    last = int(np.flatnonzero(seen)[-1]) if seen.any() else 0
    tenth = np.interp(0.9 * time[last], time[seen], fn[seen]) if seen.any() else np.nan
    drift = (fn[last] - tenth) / fn[last] if fn[last] else 0.0
    settled = status is Status.AT_REST or abs(drift) < 1e-3
    regime = Regime.COLLAPSED if np.isfinite(t_nc) else Regime.NOT_COLLAPSED
    if regime is Regime.COLLAPSED and fn_star < zero:
        regime = Regime.ZERO_FEATURES
    elif regime is Regime.NOT_COLLAPSED and status not in (Status.FINISHED, Status.AT_REST):
        regime = Regime.FAILED
    fn_inf = float(fn[last]) if settled else np.nan
    return Collapse(
        seed=int(data["seed"]), decay=float(data["decay"]), nc1=nc1, threshold=threshold,
        time_kind=run.data.attrs["time_kind"], t_nc=float(t_nc), t_nc_in_phase=float(t_nc - start), phase=phase,
        fn_star=float(fn_star), fn_end=float(fn[last]), nc1_end=float(ratio[last]), fn_drift=float(drift), fn_inf=fn_inf,
        rate=_decay_rate(time, ratio, 1e-13, np.inf, half=True),
        fn_rate=_decay_rate(time, np.abs(fn / fn_inf - 1), 1e-6, 1e-2) if settled and fn_inf else np.nan,
        regime=regime, status=status,
    )


def _first_below(data, nc1: str, threshold: float, time, ratio, fn, flow: bool) -> tuple[float, float, int]:
    """(time, fn there, index of the first record at or after it); NaN and -1 if NC1 never is below the threshold."""
    from ncflow.events import Crossing

    below = np.flatnonzero(ratio < threshold)
    k = int(below[0]) if len(below) else -1
    if "event" in data.coords:
        name = Crossing("nc1_trace_ratio", threshold).name.replace("nc1_trace_ratio", nc1)
        match = np.flatnonzero(data["event"].values == name)
        if len(match):
            return float(data["event_time"].values[match[0]]), float(data["event_fn"].values[match[0]]), k
    if k < 0:
        return np.nan, np.nan, -1
    if not flow or k == 0 or not np.isfinite(ratio[k - 1]):
        return float(time[k]), float(fn[k]), k
    with np.errstate(divide="ignore"):
        a, b = np.log(ratio[k - 1] / threshold), np.log(ratio[k] / threshold)
    share = a / (a - b) if np.isfinite(b) else 1.0
    return float(time[k - 1] + share * (time[k] - time[k - 1])), float(fn[k - 1] + share * (fn[k] - fn[k - 1])), k


def _decay_rate(time, value, low: float, high: float, half: bool = False) -> float:
    """Least-squares slope of -log(value) against time where low < value < high; with `half`, over the later half of it."""
    use = np.isfinite(value) & (value > low) & (value < high)
    if half and use.any():
        use &= time >= time[use].max() / 2
    if use.sum() < 3 or np.ptp(time[use]) == 0:
        return np.nan
    return float(-np.polyfit(time[use], np.log(value[use]), 1)[0])
