r"""A linear network at a stationary point, in the bases in which its second variation is sparse.

With A = U diag(z) V^T the end-to-end map, r active modes, every factor is diagonal in singular bases, its
amplitudes x_i = (lambda/lambda_i)^{1/2} z^{1/D} on the active modes and zero elsewhere. Stationarity makes
the residual A G + b m^T - B (G = X X^T, m = X 1, B = Y X^T) diagonal on the active modes and leaves a block
between dead directions, whose singular vectors complete the bases. In them the second variation of the loss,

    (c/N) [tr dZ G dZ^T + 2 db^T dZ m + N |db|^2 + 2 <residual, d^2 Z>] + sum (lambda_i/2) |dX_i|^2,

couples an entry (a, b) of a factor only with entries (a, b) and (b, a) of the others, and with db_a. Free
features are the case G = I, X_0 = H diag(sqrt n_k)^{-1} on the classes. Exact for a given stationary point.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncflow.errors import BadInput, require
from ncflow.model import UFM, DeepLinear, Isotropic
from theory import deep_linear, ufm
from theory.point import Branch, FixedPoint

Array = NDArray[np.float64]
Index = NDArray[np.intp]
ROUNDING = 1e-11  # an entry below this share of the largest is zero: bases of equal modes mix at rounding


PLAIN = (("loss", "mse"), ("activation", "linear"), ("nonnegative", False), ("normalization", "none"),
         ("classifier", "free"))


def linear_square(model: UFM | DeepLinear) -> bool:
    """Whether `model` is a linear network under squared loss, nothing constrained or held fixed."""
    return all(getattr(model, field, plain) == plain for field, plain in PLAIN)


def require_linear(model: UFM | DeepLinear, what: str) -> None:
    """Raise `BadInput` naming the field unless `model` is a linear network under squared loss."""
    require(isinstance(model, UFM | DeepLinear), "model", type(model), "a UFM or a DeepLinear")
    for field, plain in PLAIN:
        value = getattr(model, field, plain)
        require(value == plain, field, value, f"{what} is known for {field} = {plain!r}")


def points(model: UFM | DeepLinear) -> Iterator[FixedPoint]:
    """The collapsed fixed point of every lane, one by one, with its `modes`."""
    data = None if isinstance(model, UFM) else deep_linear.moments(model)
    for lane in range(model.lanes):
        if isinstance(model, UFM):
            yield ufm.fixed_point(model, lane)
        else:
            assert data is not None
            yield deep_linear.fixed_point(model, lane, data)


def root_of(point: FixedPoint, branch: Branch) -> FixedPoint:
    """`point` or the one of its other roots on `branch`."""
    for root in (point, *point.other_roots):
        if root.branch == branch:
            return root
    have = ", ".join(repr(root.branch) for root in (point, *point.other_roots))
    raise BadInput("branch", branch, f"one of {have}")


@dataclass(frozen=True, eq=False)
class Rest:
    """One lane at a stationary point; modes 0..r-1 are active, the rest dead.

    Attributes:
        z: (r,) singular values of the end-to-end map.
        residual: (S,) diagonal of the residual in (U, V), S = max(K, d), zero where not paired.
        gram: (d, d) G in V.
        push: (d,) m in V; None without a bias.
        decays: (D,) lambda_i, first factor to head.
        clock: (D,) square root of each factor's mobility; eigenvalues are those of the flow.
        hidden: (D - 1,) widths between the factors.
        outputs: K.
        scale: 2c/N.
        samples: N.
        bias_curvature: 2c + lambda_b.
        within: N - K directions of the samples about their class means; 0 for data.
    """

    z: Array
    residual: Array
    gram: Array
    push: Array | None
    decays: Array
    clock: Array
    hidden: tuple[int, ...]
    outputs: int
    scale: float
    samples: int
    bias_curvature: float
    within: int

    @property
    def degree(self) -> int:
        return len(self.decays)

    @property
    def rank(self) -> int:
        return len(self.z)

    @property
    def inputs(self) -> int:
        return len(self.gram)

    @property
    def decay_rates(self) -> Array:
        """(D,) mobility times lambda."""
        return self.decays * self.clock**2

    @cached_property
    def amplitude(self) -> Array:
        """(D, S) singular values of the factors."""
        D = self.degree
        mean = np.exp(np.mean(np.log(self.decays))) if self.decays.all() else 0.0
        pull = np.sqrt(mean / self.decays) if mean else np.ones(D)
        out = np.zeros((D, len(self.residual)))
        out[:, : self.rank] = pull[:, None] * self.z ** (1 / D)
        return out

    @cached_property
    def left(self) -> Array:
        """(D, S) products of the amplitudes above each factor."""
        x = self.amplitude
        return np.stack([np.prod(x[i + 1:], axis=0) for i in range(self.degree)])

    @cached_property
    def right(self) -> Array:
        """(D, S) products of the amplitudes below each factor."""
        return np.stack([np.prod(self.amplitude[:i], axis=0) for i in range(self.degree)])

    @cached_property
    def between(self) -> Array:
        """(D, D, S) products of the amplitudes strictly between two factors i < j."""
        D, x = self.degree, self.amplitude
        out = np.ones((D, D, x.shape[1]))
        for i in range(D):
            for j in range(i + 1, D):
                out[i, j] = np.prod(x[i + 1:j], axis=0)
        return out

    @cached_property
    def mean(self) -> int | None:
        """The right index that the bias pushes on, when it is one; -1 when there are several."""
        if self.push is None:
            return None
        hit = np.flatnonzero(self.push)
        return int(hit[0]) if len(hit) == 1 else -1

    @property
    def decoupled(self) -> bool:
        """Whether pairs of modes are independent: G diagonal and the bias on one mode."""
        return self.mean != -1 and not (self.gram - np.diag(np.diag(self.gram))).any()

    def curvature(self, layer: Index, row: Index, column: Index, bias: Index) -> Array:
        """Second derivatives of L between the entries (layer, row, column) of the factors and db_bias."""
        x_left, x_right = self.left[layer, row], self.right[layer, column]
        gain = x_left * x_right
        same = row[:, None] == row[None, :]
        first = self.scale * np.outer(gain, gain) * same * self.gram[np.ix_(column, column)]
        # d^2 Z pairs (j, a, g) with (i, g, a), i < j
        upper, lower = layer[:, None], layer[None, :]
        meets = (upper > lower) & (column[:, None] == row[None, :]) & (row[:, None] == column[None, :])
        middle = self.between[np.minimum(upper, lower), np.maximum(upper, lower), column[:, None]]
        second = np.where(meets, self.scale * (self.residual[row] * x_left)[:, None] * middle
                          * self.right[layer, column][None, :], 0.0)
        clock = self.clock[layer]
        out = (first + second + second.T + np.diag(self.decays[layer])) * np.outer(clock, clock)
        if self.push is None or not bias.size:
            return out
        side = self.scale * (self.push[column] * gain * clock)[:, None] * (row[:, None] == bias[None, :])
        return np.block([[out, side], [side.T, self.bias_curvature * np.eye(len(bias))]])


def rest(model: UFM | DeepLinear, lane: int, point: FixedPoint, mobility: float = 1.0) -> Rest:
    """`point`, a fixed point of that lane with its `modes`, as a `Rest`.

    Args:
        mobility: theta of free features; 1 gives the Hessian itself.
    """
    assert point.modes is not None
    U, z, V = point.modes
    counts = np.asarray(model.class_counts, dtype=float)
    free, biased = isinstance(model, UFM), model.bias != "none"
    gram, push, cross = _data(model, counts)
    residual = (U * z) @ (V.T @ gram) - cross
    if biased:
        residual = residual + np.outer(point.bias, push)
    r, K, d = len(z), model.classes, len(gram)
    Ud, Vd = _complement(U), _complement(V)
    P, dead, Qt = np.linalg.svd(Ud.T @ residual @ Vd)
    Ud, Vd = Ud @ P, Vd @ Qt.T
    diagonal = np.zeros(max(K, d))
    diagonal[:r] = np.einsum("ia,ij,ja->a", U, residual, V)
    diagonal[r:r + len(dead)] = dead
    V = np.concatenate([V, Vd], axis=1)
    decays = model.weight_decays[lane]
    clock = np.ones(len(decays))
    if isinstance(model, UFM):
        decays = np.concatenate([[model.feature_decays[lane]], decays])
        clock = np.concatenate([[np.sqrt(mobility)], clock])
    return Rest(
        z=z, residual=diagonal, gram=_clean(V.T @ gram @ V), push=_clean(V.T @ push) if biased else None,
        decays=decays, clock=clock, hidden=tuple(model.widths), outputs=K,
        scale=2 * model.loss_scale / model.samples, samples=model.samples,
        bias_curvature=2 * model.loss_scale + float(model.bias_decays[lane]),
        within=model.samples - K if free else 0)


def _data(model: UFM | DeepLinear, counts: Array) -> tuple[Array, Array, Array]:
    """G (d, d), m (d,) and B (K, d)."""
    K = model.classes
    if isinstance(model, UFM):
        return np.eye(K), np.sqrt(counts), np.diag(np.sqrt(counts))
    if isinstance(model.inputs, Isotropic):
        r, n = model.inputs.amplitude, counts[0]
        return n * (r**2 + model.inputs.noise) * np.eye(K), n * r * np.ones(K), n * r * np.eye(K)
    X: Any = model.inputs
    edges = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
    return X @ X.T, X.sum(axis=1), np.add.reduceat(X, edges, axis=1).T


def _complement(frame: Array) -> Array:
    """(m, m - r) orthonormal basis of what (m, r) orthonormal columns leave."""
    if not frame.size:
        return np.eye(len(frame))
    return np.linalg.svd(frame, full_matrices=True)[0][:, frame.shape[1]:]


def _clean(values: Array) -> Array:
    return np.where(np.abs(values) > ROUNDING * np.abs(values).max(initial=0), values, 0.0)
