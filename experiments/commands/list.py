"""`ncflow list`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console

from experiments.options import COMMON
from experiments.output import clean
from experiments.paper.experiment import MODULES, PRESETS, find
from experiments.show import _table
from experiments.sweeps import Catalogue, plan


@dataclass(frozen=True, kw_only=True)
class Options:
    """List the experiments: what each asks, what it bears on, how many networks it needs, and how many are there.

    For example,

        ncflow list

        ncflow list --out runs --json
    """

    out: Annotated[str, tyro.conf.arg(help=COMMON["out"][2])] = "runs"
    json: Annotated[bool, tyro.conf.arg(help=COMMON["json"][2])] = False


def run(options: Options) -> int:
    """Exit code 0."""
    held = Catalogue.scan([options.out])
    for line in held.notes:
        print(f"ncflow: {line}", file=sys.stderr)
    found: list[dict[str, Any]] = []
    for name in MODULES:
        experiment = find(name)
        counts = {preset: plan((c.setting for c in experiment.conditions(preset)), held) for preset in PRESETS}
        found.append(
            {
                "name": name,
                "title": experiment.title,
                "question": experiment.question,
                "measures": experiment.measures,
                "claims": list(experiment.claims),
                "statements": [s.id for s in experiment.statements],
                "presets": {p: {"needed": c.needed, "finished": c.finished} for p, c in counts.items() if c.needed},
            }
        )
    if options.json:
        print(json.dumps(clean({"experiments": found, "presets": PRESETS}), allow_nan=False))
        return 0
    console = Console() if sys.stdout.isatty() else Console(width=100)
    table = _table("Networks and simulations there, of those needed", "experiment", "question", *PRESETS)
    for column in table.columns[:2]:
        column.justify, column.no_wrap = "left", column.header == "experiment"
    for entry in found:
        there = [f"{c['finished']}/{c['needed']}" if (c := entry["presets"].get(p)) else "" for p in PRESETS]
        table.add_row(entry["name"], entry["question"], *there)
    console.print(table)
    for name, what in PRESETS.items():
        console.print(f"{name}: {what}", highlight=False)
    return 0
