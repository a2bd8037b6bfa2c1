"""Width: does it move fn at collapse, and the time of it? (The paper's Table 7 and Figure 8.)"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

from experiments import statistics
from experiments.paper import figures
from experiments.paper.evidence import Evidence, Row
from experiments.paper.experiment import Condition, Experiment, Judgement, Verdict
from experiments.paper.settings import condition, settings
from experiments.paper.verdicts import C, P, R, concentration, missing, monotone, times_text, untestable
from experiments.published import published

CLAIMS = ("width.exponent", "width.shift", "width.speed", "width.parameters", "concentration.cv")


def conditions(preset: str) -> tuple[Condition, ...]:
    return tuple(condition(s, f"width {w}", of="paper-mlp-width", width=w) for s in settings(preset) for w in s.widths)


def logs(condition: Condition) -> tuple[str, ...]:
    names = {128: (0, 1, 2), 256: (0, 1, 2), 512: (0,)}
    width = condition.parameters.get("width", 0)
    return tuple(f"width{width}_s{k}" for k in names.get(width, ()))


def parameters(width: int, depth: int = 5, inputs: int = 784, classes: int = 10) -> int:
    """Weights and biases of an MLP."""
    sizes = [inputs, *[width] * depth, classes]
    return sum((a + 1) * b for a, b in pairwise(sizes))


def _width(row: Row) -> int:
    return int(row.condition.parameters["width"])


def judge(evidence: Evidence) -> list[Verdict]:
    rows = evidence.present
    if len(rows) < 3:
        return missing(CLAIMS[:3], evidence)
    times = [r.times(every=evidence.cadence) for r in rows]
    names = [f"{_width(r)}:" for r in rows]
    text = f"T_NC by width: {times_text(names, times)}"
    reached = [(r, t) for r, t in zip(rows, times, strict=True) if t.crossed]
    found = [_exponent(evidence, reached), _shift(evidence, reached), concentration(evidence, rows, "widths")]
    if not reached:
        return [*found, untestable("width.speed", "no network collapsed", text)]
    typical = [t.typical for t in times]
    rho = statistics.spearman(np.repeat([_width(r) for r in rows], [t.n for t in times]),
                              np.concatenate([np.where(np.isfinite(t.t_nc), t.t_nc, 1e9) for t in times]))  # fmt: skip
    way = monotone(typical)
    judgement = R if way == -1 else P if rho.statistic < 0 and rho.p < 0.05 else C
    found.append(
        Verdict(
            "width.speed",
            judgement,
            text,
            f"Spearman {rho.statistic:+.2f} over seeds (never counts as last), p {rho.p:.1g}",
            "not known: width enters the simulated linear network not at all",
        )
    )
    return found


def _exponent(evidence: Evidence, reached: list) -> Verdict:
    if len(reached) < 3:
        return untestable("width.exponent", "fewer than three widths collapse")
    x, y = [_width(r) for r, _ in reached], [float(t.fn_star.mean()) for _, t in reached]
    line = statistics.power_law(x, y)
    seeds = statistics.power_law(np.repeat(x, [t.crossed for _, t in reached]), np.concatenate([t.fn_star for _, t in reached]))
    theirs = published().claim("width.exponent").values["exponent"].value
    text = (f"exponent {line.slope:+.3f} from {line.n} means (R2 {line.r2:.2f}, p {line.p:.2g}); {seeds.slope:+.3f} "
            f"[{seeds.low:+.3f}, {seeds.high:+.3f}] from {seeds.n} networks; published {theirs:+.3f}")  # fmt: skip
    inside = seeds.low <= theirs <= seeds.high
    negative = seeds.high < 0
    judgement: Judgement = R if inside and negative else P if inside or negative else C
    why = ("the published exponent is inside" if inside else "the published exponent is outside") + " the interval" + (
        "" if negative else "; so is 0" if inside else "; 0 is inside" if seeds.low <= 0 <= seeds.high else "")  # fmt: skip
    return Verdict("width.exponent", judgement, text, why, "at rest fn does not depend on width")


def _shift(evidence: Evidence, reached: list) -> Verdict:
    if len(reached) < 2:
        return untestable("width.shift", "fewer than two widths collapse")
    means = np.array([t.fn_star.mean() for _, t in reached])
    ends = np.array([r.fn_end.mean() for r, _ in reached if len(r.fn_end)])
    share = float(np.ptp(means) / means.max())
    end = f", fn at the end by {100 * np.ptp(ends) / ends.max():.0f}%" if len(ends) == len(means) else ""
    text = f"fn at T_NC moves by {100 * share:.0f}%{end}, over widths {_width(reached[0][0])} to {_width(reached[-1][0])}"
    theirs = published().claim("width.shift").values
    most, gap = theirs["percent"].value / 100, theirs["gap_percent"].value / 100
    judgement = R if share <= most + 0.005 else P if share < gap else C
    return Verdict(
        "width.shift",
        judgement,
        text,
        f"published: at most {100 * most:.0f}%, against {100 * gap:.0f}% between pairs",
        "at rest fn does not depend on width",
    )


def count() -> list[Verdict]:
    """Parameters, which need no training."""
    counts = {w: parameters(w) for w in (128, 256, 512, 1024)}
    text = ", ".join(f"{w}: {n / 1e6:.2f}M" for w, n in counts.items())
    rows = published().table(7).rows
    wrong = [
        r.label
        for r in rows
        if abs(counts[int(r.condition["width"])] / 1e6 - r["parameters_millions"].value) > r["parameters_millions"].half
    ]
    factor = counts[1024] / counts[128]
    judgement = R if not wrong else C if len(wrong) == len(rows) else P
    return [Verdict("width.parameters", judgement, f"counted, with biases: {text}; a factor of {factor:.0f}",
                    f"Table 7 differs at {', '.join(wrong)}" if wrong else "as in Table 7")]  # fmt: skip


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(4)
    rows = evidence.rows
    x = [_width(r) for r in rows]
    cadence = evidence.cadence
    figures.dynamics(axes[0, 0], axes[0, 1], rows)
    bodies = [("here", evidence)] + ([("published logs", logs)] if logs else [])
    same = [(name, [e.row(width=w) for w in x]) for name, e in bodies]
    figures.against(axes[0, 2], x, [(name, [r.times(every=cadence) if r else np.array([]) for r in each]) for name, each in same],
                    "T_NC (open: not by then)", "width", logx=True)  # fmt: skip
    figures.against(
        axes[0, 3],
        x,
        [
            ("at T_NC", [r.times(every=cadence).fn_star for r in rows]),
            ("at the end", [r.fn_end for r in rows]),
            ("from the head", [np.array([n.fn_from_head for n in r.networks]) for r in rows]),
        ],
        "fn",
        "width",
        logx=True,
    )
    figures.titles(axes, "fn (mark: T_NC)", "NC1", "T_NC", "fn")
    return made


EXPERIMENT = Experiment(
    name="width",
    title="Width: little effect on fn, faster collapse",
    question="Does width move fn at collapse, and does it make collapse faster?",
    measures="T_NC, fn at T_NC and at the end by width; power laws from means and from seeds; parameter counts.",
    claims=CLAIMS,
    conditions=conditions,
    table=7,
    logs=logs,
    judge=judge,
    count=count,
    figure=figure,
)
