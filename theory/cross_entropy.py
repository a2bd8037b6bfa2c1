r"""Fixed points of the unconstrained-features model under cross-entropy, label smoothing and focal loss.

Balanced classes, any bias (a common shift of the logits does not matter, so the bias is idle), M linear
layers. The logits are x (I - 11^T/K), a simplex ETF, and x solves the equation of `theory.strength`: for
M = 1, with gamma = sqrt(n lambda_H lambda_W),

    cross-entropy     x = ln(1/gamma - K + 1),             active iff gamma < 1/K
    label smoothing   x = ln(1/(gamma + a/K) - K + 1),     active iff gamma < (1 - a)/K
    focal             the largest root of g(x) = gamma,    active iff gamma < max g

and fn = sqrt(x (K-1)/K) (lambda_W/(n lambda_H))^{1/4}. With D = M + 1 >= 3 factors x^{1 - 2/D} g(x) = gamma
has two roots; without the K - 1 of cross-entropy's g the upper one is a Lambert function, see `lambert`.

Exact; M = 1 is the global minimum (Zhu et al. 2021), except that focal loss is not convex. For M >= 2 the
ETF is a local minimum, and zero is another; from D = 3, K = 5 or D = 4, K = 4 on it is not the cheapest,
because codes of rank below K - 1 already separate the classes (`LOW_RANK`).

Sources: Zhu et al. 2021; Fang et al. 2021; Zhou et al. 2022 (are all losses created equal); low rank: Garrod
and Keating 2024, Sukenik et al. 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncflow.errors import require
from theory import strength
from theory.point import FixedPoint, Standing

Array = NDArray[np.float64]
SOURCE = ("Zhu et al. 2021 (geometric analysis of neural collapse); Fang et al. 2021 (layer-peeled model); "
          "Zhou et al. 2022 (label smoothing, focal loss)")
LOW_RANK = ("A local minimum; zero is another, and from D = 3, K = 5 or D = 4, K = 4 on codes of lower rank "
            "cost less (measured: 1-6% for D = 3, K = 5, 7; 8-16% for D = 4, K = 4..7) and descent finds them.")


def decays_of(model: Any, lane: int) -> Array:
    """(D,) lambda_H, lambda_1, ..., lambda_M of a `UFM`.

    Raises:
        BadInput: one of them is zero.
    """
    lh, lw = float(model.feature_decays[lane]), np.asarray(model.weight_decays[lane], dtype=float)
    isolated = "greater than 0: without decay no fixed point is isolated"
    require(lh > 0, "decay.features", lh, isolated)
    require(bool((lw > 0).all()), "decay.weights", lw.tolist(), isolated)
    return np.concatenate([[lh], lw])


def balanced(model: Any) -> int:
    """n, or `BadInput` for unequal classes, whose softmax losses have no closed form."""
    require(model.balanced, "samples_per_class", model.samples_per_class,
            "equal classes: softmax losses have no closed form for unequal ones")
    return int(model.class_counts[0])


def fixed_point(model: Any, lane: int = 0) -> FixedPoint:
    """The collapsed fixed point of one lane of a linear `UFM` under a softmax loss.

    Raises:
        BadInput: naming the assumption that fails: `loss`, `activation`, `samples_per_class` or `decay.*`.
    """
    require(model.loss != "mse", "loss", model.loss, "cross_entropy, label_smoothing or focal")
    require(model.activation == "linear", "activation", model.activation, '"linear"')
    loss, n, decays = strength.of(model), balanced(model), decays_of(model, lane)
    law = model.loss if len(decays) == 2 else "strength"
    return strength.collapsed(loss, n, decays, law=law, status="exact", source=SOURCE,
                              assumptions=_assumptions(model, len(decays)))


def _assumptions(model: Any, degree: int) -> tuple[str, ...]:
    said = ["Linear layers, every width at least K - 1 (it does not matter further); unique up to rotations."]
    if degree > 2:
        said.append(LOW_RANK)
    elif model.loss == "focal":
        said.append("The larger root. Focal loss is not convex: that it is the global minimum is measured.")
    else:
        said.append("The global minimum; every other stationary point is a saddle.")
    if model.bias == "free":
        said.append("The mean of the bias does not matter and keeps its initial value; 0 is reported.")
    return tuple(said)


def lambert(degree: int, classes: int, gamma: ArrayLike) -> tuple[Array, Array]:
    """Upper root of cross-entropy without the K - 1 in g, and by what share it is too large; D >= 3.

        x = -((D-2)/D) W_{-1}(-(D/(D-2)) gamma^{D/(D-2)})     solves x^{D-2} e^{-D x} = gamma^D

    The share is (K-1) e^{-x} / (x - 1 + 2/D), exact to leading order in e^{-x} (within a fifth of itself for
    x > 4, K <= 10). nan where the argument leaves the branch.
    """
    from scipy.special import lambertw

    require(degree >= 3, "degree", degree, "at least 3 factors; two have an elementary root")
    inner = -degree / (degree - 2) * np.asarray(gamma, dtype=float) ** (degree / (degree - 2))
    inside = inner >= -np.exp(-1.0)
    root = np.where(inside, -(degree - 2) / degree * lambertw(np.where(inside, inner, -0.1), -1).real, np.nan)
    return root, (classes - 1) * np.exp(-root) / (root - 1 + 2 / degree)


@dataclass(frozen=True, eq=False)
class Within:
    """Eigenvalues of the Hessian on the (N - K) p_0 directions in which samples leave their class mean in H.

    Attributes:
        eigenvalues: (3,) towards the other classes, towards the own class, outside the span of the head.
        multiplicities: (3,).
        nc1_rate: asymptotic -d log NC1/dt of H for the flow: twice the mobility times the least of them.
        law, status, assumptions, source: as in `FixedPoint`; the status is that of the eigenvalues.
    """

    eigenvalues: Array
    multiplicities: tuple[int, int, int]
    nc1_rate: float
    law: str = "within_softmax"
    status: Standing = "exact"
    assumptions: tuple[str, ...] = ("At the collapsed fixed point; directions in which one sample leaves its class mean.",)
    source: str = "derived here"

    @property
    def formula(self) -> str:
        """The law in LaTeX."""
        from theory.derivations_dynamics import latex

        return latex(self.law)


def within_class(model: Any, lane: int = 0) -> Within:
    """Exact within-class eigenvalues at `fixed_point`, p the probability of the true class there:

        lambda_H (1 + x s/K)   K - 2 per direction;   s = 1; label smoothing: s = (g + a/K)/g
        lambda_H (1 - x g'/g)  1 per direction;       -g'/g = p s; focal: `Softmax.slope`
        lambda_H               p_0 - K + 1 per direction

    Squared loss has lambda_H/(1-x) on all K - 1 directions of the span; a softmax loss decays at O(lambda_H)
    everywhere, which is why cross-entropy alone is slow.

    Raises:
        BadInput: as `fixed_point`, or there is no collapsed fixed point.
    """
    point, loss = fixed_point(model, lane), strength.of(model)
    require(point.exists, "decay", model.decay, "weak enough for a collapsed fixed point")
    K, x, lh = model.classes, float(point.signal), float(model.feature_decays[lane])
    values = lh * np.array([1 + x * float(loss.spread(x)) / K, 1 + x * float(loss.slope(x)), 1.0])
    spare, extra = model.samples - K, model.widths[0] - K + 1
    counts = ((K - 2) * spare, spare, extra * spare)
    live = [v for v, k in zip(values, counts, strict=True) if k]
    return Within(values, counts, float(2 * model.mobilities[lane] * min(live)) if live else 0.0)
