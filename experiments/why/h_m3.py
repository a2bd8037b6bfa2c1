"""H-M3: do BatchNorm and skip connections raise fn at rest, or does the loss? (The paper's section 6.3.)

Perceptrons on one residual stream with and without each, under squared error and under cross-entropy alone, brought to rest; the
smallest models that have both; and ResNet-20 on small images as a spot check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import statistics
from experiments.paper import figures
from experiments.paper.evidence import Evidence, Row
from experiments.paper.expectation import batchnorm_bound
from experiments.paper.experiment import Condition, Experiment, Judgement, Statement, Verdict
from experiments.paper.resnets import SMALL, cross_entropy_alone, resnet, resnet_conditions
from experiments.paper.verdicts import SAME, C, P, R, graded, missing, untestable, worst
from experiments.why.batchnorm_flow import BatchNormFlow
from experiments.why.flows import column
from experiments.why.rest import bootstrap, finals, percent, resting, simulated, told
from experiments.why.settings import SETTINGS
from realnets import TwoPhase

SOURCE, SECTION = "H-M3", "6.3"
STATEMENTS = (
    Statement("h_m3.batchnorm", "BatchNorm raises fn at rest.", SOURCE, SECTION),
    Statement("h_m3.skip", "Skip connections raise fn at rest.", SOURCE, SECTION),
    Statement("h_m3.factor", "Architecture (BatchNorm, skip connections) and not the loss sets fn at rest.", SOURCE, SECTION),
    Statement("h_m3.closed", "With BatchNorm fn rests at sqrt(x) ((K-1) L)^(1/4), whatever data and width.", "theory", "6.5"),
)
IDS = tuple(s.id for s in STATEMENTS)
SEEDS = (0, 1, 2, 3, 4)
LOSSES = {"mse": "squared error", "cross_entropy": "cross-entropy"}
FACTORS = ("loss", "BatchNorm", "skip")
#: A cell of the design: loss, normalization, skip.
Cell = tuple[str, str, bool]
THEORY = "fn of a normalised stream follows the signal of the loss: about 1 under squared error, a logit gap under cross-entropy"


def conditions(preset: str) -> tuple[Condition, ...]:
    if preset == "laptop-resnet":
        return _resnets()
    if preset not in SETTINGS:
        return ()
    s = SETTINGS[preset]
    small = preset == "smoke"
    fields: dict[str, Any] = {"architecture": "residual_mlp", "optimiser": "sgd", "lr": 0.03, "decays": (1e-3,)}
    fields["depth"] = 2 if small else 3
    if not small:
        fields |= {"seeds": SEEDS, "batch_size": 32}  # normalised networks take twice as long for a step
    base = replace(s.base, **fields)
    made = []
    for loss, normalization, skip in product(LOSSES, ("batch", "none"), (True, False)):
        setting = replace(base, second_loss=loss, normalization=normalization, skip=skip)
        made.append(
            Condition(
                label=f"{_named(normalization, skip)}, {LOSSES[loss]}",
                setting=setting,
                group=s.group,
                parameters={"loss": loss, "normalization": normalization, "skip": skip},
            )
        )
    flow = (
        BatchNormFlow(streams=(1, 2), classes=3, samples=3, width=6, seeds=(0,), steps=60, decay=2e-2)
        if small
        else BatchNormFlow()
    )
    made.append(Condition(label="batch-normalised features", setting=flow, group=s.group, parameters={"simulated": flow.kind}))
    return tuple(made)


def _named(normalization: str, skip: bool) -> str:
    return f"{'BatchNorm' if normalization == 'batch' else 'no norm'}, {'skip' if skip else 'no skip'}"


def _resnets() -> tuple[Condition, ...]:
    """ResNet-20 on MNIST as the paper's experiments train it, and one seed without either part."""
    made = []
    for c in resnet_conditions("laptop-resnet", ("mnist",), ce=True):
        made.append(replace(c, parameters={"loss": c.parameters["loss"], "normalization": "batch", "skip": True}))
    base = replace(resnet("laptop-resnet", "mnist"), seeds=(0,))
    for normalization, skip in (("batch", False), ("none", True)):
        for loss in LOSSES:
            without = replace(base, normalization=normalization, skip=skip)
            made.append(
                Condition(
                    label=f"ResNet-20, MNIST, {_named(normalization, skip)}, {LOSSES[loss]}",
                    group=SMALL,
                    setting=without if loss == "mse" else cross_entropy_alone(without),
                    parameters={"loss": loss, "normalization": normalization, "skip": skip},
                )
            )
    return tuple(made)


