"""The report as CSV files: verdicts, conditions, networks."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.report.collect import Report
from experiments.report.witnesses import COLUMNS, lines, networks


def sheets(report: Report) -> dict[str, str]:
    """File name -> content."""
    verdicts, conditions, every = [], [], []
    for ruling in (*report.rulings, *report.answers):
        claim = ruling.claim
        verdicts.append({"claim": claim.id, "wording": claim.wording, "source": claim.source, "experiment": "", "evidence": "all",
                         "verdict": ruling.overall.value, "found": "", "reason": ruling.reason, "theory": ""})  # fmt: skip
        for o in ruling.opinions:
            v = o.verdict
            verdicts.append({"claim": claim.id, "wording": claim.wording, "source": claim.source, "experiment": o.experiment,
                             "evidence": o.body, "verdict": v.judgement.value, "found": v.found, "reason": v.reason,
                             "theory": v.theory})  # fmt: skip
    for section in report.sections:
        for part in section.parts:
            about = {"experiment": section.experiment.name, "evidence": part.body}
            _, found = lines(part.evidence, section.logs, section.experiment.table)
            conditions += [
                {
                    **about,
                    **{c: line.cells.get(c, "") for c in COLUMNS},
                    "runs": " ".join(r[:10] for r, _ in line.runs),
                    "missing": "; ".join(line.missing),
                }
                for line in found
            ]
            every += [{**about, **net} for net in networks(part.evidence.rows, part.evidence.cadence)]
    return {"verdicts.csv": _csv(verdicts), "conditions.csv": _csv(conditions), "networks.csv": _csv(every)}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows)
    return stream.getvalue()


def write_text(text: str, path: Path) -> Path:
    """Write `text` to `path`, whole or not at all."""
    temporary = path.with_name(path.name + ".partial")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
