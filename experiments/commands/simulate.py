"""`ncflow simulate`."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from rich.console import Console

from experiments.output import clean, writable, write_json
from experiments.progress import progress
from experiments.simulation import at_rest, crossing, figure, horizon, phases, rescaling, rows, show
from experiments.theory_files import png, write
from experiments.theory_model import Setting, build, describe, number, option
from ncflow import Crossing, simulate, summarise
from ncflow.errors import require
from ncflow.provenance import provenance
from ncflow.trajectory import Status

FAILED = (Status.MAX_STEPS, Status.DIVERGED, Status.NON_FINITE, Status.STEP_TOO_SMALL)


@dataclass(frozen=True, kw_only=True)
class Options(Setting):
    """Integrate a model: the gradient flow of free features or of a network on data, many lanes at once.

    Every decay is run from every seed. Writes the record (netCDF), JSON and a figure, and prints when NC1 passes the threshold
    and where fn ends, beside the closed form where there is one. With an optimiser, time counts its full-batch steps; a first
    phase of cross-entropy makes it the protocol of real networks.

    For example,

        ncflow simulate --classes 4 --seeds 0 1 2

        ncflow simulate --layers 3 --decays 1e-4 1e-3 1e-2 --rescale 100:-2=0.3 --events fn=0.5 nc1_trace_ratio=0.05

        ncflow simulate --model deep_linear --dataset digits --layers 6 --loss-scale 0.1 --decay 1e-3

        ncflow simulate --layers 2 --bias free --optimiser adam --schedule cosine --steps-ce 500 --steps 3000
    """

    decays: Annotated[tuple[float, ...], option("a lane each, in place of --decay", metavar="FLOAT ...")] = ()
    seeds: Annotated[tuple[int, ...], option("of the initial state, a lane each", metavar="INT ...")] = (0,)
    seed: Annotated[int | None, option("one seed, short for --seeds", metavar="INT",
                                       help_behavior_hint="(default: seeds)")] = None  # fmt: skip
    until: Annotated[float | None, number("flow time of the end", "ten times that of the slowest decay")] = None
    points: Annotated[int, option("times that are recorded, evenly in the logarithm")] = 256
    rtol: Annotated[float, option("relative tolerance of a step")] = 1e-8
    atol: Annotated[float, option("absolute tolerance of a step")] = 1e-12
    rest: Annotated[float | None, number("end a lane where rms(dy/dt) <= rest rms(y)", "never")] = None
    max_steps: Annotated[int, option("steps that a lane may take")] = 1_000_000
    flow: Annotated[str, option("auto (the smallest exact reduction that holds), full, reduced, subspace, equal_decays, "
                                "spectral or gram")] = "auto"  # fmt: skip
    method: Annotated[str, option("auto, dopri5, rkc2, rkc3, rkc4 or rk4")] = "auto"
    events: Annotated[tuple[str, ...], option("first times to locate: METRIC=LEVEL, from above, or METRIC=LEVEL:rising",
                                              metavar="SPEC ...")] = ()  # fmt: skip
    rescale: Annotated[tuple[str, ...], option("interventions TIME:LAYER=FACTOR; layers as in a list, -1 the head, or features",
                                               metavar="SPEC ...")] = ()  # fmt: skip
    optimiser: Annotated[str | None, option("gd, sgd, adam or adamw in place of the flow", metavar="NAME",
                                            help_behavior_hint="(default: the flow)")] = None  # fmt: skip
    steps: Annotated[int | None, option("of the optimiser", metavar="INT", help_behavior_hint="(with --optimiser)")] = None
    steps_ce: Annotated[int | None, option("of the optimiser on cross-entropy, before those", metavar="INT",
                                           help_behavior_hint="(default: none)")] = None  # fmt: skip
    lr: Annotated[float | None, number("learning rate", "1e-3 for adam and adamw, else 0.1")] = None
    momentum: Annotated[float | None, number("of sgd", "0.9")] = None
    schedule: Annotated[str | None, option("constant, or cosine over each phase", metavar="NAME",
                                           help_behavior_hint="(default: constant)")] = None  # fmt: skip
    nc1: Annotated[str, option("definition of NC1")] = "nc1_trace_ratio"
    threshold: Annotated[float, option("NC1 below which features count as collapsed")] = 0.01
    workers: Annotated[int, option("processes that share the lanes")] = 1
    device: Annotated[str, option("cpu or cuda")] = "cpu"
    out: Annotated[str, option("folder for results")] = "runs"
    json: Annotated[bool, option("print one JSON object on stdout and nothing else there")] = False


def run(options: Any) -> int:
    """Exit code: 1 if a lane stopped before its time."""
    require(0 < options.threshold < 1, "threshold", options.threshold, "between 0 and 1")
    require(options.points >= 2, "points", options.points, "at least 2")
    model = build(options, **({"decay": np.asarray(options.decays)} if options.decays else {}))
    steps = phases(options)
    require(not steps or options.until is None, "until", options.until, "left out with --optimiser: --steps says it")
    end = float(sum(p.steps for p in steps)) if steps else options.until if options.until is not None else horizon(model)
    require(0 < end < np.inf, "until", end, "finite and greater than 0")
    times = np.concatenate([[0.0], end * np.logspace(-6, 0, options.points - 1)])
    if steps:
        times = np.unique(np.r_[0, np.cumsum([p.steps for p in steps]), np.geomspace(1, end, options.points - 1).round()])
    seeds = options.seeds if options.seed is None else (options.seed,)
    wanted = {e.name: e for e in (Crossing(options.nc1, options.threshold), *map(crossing, options.events))}
    out = writable(options.out)
    how: dict[str, Any] = {"phases": steps} if steps else {"method": options.method, "rest": options.rest}
    with progress() as tell:
        record = simulate(model, seeds=seeds, save_at=times.tolist(), rtol=options.rtol, atol=options.atol, flow=options.flow,
                          interventions=[rescaling(text) for text in options.rescale], events=tuple(wanted.values()),
                          max_steps=options.max_steps, workers=options.workers, device=options.device,
                          progress=lambda share: tell("simulation", share), **how)  # fmt: skip
    closed, standing = at_rest(model)
    found = rows(record, summarise(record, nc1=options.nc1, threshold=options.threshold), closed)
    setting = {name: getattr(options, name) for name in options.__dataclass_fields__ if name not in ("json", "out", "workers")}
    title = describe(options, model, without="decay" if options.decays else "")
    folder = out / f"simulate-{hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:10]}"
    folder.mkdir(parents=True, exist_ok=True)
    files = {"record": folder / "record.nc", "figure": folder / "simulate.png", "json": folder / "simulate.json"}
    record.save(files["record"])
    write(png(figure(record, found, title, options.threshold, options.nc1)), files["figure"])
    report = {"setting": setting, "flow": record.data.attrs.get("flow"), "theory": standing, "lanes": found,
              "files": {k: str(v) for k, v in files.items()}, "provenance": provenance()}  # fmt: skip
    write_json(report, files["json"])
    if options.json:
        print(json.dumps(clean(report), allow_nan=False))
    else:
        console = Console() if sys.stdout.isatty() else Console(width=100)
        console.print(title, highlight=False)
        show(found, bool(steps), console)
        said = f"theory: fn at rest in closed form ({standing})." if closed is not None else f"No closed form here: {standing}."
        console.print(f"flow: {report['flow']}. {said}", highlight=False)
        for row in found[:1]:
            for name, at in row.get("events", {}).items():
                when = "never" if np.isnan(at["time"]) else f"{at['time']:.6g}"
                console.print(f"first lane, {name}: {when}", highlight=False)
        console.print("\n".join(f"{name}: {path}" for name, path in files.items()), highlight=False, soft_wrap=True)
    bad = [(row, status) for row, status in zip(found, record.status, strict=True) if status in FAILED]
    for row, status in bad:
        print(f"ncflow: lane decay {row['decay']:g}, seed {row['seed']} {status.sentence}", file=sys.stderr)
    return 1 if bad else 0
