"""Pooled means and tests: from the rows that they name, and if those do not give them, which rows do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy import stats

from experiments.audit.check import Check, Range, Verdict, compare, either, interval, number, over, statement
from experiments.published import Printed, Row, Spread, published
from experiments.statistics import anova_from


def checks() -> list[Check]:
    """Table 5, the row MLP-5/MNIST of Table 6, the grand mean of Section 5.4, and the ANOVA."""
    return [*table_5(), *mnist_row(), *grand_interval(), *analysis_of_variance(), *concentration()]


def conditions() -> tuple[tuple[str, Row], ...]:
    """Every printed condition of three ReLU runs on MNIST that collapsed at NC1 < 0.01, once each."""
    p = published()
    rows = [
        ("Table 2", p.table(2).row(depth=5)),
        ("Table 2", p.table(2).row(depth=7)),
        ("Table 4", p.table(4).row(decay=1e-5)),
        ("Table 4", p.table(4).row(decay=5e-5)),
        *(("Table 7", r) for r in p.table(7).rows),
    ]
    return tuple((f"{row.label} ({where})", row) for where, row in rows)


def pooled(rows: Sequence[Row]) -> tuple[Range, dict[str, Range]]:
    """Mean of all runs of rows of equal n, and their standard deviation by its ddof.

    The ddof of the printed standard deviations is not known: each may be 0 or 1.
    """
    n, total = rows[0].n or 0, len(rows) * (rows[0].n or 0)
    means, stds = [r["fn"].mean for r in rows], [r["fn"].std for r in rows]
    corners = over(lambda *m: float(n * np.sum((np.asarray(m) - np.mean(m)) ** 2)), *means)
    # Squares about the mean are convex: their greatest value is at a corner, their least may lie between.
    between = Range(corners.value, n * _least_squares(means), corners.high)
    within = Range(
        sum((n - 1) * s.value**2 for s in stds),
        sum((n - 1) * max(0.0, s.low) ** 2 for s in stds),
        sum(n * s.high**2 for s in stds),
    )
    ends = [getattr(between, e) + getattr(within, e) for e in ("value", "low", "high")]
    spread = {f"ddof {d}": Range(*(math.sqrt(e / (total - d)) for e in ends)) for d in (1, 0)}
    return over(lambda *m: sum(m) / len(m), *means), spread


def _least_squares(numbers: Sequence[Printed]) -> float:
    """The least sum of squared distances from their mean that the printed numbers may stand for."""
    low, high = np.array([p.low for p in numbers]), np.array([p.high for p in numbers])
    centre = float(np.mean((low + high) / 2))
    for _ in range(100):  # towards the centre nearest to every interval: a contraction
        centre = float(np.clip(centre, low, high).mean())
    return float(np.sum((np.clip(centre, low, high) - centre) ** 2))


def reproducing(stated: Spread, n: int) -> list[str]:
    """The sets of conditions with n runs in all that give a pooled mean and standard deviation."""
    found = []
    for some in combinations(conditions(), n // 3):
        mean, spread = pooled([row for _, row in some])
        stds = [compare(stated.std, s) for s in spread.values()]
        if compare(stated.mean, mean) is Verdict.AGREES and Verdict.AGREES in stds:
            found.append(_named([name for name, _ in some]))
    return found


def _named(some: Sequence[str]) -> str:
    every = [name for name, _ in conditions()]
    if len(some) > len(every) / 2:
        return f"all {len(every)} conditions but {', '.join(name for name in every if name not in some)}"
    return " + ".join(some)


def table_5() -> list[Check]:
    """Each row from the rows it names; ranges of T_NC; the caption."""
    p, made = published(), []
    table = p.table(5)
    collapsed = [r for r in p.table(4).rows if r["fn"] is not None]
    sources = {
        "depth sweep": ("Table 2", p.table(2).rows),
        "decay sweep": ("Table 4", collapsed),
        "width sweep": ("Table 7", p.table(7).rows),
    }
    for label, (where, rows) in sources.items():
        row = table.row(label)
        made += _row(row, where, rows, row.n)
    every = table.row("all ReLU runs")
    parts = [table.row("decay sweep"), table.row("width sweep")]
    mean = over(lambda a, b: (9 * a + 12 * b) / 21, *(r["fn"].mean for r in parts))
    made.append(
        number(
            "Table 5",
            "mean of all ReLU runs, from the sweeps",
            every["fn"].mean,
            mean,
            f"(9 x {parts[0]['fn'].mean} + 12 x {parts[1]['fn'].mean}) / 21, the two sweeps that make N = 21",
            _told(every["fn"], 21),
        )
    )
    times = [r["t_nc"].mean for _, r in conditions()]
    made.append(
        interval(
            "Table 5",
            "range of T_NC, all ReLU runs",
            every["t_nc"],
            _ends(times),
            "Tables 2, 4 and 7 at NC1 < 0.01",
            "250 is depth 3, at NC1 < 0.05",
        )
    )
    caption = table.row("caption")
    same = caption["fn"] == every["fn"]
    note = "" if same else "the caption's number is that of the 9 runs of the decay sweep"
    what = "grand mean of all 21 runs in the caption"
    made.append(statement("Table 5", what, str(caption["fn"]), same, str(every["fn"]), "last row of the table", note))
    return made


def _row(row: Row, where: str, rows: Sequence[Row], n: int | None) -> list[Check]:
    mean, spread = pooled(rows)
    how = f"mean of {', '.join(str(r['fn'].mean) for r in rows)} ({where})"
    note = _told(row["fn"], n or 3 * len(rows))
    fits = compare(row["fn"].mean, mean) is Verdict.AGREES
    made = [number("Table 5", f"fn*, {row.label}", row["fn"].mean, mean, how, "" if fits else note)]
    how = f"pooled from {', '.join(str(r['fn']) for r in rows)} ({where}), each of ddof 0 or 1"
    made.append(either("Table 5", f"std of fn*, {row.label}", row["fn"].std, spread, how))
    ends = _ends([r["t_nc"].mean for r in rows])
    made.append(interval("Table 5", f"range of T_NC, {row.label}", row["t_nc"], ends, f"least and greatest mean of {where}"))
    return made


def _told(stated: Spread, n: int) -> str:
    found = reproducing(stated, n)
    if not found:
        return f"no {n // 3} of the {len(conditions())} printed conditions give {stated}"
    return f"{stated} is {' or '.join(found)}"


def _ends(times: Sequence[Printed]) -> tuple[Range, Range]:
    low, high = min(times, key=float), max(times, key=float)
    return Range(low.value, low.low, low.high), Range(high.value, high.low, high.high)


def mnist_row() -> list[Check]:
    """N of MLP-5 on MNIST in Table 6."""
    row = published().table(6).row("MLP-5 on MNIST")
    runs = sum(r.n or 0 for _, r in conditions())
    return [
        statement(
            "Table 6",
            "N counts confirmed collapses across all conditions, MLP-5/MNIST",
            str(row.n),
            runs == row.n,
            str(runs),
            f"3 each of {', '.join(name for name, _ in conditions())}",
            _told(row["fn"], row.n or 0),
        )
    ]


def of_nine(stated: Sequence[Printed]) -> str:
    """Whether an interval has the width of the t-interval of Table 4's nine runs; "" if not."""
    _, spread = pooled([published().table(4).row(decay=d) for d in (1e-5, 5e-5, 1e-4)])
    t = float(stats.t.ppf(0.975, 8)) / 3
    half = over(lambda a, b: (b - a) / 2, *stated)
    if not t * spread["ddof 1"].low <= half.high or not half.low <= t * spread["ddof 1"].high:
        return ""
    return f"its half-width, {half.value:.3f}, is that of Table 4's nine runs, t(0.975, 8) {spread['ddof 1'].value:.3f} / 3"


