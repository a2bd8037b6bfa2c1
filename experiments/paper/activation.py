"""Activation: does it set the speed of collapse and the value of fn? (The paper's Table 3 and Figure 4.)"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments import statistics
from experiments.paper import figures
from experiments.paper.evidence import Evidence, Row
from experiments.paper.experiment import Condition, Experiment, Verdict
from experiments.paper.settings import condition, relaxed, settings
from experiments.paper.verdicts import C, P, R, U, missing, times_text, untestable, value, worst
from experiments.published import published

CLAIMS = ("activation.speed", "activation.value", "activation.sensitivity", "threshold.ceiling", "later.leaky_relu", "later.silu")
#: activation -> label; the last two are the authors' later additions.
NAMES = {"relu": "ReLU", "gelu": "GELU", "tanh": "tanh", "leaky_relu": "leaky ReLU", "silu": "SiLU"}
ORDER = ("tanh", "gelu", "relu")


def conditions(preset: str) -> tuple[Condition, ...]:
    made = []
    for s in settings(preset):
        for name, label in NAMES.items():
            if preset == "smoke" and name not in ORDER:
                continue
            seeds = (0, 1, 2, 3) if name == "gelu" and preset != "smoke" else None  # the paper ran four
            made.append(condition(s, label, relaxed(5, name), of="paper-mlp-sweep", seeds=seeds, activation=name))
    return tuple(made)


def logs(condition: Condition) -> tuple[str, ...]:
    return {
        "relu": ("mnist_twophase", "depth5_s1", "depth5_s2"),
        "gelu": ("actGELU_s0", "actGELU_s1", "actGELU_s2", "gelu_s3", "gelu_s4"),
        "tanh": ("actTanh_s0", "actTanh_s1", "actTanh_s2"),
    }.get(condition.parameters.get("activation", ""), ())


def judge(evidence: Evidence) -> list[Verdict]:
    rows = {r.condition.parameters["activation"]: r for r in evidence.present}
    if not all(name in rows for name in ORDER):
        return missing(CLAIMS, evidence)
    found = [_speed(evidence, rows), _value(evidence, rows), _sensitivity(evidence, rows), _ceiling(rows)]
    for name, claim in (("leaky_relu", "later.leaky_relu"), ("silu", "later.silu")):
        if name in rows:
            found.append(_later(evidence, rows[name], claim))
    return found


def _speed(evidence: Evidence, rows: dict[str, Row]) -> Verdict:
    """tanh first, then GELU, then ReLU: by the paper's thresholds, and by one for all."""
    text, holds = [], {}
    if not any(rows[name].times(every=evidence.cadence).crossed for name in ORDER):
        return untestable("activation.speed", "no network reached its threshold")
    for threshold, what in ((None, "thresholds of the paper"), (0.05, "NC1 < 0.05 for all"), (0.01, "NC1 < 0.01 for all")):
        times = [rows[name].times(threshold, every=evidence.cadence) for name in ORDER]
        text.append(f"{what}: {times_text([NAMES[n] for n in ORDER], times)}")
        typical = [t.typical for t in times]
        holds[threshold] = bool(typical[0] < typical[1] < typical[2]) if np.isfinite(typical).sum() > 1 else None
    common = [v for k, v in holds.items() if k is not None and v is not None]
    judgement = R if holds[None] and all(common) else P if holds[None] or any(common) else C
    why = "ReLU is held to 0.01 and the others to 0.05; " + (
        "the order holds at one threshold too" if common and all(common) else "at one threshold for all it does not hold"
    )
    return Verdict("activation.speed", judgement, "; ".join(text), why)


def _value(evidence: Evidence, rows: dict[str, Row]) -> Verdict:
    """ReLU lowest, GELU highest, of the networks that collapse under squared error; at full scale also the values."""
    times = {name: rows[name].times(every=evidence.cadence) for name in ORDER}
    at = {name: t.fn[t.phase == 2] for name, t in times.items()}
    same = {name: (t := rows[name].times(0.05, every=evidence.cadence)).fn[t.phase == 2] for name in ORDER}
    early = {name: int((t.phase == 1).sum()) for name, t in times.items() if (t.phase == 1).any()}
    apart = "".join(f"; {n} of {NAMES[name]} collapse under cross-entropy, where fn is another" for name, n in early.items())
    if not all(len(v) for v in at.values()):
        return untestable("activation.value", f"an activation did not reach its threshold in phase 2{apart}")
    means, alike = ({n: float(v.mean()) for n, v in each.items() if len(v)} for each in (at, same))
    text = ", ".join(f"{NAMES[n]} {m:.2f}" for n, m in means.items()) + "; at NC1 < 0.05 for all: " + ", ".join(
        f"{NAMES[n]} {m:.2f}" for n, m in alike.items()) + apart  # fmt: skip

    def ordered(m: dict[str, float]) -> bool:
        return len(m) == 3 and m["relu"] < m["tanh"] < m["gelu"]

    if evidence.full:
        theirs = published().claim("activation.value").values
        parts = [value("activation.value", evidence, means[n], theirs[f"fn_{n}"].value, NAMES[n]).judgement for n in ORDER]
        return Verdict("activation.value", worst(parts), text, "ReLU, tanh and GELU against the published values" + (
            "; the order at one threshold differs" if not ordered(alike) else ""))  # fmt: skip
    judgement = R if ordered(means) and ordered(alike) else P if ordered(means) or means["relu"] == min(means.values()) else C
    return Verdict("activation.value", judgement, text, "order ReLU < tanh < GELU, by the paper's thresholds and by one for all",
                   "fn at rest follows the local degree of homogeneity; ReLU has one everywhere, the others do not")  # fmt: skip


