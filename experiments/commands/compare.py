"""`ncflow compare`."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

from experiments import compare as job
from experiments.figures import compare_figure, save
from experiments.options import PROTOCOL_HELP, build, options_of
from experiments.output import clean, writable, write_json
from experiments.progress import progress
from experiments.show import show
from realnets import TwoPhase

HELP = """Theory, simulation and a real network side by side: where the feature norm rests.

Trains MLPs under the two-phase protocol (cross-entropy, then MSE), all decays and seeds at once; predicts where the
feature norm rests from the trained head and from the data alone; simulates the linear network on the same inputs.

For example,

    ncflow compare

    ncflow compare --dataset mnist --subset 10000 --width 128 --depth 5 --data FOLDER

    ncflow compare --decays 1e-4 3e-4 --seeds 0 1 --json
"""

#: What can be compared: one perceptron, its decays and seeds.
FIELDS = ("dataset", "subset", "scaling", "data_seed", "depth", "width", "activation", "biases", "seeds", "decays", "batch_size",
          "lr", "optimiser", "momentum", "nesterov", "schedule", "epochs_ce", "epochs_mse", "measure_every", "threshold", "nc1")

Options = options_of(TwoPhase, PROTOCOL_HELP, "Options", HELP, only=FIELDS)


def run(options: Any) -> int:
    """Exit code: 1 if a lane of the network failed."""
    protocol = build(TwoPhase, options)
    out = writable(options.out)
    with progress() as tell:
        result = job.compare(protocol, root=options.data, device=options.device, seed=options.seed, progress=tell)
    folder = writable(out / f"compare-{protocol.dataset}")
    folder.mkdir(parents=True, exist_ok=True)
    files = {"figure": folder / "compare.png", "json": folder / "compare.json", "network": folder / "network.nc",
             "simulation": folder / "simulation.nc"}
    result.network.save(files["network"])
    result.simulation.save(files["simulation"])
    save(compare_figure(result), files["figure"])
    report = {"setting": result.setting(), "rows": result.rows, "files": {k: str(v) for k, v in files.items()},
              "seconds": result.seconds, "provenance": result.provenance}
    write_json(report, files["json"])
    failed = [c for c in result.collapses if c.regime.value == "failed"]
    if options.json:
        print(json.dumps(clean(report), allow_nan=False))
    else:
        console = Console()
        show(result, console)
        console.print("\n" + "  ".join(f"{part} {s:.0f} s" for part, s in result.seconds.items()), highlight=False)
        console.print("\n".join(f"{name}: {path}" for name, path in files.items()), highlight=False, soft_wrap=True)
    for lane in failed:
        print(f"ncflow: lane decay {lane.decay:g}, seed {lane.seed} failed: {lane.status.sentence}", file=sys.stderr)
    return 1 if failed else 0