def grand_interval() -> list[Check]:
    """The interval and the extremes claimed for the nine runs of the decay sweep."""
    claim = published().claim("weight_decay.invariance").values
    fn, (low, high) = claim["fn"], claim["interval"]
    made = [
        number(
            "Section 5.4",
            "CV of the nine runs",
            claim["cv_percent"],
            over(lambda m, s: 100 * s / m, fn.mean, fn.std),
            f"{fn.std} / {fn.mean}",
            unit="%",
        )
    ]
    z = float(stats.norm.ppf(0.975)) / 3
    ends = {
        name: [over(lambda m, s, k=k, sign=sign: m + sign * k * s, fn.mean, fn.std) for sign in (-1, 1)]
        for name, k in (("t", float(stats.t.ppf(0.975, 8)) / 3), ("bootstrap", z * math.sqrt(8 / 9)))
    }
    t = interval("Section 5.4", "", (low, high), ends["t"], "")
    width = {name: e[1].value - e[0].value for name, e in ends.items()}
    narrower = 100 * (1 - width["bootstrap"] / width["t"])
    made.append(
        interval(
            "Section 5.4",
            "95% CI of the nine runs",
            (low, high),
            ends["bootstrap"],
            f"{fn.mean} ± 1.96 {fn.std} sqrt(8/9) / 3, what bootstrap percentiles tend to",
            f"a t-interval is {t.found}: of nine values the bootstrap's is {narrower:.0f}% narrower",
        )
    )
    worst = []
    for where, r in (c for c in conditions() if "Table 4" in c[0] or c[0].startswith("depth 5")):
        n, s, m = r.n or 0, r["fn"].std, r["fn"].mean
        least = (n - 1) * s.low**2 + n * max(0.0, abs(m.value - fn.mean.value) - m.half - fn.mean.half) ** 2
        most = n * fn.std.high**2
        if least > most:
            worst.append(
                f"{where}: the squares of its distances from {fn.mean} sum to at least {least:.4f}; of three values "
                f"within {fn.std} they sum to at most {most:.4f}"
            )
    what = "all nine values lie within one std of the mean"
    made.append(
        statement(
            "Figure 5",
            what,
            f"within {fn.std} of {fn.mean}",
            not worst,
            "impossible" if worst else "possible",
            "; ".join(worst) or "squares of the three rows of Table 4",
        )
    )
    return made


