"""Depth: does it change the speed of collapse, and where fn is then? (The paper's Table 2 and Figure 3.)"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments import statistics
from experiments.paper import figures
from experiments.paper.evidence import Evidence, Row
from experiments.paper.experiment import Condition, Experiment, Verdict
from experiments.paper.linear_flow import linear_flow
from experiments.paper.settings import condition, relaxed, settings
from experiments.paper.verdicts import SAME, C, P, R, concentration, cv_text, missing, monotone, times_text, untestable, value
from experiments.published import published

CLAIMS = ("depth.non_monotonic", "depth.value", "depth.characteristic", "concentration.cv", "threshold.ceiling")
#: Thresholds that are applied to every depth alike.
COMMON = (0.05, 0.01)


def conditions(preset: str) -> tuple[Condition, ...]:
    made: list[Condition] = []
    for s in settings(preset):
        made += [condition(s, f"depth {d}", relaxed(d), of="paper-mlp-sweep", depth=d) for d in s.depths]
        for d in s.depths if preset != "smoke" else ():
            at = condition(s, "", depth=d).setting
            made.append(linear_flow(at, s.group, s.base.decays[0]))  # type: ignore[arg-type]
    return tuple(made)


def logs(condition: Condition) -> tuple[str, ...]:
    depth = condition.parameters.get("depth")
    if depth == 5:
        return ("mnist_twophase", "depth5_s1", "depth5_s2")
    return tuple(f"depth{depth}_s{k}" for k in (0, 1, 2)) if depth in (2, 3, 7) else ()


def judge(evidence: Evidence) -> list[Verdict]:
    rows = evidence.present
    if len(rows) < max(3, len(evidence.rows)):  # an order needs every depth
        return missing(CLAIMS, evidence)
    return [_speed(evidence, rows), _value(evidence, rows), _characteristic(evidence, rows),
            concentration(evidence, rows, "depths"), _ceiling(rows)]  # fmt: skip


def _depth(row: Row) -> int:
    return int(row.condition.parameters["depth"])


def _speed(evidence: Evidence, rows: tuple[Row, ...]) -> Verdict:
    """Non-monotone under the paper's mixed thresholds; and under one threshold for all?"""
    names = [f"{_depth(r)}:" for r in rows]
    mixed = [r.times(every=evidence.cadence) for r in rows]
    text = f"T_NC by depth, thresholds of the paper: {times_text(names, mixed)}"
    interior, direction = _interior([t.typical for t in mixed]), {}
    for threshold in COMMON:
        times = [r.times(threshold, every=evidence.cadence) for r in rows]
        if sum(t.crossed for t in times) > 0:
            direction[threshold] = (monotone([t.typical for t in times]), _interior([t.typical for t in times]))
            text += f"; NC1 < {threshold:g} for all: {times_text(names, times)}"
    common = [inner for _, inner in direction.values()]
    falls = [way == -1 for way, _ in direction.values()]
    theory = "a deeper network has more factors that decay acts on; no theory here says that an intermediate depth is fastest"
    if interior and common and all(common):
        return Verdict("depth.non_monotonic", R, text, "an intermediate depth is fastest under either rule", theory)
    if interior or any(common):
        why = "deeper is faster at every common threshold" if falls and all(falls) else "the order depends on the threshold"
        return Verdict("depth.non_monotonic", P, text, f"an intermediate depth is fastest only in part; {why}", theory)
    why = "deeper is faster" if monotone([t.typical for t in mixed]) == -1 else "no intermediate depth is fastest"
    return Verdict("depth.non_monotonic", C, text, f"{why}, also with the paper's thresholds", theory)


def _interior(typical: list[float]) -> bool:
    """Whether the least is not at an end, and is finite."""
    k = int(np.argmin(typical))
    return 0 < k < len(typical) - 1 and np.isfinite(typical[k]) and typical[k] < min(typical[0], typical[-1])


