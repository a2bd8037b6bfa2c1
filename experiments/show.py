"""How a `Comparison` looks in a terminal."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.compare import Comparison


def number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def spread(entry: dict[str, Any], form: str = ".3f") -> str:
    """mean +- std of an entry with "mean" and "std"."""
    if entry["mean"] is None:
        return "-"
    tail = "" if entry["std"] is None else f" ± {format(entry['std'], form)}"
    return format(entry["mean"], form) + tail


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.1f}%"


def short(value: float) -> str:
    """A decay as people write it: 1e-4, 0.05."""
    if value == 0 or value >= 0.01:
        return f"{value:g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def tables(result: Comparison) -> list[Table | Text]:
    """The two tables and the notes under them, each at most 80 columns wide."""
    p = result.protocol
    images = f" ({p.subset} images)" if p.subset else ""
    real = _table(f"Real network: {p.dataset}{images}, MLP {p.depth} x {p.width} {p.activation}, {len(p.seeds)} seeds",
                  "decay", "T_NC", "fn at T_NC", "fn at end", "NC1 at end", "collapsed")
    for row in result.rows:
        r, a = row["real"], row["agreement"]
        real.add_row(short(row["decay"]), spread(r["t_nc"], ".0f"), spread(r["fn_star"]), spread(r["fn_end"]),
                     spread(r["nc1_end"], ".4f"), f"{a['real_collapsed']}/{a['seeds']}")
    fixed = _table("Where fn rests, and the error of each prediction against fn at the end",
                   "decay", "measured", "head", "error", "data", "error", "simulated", "NC1 floor")
    for row in result.rows:
        t, e, s = row["theory"], row["relative_error"], row["simulation"]
        fixed.add_row(short(row["decay"]), number(row["real"]["fn_end"]["mean"]), number(t["feature_norm_head"]),
                      percent(e["feature_norm_head"]), number(t["feature_norm_data"]), percent(e["feature_norm_data"]),
                      number(s["fn_inf"]), number(s["nc1_floor"]))
    return [real, Text(_phase_note(result)), fixed, Text("\n".join(notes(result)))]


def _phase_note(result: Comparison) -> str:
    p = result.protocol
    names = {1: "cross-entropy", 2: "MSE"}
    phases = sorted({c.phase for c in result.collapses if c.phase})
    fell = f"it fell in the {' and the '.join(names[k] for k in phases)} phase" if phases else "no seed got there"
    return (f"T_NC: first epoch, looking every {p.measure_every}, with {p.nc1} < {p.threshold:g}; {fell}. Means ± standard "
            "deviations over seeds; T_NC and fn at T_NC over the seeds that collapsed.\n")


def notes(result: Comparison) -> list[str]:
    """What a reader needs to judge the numbers."""
    drift = max(abs(c.fn_drift) for c in result.collapses)
    uneven = max(row["real"]["balance"]["mean"] or 0.0 for row in result.rows)
    gaps = [abs(e) for row in result.rows if (e := row["relative_error"]["simulation_to_theory"]) is not None]
    agree = sum(row["agreement"]["agree"] for row in result.rows)
    return [
        "head: stationarity of the trained head, given the shape of its class-mean Gram matrix; exact at rest.",
        "data: fixed point of the linear network on the same inputs; exact for linear layers, an approximation for "
        "ReLU with biases.",
        "simulated: gradient flow of that linear network, at rest" + (
            f"; within {max(gaps):.0e} of its closed form." if gaps else "; it did not come to rest."),
        f"Real networks: fn moved by at most {100 * drift:.1f}% in the last tenth of the run; squared layer norms are out "
        f"of balance by up to {100 * uneven:.0f}% (0 at rest).",
        f"Regimes (collapse or not): the linear network's NC1 floor says the same as the real networks at {agree} of "
        f"{len(result.rows)} decays.",
    ]


def show(result: Comparison, console: Console) -> None:
    """Print the tables."""
    for part in tables(result):
        console.print(part)