def analysis_of_variance() -> list[Check]:
    """F = 55.88: from the four pairs it is said to compare, and from two groups."""
    claim = published().claim("grid.anova").values
    rows = [r for r in published().table(6).rows if r.n is not None]
    cells = [c for r in rows for c in (r["fn"].mean, r["fn"].std)]
    ns = [r.n or 0 for r in rows]

    def f(*x: float) -> float:
        return anova_from(x[0::2], x[1::2], ns).statistic

    four = over(f, *cells)
    cifar, width = published().table(6).row("ResNet-20 on CIFAR-10")["fn"], published().table(5).row("width sweep")["fn"]
    two = over(lambda m, s, n, t: anova_from([m, n], [s, t], [12, 3]).statistic, width.mean, width.std, cifar.mean, cifar.std)
    note = (
        (
            f"two groups give it: the 12 runs of the width sweep ({width}) and ResNet-20/CIFAR-10, F from {two.low:.1f} to "
            f"{two.high:.1f}"
        )
        if compare(claim["f"], two) is Verdict.AGREES
        else ""
    )
    how = f"Table 6, N = {', '.join(map(str, ns))}, stds of ddof 1"
    shown = f"{four.value:.0f} ({four.low:.0f} to {four.high:.0f})"
    verdict = compare(claim["f"], four)
    p = anova_from([c.value for c in cells[0::2]], [c.value for c in cells[1::2]], ns).p
    return [
        Check(
            "Table 6",
            "ANOVA between the four pairs, F",
            str(claim["f"]),
            shown,
            how,
            verdict,
            note,
            {"stated_value": claim["f"].value, "found_value": four.value, "found_low": four.low, "found_high": four.high},
        ),
        statement(
            "Table 6",
            "p of that ANOVA",
            f"p < {claim['p_below']}",
            p < claim["p_below"].value,
            f"{p:.0e}",
            f"F({len(rows) - 1}, {sum(ns) - len(rows)}) = {four.value:.0f}",
        ),
    ]


def concentration() -> list[Check]:
    """CV < 8% within a pair, across depths, decays, widths and seeds."""
    p = published()
    limit = p.claim("concentration.cv").values["cv_percent_below"].value
    rows = [
        ("Table 5", "all ReLU runs of MLP-5 on MNIST", p.table(5).row("all ReLU runs")),
        ("Table 7", "width 128", p.table(7).row(width=128)),
        *(("Table 2", f"depth {d}", p.table(2).row(depth=d)) for d in (2, 3)),
    ]
    made = []
    for where, label, row in rows:
        fn = row["fn"]
        cv = over(lambda m, s: 100 * s / m, fn.mean, fn.std)
        made.append(
            statement(
                "Sections 6.1, 7",
                f"CV below 8% across depths, decays, widths and seeds: {label}",
                f"< {limit:g}%",
                cv.low < limit,
                f"{cv.shown(1)}%",
                f"{fn.std} / {fn.mean}, {where}",
            )
        )
    every = [(f"depth {d} (Table 2)", p.table(2).row(depth=d)) for d in (2, 3)] + list(conditions())
    low, high = (f(every, key=lambda r: r[1]["fn"].mean.value) for f in (min, max))
    within = over(lambda a, b: 100 * (b / a - 1), low[1]["fn"].mean, high[1]["fn"].mean)
    gap = p.claim("baseline.gap").values["percent_elsewhere"]
    made.append(
        statement(
            "Section 6.1",
            "the gap between pairs is larger than the spread within one",
            f"{gap}%",
            within.high < gap.value,
            f"{within.shown(1)}% over ReLU MLPs on MNIST",
            f"{high[1]['fn'].mean}, {high[0]}, over {low[1]['fn'].mean}, {low[0]}",
        )
    )
    return made
