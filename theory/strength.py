r"""One equation for every loss: how hard a collapsed classifier is pulled, against how hard decay holds it.

Balanced classes at rest have centred logits x (I - 11^T/K), so a loss is a curve l(x) of one signal x. Its
pull on each of the K - 1 modes is the *strength* g(x) = -l'(x)/(K - 1), the probability left on one wrong
class for cross-entropy and (2c/K)(1 - x) for squared loss. D balanced factors share the decay, whose cost per
mode is (D/2) gamma x^{2/D}, so that a rest point solves

    x^{1 - 2/D} g(x) = gamma,     gamma^D = n lambda_H prod_l lambda_l,

`theory.mode` being the case of squared loss in other units. For D = 2 it reads g(x) = gamma. The left side
rises to a fold and falls again (from the start for D = 2, except under focal loss), so there are two roots
below the fold, the upper a minimum of the mode's loss and the lower a maximum. Derived in
`theory.derivations_nonlinear`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from ncflow.errors import BadInput, require
from theory.point import Branch, FixedPoint

Array = NDArray[np.float64]


class Loss(Protocol):
    """A loss on centred logits x (I - 11^T/K), elementwise in x."""

    @property
    def classes(self) -> int: ...

    @property
    def reach(self) -> float:
        """Signal at which the strength vanishes."""
        ...

    def value(self, x: Any) -> Array:
        """Mean loss per sample, without decay."""
        ...

    def log_strength(self, x: Any) -> Array: ...

    def slope(self, x: Any) -> Array:
        """-d log g/dx: the curvature of one sample's loss towards its own class is K g times this."""
        ...

    def spread(self, x: Any) -> Array:
        """The curvature of one sample's loss in the K - 2 directions that leave its own logit, over g."""
        ...

    def inverse(self, gamma: Any) -> Array | None:
        """The signal of strength gamma, nan where there is none; None if that is no elementary formula."""
        ...


@dataclass(frozen=True)
class Square:
    """(c/N)|WH + b1^T - Y|^2 with the mean mode left to a free bias: g = (2c/K)(1 - x)."""

    classes: int
    loss_scale: float = 0.5
    reach = 1.0

    def value(self, x: Any) -> Array:
        return self.loss_scale * (self.classes - 1) / self.classes * (1 - np.asarray(x)) ** 2

    def log_strength(self, x: Any) -> Array:
        return np.log(2 * self.loss_scale / self.classes) + np.log1p(-np.asarray(x))

    def slope(self, x: Any) -> Array:
        return 1 / (1 - np.asarray(x))

    def spread(self, x: Any) -> Array:
        return self.classes / (1 - np.asarray(x))

    def inverse(self, gamma: Any) -> Array:
        x = 1 - np.asarray(gamma) * self.classes / (2 * self.loss_scale)
        return np.where(x > 0, x, np.nan)


