"""Lead time: does fn fall below fn* before NC1 falls below its threshold, and does that predict when? (The paper's section 5.6.)

A run that crosses only after T_NC, or never, counts: in it the rule was late, and its error is that of the prediction it leads
to, or, where there is none, the distance of T_NC from the end of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from experiments.paper import figures, width
from experiments.paper.evidence import Evidence
from experiments.paper.experiment import Experiment, Verdict
from experiments.paper.networks import Network
from experiments.paper.verdicts import C, P, R, missing, value
from experiments.published import published

CLAIMS = ("lead.order", "lead.mean", "lead.error", "later.early_warning", "later.early_warning_loss", "later.lead_all")


@dataclass(frozen=True, eq=False)
class Leads:
    """Of n runs that collapsed.

    Attributes:
        label: how thresholds were chosen.
        t_nc, cross: (n,) T_NC; first epoch of phase 2 with fn below the threshold of the run, NaN if never.
        error: (n,) of the rule "crossing + mean lead of the runs that the threshold came from".
        constant: (n,) of predicting T_NC by the mean of those runs.
    """

    label: str
    t_nc: np.ndarray
    cross: np.ndarray
    error: np.ndarray
    constant: np.ndarray

    @property
    def first(self) -> int:
        """Runs in which fn crossed before T_NC."""
        return int((self.cross < self.t_nc).sum())

    @property
    def lead(self) -> np.ndarray:
        """Of the runs that crossed at all, also those that crossed too late."""
        return (self.t_nc - self.cross)[np.isfinite(self.cross)]

    def __str__(self) -> str:
        lead = self.lead
        spread = f"{lead.mean():.0f} ± {lead.std(ddof=1):.0f}" if len(lead) > 1 else "–"
        return (f"{self.label}: first in {self.first} of {len(self.t_nc)}, lead {spread}, error {np.abs(self.error).mean():.0f} "
                f"(mean T_NC instead: {np.abs(self.constant).mean():.0f})")  # fmt: skip


def leads(evidence: Evidence, signal: str = "fn") -> tuple[Leads, Leads, Leads] | None:
    """With the threshold of each width (in sample), leaving one seed out, and leaving one width out; None where fewer than two
    runs of two widths collapsed. A width with one run has no mean of its own, and is left out.

    Args:
        signal: what warns, by falling below its value at T_NC: "fn", or "mse", the training loss.
    """
    runs: list[tuple[int, Network, float, float]] = []
    for row in evidence.present:
        for net in row.networks:
            seen = net if evidence.cadence is None else net.at_cadence(evidence.cadence)
            onset = seen.onset(0.01, phase=2)
            if onset.happened and signal in seen.values:
                at = float(seen.values[signal][seen.time == onset.t_nc][0])
                runs.append((int(row.condition.parameters["width"]), seen, onset.t_nc, at))
    counts = {w: sum(w == v for v, *_ in runs) for w, *_ in runs}
    runs = [r for r in runs if counts[r[0]] > 1]
    if sum(n > 1 for n in counts.values()) < 2:
        return None
    return (_leads("threshold of each width", signal, runs, lambda i, j: runs[i][0] == runs[j][0]),
            _leads("one seed left out", signal, runs, lambda i, j: i != j and runs[i][0] == runs[j][0]),
            _leads("one width left out", signal, runs, lambda i, j: runs[i][0] != runs[j][0]))  # fmt: skip


def _crossing(net: Network, signal: str, threshold: float) -> float:
    """First epoch of phase 2 with the signal below the threshold; NaN if there is none."""
    below = np.flatnonzero((net.phase == 2) & (net.values[signal] < threshold))
    return float(net.time[below[0]]) if len(below) else np.nan


def _leads(label: str, signal: str, runs: list[tuple[int, Network, float, float]], uses: Callable[[int, int], bool]) -> Leads:
    t_nc = np.array([t for *_, t, _ in runs])
    cross, error, constant = (np.full(len(runs), np.nan) for _ in range(3))
    for i, (_, net, when, _) in enumerate(runs):
        others = [j for j in range(len(runs)) if uses(i, j)]
        threshold = float(np.mean([runs[j][3] for j in others]))
        cross[i] = _crossing(net, signal, threshold)
        known = np.array([runs[j][2] - _crossing(runs[j][1], signal, threshold) for j in others])
        lead = float(np.nanmean(known)) if np.isfinite(known).any() else 0.0
        end = float(net.time[-1])
        error[i] = (cross[i] + lead if np.isfinite(cross[i]) else end) - when
        constant[i] = float(np.mean([runs[j][2] for j in others if j != i])) - when
    return Leads(label, t_nc, cross, error, constant)


def judge(evidence: Evidence) -> list[Verdict]:
    found = leads(evidence)
    if found is None:
        return missing(CLAIMS[:3], evidence)
    inside, seed, other = found
    n = len(inside.t_nc)
    text = f"{inside}; {seed}; {other}"
    theory = (
        "in the linear model fn settles first only if the head decays faster than the features; it approaches from above without "
        "crossing its limit"
    )
    first = [leads.first for leads in found]
    order = Verdict("lead.order", R if all(k == n for k in first) else P if first[1] > n / 2 else C, text,
                    f"in all runs is the claim; out of sample it is {seed.first} of {n}", theory)  # fmt: skip
    theirs = published().claim("lead.mean").values
    mean = value(
        "lead.mean",
        evidence,
        float(inside.lead.mean()) if len(inside.lead) else np.nan,
        theirs["lead"].mean.value,
        "lead",
        form=".0f",
    )
    skill = float(np.abs(seed.error).mean() / np.abs(seed.constant).mean())
    error = float(np.abs(seed.error).mean())
    better = skill < 1
    mae = published().claim("lead.error").values["mae"].value
    judgement = (R if error <= mae * 1.08 and better else P if better else C) if evidence.full else (P if better else C)
    rule = Verdict("lead.error", judgement, text,
                   f"out of sample the rule's error is {skill:.2f} times that of the mean T_NC of the other seeds"
                   + (f"; published {mae:.0f} in sample" if evidence.full else ""))  # fmt: skip
    late = published().claim("later.lead_all").values["lead"].mean.value
    return [
        order,
        mean,
        rule,
        value("later.lead_all", evidence, float(inside.lead.mean()) if len(inside.lead) else np.nan, late, "lead", form=".0f"),
        *_early_warning(evidence, seed),
    ]


def _early_warning(evidence: Evidence, seed: Leads) -> list[Verdict]:
    """The authors' later benchmark, leaving one seed out: fn warns no sooner than T_NC, the training loss 232 epochs before."""
    share, lead = seed.first / len(seed.t_nc), seed.lead
    if len(lead) < 2:
        return []
    spread = float(lead.std(ddof=1))
    weak = share < 0.9 and abs(lead.mean()) < spread
    found = [
        Verdict(
            "later.early_warning",
            R if weak else P if share < 0.9 else C,
            f"{seed}",
            "read as: out of sample fn is first in fewer than 90% of runs, with a lead smaller than its spread",
        )
    ]
    loss = leads(evidence, "mse")
    if loss is not None and len(loss[1].lead) > 1:
        found.append(
            Verdict(
                "later.early_warning_loss",
                R if loss[1].lead.mean() > loss[1].lead.std(ddof=1) else C,
                f"training loss within phase 2: {loss[1]}",
                "a lead is read as one that exceeds its spread; a threshold from "
                "squared error that cross-entropy already passes in phase 1 warns of nothing",
            )
        )
    return found


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(3)
    figures.curves(
        axes[0, 0], evidence.rows, lambda n: np.where(n.phase == 2, n.fn, np.nan), "fn in phase 2", onset=True, legend=True
    )
    for ax, body in ((axes[0, 1], evidence), (axes[0, 2], logs)):
        found = leads(body) if body is not None else None
        if found is None:
            figures.nothing(ax)
            continue
        for k, each in enumerate(found):
            ax.plot(
                each.cross,
                each.t_nc,
                "osD"[k],
                markersize=5,
                markerfacecolor=("black", "none", "0.7")[k],
                color="black",
                label=each.label,
            )
            never = ~np.isfinite(each.cross)
            if never.any():
                low = float(each.t_nc.min())
                ax.plot(np.full(never.sum(), low), each.t_nc[never], "x", color="black", markersize=6)
        low, high = float(found[0].t_nc.min()), float(found[0].t_nc.max())
        ax.plot([low * 0.8, high], [low * 0.8, high], color="0.4", linewidth=0.8)
        ax.set_xlabel("epoch at which fn crosses (x: never)", fontsize=8)
        ax.set_ylabel("T_NC", fontsize=8)
        ax.legend(fontsize=7, frameon=False)
    figures.titles(axes, "fn in phase 2 (mark: T_NC)", "crossing against T_NC", "the same, published logs")
    return made


EXPERIMENT = Experiment(
    name="lead_time",
    title="Lead time: fn as a warning of collapse",
    question="Does fn fall below its value at collapse before collapse, and does that predict when?",
    measures="Crossing of fn, T_NC and the error of the paper's rule: in sample, leaving one seed out, leaving one width out; "
    "every run that collapsed counts.",
    claims=CLAIMS,
    conditions=width.conditions,
    table=7,
    logs=width.logs,
    judge=judge,
    figure=figure,
)
