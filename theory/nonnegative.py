r"""Fixed points with features that a ReLU leaves non-negative.

**One layer, H >= 0.** For every loss that is convex and symmetric in the classes the features are an
orthogonal frame (disjoint supports), not a simplex, and the head is centred. Proof: where the columns of W
sum to zero over classes and h_p >= 0 is a row of the class means,

    sum_k W_k . mu_k = sum_p <W_p, (I - 11^T/K) h_p> <= sqrt((K-1)/K) |W| |M|_F,

because |h_p|^2 >= (1.h_p)^2 fails unless at most one entry is positive, where it is tight. The data loss is
at least its value at x (I - 11^T/K) with x (K - 1) the left side, by convexity and symmetry. So the model is
that of `theory.strength` with lambda_H K/(K-1) in place of lambda_H:

    free bias, squared loss   x = 1 - kappa sqrt(K/(K-1)),  kappa = K sqrt(n lambda_H lambda_W)/(2c)
                              fn^2 = x sqrt((K-1) lambda_W/(K n lambda_H))
    cross-entropy, any bias   x = ln(1/sqrt(n lambda_H lambda_W K/(K-1)) - K + 1)
    no bias, squared loss     that of the signed model, which an orthogonal frame attains: any class sizes
    decayed bias, squared     v = 2c fn^2/(K lambda_W) solves
                              (K-1)/(1+v)^2 + 1/(1+v+2c/lambda_b)^2 = K n lambda_H lambda_W (K/2c)^2

Two classes with a free bias are a family in which the norms of the classes trade off.

**M linear layers above H >= 0** keep the frame in H_1 and make simplices above it. **ReLU layers** (the
outputs of W_1..W_{M-1}) keep orthogonal frames everywhere, which multiplies every decay but the head's by
K/(K-1) where the head is centred. Both are stationary points and local minima, but see `SHARE`.

Sources: Tirer and Bruna 2022; Dang et al. 2024 (ReLU features: orthogonal frame); Sukenik et al. 2024 and
Garrod and Keating 2024 (low rank). The decayed bias and the proof are derived here.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from ncflow.errors import BadInput, require
from ncflow.model import UFM, Decay
from theory import low_rank, strength, ufm
from theory.cross_entropy import LOW_RANK, Array, decays_of
from theory.point import Branch, FixedPoint

SOURCE = ("Tirer and Bruna 2022; Dang et al. 2024 (orthogonal frame of ReLU features); derived here: the "
          "proof for one layer and the bias with decay")
FRAME = "Features H >= 0, every width at least K; unique up to permutations and rotations."
GLOBAL = "The global minimum among H >= 0. Under H = relu(Z) units dead on single samples make others."
LOCAL = "A local minimum; zero is another. None cheaper was found (M = 2, 3; K = 3..5; 8 starts each)."
SHARE = ("A local minimum. States of lower rank can cost less: measured, up to 12% without a bias (K = 10, M = 4), 1.3% with "
         "a free one (M = 2, one class at the origin), 29% under cross-entropy. Which share of starts ends there depends on "
         "their size; report ranks with fn. `theory.low_rank` has one of them, where classes are pairs of units.")


def fixed_point(model: Any, lane: int = 0) -> FixedPoint:
    """The orthogonal-frame fixed point of one lane of a `UFM` with H >= 0 or with ReLU layers.

    Raises:
        BadInput: naming the assumption that fails: `activation`, `nonnegative` (nothing makes the features
            non-negative), `samples_per_class`, `bias`, `classes` or `decay.*`.
    """
    deep = model.activation == "relu" and model.layers > 1
    require(deep or model.activation == "linear", "activation", model.activation, '"linear" or "relu"')
    require(deep or model.nonnegative, "nonnegative", model.nonnegative, "True, or activation = \"relu\"")
    plain = model.loss == "mse" and model.bias == "none" and not deep
    said = (FRAME, *([] if plain else [GLOBAL if model.layers == 1 else SHARE if deep
                                    else LOCAL if model.loss == "mse" else LOW_RANK]))
    found = point(strength.of(model), np.asarray(model.class_counts, dtype=float), decays_of(model, lane),
                  model.bias, float(model.bias_decays[lane]), deep=deep, assumptions=said)
    if deep and low_rank.applies(model):
        with suppress(BadInput):  # beyond its own fold
            found = replace(found, other_roots=(*found.other_roots, low_rank.pairs(model, lane)))
    return found


def point(loss: strength.Square | strength.Softmax, counts: Array, decays: Array, bias: str,
          bias_decay: float = 0.0, *, deep: bool = False, assumptions: tuple[str, ...] = (FRAME, GLOBAL),
          source: str = "") -> FixedPoint:
    """The orthogonal frame from plain parameters.

    Args:
        loss: of `theory.strength`.
        counts: (K,) n_k; unequal ones only for squared loss without a bias.
        decays: (D,) lambda_H, lambda_1, ..., lambda_M.
        bias, bias_decay: "none", "free" or "decayed" by lambda_b > 0.
        deep: ReLU between the layers.
    """
    K, D = loss.classes, len(decays)
    square = isinstance(loss, strength.Square)
    words: dict[str, Any] = dict(status="exact", assumptions=assumptions, source=source or SOURCE)
    if square and bias == "none":
        signed = UFM(classes=K, samples_per_class=[int(n) for n in counts], width=K, layers=D - 1,
                     loss_scale=loss.loss_scale,
                     decay=Decay(weights=(tuple(decays[1:]),), features=float(decays[0])))
        found = ufm.fixed_point(signed, 0)
        return replace(found, assumptions=(*assumptions, *found.assumptions[1:]), source=source or SOURCE,
                       modes=None)
    require(np.ptp(counts) == 0, "samples_per_class", counts.tolist(),
            'equal classes, unless the loss is "mse" and bias = "none"')
    require(K > 2 or bias != "free", "classes", K, "at least 3 with a free bias: two classes share a family "
            "of minima in which their norms trade off")
    if square and bias == "decayed" and bias_decay > 0:
        require(D == 2 or deep, "bias", bias, 'with linear layers above H >= 0: "none" or "free"')
        return _decayed(loss, float(counts[0]), decays, bias_decay, words)
    held = stretch(K, D, deep)
    return strength.collapsed(loss, float(counts[0]), decays, stretch=held, orthogonal=True if deep else held[:-1] > 1,
                              law="frame", **words)


def stretch(K: int, D: int, deep: bool) -> Array:
    """(D,) K/(K-1) for factors that carry an orthogonal frame, 1 for those that carry a simplex; centred head."""
    return np.where(np.arange(D) < (D - 1 if deep else 1), K / (K - 1), 1.0)


def _decayed(loss: strength.Square, n: float, decays: Array, bias_decay: float,
             words: dict[str, Any]) -> FixedPoint:
    """Squared loss and a bias with decay: K modes with the mean mode damped.

    With u = m_pen^2, q = 2c/K, v = q u/lambda_W and r = 1/(1 + v + 2c/lambda_b), the residual of the mean
    mode, balance of the factors below the head reads

        q [(K-1) v/(1+v)^2 + v r^2] = K e,    e = (u n lambda_H lambda_1 .. lambda_{M-1})^{1/(D-1)}.
    """
    K, D, q, lw = loss.classes, len(decays), 2 * loss.loss_scale / loss.classes, decays[-1]
    slack, below = 2 * loss.loss_scale / bias_decay, np.log(n) + np.log(decays[:-1]).sum()

    def gap(s: Any) -> Any:
        """log of the left side over the right at v = e^s; for D = 2 it falls, else it rises first."""
        v = np.exp(s)
        pull = (K - 1) / (1 + v) ** 2 + 1 / (1 + v + slack) ** 2
        return np.log(q * pull / K) + s - (s + np.log(lw / q) + below) / (D - 1)

    low, high = -200.0, 200.0
    grid = np.linspace(low, high, 8001)
    for _ in range(3):
        i = int(np.clip(np.argmax(gap(grid)), 1, len(grid) - 2))
        grid = np.linspace(grid[i - 1], grid[i + 1], 1001)
    upper, lower = (strength.crossing(gap, float(grid[np.argmax(gap(grid))]), end) for end in (high, low))

    def at(s: float, branch: Branch = "collapsed") -> FixedPoint:
        v = 0.0 if np.isnan(s) else np.exp(s)
        u, r = v * lw / q, 1 / (1 + v + slack)
        m, energy = np.sqrt(u), np.exp((np.log(u) + below) / (D - 1)) if v else 0.0
        amplitude = np.sqrt(energy / decays[:-1]) / np.array([np.sqrt(n)] + [1.0] * (D - 2))
        norms = np.cumprod(amplitude) if v else np.zeros(D - 1)
        w, w0, beta = q / lw * m / (1 + v), q / lw * m * r, slack * r / K
        head = np.sqrt((K - 1) * w**2 + w0**2)
        data = loss.loss_scale / K * ((K - 1) / (1 + v) ** 2 + r**2)
        cost = (lw * head**2 + (D - 1) * K * energy + bias_decay * K * beta**2) / 2
        return FixedPoint(
            feature_norm=float(norms[-1]), layer_feature_norms=norms,
            weight_norms=np.append(np.sqrt(K) * amplitude[1:] if v else np.zeros(D - 2), head),
            class_mean_norms=np.full(K, norms[-1]), class_mean_cosine=0.0 if v else float("nan"),
            bias=np.full(K, beta), loss=float(data + cost),
            signal=np.append(np.full(K - 1, v / (1 + v)), m * w0) if v else 0.0, rank=K if v else 0,
            exists=bool(v), nc1_floor=0.0 if v else float("nan"), branch=branch, law="frame_decayed", **words)

    point = at(upper)
    return point if np.isnan(lower) else replace(point, other_roots=(at(lower, "saddle"),))
