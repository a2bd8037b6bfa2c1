"""`ncflow run`."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from experiments.options import COMMON
from experiments.output import clean, writable
from experiments.paper.experiment import GROUPS, MODULES, PRESETS, check_preset, chosen
from experiments.progress import progress
from experiments.show import _table
from experiments.sweeps import Catalogue, plan
from experiments.sweeps.cost import Costs
from experiments.sweeps.plan import Plan
from experiments.sweeps.processes import processes
from experiments.sweeps.sweep import Executor, Result, inline, sweep
from ncflow.errors import BadInput, require
from realnets import Stopped
from realnets.train import find_device

EXECUTORS = ("processes", "ray")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run experiments: what they need is trained and simulated once, whichever of them needs it.

    Finished runs are not made again, also those that `ncflow train` made; a run that was stopped or killed goes on when the same
    command is given again. `ncflow list` says which experiments and presets there are, `ncflow report` shows what came of them.

    For example,

        ncflow run all --preset smoke

        ncflow run depth weight_decay --preset laptop --data FOLDER --workers 2 --budget 45m

        ncflow run all --preset laptop --data FOLDER --plan

        ncflow run baseline --preset paper --data FOLDER --device cuda
    """

    names: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(help="experiments; all of the paper's, or why for its hypotheses", metavar="NAME ..."),
    ]
    preset: Annotated[str, tyro.conf.arg(help="; ".join(f"{k}: {v}" for k, v in PRESETS.items()))] = "laptop"
    out: Annotated[str, tyro.conf.arg(help=COMMON["out"][2])] = "runs"
    records: Annotated[tuple[str, ...], tyro.conf.arg(help="further folders with finished runs", metavar="DIR ...")] = ()
    data: Annotated[str | None, tyro.conf.arg(help=COMMON["data"][2])] = None
    device: Annotated[str, tyro.conf.arg(help="cpu or cuda; all GPUs of the machine are used")] = "cpu"
    workers: Annotated[int | None, tyro.conf.arg(help="processes at a time; default one per core, or per GPU")] = None
    executor: Annotated[
        str, tyro.conf.arg(help="processes, or ray (with the extra cluster; OUT must be a folder that every node sees)")
    ] = "processes"
    address: Annotated[str | None, tyro.conf.arg(help="of the Ray cluster; default a local one")] = None
    budget: Annotated[str | None, tyro.conf.arg(help="refuse to begin what takes longer, such as 45m, 2h, 90s")] = None
    every: Annotated[int, tyro.conf.arg(help="epochs between checkpoints")] = 10
    plan: Annotated[bool, tyro.conf.arg(help="say what would be done, with an estimate, and stop")] = False
    json: Annotated[bool, tyro.conf.arg(help=COMMON["json"][2])] = False


def run(options: Options) -> int:
    """Exit code: 1 if a run failed, 130 after Ctrl-C, 143 after SIGTERM."""
    preset = check_preset(options.preset)
    require(bool(options.names), "experiment", "", f"one or more of {', '.join(MODULES)}, or {' or '.join(GROUPS)}")
    experiments = chosen(options.names)
    require(options.workers is None or options.workers >= 1, "workers", options.workers, "1 or more")
    require(options.executor in EXECUTORS, "executor", options.executor, f"one of {', '.join(EXECUTORS)}")
    require(options.every >= 1, "every", options.every, "a whole number of epochs, at least 1")
    budget = seconds_of(options.budget)
    out, device = writable(options.out), find_device(options.device)
    conditions = [c for e in experiments for c in e.conditions(preset)]
    if not conditions:
        raise BadInput("preset", preset, f"one that {', '.join(e.name for e in experiments)} has conditions for; see ncflow list")
    held = Catalogue.scan([out, *_folders(options.records)])
    for line in held.notes:
        print(f"ncflow: {line}", file=sys.stderr)
    workers = options.workers or _default_workers(device.type)
    costs = Costs.table_of(device.type)
    most = LANES_ON_GPU if device.type == "cuda" else LANES_ON_CPU
    todo = plan((c.setting for c in conditions), held, most=lambda setting: costs.lanes(setting, most))
    if todo.jobs:
        costs.calibrate()
    wall = costs.wall(todo.jobs, workers)
    if budget is not None and wall > budget:
        need = f"{duration(wall)} is needed on {workers} worker{'s' * (workers > 1)}"
        accepted = f"{need}; allow as much, or choose fewer experiments or a smaller preset"
        raise BadInput("budget", options.budget, accepted)
    about = {
        "preset": preset,
        "experiments": [e.name for e in experiments],
        "lanes": todo.needed,
        "finished": todo.finished,
        "jobs": [{"name": j.name, "lanes": j.lanes, "resumes": j.resumes, "seconds": costs.seconds(j)} for j in todo.jobs],
        "estimate_seconds": wall,
        "unmeasured": sorted(costs.unknown),
        "workers": workers,
        "out": str(out),
    }
    console = Console(stderr=options.json) if sys.stdout.isatty() else Console(stderr=options.json, width=100)
    if not options.json:
        show_plan(todo, about, console)
    if options.plan:
        if options.json:
            print(json.dumps(clean(about), allow_nan=False))
        return 0
    try:
        results = _do(todo, out, options, device.type, workers, costs)
    except Stopped as e:
        print(f"ncflow: {e}; the same command goes on from there", file=sys.stderr)
        return e.code
    failed = [r for r in results if r.error]
    found = about | {
        "done": [str(r.folder) for r in results if r.folder],
        "failed": [{"name": r.job.name, "error": r.error} for r in failed],
    }
    if options.json:
        print(json.dumps(clean(found), allow_nan=False))
    else:
        console.print(
            f"{len(results) - len(failed)} of {len(results)} runs done; ncflow report --out {options.out} shows them",
            highlight=False,
        )
    return 1 if failed else 0


