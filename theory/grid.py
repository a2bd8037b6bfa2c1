r"""Fixed point, boundaries and rates at a million points: numpy broadcasting instead of one model at a time.

`free_features` is `UFM` and `on_data` is `DeepLinear` on `Isotropic` inputs, both with equal classes and with
the bias absent or not decayed; every argument is a number or an array, all broadcast together. The formulas
are those of `theory.mode`, `boundary`, `floor` and `rates`, and the tests hold the two paths together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncflow.errors import require
from theory import mode
from theory.deep_linear import SOURCE
from theory.point import Standing

Array = NDArray[np.float64]
CHUNK = 1 << 14  # points solved at a time: temporaries stay in the cache


@dataclass(frozen=True, eq=False, kw_only=True)
class Grid:
    """Arrays of the broadcast shape; nan where the collapsed point does not exist.

    Attributes:
        signal: as `FixedPoint.signal`.
        feature_norm: fn (root mean square on data with noise).
        exists: whether the collapsed point does.
        fold: common value of all decays at which it disappears.
        factor: multiple of the given decays at which it does.
        maxwell: common value at which zero becomes cheaper.
        floor: NC1 at rest.
        nc1_rate: of the features that enter the head, -d log NC1/dt; nan on data.
        signal_rate: slowest rate of the singular values.
        law, status, assumptions, source: as in `FixedPoint`; those of the fixed point, the rates are asymptotic.
    """

    signal: Array
    feature_norm: Array
    exists: NDArray[np.bool_]
    fold: Array
    factor: Array
    maxwell: Array
    floor: Array
    nc1_rate: Array
    signal_rate: Array
    law: str
    status: Standing = "exact"
    assumptions: tuple[str, ...] = ("Linear layers, equal classes, every width at least K; no bias or one that is not decayed.",)
    source: str = SOURCE

    @property
    def formula(self) -> str:
        """The law in LaTeX."""
        from theory.derivations import latex

        return latex(self.law)


def free_features(classes: ArrayLike, samples_per_class: ArrayLike, layers: ArrayLike, weights: ArrayLike,
                  features: ArrayLike, loss_scale: ArrayLike = 0.5, bias: ArrayLike = "none", *,
                  spare_width: ArrayLike = True, mobility: ArrayLike = 1.0) -> Grid:
    """`UFM` with one decay for all weight layers and one for the features. Exact.

    Args:
        classes, samples_per_class, layers: K, n, M.
        weights, features, loss_scale: lambda of every layer, lambda_H, c.
        bias: "none" or "free".
        spare_width: whether all widths exceed the number of modes (or else none does).
        mobility: theta, for the rates.

    Raises:
        BadInput: naming the argument that is out of range.
    """
    K, n, M, lw, lh, c, wide, theta = _broadcast(
        classes=classes, samples_per_class=samples_per_class, layers=layers, weights=weights,
        features=features, loss_scale=loss_scale, spare_width=spare_width, mobility=mobility)
    R, M = _modes(K, bias), M.astype(int)
    mean = lh ** (1 / (M + 1)) * lw ** (M / (M + 1))
    limits = _limits(M + 1)
    unit = 2 * c / K * n ** (-1 / (M + 1))  # decay at tension 1
    x = _upper(M + 1, mean / unit, limits[0])
    square = K * lw / (2 * c) * x / (1 - x)
    # `rates`: inside the modes; outside throughout; outside in H_1 only; in H_1 and the next layer
    out = theta * lh
    around = np.minimum(out + (M - 1) * lw, np.where(M > 1, np.minimum(2 * out + lw, out + 3 * lw), np.inf))
    gap = (2 * x - 1) / (1 - x)
    # symmetric block on (first factor, equal combination of the others); the rest of it is 2 lambda_W
    a, d, off = (2 + gap) * theta * lh, (2 + gap * M) * lw, gap * np.sqrt(M * theta * lh * lw)
    slow = (a + d) / 2 - np.hypot((a - d) / 2, off)
    return Grid(
        signal=x, feature_norm=np.sqrt(square * R / K), exists=np.isfinite(x), fold=limits[0] * unit,
        factor=limits[0] * unit / mean, maxwell=limits[1] * unit, floor=np.where(np.isfinite(x), 0.0, np.nan),
        nc1_rate=2 * np.minimum(out / (1 - x), np.where(wide > 0, around, np.inf)),
        signal_rate=np.where(M > 1, np.minimum(slow, 2 * lw), slow), law="mode")


def on_data(classes: ArrayLike, amplitude: ArrayLike, noise: ArrayLike, layers: ArrayLike, decay: ArrayLike,
            loss_scale: ArrayLike = 0.5, bias: ArrayLike = "none") -> Grid:
    """`DeepLinear` on `Isotropic` inputs: class means r, total noise v2, M layers. Exact.

    Raises:
        BadInput: naming the argument that is out of range.
    """
    K, r, v2, M, lam, c = _broadcast(classes=classes, amplitude=amplitude, noise=noise, layers=layers,
                                     decay=decay, loss_scale=loss_scale)
    R = _modes(K, bias)
    M, square = M.astype(int), r**2 + v2
    fold, maxwell = _limits(M)
    with np.errstate(invalid="ignore"):
        unit = 2 * c / K * r**2 / square * (square / r) ** (2 / M)
        x = _upper(M, lam / unit, fold)
    signal = x * r / square
    gap = (2 * x - 1) / (1 - x)
    slow = np.where(M > 1, lam * np.minimum(2, 2 + M * gap), lam / (1 - x))
    return Grid(
        signal=signal, feature_norm=np.sqrt(square * np.where(M > 1, R / K, 1)) * signal ** (1 - 1 / M),
        exists=np.isfinite(x), fold=fold * unit, factor=fold * unit / lam, maxwell=maxwell * unit,
        floor=np.where(np.isfinite(x), v2 / r**2 * np.where(M > 1, R, K) / (K - 1), np.nan),
        nc1_rate=np.full(K.shape, np.nan), signal_rate=slow, law="isotropic")


def _broadcast(**arguments: ArrayLike) -> list[Array]:
    low = {"classes": 2, "samples_per_class": 1, "layers": 1, "noise": 0, "spare_width": 0}
    arrays = {}
    for name, value in arguments.items():
        array = np.asarray(value, dtype=float)
        floor = low.get(name)
        inside = np.isfinite(array) & ((array > 0) if floor is None else (array >= floor))
        require(bool(inside.all()), name, value, "finite and " + (f"at least {floor}" if floor is not None
                                                                  else "greater than 0"))
        arrays[name] = array
    layers = arrays["layers"]
    require(bool(np.all(layers == np.floor(layers))), "layers", arguments["layers"], "whole numbers")
    return list(np.broadcast_arrays(*arrays.values()))


def _modes(K: Array, bias: ArrayLike) -> Array:
    named = np.asarray(bias)
    require(bool(np.isin(named, ("none", "free")).all()), "bias", bias, '"none" or "free"')
    return K - (named == "free")


def _limits(degree: NDArray[np.int_]) -> tuple[Array, Array]:
    """gamma of the fold and of the Maxwell point."""
    table = np.array([[mode.fold(D)[1], mode.maxwell(D)[1]] for D in range(1, int(degree.max()) + 1)])
    return table[degree - 1, 0], table[degree - 1, 1]


def _upper(degree: NDArray[np.int_], gamma: Array, limit: Array) -> Array:
    """Upper root of x^{1 - 2/D} (1 - x) = gamma for every point; nan where there is none."""
    out = np.full(gamma.shape, np.nan)
    flat, D, g, top = out.reshape(-1), degree.reshape(-1), gamma.reshape(-1), limit.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        part = slice(start, start + CHUNK)
        flat[part] = _newton(D[part], g[part], top[part])
    return flat.reshape(gamma.shape)


def _newton(degree: NDArray[np.int_], gamma: Array, limit: Array) -> Array:
    """As `mode.roots`: Newton for y = 1 - x on log y + (1 - 2/D) log(1 - y) = log gamma, from below."""
    out = np.full(gamma.shape, np.nan)
    out[degree == 1] = 1 / (1 + gamma[degree == 1])
    two = (degree == 2) & (gamma < 1)
    out[two] = 1 - gamma[two]
    left = np.flatnonzero((degree > 2) & (gamma < limit))
    far, aim = 1 - 2 / degree[left], np.log(gamma[left])
    top = 1 / (1 + far)
    y = np.minimum(gamma[left], top)
    for _ in range(100):
        slope = 1 / y - far / (1 - y)
        rise = aim - np.log(y) - far * np.log1p(-y)
        step = np.where((slope > 0) & (rise > 0), rise / np.where(slope > 0, slope, 1), 0.0)
        new = np.minimum(y + step, top)
        out[left] = 1 - new
        go = step > 1e-15 * new
        if not go.any():
            break
        left, far, aim, top, y = left[go], far[go], aim[go], top[go], new[go]
    return out
