"""fn of pairs of network and data set: as the paper takes it, and under one loss."""

from __future__ import annotations

import numpy as np

from experiments.paper.evidence import Evidence, Row
from experiments.paper.networks import Network


def fn_under(net: Network, loss: str, threshold: float) -> float:
    """fn of a network under one loss: at T_NC if that fell in its phase, else at the end of it; NaN without such a phase."""
    phase = next((k for k in (2, 1) if net.losses[k] == loss and (net.phase == k).any()), None)
    if phase is None:
        return np.nan
    _, fn, _ = net.in_phase(phase)
    onset = net.onset(threshold)
    return onset.fn if onset.phase == phase else float(fn[-1]) if len(fn) else np.nan


class Pairs:
    """fn of every pair of the evidence: `star` as the paper takes it, `under` one loss, `phases` in which T_NC fell."""

    def __init__(self, evidence: Evidence):
        self.rows: dict[tuple[str, str], Row] = {}
        self.alone: dict[tuple[str, str], Row] = {}
        self.others: dict[tuple[str, str], Row] = {}
        for row in evidence.present:
            about = row.condition.parameters
            kept = self.others if "optimiser" in about else self.rows if about["loss"] == "mse" else self.alone
            kept[about["architecture"], about["dataset"]] = row
        self.times = {pair: row.times(every=evidence.cadence) for pair, row in self.rows.items()}

    def star(self, pair: tuple[str, str]) -> float:
        fn = self.times[pair].fn_star if pair in self.times else np.array([])
        return float(fn.mean()) if len(fn) else np.nan

    def phases(self, pair: tuple[str, str]) -> set[int]:
        return {int(k) for k in self.times[pair].phase if k} if pair in self.times else set()

    def under(self, pair: tuple[str, str], loss: str) -> float:
        """Mean over seeds; also from cross-entropy alone, where there are such runs."""
        for kept in (self.alone, self.rows) if loss == "cross_entropy" else (self.rows,):
            if pair in kept:
                row = kept[pair]
                v = np.array([fn_under(n, loss, row.condition.threshold) for n in row.networks])
                if np.isfinite(v).any():
                    return float(np.nanmean(v))
        return np.nan


MM, MC, RM, RC = ("mlp", "mnist"), ("mlp", "cifar10"), ("resnet20", "mnist"), ("resnet20", "cifar10")
