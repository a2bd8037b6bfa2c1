r"""One mode of a decayed linear network: the scalar equation behind every closed form of this package.

Along one singular direction the D factors of a linear network multiply to z >= 0 and share their decay
equally, so that

    minimise over z:   (c/N) (g z^2 - 2 b z) + (D/2) lambda z^{2/D},

where lambda is the geometric mean of the D decays, g the Gram of what the network stands on and b its overlap
with the target. With the signal x = g z / b in [0, 1] (1: the target is fitted) and the *tension* gamma of
decay against data, a stationary point with z > 0 solves

    x^{1 - 2/D} (1 - x) = gamma,     gamma = (lambda N / 2c) g^{1 - 2/D} b^{2/D - 2}.

Free features have g = 1 and b a singular value of the targets (Dang et al. 2023); Gamma = gamma^D. D = 1 is
ridge regression, D = 2 the soft threshold. For D >= 3 there are two roots below a fold, the upper a minimum
of the mode's loss and the lower a maximum, and none above; zero is always a local minimum. Exact. The
equation is derived in `theory.derivations.mode`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def tension(degree: int, decay: ArrayLike, scale: ArrayLike, target: ArrayLike,
            gram: ArrayLike = 1.0) -> Array:
    """gamma, dimensionless, broadcast over the arguments; infinite where the target is zero.

    Args:
        degree: D, the number of factors.
        decay: geometric mean of the factors' decays.
        scale: 2c/N.
        target: b.
        gram: g > 0.
    """
    decay, scale, b, g = (np.asarray(v, dtype=float) for v in (decay, scale, target, gram))
    with np.errstate(divide="ignore"):
        overlap = np.where(b > 0, b, 0.0) ** (2 / degree - 2) if degree > 1 else np.ones_like(b)
        gamma = decay / scale * g ** (1 - 2 / degree) * overlap
    return np.where(b > 0, gamma, np.inf)


def fold(degree: int) -> tuple[float, float]:
    """(x, gamma) at which the two roots meet; for D = 2 where the signal vanishes, for D = 1 never."""
    if degree < 2:
        return 0.0, np.inf
    x = (degree - 2) / (2 * degree - 2)
    return x, x ** (1 - 2 / degree) * (1 - x)


def maxwell(degree: int) -> tuple[float, float]:
    """(x, gamma) at which the upper root costs as much as zero; beyond it zero is cheaper."""
    if degree < 2:
        return 0.0, np.inf
    x = (degree - 2) / (degree - 1)
    return x, x ** (1 - 2 / degree) * (1 - x)


def roots(degree: int, gamma: ArrayLike) -> tuple[Array, Array]:
    """Upper and lower root x of x^{1 - 2/D} (1 - x) = gamma, nan where there is none; the shape of `gamma`.

    Newton's method on the logarithm, which is concave, from the side on which it converges monotonically.
    """
    gamma = np.asarray(gamma, dtype=float)
    none = np.full(gamma.shape, np.nan)
    if degree == 1:
        return 1 / (1 + gamma), none
    if degree == 2:
        return np.where(gamma < 1, 1 - gamma, np.nan), none
    power, (top, limit) = 1 - 2 / degree, fold(degree)
    inside = gamma < limit
    with np.errstate(divide="ignore"):
        target = np.log(np.where(inside, gamma, limit / 2))
        gap = _climb(1.0, power, target, 1 - top)
        low = _climb(power, 1.0, target, top)
    return np.where(inside, 1 - gap, np.nan), np.where(inside, low, np.nan)


def _climb(near: float, far: float, target: Array, top: float) -> Array:
    """y in [0, top] with near log y + far log(1 - y) = target, `top` being where the left side is largest."""
    y = np.minimum(np.exp(target / near), top)
    for _ in range(100):
        safe = np.where(y > 0, y, 0.5)
        slope = near / safe - far / (1 - safe)
        rise = target - near * np.log(safe) - far * np.log1p(-safe)
        rise = np.where(slope > 0, rise / np.where(slope > 0, slope, 1), 0)
        step = np.where((y > 0) & (rise > 0), rise, 0.0)
        y = np.minimum(y + step, top)
        if np.all(step <= 1e-16 * y):
            break
    return y
