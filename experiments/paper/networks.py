"""One trained network as an experiment sees it, whether we trained it or its log was published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.sweeps.catalogue import Held
from realnets import Lane, Outcome, TwoPhase
from theory import feature_norm_from_head

Array = NDArray[np.float64]
#: The authors look at their networks every so many epochs.
CADENCE = 10


@dataclass(frozen=True)
class Onset:
    """When a network collapsed, if it did.

    Attributes:
        t_nc: first epoch looked at with NC1 below the threshold, NaN if there is none up to `horizon` (a censored time).
        phase, lr, fn: the phase (0 if none), learning rate (NaN where it is not known) and fn there.
        horizon: last epoch looked at.
        threshold, nc1: what was asked for.
    """

    t_nc: float
    phase: int
    lr: float
    fn: float
    horizon: float
    threshold: float
    nc1: str

    @property
    def happened(self) -> bool:
        return bool(np.isfinite(self.t_nc))


@dataclass(frozen=True, eq=False)
class Network:
    """One network over its epochs.

    Attributes:
        run: id of the run, or name of the log; `folder` that of the run, empty for a log.
        seed: of its initialisation.
        time: (T,) epochs since the start of the run, ascending; `phase` (T,) 1 cross-entropy, 2 the second loss.
        values: name -> (T,) what was measured; NaN where it was not. "fn", "nc1_trace_ratio", "learning_rate", ...
        losses: of each phase.
        layers: name -> (T, M) norms of the layers, of our runs.
        end: facts about the end that only our runs have: "gram" (K, K), "outcome"; with a third stage also "fn_inf" (NaN
            where a lane did not come to rest), and "rest", name -> last value in it.
        protocol, lane: of our runs.
        device: where it was trained.
    """

    run: str
    seed: int
    time: Array
    phase: NDArray[np.int64]
    values: Mapping[str, Array]
    losses: Mapping[int, str]
    folder: str = ""
    layers: Mapping[str, Array] = field(default_factory=dict)
    end: Mapping[str, Any] = field(default_factory=dict)
    protocol: TwoPhase | None = None
    lane: Lane | None = None
    device: str = ""

    @classmethod
    def of(cls, held: Held, lane: Lane) -> Network:
        """The network of `lane` in a finished run, without a third stage."""
        protocol = held.setting
        assert isinstance(protocol, TwoPhase)
        record = held.record()
        data = record.data.isel(lane=protocol.lanes.index(lane))
        phase = data["phase"].values.astype(np.int64)
        keep = phase <= 2
        values = {str(n): data[n].values[keep].astype(np.float64) for n in data if n != "phase" and data[n].dims == ("time",)}
        layers = {str(n): data[n].values[keep] for n in data if data[n].dims == ("time", "layer")}
        end: dict[str, Any] = {"gram": data["class_mean_gram"].values, "outcome": Outcome(int(data["outcome"]))}
        if "fn_inf" in data:
            end["fn_inf"] = float(data["fn_inf"])
            end["rest"] = {str(n): _last(data[n].values) for n in data if n != "phase" and data[n].dims[:1] == ("time",)}
        time = data["time"].values.astype(np.float64)[keep]
        device = str(record.provenance.get("device", ""))
        return cls(held.run, lane.seed, time, phase[keep], values, protocol.losses, held.folder.name, layers, end, protocol, lane,
                   device)  # fmt: skip

    @property
    def fn(self) -> Array:
        return self.values["fn"]

    @property
    def nc1(self) -> Array:
        return self.values["nc1_trace_ratio"]

    def at_cadence(self, every: int = CADENCE) -> Network:
        """As if looked at every so many epochs, from the first."""
        use = (self.time % every == 0) & (self.time > 0)
        values = {name: v[use] for name, v in self.values.items()}
        layers = {name: v[use] for name, v in self.layers.items()}
        return replace(self, time=self.time[use], phase=self.phase[use], values=values, layers=layers)

    def onset(self, threshold: float = 0.01, nc1: str = "nc1_trace_ratio", *, phase: int | None = None) -> Onset:
        """When NC1, of this definition, was first seen below `threshold`; with `phase`, within that phase."""
        ratio = self.values[nc1]
        use = np.isfinite(ratio) if phase is None else np.isfinite(ratio) & (self.phase == phase)
        below = np.flatnonzero(use & (ratio < threshold))
        seen = self.time[np.isfinite(self.values["fn"])]
        horizon = float(seen[-1]) if len(seen) else np.nan
        if not len(below):
            return Onset(np.nan, 0, np.nan, np.nan, horizon, threshold, nc1)
        k = int(below[0])
        rate = self.values.get("learning_rate")
        return Onset(float(self.time[k]), int(self.phase[k]), np.nan if rate is None else float(rate[k]), float(self.fn[k]),
                     horizon, threshold, nc1)  # fmt: skip

    def last(self, name: str) -> float:
        """The last value that was measured, NaN if there is none."""
        seen = self.values.get(name, np.array([]))
        seen = seen[np.isfinite(seen)]
        return float(seen[-1]) if len(seen) else np.nan

    def in_phase(self, phase: int) -> tuple[Array, Array, Array]:
        """(time, fn, NC1) of one phase, where they were measured."""
        use = (self.phase == phase) & np.isfinite(self.fn) & (self.time > 0)
        return self.time[use], self.fn[use], self.nc1[use]

    @property
    def fn_from_head(self) -> float:
        """fn that stationarity implies from |W_head|_F and the shape of the class-mean Gram matrix at the end (squared error
        only); NaN where that is not known."""
        p, lane = self.protocol, self.lane
        if p is None or lane is None or lane.decay <= 0 or self.losses[int(self.phase[-1])] != "mse":
            return np.nan
        gram = np.asarray(self.end["gram"], dtype=np.float64)  # at the very end, as must be the head
        head = (self.end["rest"] if "rest" in self.end else {"weight_norm": self.layers["weight_norm"][-1]})["weight_norm"][-1]
        if not (np.isfinite(gram).all() and np.isfinite(head) and np.trace(gram) > 0) or p.optimiser == "adamw":
            return np.nan
        bias = ("decayed" if p.decay_biases else "free") if "bias_norm_sq" in self.layers or p.biases else "none"
        found = feature_norm_from_head(head, gram / np.trace(gram), lane.decay, 1 / len(gram), bias)
        return float(found)

    @property
    def fn_inf(self) -> float:
        """fn at rest, NaN where there was no third stage or the lane did not come to rest."""
        return float(self.end.get("fn_inf", np.nan))

    @property
    def balance(self) -> float:
        """Largest residual of the norm identities at rest, over the mean squared layer norm, at the end; 0 at rest."""
        return self.last("balance")


def _last(values: Array) -> Any:
    """The last of the values (T,) or (T, M) that was measured."""
    seen = np.flatnonzero(np.isfinite(values).reshape(len(values), -1).all(1))
    return values[seen[-1]] if len(seen) else np.full(values.shape[1:], np.nan)
