"""Orders of T_NC over depth, width, activation and decay, with what three seeds show of them; Section 5.3 against Table 3."""

from __future__ import annotations

import math
from itertools import pairwise

from experiments import statistics
from experiments.audit.check import Check, number, over, statement
from experiments.published import Printed, Row, published
from experiments.statistics import difference_from


def checks() -> list[Check]:
    """Every order, and every number of the text that Table 3 holds."""
    return [*orders(), *activation()]


def orders() -> list[Check]:
    """Orders of T_NC, with what three seeds can show of them."""
    p, made = published(), []
    depth = sorted(p.table(2).rows, key=lambda r: r["t_nc"].mean.value)
    made.append(
        statement(
            "Section 5.2",
            "depth 3 fastest, depth 7 slowest",
            "3 < 2, 5 < 7",
            (depth[0].label, depth[-1].label) == ("depth 3", "depth 7"),
            " < ".join(r.label.split()[1] for r in depth),
            "Table 2",
            f"depths 2 and 3 use NC1 < 0.05, the others 0.01; depth 3 against 2: p = {_p(depth[0], depth[1]):.2f}",
        )
    )
    width = p.table(7).rows
    falls = all(a["t_nc"].mean.value > b["t_nc"].mean.value for a, b in pairwise(width))
    made.append(
        statement(
            "Section 5.6",
            "T_NC falls monotonically with width",
            "falls",
            falls,
            " > ".join(str(r["t_nc"].mean) for r in width),
            "Table 7",
        )
    )
    acts = sorted(p.table(3).rows, key=lambda r: r["t_nc"].mean.value)
    made.append(
        statement(
            "Section 5.3",
            "tanh fastest, then GELU, then ReLU",
            "tanh < GELU < ReLU",
            [r.label for r in acts] == ["tanh", "GELU", "ReLU"],
            " < ".join(f"{r.label} {r['t_nc'].mean}" for r in acts),
            "Table 3",
            "GELU and tanh at NC1 < 0.05, ReLU at 0.01",
        )
    )
    rates = [r for r in p.table(4).rows if r["t_nc"] is not None]
    faster = all(a["t_nc"].mean.value > b["t_nc"].mean.value for a, b in pairwise(rates))
    made.append(
        statement(
            "Section 5.4",
            "higher decay, where there is collapse, is faster",
            "faster",
            faster,
            "; ".join(f"{r.label}: {r['t_nc'].mean}" for r in rates),
            "Table 4",
            f"the last two do not differ: p = {_p(rates[1], rates[2]):.2f}",
        )
    )
    return made


def activation() -> list[Check]:
    """Numbers of the text and of Figure 4 that Table 3 holds."""
    p = published()
    table, figure = p.table(3), p.figure(4).values
    speed, norm, spread = (p.claim(f"activation.{k}").values for k in ("speed", "value", "sensitivity"))
    made = []
    for label, key in (("tanh", "tanh"), ("GELU", "gelu"), ("ReLU", "relu")):
        row = table.row(label)
        made.append(
            same(
                "Section 5.3",
                f"T_NC of {label}",
                speed[f"t_nc_{key}"],
                row["t_nc"].mean,
                "Table 3",
                "310 is the one seed of Figure 1" if key == "relu" else "",
            )
        )
        made.append(same("Section 5.3", f"fn* of {label}", norm[f"fn_{key}"], row["fn"].mean, "Table 3"))
        made.append(same("Figure 4", f"fn* of {label}", figure[f"fn_{key}"], row["fn"].mean, "Table 3"))
    gelu = table.row("GELU")
    fn, n = gelu["fn"], gelu.n or 1
    ways = {
        f"std of ddof {d}": over(lambda m, s, k=k: 100 * k * s / m, fn.mean, fn.std)
        for d, k in ((1, 1.0), (0, math.sqrt((n - 1) / n)))
    }
    made.append(
        number(
            "Section 5.3",
            "CV of GELU",
            spread["cv_percent_gelu"],
            ways["std of ddof 1"],
            f"{fn.std} / {fn.mean}",
            f"with ddof 0 {ways['std of ddof 0'].shown(1)}%",
            "%",
        )
    )
    for label in ("ReLU", "tanh"):
        fn = table.row(label)["fn"]
        cv = over(lambda m, s: 100 * s / m, fn.mean, fn.std)
        made.append(
            statement(
                "Section 5.3",
                f"CV of {label} below 3%",
                f"< {spread['cv_percent_others_below']}%",
                cv.low < spread["cv_percent_others_below"].value,
                f"{cv.shown(1)}%",
                f"{fn.std} / {fn.mean}",
            )
        )
    made.append(
        statement(
            "Figure 4",
            "seeds of each activation",
            f"{figure['seeds']} each",
            all(r.n == 3 for r in table.rows),
            ", ".join(f"{r.label} {r.n}" for r in table.rows),
            "Table 3",
        )
    )
    return made


def same(where: str, what: str, stated: Printed, other: Printed, source: str, note: str = "") -> Check:
    return number(where, what, stated, over(lambda x: x, other), f"{other}, {source}", note)


def difference(a: Row, b: Row, column: str) -> statistics.Difference:
    x, y = a[column], b[column]
    return difference_from((x.mean.value, x.std.value, a.n or 3), (y.mean.value, y.std.value, b.n or 3), "student")


def _p(a: Row, b: Row) -> float:
    return difference(a, b, "t_nc").p
