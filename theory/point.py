"""The answer to "where does it rest?": the record of a fixed point, the same for every model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Standing = Literal["exact", "asymptotic", "empirical", "numerical"]
Branch = Literal["collapsed", "saddle", "mean mode active", "mean mode inactive", "pairs"]


@dataclass(frozen=True, eq=False, kw_only=True)
class FixedPoint:
    """A rest point of the gradient flow and the quantities measured there.

    Shapes are those of a model with one lane: scalars are Python numbers. With several lanes every numeric
    field is an array with the lanes in front, so that `feature_norm` is (lanes,) and `weight_norms` (lanes,
    M).

    Attributes:
        feature_norm: fn, the mean over samples of |h|, h entering the head; a root mean square where only
            moments of the data are known (then `assumptions` says so).
        weight_norms: (M,) Frobenius norms of W_1..W_M.
        class_mean_norms: (K,) norms of the class means of those features, not centred.
        layer_feature_norms: mean of norms in each layer from H_1 to the penultimate: (M,) for free features,
            (M - 1,) for the outputs of W_1..W_{M-1} on data; for one layer on data (1,), the data themselves.
        class_mean_cosine: mean over pairs of classes of the cosine of the raw class means; nan when none is
            defined.
        bias: (K,) head bias, zeros without one.
        loss: L, decay terms included.
        signal: singular values of the end-to-end map on the active modes, a number when all are equal, else
            descending. Free features: of W_M..W_1 on the class means, 1 where the targets are met. Data: of
            W_M..W_1.
        rank: number of active modes.
        exists: False when every mode has vanished and only the zero solution remains.
        nc1_floor: `nc1_trace_ratio` of the features at rest; 0 for free features, nan at zero.
        stationarity: residual of the stationarity equation relative to the data term; 0 for closed forms.
        branch: which of the roots this is.
        law: name of the formula, a key of `theory.derivations.LAWS`.
        status: "exact", "asymptotic", "empirical" or "numerical" (solved to `stationarity`, no closed form).
        assumptions: sentences.
        source: where the result was first published, as pointers.
        other_roots: further stationary points, without `other_roots` of their own; the saddle branch first.
        modes: (U, z, V), the end-to-end map U diag(z) V^T on its active modes, in the coordinates of
            `theory.linear`; None with several lanes or where the model is not linear.
    """

    feature_norm: Any
    weight_norms: Any
    class_mean_norms: Any
    layer_feature_norms: Any
    class_mean_cosine: Any
    bias: Any
    loss: Any
    signal: Any
    rank: Any
    exists: Any
    nc1_floor: Any
    stationarity: Any = 0.0
    branch: Branch = "collapsed"
    law: str = "mode"
    status: Standing = "exact"
    assumptions: tuple[str, ...] = ()
    source: str = ""
    other_roots: tuple[FixedPoint, ...] = field(default=(), repr=False)
    modes: tuple[Array, Array, Array] | None = field(default=None, repr=False)

    @property
    def formula(self) -> str:
        """The law in LaTeX, printed from its sympy derivation."""
        from theory.derivations import latex

        return latex(self.law)


NUMBERS = tuple(f.name for f in fields(FixedPoint) if f.name not in
                ("branch", "law", "status", "assumptions", "source", "other_roots", "modes"))


def compact(values: Array) -> float | Array:
    """Singular values as one number when they agree to rounding (0 when there are none), else descending."""
    if values.size == 0:
        return 0.0
    return float(values.mean()) if np.ptp(values) <= 1e-12 * values.max() else np.sort(values)[::-1]


def cosine(gram: Array) -> float:
    """Mean cosine over pairs of classes of which neither mean vanishes, from the (K, K) Gram of raw means."""
    norms = np.sqrt(np.clip(np.diag(gram), 0, None))
    live = norms > 0
    i, j = np.triu_indices(int(live.sum()), 1)
    cos = (gram / np.outer(norms, norms).clip(np.finfo(float).tiny))[np.ix_(live, live)][i, j]
    return float(cos.mean()) if cos.size else float("nan")


def stack(points: Sequence[FixedPoint]) -> FixedPoint:
    """One `FixedPoint` with a leading lane axis from one per lane; the point itself if there is only one.

    Sentences are united. A root that some lanes lack is nan in those lanes, with `exists` False.
    """
    if len(points) == 1:
        return points[0]
    branches: list[Branch] = list(dict.fromkeys(root.branch for p in points for root in p.other_roots))
    others = tuple(_join([_root(p, branch) for p in points]) for branch in branches)
    return replace(_join(points), other_roots=others)


def _root(point: FixedPoint, branch: Branch) -> FixedPoint:
    for root in point.other_roots:
        if root.branch == branch:
            return root
    blank: dict[str, Any] = {name: np.full(np.shape(getattr(point, name)), np.nan) for name in NUMBERS}
    return replace(point, **blank | dict(signal=np.nan, rank=0, exists=False), branch=branch, assumptions=())


def _join(points: Sequence[FixedPoint]) -> FixedPoint:
    numbers: dict[str, Any] = {name: np.stack([np.asarray(getattr(p, name)) for p in points])
                               for name in NUMBERS if name != "signal"}
    signals = [np.asarray(p.signal) for p in points]
    if any(s.ndim for s in signals):
        size = max(s.size if s.ndim else p.rank for s, p in zip(signals, points, strict=True))
        signals = [np.pad(s if s.ndim else np.full(p.rank, s), (0, size - (s.size if s.ndim else p.rank)))
                   for s, p in zip(signals, points, strict=True)]
    sentences = tuple(dict.fromkeys(s for p in points for s in p.assumptions))
    worst = max((p.status for p in points), key=("exact", "asymptotic", "empirical", "numerical").index)
    return replace(points[0], **numbers, signal=np.stack(signals), assumptions=sentences, status=worst,
                   other_roots=(), modes=None)
