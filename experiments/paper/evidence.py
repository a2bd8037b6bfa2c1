"""What came of the conditions of one group: our networks or the authors' logs, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from experiments import statistics
from experiments.paper.experiment import Condition, Experiment
from experiments.paper.networks import CADENCE, Network
from experiments.sweeps.catalogue import Catalogue
from experiments.sweeps.study import Study
from ncflow import Trajectory
from realnets import TwoPhase

#: Preset of evidence that is the authors' own.
LOGS = "published logs"
#: What `Experiment.expect` may say, by name, with a heading.
EXPECTED = {
    "from_head": "fn from head",
    "from_data": "fn, linear theory",
    "floor": "NC1 floor, linear theory",
    "flow": "fn, simulated",
    "flow_floor": "NC1, simulated",
    "batchnorm": "fn at most, BatchNorm",
}


@dataclass(frozen=True)
class Gap:
    """A seed that is not there, and why."""

    seed: int
    why: str


@dataclass(frozen=True)
class Times:
    """Collapse times of a condition's networks, of which some may never have come (NaN).

    Attributes:
        t_nc, horizon: (n,) first epoch below the threshold, and the last looked at.
        fn, phase, lr: (n,) there; NaN, 0, NaN where it did not come.
    """

    t_nc: np.ndarray
    horizon: np.ndarray
    fn: np.ndarray
    phase: np.ndarray
    lr: np.ndarray

    @property
    def n(self) -> int:
        return len(self.t_nc)

    @property
    def crossed(self) -> int:
        return int(np.isfinite(self.t_nc).sum())

    @property
    def came(self) -> np.ndarray:
        """The times that came."""
        return self.t_nc[np.isfinite(self.t_nc)]

    @property
    def fn_star(self) -> np.ndarray:
        """fn of the networks that collapsed."""
        return self.fn[np.isfinite(self.t_nc)]

    @property
    def censored(self) -> statistics.Censored:
        return statistics.censored(self.t_nc, self.horizon)

    @property
    def typical(self) -> float:
        """What conditions are ordered by: the mean if all collapsed, infinity if the median is not reached, else the median."""
        if self.n and self.crossed == self.n:
            return float(self.t_nc.mean())
        return self.censored.median if self.n and np.isfinite(self.censored.median) else np.inf


@dataclass(frozen=True, eq=False)
class Row:
    """A condition and what came of it: trained networks, or the record of a study."""

    condition: Condition
    networks: tuple[Network, ...] = ()
    gaps: tuple[Gap, ...] = ()
    record: Trajectory | None = None
    run: str = ""

    @property
    def complete(self) -> bool:
        return not self.gaps and bool(self.networks or self.record)

    def times(self, threshold: float | None = None, nc1: str = "nc1_trace_ratio", *, every: int | None = None,
              phase: int | None = None) -> Times:  # fmt: skip
        """Collapse times at `threshold` (the condition's own if None), as seen every so many epochs (None: as recorded)."""
        level = self.condition.threshold if threshold is None else threshold
        seen = [n if every is None else n.at_cadence(every) for n in self.networks]
        onsets = [n.onset(level, nc1, phase=phase) for n in seen]
        columns = [[getattr(o, name) for o in onsets] for name in ("t_nc", "horizon", "fn", "phase", "lr")]
        return Times(*(np.array(c, dtype=float) for c in columns))

    def last(self, name: str) -> np.ndarray:
        """(n,) the last value measured."""
        return np.array([n.last(name) for n in self.networks])

    @property
    def fn_end(self) -> np.ndarray:
        """fn at the end of the networks that were trained on after T_NC (many logged ones stop there)."""
        return np.array([n.last("fn") for n in self.networks if n.onset(self.condition.threshold).t_nc != n.time[-1]])


@dataclass(frozen=True, eq=False)
class Evidence:
    """The rows of one group at one preset, or of the authors' logs.

    Attributes:
        experiment: its name; `preset` or `LOGS`; `group` of the conditions.
        rows: of trained networks, in the order of the conditions; `studies` of simulations and other tasks.
        cadence: epochs between looks at which collapse times are compared, None as recorded.
    """

    experiment: str
    preset: str
    group: str
    rows: tuple[Row, ...]
    studies: tuple[Row, ...] = ()

    @property
    def complete(self) -> bool:
        return all(row.complete for row in (*self.rows, *self.studies))

    @property
    def empty(self) -> bool:
        return not any(row.networks or row.record for row in (*self.rows, *self.studies))

    @property
    def full(self) -> bool:
        """Whether a value here can be compared with the paper's."""
        return self.preset in (LOGS, "paper")

    @property
    def cadence(self) -> int | None:
        """The authors' where our collapse times stand beside theirs."""
        return CADENCE if self.full else None

    def by(self, *, threshold: float | None = None, nc1: str | None = None) -> Evidence | None:
        """As it would be with one `threshold` for every condition, or with another definition of NC1; None where that was not
        measured."""
        rows = []
        for row in self.rows:
            condition = row.condition if threshold is None else replace(row.condition, threshold=threshold)
            if nc1 is not None and any(nc1 not in n.values for n in row.networks):
                return None
            nets = row.networks if nc1 is None else tuple(
                replace(n, values={**n.values, "nc1_trace_ratio": n.values[nc1]}) for n in row.networks)  # fmt: skip
            rows.append(replace(row, condition=condition, networks=nets))
        return replace(self, rows=tuple(rows))

    def row(self, **parameters: Any) -> Row | None:
        """The one with these parameters that has networks, if there is one."""
        found = [r for r in self.rows if parameters.items() <= dict(r.condition.parameters).items() and r.networks]
        return found[0] if found else None

    @property
    def present(self) -> tuple[Row, ...]:
        """Rows that have networks."""
        return tuple(r for r in self.rows if r.networks)


def gather(experiment: Experiment, preset: str, held: Catalogue) -> list[Evidence]:
    """What `held` has for the conditions of `experiment` at `preset`, by group."""
    groups: dict[str, list[Condition]] = {}
    for condition in experiment.conditions(preset):
        groups.setdefault(condition.group, []).append(condition)
    return [_group(experiment.name, preset, group, conditions, held) for group, conditions in groups.items()]


def _group(name: str, preset: str, group: str, conditions: Sequence[Condition], held: Catalogue) -> Evidence:
    rows = [_row(c, held) for c in conditions]
    nets = tuple(r for r in rows if isinstance(r.condition.setting, TwoPhase))
    return Evidence(name, preset, group, nets, tuple(r for r in rows if isinstance(r.condition.setting, Study)))


def _row(condition: Condition, held: Catalogue) -> Row:
    setting = condition.setting
    if isinstance(setting, Study):
        run = held.find(setting)
        return Row(condition, gaps=(Gap(0, "missing"),)) if run is None else Row(condition, record=run.record(), run=run.run)
    networks, gaps = [], []
    for lane in condition.lanes:
        if (run := held.find(setting, lane)) is not None:
            networks.append(Network.of(run, lane))
        elif (part := held.find(setting, lane, finished=False)) is not None:
            gaps.append(Gap(lane.seed, f"stopped at epoch {part.done} of {part.epochs}"))
        else:
            gaps.append(Gap(lane.seed, "missing"))
    return Row(condition, tuple(networks), tuple(gaps))


def spread(values: Iterable[float], form: str = ".3f") -> str:
    """mean ± standard deviation (ddof 1) of the finite values, with the least and the greatest where n is small: for tables."""
    x = np.array([v for v in values if np.isfinite(v)])
    if not len(x):
        return "–"
    mean = format(x.mean(), form)
    return mean if len(x) == 1 else f"{mean} ± {format(x.std(ddof=1), form)}"


def collapse_text(times: Times) -> str:
    """T_NC for a table: mean ± std if every network collapsed; else how many did, with their median if half of them did; a time
    that never came is "> horizon"."""
    if not times.n:
        return "–"
    if times.crossed == times.n:
        return spread(times.t_nc, ".0f")
    beyond = f"> {times.horizon[~np.isfinite(times.t_nc)].min():.0f}"
    if not times.crossed:
        return f"{beyond} (0 of {times.n})"
    came = ", ".join(f"{t:.0f}" for t in np.sort(times.came))
    return f"{came}, {beyond} ({times.crossed} of {times.n})"
