r"""Cheaper than the orthogonal frame: classes as pairs, the low-rank state of deep ReLU networks in closed form.

Between its layers a ReLU network may hold K = r(r-1)/2 classes as the pairs of r units: class {i, j} turns on
units i and j, B is that (r, K) table, of rank r < K. Only the last hidden layer tells the classes apart again,
with a weight alpha from the two units of a pair and -rho alpha from the others: its own class reads 2 alpha,
one that shares a unit (1 - rho) alpha, a disjoint one stays off. With one amplitude A for the product of the M
factors below the head they share the decay equally, at energy

    e = [n lambda_H lambda_1 .. lambda_{M-1} kappa A^2]^{1/M},     kappa = |B|_*^2 r^{M-3} K (2 + (r-2) rho^2),
    |B|_* = sqrt(2(r-1)) + (r-1) sqrt(r-2),

where an orthogonal frame has kappa = K^M: first features and W_1 pay the nuclear norm of B, every further layer
on r units r instead of K. The head W sees A (2 I + (1-rho) T), T the adjacency of pairs that share a unit
(eigenvalues theta = 2(r-2), r-4, -2 on 1, r-1 and K-r modes), and is ridge regression on it, mode by mode:

    h = A (2 + (1-rho) theta),   w = q h/(q h^2 + lambda_M),   q = 2c/K;   a free bias takes the first mode.

Rest in A is balance, e = lambda_M |W|^2, and rest in rho

    (r-2) rho e/(2 + (r-2) rho^2) + lambda_M sum_modes w^2 theta/(2 + (1-rho) theta) = 0.

**Why it rests.** The symmetric group of the r units maps the state to itself, so the gradient lies in the
directions that respect it. Of these only a common leak of the units that are off is left, a kink: along it the
loss rises at the pull m of the layers above and falls by what the layer saves, e/2 per relative leak (W_1 H_1:
e times the log-derivative of its nuclear norm). It rests where m exceeds both.

This holds for K = 6, 10, 15 and 21; with more units the last layer would rather have a leak below it. That the
state is a minimum is not claimed (`MEASURED`). It bounds the global minimum from above, and says why low rank
sets in with depth: kappa is below that of the frame from M = 4 on, while at M = 3 the frame is cheaper by 0.6
to 2.8%.

Source: the tables are the graphs of Sukenik, Mondelli and Lampert (2024), who show that low rank is cheaper;
the leak in the last layer, the fixed point and its stationarity are derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ncflow.errors import require
from theory.cross_entropy import Array, decays_of
from theory.point import FixedPoint, cosine
from theory.strength import crossing

SOURCE = "Sukenik, Mondelli and Lampert 2024 (pairs as codes of low rank); leak, fixed point and stationarity derived here"
MEASURED = ("Stationary, with a loss below the frame's wherever `loss` says so; an upper bound of the global "
            "minimum. K = 10, M = 4, decay .002: 0.8829 of the frame's loss, the best of 16 descents 0.8801.")


@dataclass(frozen=True, eq=False)
class _Code:
    """The code of r units at the leak rho and amplitude A; one lane.

    Attributes:
        r: units. decays: (D,) lambda_H .. lambda_M. pull: q = 2c/K. samples: n. bias: whether a free one is there.
    """

    r: int
    decays: Array
    pull: float
    samples: float
    bias: bool

    @property
    def classes(self) -> int:
        return self.r * (self.r - 1) // 2

    @property
    def modes(self) -> tuple[Array, Array]:
        """(3,) theta and how often, of the modes that the head uses."""
        r = self.r
        theta, times = np.array([2 * (r - 2), r - 4, -2.0]), np.array([1.0, r - 1, self.classes - r])
        return (theta[1:], times[1:]) if self.bias else (theta, times)

    @property
    def nuclear(self) -> float:
        """|B|_*."""
        return float(np.sqrt(2 * (self.r - 1)) + (self.r - 1) * np.sqrt(self.r - 2))

    def log_energy(self, rho: float, log_a: Any) -> Any:
        M, r = len(self.decays) - 1, self.r
        kappa = 2 * np.log(self.nuclear) + (M - 3) * np.log(r) + np.log(self.classes * (2 + (r - 2) * rho**2))
        return (np.log(self.samples) + np.log(self.decays[:-1]).sum() + kappa + 2 * log_a) / M

    def head(self, rho: float, log_a: Any) -> tuple[Array, Array, Array]:
        """h and w (..., modes), and multiplicities, for `log_a` (...)."""
        theta, times = self.modes
        h = np.exp(log_a)[..., None] * (2 + (1 - rho) * theta)
        return h, self.pull * h / (self.pull * h**2 + self.decays[-1]), times

    def amplitude(self, rho: float) -> float:
        """log A of the largest root of balance, nan where there is none."""
        def gap(log_a: Any) -> Any:
            _, w, times = self.head(rho, np.asarray(log_a))
            return np.log(self.decays[-1] * np.sum(times * w**2, axis=-1)) - self.log_energy(rho, log_a)

        # the head's side falls like A^{-2} once the targets are met: the last change of sign is the largest root
        grid = np.linspace(-20, 20, 801)
        on = np.flatnonzero(gap(grid) > 0)
        return crossing(gap, float(grid[on[-1]]), float(grid[on[-1] + 1])) if len(on) else float("nan")

    def slope(self, rho: float) -> float:
        """The left side of rest in rho, balance holding."""
        log_a = self.amplitude(rho)
        _, w, times = self.head(rho, np.asarray(log_a))
        theta, _ = self.modes
        e = np.exp(self.log_energy(rho, log_a))
        own = (self.r - 2) * rho * e / (2 + (self.r - 2) * rho**2)
        return float(own + self.decays[-1] * np.sum(times * w**2 * theta / (2 + (1 - rho) * theta)))

    def held(self, rho: float, log_a: float) -> bool:
        """Whether units that are off stay off: the loss rises along a common leak."""
        r = self.r
        _, w, times = self.head(rho, np.asarray(log_a))
        theta, _ = self.modes
        moved = -(r - 2) * rho + (1 - (r - 3) * rho) * theta
        harm = -self.decays[-1] * float(np.sum(times * w**2 * moved / (2 + (1 - rho) * theta)))
        saved = np.sqrt(r / self.classes) * (self.classes - r + 1) - (r - 1) * np.sqrt(r - 2)
        e = float(np.exp(self.log_energy(rho, log_a)))
        return harm > e * max(-saved / self.nuclear, 0.5 if len(self.decays) > 4 else 0.0)


def units(classes: int) -> int | None:
    """r with r(r-1)/2 = K for the K of this module: 6, 10, 15 or 21; else None."""
    return {6: 4, 10: 5, 15: 6, 21: 7}.get(classes)


def applies(model: Any) -> bool:
    """Whether `pairs` has a meaning for the model."""
    return (units(model.classes) is not None and model.activation == "relu" and model.layers >= 3
            and model.loss == "mse" and model.bias != "decayed" and model.balanced)


def pairs(model: Any, lane: int = 0) -> FixedPoint:
    """The state in which classes are pairs of r units, of one lane of a `UFM` with ReLU layers.

    Raises:
        BadInput: naming the assumption that fails: `classes`, `activation`, `layers`, `loss`, `bias`,
            `samples_per_class` or `decay.*`; or "decay", beyond the fold of the state.
    """
    r = units(model.classes)
    require(r is not None, "classes", model.classes, "6, 10, 15 or 21, the pairs of 4 to 7 units")
    assert r is not None
    require(model.activation == "relu", "activation", model.activation, '"relu"')
    require(model.layers >= 3, "layers", model.layers, "at least 3: pairs, classes, head")
    require(model.loss == "mse", "loss", model.loss, '"mse"')
    require(model.bias != "decayed", "bias", model.bias, '"none" or "free"')
    require(model.balanced, "samples_per_class", model.samples_per_class, "equal classes")
    code = _Code(r, decays_of(model, lane), 2 * model.loss_scale / model.classes, float(model.class_counts[0]),
                 model.bias == "free")
    rho = _leak(code)
    log_a = code.amplitude(rho) if np.isfinite(rho) else np.nan
    rests = bool(np.isfinite(log_a)) and code.held(rho, log_a)
    require(rests, "decay", model.decay, "weaker: the state does not rest there")
    return _record(model, code, rho, log_a)


def _leak(code: _Code) -> float:
    """rho at rest: where `slope` turns from falling to rising, nearest 1; nan where nothing rests."""
    grid = np.linspace(1.0, 0.01, 34)
    rising = [code.slope(v) for v in grid]
    for right, left, above, below in zip(grid, grid[1:], rising, rising[1:], strict=False):
        if above > 0 >= below:
            return crossing(code.slope, float(left), float(right))
    return float("nan")


def _record(model: Any, code: _Code, rho: float, log_a: float) -> FixedPoint:
    K, r, M, n = code.classes, code.r, model.layers, code.samples
    h, w, times = code.head(rho, np.asarray(log_a))
    e = float(np.exp(code.log_energy(rho, log_a)))
    sizes = np.sqrt(e / code.decays[:-1])  # |factor|_F: sqrt(n)|H| on the classes, W_1 .. W_{M-1}
    # amplitude of the pairs above each factor: |H_l| = a |B|_F; W_2 .. W_{M-2} are multiples of 1
    pair = sizes[0] / np.sqrt(n) * sizes[1] / code.nuclear
    steps = pair * np.cumprod(np.concatenate([[1.0], sizes[2:-1] / np.sqrt(r)]))
    top = np.exp(log_a) * np.array([2.0, 1 - rho])
    gram = _gram(r, *top)
    norms = np.concatenate([[_first(code, sizes[0])], steps * np.sqrt(2), [np.sqrt(gram[0, 0])]])
    data = model.loss_scale / K * float(np.sum(times * (1 - w * h) ** 2))
    shift = 1 / K if code.bias else 0.0
    gap = abs(code.slope(rho)) / e + abs(code.decays[-1] * np.sum(times * w**2) / e - 1)
    return FixedPoint(
        feature_norm=float(norms[-1]), layer_feature_norms=norms,
        weight_norms=np.append(sizes[1:], np.sqrt(np.sum(times * w**2))), class_mean_norms=np.full(K, norms[-1]),
        class_mean_cosine=cosine(gram), bias=np.full(K, shift),
        loss=float(data + (M * e + code.decays[-1] * np.sum(times * w**2)) / 2),
        signal=np.sort(np.repeat(w * h, times.astype(int)))[::-1], rank=int(times.sum()), exists=True, nc1_floor=0.0,
        stationarity=float(gap), branch="pairs", law="pairs", status="numerical", source=SOURCE,
        assumptions=(f"Classes are pairs of {r} units up to the last hidden layer, every width at least K.", MEASURED))


def _gram(r: int, own: float, shared: float) -> Array:
    """(K, K) Gram of the last hidden features own I + shared T."""
    left, right = np.triu_indices(r, 1)
    B = np.eye(r)[:, left] + np.eye(r)[:, right]
    H = shared * (B.T @ B) + (own - 2 * shared) * np.eye(len(left))
    return H.T @ H


def _first(code: _Code, size: float) -> float:
    """Norm of a class mean of H_1 = sqrt(s) V^T of Z_1 = U s V^T, |sqrt(n) H_1|_F being `size`: all are alike."""
    return size / np.sqrt(code.samples * code.classes)
