r"""How far decay can grow before the collapsed state is gone, for every loss and constraint that has a rest point.

The equation of `theory.strength`, x^{1 - 2/D} g(x) = gamma, has a root up to the largest value of its left side, and
gamma is proportional to the decays, all scaled together. For D = 2 the signal vanishes there, at gamma = g(0)
(cross-entropy: 1/K; label smoothing: (1 - a)/K; focal loss can have its largest value later); for more factors it
is a fold. A frozen head over free features is ridge regression per sample and never ends. Under H >= 0 with a
decayed bias, whose decay acts on one mode alone, the end is found by bisection. Exact; the law is the derivative of
the left side, `theory.derivations_nonlinear`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ncflow.model import UFM, Decay
from theory import nonnegative, strength
from theory.boundary import Boundary, fold
from theory.cross_entropy import decays_of

#: Logarithm of the largest multiple of the decays at which an end is looked for.
FARTHEST = 60.0


def tension(model: UFM, lane: int = 0) -> tuple[strength.Square | strength.Softmax, int, float] | None:
    """(loss, D, gamma) of a lane whose rest point is one of `theory.strength`; None where the modes have more than one gamma.

    The model is taken to have a fixed point.
    """
    loss, K = strength.of(model), model.classes
    n = float(model.class_counts[0])
    if model.classifier == "etf":
        decays, stretch = decays_of(model, lane)[:-1], (K - 1) / K
    elif model.normalization == "batch":
        lam = float(model.weight_decays[lane][0])
        decays, stretch = np.array([lam / (model.samples * model.streams), lam]), nonnegative.stretch(K, 2, False)
    else:
        decays, stretch = decays_of(model, lane), 1.0
        if model.nonnegative or model.activation == "relu":
            stretch = nonnegative.stretch(K, len(decays), model.activation == "relu" and model.layers > 1)
    if isinstance(loss, strength.Square) and model.classifier == "free" and model.bias != "free":
        if model.bias == "decayed":
            return None
        stretch = 1.0  # all K modes of the frame are used
    product = np.log(n) + np.log(decays).sum() + np.log(np.broadcast_to(stretch, len(decays) if np.ndim(stretch) else 1)).sum()
    return loss, len(decays), float(np.exp(product / len(decays)))


def fold_of_any_loss(model: UFM) -> Boundary:
    """`theory.fold` of a `UFM` that is not a linear network under squared loss.

    Raises:
        BadInput: as `fixed_point`.
    """
    from theory import fixed_point

    said = fixed_point(model).assumptions[:1]
    if model.loss == "mse" and model.bias == "none" and model.classifier == "free" and model.normalization == "none":
        signed = replace(model, activation="linear", activation_scale=1.0, nonnegative=False)
        return replace(fold(signed), assumptions=said)  # the frame of features >= 0 has the signed model's equation
    found = [tension(model, lane) for lane in range(model.lanes)]
    if found[0] is None:
        return _bisected(model, said)
    loss, D, _ = found[0]
    words: dict[str, Any] = {"law": "fold_strength", "assumptions": said}
    R = model.classes - (model.loss != "mse" or model.bias != "none" or model.classifier == "etf")
    gamma = np.array([f[2] for f in found if f is not None])
    if D < 2:
        never: Any = np.full(model.lanes, np.inf)
        return Boundary(decay=np.inf, factor=_one(never), product=np.inf, signal=0.0, modes=np.full(R, np.inf), **words)
    x, limit = strength.fold(loss, D)
    unit = tension(_alike(model, 1.0))
    assert unit is not None
    decay = limit / unit[2]
    return Boundary(decay=decay, factor=_one(limit / gamma), product=decay**D, signal=x, modes=np.full(R, decay), **words)


def _one(values: Any) -> Any:
    return float(values[0]) if len(values) == 1 else values


def _alike(model: UFM, decay: float) -> UFM:
    """One lane of `model` with one decay for everything that is decayed."""
    bias = decay if model.bias == "decayed" else 0.0
    return replace(model, decay=Decay(weights=decay, features=decay, bias=bias), mobility=1.0, activation_scale=1.0)


def existence(model: UFM, lane: int = 0) -> float:
    """The largest multiple of all decays of a lane at which its collapsed point exists, to 1e-12 by bisection; inf or 0
    beyond e^{+-FARTHEST}."""
    from theory import fixed_point

    def exists(log_factor: float) -> bool:
        f = float(np.exp(log_factor))
        scaled = Decay(weights=(model.weight_decays[[lane]] * f).tolist(), features=float(model.feature_decays[lane]) * f,
                       bias=float(model.bias_decays[lane]) * f)
        return bool(fixed_point(replace(model, decay=scaled, mobility=1.0, activation_scale=1.0)).exists)

    here, step = exists(0.0), np.log(10.0)
    low = high = 0.0
    while exists(high if here else low) == here:
        low, high = (high, high + step) if here else (low - step, low)
        if abs(high if here else low) > FARTHEST:
            return float("inf") if here else 0.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if exists(middle) else (low, middle)
    return float(np.exp(low))


def _bisected(model: UFM, said: tuple[str, ...]) -> Boundary:
    from theory import fixed_point

    decay = existence(_alike(model, 1.0))
    point = fixed_point(_alike(model, decay * (1 - 1e-9)))
    factor = np.array([existence(model, lane) for lane in range(model.lanes)])
    return Boundary(decay=decay, factor=_one(factor), product=decay ** (model.layers + 1), signal=point.signal,
                    modes=np.full(model.classes, decay), law="fold_bisected", status="numerical",
                    assumptions=(*said, "Where the fixed point ceases to exist, by bisection."))
