"""The `ncflow` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from experiments.options import UsageError, parse
from ncflow.errors import BadInput, RunFailed

DESCRIPTION = "Where does the mean feature norm go, how fast, and when does it not? Theory, simulation and real networks."

#: command -> (module with `Options` and `run`, what it does). The module is imported when the command is called.
COMMANDS = {
    "compare": ("experiments.commands.compare", "theory, simulation and a real network side by side"),
    "theory": ("experiments.commands.theory", "closed forms for a model: fixed point, rates, boundaries, sweeps"),
    "theory network": ("experiments.commands.theory_network", "what the numbers of a trained network imply by theory"),
    "theory phase": ("experiments.commands.theory_phase", "phase diagram: collapse time over decay and depth"),
    "simulate": ("experiments.commands.simulate", "integrate a model: its gradient flow or an optimiser, many lanes at once"),
    "train": ("experiments.commands.train", "train real networks under the two-phase protocol; resumable"),
    "run": ("experiments.commands.run", "experiments of the paper, with presets; resumable, in parallel"),
    "report": ("experiments.commands.report", "a page and tables with a verdict for every claim of the paper"),
    "list": ("experiments.commands.list", "which experiments there are, and which of their runs"),
    "explore": ("experiments.commands.explore", "a page with sliders: fixed point, trajectory, phase diagram"),
    "audit": ("experiments.commands.audit", "recompute the paper's own numbers, and those of its authors' logs"),
    "bench engine": ("experiments.commands.bench_engine", "speed of the engine against solvers, a training loop, bare products"),
    "bench train": ("experiments.commands.bench_train", "speed of training against the usual script and the machine's limits"),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line `args`; returns the exit code: 0 done, 1 a run failed, 2 bad input."""
    args = sys.argv[1:] if args is None else list(args)
    try:
        if args and args[0] in ("-h", "--help"):
            print(overview())
            return 0
        name = command(args)
        module = import_module(COMMANDS[name][0])
        return module.run(parse(module.Options, f"ncflow {name}", args[len(name.split()):]))
    except BadInput as e:
        print(f"ncflow: {e}", file=sys.stderr)
        return 2
    except RunFailed as e:
        print(f"ncflow: {e}", file=sys.stderr)
        return 1
    except SystemExit as e:
        return int(e.code or 0)
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        print("ncflow: interrupted", file=sys.stderr)
        return 130


def command(args: Sequence[str]) -> str:
    """The longest command of `COMMANDS` that `args` begins with.

    Raises:
        UsageError: there is none; names the nearest.
    """
    for words in (2, 1):
        if (name := " ".join(args[:words])) in COMMANDS:
            return name
    known = ", ".join(COMMANDS)
    if not args:
        raise UsageError(f"no command: one of {known} is accepted; ncflow --help says what they do")
    typed = " ".join([a for a in args[:2] if not a.startswith("-")])
    near = get_close_matches(typed, COMMANDS, 1)
    raise UsageError(f"command = {typed!r}: " + (f"did you mean {near[0]}? " if near else "") + f"One of {known} is accepted")


def overview() -> str:
    """What `ncflow --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["usage: ncflow COMMAND [options]", "", DESCRIPTION, "", *lines, "",
                      "ncflow COMMAND --help shows a command's options with an example, for instance", "",
                      "    ncflow compare --help"])


if __name__ == "__main__":
    sys.exit(main())
