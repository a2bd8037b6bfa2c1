"""Reading c: on which runs and on which threshold the lead of fn rests, and the authors' benchmark of five signals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from experiments import statistics
from experiments.audit.check import Check, statement
from experiments.audit.logs.witness import column, exact, listed, runs, spread
from experiments.published import published
from experiments.published.logs import Log, Logs


def checks(logs: Logs) -> list[Check]:
    """The lead rests on 8 of 12 runs, and on a fitted threshold."""
    v = published().claim("c").values
    used, every = (
        set(zip(column(logs, file, "width"), column(logs, file, "seed"), strict=True))
        for file in ("prediction_analysis.csv", "sweep_width.csv")
    )
    widths = (128, 256, 512, 1024)
    means = {w: float(np.mean(column(logs, "sweep_width.csv", "fn", width=w))) for w in widths}
    law = statistics.power_law(widths, list(means.values()))
    fitted = {w: math.exp(law.intercept) * w**law.slope for w in widths}
    left = sorted(every - used)
    made = [
        exact("c", "runs with a lead", v["runs"], len(used), "prediction_analysis.csv"),
        exact("c", "runs that collapsed", v["runs_all"], len(every), "sweep_width.csv"),
        statement(
            "c",
            "left out: width 128 seeds 1, 2 and width 1024 seeds 1, 2",
            "4 runs",
            left == [(128, 1), (128, 2), (1024, 1), (1024, 2)],
            ", ".join(f"{w:.0f} s{s:.0f}" for w, s in left),
            "the two files",
        ),
    ]
    made += [
        exact(
            "c",
            f"threshold of width {w}, by the power law through the four means",
            v["thresholds"][n],
            fitted[w],
            f"exp({law.intercept:.4f}) x {w}^{law.slope:.4f}",
            f"mean of width {w}: {means[w]:.4f}",
        )
        for n, w in enumerate(widths)
    ]
    some = runs(logs, "lead_time")
    for what, level in (("crossings are of that power law", fitted), ("crossings are not of the mean of the width", means)):
        ours = {(r.condition["width"], r.seed): cross(r, level[r.condition["width"]]) for r in some}
        theirs = {
            (w, s): x
            for w, s, x in zip(*(column(logs, "prediction_analysis.csv", n) for n in ("width", "seed", "ep_cross")), strict=True)
        }
        same = sum(theirs.get(key, math.nan) == x or (key not in theirs and math.isnan(x)) for key, x in ours.items())
        fits = level is fitted
        made.append(
            statement(
                "c",
                what,
                "every logged run" if fits else "not every logged run",
                (same == len(ours)) is fits,
                f"{same} of {len(ours)} crossings are those of the authors",
                "first epoch of phase 2 before T_NC with fn below it, against ep_cross",
                "" if fits else "the mean of the width is what the paper describes",
            )
        )
    made += _benchmark(logs)
    return made


def cross(r: Log, threshold: float, name: str = "fn", phase: int | None = 2) -> float:
    """First logged epoch before T_NC with a signal below a threshold, in `phase` or (None) in either; NaN if there is none."""
    use = (r.series[name] < threshold) & (r.epoch < r.t_nc())
    if phase is not None:
        use &= r.phase == phase
    found = np.flatnonzero(use)
    return float(r.epoch[found[0]]) if len(found) else math.nan


def leads(some: Sequence[Log], name: str, phase: int | None) -> list[float]:
    """T_NC less the first epoch with the signal below its mean at T_NC over the other runs (leaving each out of its own)."""
    at = [float(r.series[name][r.index(0.01)]) for r in some]
    made = []
    for n, r in enumerate(some):
        below = r.series[name] < np.mean([x for m, x in enumerate(at) if m != n])
        if phase is not None:
            below &= r.phase == phase
        found = np.flatnonzero(below)
        made.append(r.t_nc() - float(r.epoch[found[0]]) if len(found) else math.nan)
    return made


def _benchmark(logs: Logs) -> list[Check]:
    v, some = published().claim("c").values, runs(logs, "early_warning")
    fn, loss, inside = leads(some, "fn", 2), leads(some, "train_loss", None), leads(some, "train_loss", 2)
    others = {name: leads(some, name, 2) for name in ("train_err", "grad_norm", "weight_norm")}
    shown = "; ".join(f"{name} {np.mean(x):+.0f}" for name, x in others.items())
    how = "threshold: mean at T_NC of the other four runs"
    return [
        spread("c", "lead of fn, five signals", v["lead"], fn, f"{listed(fn, '+.0f')}; {how}"),
        exact(
            "c",
            "runs in which fn comes first",
            v["order_percent"],
            100 * float(np.mean(np.array(fn) > 0)),
            listed(fn, "+.0f"),
            unit="%",
        ),
        exact("c", "lead of the training loss, phase 1 included", v["loss_lead"], float(np.mean(loss)), listed(loss, "+.0f")),
        spread(
            "c",
            "lead of the training loss within phase 2",
            v["loss_lead_in_phase"],
            inside,
            listed(inside, "+.0f"),
            f"within phase 2, mean: {shown}",
        ),
    ]
