"""The logged runs by condition: when each threshold was passed, in which phase and at which learning rate, and where fn went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments import statistics
from experiments.published import published
from experiments.published.logs import Log, Logs

THRESHOLDS = (0.05, 0.02, 0.01, 0.005)
#: label, experiment, condition, the paper's threshold.
CONDITIONS: tuple[tuple[str, str, Mapping[str, Any], float], ...] = (
    ("depth 2", "depth", {"depth": 2}, 0.05),
    ("depth 2, again", "depth_rerun", {"depth": 2}, 0.05),
    ("depth 3", "depth", {"depth": 3}, 0.05),
    ("depth 3, again", "depth_rerun", {"depth": 3}, 0.05),
    ("depth 5", "depth", {"depth": 5}, 0.01),
    ("depth 7", "depth", {"depth": 7}, 0.01),
    ("GELU", "activation", {"activation": "gelu"}, 0.05),
    ("tanh", "activation", {"activation": "tanh"}, 0.05),
    ("decay 1e-5", "weight_decay", {"decay": 1e-5}, 0.01),
    ("decay 5e-5", "weight_decay", {"decay": 5e-5}, 0.01),
    ("decay 5e-4", "weight_decay", {"decay": 5e-4}, 0.01),
    ("width 128", "width", {"width": 128}, 0.01),
    ("width 256", "width", {"width": 256}, 0.01),
    ("width 512", "width", {"width": 512}, 0.01),
    ("control", "intervention", {"alpha": 1.0}, 0.01),
    ("scale-down", "intervention", {"alpha": 0.3}, 0.01),
    ("scale-up", "intervention", {"alpha": 3.0}, 0.01),
    ("five signals", "early_warning", {}, 0.01),
    ("CE alone", "ce_only", {}, 0.01),
    ("MLP-5, CIFAR-10", "grid", {"architecture": "mlp", "dataset": "cifar10"}, 0.05),
    ("ResNet-20, MNIST", "grid", {"architecture": "resnet20", "dataset": "mnist"}, 0.01),
    ("ResNet-20, CIFAR-10", "grid", {"architecture": "resnet20", "dataset": "cifar10"}, 0.01),
    ("ViT, MNIST", "grid", {"architecture": "vit"}, 0.05),
)


@dataclass(frozen=True)
class Group:
    """The runs of one condition.

    Attributes:
        label: as tables show it; `threshold` the paper's for it.
        runs: in the order of their seeds.
    """

    label: str
    threshold: float
    runs: tuple[Log, ...]

    def times(self, threshold: float) -> list[float]:
        """T_NC of each run, NaN where it did not come."""
        return [r.t_nc(threshold) for r in self.runs]

    def censored(self, threshold: float) -> statistics.Censored:
        """Collapse times with the runs that never crossed counted as such, watched until their last logged epoch."""
        return statistics.censored(self.times(threshold), [r.last for r in self.runs])

    @property
    def stopped(self) -> bool:
        """Whether every run ends where it passes the paper's threshold, so that nothing is known of where fn rests."""
        return all(stopped(r, self.threshold) for r in self.runs)

    def as_dict(self) -> dict[str, Any]:
        """JSON: per threshold the censored summary, and every run."""
        return {
            "condition": self.label,
            "paper_threshold": self.threshold,
            "stopped_at_t_nc": self.stopped,
            "thresholds": {f"{t:g}": _censored(self.censored(t)) for t in THRESHOLDS},
            "runs": [row(r, self.threshold) for r in self.runs],
        }


def groups(logs: Logs) -> list[Group]:
    """Every condition that has runs in the folder."""
    made = [Group(label, level, logs.select(name, **condition)) for label, name, condition, level in CONDITIONS]
    return [g for g in made if g.runs]


def row(r: Log, threshold: float) -> dict[str, Any]:
    """One run: NaN where something did not come."""
    k = r.index(threshold)
    lr = math.nan if k is None else float(r.learning_rate[k])
    crossed = {
        f"{t:g}": {"t_nc": r.t_nc(t), "fn": r.fn_at(t), "phase": None if (i := r.index(t)) is None else int(r.phase[i])}
        for t in THRESHOLDS
    }
    return {
        "run": r.name,
        "seed": r.seed,
        "paper_threshold": threshold,
        "t_nc": r.t_nc(threshold),
        "fn_at_t_nc": r.fn_at(threshold),
        "phase_at_t_nc": None if k is None else int(r.phase[k]),
        "learning_rate_at_t_nc": lr,
        "thresholds": crossed,
        "last_epoch": r.last,
        "fn_end": float(r.fn[-1]),
        "nc1_end": float(r.nc1[-1]),
    }


def disagreements(found: Sequence[Group]) -> list[str]:
    """Conditions whose seeds do not tell one story, a line each: some cross and others not, in other phases, or to other fn.

    Values of fn differ if their CV (ddof 1) exceeds the 8% that the paper states as its bound.
    """
    limit = published().claim("concentration.cv").values["cv_percent_below"].value
    lines = []
    for g in found:
        for t in THRESHOLDS:
            c = g.censored(t)
            # A run that was stopped at a higher threshold could not show whether it would have crossed this one.
            watched = all(math.isfinite(x) or not stopped(r, g.threshold) for x, r in zip(g.times(t), g.runs, strict=True))
            if 0 < c.crossed < c.n and watched:
                lines.append(f"{g.label}: {c.crossed} of {c.n} seeds pass NC1 < {t:g}")
        phases = {int(r.phase[k]) for r in g.runs if (k := r.index(g.threshold)) is not None}
        if len(phases) > 1:
            lines.append(
                f"{g.label}: T_NC at NC1 < {g.threshold:g} falls in phase 1 for some seeds, in phase 2 for others "
                f"({', '.join(f'{x:.0f}' for x in g.times(g.threshold))})"
            )
        star = [r.fn_at(g.threshold) for r in g.runs if math.isfinite(r.t_nc(g.threshold))]
        end = [float(r.fn[-1]) for r in g.runs if not stopped(r, g.threshold)]
        for what, values in (("T_NC", star), ("the end", end)):
            if len(values) > 1 and (cv := 100 * statistics.summary(values).cv) > limit:
                lines.append(f"{g.label}: fn at {what} {', '.join(f'{v:.2f}' for v in values)} (CV {cv:.1f}%)")
    return lines


def stopped(r: Log, threshold: float) -> bool:
    """Whether a run ends where it passes the threshold: nothing is known of where it would have gone."""
    return r.t_nc(threshold) == r.last


def depth_orders(found: Sequence[Group]) -> list[dict[str, Any]]:
    """For each threshold, depths from the fastest: censored medians at one common threshold for all."""
    depths = {g.label: g for g in found if g.label in ("depth 2", "depth 3", "depth 5", "depth 7")}
    made = []
    for t in THRESHOLDS[:3]:
        each = {label: g.censored(t) for label, g in depths.items()}
        order = sorted(each, key=lambda label: (np.nan_to_num(each[label].median, nan=np.inf), -each[label].crossed))
        made.append({"threshold": t, "order": [{"depth": label.split()[1], **_censored(each[label])} for label in order]})
    return made


def _censored(c: statistics.Censored) -> dict[str, Any]:
    return {"n": c.n, "crossed": c.crossed, "median": None if math.isnan(c.median) else c.median}
