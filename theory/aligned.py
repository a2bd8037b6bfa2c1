r"""The flow of a model whose modes all move alike: D amplitudes instead of all weights and features.

Equal classes, one signal for all modes, deviations of the samples outside the modes: an invariant set of the
gradient flow, on which

    x_j' = theta_j [ -l_j x_j + (2c/N) (prod_{i != j} x_i) (sqrt n - prod x_i) ],
    NC1 of layer j = S exp(-2 t sum_{i <= j} theta_i l_i) / [(K - 1) prod_{i <= j} x_i^2].

Exact; singular values of deep linear networks: Saxe, McClelland and Ganguli (2014), here with decay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from ncflow.errors import require
from ncflow.model import UFM
from theory.rest import Array


def crossing(f: Callable[[float], Any], low: float, high: float) -> float:
    """The zero of f between `low` and `high`, to rounding."""
    found: Any = brentq(lambda v: float(f(v)), low, high, xtol=1e-13, rtol=1e-14)  # type: ignore[arg-type]
    return float(found)


@dataclass(frozen=True, eq=False)
class Aligned:
    """The aligned flow of one lane of equal classes.

    Attributes:
        speeds: (D,) theta_j. decays: (D,) l_j. scale: 2c/N. target: sqrt n. start: (D,) amplitudes at t = 0.
        samples: n. classes: K. active: R. scatter: S in `layer`, 0 for H_1.
    """

    speeds: Array
    decays: Array
    scale: float
    target: float
    start: Array
    samples: int
    classes: int
    active: int
    scatter: float
    layer: int

    def speed(self, _: float, y: Array) -> Array:
        """d log(x)/dt at y = log x."""
        z = np.exp(y.sum())
        drive = self.scale * (self.target - z) * np.exp(y.sum() - 2 * y)
        return self.speeds * (drive - self.decays)

    def log_nc1(self, t: Any, y: Array) -> Any:
        """Log NC1 of the layer at times t (T,) and y (D, T)."""
        sink = float(np.sum((self.speeds * self.decays)[:self.layer + 1]))
        return np.log(self.scatter / (self.classes - 1)) - 2 * sink * t - 2 * y[:self.layer + 1].sum(axis=0)

    def feature_norm(self, t: Any, y: Array) -> Any:
        """Root mean square norm of the layer's features."""
        mean = self.active / self.classes / self.samples * np.exp(2 * y[:self.layer + 1].sum(axis=0))
        sink = float(np.sum((self.speeds * self.decays)[:self.layer + 1]))
        return np.sqrt(mean + self.scatter / (self.classes * self.samples) * np.exp(-2 * sink * t))

    def run(self, until: float, stop: Any = None) -> Any:
        """The flow up to `until`, or to where `stop(t, y)` falls through zero."""
        events = None
        if stop is not None:
            events = lambda t, y: stop(t, y)  # noqa: E731
            events.terminal, events.direction = True, -1  # type: ignore[attr-defined]
        return solve_ivp(self.speed, (0.0, until), np.log(self.start), method="LSODA", rtol=1e-11, atol=1e-12,
                         events=events, dense_output=True)


def aligned(model: UFM, lane: int, signal: float, scatter: float, layer: int = -1) -> Aligned:
    """The aligned flow of one lane from a balanced start; arguments as `time_to_collapse`.

    Raises:
        BadInput: unequal classes, or a bias so decayed that the mean mode is active.
    """
    require(model.balanced, "samples_per_class", model.samples_per_class, "equal classes")
    n, K, D = model.class_counts[0], model.classes, model.layers + 1
    require(model.bias != "decayed", "bias", model.bias,
            '"none" or "free": a decayed bias starts the mean mode moving')
    l = np.concatenate([model.feature_decays[[lane]], model.weight_decays[lane]])  # noqa: E741
    start = np.sqrt(np.exp(np.mean(np.log(l))) / l) * (signal * np.sqrt(n)) ** (1 / D)
    return of(model, lane, start, scatter, layer, K - (model.bias == "free"))


def of(model: UFM, lane: int, start: Array, scatter: float, layer: int, active: int) -> Aligned:
    """The aligned flow from D amplitudes `start` with `active` modes."""
    n, K = model.class_counts[0], model.classes
    l = np.concatenate([model.feature_decays[[lane]], model.weight_decays[lane]])  # noqa: E741
    speeds = np.concatenate([model.mobilities[[lane]], np.ones(model.layers)])
    return Aligned(speeds, l, 2 * model.loss_scale / model.samples, float(np.sqrt(n)), start, n, K, active,
                   scatter, layer % model.layers)
