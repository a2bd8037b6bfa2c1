r"""The NC1 that decay leaves behind when features are tied to data: too much decay prevents NC1 < epsilon.

At rest the penultimate features of a linear network on X are H = S^{1-1/M} V^T X (M >= 2). Where X can
interpolate the targets (more inputs than samples), stationarity

    (2c/N)(A X - Y) X^T + lambda (A A^T)^{1/M-1} A = 0

makes their deviations from the class means exactly

    H Pi_w = -(N lambda/2c) S^{1/M-1} V^T X (X^T X)^+ Pi_w,     Pi_w the projector on within-class deviations,

and S, V tend to those of the interpolant A_0 = Y X^+, so that NC1 ~ coefficient * lambda^2 for small decay. A
free bias centres X and Y. `Isotropic` data have NC1 = (v2/r^2) R/(K-1), R the number of modes, at any decay
and depth. Other data have a positive limit. Exact up to the expansion of A; derived here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ncflow.errors import BadInput, require
from ncflow.model import UFM, DeepLinear, Isotropic
from theory.aligned import crossing
from theory.boundary import Boundary, fold
from theory.point import Standing, stack
from theory.rest import Array, points, require_linear

SOURCE = "derived here; fixed point: Dai, Karzand and Srebro 2021"


@dataclass(frozen=True, eq=False, kw_only=True)
class Floor:
    """NC1 (`nc1_trace_ratio`) of the features at rest; numbers, or (lanes,).

    Attributes:
        nc1: at the model's decays, from its fixed point.
        limit: for vanishing decay.
        coefficient: nc1 ~ coefficient * decay^2 where `limit` is 0; nan elsewhere.
        law, status, assumptions, source: as in `FixedPoint`; the status is that of `nc1`, `coefficient` is
            always asymptotic.
    """

    nc1: Any
    limit: float
    coefficient: float
    law: str
    status: Standing
    assumptions: tuple[str, ...] = ()
    source: str = SOURCE

    @property
    def formula(self) -> str:
        """The law in LaTeX."""
        from theory.derivations_dynamics import latex

        return latex(self.law)


def floor(model: UFM | DeepLinear) -> Floor:
    """The NC1 floor of `model`; 0 for free features.

    Raises:
        BadInput: a loss, activation or constraint for which it is not known.
    """
    require_linear(model, "the floor")
    if isinstance(model, UFM):
        zero = 0.0 if model.lanes == 1 else np.zeros(model.lanes)
        return Floor(nc1=zero, limit=0.0, coefficient=0.0, law="floor", status="exact",
                     assumptions=("Free features leave their class means nothing to stop them.",))
    here = stack(list(points(model)))
    if isinstance(model.inputs, Isotropic) or model.layers == 1:
        limit = float(next(points(replace(model, decay=0.0))).nc1_floor)
        said = ("Independent of decay and depth (M >= 2).",) if model.layers > 1 else ("NC1 of the data.",)
        return Floor(nc1=here.nc1_floor, limit=limit, coefficient=0.0 if limit == 0 else float("nan"),
                     law="floor_isotropic", status="exact", assumptions=said + here.assumptions)
    coefficient = _coefficient(model)
    if coefficient is None:
        limit = float(next(points(replace(model, decay=0.0))).nc1_floor)
        return Floor(nc1=here.nc1_floor, limit=limit, coefficient=float("nan"), law="floor_limit",
                     status=here.status, assumptions=here.assumptions)
    return Floor(nc1=here.nc1_floor, limit=0.0, coefficient=coefficient, law="floor", status=here.status,
                 assumptions=(*here.assumptions, "The data are interpolated at vanishing decay."))


def _coefficient(model: DeepLinear) -> float | None:
    """lim NC1/lambda^2, or None where the targets cannot be interpolated."""
    X, Y = np.asarray(model.inputs), np.eye(model.classes)[:, model.labels]
    N, counts = model.samples, np.asarray(model.class_counts, dtype=float)
    if model.bias == "decayed":
        return None  # the interpolant then shares the targets between map and bias
    if model.bias == "free":
        X, Y = (a - a.mean(axis=1, keepdims=True) for a in (X, Y))
    inverse = np.linalg.pinv(X, rcond=1e-10)
    A = Y @ inverse
    if np.abs(A @ X - Y).max() > 1e-8:
        return None
    _, s, Vt = np.linalg.svd(A, full_matrices=False)
    live = s > 1e-10 * s[0]
    s, Vt, M = s[live], Vt[live], model.layers
    means = np.add.reduceat(X, np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int), axis=1) / counts

    def apart(rows: Array) -> Array:
        sums = np.add.reduceat(rows, np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int), axis=1)
        return rows - (sums / counts)[:, model.labels]

    within = s[:, None] ** (1 / M - 1) * (Vt @ apart(inverse.T))
    H = s[:, None] ** (1 - 1 / M) * (Vt @ means)
    between = np.mean(np.sum((H - (H @ counts / N)[:, None]) ** 2, axis=0))
    return float((N / (2 * model.loss_scale)) ** 2 * np.sum(within**2) / N / between)


def floor_boundary(model: UFM | DeepLinear, threshold: float = 0.01) -> Boundary:
    """The decay above which NC1 < `threshold` is out of reach: where the floor crosses it, or the fold.

    0 where the floor starts above `threshold` at vanishing decay; numerical, the first crossing from there,
    located to 1e-9. About sqrt(threshold/coefficient) where the data are interpolated.

    Raises:
        BadInput: as `floor`, or a threshold outside (0, 1), or free features (their limit is the fold).
    """
    require_linear(model, "the floor")
    if not isinstance(model, DeepLinear):
        raise BadInput("model", type(model), "a DeepLinear: free features have no floor")
    require(0 < threshold < 1, "threshold", threshold, "between 0 and 1")
    low = floor(replace(model, decay=0.0))

    def at(lam: float) -> Any:
        return next(points(replace(model, decay=float(lam))))

    words: dict[str, Any] = dict(law="floor_boundary", source=SOURCE)
    if low.limit >= threshold:
        return _made(model, 0.0, at(0.0).signal, "exact" if low.status == "exact" else "numerical",
                     "The floor is above the threshold already at vanishing decay.", words)
    if low.law == "floor_isotropic":
        end = fold(replace(model, decay=1e-3), first=True)
        return _made(model, end.decay, end.signal, end.status, "The floor is below at any decay.", words)
    full = at(0.0).rank

    def gap(logarithm: float) -> float:
        return float(np.log(at(np.exp(logarithm)).nc1_floor / threshold))

    bottom = 0.1 * float(np.sqrt(threshold / low.coefficient)) if low.coefficient > 0 else 1e-9
    while gap(np.log(bottom)) > 0:
        bottom /= 10
    top = 2 * bottom
    while at(top).rank == full and gap(np.log(top)) < 0:
        bottom, top = top, 2 * top
    if at(top).rank < full:
        end = fold(replace(model, decay=1e-3), first=True)
        top = end.decay * (1 - 1e-4)
        if at(top).rank < full or gap(np.log(top)) < 0:
            return _made(model, end.decay, end.signal, end.status, "The fold comes first.", words)
    lam = float(np.exp(crossing(gap, float(np.log(bottom)), float(np.log(top)))))
    return _made(model, lam, at(lam).signal, "numerical", "The floor crosses the threshold.", words)


def _made(model: DeepLinear, decay: float, signal: Any, status: Standing, said: str, words: Any) -> Boundary:
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = decay / model.decays
    return Boundary(decay=decay, factor=float(factor[0]) if len(factor) == 1 else factor,
                    product=decay**model.layers, signal=signal, modes=np.array([decay]), status=status,
                    assumptions=(said,), **words)
