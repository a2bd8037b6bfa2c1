r"""What a trained classifier says about the features under it: the head at a collapsed stationary point.

Let the features equal their class means M (p x K), G = M^T M their Gram (raw, not centred), pi_k = n_k/N and
Pi = diag(pi). If the head W and its bias b are stationary for L = (c/N)|WM[:, y] + b 1^T - Y|^2 +
(lambda/2)|W|^2 + (lambda_b/2)|b|^2, then with a = 2c/lambda

    W = a (I - b 1^T) (I + a Pi G)^{-1} Pi M^T,   b = u / (lambda_b/2c + 1^T u),   u = (I + a Pi G)^{-1} pi,

lambda_b = 0 being a bias that is not decayed; b = 0 without one. With lambda_b = lambda (decay on all
parameters, as in SGD and Adam with coupled weight decay) the bias is the weight of a constant feature 1, that
is G becomes G + 11^T. The residual W M + b 1^T - I is -(I - b 1^T)(I + a Pi G)^{-1}. Only the head's own
stationarity is used: the identity is exact whatever the layers below and their activations, with equal or
unequal classes, and fails by the within-class scatter when features have not collapsed. It does not hold for
decoupled decay (AdamW). Derived symbolically in `theory.derivations.head`.

Equal classes and a free bias: only the centred Gram P G P matters, |W|^2 = sum_j a^2 g_j / (K (1 + a g_j /
K))^2 over its K - 1 nonzero eigenvalues g_j, so that a head norm and the *shape* of the Gram fix its scale,
hence fn, in the units of the features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncflow.errors import require
from ncflow.model import BIASES
from theory.point import Standing

Array = NDArray[np.float64]
SOURCE = "derived here (ridge regression on the class means)"
COLLAPSED = "Features equal to their class means, squared loss, a head at rest under coupled decay; layers below do not matter."
ROUNDING = 1e-12  # eigenvalues of a Gram shape below this share of the largest are zero


@dataclass(frozen=True, eq=False)
class Head:
    """A stationary head.

    Attributes:
        weight_norm: (...,) |W|_F.
        bias: (..., K) b.
        residual: (..., K, K) logits of the class means (columns) minus I.
        law, status, assumptions, source: as in `FixedPoint`.
    """

    weight_norm: Array
    bias: Array
    residual: Array
    law: str = "head"
    status: Standing = "exact"
    assumptions: tuple[str, ...] = (COLLAPSED,)
    source: str = SOURCE

    @property
    def formula(self) -> str:
        """The law in LaTeX."""
        from theory.derivations import latex

        return latex(self.law)


def _array(value: Any) -> Array:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, dtype=np.float64)


def _inputs(gram: Any, decay: float, loss_scale: float, bias: str, bias_decay: float | None, shares: Any,
            name: str = "gram") -> tuple[Array, float | None, Array]:
    """The Gram symmetrised, the bias decay in use (None without a bias) and the class shares."""
    G = _array(gram)
    require(G.ndim >= 2 and G.shape[-1] == G.shape[-2] >= 2, name, f"array of shape {G.shape}",
            "shape (..., K, K), K >= 2")
    require(bool(np.isfinite(G).all()), name, "an array with NaN or infinite entries", "finite entries")
    require(decay > 0, "decay", decay, "greater than 0")
    require(loss_scale > 0, "loss_scale", loss_scale, "greater than 0")
    require(bias in BIASES, "bias", bias, f"one of {', '.join(BIASES)}")
    require(bias_decay is None or (bias == "decayed" and bias_decay > 0), "bias_decay", bias_decay,
            'greater than 0, with bias = "decayed"; by default the decay of the weights')
    K = G.shape[-1]
    pi = np.full(K, 1 / K) if shares is None else _array(shares)
    require(pi.shape == (K,) and bool((pi > 0).all()), "shares", shares,
            f"{K} positive numbers n_k, or their shares n_k/N")
    used = {"none": None, "free": 0.0, "decayed": decay if bias_decay is None else bias_decay}[bias]
    return (G + np.swapaxes(G, -1, -2)) / 2, used, pi / pi.sum()


def _spectrum(G: Array, pi: Array) -> tuple[Array, Array]:
    """(g, E): Pi G Pi = E diag(g) E^T, Pi = E E^T, hence (I + a Pi G)^{-1} Pi = E diag(1/(1 + a g)) E^T."""
    root = np.sqrt(pi)
    g, E = np.linalg.eigh(root[:, None] * G * root)
    return np.where(g > ROUNDING * g[..., -1:], g, 0.0), root[:, None] * E


def _stationary(g: Array, E: Array, a: float, offset: float | None) -> tuple[Array, Array]:
    """(..., K) the bias, `offset` = lambda_b/2c being None without one, and (...,) |W|_F."""
    u = np.einsum("...ij,...j->...i", E, E.sum(axis=-2) / (1 + a * g))
    b = np.zeros_like(u) if offset is None else u / (offset + u.sum(axis=-1, keepdims=True))
    W = a * E * (np.sqrt(g) / (1 + a * g))[..., None, :]
    W = W - b[..., None] * W.sum(axis=-2, keepdims=True)
    return b, np.sqrt(np.sum(W**2, axis=(-2, -1)))


def head_from_gram(gram: Any, decay: float, loss_scale: float, bias: str = "none", *,
                   bias_decay: float | None = None, shares: ArrayLike | None = None) -> Head:
    """The head that is stationary above collapsed class means with Gram matrix `gram`. Exact there.

    Args:
        gram: (..., K, K) G of the raw class means of the features that enter the head, numpy or torch.
        decay: lambda of the head's weights, (lambda/2)|W|^2.
        loss_scale: c; 1/K for PyTorch's mean-reduced MSE.
        bias: "none", "free" or "decayed".
        bias_decay: lambda_b when decayed; by default `decay`.
        shares: (K,) n_k or n_k/N; equal by default.

    Raises:
        BadInput: naming the argument.
    """
    G, used, pi = _inputs(gram, decay, loss_scale, bias, bias_decay, shares)
    a = 2 * loss_scale / decay
    g, E = _spectrum(G, pi)
    b, norm = _stationary(g, E, a, None if used is None else used / (2 * loss_scale))
    inverse = (E / (1 + a * g)[..., None, :]) @ np.swapaxes(E, -1, -2)
    return Head(norm, b, (b[..., None] * inverse.sum(axis=-2, keepdims=True) - inverse) / pi)


def _scales(weight_norm: float, norm: Callable[[Array], Array], low: float, high: float) -> Array:
    """Every s in [low, high] with norm(s) = weight_norm, ascending."""
    while norm(np.array([high]))[0] > weight_norm:
        high *= 4
    grid = np.geomspace(low, high, 513)
    gap = norm(grid) - weight_norm
    turns = np.flatnonzero(np.diff(np.sign(gap)) != 0)
    low_side, high_side, rising = grid[turns], grid[turns + 1], gap[turns] < 0
    for _ in range(60):
        middle = np.sqrt(low_side * high_side)
        below = (norm(middle) < weight_norm) == rising
        low_side, high_side = np.where(below, middle, low_side), np.where(below, high_side, middle)
    return np.sqrt(low_side * high_side)


def gram_scales(weight_norm: float, shape: Any, decay: float, loss_scale: float, bias: str = "none", *,
                bias_decay: float | None = None, shares: ArrayLike | None = None) -> Array:
    """Every scale s, ascending, at which class means of Gram s * `shape` carry a head of norm `weight_norm`.

    |W| rises with s while decay wins and falls, as 1/sqrt s, where the targets are nearly met (signal x > 1/2
    on every mode); so there are two scales, or more where eigenvalues of the shape differ by a factor that
    decay can see, or none when the norm is larger than any stationary head's. Arguments as in
    `feature_norm_from_head`, one case at a time.
    """
    G, used, pi = _inputs(shape, decay, loss_scale, bias, bias_decay, shares, "shape")
    require(G.ndim == 2, "shape", f"array of shape {G.shape}", "one (K, K) matrix")
    require(weight_norm > 0, "weight_norm", weight_norm, "greater than 0")
    a, offset = 2 * loss_scale / decay, None if used is None else used / (2 * loss_scale)
    g, E = _spectrum(G, pi)
    require(bool(g[-1] > 0), "shape", "a matrix without positive eigenvalues", "a Gram matrix up to scale")
    least = float(g[g > 0][0])

    def norm(s: Array) -> Array:
        return _stationary(s[:, None] * g, E, a, offset)[1]

    low = 1e-3 * min(1 / a, (weight_norm / a) ** 2) / float(g.sum())
    return _scales(weight_norm, norm, low, 2 / (a * least))


def feature_norm_from_head(weight_norm: Any, shape: Any, decay: float, loss_scale: float, bias: str = "none",
                           *, bias_decay: float | None = None, shares: ArrayLike | None = None) -> Array:
    """fn that a stationary head of Frobenius norm `weight_norm` implies, given the class-mean Gram up to
    scale.

    The largest scale of `gram_scales`, that of weak decay; fn = sum_k (n_k/N) |mu_k| in the units of the
    features. Exact at a collapsed stationary point whose Gram has this shape and whose active modes all have
    x > 1/2; a matrix of raw cosines is the shape of equal norms.

    Args:
        weight_norm: (...,) |W_head|_F.
        shape: (..., K, K) s G for any s > 0, or raw cosines; numpy or torch. Leading dimensions broadcast
            with `weight_norm`.
        decay, loss_scale, bias, bias_decay, shares: as in `head_from_gram`.

    Returns:
        (...,), nan where no stationary head is that large.

    Raises:
        BadInput: naming the argument.
    """
    norms, G = _array(weight_norm), _array(shape)
    _, _, pi = _inputs(G, decay, loss_scale, bias, bias_decay, shares, "shape")
    batch = np.broadcast_shapes(norms.shape, G.shape[:-2])
    norms = np.broadcast_to(norms, batch)
    G = np.broadcast_to(G, batch + G.shape[-2:])
    out = np.full(batch, np.nan)
    for i in np.ndindex(batch):
        scales = gram_scales(float(norms[i]), G[i], decay, loss_scale, bias, bias_decay=bias_decay,
                             shares=shares)
        if scales.size:
            out[i] = np.sqrt(scales[-1]) * float(pi @ np.sqrt(np.diag(G[i])))
    return out


def feature_norm_estimate(weight_norm: ArrayLike, classes: int, decay: float, loss_scale: float,
                          bias: str = "none", *, cosine: ArrayLike = 0.0) -> Array:
    """fn from the head alone when class means have equal norms and one raw cosine rho (0: an orthogonal
    frame).

        fn = x sqrt(R / (1 - rho)) / |W|_F,   x = [1 + sqrt(1 - 2 lambda |W|^2 K / (c R))]/2,

    with R = K without a bias (rho must be 0) and R = K - 1 with a free one. Exact at a collapsed stationary
    point of balanced classes with that geometry, an estimate elsewhere; nan where no stationary head is that
    large. Broadcast over `weight_norm` and `cosine`.
    """
    require(bias in ("none", "free"), "bias", bias,
            '"none" or "free"; feature_norm_from_head handles "decayed"')
    W, rho = _array(weight_norm), _array(cosine)
    require(bias == "free" or not rho.any(), "cosine", cosine, '0 when bias = "none"')
    R = classes if bias == "none" else classes - 1
    with np.errstate(invalid="ignore"):
        x = (1 + np.sqrt(1 - 2 * decay * W**2 * classes / (loss_scale * R))) / 2
    return x * np.sqrt(R / (1 - rho)) / W
