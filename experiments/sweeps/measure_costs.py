"""Add to the table of `cost` what it lacks: `python -m experiments.sweeps.measure_costs`; with --all all is measured again,
a few minutes on a free machine.

Kinds of network of every preset, at a few numbers of lanes; studies are timed where they run, see `ncflow list`.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import run
from typing import Any

from experiments.paper.experiment import MODULES, PRESETS, find
from experiments.sweeps.cost import LANES, TABLE, kind, time_kind, yardstick
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
    path.write_text(json.dumps(table | {"kinds": measure(table.get("kinds", {}))}, indent=1) + "\n")
