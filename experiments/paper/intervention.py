"""Intervention: is fn at collapse an attractor? (The paper's Table 8.)

The last hidden layer is multiplied by alpha at the start of phase 2, which multiplies fn of a ReLU network by alpha. Arms share
phase 1, so they are compared in pairs of one seed. Beside the paper's arms (0.3, 1, 3) there is one here that starts below fn*.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments import statistics
from experiments.paper import figures
from experiments.paper.evidence import Evidence, Row
from experiments.paper.experiment import Condition, Experiment, Verdict
from experiments.paper.networks import Network
from experiments.paper.settings import condition, settings
from experiments.paper.verdicts import SAME, C, P, R, missing, untestable, worst
from experiments.published import published

CLAIMS = (
    "intervention.attractor",
    "intervention.timing",
    "intervention.rebound",
    "intervention.budget",
    "intervention.not_cause",
)
#: A rise that counts as one, relative, in every seed.
RISE = 0.02
ARMS = {1.0: "control", 0.3: "scale-down", 3.0: "scale-up", 0.03: "from below"}
THEORY = "decay restores the balance between layers, and with it fn, at rate 2 lambda; the end-to-end map recovers far sooner"


def conditions(preset: str) -> tuple[Condition, ...]:
    made = []
    for s in settings(preset):
        for alpha, label in ARMS.items():
            if (preset == "smoke" and alpha in (0.03, 3.0)) or (s.full and alpha == 0.03):
                continue
            made.append(condition(s, f"{label} ({alpha:g})", of="paper-mlp-intervention", alpha=alpha))
    return tuple(made)


def logs(condition: Condition) -> tuple[str, ...]:
    names = {1.0: "control", 0.3: "scale_down", 3.0: "scale_up"}
    name = names.get(condition.parameters.get("alpha", 0.0))
    return tuple(f"intervention_{name}_s{k}" for k in (0, 1, 2)) if name else ()


def start(net: Network, alpha: float) -> float:
    """fn right after the rescaling: alpha times that at the end of phase 1 (homogeneous activations)."""
    _, fn, _ = net.in_phase(1)
    return alpha * float(fn[-1]) if len(fn) else np.nan


def _pairs(row: Row, control: Row, what: str, cadence: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Values of the seeds that both arms have: "fn_star", "t_nc" or "fn" (at the end)."""

    def values(r: Row) -> dict[int, float]:
        times = r.times(0.01, every=cadence)
        v = {"fn_star": times.fn, "t_nc": times.t_nc, "fn": r.last("fn")}[what]
        return {n.seed: float(x) for n, x in zip(r.networks, v, strict=True) if np.isfinite(x)}

    a, b = values(row), values(control)
    both = sorted(set(a) & set(b))
    return np.array([a[k] for k in both]), np.array([b[k] for k in both])


def _same(row: Row, control: Row, what: str, cadence: int | None, margin: float) -> tuple[str, object, float]:
    """(text, judgement, relative difference): the same within `margin` of the control, shown by two one-sided tests?"""
    a, b = _pairs(row, control, what, cadence)
    label = row.condition.label
    if len(a) < 2:
        return f"{label}: fewer than two pairs", None, np.nan
    found = statistics.difference(a, b, "paired")
    relative = found.difference / b.mean()
    test = statistics.equivalence(found, margin * b.mean())
    shown = f"shown to within {100 * test.least_margin / b.mean():.0f}%"
    text = f"{label} {a.mean():.{0 if what == 't_nc' else 3}f} ({100 * relative:+.0f}%, p {found.p:.2f}, {shown})"
    judgement = R if test.equivalent else C if abs(relative) > margin and found.p < 0.05 else P
    return text, judgement, float(relative)


def judge(evidence: Evidence) -> list[Verdict]:
    control = evidence.row(alpha=1.0)
    arms = [r for r in evidence.present if r.condition.parameters["alpha"] != 1.0]
    if control is None or not arms:
        return missing(CLAIMS, evidence)
    stated = [r for r in arms if r.condition.parameters["alpha"] in (0.3, 3.0)]
    return [_attractor(evidence, control, arms), _timing(evidence, control, arms), _rebound(evidence, control, arms),
            _budget(evidence, [control, *stated]), _not_cause(evidence, control, stated)]  # fmt: skip


def _compare(evidence: Evidence, control: Row, arms: list[Row], what: str, margin: float) -> tuple[str, list]:
    a, _ = _pairs(control, control, what, evidence.cadence)
    head = f"control {a.mean():.{0 if what == 't_nc' else 3}f}" if len(a) else "control –"
    parts = [_same(r, control, what, evidence.cadence, margin) for r in arms]
    return ", ".join([head, *(text for text, _, _ in parts)]), [j for _, j, _ in parts if j is not None]


def _attractor(evidence: Evidence, control: Row, arms: list[Row]) -> Verdict:
    star, at = _compare(evidence, control, arms, "fn_star", SAME)
    end, last = _compare(evidence, control, arms, "fn", SAME)
    text = f"fn at T_NC: {star}; at the end: {end}"
    if not at and not last:
        return untestable("intervention.attractor", "fewer than two pairs of seeds", text, THEORY)
    judgement = (
        worst(at) if at and worst(at) is R else P if R in at or all(j is R for j in last) or all(j is P for j in at) else C
    )
    return Verdict(
        "intervention.attractor",
        judgement,
        text,
        f"the same is read as shown to be within {100 * SAME:.0f}% of the control; p > 0.2 alone does not show it",
        THEORY,
    )


