"""The `ncflow` command."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from experiments.options import PROTOCOL_HELP, build, options_of, parse
from ncflow.errors import BadInput
from realnets import TwoPhase

DESCRIPTION = "Where does the mean feature norm go, how fast, and when does it not? Theory, simulation and real networks."

COMPARE = """Theory, simulation and a real network side by side: where the feature norm rests.

Trains MLPs under the two-phase protocol (cross-entropy, then MSE), all decays and seeds at once; predicts where the
feature norm rests from the trained head and from the data alone; simulates the linear network on the same inputs.

For example,

    ncflow compare

    ncflow compare --dataset mnist --subset 10000 --width 128 --depth 5 --data FOLDER

    ncflow compare --decays 1e-4 3e-4 --seeds 0 1 --json
"""

Compare = options_of(TwoPhase, PROTOCOL_HELP, "Compare", COMPARE)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line `args`; returns the exit code: 0 done, 1 a run failed, 2 bad input."""
    args = sys.argv[1:] if args is None else list(args)
    try:
        name, options = parse({"compare": Compare}, args, DESCRIPTION)
        return {"compare": run_compare}[name](options)
    except BadInput as e:
        print(f"ncflow: {e}", file=sys.stderr)
        return 2
    except SystemExit as e:
        return int(e.code or 0)
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        print("ncflow: interrupted", file=sys.stderr)
        return 130


@contextmanager
def progress():
    """A callable (part, fraction) that draws a bar per part on stderr; silent when stderr is not a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<12}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        parts: dict[str, Any] = {}

        def tell(part: str, share: float) -> None:
            if part not in parts:
                parts[part] = bars.add_task(part, total=1.0)
            bars.update(parts[part], completed=share)

        yield tell


def run_compare(options: Any) -> int:
    from experiments import compare as job
    from experiments.figures import compare_figure, save
    from experiments.output import clean, writable, write_json
    from experiments.show import show

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


if __name__ == "__main__":
    sys.exit(main())
