"""Grokking beside collapse: does the weight norm play there the part that the paper gives to fn? (The paper's section 6.1.)

Small and of one kind: a perceptron on modular addition over decays. Other models and depths, of which the parallel also speaks,
are not asked here.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments import statistics
from experiments.figures import STYLES, _colour
from experiments.paper import figures
from experiments.paper.evidence import Evidence
from experiments.paper.experiment import Condition, Experiment, Verdict
from experiments.paper.modular_addition import ModularAddition
from experiments.paper.verdicts import C, P, R, missing, untestable
from experiments.show import short
from ncflow import Trajectory

CLAIMS = ("grokking.five", "grokking.progress")
#: Accuracy on held-out pairs that counts as generalisation, on the training pairs as memorisation.
GENERAL, KNOWN = 0.95, 0.99


def conditions(preset: str) -> tuple[Condition, ...]:
    if preset not in ("smoke", "laptop", "paper"):
        return ()
    study = {
        "smoke": ModularAddition(modulus=7, width=16, decays=(0.3, 1.0), steps=100, look=10),
        "laptop": ModularAddition(),
        "paper": ModularAddition(seeds=(0, 1, 2, 3, 4), decays=(0.1, 0.3, 0.6, 1.0, 2.0, 5.0), steps=6000),
    }[preset]
    return (Condition(label="modular addition", setting=study, group=f"addition mod {study.modulus}"),)


def transitions(run: Trajectory) -> dict[str, np.ndarray]:
    """Per lane: `decay`, steps `known` and `general` at which training and held-out accuracy first reach their levels (NaN if
    never), weight norm `norm` at the latter, and the last time."""
    data = run.data
    time = data["time"].values

    def first(name: str, level: float) -> np.ndarray:
        above = data[name].values >= level
        return np.where(above.any(1), time[above.argmax(1)], np.nan)

    general = first("test_accuracy", GENERAL)
    at = np.searchsorted(time, np.nan_to_num(general, nan=time[-1]))
    norm = data["weight_norm"].values[np.arange(len(at)), at]
    return {"decay": data["decay"].values, "known": first("train_accuracy", KNOWN), "general": general,
            "norm": np.where(np.isfinite(general), norm, np.nan), "horizon": np.full(len(at), time[-1])}  # fmt: skip


def judge(evidence: Evidence) -> list[Verdict]:
    records = [row.record for row in evidence.studies if row.record is not None]
    if not records:
        return missing(CLAIMS, evidence)
    return [_parallel(records[0]), _progress(records[0])]


def _parallel(run: Trajectory) -> Verdict:
    """Concentration of the norm, rate but not value set by decay, and too much of it; the other two ways are not asked."""
    t = transitions(run)
    came = np.isfinite(t["general"])
    decays = np.unique(t["decay"])
    if came.sum() < 3 or len(np.unique(t["decay"][came])) < 2:
        return untestable("grokking.five", f"{came.sum()} of {len(came)} networks generalise")
    spread = statistics.summary(t["norm"][came])
    within = [statistics.summary(t["norm"][came & (t["decay"] == d)]).cv for d in decays if (came & (t["decay"] == d)).sum() > 1]
    late = t["general"] - t["known"]
    by = {d: late[came & (t["decay"] == d)] for d in decays}
    steps = ", ".join(f"{d:g}: " + (f"{v.mean():.0f}" if len(v) else "never") for d, v in by.items())
    rate = statistics.spearman(np.log(t["decay"][came]), late[came])
    value = statistics.power_law(t["decay"][came], t["norm"][came])
    ways = {
        "norm at the transition within 8% over decays": spread.cv < 0.08,
        "rate set by decay": abs(rate.statistic) > 0.5 and rate.p < 0.05,
        "too much decay prevents": not (came & (t["decay"] == decays[-1])).any(),
    }
    text = (
        f"steps from memorisation to generalisation by decay: {steps}; weight norm there {spread.mean:.1f}, "
        f"CV {100 * spread.cv:.0f}% over decays"
        + (f" ({100 * max(within):.0f}% at most within one)" if within else "")
        + f", exponent in decay {value.slope:+.2f}"
    )
    holds = sum(ways.values())
    why = (
        "; ".join(f"{name}: {'yes' if good else 'no'}" for name, good in ways.items())
        + "; model dependence and depth were not asked"
    )
    return Verdict("grokking.five", P if holds else C, text, why)


def _progress(run: Trajectory) -> Verdict:
    """From memorisation on: is the weight norm monotonically associated with held-out accuracy?"""
    t = transitions(run)
    rhos = []
    for i, known in enumerate(t["known"]):
        use = run.data["time"].values >= known if np.isfinite(known) and np.isfinite(t["general"][i]) else np.array([False])
        if use.sum() > 5:
            use &= run.data["time"].values <= t["general"][i]
            if use.sum() > 5:
                rhos.append(
                    statistics.spearman(
                        run.data["weight_norm"].values[i][use], run.data["test_accuracy"].values[i][use]
                    ).statistic
                )
    found = np.array([r for r in rhos if np.isfinite(r)])
    if len(found) < 2:
        return untestable("grokking.progress", "fewer than two networks generalise after they memorise")
    text = f"Spearman of weight norm and held-out accuracy up to the transition: {found.min():+.2f} to {found.max():+.2f}"
    text += f" over {len(found)} networks"
    one = bool((found > 0).all() or (found < 0).all())
    strong = bool((np.abs(found) > 0.9).all())
    return Verdict(
        "grokking.progress",
        R if one and strong else P if one else C,
        text,
        "monotone is read as |rho| > 0.9 in every network, of one sign",
    )


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(3)
    records = [row.record for row in evidence.studies if row.record is not None]
    if not records:
        for ax in axes.flat:
            figures.nothing(ax)
        return made
    data, t = records[0].data, transitions(records[0])
    decays = list(np.unique(t["decay"]))
    for i in range(data.sizes["lane"]):
        k = decays.index(t["decay"][i])
        how = {"color": _colour(k, len(decays)), "linestyle": STYLES[k % len(STYLES)], "linewidth": 1.1}
        label = f"decay {short(decays[k])}" if list(t["decay"]).index(decays[k]) == i else None
        axes[0, 0].plot(data["time"], data["test_accuracy"][i], label=label, **how)
        axes[0, 1].plot(data["time"], data["weight_norm"][i], **how)
    axes[0, 0].legend(fontsize=7, frameon=False)
    axes[0, 0].set_ylabel("held-out accuracy", fontsize=8)
    axes[0, 1].set_ylabel("weight norm", fontsize=8)
    axes[0, 1].set_yscale("log")
    for ax in axes[0, :2]:
        ax.set_xlabel("step", fontsize=8)
    figures.against(axes[0, 2], decays, [("", [t["norm"][(t["decay"] == d) & np.isfinite(t["norm"])] for d in decays])],
                    "weight norm at generalisation", "decay", logx=True)  # fmt: skip
    figures.titles(axes, "generalisation", "weight norm", "norm at generalisation")
    return made


EXPERIMENT = Experiment(
    name="grokking_parallel",
    title="The parallel with grokking",
    question="Does the weight norm play for delayed generalisation the part that the paper gives to fn for collapse?",
    measures="Steps from memorisation to generalisation and weight norm there, over decays, of a perceptron on modular addition.",
    claims=CLAIMS,
    conditions=conditions,
    judge=judge,
    figure=figure,
)
