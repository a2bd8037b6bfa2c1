"""The paper against itself: what its printed numbers make of each other."""

from __future__ import annotations

from experiments.audit.check import Check
from experiments.audit.paper import epochs, grid, interventions, orders, pooling, prose, tables, widths


def audit_tables() -> list[Check]:
    """Every check, in the order of the paper's tables and sections."""
    rooms = (tables, grid, widths, pooling, epochs, prose, orders, interventions)
    return [check for room in rooms for check in room.checks()]