def _sensitivity(evidence: Evidence, rows: dict[str, Row]) -> Verdict:
    cvs = {}
    for name in ORDER:
        fn = rows[name].times(every=evidence.cadence).fn_star
        cvs[name] = statistics.summary(fn).cv if len(fn) > 1 else np.nan
    gelu = rows["gelu"].times(every=evidence.cadence)
    late = (
        [bool((n.nc1[(n.time > 300) & np.isfinite(n.nc1)] > 0.5).any()) for n in rows["gelu"].networks] if evidence.full else []
    )
    text = (
        ", ".join(f"CV of {NAMES[n]} {100 * v:.1f}%" for n, v in cvs.items()) + f"; GELU collapses in {gelu.crossed} of {gelu.n}"
    )
    if evidence.full:
        text += f", diverges (NC1 > 0.5 after epoch 300) in {sum(late)}"
    if not np.isfinite(list(cvs.values())).all():
        return untestable("activation.sensitivity", "fewer than two networks of an activation collapsed", text)
    big, small = cvs["gelu"] > 0.08, cvs["relu"] < 0.03 and cvs["tanh"] < 0.03
    judgement = (
        R
        if big and small and (not evidence.full or any(late))
        else P
        if big or cvs["gelu"] > max(cvs["relu"], cvs["tanh"])
        else C
    )
    return Verdict("activation.sensitivity", judgement, text, "read as: GELU above 8%, ReLU and tanh below 3%"
                   + (", and a GELU seed that diverges" if evidence.full else ""))  # fmt: skip


def _ceiling(rows: dict[str, Row]) -> Verdict:
    least = np.array([np.nanmin(n.nc1) for name in ("gelu", "tanh") for n in rows[name].networks])
    text = f"least NC1 of GELU and tanh: {least.min():.3f} to {least.max():.3f} over {len(least)} networks"
    below = int((least < 0.03).sum())
    return Verdict("threshold.ceiling", R if below == 0 and (least <= 0.08).all() else C if below == len(least) else P, text,
                   f"{below} of {len(least)} fall below 0.03")  # fmt: skip


def _later(evidence: Evidence, row: Row, claim: str) -> Verdict:
    times = row.times(0.01, every=evidence.cadence)
    if claim == "later.silu":
        text = f"{times.crossed} of {times.n} reach NC1 < 0.01; least NC1 {min(np.nanmin(n.nc1) for n in row.networks):.3f}"
        return Verdict(claim, R if times.crossed == 0 else C if times.crossed == times.n else P, text, "published: none")
    if not times.crossed:
        return Verdict(claim, C if evidence.full else U, "none reaches NC1 < 0.01", "published: all")
    return value(claim, evidence, float(times.fn_star.mean()), published().claim(claim).values["fn"].mean.value, "fn at T_NC")


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(4)
    rows = evidence.rows
    x = list(range(len(rows)))
    ticks = [r.condition.label.replace("leaky ReLU", "leaky") for r in rows]
    figures.dynamics(axes[0, 0], axes[0, 1], rows)
    cadence = evidence.cadence
    figures.against(axes[0, 2], x, [("paper's thresholds", [r.times(every=cadence) for r in rows]),
                                    *((f"NC1 < {t:g}", [r.times(t, every=cadence) for r in rows]) for t in (0.05, 0.01))],
                    "T_NC (open: not by then)", "", names=ticks, lines=False)  # fmt: skip
    figures.against(
        axes[0, 3],
        x,
        [("at T_NC", [r.times(every=cadence).fn_star for r in rows]), ("at the end", [r.fn_end for r in rows])],
        "fn",
        "",
        names=ticks,
        lines=False,
    )
    figures.titles(axes, "fn (mark: T_NC)", "NC1", "T_NC", "fn")
    return made


EXPERIMENT = Experiment(
    name="activation",
    title="Activation: speed of collapse and value of fn",
    question="Does the activation shape the collapsed features, and not only the speed of collapse?",
    measures="T_NC at the paper's thresholds and at one for all activations, fn there and at the end, its spread over seeds.",
    claims=CLAIMS,
    conditions=conditions,
    table=3,
    logs=logs,
    judge=judge,
    figure=figure,
)
