"""The threshold on NC1, and its definition: how much of fn at T_NC is their choice? (The paper's Table 1.)"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from experiments import statistics
from experiments.paper import depth, figures, weight_decay, width
from experiments.paper.evidence import Evidence, Row
from experiments.paper.experiment import Condition, Experiment, Verdict
from experiments.paper.settings import condition, settings
from experiments.paper.verdicts import C, P, R, missing, value, worst
from experiments.published import published
from experiments.show import short

CLAIMS = ("threshold.ratio", "threshold.insensitive", "concentration.combined")
#: Definitions of NC1 that our records hold; the first is the paper's.
DEFINITIONS = ("nc1_trace_ratio", "nc1_pinv_over_k", "nc1_pinv", "cdnv")


def conditions(preset: str) -> tuple[Condition, ...]:
    """Two depths, widths and decays each, of the sweeps."""
    made = []
    for s in settings(preset):
        widths = (128, 256) if s.full else s.widths[-2:]
        made += [condition(s, f"depth {d}", of="paper-mlp-sweep", depth=d) for d in s.depths[-2:]]
        made += [condition(s, f"width {w}", of="paper-mlp-width", width=w) for w in widths]
        made += [condition(s, f"decay {short(d)}", of="paper-mlp-decay", decay=d) for d in s.decays[:2]]
    return tuple(made)


def logs(condition: Condition) -> tuple[str, ...]:
    for name, module in (("depth", depth), ("width", width), ("decay", weight_decay)):
        if name in condition.parameters:
            return module.logs(condition)
    return ()


def ratios(row: Row, every: int | None) -> np.ndarray:
    """Per seed that reached both: fn where NC1 first is below 0.02, over fn where it is below 0.01."""
    fine, coarse = row.times(0.01, every=every), row.times(0.02, every=every)
    return (coarse.fn / fine.fn)[np.isfinite(fine.t_nc) & np.isfinite(coarse.t_nc)]


def judge(evidence: Evidence) -> list[Verdict]:
    found = [(r, ratios(r, evidence.cadence)) for r in evidence.present]
    means = [(r, float(v.mean())) for r, v in found if len(v)]
    if len(means) <= len(evidence.rows) / 2:
        return missing(CLAIMS, evidence)
    x = np.array([m for _, m in means])
    theirs = published().claim("threshold.ratio").values
    low, high = (v.value for v in theirs["range"])
    centre, spread = theirs["ratio"].mean.value, theirs["ratio"].std.value
    text = f"ratio {x.min():.2f} to {x.max():.2f} over {len(x)} conditions, mean {x.mean():.2f}"
    text += f"; single seeds {_range([v for _, v in found])}"
    near, inside = abs(x.mean() - centre) <= spread, x.min() >= low - 0.005 and x.max() <= high + 0.005
    ratio = Verdict(
        "threshold.ratio",
        R if near and inside else P if near else C,
        text,
        f"published {low:.2f} to {high:.2f}, mean {centre:.2f} ± {spread:.2f}",
    )
    return [ratio, _insensitive(evidence, x), _combined(evidence)]


def _combined(evidence: Evidence) -> Verdict:
    """fn at T_NC of networks of all three sweeps together."""
    fn = np.concatenate([r.times(0.01, every=evidence.cadence).fn_star for r in evidence.present])
    at = statistics.summary(fn)
    theirs = published().claim("concentration.combined").values["fn"]
    text = f"fn at T_NC {at.mean:.3f} ± {at.std:.3f} (CV {100 * at.cv:.1f}%) over {at.n} networks of all sweeps"
    cv = theirs.std.value / theirs.mean.value
    graded = value("concentration.combined", evidence, at.mean, theirs.mean.value, "fn at T_NC")
    if not evidence.full:
        return replace(graded, found=text, reason=f"{graded.reason}; the published CV is {100 * cv:.1f}%")
    spread = R if at.cv <= 1.08 * cv else C if at.cv > 2 * cv else P
    return replace(graded, judgement=worst([graded.judgement, spread]), found=text,
                   reason=f"published {theirs}, CV {100 * cv:.1f}%; {graded.reason}")  # fmt: skip


def _range(values: list[np.ndarray]) -> str:
    every = np.concatenate(values)
    return f"{every.min():.2f} to {every.max():.2f}"


def _insensitive(evidence: Evidence, x: np.ndarray) -> Verdict:
    """Variation over thresholds, and over definitions of NC1, against the gap of 44%."""
    gap = published().claim("threshold.insensitive").values["gap_percent"].value / 100
    most = float(np.abs(x - 1).max())
    text = f"two thresholds move fn by up to {100 * most:.0f}%"
    by_definition = definitions(evidence)
    worst = 0.0
    if len(by_definition) > 1:
        reference = by_definition[DEFINITIONS[0]]
        shifts = {n: np.nanmean(fn / reference[1]) - 1 for n, (_, fn) in by_definition.items() if n != DEFINITIONS[0]}
        times = {n: np.nanmean(t - reference[0]) for n, (t, _) in by_definition.items() if n != DEFINITIONS[0]}
        worst = float(np.nanmax(np.abs(list(shifts.values())))) if np.isfinite(list(shifts.values())).any() else np.nan
        text += "; other definitions of NC1 at 0.01: " + ", ".join(
            f"{n} moves T_NC by {times[n]:+.0f} and fn by {100 * shifts[n]:+.0f}%"
            if np.isfinite(shifts[n])
            else f"{n} does not get there"
            for n in shifts
        )
    judgement = R if max(most, worst) < gap / 2 else P if most < gap else C
    return Verdict(
        "threshold.insensitive",
        judgement,
        text,
        f"insensitive is read as less than half the gap of {100 * gap:.0f}%, over thresholds and definitions",
    )


def definitions(evidence: Evidence) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """definition -> (T_NC, fn there) of every network, NaN where it did not come."""
    nets = [n for r in evidence.present for n in r.networks]
    found = {}
    for name in DEFINITIONS:
        if all(name in n.values for n in nets):
            onsets = [(n if evidence.cadence is None else n.at_cadence(evidence.cadence)).onset(0.01, name) for n in nets]
            found[name] = (np.array([o.t_nc for o in onsets]), np.array([o.fn for o in onsets]))
    return found


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(3)
    rows, x = evidence.rows, list(range(len(evidence.rows)))
    names = [r.condition.label.replace(" ", "\n") for r in rows]
    series = [(f"NC1 < {t:g}", [r.times(t, every=evidence.cadence).fn_star for r in rows]) for t in (0.05, 0.02, 0.01)]
    figures.against(axes[0, 0], x, series, "fn at the threshold", "", names=names, lines=False)
    bodies = [("here", rows)] + ([("published logs", logs.rows)] if logs else [])
    figures.against(axes[0, 1], x, [(name, [_same(r, body, evidence) for r in rows]) for name, body in bodies],
                    "fn at 0.02 over fn at 0.01", "", names=names, lines=False)  # fmt: skip
    axes[0, 1].axhline(1, color="black", linewidth=0.8)
    found = definitions(evidence)
    if found:
        figures.against(
            axes[0, 2],
            list(range(len(found))),
            [("", [t[np.isfinite(t)] for t, _ in found.values()])],
            "T_NC at 0.01",
            "",
            names=[n.removeprefix("nc1_").replace("_", "\n") for n in found],
            lines=False,
        )
    else:
        figures.nothing(axes[0, 2])
    figures.titles(axes, "fn by threshold", "ratio of fn", "T_NC by definition of NC1")
    return made


def _same(row: Row, body: tuple[Row, ...], evidence: Evidence) -> np.ndarray:
    match = [r for r in body if dict(r.condition.parameters) == dict(row.condition.parameters)]
    return ratios(match[0], evidence.cadence) if match else np.array([])


EXPERIMENT = Experiment(
    name="threshold_robustness",
    title="Threshold and definition of NC1",
    question="How much does fn at T_NC depend on the threshold, and on which NC1 is meant?",
    measures="fn where NC1 first is below 0.05, 0.02 and 0.01, by four definitions of NC1; ratios per condition and per seed.",
    claims=CLAIMS,
    conditions=conditions,
    table=1,
    logs=logs,
    judge=judge,
    figure=figure,
)
