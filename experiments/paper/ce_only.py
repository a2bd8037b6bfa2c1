"""Cross-entropy alone: is the second phase necessary? (The paper's section 5.7 and Figure 9.)"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from experiments.paper import figures
from experiments.paper.evidence import Evidence
from experiments.paper.experiment import Condition, Experiment, Verdict
from experiments.paper.resnets import resnet_conditions
from experiments.paper.settings import condition, settings
from experiments.paper.verdicts import C, R, graded, missing, untestable, worst
from experiments.published import published
from realnets import TwoPhase, preset

CLAIMS = ("ce_only.nc1", "ce_only.norm", "ce_only.accuracy", "ce_only.necessary")
THEORY = (
    "under cross-entropy within-class scatter decays at a rate of order lambda, under squared error much faster in the "
    "head's span"
)


def conditions(name: str) -> tuple[Condition, ...]:
    made: list[Condition] = []
    for s in settings(name):
        both = condition(s, "CE, then MSE", of="paper-mlp-baseline")
        alone: TwoPhase = (
            preset("paper-mlp-baseline", epochs_ce=600, epochs_mse=0, seeds=s.base.seeds)
            if s.full
            else replace(s.base, second_loss="cross_entropy", schedule="cosine_run")
        )
        made.append(Condition(label="CE alone", setting=alone, group=s.group, parameters={"loss": "cross_entropy"}))
        made.append(Condition(label=both.label, setting=both.setting, group=s.group, parameters={"loss": "mse"}))
    if name == "laptop-resnet":
        made += resnet_conditions(name, ("mnist",), ce=True)
    return tuple(made)


def logs(condition: Condition) -> tuple[str, ...]:
    return ("ce_only_ablation",) if condition.parameters["loss"] == "cross_entropy" else ("mnist_twophase",)


def judge(evidence: Evidence) -> list[Verdict]:
    alone = evidence.row(loss="cross_entropy")
    if alone is None:
        return missing(CLAIMS, evidence)
    nets = alone.networks
    late = [(n.time >= min(20, n.time[-1] / 2)) & np.isfinite(n.nc1) for n in nets]
    least = np.array([n.nc1[u].min() for n, u in zip(nets, late, strict=True)])
    fn = np.array([[n.fn[u].min(), n.fn[u].max()] for n, u in zip(nets, late, strict=True)])
    accuracy = float(min(np.nanmin(n.values["train_accuracy"][u]) for n, u in zip(nets, late, strict=True)))
    epochs = max(float(n.time[-1]) for n in nets)
    text = f"least NC1 {least.min():.3f} to {least.max():.3f} in {epochs:.0f} epochs"
    text += f", fn {fn[:, 0].min():.1f} to {fn[:, 1].max():.1f}"
    theirs = published().claim
    if evidence.full:
        error = float(least.mean()) / theirs("ce_only.nc1").values["nc1_min"].value - 1
        found = [Verdict("ce_only.nc1", graded(error), text, f"published minimum 0.076, {100 * error:+.0f}%", THEORY)]
        low, high = (v.value for v in theirs("ce_only.norm").values["fn"])
        ends = [graded(fn[:, 0].mean() / low - 1), graded(fn[:, 1].mean() / high - 1)]
        found.append(Verdict("ce_only.norm", worst(ends), text, f"published {low:.0f} to {high:.0f}"))
    else:
        found = [untestable(c, "a value of the full protocol", text, THEORY) for c in CLAIMS[:2]]
    right = accuracy >= 0.99
    found.append(
        Verdict(
            "ce_only.accuracy",
            R if right else C,
            f"least training accuracy from epoch 20 on {100 * accuracy:.1f}%",
            "at least 99% is the claim",
        )
        if epochs >= 20
        else untestable("ce_only.accuracy", "fewer than 20 epochs")
    )
    found.append(_necessary(evidence, text))
    return found


def _necessary(evidence: Evidence, text: str) -> Verdict:
    """Cross-entropy alone does not collapse in the same number of epochs, the two phases do."""
    alone, both = evidence.row(loss="cross_entropy"), evidence.row(loss="mse")
    assert alone is not None
    one = alone.times(0.01)
    if both is None:
        return untestable("ce_only.necessary", "no runs with two phases", text, THEORY)
    two = both.times(0.01, phase=2)
    text += f"; {one.crossed} of {one.n} collapse under cross-entropy alone, {two.crossed} of {two.n} in the second phase"
    if two.crossed < two.n and not one.crossed:
        return untestable("ce_only.necessary", "the two phases do not collapse here either", text, THEORY)
    judgement = R if one.crossed == 0 else C
    return Verdict(
        "ce_only.necessary", judgement, text, "necessary is read as: no seed collapses without it, every seed with it", THEORY
    )


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(3)
    figures.dynamics(axes[0, 1], axes[0, 0], evidence.rows)
    figures.curves(axes[0, 2], evidence.rows, lambda n: n.values["train_accuracy"], "training accuracy", log=False)
    if logs is not None:
        figures.overlay(axes[0, 0], logs, lambda n: n.nc1)
        figures.overlay(axes[0, 1], logs, lambda n: n.fn)
    figures.titles(axes, "NC1", "fn", "accuracy")
    return made


EXPERIMENT = Experiment(
    name="ce_only",
    title="Cross-entropy alone",
    question="Is the switch to squared error necessary for collapse in the given number of epochs?",
    measures="Least NC1, range of fn and accuracy under cross-entropy alone, against the two phases.",
    claims=CLAIMS,
    conditions=conditions,
    logs=logs,
    judge=judge,
    figure=figure,
)