#: Lanes of one job: on a processor, where several jobs run side by side, and on a GPU.
LANES_ON_CPU, LANES_ON_GPU = 6, 48


def _do(todo: Plan, out: Path, options: Options, device: str, workers: int, costs: Costs) -> list[Result]:
    if not todo.jobs:
        return []
    out.mkdir(parents=True, exist_ok=True)
    how: dict[str, Any] = {"device": device, "root": options.data, "every": options.every}
    executor: Executor
    if options.executor == "ray":
        from experiments.sweeps.cluster import ray_tasks

        executor, how = ray_tasks, how | {"address": options.address, "workers": options.workers}
    elif workers == 1:
        executor = inline
    else:
        executor, how = processes, how | {"workers": workers}
    with progress() as tell, _terminated(), redirect_stdout(sys.stderr):  # Ray talks on stdout
        return sweep(
            todo.jobs,
            out,
            executor,
            cost=costs.seconds,
            progress=tell,
            note=lambda line: print(f"ncflow: {line}", file=sys.stderr),
            **how,
        )


class _terminated:
    """Within `with`, SIGTERM and Ctrl-C raise `Stopped`."""

    def __enter__(self) -> None:
        self.before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:
        raise Stopped("stopped", 128 + number)


def _folders(given: tuple[str, ...]) -> list[Path]:
    for folder in given:
        require(Path(folder).expanduser().is_dir(), "records", folder, "a folder that is there")
    return [Path(folder) for folder in given]


def _default_workers(device: str) -> int:
    if device == "cuda":
        import torch

        return max(1, torch.cuda.device_count())
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seconds_of(text: str | None) -> float | None:
    """ "45m", "2h", "90s" or "90" in seconds.

    Raises:
        BadInput: it is none of these.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    require(found is not None, "budget", text, "a time such as 45m, 2h or 90s")
    assert found is not None
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]


def duration(seconds: float) -> str:
    """For people: 40 s, 12 min, 3.5 h."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_plan(todo: Plan, about: dict[str, Any], console: Console) -> None:
    """Print what is left to do."""
    if todo.jobs:
        table = _table(f"{len(todo.jobs)} runs to make, preset {about['preset']}", "run", "from epoch", "estimate")
        table.columns[0].justify = "left"
        for entry in about["jobs"]:
            unknown = not entry["seconds"]
            table.add_row(entry["name"], str(entry["resumes"] or ""), "not measured" if unknown else duration(entry["seconds"]))
        console.print(table)
    rest = ""
    if todo.jobs:
        many = "s" * (about["workers"] > 1)
        rest = f"; about {duration(about['estimate_seconds'])} on {about['workers']} worker{many} for the rest"
        if about["unmeasured"]:
            rest += ", beside what was not measured"
    console.print(f"{about['finished']} of {about['lanes']} networks and simulations are there already{rest}", highlight=False)
