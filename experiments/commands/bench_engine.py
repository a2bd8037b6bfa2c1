"""`ncflow bench engine`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Annotated, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments import bench_engine as job
from experiments.options import COMMON
from experiments.output import clean, writable, write_json
from experiments.progress import progress
from experiments.timing import machine
from ncflow.errors import BadInput, require
from ncflow.provenance import provenance
from ncflow.simulate import find_device


@dataclass(frozen=True, kw_only=True)
class Options:
    """How fast the engine is: against general solvers and a plain training loop, and many lanes at once against one.

    Every comparison is at equal accuracy against a reference solution, and says so in its row. About ten minutes on two
    free cores; needs torchdiffeq (pip install "ncflow[bench]").

    For example,

        ncflow bench engine

        ncflow bench engine --cases lanes published --json

        ncflow bench engine --device cuda
    """

    out: Annotated[str, tyro.conf.arg(help="folder for results")] = "runs"
    device: Annotated[str, tyro.conf.arg(help="cpu or cuda; on cuda, agreement with the processor is checked")] = "cpu"
    cases: Annotated[tuple[str, ...], tyro.conf.arg(help="what to measure: " + ", ".join(job.CASES), metavar="STR ...")] = (
        tuple(job.CASES))
    rounds: Annotated[int, tyro.conf.arg(help="times that what is fast is measured, in turn with its rivals")] = job.Size().rounds
    quick: Annotated[bool, tyro.conf.arg(help="tiny sizes, to see that it works; the numbers mean nothing")] = False
    json: Annotated[bool, tyro.conf.arg(help=COMMON["json"][2])] = False


def run(options: Options) -> int:
    """Exit code: 1 if a GPU does not agree with the processor; a missed target is reported, not an error."""
    for name in options.cases:
        require(name in job.CASES, "cases", name, f"among {', '.join(job.CASES)}")
    if job.find_spec("torchdiffeq") is None:
        raise BadInput("torchdiffeq", None, 'not installed: pip install "ncflow[bench]"')
    out, device = writable(options.out), find_device(options.device)
    require(options.rounds > 0, "rounds", options.rounds, "a whole number greater than 0")
    size = job.QUICK if options.quick else job.Size(rounds=options.rounds)
    start, about, cases = perf_counter(), machine(options.device), []
    gpu: Any = "unmeasured"
    if device.type != "cpu":
        apart = job.agreement(options.device)
        gpu = {"difference": apart, "agrees": apart < 1e-6}
    folder = writable(out / "bench-engine")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bench-engine-{device.type}.json"
    report: dict[str, Any] = {}
    with progress() as tell:
        for case in job.bench(options.cases, size, options.device, tell):
            cases.append(case.json())
            report = {"machine": about, "device": device.type, "quick": options.quick, "sizes": asdict(size), "cases": cases,
                      "gpu": gpu, "seconds": perf_counter() - start, "file": str(path), "provenance": provenance()}
            write_json(report, path)  # after every case: a run that is ended keeps what it has measured
    if options.json:
        print(json.dumps(clean(report), allow_nan=False))
    else:
        show(report, Console() if sys.stdout.isatty() else Console(width=100))
    if gpu != "unmeasured" and not gpu["agrees"]:
        print("ncflow: the GPU does not agree with the processor to 1e-6", file=sys.stderr)
        return 1
    return 0


def show(report: dict[str, Any], console: Console) -> None:
    """Print settings, tables and targets."""
    at = report["machine"]
    load = "unknown" if at["load_average"] is None else f"{at['load_average']:.1f}"
    console.print(f"{at.get('gpu', at['processor'])}, {at['cores']} cores, {at['threads']} threads, load {load}, torch "
                  f"{at['torch']}, float64", highlight=False)
    if report["quick"]:
        console.print("--quick: tiny sizes, the numbers mean nothing")
    for case in report["cases"]:
        console.print(f"\n[bold]{case['title']}[/bold]")
        console.print(case["setting"], highlight=False)
        table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        for i, name in enumerate(case["columns"]):
            table.add_column(name, justify="right" if i > 1 else "left", overflow="fold")
        for row in case["rows"]:
            table.add_row(*(cell(row[name]) for name in case["columns"]))
        console.print(table)
        for note in case["notes"]:
            console.print(note, highlight=False)
        for target in [] if report["quick"] else case["targets"]:
            verdict = "met" if target["met"] else "NOT MET"
            console.print(f"{target['what']}: {target['found']:.3g}, wanted {target['wanted']}: {verdict}", highlight=False)
    gpu = report["gpu"]
    console.print("\nGPU: unmeasured" if gpu == "unmeasured" else f"\nGPU against the processor: {gpu}", highlight=False)
    console.print(f"{report['seconds']:.0f} s, json: {report['file']}", highlight=False, soft_wrap=True)


def cell(value: Any) -> str:
    """A value of a table: whole numbers with thousands, others to three digits."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
