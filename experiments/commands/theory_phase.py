"""`ncflow theory phase`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from rich.console import Console

from experiments.output import clean, writable, write_json
from experiments.phase import Phase, Space, phase
from experiments.progress import progress
from experiments.theory_figures import phase_figure
from experiments.theory_files import png, write
from experiments.theory_model import number, option
from experiments.theory_report import Start
from experiments.theory_show import compact, table
from ncflow.errors import require
from ncflow.provenance import provenance


@dataclass(frozen=True, kw_only=True)
class Options:
    """Phase diagram: what happens over weight decay and depth, and where the paper's networks sit.

    For free features: time to collapse, the fold and where zero becomes cheaper. With --noise also for a linear network on
    data: the NC1 that decay leaves behind at rest, and where that floor passes the threshold. Networks of the paper are
    placed by the distance of their fixed point from its fold, without biases and on orthogonal class means of norm
    --amplitude: approximately. The default amplitude is that of the centred class means of standardised MNIST.

    For example,

        ncflow theory phase

        ncflow theory phase --noise 22

        ncflow theory phase --classes 4 --loss-scale 0.5 --decays 1e-4 1 --layers 1 5 --json
    """

    classes: Annotated[int, option("K")] = 10
    samples_per_class: Annotated[int, option("n of the free features")] = 100
    width: Annotated[int, option("of free features and hidden layers")] = 64
    loss_scale: Annotated[float | None, number("c in (c/N)|.|^2", "1/K, PyTorch's mean")] = None
    bias: Annotated[str, option("of the head: none or free")] = "none"
    amplitude: Annotated[float, option("r, norm of the data's class means")] = 10.7
    noise: Annotated[float, option("v2 = K eps^2, i.i.d. noise of std eps on the data; 0: free features only")] = 0.0
    inputs: Annotated[int, option("d, inputs of the data, more than samples")] = 200
    data_samples: Annotated[int, option("samples per class of the data")] = 10
    decays: Annotated[tuple[float, ...], option("lowest and highest", metavar="LOW HIGH")] = (1e-6, 5e-2)
    points: Annotated[int, option("number of decays, logarithmic")] = 50
    layers: Annotated[tuple[int, ...], option("lowest and highest M", metavar="LOW HIGH")] = (1, 8)
    threshold: Annotated[float, option("NC1 below which features count as collapsed")] = 0.01
    signal: Annotated[float | None, number("signal of an aligned start, in (0, 1]", "a drawn start")] = None
    scatter: Annotated[float | None, number("within-class scatter at the start, summed over samples", "the drawn start's")] = None
    seed: Annotated[int, option("of the data")] = 0
    out: Annotated[str, option("folder for results")] = "runs"
    json: Annotated[bool, option("print one JSON object on stdout and nothing else there")] = False


def run(options: Any) -> int:
    """Exit code 0."""
    require(0 < options.threshold < 1, "threshold", options.threshold, "between 0 and 1")
    require(options.classes >= 2, "classes", options.classes, "at least 2")
    given = {name: getattr(options, name) for name in Space.__dataclass_fields__ if name not in ("start", "loss_scale")}
    scale = 1 / options.classes if options.loss_scale is None else options.loss_scale
    start = Start(threshold=options.threshold, signal=options.signal, scatter=options.scatter)
    space = Space(**given, loss_scale=scale, start=start)
    out = writable(options.out)
    with progress() as tell:
        found = phase(space, tell=tell)
    folder = writable(out / "theory-phase")
    folder.mkdir(parents=True, exist_ok=True)
    files = {"table": folder / "phase.csv", "figure": folder / "phase.png", "json": folder / "phase.json"}
    write(png(phase_figure(found)), files["figure"])
    write(found.csv(), files["table"])
    record = {**found.json(), "files": {k: str(v) for k, v in files.items()}, "provenance": provenance()}
    write_json(record, files["json"])
    if options.json:
        print(json.dumps(clean(record), allow_nan=False))
    else:
        _show(found, Console())
        Console().print("\n".join(f"{key}: {path}" for key, path in files.items()), highlight=False, soft_wrap=True)
    return 0


def _show(found: Phase, console: Console) -> None:
    """The lines of the diagram, and where the paper's networks sit."""
    data = found.data
    extra = () if data is None else ("data: floor", "data: fold")
    made = table("Boundaries by depth (weight decay)", "M", "fold", "zero cheaper", "fastest T_NC", "at decay", *extra, left=0)
    for i, m in enumerate(found.layers.tolist()):
        j = int(found.time[i].argmin())
        more = () if data is None else (compact(float(data["boundary"][i]), 3), compact(float(data["fold"][i]), 3))
        made.add_row(str(m), compact(float(found.fold[i]), 4), compact(float(found.maxwell[i]), 4),
                     compact(float(found.time[i, j]), 4), compact(float(found.decays[j]), 3), *more)
    console.print(made)
    paper = table("The paper's networks, placed by tension (approximate)", "", "decay", "M, data", "M, free", "decay, free",
                  "what NC1 did", left=1)
    for mark in found.marks:
        paper.add_row(mark["name"], compact(mark["decay"], 3), str(mark["data_layers"] or "-"), str(mark["free_layers"]),
                      compact(mark["free_decay"], 3), mark["outcome"])
    console.print(paper)