@dataclass(frozen=True)
class Softmax:
    r"""Cross-entropy, label smoothing and focal loss of the softmax, p = e^x/(e^x + K - 1):

        cross-entropy     g = 1/(e^x + K - 1)
        label smoothing   g = 1/(e^x + K - 1) - a/K            targets (1 - a) e_y + a/K
        focal             g = [(1-p)^f - f (1-p)^{f-1} p ln p] (1-p)/(K-1)      loss -(1-p)^f ln p
    """

    classes: int
    smoothing: float = 0.0
    focal_gamma: float = 0.0

    def __post_init__(self) -> None:
        require(self.classes >= 2, "classes", self.classes, "at least 2")
        require(0 <= self.smoothing < 1, "smoothing", self.smoothing, "in [0, 1)")
        require(self.focal_gamma >= 0, "focal_gamma", self.focal_gamma, "not negative")
        require(not (self.smoothing and self.focal_gamma), "focal_gamma", self.focal_gamma,
                "0 with label smoothing: one of the two")

    @property
    def reach(self) -> float:
        K, a = self.classes, self.smoothing
        return float(np.log(K / a - K + 1)) if a else np.inf

    def _miss(self, x: Any) -> tuple[Array, Array, Array]:
        """-log p, 1 - p and log (1 - p)."""
        x = np.asarray(x, dtype=float)
        rest = np.log(self.classes - 1.0)
        cost = np.logaddexp(0, rest - x)
        log_q = -np.logaddexp(0, x - rest)
        return cost, np.exp(log_q), log_q

    def value(self, x: Any) -> Array:
        cost, q, _ = self._miss(x)
        if self.focal_gamma:
            return q**self.focal_gamma * cost
        return cost + self.smoothing * (self.classes - 1) / self.classes * np.asarray(x)

    def log_strength(self, x: Any) -> Array:
        cost, q, log_q = self._miss(x)
        log_g = log_q - np.log(self.classes - 1.0)
        if self.focal_gamma:
            return log_g + self.focal_gamma * log_q + np.log1p(
                self.focal_gamma * (1 - q) * cost / np.maximum(q, 1e-300))
        if self.smoothing:
            with np.errstate(divide="ignore", invalid="ignore"):
                return log_g + np.log(-np.expm1(np.log(self.smoothing / self.classes) - log_g))
        return log_g

    def slope(self, x: Any) -> Array:
        cost, q, _ = self._miss(x)
        p, f = 1 - q, self.focal_gamma
        if f:
            return (f + 1) * p - f * p * (cost - q) / (q + f * p * cost)
        return p * self.spread(x)

    def spread(self, x: Any) -> Array:
        if not self.smoothing:
            return np.ones(np.shape(x))
        g = self._miss(x)[1] / (self.classes - 1)
        return g / (g - self.smoothing / self.classes)

    def inverse(self, gamma: Any) -> Array | None:
        if self.focal_gamma:
            return None
        K, gamma = self.classes, np.asarray(gamma, dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            top = 1 / (gamma + self.smoothing / K) - K
            return np.where(top > 0, np.log1p(top), np.nan)


def of(model: Any) -> Square | Softmax:
    """The loss of `model`, by its fields `loss`, `loss_scale`, `smoothing` and `focal_gamma`."""
    if model.loss == "mse":
        return Square(model.classes, model.loss_scale)
    smoothing, gamma = (float(getattr(model, name, 0.0)) for name in ("smoothing", "focal_gamma"))
    if model.loss == "cross_entropy":
        return Softmax(model.classes)
    if model.loss == "label_smoothing":
        return Softmax(model.classes, smoothing=smoothing)
    if model.loss == "focal":
        return Softmax(model.classes, focal_gamma=gamma)
    raise BadInput("loss", model.loss, "mse, cross_entropy, label_smoothing or focal")


def _force(loss: Loss, degree: int, s: Array) -> Array:
    """log of the left side at x = e^s."""
    return loss.log_strength(np.exp(s)) + (1 - 2 / degree) * s


def fold(loss: Loss, degree: int) -> tuple[float, float]:
    """(x, gamma) where the two roots meet, for D = 2 where the signal vanishes unless the strength rises
    first."""
    require(degree >= 2, "degree", degree, "at least 2 factors")
    power = 1 - 2 / degree
    if power == 0 and loss.slope(1e-9) >= 0:
        return 0.0, float(np.exp(loss.log_strength(0.0)))
    high = np.log(loss.reach) if np.isfinite(loss.reach) else np.log(50.0 + 10 * np.log(loss.classes))
    s = float(_bisect(lambda s: power - np.exp(s) * loss.slope(np.exp(s)), np.array(-30.0), np.array(high)))
    return float(np.exp(s)), float(np.exp(_force(loss, degree, np.array(s))))


def roots(loss: Loss, degree: int, gamma: ArrayLike) -> tuple[Array, Array]:
    """Upper and lower root x, nan where there is none; the shape of `gamma`.

    Elementary for D = 2 except under focal loss; otherwise to the last digits of x.
    """
    gamma = np.asarray(gamma, dtype=float)
    elementary = loss.inverse(gamma) if degree == 2 else None
    if elementary is not None:
        return elementary, np.full(gamma.shape, np.nan)
    top, limit = fold(loss, degree)
    inside = (gamma > 0) & (gamma < limit)
    target = np.log(np.where(inside, gamma, limit / 2))
    power, start = 1 - 2 / degree, np.log(top) if top else -30.0
    high = np.log(loss.reach) if np.isfinite(loss.reach) else np.log(
        2 * (np.abs(target) + 10 + (1 + getattr(loss, "focal_gamma", 0)) * np.log(loss.classes)))

    def gap(s: Array) -> Array:
        return _force(loss, degree, s) - target

    upper = _bisect(gap, np.full(gamma.shape, start), np.broadcast_to(high, gamma.shape))
    low = (target - np.log(limit)) / power + np.log(top) - 5 / power if power else np.full(gamma.shape, -30.0)
    lower = _bisect(lambda s: -gap(s), low, np.full(gamma.shape, start))
    exists = inside & (gap(low) < 0)
    return np.where(inside, np.exp(upper), np.nan), np.where(exists, np.exp(lower), np.nan)


def crossing(gap: Callable[[float], float], low: float, high: float) -> float:
    """Where `gap` changes sign between `low` and `high`; nan where it has one sign at both."""
    if not gap(low) * gap(high) < 0:
        return float("nan")
    return float(brentq(gap, low, high, xtol=1e-15, maxiter=500))  # pyright: ignore[reportArgumentType]


def _bisect(gap: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Where `gap` falls through zero between `low` and `high`."""
    low, high = np.array(low, dtype=float), np.array(high, dtype=float)
    for _ in range(70):
        middle = (low + high) / 2
        up = gap(middle) > 0
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    return (low + high) / 2


def collapsed(loss: Loss, n: float, decays: Array, *, stretch: ArrayLike = 1.0,
              orthogonal: ArrayLike = False, **words: Any) -> FixedPoint:
    """The rest point whose logits are x (I - 11^T/K), its saddle among `other_roots`.

    Args:
        n: samples per class.
        decays: (D,) lambda_H, lambda_1, ..., lambda_M, all positive.
        stretch: (D,) |factor|_F^2 over the sum of squares of its K - 1 signal amplitudes: K/(K-1) where it
            carries an orthogonal frame, which has K modes of which the logits use K - 1.
        orthogonal: (M,) whether the features of that layer are an orthogonal frame rather than a simplex.
        words: `law`, `status`, `assumptions`, `source` of the record.
    """
    D, K = len(decays), loss.classes
    stretch, orthogonal = np.broadcast_to(stretch, D), np.broadcast_to(orthogonal, D - 1)
    gamma = float(np.exp((np.log(n) + np.log(decays * stretch).sum()) / D))
    upper, lower = (float(x) for x in roots(loss, D, gamma))
    bias = np.full(K, 1 / K if isinstance(loss, Square) else 0.0)

    def at(x: float, branch: Branch = "collapsed") -> FixedPoint:
        energy = gamma * x ** (2 / D)  # lambda_i w_i^2 of every factor
        amplitude = np.sqrt(energy / (decays * stretch))
        reach = np.cumprod(amplitude[:-1]) / np.sqrt(n)
        norms = reach * np.where(orthogonal, 1.0, np.sqrt(1 - 1 / K))
        cosine = (0.0 if orthogonal[-1] else -1 / (K - 1)) if x else np.nan
        return FixedPoint(
            feature_norm=float(norms[-1]), layer_feature_norms=norms,
            weight_norms=(np.sqrt((K - 1) * stretch) * amplitude)[1:], class_mean_norms=np.full(K, norms[-1]),
            class_mean_cosine=cosine, bias=bias, loss=float(loss.value(x) + (K - 1) * D / 2 * energy),
            signal=x, rank=0 if not x else K if orthogonal[-1] else K - 1, exists=x > 0,
            nc1_floor=0.0 if x else float("nan"), branch=branch, **words)

    point = at(0.0 if np.isnan(upper) else upper)
    return point if np.isnan(lower) else replace(point, other_roots=(at(lower, "saddle"),))
