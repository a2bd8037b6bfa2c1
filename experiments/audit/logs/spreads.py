"""Reading k: ddof of the printed standard deviations, pooled rows, lengths of phase 2."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments import statistics
from experiments.audit.check import Check, statement
from experiments.audit.logs.witness import column, exact, runs
from experiments.published import Spread, published
from experiments.published.logs import Logs


def checks(logs: Logs) -> list[Check]:
    """ddof, pooled rows, lengths of phase 2."""
    p, v = published(), published().claim("k").values
    made = []
    for number, key in ((2, "ddof_table_2"), (4, "ddof_table_4"), (7, "ddof_table_7")):
        other = {n: x for n, x in _ddofs(logs, number).items() if x is not None and x != v[key].value}
        made.append(
            statement(
                "k",
                f"Table {number}: every std is of ddof {v[key]}",
                f"ddof {v[key]}",
                not other,
                "; ".join(f"{n}: ddof {x}" for n, x in other.items()) or "all",
                "std of the logged seeds",
            )
        )
    shallow = [r.fn_at(0.05) for depth in (2, 3) for r in runs(logs, "depth_rerun", depth=depth)]
    whole = float(np.mean(shallow + [r.fn_at() for depth in (5, 7) for r in runs(logs, "depth", depth=depth)]))
    row, every, caption = (p.table(5).row(label) for label in ("depth sweep", "all ReLU runs", "caption"))
    made.append(
        statement(
            "k",
            "the depth row of Table 5 is not the mean of Table 2's runs",
            f"not {v['fn_depth']}",
            abs(whole - row["fn"].mean.value) > row["fn"].mean.half,
            f"{whole:.3f}",
            "12 runs of Table 2",
        )
    )
    nine = p.table(5).row("decay sweep")
    made.append(
        statement(
            "k",
            "the caption's 21 runs carry the mean of 9",
            str(caption["fn"]),
            caption["fn"] == nine["fn"] != every["fn"],
            f"{nine.n} runs {nine['fn']}, {every.n} runs {every['fn']}",
            "Table 5",
        )
    )
    cv = 100 * every["fn"].std.value / every["fn"].mean.value
    made.append(exact("k", "combined CV", v["cv_percent_combined"], cv, f"{every['fn'].std} / {every['fn'].mean}", unit="%"))
    lengths = {decay: {r.protocol.epochs_mse for r in runs(logs, "weight_decay", decay=decay)} for decay in (1e-5, 5e-5, 1e-4)}
    made.append(
        statement(
            "k",
            "Table 4's row of 1e-4 has a phase 2 of another length",
            "another",
            lengths[1e-4].isdisjoint(lengths[1e-5] | lengths[5e-5]),
            "; ".join(f"{x:g}: {' and '.join(map(str, sorted(y)))}" for x, y in lengths.items()),
            "settings of the logged runs",
        )
    )
    return made


def _ddofs(logs: Logs, table: int) -> dict[str, int | None]:
    """Cell -> the ddof that its seeds give, None where both do."""
    found: dict[str, int | None] = {}
    for row in published().table(table).rows:
        if not isinstance(row["t_nc"], Spread):
            continue
        values = _seeds(logs, table, row.condition)
        for name, column_ in (("T_NC", "t_nc"), ("fn", "fn")):
            fits = [
                x
                for x in (0, 1)
                if abs(statistics.summary(values[column_], x).std - row[column_].std.value) <= row[column_].std.half
            ]
            found[f"{name} {row.label}"] = fits[0] if len(fits) == 1 else None
    return found


def _seeds(logs: Logs, table: int, condition: Any) -> dict[str, list[float]]:
    if table == 7:
        return {
            "t_nc": column(logs, "sweep_width.csv", "T_NC", width=condition["width"]),
            "fn": column(logs, "sweep_width.csv", "fn", width=condition["width"]),
        }
    level = condition.get("threshold", 0.01)
    name = "weight_decay" if table == 4 else "depth_rerun" if condition["depth"] <= 3 else "depth"
    some = runs(logs, name, **{key: x for key, x in condition.items() if key != "threshold"})
    return {"t_nc": [r.t_nc(level) for r in some], "fn": [r.fn_at(level) for r in some]}
