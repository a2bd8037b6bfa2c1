r"""Fixed points under a classifier that is a simplex ETF with rows of norm 1 and does not move.

W W^T = (K/(K-1)) P, P = I - 11^T/K: features along the rows of W give logits x P, fn = x (K-1)/K, whatever
the loss. With the head fixed there are D = M factors, H and W_1..W_{M-1}, and one mode costs as in
`theory.strength` with a factor (K-1)/K for the norm of the head,

    x^{1 - 2/D} g(x) = gamma,     gamma^D = n lambda_H prod_{l<M} lambda_l (K-1)/K.

For M = 1 this is g(x) = x n lambda_H (K-1)/K: every sample has a problem of its own, convex except under focal
loss, so that the collapsed state is the only minimum and exists at any decay. Squared loss is linear in x,

    x = 2c/K / (2c/K + n lambda_H (K-1)/K).

The rows of W sum to zero, so no feature reaches the mean of the logits: a bias takes 1/K of it under squared
loss, less by its decay, and none under a softmax loss; without one it stays and the features do not mind.

Sources: Zhu et al. 2021 and Yang et al. 2022 (fixed simplex classifiers); the rest points are derived here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ncflow.errors import require
from ncflow.model import UFM
from theory import strength
from theory.cross_entropy import Array, balanced
from theory.point import Branch, FixedPoint

SOURCE = "Zhu et al. 2021; Yang et al. 2022 (fixed simplex classifier); rest points derived here"
RIDGE = "The only minimum: every sample has a convex problem of its own."
FLAT = "The global minimum; every other stationary point is a saddle."
FOCAL = "The largest root. Focal loss is not convex: other minima are not excluded."
LOCAL = "A local minimum; zero is another, and codes of lower rank are not excluded."


def fixed_point(model: UFM, lane: int = 0) -> FixedPoint:
    """The collapsed fixed point of one lane of a linear `UFM` with classifier = "etf"; the head is not decayed.

    Raises:
        BadInput: naming the assumption that fails: `classifier`, `activation`, `nonnegative`,
            `samples_per_class`, `decay.*`.
    """
    require(model.classifier == "etf", "classifier", model.classifier, '"etf"')
    require(model.activation == "linear", "activation", model.activation, '"linear" below a fixed head')
    require(not model.nonnegative, "nonnegative", True, "False below a fixed head, whose rows are not >= 0")
    lh, lw = float(model.feature_decays[lane]), np.asarray(model.weight_decays[lane], dtype=float)[:-1]
    isolated = "greater than 0: without decay no fixed point is isolated"
    require(lh > 0, "decay.features", lh, isolated)
    require(bool((lw > 0).all()), "decay.weights", lw.tolist(), isolated)
    loss, n, K, decays = strength.of(model), balanced(model), model.classes, np.concatenate([[lh], lw])
    D = len(decays)
    gamma = float(np.exp((np.log(n * (K - 1) / K) + np.log(decays).sum()) / D))
    upper, lower = (_ridge(loss, gamma), np.nan) if D == 1 else map(float, strength.roots(loss, D, gamma))
    bias, mean_cost = _bias(model, lane)

    def at(x: float, branch: Branch = "collapsed") -> FixedPoint:
        energy = x * float(np.exp(loss.log_strength(x))) if x else 0.0  # lambda_i a_i^2 of every factor
        amplitude = np.sqrt(energy / decays)
        norms = np.cumprod(amplitude) * np.sqrt((K - 1) / (K * n))
        return FixedPoint(
            feature_norm=float(norms[-1]), layer_feature_norms=norms,
            weight_norms=np.append(np.sqrt(K - 1) * amplitude[1:], np.sqrt(K)),
            class_mean_norms=np.full(K, norms[-1]), class_mean_cosine=-1 / (K - 1) if x else float("nan"), bias=bias,
            loss=float(loss.value(x)) + mean_cost + (K - 1) * D / 2 * energy, signal=x, rank=K - 1 if x else 0,
            exists=x > 0, nc1_floor=0.0 if x else float("nan"), branch=branch, law="simplex_head", status="exact",
            source=SOURCE, assumptions=("A simplex with rows of norm 1 for a head, fixed and without decay.",
                                        LOCAL if D > 2 else FOCAL if model.loss == "focal" else RIDGE if D == 1 else FLAT))

    point = at(0.0 if np.isnan(upper) else upper)
    return point if np.isnan(lower) else replace(point, other_roots=(at(lower, "saddle"),))


def _ridge(loss: strength.Square | strength.Softmax, gamma: float) -> float:
    """The root of g(x) = gamma x, to the last digits; D = 1."""
    if isinstance(loss, strength.Square):
        pull = 2 * loss.loss_scale / loss.classes
        return pull / (pull + gamma)

    def gap(s: float) -> Any:
        return loss.log_strength(np.exp(s)) - np.log(gamma) - s

    top = np.log(loss.reach) if np.isfinite(loss.reach) else 10 + np.log1p(abs(np.log(gamma)))
    return float(np.exp(strength.crossing(gap, -np.log1p(gamma) - 40, top)))


def _bias(model: UFM, lane: int) -> tuple[Array, float]:
    """(K,) the bias, and what the mean of the logits costs beyond `strength.Square`, which takes a free one."""
    K, c, lb = model.classes, model.loss_scale, float(model.bias_decays[lane])
    if model.loss != "mse":
        return np.zeros(K), 0.0
    if model.bias == "none":
        return np.zeros(K), c / K
    b = 2 * c / K / (2 * c + lb)
    return np.full(K, b), c / K * (1 - K * b) ** 2 + lb / 2 * K * b**2