def cells(evidence: Evidence) -> dict[Cell, np.ndarray]:
    """(n,) fn at rest of each cell that has networks; zero features have none."""
    found: dict[Cell, np.ndarray] = {}
    for row in evidence.present:
        p = row.condition.parameters
        rests = finals(row)
        if len(rests := rests[rests > 1e-3]):
            found[(p["loss"], p["normalization"], p["skip"])] = rests
    return found


def shares(means: Mapping[Cell, np.ndarray]) -> dict[str, np.ndarray]:
    """Share of each factor and interaction in the sum of squares of the eight cell means (of log fn; (...,) each): the 2 x 2 x 2
    design is balanced, so that effects are orthogonal."""
    signs = {
        cell: (1 if cell[0] == "cross_entropy" else -1, 1 if cell[1] == "batch" else -1, 1 if cell[2] else -1) for cell in means
    }
    effects = {}
    for size in (1, 2, 3):
        for which in combinations(range(3), size):
            name = " x ".join(FACTORS[i] for i in which)
            effects[name] = sum(np.prod([signs[cell][i] for i in which]) * mean for cell, mean in means.items()) / len(means)
    total = sum(e**2 for e in effects.values())
    with np.errstate(invalid="ignore"):
        return {name: e**2 / total for name, e in effects.items()}


def streams(setting: TwoPhase) -> int:
    """BatchNorms that add into what the head sees."""
    if setting.architecture == "resnet20":
        return 4 if setting.skip else 1
    return setting.depth if setting.skip else 1


def judge(evidence: Evidence) -> list[Verdict]:
    found = cells(evidence)
    if not found and not simulated(evidence, BatchNormFlow):
        return missing(IDS, evidence)
    rest = resting(evidence.present)
    return [
        _raises("h_m3.batchnorm", found, rest),
        _raises("h_m3.skip", found, rest),
        _factor(found, rest),
        _closed(evidence, rest),
    ]


def _raises(claim: str, found: dict[Cell, np.ndarray], rest: str) -> Verdict:
    """Pairs of cells that differ in one part."""
    words, parts = [], []
    for loss, other in product(LOSSES, (True, False)):
        if claim == "h_m3.batchnorm":
            pair = ((loss, "batch", other), (loss, "none", other))
            name = f"{LOSSES[loss]}, {'skip' if other else 'no skip'}"
        else:
            normalization = "batch" if other else "none"
            pair = ((loss, normalization, True), (loss, normalization, False))
            name = f"{LOSSES[loss]}, {'BatchNorm' if other else 'no norm'}"
        if pair[0] not in found or pair[1] not in found:
            continue
        logs = (np.log(found[pair[0]]), np.log(found[pair[1]]))
        text = f"{name} {found[pair[1]].mean():.2f} to {found[pair[0]].mean():.2f}"
        if min(len(v) for v in logs) < 2:
            words.append(text)
            continue
        gap = statistics.difference(logs[0], logs[1])
        parts.append(R if gap.low > 0 else C if gap.high < 0 else P)
        words.append(f"{text} (times {np.exp(gap.difference):.2f} [{np.exp(gap.low):.2f}, {np.exp(gap.high):.2f}])")
    text = "fn at rest without and with: " + "; ".join(words) if words else "–"
    if not parts:
        return untestable(claim, "no pair of cells with two seeds each", text, THEORY)
    judgement: Judgement = worst(parts)
    return Verdict(
        claim,
        judgement,
        text,
        f"raised in {parts.count(R)}, lowered in {parts.count(C)} of {len(parts)} pairs, by the "
        f"95% interval of the ratio; {rest}",
        THEORY,
    )


def _factor(found: dict[Cell, np.ndarray], rest: str) -> Verdict:
    if len(found) < 8:
        return untestable("h_m3.factor", f"only {len(found)} of 8 cells have networks with features", theory=THEORY)
    order = list(found)
    logs = [np.log(found[cell]) for cell in order]
    share = shares({cell: v.mean() for cell, v in zip(order, logs, strict=True)})
    if not np.isfinite(list(share.values())).all():
        return untestable("h_m3.factor", "fn at rest is the same in every cell", theory=THEORY)

    def within(name: str):
        return bootstrap(logs, lambda drawn: shares({c: v.mean(1) for c, v in zip(order, drawn, strict=True)})[name])

    intervals = {name: within(name) for name in share}
    words = ", ".join(
        f"{name} {100 * v:.0f}% [{100 * intervals[name][0]:.0f}, {100 * intervals[name][1]:.0f}]" for name, v in share.items()
    )
    build = share["BatchNorm"] + share["skip"] + share["BatchNorm x skip"]
    low, high = intervals["loss"]
    judgement = C if low > 0.5 else R if high < 0.5 and build > 0.5 else P
    first = max(share, key=lambda name: share[name])
    return Verdict(
        "h_m3.factor",
        judgement,
        f"shares of the variance of log fn over cells: {words}",
        f"the largest is that of {first}; "
        f"contradicted is read as: the loss has more than half, by the 95% bootstrap interval; {rest}",
        THEORY,
    )


