r"""Fixed points of decayed linear networks, free features and data alike, from their end-to-end map.

D factors with decays lambda_1..lambda_D stand on inputs X (d x N). At rest neighbouring factors balance,
lambda_i W_i^T W_i = lambda_{i-1} W_{i-1} W_{i-1}^T, so that the product A = U S V^T fixes everything up to
rotations of the hidden layers:

    |W_i|_F^2 = (lambda/lambda_i) sum S^{2/D},
    outputs of W_l = prod_{i<=l} (lambda/lambda_i)^{1/2} S^{l/D} V^T X,

lambda being the geometric mean, and A minimises (c/N) |(A X - Y) T|_F^2 + (lambda D/2) sum S^{2/D}. The head
bias only enters through T: eliminating b = (theta/N) (Y - A X) 1 with theta = 2c/(2c + lambda_b) leaves T^2 =
I - (theta/N) 1 1^T, theta being 0 without a bias and 1 for one that is not decayed. Free features are the
case X = I, their first factor being H itself.

Balance: Arora, Cohen and Hazan (2018); penalty: Dai, Karzand and Srebro (2021). Exact. Bias and mode equation
are derived in `theory.derivations`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from theory import mode, schatten
from theory.point import Branch, FixedPoint, compact, cosine

Array = NDArray[np.float64]
TOLERANCE = 1e-10  # relative stationarity above which a numerical point is called unconverged


class Moments(Protocol):
    """What the fixed point needs of the inputs X; F (r x d) is a linear map of them, None the identity."""

    means: Array  # (d, K) class means

    def norm(self, F: Array | None) -> float:
        """Mean over samples of |F x| (or the root mean square)."""
        ...

    def within(self, F: Array | None) -> float:
        """Tr of the within-class covariance of F x, samples weighted equally."""
        ...


@dataclass(frozen=True, eq=False)
class Modes:
    """Directions in which the problem decouples: A = sum_j z_j U_j V_j^T, one scalar problem for each."""

    U: Array  # (K, R)
    V: Array  # (d, R)
    target: Array  # (R,) b
    gram: Array  # (R,) g
    mean: int | None = None  # the mode that only a decayed bias competes for


@dataclass(frozen=True, eq=False)
class Network:
    """One lane: counts (K,), decays (D,) from the first factor to the head, c, theta, inputs."""

    counts: Array
    decays: Array
    loss_scale: float
    theta: float
    moments: Moments
    free_features: bool

    @property
    def degree(self) -> int:
        return len(self.decays)

    @property
    def decay(self) -> float:
        """Geometric mean lambda."""
        return float(np.exp(np.mean(np.log(self.decays)))) if self.decays.all() else 0.0

    @property
    def scale(self) -> float:
        """2c/N."""
        return 2 * self.loss_scale / float(self.counts.sum())

    def rest(self, U: Array, z: Array, V: Array, objective: float, **words: Any) -> FixedPoint:
        """The record at A = U diag(z) V^T, z > 0; `objective` as in `schatten`."""
        D, N, n = self.degree, float(self.counts.sum()), self.counts
        share, means = n / N, self.moments.means
        pull = np.sqrt(self.decay / self.decays) if self.decay else np.ones(D)
        reach = np.cumprod(pull)
        layers = [reach[i - 1] * z[:, None] ** (i / D) * V.T for i in range(1, D)] or [None]
        norms = np.array([self.moments.norm(F) for F in layers])
        last = layers[-1]
        centres = means if last is None else last @ means
        gram = centres.T @ centres
        # As `nc1_trace_ratio` of ncflow.metrics: the mean of samples, Sigma_B by classes.
        between = float(np.mean(np.sum((centres - (centres @ share)[:, None]) ** 2, axis=0)))
        power = float(np.sum(z ** (2 / D)))
        logits = (U * z) @ (V.T @ means)
        signal = np.linalg.svd(logits, compute_uv=False)[: len(z)].astype(float) if self.free_features else z
        square = N - self.theta * float(n @ n) / N
        return FixedPoint(
            feature_norm=float(norms[-1]), layer_feature_norms=norms,
            weight_norms=(pull * np.sqrt(power))[1 if self.free_features else 0:],
            class_mean_norms=np.sqrt(np.diag(gram)), class_mean_cosine=cosine(gram),
            bias=self.theta * (share - logits @ share), loss=float(self.scale * (objective + square / 2)),
            signal=compact(signal), rank=len(z), exists=len(z) > 0,
            nc1_floor=self.moments.within(last) / between if between > 0 else float("nan"),
            modes=(U, z, V), **words)

    def decoupled(self, modes: Modes, **words: Any) -> FixedPoint:
        """Closed form: every mode on its upper root, the mean mode only where that is cheaper than zero."""
        D = self.degree
        gamma = mode.tension(D, self.decay, self.scale, modes.target, modes.gram)
        upper, lower = (np.nan_to_num(x) for x in mode.roots(D, gamma))
        mu = self.decay / self.scale

        def at(x: Array, branch: Branch = "collapsed") -> FixedPoint:
            on = x > 0
            g, b = modes.gram[on], modes.target[on]
            z = b * x[on] / g
            objective = float(np.sum(g * z**2 / 2 - b * z) + mu * D / 2 * np.sum(z ** (2 / D)))
            return self.rest(modes.U[:, on], z, modes.V[:, on], objective, branch=branch, **words)

        x, others = upper.copy(), []
        if modes.mean is not None and upper[modes.mean] > 0:
            active = bool(gamma[modes.mean] < mode.maxwell(D)[1])
            flipped = upper.copy()
            (x if not active else flipped)[modes.mean] = 0.0
            if D >= 3:
                others.append(at(flipped, "mean mode inactive" if active else "mean mode active"))
        if lower.any():
            saddle = lower.copy()
            if modes.mean is not None:
                saddle[modes.mean] = x[modes.mean]
            others.insert(0, at(saddle, "saddle"))
        return replace(at(x), other_roots=tuple(others))

    def descended(self, spectrum: Array, basis: Array, cross: Array, starts: Sequence[Array | None],
                  **words: Any) -> FixedPoint:
        """Numerical: the cheapest descent from `starts`, maps (K, d) in the eigenbasis of G or None."""
        mu = self.decay / self.scale
        found = sorted((schatten.minimise(spectrum, cross, mu, self.degree, start) for start in starts),
                       key=lambda solution: solution.objective)
        best = found[0]
        if best.residual > TOLERANCE:
            warnings.warn(f"fixed point not converged: relative stationarity {best.residual:.1e} after "
                          f"{best.steps} steps; see FixedPoint.stationarity", RuntimeWarning, stacklevel=4)
        return self.rest(best.U, best.s, basis @ best.V, best.objective, stationarity=best.residual, **words)
