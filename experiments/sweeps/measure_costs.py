"""Add to the table of `cost` what it lacks: `python -m experiments.sweeps.measure_costs`; with --all all is measured again,
a few minutes on a free machine. With folders, the studies among their finished runs are added, by the seconds in their records.

Kinds of network of every preset, at a few numbers of lanes.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import run
from typing import Any

from experiments.paper.experiment import MODULES, PRESETS, find
from experiments.sweeps.catalogue import Catalogue
from experiments.sweeps.cost import LANES, TABLE, cost_kind, kind, time_kind, yardstick
from experiments.sweeps.study import Study
from experiments.timing import machine
from realnets import TwoPhase

_ONE = "from experiments.sweeps.cost import yardstick; print(yardstick())"


def measure(known: dict[str, Any]) -> dict[str, Any]:
    """Kinds of network and their times; those that are `known` stay as they are."""
    settings: dict[str, TwoPhase] = {}
    for preset in PRESETS:
        for name in MODULES:
            for condition in find(name).conditions(preset):
                if isinstance(condition.setting, TwoPhase):
                    settings.setdefault(kind(condition.setting), condition.setting)
    kinds = dict(known)
    for name, setting in settings.items():
        if name in kinds:
            continue
        big = setting.architecture != "mlp" or setting.width > 256
        pace = time_kind(setting, LANES[:2] if big else LANES)
        kinds[name] = [[float(f"{v:.4g}") for v in column] for column in (pace.lanes, pace.step, pace.look)]
        print(name, kinds[name], file=sys.stderr)
    return kinds


def studies(folders: list[str], slower: float) -> dict[str, float]:
    """Seconds by kind of study on the table's machine, from records that a machine `slower` than that one made."""
    held, found = Catalogue.scan(folders), {}
    for preset in PRESETS:
        for name in MODULES:
            for condition in find(name).conditions(preset):
                study = condition.setting
                if isinstance(study, Study) and (run := held.find(study)) is not None:
                    seconds = run.record().provenance["seconds"]["all"] / slower
                    found[cost_kind(study)] = float(f"{seconds:.3g}")
    return found


def together() -> float:
    """How much slower a process is when two run at a time."""

    def one(_: int) -> float:
        return float(run([sys.executable, "-c", _ONE], check=True, capture_output=True, text=True).stdout)

    alone = one(0)
    with ThreadPoolExecutor(2) as pool:
        return max(1.0, max(pool.map(one, range(2))) / alone)


if __name__ == "__main__":
    path = Path(__file__).with_name(TABLE)
    held = json.loads(path.read_text()) if path.exists() else {}
    table = {"machine": machine(), "yardstick": yardstick(), "together": together(), "studies": {}} | held
    if "--all" in sys.argv:
        table |= {"machine": machine(), "yardstick": yardstick(), "together": together(), "kinds": {}}
    if folders := [arg for arg in sys.argv[1:] if not arg.startswith("-")]:
        table["studies"] |= studies(folders, yardstick() / table["yardstick"])
    path.write_text(json.dumps(table | {"kinds": measure(table.get("kinds", {}))}, indent=1) + "\n")
