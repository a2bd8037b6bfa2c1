r"""Adam's effective rates with coupled decay: what becomes of lambda when gradients are noisy.

Adam divides the mean gradient g of a coordinate by the root mean square of what it sees, so that near rest a
coordinate of curvature h under mini-batch noise of standard deviation s follows

    x' = -eta h x / sqrt(s^2 + h^2 x^2)   per step,   rate rho = eta h/s where noise dominates, speed eta where not,

and settles to a spread <x^2> = eta s/(2 h), since the memory of the numerator passes the noise on at weight one.
For the balance between layers h is 2 lambda: gradient flow restores it at 2 lambda, Adam at 2 lambda eta/s per
step. With noise s_i of its own in every layer the D - 1 imbalances of a mode, z = prod w_i held by the data,
decay at the eigenvalues of

    (I - q q^T) A (I - q q^T),     A = diag(2 lambda eta/s_i),  q ~ A^{1/2} 1,     D = 2: 4 lambda eta/(s_1 + s_2),

because sum_i of s_i w_i^2 (d/dt) stays with decay alone. Resting points stay where they are (the mean gradient
vanishes there), except that a coordinate which only decay holds keeps <w^2> = eta s/(2 lambda) at constant rate:
at eta = s = 1e-3, lambda = 1e-4 that is 5e-3 per coordinate, more than a trained weight matrix of a wide network
has, so that what a constant rate comes to is not the rest point. A schedule that ends at 0 removes it.

Without noise (full batch) the division takes out the gradient's size: a coordinate whose gradient changes little
within Adam's memory of 1/(1 - beta_2) steps moves at eta per step, whatever lambda. A step is stable while
eta h/size < 2 (1 + beta_1)/(1 - beta_1), 38 at 0.9 (Cohen et al. 2022).

Asymptotic: slow motion, rate << 1 - beta_2 per step, so that the denominator sees the present noise. Kingma and
Ba 2015 (the rule); derived here, measured against the engine's own Adam in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncflow.errors import require
from theory.point import Standing

Array = NDArray[np.float64]
SOURCE = "Kingma and Ba 2015 (Adam); Cohen et al. 2022 (stability); rates derived here"
SLOW = "Slow motion: the rate is far below 1 - beta_2 per step, and the noise of a coordinate does not change meanwhile."
ERROR = ("Measured on the engine's Adam: rate to 1% at a tenth of 1 - beta_2, to 20% at 1 - beta_2; spread to 5%; balance with "
         "unequal noise to 12%.")


@dataclass(frozen=True, eq=False, kw_only=True)
class AdamRate:
    """How one coordinate relaxes, per step; the broadcast shape of the arguments.

    Attributes:
        rate: rho, -d log x/d step.
        spread: stationary <x^2> at constant learning rate.
        stable: whether a step of that size is.
        law, status, assumptions, source: as in `FixedPoint`.
    """

    rate: Any
    spread: Any
    stable: Any
    law: str = "adam_rate"
    status: Standing = "asymptotic"
    assumptions: tuple[str, ...] = (SLOW, ERROR)
    source: str = SOURCE

    @property
    def formula(self) -> str:
        """The law in LaTeX."""
        from theory.derivations_dynamics import latex

        return latex(self.law)


def _positive(**arguments: Any) -> list[Array]:
    out = []
    for name, value in arguments.items():
        array = np.asarray(value, dtype=float)
        require(bool(np.all(np.isfinite(array) & (array > 0))), name, value, "finite and greater than 0")
        out.append(array)
    return out


def stability_limit(beta1: float = 0.9) -> float:
    """eta h/size from which a step is unstable, 2 (1 + beta_1)/(1 - beta_1)."""
    return 2 * (1 + beta1) / (1 - beta1)


def effective_rate(curvature: ArrayLike, lr: ArrayLike, noise: ArrayLike, *, gradient: ArrayLike = 0.0, beta1: float = 0.9,
                   epsilon: float = 1e-8) -> AdamRate:
    """Relaxation of a coordinate under Adam (coupled decay) near rest.

    Args:
        curvature: h of the loss with its decay: 2 lambda for the balance between layers, lambda for a weight that only
            decay holds.
        lr: eta, the learning rate.
        noise: s, standard deviation of the mini-batch gradient of that coordinate; the root of Adam's own
            `exp_avg_sq` where the mean gradient is small.
        gradient: mean gradient g that the denominator sees too.
        beta1: of Adam.
        epsilon: Adam's eps.

    Raises:
        BadInput: naming the argument.
    """
    h, eta, s = _positive(curvature=curvature, lr=lr, noise=noise)
    require(0 <= beta1 < 1, "beta1", beta1, "in [0, 1)")
    require(epsilon >= 0, "epsilon", epsilon, "not negative")
    size = np.sqrt(s**2 + np.asarray(gradient, dtype=float) ** 2) + epsilon
    rate = eta * h / size
    spread = eta * s**2 / (2 * h * size)
    found = [v[()] for v in np.broadcast_arrays(rate, spread, rate < stability_limit(beta1))]
    return AdamRate(rate=found[0], spread=found[1], stable=found[2])


def balance_rates(decay: float, lr: float, noise: ArrayLike) -> AdamRate:
    """The D - 1 rates per step at which the balance of D layers comes back under Adam, ascending.

    Args:
        decay: lambda of all layers.
        lr: eta.
        noise: (D,) s_i, gradient noise of each layer, D >= 2; equal ones give 2 lambda eta/s.

    Raises:
        BadInput: naming the argument.
    """
    (lam,), (eta,) = _positive(decay=[decay]), _positive(lr=[lr])
    (s,) = _positive(noise=noise)
    require(s.ndim == 1 and len(s) >= 2, "noise", noise, "one number per layer, at least two layers")
    a = 2 * lam * eta / s
    q = np.sqrt(a / a.sum())
    along = np.eye(len(s)) - np.outer(q, q)
    rates = np.sort(np.linalg.eigvalsh(along @ np.diag(a) @ along))[1:]
    return AdamRate(rate=rates.astype(float), spread=np.full(len(rates), np.nan), stable=rates < stability_limit(),
                    law="adam_balance")


def norm_floor(decay: ArrayLike, lr: ArrayLike, noise: ArrayLike, coordinates: ArrayLike = 1) -> Any:
    """|W|_F^2 that noise keeps in `coordinates` weights which only decay holds: count times eta s/(2 lambda)."""
    return effective_rate(decay, lr, noise).spread * np.asarray(coordinates, dtype=float)