def _closed(evidence: Evidence, rest: str) -> Verdict:
    words, errors = [], []
    for row in evidence.present:
        p, setting = row.condition.parameters, row.condition.setting
        assert isinstance(setting, TwoPhase)
        values = finals(row)
        if p["normalization"] != "batch" or not len(values):
            continue
        level = batchnorm_bound(p["loss"], setting.decays[0], streams=streams(setting))
        errors.append(values.mean() / level - 1)
        name = f"{LOSSES[p['loss']]}, L = {streams(setting)}"
        words.append(f"{name}: {told(values)}, closed form {level:.3f} ({percent(values / level - 1)})")
    parts = [graded(e) for e in errors]
    for run in simulated(evidence, BatchNormFlow):
        error = np.abs(column(run, "fn_end") / column(run, "theory_fn") - 1)
        counts = column(run, "streams")
        words.append(f"simulated, L = {counts.min()} to {counts.max()}: off by {100 * error.max():.2g}% at most")
        parts.append(graded(float(error.max())))
    if not parts:
        return untestable("h_m3.closed", "no network with BatchNorm")
    return Verdict(
        "h_m3.closed",
        worst(parts),
        "; ".join(words),
        f"held is read as within {100 * SAME:.0f}%, in part as within twice that; {rest}",
        "an upper bound where blocks share the stream unequally or class means are not orthogonal",
    )


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(3)
    found = cells(evidence)
    kinds = list(product(("batch", "none"), (True, False)))
    ticks = [f"{'BN' if n == 'batch' else 'no BN'}\n{'skip' if s else 'no skip'}" for n, s in kinds]
    by: dict[Cell, Row] = {
        tuple(r.condition.parameters.get(k) for k in ("loss", "normalization", "skip")): r for r in evidence.rows
    }  # type: ignore[misc]
    if found:
        series = [(LOSSES[loss], [found.get((loss, n, s), np.array([])) for n, s in kinds]) for loss in LOSSES]
        figures.against(axes[0, 0], range(4), series, "fn at rest", "", names=ticks, lines=False, logy=True)
        for i, (n, s) in enumerate(kinds):
            for loss in LOSSES:
                row = by.get((loss, n, s))
                if n == "batch" and row is not None and isinstance(setting := row.condition.setting, TwoPhase):
                    axes[0, 0].hlines(
                        batchnorm_bound(loss, setting.decays[0], streams=streams(setting)),
                        i - 0.35,
                        i + 0.35,
                        color="black",
                        linewidth=1,
                    )
    if len(found) == 8:
        share = shares({cell: np.log(v).mean() for cell, v in found.items()})
        short = [name.replace("BatchNorm", "BN").replace(" x ", "×") for name in share]
        axes[0, 1].barh(short, [100 * float(v) for v in share.values()], color="0.4")
        axes[0, 1].invert_yaxis()
        axes[0, 1].tick_params(axis="y", labelsize=6)
        axes[0, 1].set_xlabel("percent of the variance of log fn", fontsize=8)
    flows = simulated(evidence, BatchNormFlow)
    for run in flows:
        counts = np.unique(column(run, "streams"))
        series = [
            (LOSSES[k], [column(run, "fn_end")[(column(run, "loss") == k) & (column(run, "streams") == n)] for n in counts])
            for k in LOSSES
        ]
        figures.against(axes[0, 2], list(counts), series, "fn at rest", "streams L", lines=False)
        for k in LOSSES:
            use = column(run, "loss") == k
            axes[0, 2].plot(column(run, "streams")[use], column(run, "theory_fn")[use], color="black", linewidth=0.9)
    for ax, there in zip(axes.flat, (found, len(found) == 8, flows), strict=True):
        if not there:
            figures.nothing(ax)
    figures.titles(axes, "fn at rest (bar: closed form)", "what sets it", "simulated (line: closed form)")
    return made


EXPERIMENT = Experiment(
    name="h_m3",
    title="H-M3: BatchNorm and skip connections",
    question="Do BatchNorm and skip connections raise fn at rest, or does the loss?",
    measures="fn at rest of residual perceptrons with and without each, under either loss, and how the variance of its logarithm "
    "is shared; closed forms beside it.",
    statements=STATEMENTS,
    conditions=conditions,
    judge=judge,
    figure=figure,
)
