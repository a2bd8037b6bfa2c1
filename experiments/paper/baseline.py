"""The baseline: how fn and NC1 go through the two phases (the paper's Figures 1 and 2)."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments.paper import figures
from experiments.paper.evidence import Evidence
from experiments.paper.experiment import Condition, Experiment, Verdict
from experiments.paper.linear_flow import linear_flow
from experiments.paper.networks import Network
from experiments.paper.resnets import resnet_conditions
from experiments.paper.settings import condition, settings
from experiments.paper.verdicts import C, P, R, missing, untestable, value
from experiments.published import published

CLAIMS = ("baseline.t_nc", "baseline.compression", "baseline.plateau", "baseline.together", "baseline.resnet")


def conditions(preset: str) -> tuple[Condition, ...]:
    made: list[Condition] = []
    for s in settings(preset):
        made.append(condition(s, "MLP", of="paper-mlp-baseline"))
        if preset != "smoke":
            made.append(linear_flow(s.base, s.group, s.base.decays[0]))
    made += resnet_conditions(preset, datasets=("cifar10",))
    return tuple(made)


def logs(condition: Condition) -> tuple[str, ...]:
    if condition.parameters.get("dataset") == "cifar10":
        return ("cifar10_s0", "cifar10_s1", "cifar10_s2")
    return ("mnist_twophase",) if condition.label == "MLP" else ()


def judge(evidence: Evidence) -> list[Verdict]:
    rows = evidence.present
    if not rows:
        return missing(CLAIMS, evidence)
    nets = rows[0].networks
    if rows[0].condition.parameters.get("dataset") == "cifar10":
        return _resnet(evidence)
    times = rows[0].times(0.01, every=evidence.cadence)
    claim = published().claim
    found = [value("baseline.t_nc", evidence, times.typical, claim("baseline.t_nc").values["t_nc"].value, "T_NC", form=".0f")]
    found.append(_compression(evidence, nets))
    found.append(_plateau(nets))
    found.append(_together(nets))
    return found


def _compression(evidence: Evidence, nets: tuple[Network, ...]) -> Verdict:
    """fn early in phase 1 over fn at T_NC, and how much of it the first look after the switch has seen."""
    ratios, shares = [], []
    for net in nets:
        onset = net.onset(0.01)
        time, fn, _ = net.in_phase(1)
        _, after, _ = net.in_phase(2)
        if not (onset.happened and len(fn) and len(after)):
            continue
        early = fn[np.searchsorted(time, 10)] if evidence.full else fn.max()
        ratios.append(early / onset.fn)
        shares.append(np.log(fn[-1] / after[0]) / np.log(fn[-1] / onset.fn))
    if not ratios:
        return Verdict("baseline.compression", C, "no network collapsed", "fn at T_NC does not exist")
    ratio, share = float(np.mean(ratios)), float(np.mean(shares))
    theirs = published().claim("baseline.compression").values["compression"].value
    text = f"fn shrinks {ratio:.0f}-fold; {100 * share:.0f}% of the way (in log fn, from the switch) by the first look after it"
    if evidence.full:
        graded = value("baseline.compression", evidence, ratio, theirs, "compression", form=".1f")
        return Verdict("baseline.compression", graded.judgement, f"{ratio:.1f}-fold, published {theirs:.0f}-fold",
                       f"{graded.reason}; {text}")  # fmt: skip
    return Verdict("baseline.compression", P if ratio >= 10 else C, text,
                   "an order of magnitude or more is the claim at this scale; its size belongs to the full protocol")  # fmt: skip


def _plateau(nets: tuple[Network, ...]) -> Verdict:
    """NC1 in phase 1 from epoch 10 on, near 0.5 (within a factor of 2) with all training samples right?"""
    low, high, accuracy = np.inf, 0.0, 1.0
    for net in nets:
        use = (net.phase == 1) & (net.time >= 10) & np.isfinite(net.nc1)
        if use.any():
            low, high = min(low, float(net.nc1[use].min())), max(high, float(net.nc1[use].max()))
            accuracy = min(accuracy, float(np.nanmin(net.values["train_accuracy"][use])))
    if not np.isfinite(low):
        return untestable("baseline.plateau", "phase 1 ends before epoch 10")
    near, right = low >= 0.25 and high <= 1, accuracy >= 0.9995
    text = f"NC1 from {low:.2f} to {high:.2f} after epoch 10 of phase 1, least training accuracy {100 * accuracy:.2f}%"
    stays = "NC1 stays above 0.01 in phase 1" if low > 0.01 else "NC1 falls below 0.01 already in phase 1"
    judgement = R if near and right else P if low > 0.01 else C
    return Verdict("baseline.plateau", judgement, text, f"near 0.5 is read as 0.25 to 1, 100% as 99.95%; {stays}",
                   "under cross-entropy within-class scatter decays at a rate of order lambda only")  # fmt: skip


def _together(nets: tuple[Network, ...]) -> Verdict:
    """NC2 and NC3 over phase 2: first look to T_NC (or the end)."""
    falls: dict[str, list[float]] = {"nc2_equiangular_l1": [], "nc3_one_minus_cos": []}
    against_ce: dict[str, list[float]] = {name: [] for name in falls}
    for net in nets:
        onset = net.onset(0.01)
        end = onset.t_nc if onset.happened else net.time[-1]
        for name, kept in falls.items():
            if name not in net.values:
                continue
            v = net.values[name]
            second = np.flatnonzero((net.phase == 2) & (net.time <= end) & np.isfinite(v))
            first = np.flatnonzero((net.phase == 1) & np.isfinite(v) & (net.time > 0))
            if len(second) > 1 and len(first):
                kept.append(float(v[second[-1]] / v[second[0]]))
                against_ce[name].append(float(v[second[-1]] / v[first[-1]]))
    if not all(falls.values()):
        return untestable("baseline.together", "NC2 and NC3 were not measured in both phases")
    within = {name: float(np.exp(np.mean(np.log(v)))) for name, v in falls.items()}
    across = {name: float(np.exp(np.mean(np.log(v)))) for name, v in against_ce.items()}
    two, three = (within[name] for name in falls)
    text = (
        f"from the first look of phase 2 to T_NC: NC2 x {two:.2f}, NC3 x {three:.2f}; against the end of phase 1: "
        + ", ".join(
            f"{short} x {across[name]:.2f}" for short, name in (("NC2", "nc2_equiangular_l1"), ("NC3", "nc3_one_minus_cos"))
        )
    )
    fell = [two < 1, three < 1]
    below = [v < 1 for v in across.values()]
    judgement = R if all(fell) and all(below) else P if any(fell) else C
    why = "both fall within phase 2" if all(fell) else "not both fall within phase 2"
    return Verdict("baseline.together", judgement, text, why + ("" if all(below) else ", but not below where phase 1 left them"))


def _resnet(evidence: Evidence) -> list[Verdict]:
    row = evidence.present[0]
    times = row.times(0.01, every=evidence.cadence)
    theirs = published().claim("baseline.resnet").values
    if not evidence.full:
        return [untestable("baseline.resnet", "a value of the full protocol; this group is trained on less",
                           f"fn at T_NC {_mean(times.fn_star)}, T_NC {_mean(times.t_nc)}")]  # fmt: skip
    when = value("baseline.resnet", evidence, times.typical, theirs["t_nc"].value, "T_NC", form=".0f")
    norm = value("baseline.resnet", evidence, _mean(times.fn_star), theirs["fn"].mean.value, "fn at T_NC")
    judgement = R if when.judgement is norm.judgement is R else C if C in (when.judgement, norm.judgement) else P
    after = np.mean(times.lr[np.isfinite(times.lr)]) if np.isfinite(times.lr).any() else np.nan
    return [Verdict("baseline.resnet", judgement, f"{when.found}; {norm.found}",
                    f"{when.reason}, {norm.reason}; learning rate at T_NC {after:.0e}: it falls with the schedule")]  # fmt: skip


def _mean(values: np.ndarray) -> float:
    good = values[np.isfinite(values)]
    return float(good.mean()) if len(good) else float("nan")


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(4)
    rows = evidence.rows
    figures.curves(axes[0, 0], rows, lambda n: n.values["train_accuracy"], "training accuracy", log=False)
    figures.dynamics(axes[0, 3], axes[0, 1], rows)
    for name, label, style in (("nc2_equiangular_l1", "NC2", "-"), ("nc3_one_minus_cos", "NC3", "--")):
        for k, net in enumerate(n for r in rows for n in r.networks):
            y = net.values[name]
            use = np.isfinite(y) & (net.time > 0)
            axes[0, 2].plot(net.time[use], y[use], style, color="black", linewidth=1.0, label=label if not k else None)
    axes[0, 2].set_yscale("log")
    axes[0, 2].set_xlabel("epoch", fontsize=8)
    if rows and axes[0, 2].get_legend_handles_labels()[0]:
        axes[0, 2].legend(fontsize=7, frameon=False)
    figures.switches(axes[0, 2], rows)
    if logs is not None:
        figures.overlay(axes[0, 1], logs, lambda n: n.nc1)
        figures.overlay(axes[0, 3], logs, lambda n: n.fn)
    figures.titles(axes, "accuracy", "NC1", "NC2 and NC3", "fn (mark: T_NC)")
    return made


EXPERIMENT = Experiment(
    name="baseline",
    title="Baseline: fn and NC1 through the two phases",
    question="What happens to the features of a network that is trained with cross-entropy, then with squared error?",
    measures="NC1, NC2, NC3, fn and accuracy over both phases; T_NC, fn there and at the end.",
    claims=CLAIMS,
    conditions=conditions,
    logs=logs,
    judge=judge,
    figure=figure,
)
