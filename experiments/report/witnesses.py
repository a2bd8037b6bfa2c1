"""The table of witnesses: for each condition the paper's numbers, the authors' logs, theory, simulation, and our networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.paper.evidence import EXPECTED, LOGS, Evidence, Row, collapse_text, spread
from experiments.paper.expectation import expected
from experiments.published import Printed, Spread, Table, published
from realnets import Outcome

COLUMNS = {
    "condition": "condition",
    "threshold": "NC1 <",
    "paper_t_nc": "T_NC, paper",
    "logs_t_nc": "T_NC, logs",
    "t_nc": "T_NC",
    "phase": "loss at T_NC",
    "lr": "rate at T_NC",
    "paper_fn": "fn at T_NC, paper",
    "logs_fn": "fn at T_NC, logs",
    "fn_star": "fn at T_NC",
    "fn_end": "fn at the end",
    "fn_inf": "fn at rest",
    "nc1_end": "NC1 at the end",
    **EXPECTED,
}


@dataclass(frozen=True)
class Line:
    """One condition: texts by the names of `COLUMNS`, where they came from, and what is missing."""

    cells: Mapping[str, str]
    runs: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]


def lines(evidence: Evidence, logs: Evidence | None, table: int | None) -> tuple[list[str], list[Line]]:
    """(columns that say anything, one line per condition)."""
    made = [_line(row, evidence, logs, None if table is None else published().table(table)) for row in evidence.rows]
    used = [c for c in COLUMNS if any(line.cells.get(c, "–") != "–" for line in made)]
    return used, made


def _line(row: Row, evidence: Evidence, logs: Evidence | None, table: Table | None) -> Line:
    ours = evidence.preset != LOGS
    times = row.times(every=evidence.cadence)
    cells = {"condition": row.condition.label, "threshold": f"{row.condition.threshold:g}"}
    prefix = "" if ours else "logs_"
    cells |= {f"{prefix}t_nc": collapse_text(times), f"{prefix}fn{'_star' if ours else ''}": spread(times.fn_star)}
    cells |= {"fn_end": spread(row.fn_end), "fn_inf": spread(n.fn_inf for n in row.networks)}
    cells["nc1_end"] = spread(row.last("nc1_trace_ratio"), ".4f")
    if times.crossed:
        losses = row.networks[0].losses
        cells["phase"] = ", ".join(
            f"{losses[int(p)].replace('cross_entropy', 'CE').replace('mse', 'MSE')} {int((times.phase == p).sum())}/{times.n}"
            for p in sorted(set(times.phase[times.phase > 0]))
        )
        rates = sorted({f"{v:.1e}" for v in times.lr[np.isfinite(times.lr)]})
        cells["lr"] = rates[0] if len(rates) == 1 else f"{rates[0]} to {rates[-1]}" if rates else "–"
    cells |= {name: f"{v:.3f}" for name, v in expected(row, evidence).items() if np.isfinite(v)}
    if table is not None and (printed := _published(row, table)) is not None:
        for ours_name, theirs in (("paper_t_nc", "t_nc"), ("paper_fn", "fn"), ("paper_fn", "fn_001")):
            if isinstance(cell := printed.cells.get(theirs), Printed | Spread):
                cells[ours_name] = str(cell)
        if printed.cells.get("collapsed") is not None and "paper_t_nc" not in cells:
            cells["paper_t_nc"] = f"{printed.cells['collapsed']} of {printed.n} collapsed"
    if ours and logs is not None and (theirs := _same(row, logs)) is not None:
        at = theirs.times(every=logs.cadence)
        cells |= {"logs_t_nc": collapse_text(at), "logs_fn": spread(at.fn_star)}
    runs = dict.fromkeys((n.run, n.folder) for n in row.networks)
    missing = tuple(f"{row.condition.label}, seed {g.seed}: {g.why}" for g in row.gaps)
    return Line(cells, tuple(runs), missing)


def _published(row: Row, table: Table) -> Any:
    """The row of the paper's table with these parameters."""
    about = dict(row.condition.parameters)
    if "optimiser" in about:  # another than the paper's
        return None
    for printed in table.rows:
        condition = {k: v for k, v in printed.condition.items() if k != "threshold"}
        if condition and all(about.get(k) == v for k, v in condition.items()) and about.get("loss", "mse") == "mse":
            return printed
    return None


def _same(row: Row, logs: Evidence) -> Row | None:
    about = dict(row.condition.parameters)
    return next((r for r in logs.rows if dict(r.condition.parameters) == about and r.networks), None)


def networks(rows: Sequence[Row], cadence: int | None) -> list[dict[str, Any]]:
    """One dictionary per network: T_NC as recorded and every 10 epochs, fn, phase, rate, the end, and the run."""
    found = []
    for row in rows:
        for net in row.networks:
            level = row.condition.threshold
            fine, coarse = net.onset(level), net.at_cadence().onset(level)
            outcome = net.end.get("outcome")
            found.append(
                {
                    "condition": row.condition.label,
                    "seed": net.seed,
                    "threshold": level,
                    "t_nc": fine.t_nc,
                    "t_nc_every_10": coarse.t_nc,
                    "loss_at_t_nc": net.losses[fine.phase] if fine.phase else "",
                    "lr_at_t_nc": fine.lr,
                    "fn_at_t_nc": fine.fn,
                    "fn_at_t_nc_every_10": coarse.fn,
                    "last_epoch": fine.horizon,
                    "fn_end": net.last("fn"),
                    "nc1_end": net.last("nc1_trace_ratio"),
                    "fn_from_head": net.fn_from_head,
                    "balance_end": net.balance,
                    "train_accuracy_end": net.last("train_accuracy"),
                    "test_accuracy_end": net.last("test_accuracy"),
                    "outcome": outcome.words if isinstance(outcome, Outcome) else "",
                    "run": net.run,
                    "folder": net.folder,
                    "device": net.device,
                }
            )
    return found
