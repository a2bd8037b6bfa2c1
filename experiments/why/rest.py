"""What the hypotheses are judged by: fn at rest, its spread, and how numbers are told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from experiments import statistics
from experiments.paper.evidence import Evidence, Row
from experiments.paper.experiment import Judgement
from experiments.paper.networks import Network
from experiments.paper.verdicts import SAME, C, P, R
from experiments.sweeps.study import Study
from ncflow import Trajectory


def final(net: Network) -> float:
    """fn at rest; of a lane that did not come to rest, or had no third stage, its last value."""
    if np.isfinite(net.fn_inf):
        return net.fn_inf
    kept = net.end.get("rest", {})
    return float(kept["fn"]) if "fn" in kept and np.isfinite(kept["fn"]) else net.last("fn")


def finals(row: Row | None) -> np.ndarray:
    """(n,) `final` of a condition's networks, those that are finite."""
    values = np.array([final(n) for n in row.networks] if row is not None else [])
    return values[np.isfinite(values)]


def resting(rows: Iterable[Row]) -> str:
    """How many of the networks came to rest."""
    nets = [n for row in rows for n in row.networks]
    return f"{sum(bool(np.isfinite(n.fn_inf)) for n in nets)} of {len(nets)} networks at rest by the third stage"


def norm_product(net: Network) -> float:
    """fn |W_head|_F at the very end, NaN where it was not measured."""
    kept = net.end.get("rest", {})
    return float(kept["norm_product"]) if "norm_product" in kept else net.last("norm_product")


def told(values: ArrayLike, form: str = ".3f") -> str:
    """ "1.234 [1.2, 1.3]": mean and its 95% t-interval."""
    x = np.asarray(values, float)
    x = x[np.isfinite(x)]
    if not len(x):
        return "–"
    if len(x) < 2:
        return format(x.mean(), form)
    interval = statistics.t_interval(x)
    return f"{x.mean():{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def percent(values: ArrayLike) -> str:
    """`told` of relative errors."""
    x = 100 * np.asarray(values, float)
    return told(x, "+.1f") + "%"


def same(a: ArrayLike, b: ArrayLike, *, margin: float = SAME) -> Judgement | None:
    """Is the mean of a shown to be within `margin` of that of b (R), shown to be beyond it (C), or neither (P)? None for fewer
    than two values."""
    x, y = np.asarray(a, float), np.asarray(b, float)
    if min(len(x), len(y)) < 2:
        return None
    found = statistics.difference(x, y)
    bound = margin * float(y.mean())
    if statistics.equivalence(found, bound).equivalent:
        return R
    return C if min(abs(found.low), abs(found.high)) > bound and found.low * found.high > 0 else P


def agreed(parts: Sequence[Judgement | None]) -> Judgement | None:
    """All of the parts that can say: one judgement, or in part; None if none can."""
    kinds = {part for part in parts if part is not None}
    return None if not kinds else kinds.pop() if len(kinds) == 1 else P


def simulated(evidence: Evidence, kind: type[Study]) -> list[Trajectory]:
    """Records of the studies of one class that are there."""
    return [row.record for row in evidence.studies if row.record is not None and isinstance(row.condition.setting, kind)]


def bootstrap(groups: Sequence[np.ndarray], statistic, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Percentile interval (95%) of statistic(groups), each group resampled for itself, seeded (Efron 1979).

    Args:
        statistic: (list of (resamples, n_i) arrays) -> (resamples,), over all resamples at once.
    """
    rng = np.random.default_rng(seed)
    drawn = [g[rng.integers(0, len(g), (resamples, len(g)))] for g in groups]
    low, high = np.nanquantile(statistic(drawn), [0.025, 0.975])
    return float(low), float(high)