def _timing(evidence: Evidence, control: Row, arms: list[Row]) -> Verdict:
    margin = (
        published().claim("intervention.timing").values["difference"].value
        / published().table(8).row("control")["t_nc"].mean.value
    )
    text, parts = _compare(evidence, control, arms, "t_nc", margin)
    if not parts:
        return untestable("intervention.timing", "fewer than two pairs of seeds collapsed", text)
    judgement = worst(parts)
    return Verdict(
        "intervention.timing",
        judgement,
        f"T_NC: {text}",
        f"the same is read as shown to be within the paper's 30 of 287 epochs, {100 * margin:.0f}%",
        THEORY,
    )


def _rebound(evidence: Evidence, control: Row, arms: list[Row]) -> Verdict:
    """Does the scaled-down arm start below fn*, and rise? Does an arm that truly starts below?"""
    star = control.times(0.01, every=evidence.cadence).fn_star
    goal = float(star.mean()) if len(star) else float(control.last("fn").mean())
    words, below, rises = [], [], []
    for row in [r for r in arms if r.condition.parameters["alpha"] < 1]:
        alpha = row.condition.parameters["alpha"]
        starts = np.array([start(n, alpha) for n in row.networks])
        lows = np.array([n.in_phase(2)[1].min() for n in row.networks])
        ends = row.last("fn")
        begin = f"starts at {np.nanmean(starts):.2f}, " if np.isfinite(starts).any() else ""
        words.append(f"{row.condition.label} {begin}least {lows.mean():.2f}, ends at {ends.mean():.2f}")
        if alpha == 0.3:
            below.append(bool(np.nanmean(starts) < goal) if np.isfinite(starts).any() else False)
            rises.append(bool((lows < (1 - RISE) * ends).all()))
    text = f"fn* of the control {goal:.2f}; " + "; ".join(words)
    if not below:
        return untestable("intervention.rebound", "no scaled-down arm", text)
    if below[0]:
        return Verdict("intervention.rebound", R if rises[0] else C, text, "the scaled-down arm starts below fn*", THEORY)
    why = "the scaled-down arm starts above fn*, so that fn first falls" + (
        "; it then undershoots and comes back" if rises[0] else " and does not rebound")  # fmt: skip
    return Verdict("intervention.rebound", P if rises[0] else C, text, why, THEORY)


def _budget(evidence: Evidence, arms: list[Row]) -> Verdict:
    times = [r.times(0.01, every=evidence.cadence) for r in arms]
    got, of = sum(t.crossed for t in times), sum(t.n for t in times)
    last = max((float(n.time[-1]) for r in arms for n in r.networks), default=np.nan)
    return Verdict("intervention.budget", R if got == of else C if got == 0 else P, f"{got} of {of} runs collapse",
                   f"by epoch {last:.0f}, the end of phase 2")  # fmt: skip


def _not_cause(evidence: Evidence, control: Row, arms: list[Row]) -> Verdict:
    """Attractor: fn at the end is the same in all arms. No trigger: being below fn* longer does not collapse a network sooner."""
    text, parts = _compare(evidence, control, arms, "fn", SAME)
    if not parts:
        return untestable("intervention.not_cause", "fewer than two pairs of seeds", text, THEORY)
    star = control.times(0.01, every=evidence.cadence).fn_star
    waits = []
    for row in [control, *arms]:
        for net in row.networks:
            onset = net.onset(0.01, phase=2)
            time, fn, _ = net.in_phase(2)
            low = np.flatnonzero(fn < star.mean()) if len(star) else np.array([])
            if onset.happened and len(low):
                waits.append(onset.t_nc - time[low[0]])
    span = f"; from the first epoch below fn* to T_NC: {min(waits):.0f} to {max(waits):.0f} epochs" if waits else ""
    return Verdict(
        "intervention.not_cause",
        worst(parts),
        f"fn at the end: {text}{span}",
        "attractor is read as: fn at the end shown to be the same in all arms; a wait that varies says that fn does not trigger",
        THEORY,
    )


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(3)
    rows, x = evidence.rows, list(range(len(evidence.rows)))
    figures.dynamics(axes[0, 0], axes[0, 1], rows)
    figures.against(
        axes[0, 2],
        x,
        [
            ("at T_NC", [r.times(every=evidence.cadence).fn_star for r in rows]),
            ("at the end", [r.fn_end for r in rows]),
            ("from the head", [np.array([n.fn_from_head for n in r.networks]) for r in rows]),
        ],
        "fn",
        "alpha",
        names=[f"{r.condition.parameters['alpha']:g}" for r in rows],
        lines=False,
    )
    figures.titles(axes, "fn (mark: T_NC)", "NC1", "fn by arm")
    return made


EXPERIMENT = Experiment(
    name="intervention",
    title="Intervention: is fn at collapse an attractor?",
    question="If features are rescaled when phase 2 begins, does fn come back to the same value, and collapse come in time?",
    measures="fn at T_NC and at the end, and T_NC, in pairs with the control of the same seed, by equivalence tests.",
    claims=CLAIMS,
    conditions=conditions,
    table=8,
    logs=logs,
    judge=judge,
    figure=figure,
)
