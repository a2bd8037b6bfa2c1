"""The authors' own logs as evidence like ours: the same conditions, thresholds and rules."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from experiments.paper.evidence import LOGS, Evidence, Gap, Row
from experiments.paper.experiment import Experiment
from experiments.paper.networks import Network
from experiments.published.logs import Log, Logs, find_logs, read_logs
from realnets import TwoPhase

_NAMES = {"nc1": "nc1_trace_ratio", "nc2": "nc2_equiangular_l1", "nc3": "nc3_one_minus_cos"}


def load_logs(folder: str | Path | None) -> Logs | None:
    """The logs of `folder`, else of the environment's NCFLOW_LOGS, else None."""
    path = find_logs(folder)
    return None if path is None else _read(path)


@cache
def _read(path: Path) -> Logs:
    return read_logs(path)


def network(log: Log) -> Network:
    """One logged run."""
    values = {_NAMES.get(name, name): v for name, v in log.series.items()}
    if log.condition.get("architecture") == "resnet20" and log.condition.get("dataset") == "mnist":
        values.pop("nc2_equiangular_l1", None)  # that log holds another definition of NC2
    losses = {1: "cross_entropy", 2: "mse"}
    return Network(log.name, log.seed, log.epoch.astype(float), log.phase.astype(np.int64),
                   {**values, "learning_rate": np.asarray(log.learning_rate, float)}, losses)  # fmt: skip


def gather_logs(experiment: Experiment, logs: Logs | None) -> list[Evidence]:
    """What the authors logged of the conditions of an experiment at full scale, by group; nothing without logs."""
    if logs is None:
        return []
    groups: dict[str, list[Row]] = {}
    for condition in experiment.conditions("paper"):
        if not isinstance(condition.setting, TwoPhase):
            continue
        names = experiment.logs(condition)
        runs = [logs.run(name) for name in names]
        gaps = tuple(Gap(i, f"no log {name}") for i, (name, run) in enumerate(zip(names, runs, strict=True)) if run is None)
        row = Row(condition, tuple(network(run) for run in runs if run is not None), gaps if names else (Gap(0, "not logged"),))
        groups.setdefault(condition.group, []).append(row)
    found = [Evidence(experiment.name, LOGS, group, tuple(rows)) for group, rows in groups.items()]
    return [e for e in found if not e.empty]
