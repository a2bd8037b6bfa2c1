"""`ncflow theory`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from rich.console import Console

from experiments.output import clean, writable, write_json
from experiments.progress import progress
from experiments.theory_figures import sweep_figure
from experiments.theory_files import png, write
from experiments.theory_model import Setting, build, describe, number, option
from experiments.theory_report import Rescaled, Start, document, formula, laws, report
from experiments.theory_show import show, show_sweep
from experiments.theory_sweep import axis, sweep
from ncflow.errors import BadInput, require
from ncflow.provenance import provenance


@dataclass(frozen=True, kw_only=True)
class Options(Setting):
    """Closed forms for a model: where it rests, how fast it gets there, where collapse ends, and when it happens.

    Prints numbers with the standing of each formula (exact, asymptotic, empirical) and its assumptions; what is not known
    for the model is said with the assumption that fails. A sweep also writes a table, a figure and JSON. See also ncflow
    theory network (a trained network's own numbers) and ncflow theory phase (over decay and depth).

    For example,

        ncflow theory --classes 10 --layers 3 --bias free --decay 1e-3

        ncflow theory --layers 3 --sweep decay=1e-6:1e-1:log:200

        ncflow theory --model deep_linear --layers 6 --amplitude 2 --noise 0.1 --json

        ncflow theory --model deep_linear --dataset digits --layers 6 --loss-scale 0.1 --decay 1e-4

        ncflow theory --loss cross_entropy --latex > formulas.tex
    """

    threshold: Annotated[float, option("NC1 below which features count as collapsed")] = 0.01
    signal: Annotated[float | None, number("signal of an aligned start, in (0, 1]", "a drawn start")] = None
    scatter: Annotated[float | None, number("within-class scatter at the start, summed over samples", "the drawn start's")] = None
    tolerance: Annotated[float, option("of fn, for the lead time")] = 0.01
    alpha: Annotated[tuple[float, ...], option("say how fn comes back after a layer at rest is multiplied by each",
                                               metavar="FLOAT ...")] = ()
    layer: Annotated[int, option("that layer, counted as in a list: -1 the head, -2 the one below")] = -2
    spectrum: Annotated[bool, option("list the eigenvalues of the Hessian with their multiplicities")] = False
    latex: Annotated[bool, option("print every formula used as one LaTeX document, and nothing else")] = False
    sweep: Annotated[str | None, option("along a parameter: decay=1e-6:1e-1:log:200, layers=1:8:lin:8, classes=2,4,10",
                                        metavar="SPEC", help_behavior_hint="(default: one model)")] = None
    out: Annotated[str, option("folder for the results of a sweep")] = "runs"
    json: Annotated[bool, option("print one JSON object on stdout and nothing else there")] = False


def run(options: Any) -> int:
    """Exit code 0."""
    require(0 < options.threshold < 1, "threshold", options.threshold, "between 0 and 1")
    require(0 < options.tolerance < 1, "tolerance", options.tolerance, "between 0 and 1")
    require(options.signal is None or 0 < options.signal <= 1, "signal", options.signal, "in (0, 1]")
    require(options.scatter is None or options.scatter > 0, "scatter", options.scatter, "greater than 0")
    start = Start(threshold=options.threshold, signal=options.signal, scatter=options.scatter, tolerance=options.tolerance)
    return _one(options, start) if options.sweep is None else _sweep(options, start)


def _one(options: Any, start: Start) -> int:
    require(all(a > 0 for a in options.alpha), "alpha", options.alpha, "greater than 0")
    model = build(options)
    rescaled = Rescaled(alphas=options.alpha, layer=options.layer) if options.alpha else None
    with progress() as tell:
        found = report(model, start, spectrum=options.spectrum, rescaled=rescaled, tell=lambda share: tell("theory", share))
    if options.json:
        formulas = {f"{title}: {name}": {"latex": formula(title, law), "status": status}
                    for title, name, law, status in laws(found)}
        print(json.dumps(clean({"setting": _setting(options), **found, "latex": formulas}), allow_nan=False))
    elif options.latex:
        print(document(found))
    else:
        show(found, Console(), describe(options, model))
    return 0


def _setting(options: Any) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__ if name not in ("json", "out", "latex")}


def _sweep(options: Any, start: Start) -> int:
    if options.latex or options.spectrum or options.alpha:
        raise BadInput("sweep", options.sweep, "without --latex, --spectrum and --alpha, which speak of one model")
    name, _, _ = axis(options.sweep)
    out = writable(options.out)
    with progress() as tell:
        found = sweep(options, options.sweep, start, tell=lambda share: tell("sweep", share))
    folder = writable(out / f"theory-{name}")
    folder.mkdir(parents=True, exist_ok=True)
    files = {"table": folder / "sweep.csv", "figure": folder / "sweep.png", "json": folder / "sweep.json"}
    write(png(sweep_figure(found, describe(options, build(options), without=name))), files["figure"])
    write(found.csv(), files["table"])
    record = {"setting": _setting(options), **found.json(), "files": {k: str(v) for k, v in files.items()},
              "provenance": provenance()}
    write_json(record, files["json"])
    if options.json:
        print(json.dumps(clean(record), allow_nan=False))
    else:
        console = Console()
        show_sweep(found, console)
        console.print("\n".join(f"{key}: {path}" for key, path in files.items()), highlight=False, soft_wrap=True)
    return 0
