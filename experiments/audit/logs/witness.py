"""What the audit of the logs asks of them: runs that must be there, values of a condition's seeds, and checks on exact values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from experiments import statistics
from experiments.audit.check import Check, Range, Verdict, compare, decimals, number
from experiments.published import Printed, Spread
from experiments.published.log_files import SPECS
from experiments.published.logs import Log, Logs

#: A group of checks; it raises `Absent` where it lacks its files.
Part = Callable[[Logs], list[Check]]


class Absent(Exception):
    """A log that a check needs is not in the folder; `file` says which."""

    def __init__(self, file: str):
        super().__init__(file)
        self.file = file


def run(logs: Logs, name: str) -> Log:
    """The run of this name.

    Raises:
        Absent: its file is not there.
    """
    found = logs.run(name)
    if found is None:
        raise Absent(next(s.file for s in SPECS if s.name == name))
    return found


def runs(logs: Logs, experiment: str, **condition: Any) -> tuple[Log, ...]:
    """Every run of a condition.

    Raises:
        Absent: one of them is not there.
    """
    wanted = [s for s in SPECS if experiment in s.experiments and condition.items() <= s.condition.items()]
    return tuple(run(logs, s.name) for s in wanted)


def column(logs: Logs, summary: str, name: str, **values: Any) -> list[float]:
    """A column of a summary file, as numbers.

    Raises:
        Absent: the file is not there.
    """
    if summary not in logs.summaries:
        raise Absent(summary)
    return [float(row[name]) for row in logs.rows(summary, **values)]


def known(value: float) -> Range:
    """A number without a rounding of its own."""
    return Range(float(value), float(value), float(value))


def exact(where: str, what: str, stated: Printed, value: float, arithmetic: str, note: str = "", unit: str = "") -> Check:
    """Check of a printed number against one that is known exactly."""
    return number(where, what, stated, known(value), arithmetic, note, unit)


def spread(where: str, what: str, stated: Spread, values: Sequence[float], arithmetic: str, note: str = "") -> Check:
    """Check of a printed mean ± std against the values: the worse of the two, the std of either ddof, which is said."""
    one, zero = statistics.summary(values, 1), statistics.summary(values, 0)
    stds = {d: compare(stated.std, known(s.std)) for d, s in ((1, one), (0, zero))}
    order = list(Verdict)
    best = min(stds.values(), key=order.index)
    verdict = max((compare(stated.mean, known(one.mean)), best), key=order.index)
    digits = decimals(stated.mean) + 1
    kinds = [d for d, v in stds.items() if v is best]
    which = kinds if best is not Verdict.DISAGREES and len(kinds) == 1 else [1, 0]
    std = {1: one.std, 0: zero.std}
    found = f"{one.mean:.{digits}f} ± " + " or ".join(f"{std[d]:.{digits}f} (ddof {d})" for d in which)
    numbers = {
        "stated_value": [stated.mean.value, stated.std.value],
        "found_value": one.mean,
        "found_std": {str(d): v for d, v in std.items()},
        "ddof": which[0] if len(which) == 1 else None,
        "values": list(values),
    }
    return Check(where, what, str(stated), found, arithmetic, verdict, note, numbers)


def listed(values: Sequence[float], form: str = ".3f") -> str:
    """Numbers with commas."""
    return ", ".join(format(v, form) for v in values)
