"""How the audit looks in a terminal: what agrees a line each, what does not with its arithmetic, at most 100 columns wide."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.audit.check import Check, Verdict, counts
from experiments.audit.logs import LogAudit
from experiments.audit.logs.runs import THRESHOLDS, Group, depth_orders, disagreements, stopped

WIDTH = 100
RULE = """
fn: mean feature norm. T_NC: first epoch with NC1 below a threshold; fn*: fn there. CV: std over mean. ddof: what is taken from n
under the root of a std, 0 or 1. The only tolerance is rounding: a printed 1.077 stands for anything from 1.0765 to 1.0775, and a
bracket such as (1.2583 to 1.2592) is what such roundings leave open.
"""
LEGEND = """
<0.05 to <0.005: median epoch of the first NC1 below that; k/n: only k of n seeds got there; *: logged no further than the
paper's threshold, in column eps. ph, lr: phase (1 cross-entropy, 2 squared error) and mean learning rate at T_NC. fn*: mean at
T_NC; fn end, NC1 end: means over the runs that went on. -: none.
"""


def show_tables(checks: Sequence[Check], console: Console) -> None:
    """The paper against itself."""
    _say(console, "THE PAPER AGAINST ITSELF: what its printed numbers make of each other", "", *_wrap(RULE), "", *lines(checks),
         *_wrap(_tally(checks, "of the paper's numbers and statements")), "")  # fmt: skip


def show_logs(found: LogAudit, console: Console) -> None:
    """The paper against its authors' logs."""
    _say(console, "THE PAPER AGAINST ITS AUTHORS' LOGS", "")
    console.print(conditions(found.groups))
    _say(console, *_wrap(LEGEND), "")
    _say(console, "Depth at one threshold for all, from the fastest (median T_NC)", *orders(found.groups), "")
    _say(console, "Seeds that disagree", *(f"  {line}" for line in disagreements(found.groups)), "")
    _say(console, "THE PAPER'S NUMBERS, RECOMPUTED FROM THE LOGS", "", *lines(found.checks))
    _say(console, "WHAT ELSE THE LOGS SHOW (= as first read, ~ but for the last digit, x not so)", "", *readings(found))
    missing = [f"  {what}: {file} is not there" for what, file in found.skipped.items()]
    _say(console, *(["NOT CHECKED", *missing, ""] if missing else []), *_wrap(_tally(found.checks, "of the paper's statements")))


def lines(checks: Sequence[Check]) -> Iterator[str]:
    """Every check: first what agrees, last what does not, by place."""
    for verdict in Verdict:
        some = sorted((c for c in checks if c.verdict is verdict), key=lambda c: _place(c.where))
        if some:
            yield f"{verdict.value.upper()} ({len(some)})"
        for n, c in enumerate(some):
            if n == 0 or c.where != some[n - 1].where:
                yield f"  {c.where}"
            yield from _agreeing(c) if verdict is Verdict.AGREES else _other(c)
        if some:
            yield ""


def _place(where: str) -> tuple[int, list[int]]:
    """Tables, then figures, then the abstract and sections."""
    kinds = ("Table ", "Tables ", "Figure", "Abstract", "Section")
    kind = next((n for n, k in enumerate(kinds) if where.startswith(k)), len(kinds))
    return kind, [int(n) for n in re.findall(r"\d+", where)]


def _agreeing(c: Check) -> Iterator[str]:
    found = re.sub(r" \([-\d.]+ to [-\d.]+\)", "", c.found)
    note = f" -> {c.note}" if c.note else ""
    yield from _wrap(f"{c.what}: {c.stated}, found {found} [{c.arithmetic}]{note}", 4)


def _other(c: Check) -> Iterator[str]:
    yield from _wrap(c.what, 4)
    yield from _wrap(f"stated {c.stated}, found {c.found}", 8)
    yield from _wrap(c.arithmetic, 8) if c.arithmetic else ()
    yield from _wrap(f"-> {c.note}", 8, 11) if c.note else ()


def conditions(groups: Sequence[Group]) -> Table:
    """A row per condition of the logs."""
    table = Table(title="Logged runs by condition", title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1),
                  pad_edge=False, collapse_padding=True)  # fmt: skip
    table.add_column("condition", no_wrap=True)
    for name in ("runs", *(f"<{t:g}" for t in THRESHOLDS), "eps", "ph", "lr", "fn*", "fn end", "NC1 end"):
        table.add_column(name, justify="right", no_wrap=True)
    for g in groups:
        at = [(r, k) for r in g.runs if (k := r.index(g.threshold)) is not None]
        star, on = [r.fn_at(g.threshold) for r, _ in at], [r for r in g.runs if not stopped(r, g.threshold)]
        phases = sorted({int(r.phase[k]) for r, k in at})
        table.add_row(
            g.label,
            str(len(g.runs)),
            *(_crossed(g, t) for t in THRESHOLDS),
            f"{g.threshold:g}",
            ",".join(map(str, phases)) or "-",
            _mean([float(r.learning_rate[k]) for r, k in at], ".1e"),
            _mean(star, ".2f"),
            _mean([float(r.fn[-1]) for r in on], ".2f"),
            _mean([float(r.nc1[-1]) for r in on], ".4f"),
        )
    return table


def _crossed(g: Group, threshold: float) -> str:
    c = g.censored(threshold)
    if c.crossed == c.n:
        return f"{c.median:.0f}"
    unseen = any(stopped(r, g.threshold) for r, t in zip(g.runs, g.times(threshold), strict=True) if t != t)
    return "*" if unseen and not c.crossed else f"{c.crossed}/{c.n}" + ("*" if unseen else "")


def _mean(values: Sequence[float], form: str) -> str:
    known = [v for v in values if v == v]
    return format(sum(known) / len(known), form).replace("e-0", "e-") if known else "-"


def orders(groups: Sequence[Group]) -> Iterator[str]:
    """Depths at each common threshold."""
    for row in depth_orders(groups):
        each = [f"{d['depth']} ({d['median']:.0f})" if d["crossed"] == d["n"] else f"{d['depth']} ({d['crossed']} of {d['n']})"
                for d in row["order"]]  # fmt: skip
        yield f"  NC1 < {row['threshold']:g}: depth {', '.join(each)}"


def readings(found: LogAudit) -> Iterator[str]:
    """Every reading with what became of each number in it."""
    for r in found.readings:
        yield from _wrap(f"{r.claim.id}. {r.standing.value.upper()}: {r.claim.wording}", 2, 5)
        if r.missing:
            yield f"     {r.missing} is not there"
        for c in r.checks:
            mark = {Verdict.AGREES: "=", Verdict.SLIP: "~", Verdict.DISAGREES: "x"}[c.verdict]
            note = f" ({c.note})" if c.note else ""
            yield from _wrap(f"{mark} {c.what}: {c.stated}; found {c.found}{note}", 7, 9)
        yield ""


def _tally(checks: Sequence[Check], what: str) -> str:
    n = counts(checks)
    agree, slip, not_so = (n[v.value] for v in Verdict)
    return f"{len(checks)} {what} recomputed: {agree} agree, {slip} are off in the last digit, {not_so} do not agree."


def _wrap(text: str, indent: int = 0, then: int | None = None) -> list[str]:
    later = " " * (indent + 4 if then is None else then) if indent else ""
    return textwrap.wrap(text.strip(), WIDTH, initial_indent=" " * indent, subsequent_indent=later, break_long_words=False,
                         break_on_hyphens=False)  # fmt: skip


def _say(console: Console, *text: str) -> None:
    for line in text:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
