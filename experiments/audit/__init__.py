"""The audit: what the paper's numbers make of each other, and what its authors' own logs make of them. No training.

`audit_tables()` needs the paper alone; `audit_logs(read_logs(folder))` the logs that a user downloads.
"""

from experiments.audit.check import Check, Verdict, counts
from experiments.audit.logs import LogAudit, audit_logs
from experiments.audit.logs.readings import Reading, Standing
from experiments.audit.logs.runs import Group
from experiments.audit.paper import audit_tables

__all__ = ["Check", "Group", "LogAudit", "Reading", "Standing", "Verdict", "audit_logs", "audit_tables", "counts"]
