"""The authors' own per-epoch logs, read from a folder that the user downloads (GitHub Rupawheatly/NC, folder Results).

They are a witness beside our networks and never part of this repository. `read_logs(find_logs(folder))` gives every run that is
there and names those that are not; a file that cannot be read is one clear line.

    logs = read_logs(find_logs("Results"))
    [run.t_nc(0.05) for run in logs.select("depth", depth=3)]
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from experiments.published.log_files import SPECS, SUMMARIES, SWITCH, Spec
from ncflow.errors import BadInput, require

ENVIRONMENT = "NCFLOW_LOGS"
COLUMNS = ("epoch", "nc1", "feat_norm")
#: Names in the files -> ours.
NAMES = {"feat_norm": "fn", "train": "train_accuracy", "train_acc": "train_accuracy", "test": "test_accuracy",
         "test_acc": "test_accuracy"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Log:
    """One logged run.

    Attributes:
        spec: which run it is.
        epoch: (n,) logged epochs, from the start of the run; `phase` (n,) 1 cross-entropy, 2 squared error.
        series: name -> (n,) nc1, fn, train_accuracy, test_accuracy, nc2, nc3, or the five signals; NaN where not measured (before
            99% training accuracy was seen).
    """

    spec: Spec
    epoch: np.ndarray
    phase: np.ndarray
    series: Mapping[str, np.ndarray]

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def seed(self) -> int:
        return self.spec.seed

    @property
    def condition(self) -> Mapping[str, Any]:
        return self.spec.condition

    @property
    def nc1(self) -> np.ndarray:
        return self.series["nc1"]

    @property
    def fn(self) -> np.ndarray:
        return self.series["fn"]

    @property
    def last(self) -> int:
        """The last logged epoch."""
        return int(self.epoch[-1])

    def index(self, threshold: float, phase: int | None = None) -> int | None:
        """Place of the first logged epoch with NC1 below `threshold` (in `phase` alone if given); None if there is none."""
        below = self.nc1 < threshold
        if phase is not None:
            below &= self.phase == phase
        found = np.flatnonzero(below)
        return int(found[0]) if len(found) else None

    def t_nc(self, threshold: float = 0.01, phase: int | None = None) -> float:
        """That epoch; NaN if there is none."""
        k = self.index(threshold, phase)
        return math.nan if k is None else float(self.epoch[k])

    def fn_at(self, threshold: float = 0.01, phase: int | None = None) -> float:
        """fn there; NaN if there is none."""
        k = self.index(threshold, phase)
        return math.nan if k is None else float(self.fn[k])

    def at(self, epoch: int, name: str = "fn") -> float:
        """The value of a series at a logged epoch; NaN if that epoch was not logged."""
        k = np.flatnonzero(self.epoch == epoch)
        return float(self.series[name][k[0]]) if len(k) else math.nan

    @cached_property
    def protocol(self) -> Any:
        """The `realnets.TwoPhase` that it was trained with; None where the setting is not known."""
        from realnets.protocol import preset  # training is not needed to read logs

        if self.spec.preset is None:
            return None
        return preset(self.spec.preset, seeds=(self.seed,), **self.spec.changes)

    @cached_property
    def learning_rate(self) -> np.ndarray:
        """(n,) rate during each logged epoch, by the schedule of `protocol`; NaN where that is not known."""
        p = self.protocol
        if p is None:
            return np.full(len(self.epoch), math.nan)
        since = self.epoch - np.where(self.phase == 2, p.epochs_ce, 0)
        return np.array([p.rates(int(f), int(e) - 1)[0] for f, e in zip(self.phase, since, strict=True)])


@dataclass(frozen=True, eq=False)
class Logs:
    """Every logged run of a folder.

    Attributes:
        runs: those that are there, in the order of `SPECS`; `missing` the files that are not.
        summaries: file -> its rows, as text by column.
    """

    runs: tuple[Log, ...]
    summaries: Mapping[str, tuple[Mapping[str, str], ...]]
    missing: tuple[str, ...]

    def run(self, name: str) -> Log | None:
        """The run of this name, None if its file is not there.

        Raises:
            BadInput: the authors logged no such run.
        """
        known = [s.name for s in SPECS]
        require(name in known, "log", name, f"one of {', '.join(known)}")
        return next((r for r in self.runs if r.name == name), None)

    def select(self, experiment: str | None = None, **condition: Any) -> tuple[Log, ...]:
        """The runs of an experiment with these values.

        Beside the paper's experiments there are "depth_rerun", depths 2 and 3 run again up to NC1 < 0.05, and "early_warning",
        the five-signal runs.
        """
        chosen = (r for r in self.runs if experiment in (None, *r.spec.experiments))
        return tuple(r for r in chosen if condition.items() <= r.condition.items())

    def rows(self, summary: str, **values: Any) -> tuple[Mapping[str, str], ...]:
        """Rows of a summary file whose columns have these values, compared as numbers where they are; none if it is not there."""
        require(summary in SUMMARIES, "summary", summary, f"one of {', '.join(SUMMARIES)}")
        return tuple(r for r in self.summaries.get(summary, ()) if all(_same(r[k], v) for k, v in values.items()))


def find_logs(folder: str | Path | None) -> Path | None:
    """The folder of logs: `folder`, else the environment's NCFLOW_LOGS, else None.

    Raises:
        BadInput: there is no such folder.
    """
    given = os.environ.get(ENVIRONMENT) or None if folder is None else folder
    if given is None:
        return None
    path = Path(given).expanduser()
    require(path.is_dir(), "logs" if folder is not None else ENVIRONMENT, str(given), "a folder with the authors' per-epoch logs")
    return path


def read_logs(folder: str | Path) -> Logs:
    """Every run of `folder`.

    Raises:
        BadInput: no known log is there, or a file cannot be read; the message names it.
    """
    path = Path(folder)
    runs = tuple(_read(path, spec) for spec in SPECS if (path / spec.file).is_file())
    summaries = {name: _rows(path, name, columns) for name, columns in SUMMARIES.items() if (path / name).is_file()}
    require(bool(runs), "logs", str(folder), f"a folder with files such as {SPECS[0].file} and {SPECS[1].file}; none is there")
    there = {r.spec.file for r in runs} | set(summaries)
    return Logs(runs, summaries, tuple(f for f in (*(s.file for s in SPECS), *SUMMARIES) if f not in there))


def _read(folder: Path, spec: Spec) -> Log:
    rows = _rows(folder, spec.file, COLUMNS + (("phase",) if spec.phases == "column" else ()))
    numeric = [name for name in rows[0] if name != "condition"]
    columns = {n: np.array([_number(spec.file, line, n, row[n]) for line, row in enumerate(rows, 2)]) for n in numeric}
    epoch = columns.pop("epoch")
    _check(spec.file, bool(np.isfinite(epoch).all() and (np.diff(epoch) > 0).all() and epoch[0] >= 1), "epochs that grow")
    by_epoch = np.where((epoch <= SWITCH) | (spec.phases == "ce"), 1.0, 2.0)
    phase = columns.pop("phase", by_epoch)
    _check(spec.file, bool(np.isin(phase, (1, 2)).all()), "phases 1 and 2")
    nc1, fn = columns["nc1"], columns["feat_norm"]
    _check(spec.file, not bool((nc1 < 0).any() or (fn < 0).any()), "nc1 and feat_norm that are not negative")
    _check(spec.file, bool((np.isfinite(nc1) & np.isfinite(fn)).any()), "at least one epoch with nc1 and feat_norm")
    series = {NAMES.get(name, name): values for name, values in columns.items() if name not in ("alpha", "seed")}
    return Log(spec, epoch.astype(int), np.asarray(phase, int), series)


def _rows(folder: Path, file: str, columns: Iterable[str]) -> tuple[Mapping[str, str], ...]:
    try:
        with open(folder / file, newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = tuple(reader)
            found = reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise BadInput("logs", file, f"a CSV file that can be read ({type(e).__name__})") from None
    absent = [c for c in columns if c not in found]
    _check(file, not absent, f"the columns {', '.join(columns)}; it lacks {', '.join(absent)}")
    _check(file, bool(rows), "at least one row")
    for line, row in enumerate(rows, 2):
        _check(file, None not in row and None not in row.values(), f"{len(found)} values in line {line}")
    return rows


def _number(file: str, line: int, column: str, text: str) -> float:
    try:
        return float(text) if text.strip() else math.nan
    except ValueError:
        raise BadInput("logs", file, f"a number in line {line}, column {column}, instead of {text!r}") from None


def _check(file: str, good: bool, accepted: str) -> None:
    require(good, "logs", file, f"a log with {accepted}")


def _same(text: str, value: Any) -> bool:
    try:
        return float(text) == float(value)
    except ValueError:
        return text == str(value)
