"""`ncflow train`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console

from experiments.figures import save
from experiments.options import PROTOCOL_HELP, given, options_of
from experiments.output import clean, writable, write_json
from experiments.training import cost, figure, rows, show
from realnets import PRESETS, Outcome, Stopped, TwoPhase, Watch, preset, train
from realnets.train import dataset, find_device, run_id

HELP = f"""Train real networks under the two-phase protocol: cross-entropy, then squared error.

Decays, learning rates, interventions and seeds are lanes of one batch. Checkpoints are kept in a folder named by a hash of
configuration and data: a run that was stopped or killed goes on when the same command is given again, to the same bits, and a
finished one is not trained again.

Presets: {", ".join(PRESETS)}.

For example,

    ncflow train --epochs-mse 60 --decays 1e-4 --seeds 0

    ncflow train --preset mnist-10k --data FOLDER

    ncflow train --preset paper-mlp-intervention --alphas 0.3 1 3 --data FOLDER --device cuda
"""

OWN = {
    "preset": (str | None, None, "a named setting; the options given replace its fields"),
    "every": (int, 10, "epochs between checkpoints"),
    "dtype": (str, "float32", "float32, or float64 for checks"),
    "seed": (int | None, None, "one seed, short for --seeds"),
}
Options = options_of(TwoPhase, PROTOCOL_HELP, "Options", HELP, own=OWN, preset=True)


def run(options: Any) -> int:
    """Exit code: 1 if a lane left the finite numbers or the disk is full, 130 after Ctrl-C, 143 after SIGTERM."""
    chosen = given(TwoPhase, options)
    if options.seed is not None:
        chosen["seeds"] = (options.seed,)
    protocol = preset(options.preset, **chosen) if options.preset is not None else TwoPhase(**chosen)
    out, device = writable(options.out), find_device(options.device)
    data = dataset(protocol, options.data)
    identity = run_id(protocol, data, device=device.type, dtype=options.dtype)
    folder = out / f"train-{protocol.dataset}-{protocol.architecture}-{identity[:10]}"
    try:
        with _watching() as watch:
            result = train(protocol, device=device, dtype=options.dtype, data=data, checkpoint=folder, every=options.every,
                           watch=watch, note=lambda line: print(f"ncflow: {line}", file=sys.stderr))  # fmt: skip
    except Stopped as e:
        print(f"ncflow: {e}; the same command goes on from there", file=sys.stderr)
        return e.code
    files = {"record": folder / "record.nc", "weights": folder / "final.npz", "figure": folder / "train.png",
             "json": folder / "train.json"}  # fmt: skip
    save(figure(protocol, result), files["figure"])
    found = rows(protocol, result)
    report = {"run": identity, "setting": protocol.config(), "lanes": found, "files": {k: str(v) for k, v in files.items()},
              "seconds": result.provenance["seconds"], "provenance": result.provenance}  # fmt: skip
    write_json(report, files["json"])
    if options.json:
        print(json.dumps(clean(report), allow_nan=False))
    else:
        console = Console() if sys.stdout.isatty() else Console(width=100)
        show(protocol, found, console)
        console.print("\n" + cost(result), highlight=False)
        console.print("\n".join(f"{name}: {path}" for name, path in files.items()), highlight=False, soft_wrap=True)
    failed = [row for row in found if row["outcome"] == Outcome.NON_FINITE.words]
    for row in failed:
        print(f"ncflow: lane decay {row['decay']:g}, lr {row['lr']:g}, alpha {row['alpha']:g}, seed {row['seed']} failed: "
              f"{Outcome.NON_FINITE.sentence}", file=sys.stderr)  # fmt: skip
    return 1 if failed else 0


@contextmanager
def _watching() -> Iterator[Callable[[Watch], None]]:
    """What draws epoch, NC1, fn and the time left on stderr; silent when that is not a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("training", total=1.0)

        def watch(at: Watch) -> None:
            left = "" if np.isnan(at.eta) else f", {at.eta / 60:.0f} min left" if at.eta > 90 else f", {at.eta:.0f} s left"
            text = f"epoch {at.epoch}/{at.epochs}, phase {at.phase}, NC1 {_range(at.nc1)}, fn {_range(at.fn)}{left}"
            bars.update(task, description=text, completed=at.epoch / at.epochs)

        yield watch


def _range(values: np.ndarray) -> str:
    seen = values[np.isfinite(values)]
    if not seen.size:
        return "-"
    low, high = float(seen.min()), float(seen.max())
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
