"""`ncflow audit`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from experiments.audit import Check, LogAudit, audit_logs, audit_tables, counts
from experiments.audit.show import WIDTH, show_logs, show_tables
from experiments.output import clean, writable, write_json
from experiments.published import published
from experiments.published.logs import find_logs, read_logs
from experiments.theory_files import write
from experiments.theory_model import option
from ncflow.provenance import provenance

COLUMNS = ("witness", "where", "what", "stated", "found", "arithmetic", "verdict", "note")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the paper's numbers make of each other: everything in its tables that other numbers determine, recomputed.

    Lists what agrees and what does not, each with the arithmetic. With --logs also against the authors' own per-epoch logs:
    phase and learning rate at T_NC, every threshold, runs that were excluded or never crossed, where fn went afterwards.
    Nothing is trained: it takes seconds.

    For example,

        ncflow audit

        ncflow audit --logs FOLDER

        ncflow audit --logs FOLDER --json > audit.json

    FOLDER holds the logs of the authors' repository (GitHub Rupawheatly/NC, folder Results), which are theirs to give.
    """

    logs: Annotated[str | None, option("folder of the authors' per-epoch logs", metavar="FOLDER",
                                       help_behavior_hint="(default: the environment's NCFLOW_LOGS, else none)")] = None
    out: Annotated[str | None, option("folder for audit.json and audit.csv", metavar="FOLDER",
                                      help_behavior_hint="(default: write nothing)")] = None  # fmt: skip
    json: Annotated[bool, option("print one JSON object on stdout and nothing else there")] = False


def run(options: Any) -> int:
    """Exit code 0, whatever is found."""
    out = None if options.out is None else writable(options.out)
    folder = find_logs(options.logs)
    logs = None if folder is None else read_logs(folder)
    checks = audit_tables()
    found = None if logs is None else audit_logs(logs)
    report = {"source": dict(published().source), "paper": {"counts": counts(checks), "checks": [c.as_dict() for c in checks]},
              "logs": None if found is None else found.as_dict(), "provenance": provenance()}  # fmt: skip
    files = {} if out is None else _write(report, checks, found, out)
    if options.json:
        print(json.dumps(clean(report), allow_nan=False))
        return 0
    console = Console(width=WIDTH)
    show_tables(checks, console)
    if found is not None:
        show_logs(found, console)
    else:
        console.print("The authors' own logs were not audited: --logs FOLDER does that.", highlight=False)
    for name, path in files.items():
        console.print(f"{name}: {path}", highlight=False, soft_wrap=True)
    return 0


def _write(report: dict[str, Any], checks: Sequence[Check], found: LogAudit | None, out: Path) -> dict[str, Path]:
    out.mkdir(parents=True, exist_ok=True)
    files = {"table": out / "audit.csv", "json": out / "audit.json"}
    witnesses: dict[str, Iterable[Check]] = {"paper": checks}
    if found is not None:
        witnesses |= {"logs": found.checks, "reading": (c for r in found.readings for c in r.checks)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for witness, some in witnesses.items():
        writer.writerows([witness, c.where, c.what, c.stated, c.found, c.arithmetic, c.verdict.value, c.note] for c in some)
    write(text.getvalue(), files["table"])
    write_json(report, files["json"])
    return files