def _value(evidence: Evidence, rows: tuple[Row, ...]) -> Verdict:
    """fn* higher at depth <= 3 than deeper: by the paper's thresholds, and by one for all."""
    shallow, deep = ([r for r in rows if (_depth(r) <= 3) is side] for side in (True, False))

    def gap(threshold: float | None) -> tuple[float, float]:
        means = []
        for part in (shallow, deep):
            fn = [v for r in part for v in r.times(threshold, every=evidence.cadence).fn_star]
            means.append(float(np.mean(fn)) if fn else np.nan)
        return means[0], means[1]

    mixed, same = gap(None), gap(0.05)
    text = f"fn*, depth up to 3 against deeper: {mixed[0]:.3f} and {mixed[1]:.3f} (paper's thresholds), "
    text += f"{same[0]:.3f} and {same[1]:.3f} (NC1 < 0.05 for all)"
    if not np.isfinite([*mixed]).all():
        return untestable("depth.value", "shallow or deep networks did not reach their threshold", text)
    first, second = (a > (1 + SAME) * b for a, b in (mixed, same))
    if first and second:
        return Verdict("depth.value", R, text, "higher by more than 8% for shallow networks under either rule")
    if first:
        return Verdict("depth.value", P, text, "the order comes from the two thresholds: at one of them it is gone")
    return Verdict("depth.value", C, text, "not higher for shallow networks")


def _characteristic(evidence: Evidence, rows: tuple[Row, ...]) -> Verdict:
    """One value over all depths: CV of fn at T_NC below 8%?"""
    fn = np.concatenate([r.times(every=evidence.cadence).fn_star for r in rows])
    if len(fn) < 4:
        return untestable("depth.characteristic", f"only {len(fn)} networks collapsed")
    at = statistics.summary(fn)
    text = f"fn at T_NC {at.mean:.3f} ± {at.std:.3f} (CV {100 * at.cv:.0f}%, {at.n} networks); fn at the end {cv_text(rows)}"
    theory = "fn at rest falls towards 1 as the (1/M)-th power of the amplitude of the data, M weight layers"
    spread = R if at.cv <= 0.08 else P if at.cv <= 0.16 else C
    if evidence.full:
        near = value(
            "depth.characteristic", evidence, at.mean, published().claim("depth.characteristic").values["fn"].mean.value, "fn"
        )
        spread = spread if spread is near.judgement else C if C in (spread, near.judgement) else P
        text += f"; {near.found}"
    return Verdict("depth.characteristic", spread, text, "one value is read as CV below 8%, in part below 16%", theory)


def _ceiling(rows: tuple[Row, ...]) -> Verdict:
    """Do shallow networks settle at NC1 between 0.03 and 0.08?"""
    least = np.array([np.nanmin(n.nc1) for r in rows if _depth(r) <= 3 for n in r.networks])
    if not len(least):
        return untestable("threshold.ceiling", "no shallow networks")
    text = f"least NC1 at depth up to 3: {least.min():.3f} to {least.max():.3f} over {len(least)} networks"
    inside = (least >= 0.03) & (least <= 0.08)
    below = int((least < 0.03).sum())
    why = f"{below} of {len(least)} fall below 0.03"
    return Verdict("threshold.ceiling", R if inside.all() else C if not inside.any() else P, text, why)


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(4)
    rows = evidence.rows
    x = [_depth(r) for r in rows]
    figures.dynamics(axes[0, 0], axes[0, 1], rows)
    cadence = evidence.cadence
    figures.against(axes[0, 2], x, [("paper's thresholds", [r.times(every=cadence) for r in rows]),
                                    *((f"NC1 < {t:g}", [r.times(t, every=cadence) for r in rows]) for t in COMMON)],
                    "T_NC (open: not by then)", "hidden layers")  # fmt: skip
    figures.against(
        axes[0, 3],
        x,
        [("at T_NC", [r.times(every=cadence).fn_star for r in rows]), ("at the end", [r.fn_end for r in rows])],
        "fn",
        "hidden layers",
    )
    figures.titles(axes, "fn (mark: T_NC)", "NC1", "T_NC", "fn")
    return made


EXPERIMENT = Experiment(
    name="depth",
    title="Depth: speed of collapse, and fn",
    question="Does depth affect the speed of collapse monotonically, and where is fn when it happens?",
    measures="T_NC at the paper's two thresholds and at one for all depths, fn there and at the end, least NC1.",
    claims=CLAIMS,
    conditions=conditions,
    table=2,
    logs=logs,
    judge=judge,
    figure=figure,
)
