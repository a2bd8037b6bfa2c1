"""The paper's tables, recomputed from the authors' own logs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from experiments import statistics
from experiments.audit.check import Check, Verdict, compare, statement
from experiments.audit.logs.witness import Part, column, exact, known, listed, run, runs, spread
from experiments.published import Row, published
from experiments.published.log_files import SWITCH
from experiments.published.logs import Log, Logs


def parts() -> dict[str, Part]:
    """Name -> the checks of that name."""
    return {
        "Table 1": table_1,
        "Table 2": table_2,
        "Table 3": table_3,
        "Table 4": table_4,
        "Table 7": table_7,
        "Table 8": table_8,
    }


def table_1(logs: Logs) -> list[Check]:
    """fn at NC1 < 0.02 of every seed."""
    made = []
    for row in published().table(1).rows:
        if not row.condition:
            continue
        some = runs(logs, "threshold_robustness", **{"depth": 5, "width": 512, "decay": 1e-4, **row.condition})
        late, early = [r.fn_at(0.01) for r in some], [r.fn_at(0.02) for r in some]
        two = [(a.seed, b.seed, (a.fn_at(0.02) + b.fn_at(0.02)) / 2) for a, b in combinations(some, 2)]
        near = [t for t in two if compare(row["fn_002"], known(t[2])) is not Verdict.DISAGREES]
        note = "; ".join(f"seeds {a} and {b} alone give {m:.4f}" for a, b, m in near)
        fits = compare(row["fn_002"], known(float(np.mean(early)))) is Verdict.AGREES
        made.append(
            exact(
                "Table 1",
                f"fn* at NC1 < 0.02, {row.label}",
                row["fn_002"],
                float(np.mean(early)),
                f"mean of {listed(early)}",
                "" if fits else note,
            )
        )
        made.append(
            exact(
                "Table 1",
                f"ratio, {row.label}",
                row["ratio"],
                float(np.mean(early) / np.mean(late)),
                f"{np.mean(early):.4f} / {np.mean(late):.4f}",
            )
        )
    return made


def table_2(logs: Logs) -> list[Check]:
    """Each depth; depths 2 and 3 from the runs that were repeated, which the table uses."""
    made = []
    for row in published().table(2).rows:
        depth, level = row.condition["depth"], row.condition["threshold"]
        some = runs(logs, "depth_rerun" if depth <= 3 else "depth", depth=depth)
        made += _both("Table 2", row.label, row, some, level)
    again = [
        (a, b) for d in (2, 3) for a, b in zip(runs(logs, "depth", depth=d), runs(logs, "depth_rerun", depth=d), strict=True)
    ]
    apart = [f"depth {a.condition['depth']} seed {a.seed}: {a.t_nc(0.05):.0f} and {b.t_nc(0.05):.0f}" for a, b in again]
    differ = max(abs(a.t_nc(0.05) - b.t_nc(0.05)) for a, b in again)
    made.append(
        statement(
            "Table 2",
            "depths 2 and 3: the same seeds, run twice, give the same T_NC",
            "one T_NC per seed",
            differ == 0,
            f"up to {differ:.0f} epochs apart",
            "; ".join(apart),
            f"the table has the second runs; the first give {_means(again, 0)}",
        )
    )
    return made


def table_3(logs: Logs) -> list[Check]:
    """GELU from four of its five seeds, tanh in phase 2 and by the definition, and the rule that excludes."""
    table, made = published().table(3), []
    tanh = runs(logs, "activation", activation="tanh")
    seeds = column(logs, "gelu_summary.csv", "seed")
    gelu, times = column(logs, "gelu_summary.csv", "fn"), column(logs, "gelu_summary.csv", "T_NC")
    kept = [k for k, s in enumerate(seeds) if s != 0]
    row = table.row("GELU")
    made.append(
        spread(
            "Table 3",
            "T_NC, GELU",
            row["t_nc"],
            [times[k] for k in kept],
            f"seeds 1-4: {listed([times[k] for k in kept], '.0f')}",
        )
    )
    made.append(
        spread(
            "Table 3",
            "fn*, GELU",
            row["fn"],
            [gelu[k] for k in kept],
            f"seeds 1-4: {listed([gelu[k] for k in kept])}",
            f"all five seeds give CV {100 * statistics.summary(gelu).cv:.1f}%",
        )
    )
    excluded, rule = run(logs, "actGELU_s0"), published().protocol
    after = excluded.nc1[excluded.epoch > rule["diverged_after"]]
    early = [r.fn_at(0.05) for r in tanh if r.t_nc(0.05) <= SWITCH]
    made.append(
        statement(
            "Table 3",
            "GELU seed 0 diverged: NC1 > 0.5 after epoch 300",
            "excluded",
            bool((after > rule["diverged_nc1"]).any()),
            f"greatest NC1 after epoch 300 is {after.max():.3f}",
            "actGELU_s0.csv",
            f"it collapsed to NC1 < 0.05 at epoch {excluded.t_nc(0.05):.0f}, fn {excluded.fn_at(0.05):.3f}",
        )
    )
    row = table.row("tanh")
    phase_2 = [r.t_nc(0.05, 2) for r in tanh]
    made.append(spread("Table 3", "T_NC, tanh, counting phase 2 alone", row["t_nc"], phase_2, listed(phase_2, ".0f")))
    made.append(
        spread(
            "Table 3",
            "fn*, tanh, counting phase 2 alone",
            row["fn"],
            [r.fn_at(0.05, 2) for r in tanh],
            listed([r.fn_at(0.05, 2) for r in tanh]),
        )
    )
    first = [r.t_nc(0.05) for r in tanh]
    made.append(
        statement(
            "Table 3",
            "tanh: T_NC is the first epoch with NC1 < 0.05",
            str(row["t_nc"]),
            first == phase_2,
            listed(first, ".0f"),
            "first epoch below 0.05 of each seed, either phase",
            f"in phase 1 at fn {listed(early, '.1f')}" if early else "",
        )
    )
    return made


def table_4(logs: Logs) -> list[Check]:
    """Each decay that collapses, and the length of phase 2 behind each row."""
    made, lengths = [], {}
    for row in published().table(4).rows:
        some = runs(logs, "weight_decay", decay=row.condition["decay"])
        lengths[row.label] = sorted({r.protocol.epochs_mse for r in some})
        crossed = sum(math.isfinite(r.t_nc()) for r in some)
        made.append(
            exact("Table 4", f"collapsed, {row.label}", row["collapsed"], crossed, f"{crossed} of {len(some)} reach NC1 < 0.01")
        )
        if row["t_nc"] is not None:
            made += _both("Table 4", row.label, row, some, 0.01)
    made.append(
        statement(
            "Table 4",
            "rows differ in decay alone",
            "decay",
            len({tuple(v) for v in lengths.values()}) == 1,
            "length of phase 2, too" if len({tuple(v) for v in lengths.values()}) > 1 else "decay",
            "; ".join(f"{k}: {' and '.join(map(str, v))}" for k, v in lengths.items()),
            "a cosine over another length is another learning rate at the same epoch",
        )
    )
    return made


def table_7(logs: Logs) -> list[Check]:
    """Each width, from the summary, which alone has width 1024."""
    made = []
    for row in published().table(7).rows:
        w = row.condition["width"]
        for name, key in (("T_NC", "t_nc"), ("fn", "fn")):
            values = column(logs, "sweep_width.csv", name, width=w)
            made.append(
                spread("Table 7", f"{name}, width {w}", row[key], values, listed(values, ".0f" if name == "T_NC" else ".3f"))
            )
    return made


def table_8(logs: Logs) -> list[Check]:
    """Each arm, and tests paired by seed."""
    made, table = [], published().table(8)
    arms = {row.label: runs(logs, "intervention", alpha=row.condition["alpha"]) for row in table.rows}
    for row in table.rows:
        made += _both("Table 8", row.label, row, arms[row.label], 0.01)
        after = column(logs, "intervention_summary.csv", "fn_after_rescale", alpha=row.condition["alpha"])
        made.append(
            exact(
                "Table 8", f"fn after rescaling, {row.label}", row["fn_after"], float(np.mean(after)), f"mean of {listed(after)}"
            )
        )
    for row in table.rows[1:]:
        for what, get in (("T_NC", Log.t_nc), ("fn*", Log.fn_at), ("fn at the end", lambda r: float(r.fn[-1]))):
            a, b = [get(r) for r in arms[row.label]], [get(r) for r in arms["control"]]
            student, paired = statistics.difference(a, b, "student"), statistics.difference(a, b, "paired")
            if what == "T_NC":
                made.append(
                    exact(
                        "Table 8",
                        f"p of T_NC, {row.label}",
                        row["p"],
                        student.p,
                        f"Student's t, {student.difference:.1f} epochs",
                        f"paired by seed p = {paired.p:.2f}; 95% interval [{student.low:.0f}, {student.high:.0f}]",
                    )
                )
                continue
            margin = 0.08 * float(np.mean(b))
            same = statistics.equivalence(student, margin)
            made.append(
                statement(
                    "Section 6.4",
                    f"{what} of {row.label} is shown to be the control's within 8%",
                    "the same",
                    same.equivalent,
                    f"within {100 * same.least_margin / np.mean(b):.1f}%",
                    f"difference {student.difference:.3f}, p = {student.p:.2f}, paired p = {paired.p:.2f}; two one-sided tests",
                    "",
                )
            )
    return made


def _both(where: str, label: str, row: Row, some: Sequence[Log], level: float) -> list[Check]:
    times, norms = [r.t_nc(level) for r in some], [r.fn_at(level) for r in some]
    return [
        spread(where, f"T_NC, {label}", row["t_nc"], times, listed(times, ".0f")),
        spread(where, f"fn*, {label}", row["fn"], norms, listed(norms)),
    ]


def _means(again: Sequence[tuple[Log, Log]], which: int) -> str:
    by: dict[int, list[float]] = {}
    for pair in again:
        by.setdefault(pair[which].condition["depth"], []).append(pair[which].t_nc(0.05))
    return ", ".join(f"{np.mean(v):.0f} at depth {d}" for d, v in by.items())
