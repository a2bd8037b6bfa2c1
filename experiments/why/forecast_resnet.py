"""fn of a ResNet before it is trained: the closed form of its batch-normalised streams, with no constant to fit.

With BatchNorm nothing of the data is left in the fixed point (THEORY 6.5): decay, classes and streams say where fn rests, up to
the shape of the class means, for which the closed form takes the most that is possible, an orthogonal frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.paper.evidence import Evidence
from experiments.paper.expectation import batchnorm_bound
from experiments.paper.experiment import Condition
from experiments.paper.resnets import TITLES, resnet_conditions
from experiments.why.h_m3 import streams
from realnets import TwoPhase


@dataclass(frozen=True, eq=False)
class Expectation:
    """One data set: `fn` (n,) at the end of each seed; the closed form; the mean over the other data sets (NaN if none)."""

    label: str
    fn: np.ndarray
    closed: float
    others: float

    @property
    def error(self) -> float:
        """Of the closed form, relative to the mean of the networks."""
        return float(self.closed / self.fn.mean() - 1)

    @property
    def error_of_others(self) -> float:
        return float(self.others / self.fn.mean() - 1)


def conditions(preset: str) -> tuple[Condition, ...]:
    """The ResNets of other experiments, whose second phase has squared error."""
    return resnet_conditions(preset, tuple(TITLES)) if preset in ("laptop-resnet", "paper") else ()


def expectations(evidence: Evidence) -> list[Expectation]:
    """Of the ResNets among the networks; empty if there are none."""
    found: dict[str, tuple[np.ndarray, float]] = {}
    for row in evidence.present:
        setting = row.condition.setting
        if isinstance(setting, TwoPhase) and setting.architecture == "resnet20":
            fn = np.array([n.last("fn") for n in row.networks])
            closed = batchnorm_bound(setting.second_loss, setting.decays[0], streams=streams(setting))
            found[TITLES[setting.dataset]] = (fn[np.isfinite(fn)], closed)
    means = {label: fn.mean() for label, (fn, _) in found.items() if len(fn)}
    out = []
    for label in means:
        rest = [mean for other, mean in means.items() if other != label]
        out.append(Expectation(label, *found[label], float(np.mean(rest)) if rest else np.nan))
    return out
