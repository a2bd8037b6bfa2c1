r"""Fixed point of the unconstrained-features model: any depth, class sizes, decays and bias, squared loss.

Samples of a class share their features at rest, so the model is a linear network of D = M + 1 factors on the
K class indicators 1_k / sqrt(n_k), with targets Y = diag(sqrt n_k). Its modes decouple, and each obeys
`theory.mode`,

    x^{D-2} (1 - x)^D = lambda_H prod_l lambda_l (N/2c)^D s^{2 - 2D},

s being a singular value of the targets as the bias leaves them:

    no bias          s = sqrt n_k, one mode per class (orthogonal frame; Dang et al. 2023 for unequal classes)
    free bias        the K - 1 singular values of Y (I - 11^T/N); equal classes: sqrt n, a simplex ETF
    decayed bias     equal classes: the K - 1 centred modes as above, and the mean mode with a data term
                     of c lambda_b / (2c + lambda_b) instead of c

For M = 1 this is the singular-value soft threshold of Y (Zhou et al. 2022). With a decayed bias and unequal
classes the modes mix and the same Schatten problem is solved numerically. The mean mode rests where it is
cheaper: for M = 1 it is active iff lambda_b exceeds 2c (1 - sigma)/sigma; for M >= 2 zero is
always a local minimum and the active state, where it exists, is cheaper iff its tension is below Maxwell's.
With lambda_b equal to the other decays it is never active for M >= 2, because its Gamma is then above n K^D.
"""

from __future__ import annotations

import numpy as np

from ncflow.errors import require
from ncflow.model import UFM
from theory.linear import Array, Modes, Network
from theory.point import FixedPoint

SOURCE = {
    "two": "Zhou et al. 2022 (MSE landscape of the unconstrained-features model); Tirer and Bruna 2022; "
           "Mixon, Parshall and Pi 2020; nuclear norm: Srebro, Rennie and Jaakkola 2005",
    "deep": "Dang et al. 2023 (deep linear networks, balanced to imbalanced); Tirer and Bruna 2022; "
            "Sukenik, Mondelli and Lampert 2023",
}


class Classes:
    """Free features seen from the class indicators: coordinates e_k stand for 1_k / sqrt(n_k)."""

    def __init__(self, counts: Array):
        self.means = np.diag(1 / np.sqrt(counts))
        self.share = counts / counts.sum()

    def norm(self, F: Array | None) -> float:
        return float(self.share @ np.linalg.norm(self.means if F is None else F @ self.means, axis=0))

    def within(self, F: Array | None) -> float:
        return 0.0


def helmert(K: int) -> Array:
    """(K, K) orthonormal basis, the first column the mean direction 1/sqrt K."""
    basis = np.triu(np.ones((K, K)), 1) - np.diag(np.arange(K))
    basis[:, 0] = 1
    return basis / np.linalg.norm(basis, axis=0)


def fixed_point(model: UFM, lane: int) -> FixedPoint:
    """The collapsed fixed point of one lane of `model`; see the module's table for what is exact.

    Raises:
        BadInput: `decay.*` of the lane is zero (without decay no rest point is isolated) or the model has a
            loss or an
            activation this module has no formula for.
    """
    lh, lw, lb = model.feature_decays[lane], model.weight_decays[lane], model.bias_decays[lane]
    isolated = "greater than 0: without decay no fixed point is isolated"
    require(bool(lh > 0), "decay.features", lh, isolated)
    require(bool((lw > 0).all()), "decay.weights", lw.tolist(), isolated)
    n, c, K = np.asarray(model.class_counts, dtype=float), model.loss_scale, model.classes
    theta = 0.0 if model.bias == "none" else 2 * c / (2 * c + lb)
    network = Network(n, np.concatenate([[lh], lw]), c, theta, Classes(n), free_features=True)
    words = dict(law="soft_threshold" if model.layers == 1 else "mode", status="exact",
                 source=SOURCE["two" if model.layers == 1 else "deep"], assumptions=_assumptions(model))
    root, eye = np.sqrt(n), np.eye(K)
    if model.bias == "none":
        return network.decoupled(Modes(eye, eye, root, np.ones(K)), **words)
    if model.balanced:
        F = helmert(K)
        gram = np.array([1 - theta] + [1.0] * (K - 1))
        first = 0 if theta < 1 else 1
        return network.decoupled(Modes(F[:, first:], F[:, first:], (root[0] * gram)[first:], gram[first:],
                                       0 if theta < 1 else None), **words)
    v = root / np.linalg.norm(root)
    if theta == 1:
        U, s, Vt = np.linalg.svd(np.diag(root) - np.outer(root * v, v))
        return network.decoupled(Modes(U[:, :-1], Vt[:-1].T, s[:-1], np.ones(K - 1)), **words)
    g, E = np.linalg.eigh(eye - theta * np.outer(v, v))
    U, s, Vt = np.linalg.svd(np.diag(root) - np.outer(root * v, v))
    centred = (U[:, :-1] * s[:-1]) @ Vt[:-1] @ E
    starts = [None, centred] if model.layers > 1 else [None]
    words |= dict(status="numerical", law="schatten")
    return network.descended(g, E, root[:, None] * E * g, starts, **words)


def _assumptions(model: UFM) -> tuple[str, ...]:
    said = ["Linear layers, every width at least K (K - 1 with a free bias), no matter which; unique up to rotations."]
    if model.layers == 1:
        said.append("The global minimum; every other stationary point is a saddle.")
    else:
        said.append("Every mode that has one is on its upper root, a local minimum; zero is one too, cheaper "
                    "beyond the Maxwell point.")
        if not model.balanced:
            said.append("Classes whose root is gone are at zero; `rank` counts the rest.")
    if model.bias == "decayed" and model.layers > 1:
        said.append("The mean mode is active or at zero, whichever is cheaper; both can be minima.")
    if model.bias == "decayed" and not model.balanced:
        said.append("Unequal classes with a decayed bias have no closed form; see `stationarity`.")
    return tuple(said)
