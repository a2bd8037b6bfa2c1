r"""What a model does after one of its layers is rescaled (the paper's intervention, section 6.4).

With one decay lambda for all D factors the imbalances w_i^2 - w_1^2 = d_i e^{-2 lambda t} of a mode are exact
integrals of the flow: the only memory of the rescaling, and it fades at 2 lambda whatever the loss. The
product z = prod w_i forgets much faster and follows the quasi-rest of its own equation,

    (2c/N) (b - g z) z sum_i 1/w_i^2 = D lambda,     w_i^2 = u + d_i e^{-2 lambda t},

one equation for u(t); the features are prod_{i<D} w_i. Without decay the rescaled norm would persist. The
integrals are exact, the quasi-rest is the leading order in lambda over the rate of the fast modes and holds
once these have settled. Balance: Arora, Cohen and Hazan (2018); derived in
`theory.derivations_dynamics.recovery`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ncflow.errors import require
from ncflow.model import UFM, DeepLinear, Isotropic
from theory.point import Standing
from theory.rest import Array, points, require_linear


@dataclass(frozen=True, eq=False, kw_only=True)
class Response:
    """How fn comes back after a rescaling at t = 0.

    Attributes:
        times: (T,) flow time since the rescaling.
        feature_norm: (..., T) fn, the shape of alpha in front; nan where the mode does not come back.
        start: (...,) fn right after the rescaling, before anything moved.
        fn_inf: fn at rest.
        rate: 2 lambda, of the approach.
        settled: time after which the fast modes have come to 1e-4 of their start; the formula holds from it.
        law, status, assumptions, source: as in `FixedPoint`.
    """

    times: Array
    feature_norm: Array
    start: Array
    fn_inf: float
    rate: float
    settled: float
    law: str = "recovery"
    status: Standing = "asymptotic"
    assumptions: tuple[str, ...] = ("All modes alike; from the fixed point; times beyond `settled`.",
                                    "Relative error of fn there below 2e-4 in the tests.")
    source: str = "derived here; balance: Arora, Cohen and Hazan 2018"

    @property
    def formula(self) -> str:
        """The law in LaTeX."""
        from theory.derivations_dynamics import latex

        return latex(self.law)


def intervention_response(model: UFM | DeepLinear, alpha: ArrayLike, times: ArrayLike, *,
                          layer: int | str = -2) -> Response:
    """fn(t) after one factor of a model at its fixed point has been multiplied by `alpha`.

    Args:
        alpha: (...,) factor, greater than 0.
        times: (T,) flow times since then.
        layer: as in `ncflow.Rescale`: index into [W_1, .., W_M], or "features".

    Raises:
        BadInput: as `fixed_point`; several lanes; unequal decays or a mobility (imbalances then have no law
            of their own); unequal classes, a decayed bias or data not `Isotropic` (modes then differ).
    """
    require_linear(model, "the response")
    require(model.lanes == 1, "model", f"{model.lanes} lanes", "one lane")
    require(model.balanced, "samples_per_class", model.samples_per_class, "equal classes")
    require(model.bias != "decayed", "bias", model.bias, '"none" or "free"')
    free = isinstance(model, UFM)
    if free:
        l = np.concatenate([model.feature_decays, model.weight_decays[0]])  # noqa: E741
        require(bool(np.all(l == l[0])), "decay", model.decay, "one number for features and all weights")
        require(bool(model.mobilities[0] == 1), "mobility", model.mobility, "1")
    else:
        require(isinstance(model.inputs, Isotropic), "inputs", "an array", "Isotropic")
        l = model.weight_decays[0]  # noqa: E741
    D, lam = len(l), float(l[0])
    if isinstance(layer, str):
        require(layer == "features" and free, "layer", layer, 'an index, or "features" of a UFM')
        hit = 0
    else:
        require(-model.layers <= layer < model.layers, "layer", layer,
                f"an index into {model.layers} layer(s)")
        hit = layer % model.layers + free
    scales, t = np.asarray(alpha, dtype=float), np.atleast_1d(np.asarray(times, dtype=float))
    require(bool((scales > 0).all()), "alpha", alpha, "greater than 0")
    require(bool((t >= 0).all()), "times", times, "not negative")
    point = next(points(model))
    require(point.exists and D > 1, "decay", model.decay, "decays under which features rest away from zero, "
            "and at least two factors")
    assert point.modes is not None
    z = float(np.mean(point.modes[1]))
    n, scale = model.class_counts[0], 2 * model.loss_scale / model.samples
    b, g = (np.sqrt(n), 1.0)
    if not free:
        assert isinstance(model.inputs, Isotropic)
        r = model.inputs.amplitude
        b, g = n * r, n * (r**2 + model.inputs.noise)
    w = np.full((*scales.shape, D), z ** (1 / D))
    w[..., hit] *= scales
    gaps = (w**2 - w[..., :1] ** 2)[..., None, :] * np.exp(-2 * lam * t)[:, None]
    squares = _quasi_rest(gaps, b / g, scale * b, lam)
    unit = point.feature_norm / z ** ((D - 1) / D)
    first = _quasi_rest((w**2 - w[..., :1] ** 2)[..., None, :], b / g, scale * b, lam)[..., 0, :]
    drive = b * np.prod(w, axis=-1) * np.sum(w**-2.0, axis=-1)
    fast = np.minimum(drive, g * z**2 * np.sum(1 / first, axis=-1))
    return Response(
        times=t, feature_norm=unit * np.prod(np.sqrt(squares[..., : D - 1]), axis=-1),
        start=unit * np.prod(w[..., : D - 1], axis=-1), fn_inf=point.feature_norm, rate=2 * lam,
        settled=float(np.max(np.log(1e4) / (scale * fast))))


def _quasi_rest(gaps: Array, full: float, pull: float, lam: float) -> Array:
    """(..., D) squares w_i^2 with imbalances `gaps` at which pull (1 - z/full) z sum 1/w_i^2 = D lambda: the
    largest, found from z = full downwards; nan where there is none."""
    D = gaps.shape[-1]
    base = (gaps - gaps.min(axis=-1, keepdims=True))[..., None, :]

    def force(v: Array) -> Array:
        squares = base + v[..., None]
        z = np.sqrt(np.prod(squares, axis=-1))
        return pull * (1 - z / full) * z * np.sum(1 / squares, axis=-1) - D * lam

    grid = full ** (2 / D) * np.linspace(1, 1e-6, 400) ** 2 * np.ones((*gaps.shape[:-1], 1))
    alive = force(grid) > 0
    first = np.argmax(alive, axis=-1)[..., None]
    low = np.take_along_axis(grid, first, axis=-1)
    high = np.take_along_axis(grid, np.maximum(first - 1, 0), axis=-1)
    for _ in range(60):
        middle = (low + high) / 2
        up = force(middle) > 0
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    return base[..., 0, :] + np.where(alive.any(axis=-1, keepdims=True), low, np.nan)
