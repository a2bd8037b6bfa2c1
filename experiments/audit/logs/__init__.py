"""The paper against its authors' own logs, and what the logs show beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.audit.check import Check, counts
from experiments.audit.logs import claims, pooling, tables
from experiments.audit.logs.readings import Reading, tests
from experiments.audit.logs.runs import Group, depth_orders, disagreements, groups
from experiments.audit.logs.witness import Absent
from experiments.published import published
from experiments.published.logs import Logs


@dataclass(frozen=True)
class LogAudit:
    """What the logs say.

    Attributes:
        checks: the paper's numbers against the logs.
        readings: the first reading, confirmed or refuted.
        groups: the runs by condition.
        skipped: what could not be checked -> the file that is not there.
    """

    checks: tuple[Check, ...]
    readings: tuple[Reading, ...]
    groups: tuple[Group, ...]
    skipped: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        return {
            "counts": counts(self.checks),
            "checks": [c.as_dict() for c in self.checks],
            "readings": [r.as_dict() for r in self.readings],
            "conditions": [g.as_dict() for g in self.groups],
            "seeds_that_disagree": disagreements(self.groups),
            "depth_at_one_threshold": depth_orders(self.groups),
            "skipped": dict(self.skipped),
        }


def audit_logs(logs: Logs) -> LogAudit:
    """Every check of the paper against the logs, and the readings; what lacks its file is listed, not dropped."""
    checks: list[Check] = []
    skipped: dict[str, str] = {}
    for name, part in {**tables.parts(), **pooling.parts(), **claims.parts()}.items():
        try:
            checks += part(logs)
        except Absent as e:
            skipped[name] = e.file
    readings = []
    for id, test in tests().items():
        try:
            readings.append(Reading(published().claim(id), tuple(test(logs))))
        except Absent as e:
            readings.append(Reading(published().claim(id), (), e.file))
    return LogAudit(tuple(checks), tuple(readings), tuple(groups(logs)), skipped)
