r"""Fixed point of a linear network on data: M decayed weight layers, the features tied to the inputs.

The end-to-end map solves the Schatten-2/M problem of `theory.schatten` with G = X T^2 X^T and B = Y T^2 X^T
(T of `theory.linear` carries the bias), and the penultimate features are S^{1-1/M} V^T X up to rotation, so
that norms, angles and NC1 do not depend on the widths. For `Isotropic` inputs the modes decouple and each
obeys

    (2c/K) [r - s (r^2 + v2)] = lambda s^{2/M - 1}     (largest root),

with the mean mode's r and r^2 multiplied by 1 - theta when there is a bias. A decay of 0 stands for the limit
lambda -> 0+, in which the map is least squares. For M >= 3 the point is the one that descent reaches from
that limit. Dai, Karzand and Srebro (2021); Jacot (2023).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ncflow.model import DeepLinear, Isotropic
from theory.linear import Array, Modes, Network
from theory.point import FixedPoint
from theory.ufm import helmert

SOURCE = ("Dai, Karzand and Srebro 2021 (representation cost of linear networks); Jacot 2023 (rank); "
          "balance: Arora, Cohen and Hazan 2018")
RMS = "feature_norm and layer_feature_norms are root mean squares: only the noise's total scatter is known."


class Samples:
    """Inputs X (d, N) with classes contiguous."""

    def __init__(self, X: Array, labels: NDArray[np.intp], counts: Array):
        self.X, self.labels, self.counts = X, labels, counts
        edges = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
        self.means = np.add.reduceat(X, edges, axis=1) / counts
        self._eigen: dict[float, tuple[Array, Array]] = {}

    def _map(self, F: Array | None) -> Array:
        return self.X if F is None else F @ self.X

    def norm(self, F: Array | None) -> float:
        return float(np.linalg.norm(self._map(F), axis=0).mean())

    def within(self, F: Array | None) -> float:
        centres = self.means if F is None else F @ self.means
        return float(np.sum((self._map(F) - centres[:, self.labels]) ** 2) / self.counts.sum())

    @cached_property
    def _scatter(self) -> Array:
        return self.X @ self.X.T

    def eigen(self, theta: float) -> tuple[Array, Array]:
        """Positive eigenvalues and their eigenvectors of G = X T^2 X^T, kept for the next lane."""
        if theta not in self._eigen:
            mean = self.means @ self.counts / self.counts.sum()
            g, E = np.linalg.eigh(self._scatter - theta * self.counts.sum() * np.outer(mean, mean))
            live = g > g[-1] * max(self.X.shape) * np.finfo(float).eps
            self._eigen = {k: v for k, v in self._eigen.items() if k == 1} | {theta: (g[live], E[:, live])}
        return self._eigen[theta]

    def cross(self, theta: float) -> Array:
        """(K, d) B = Y T^2 X^T."""
        n, sums = self.counts, self.means * self.counts
        return sums.T - theta * np.outer(n, sums.sum(axis=1)) / n.sum()


class Isotropy:
    """`Isotropic` data in the K directions of the class means."""

    def __init__(self, inputs: Isotropic, K: int):
        self.means, self.noise, self.K = inputs.amplitude * np.eye(K), inputs.noise, K

    def norm(self, F: Array | None) -> float:
        centres = self.means if F is None else F @ self.means
        return float(np.sqrt(np.sum(centres**2) / self.K + self.within(F)))

    def within(self, F: Array | None) -> float:
        return self.noise * (1.0 if F is None else float(np.sum(F**2)) / self.K)


def moments(model: DeepLinear) -> Samples | Isotropy:
    """What `fixed_point` needs of the inputs; compute it once for all lanes."""
    if isinstance(model.inputs, Isotropic):
        return Isotropy(model.inputs, model.classes)
    return Samples(model.inputs, model.labels, np.asarray(model.class_counts, dtype=float))


def fixed_point(model: DeepLinear, lane: int, data: Samples | Isotropy) -> FixedPoint:
    """The fixed point of one lane of `model`; `data` from `moments(model)`.

    Warns:
        RuntimeWarning: the descent stopped short of a relative stationarity of 1e-10.
    """
    lam, lb, c = model.decays[lane], model.bias_decays[lane], model.loss_scale
    n = np.asarray(model.class_counts, dtype=float)
    theta = 0.0 if model.bias == "none" else 2 * c / (2 * c + lb)
    network = Network(n, np.full(model.layers, lam), c, theta, data, free_features=False)
    said = ["Linear layers, every width at least K (K - 1 with a free bias), no matter which; unique up to rotations."]
    if lam == 0:
        said.append("Decay 0 stands for its limit from above.")
    if isinstance(data, Isotropy):
        assert isinstance(model.inputs, Isotropic)
        r, noise, K = model.inputs.amplitude, data.noise, model.classes
        said += [RMS] if noise else []
        F, kept = helmert(K), np.array([1 - theta] + [1.0] * (K - 1))
        first = 0 if theta < 1 else 1
        F, target, gram = F[:, first:], (n[0] * r * kept)[first:], (n[0] * (r**2 * kept + noise))[first:]
        modes = Modes(F, F, target, gram, 0 if 0 < theta < 1 else None)
        return network.decoupled(modes, law="isotropic", status="exact" if lam else "asymptotic",
                                 source=SOURCE, assumptions=tuple(said))
    if model.layers > 2:
        said.append("The branch that descent reaches from least squares, the fixed point of vanishing decay.")
    g, E = data.eigen(theta)
    starts: list[Array | None] = [None]
    if 0 < theta < 1 and model.layers > 2:
        full, basis = data.eigen(1.0)
        starts.append((data.cross(1.0) @ basis / full) @ basis.T @ E)
        said.append("Of the descents with and without the mean direction of the data, the cheaper one.")
    status = "asymptotic" if lam == 0 else "exact" if model.layers == 1 else "numerical"
    return network.descended(g, E, data.cross(theta) @ E, starts, status=status, source=SOURCE,
                             assumptions=tuple(said), law="ridge" if model.layers == 1 else "schatten")
