"""`ncflow report`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from experiments.commands.run import _folders
from experiments.options import COMMON
from experiments.output import clean, writable
from experiments.paper.experiment import Judgement, chosen
from experiments.paper.published_logs import load_logs
from experiments.progress import progress
from experiments.report import collect, page, sheets
from experiments.report.collect import Ruling
from experiments.report.sheets import write_text
from experiments.show import _table
from experiments.sweeps import Catalogue
from ncflow.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write what the runs at hand say of the paper: one HTML page that stands alone, and CSV files.

    Runs are looked for below OUT and in the folders of --records; each claim gets a verdict from the networks trained here, at
    each scale, and from the authors' own per-epoch logs, if their folder is given. What is missing is shown as missing.

    For example,

        ncflow report

        ncflow report depth weight_decay --out runs --logs FOLDER --to docs/results
    """

    names: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(help="experiments, all or why; default both", metavar="NAME ...")
    ] = ()
    out: Annotated[str, tyro.conf.arg(help="folder with runs; the report goes to its folder report")] = "runs"
    records: Annotated[tuple[str, ...], tyro.conf.arg(help="further folders with finished runs", metavar="DIR ...")] = ()
    logs: Annotated[str | None, tyro.conf.arg(help="folder of the authors' per-epoch logs; default NCFLOW_LOGS")] = None
    to: Annotated[str | None, tyro.conf.arg(help="folder for the report")] = None
    json: Annotated[bool, tyro.conf.arg(help=COMMON["json"][2])] = False


def run(options: Options) -> int:
    """Exit code 0; 2 if there is nothing to report."""
    experiments = chosen(options.names or ("all", "why"))
    out = Path(options.out).expanduser()
    held = Catalogue.scan([out, *_folders(options.records)])
    logs = load_logs(options.logs)
    for line in held.notes:
        print(f"ncflow: {line}", file=sys.stderr)
    if not held.held and logs is None:
        raise BadInput("out", options.out, "a folder with runs, such as ncflow run all --preset laptop makes, or --logs")
    folder = writable(out / "report" if options.to is None else options.to)
    with progress() as tell:
        report = collect(experiments, held, logs, lambda share: tell("judging", share))
        folder.mkdir(parents=True, exist_ok=True)
        files = {"page": write_text(page(report, held, folder, lambda share: tell("drawing", share)), folder / "index.html")}
    files |= {name.removesuffix(".csv"): write_text(text, folder / name) for name, text in sheets(report).items()}
    counts = {j.value: report.count(j) for j in Judgement}
    if options.json:
        found = {
            "counts": counts,
            "verdicts": [_ruled(r) for r in report.rulings],
            "hypotheses": [_ruled(r) for r in report.answers],
            "notes": list(report.notes),
            "files": {k: str(v) for k, v in files.items()},
        }
        print(json.dumps(clean(found), allow_nan=False))
        return 0
    console = Console() if sys.stdout.isatty() else Console(width=100)
    tables = (("The claims of the paper", "claim", report.rulings), ("Hypotheses", "statement", report.answers))
    for title, name, rulings in tables:
        table = _table(title, name, "verdict", "why")
        for column in table.columns:
            column.justify, column.no_wrap = "left", column.header != "why"
        for r in rulings:
            table.add_row(r.claim.id, r.overall.value, r.reason)
        if rulings:
            console.print(table)
    console.print(", ".join(f"{n} {name}" for name, n in counts.items()), highlight=False)
    console.print("\n".join(f"{name}: {path}" for name, path in files.items()), highlight=False, soft_wrap=True)
    return 0


def _ruled(r: Ruling) -> dict[str, Any]:
    return {"claim": r.claim.id, "wording": r.claim.wording, "verdict": r.overall.value, "reason": r.reason,
            "evidence": [{"experiment": o.experiment, "evidence": o.body, "verdict": o.verdict.judgement.value,
                          "found": o.verdict.found, "reason": o.verdict.reason, "theory": o.verdict.theory}
                         for o in r.opinions]}  # fmt: skip
