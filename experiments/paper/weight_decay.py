"""Weight decay: rate of collapse, value of fn, and too much of it. (The paper's Table 4 and Figure 5.)"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments import statistics
from experiments.paper import figures
from experiments.paper.evidence import Evidence, Row
from experiments.paper.experiment import Condition, Experiment, Verdict
from experiments.paper.linear_flow import linear_flow
from experiments.paper.settings import condition, settings
from experiments.paper.verdicts import C, P, R, concentration, cv_text, missing, times_text, untestable, value, worst
from experiments.published import published
from experiments.show import short

CLAIMS = (
    "weight_decay.window",
    "weight_decay.optimum",
    "weight_decay.prevents",
    "weight_decay.invariance",
    "weight_decay.regimes",
    "concentration.cv",
)
FLAT = "at rest fn hardly depends on decay: balanced layers share it, and only the signal's 1 - O(lambda) is left"


def conditions(preset: str) -> tuple[Condition, ...]:
    made: list[Condition] = []
    for s in settings(preset):
        made += [condition(s, f"decay {short(d)}", of="paper-mlp-decay", decay=d) for d in s.decays]
        made += [linear_flow(s.base, s.group, d) for d in (s.decays if preset != "smoke" else s.decays[-1:])]
    return tuple(made)


def logs(condition: Condition) -> tuple[str, ...]:
    names = {1e-5: ("wd1e-05_s0", "wd1e-05_s1", "wd1e-05_s2"), 5e-5: ("wd5e-05_s0", "wd5e-05_s1", "wd5e-05_s2"),
             1e-4: ("mnist_twophase", "depth5_s1", "depth5_s2"), 5e-4: ("wd0p0005_s0", "wd0p0005_s1", "wd0p0005_s2")}  # fmt: skip
    return names.get(condition.parameters.get("decay", 0.0), ())


def _decay(row: Row) -> float:
    return float(row.condition.parameters["decay"])


def judge(evidence: Evidence) -> list[Verdict]:
    rows = evidence.present
    if len(rows) < max(2, len(evidence.rows)):  # a regime needs every decay
        return missing(CLAIMS, evidence)
    times = [r.times(every=evidence.cadence) for r in rows]
    text = f"T_NC by decay: {times_text([short(_decay(r)) + ':' for r in rows], times)}"
    reached = [(r, t) for r, t in zip(rows, times, strict=True) if t.crossed == t.n]
    if len(reached) < 2:
        why = "fewer than two decays collapse in every seed"
        return [*(untestable(c, why, text) for c in CLAIMS if c != "weight_decay.prevents"), _prevents(rows)]
    typical = [t.typical for _, t in reached]
    window = max(typical) - min(typical)
    if evidence.full:
        found = [value("weight_decay.window", evidence, window, published().claim("weight_decay.window").values["window"].value,
                       "window", form=".0f")]  # fmt: skip
    else:
        share = window / min(typical)
        found = [
            Verdict(
                "weight_decay.window",
                R if share > 0.08 else C,
                f"{text}; window {window:.0f} epochs ({100 * share:.0f}%)",
                "read as: T_NC depends on decay by more than 8%",
            )
        ]
    fastest = int(np.argmin(typical))
    lowest = reached[0][1]
    slower = fastest > 0 and float(reached[fastest][1].t_nc.max()) < float(lowest.t_nc.min())
    why = f"fastest at {short(_decay(reached[fastest][0]))}"
    tail = (
        "every seed earlier than every seed at the smallest decay" if slower else "seeds overlap with those at the smallest decay"
    )
    found.append(Verdict("weight_decay.optimum", R if slower else P if fastest > 0 else C, text,
                         f"{why}, {tail}" if fastest else f"{why}, the smallest decay tested"))  # fmt: skip
    prevents = _prevents(rows)
    found += [prevents, _invariance(evidence, reached), concentration(evidence, rows, "decays")]
    parts = [found[1].judgement, prevents.judgement]
    found.append(
        Verdict(
            "weight_decay.regimes",
            worst(parts),
            text,
            "slow at little decay: " + found[1].judgement.value + "; none at much: " + prevents.judgement.value,
        )
    )
    return found


def _prevents(rows: tuple[Row, ...]) -> Verdict:
    """At the largest decay: does NC1 stall, with fn above where others collapsed?"""
    last, others = rows[-1], rows[:-1]
    times = last.times(0.01)
    end, fn = last.last("nc1_trace_ratio"), last.last("fn")
    stars = np.concatenate([r.times(0.01).fn_star for r in others])
    text = f"decay {short(_decay(last))}: {times.crossed} of {times.n} collapse, "
    text += f"NC1 ends at {end.min():.3f} to {end.max():.3f}, fn at {fn.mean():.2f}"
    if not len(stars):
        return untestable("weight_decay.prevents", "no smaller decay collapses either", text)
    above = fn.mean() > stars.mean()
    theory = "a floor of NC1 that grows with decay, long before the collapsed state is lost (its fold)"
    judgement = C if times.crossed == times.n else R if times.crossed == 0 and above else P
    return Verdict(
        "weight_decay.prevents",
        judgement,
        text,
        f"fn* of the others {stars.mean():.2f}; " + ("fn stays above it" if above else "fn ends below it"),
        theory,
    )


def _invariance(evidence: Evidence, reached: list) -> Verdict:
    """CV of fn at T_NC over decays below 8%, and no trend in log decay? Beside it fn at the end."""
    fn = np.concatenate([t.fn_star for _, t in reached])
    x = np.concatenate([[np.log(_decay(r))] * t.crossed for r, t in reached])
    at = statistics.summary(fn)
    line = statistics.regression(x, np.log(fn))
    test = statistics.anova([t.fn_star for _, t in reached]) if all(t.crossed > 1 for _, t in reached) else None
    text = (f"fn at T_NC {at.mean:.3f} ± {at.std:.3f}, CV {100 * at.cv:.1f}%; exponent in decay {line.slope:+.3f} "
            f"[{line.low:+.3f}, {line.high:+.3f}]; fn at the end {cv_text(r for r, _ in reached)}")  # fmt: skip
    if test is not None:
        text += f"; ANOVA p {test.p:.2g}"
    flat = line.low <= 0 <= line.high
    judgement = R if at.cv <= 0.08 and flat else C if at.cv > 0.08 and not flat else P
    return Verdict(
        "weight_decay.invariance",
        judgement,
        text,
        "invariant is read as CV below 8% and an interval of the exponent with 0",
        FLAT,
    )


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(4)
    rows = evidence.rows
    x = [_decay(r) for r in rows]
    ticks = [short(d) for d in x]
    figures.dynamics(axes[0, 0], axes[0, 1], rows)
    cadence = evidence.cadence
    bodies = [("here", evidence)] + ([("published logs", logs)] if logs else [])
    same = [(name, [e.row(decay=d) for d in x]) for name, e in bodies]
    figures.against(axes[0, 2], x, [(name, [r.times(every=cadence) if r else np.array([]) for r in each]) for name, each in same],
                    "T_NC (open: not by then)", "weight decay", names=ticks, logx=True)  # fmt: skip
    figures.against(
        axes[0, 3],
        x,
        [
            ("at T_NC", [r.times(every=cadence).fn_star for r in rows]),
            ("at the end", [r.fn_end for r in rows]),
            ("from the head", [np.array([n.fn_from_head for n in r.networks]) for r in rows]),
        ],
        "fn",
        "weight decay",
        names=ticks,
        logx=True,
    )
    figures.titles(axes, "fn (mark: T_NC)", "NC1", "T_NC", "fn")
    return made


EXPERIMENT = Experiment(
    name="weight_decay",
    title="Weight decay: rate, value, and too much of it",
    question="Is there a range of decays that collapses, how does the time depend on it, and does fn at collapse?",
    measures="T_NC with censoring, fn at T_NC and at the end, NC1 at the end; CV and exponent of fn in decay.",
    claims=CLAIMS,
    conditions=conditions,
    table=4,
    logs=logs,
    judge=judge,
    figure=figure,
)
