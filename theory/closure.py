r"""What rest means for a real network: identities between layers, and fn from its tangent kernel.

A network of M weight layers with an activation of positive degree t (1 for ReLU), all weights decayed by
lambda, F its outputs (K x N), G_F = -dL/dF the pull on them ((2c/N)(Y - F) for squared loss).

**Balance** (6.1, exact at every stationary point). Scaling one layer is scaling the next to the power t, so
<W_l, dL/dW_l> + <b_l, dL/db_l> = t <W_{l+1}, dL/dW_{l+1}>, and at rest

    |W_l|^2 + |b_l|^2 = t |W_{l+1}|^2,     lambda (|W_M|^2 + |b_M|^2) = <G_F, F>,

b_l decayed like the weights; without biases, or with biases that are not decayed, the |b|^2 drop out. Along
gradient flow the differences decay as e^{-2 lambda t}, also away from rest.

**Euler** (6.1, exact everywhere). Scaling W_l by s and b_l by s^l (t = 1) scales the features h of the d-th
hidden layer by s^d, so sum_theta theta dh/dtheta = d h without biases (t + ... + t^d in general) and less by
sum_l (l - 1) b_l dh/db_l with them. At rest, with Theta = J J^T the tangent kernel of the features and
G = W^T G_F the pull on them: Theta G = lambda J theta = lambda d h.

**Tangent-kernel closure** (6.3, empirical). Features that move under Theta feel an effective decay lambda
d/theta, theta a Rayleigh quotient of Theta, and the fixed points of free features then give

    fn = sqrt(x) (theta/(n d))^{1/4},    x = 1 - (K/2c) lambda sqrt(n d/theta)

if the class means are an orthogonal frame. If not, <G, Theta G> = lambda^2 d |W|^2, W the head that is
stationary on them (`theory.head`), gives theta as a function of their scale, n d sum m_j^-2 / sum m_j^-6 for
small decay and singular values m_j, and so fn from the shape. theta must be taken on the class-mean part of
the pull: its within-class part is most of it at small lambda and has nothing to do with the features. theta
is measured at the end: an identity, not a forecast. `forecast` makes one of it: homogeneity carries the theta
of the cross-entropy phase to the rest point of the squared loss.

**A priori** (6.4). A bias-free ReLU network on orthogonal class means is the linear network of
`theory.deep_linear` on the same data, exactly without noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncflow.errors import require
from ncflow.model import DeepLinear, Isotropic
from theory import deep_linear, nonnegative, strength
from theory.head import _array, head_from_gram
from theory.point import FixedPoint

Array = NDArray[np.float64]
CLOSURE_ERROR = ("Squared loss, measured on ReLU networks: 0.7% where class means are a frame (noise up to a "
                 "tenth of them), 1% with decayed biases, 12% on random means, 21% with free biases; with "
                 "shape and degree along the pull 0.8%, 0.3%, 3% and 0.4%. GELU 20%, tanh 48%.")
FORECAST_ERROR = ("Squared loss after cross-entropy, measured on ReLU networks without biases. Phase 1 at rest: 0.3% where class "
                  "means are a frame, with noise up to a tenth of them; random means 12%, with their Gram 1 to 3%. Phase 1 "
                  "far from rest: up to 12% low for frames, and the Gram then errs the other way.")
SOURCE = "derived here; tangent kernel: Jacot et al. 2018"
A_PRIORI_ERROR = ("Exact for orthogonal class means without noise; with i.i.d. noise of 2%, 5%, 12% of their "
                  "norm 0.1%, -0.2%, +0.4%; random instead of orthogonal means +0.6%.")


def _square(values: Any) -> float:
    return 0.0 if values is None else float(np.sum(_array(values) ** 2))


def balance(weights: Sequence[Any], biases: Sequence[Any] | None = None, *, degree: float = 1.0) -> Array:
    """(M - 1,) relative violation of balance, (|W_l|^2 + |b_l|^2)/(t |W_{l+1}|^2) - 1; zeros at rest.

    Args:
        weights: W_1..W_M, numpy or torch.
        biases: b_1..b_M or None entries, only if they are decayed as the weights are.
        degree: t of the activation, `theory.activation.homogeneous`.
    """
    require(len(weights) > 1, "weights", len(weights), "at least two layers")
    require(biases is None or len(biases) in (len(weights) - 1, len(weights)), "biases", biases,
            "one per layer (the head's is not used)")
    shift = [None] * len(weights) if biases is None else list(biases)
    sizes = [_square(W) for W in weights]
    below = np.array([s + _square(b) for s, b in zip(sizes, shift, strict=False)])[: len(sizes) - 1]
    return below / (degree * np.array(sizes[1:])) - 1


def head_energy(pull: ArrayLike, outputs: ArrayLike, decay: float) -> float:
    """<G_F, F>/lambda: |W_M|_F^2 at rest, plus |b_M|^2 if the head's bias is decayed. Exact.

    Args:
        pull: (K, N) -dL/dF of the data term, the 1/N of its mean included.
        outputs: (K, N) F.
    """
    require(decay > 0, "decay", decay, "greater than 0")
    return float(np.sum(_array(pull) * _array(outputs))) / decay


def euler_degree(features: ArrayLike, radial: ArrayLike, along: ArrayLike | None = None) -> float:
    """<V, J theta>/<V, h>: d for ReLU without biases, whatever V.

    Args:
        features: (p, N) h.
        radial: (p, N) J theta, the derivative of h along the decayed parameters themselves.
        along: (p, N) V, by default h. With biases take what the kernel is measured on, `class_mean_part`:
            biases that are not decayed leave J theta far from h, but not along the pull.
    """
    h, V = _array(features), _array(features if along is None else along)
    return float(np.sum(V * _array(radial)) / np.sum(V * h))


def expected_degree(hidden: int, degree: float = 1.0) -> float:
    """t + t^2 + ... + t^d, the Euler degree of the features of the d-th hidden layer, without biases."""
    return float(sum(degree**i for i in range(1, hidden + 1)))


def class_mean_part(pull: ArrayLike, labels: ArrayLike) -> Array:
    """(p, N) the pull on the features with every sample replaced by its class mean."""
    G, y = _array(pull), np.asarray(labels)
    onehot = np.eye(int(y.max()) + 1)[y]
    return (G @ onehot / onehot.sum(axis=0)) @ onehot.T


def rayleigh(pulled: ArrayLike | Sequence[Any], cotangent: ArrayLike) -> float:
    """theta = |J^T V|^2/|V|^2, V the class-mean part of the pull and J^T V its vector-Jacobian product.

    Args:
        pulled: J^T V, one array or one per parameter.
        cotangent: (p, N) V.
    """
    parts = pulled if isinstance(pulled, list | tuple) else [pulled]
    return sum(_square(p) for p in parts) / _square(cotangent)


@dataclass(frozen=True, kw_only=True)
class Closure:
    """fn from a tangent kernel.

    Attributes:
        feature_norm: fn; nan where no head is stationary.
        signal: x.
        feature_decay: effective decay of the features, lambda d/theta.
        theta: Rayleigh quotient that belongs to that fn.
        law, status, assumptions, source: as in `FixedPoint`.
    """

    feature_norm: float
    signal: float
    feature_decay: float
    theta: float
    law: str = "tangent_kernel"
    status: str = "empirical"
    assumptions: tuple[str, ...] = (CLOSURE_ERROR,)
    source: str = SOURCE

    @property
    def formula(self) -> str:
        """The law in LaTeX."""
        from theory.derivations import latex

        return latex(self.law)


def _positive(**arguments: float) -> None:
    for name, value in arguments.items():
        require(bool(np.isfinite(value)) and value > 0, name, value, "greater than 0")


def tangent_kernel(theta: float, degree: float, decay: float, loss: strength.Square | strength.Softmax,
                   samples_per_class: int, bias: str = "none", *, bias_decay: float | None = None,
                   shape: ArrayLike | None = None) -> Closure:
    """fn from the tangent kernel of the features: free features with an effective decay lambda d/theta.

    Args:
        theta: `rayleigh`.
        degree: d, the Euler degree.
        decay: lambda of all parameters.
        loss: of `theory.strength`; squared loss was measured, others not.
        samples_per_class: n.
        bias: of the head; "decayed" by `bias_decay`, by default `decay`.
        shape: (K, K) raw Gram of the class means up to scale; by default an orthogonal frame.

    Raises:
        BadInput: naming the argument.
    """
    _positive(theta=theta, degree=degree, decay=decay)
    held, K, head_decay = decay * degree / theta, loss.classes, decay if bias_decay is None else bias_decay
    if not isinstance(loss, strength.Square):
        require(shape is None, "shape", shape, "None: only squared loss has a formula for other shapes")
        # the pull W^T G_F has (K-1)/K of its square on the units that are on, which is what moves
        decays = np.array([held * (K - 1) / K, decay])
        point = nonnegative.point(loss, np.full(K, samples_per_class), decays, bias)
        return Closure(feature_norm=float(point.feature_norm), signal=float(point.signal), feature_decay=held, theta=theta)
    return _closed(theta, 0.0, 1.0, degree, decay, loss, samples_per_class, bias, head_decay, shape)


def forecast(theta: float, feature_norm: float, hidden: int, decay: float, loss: strength.Square, samples_per_class: int,
             bias: str = "none", *, shape: ArrayLike | None = None) -> Closure:
    """fn at rest under squared loss, and its theta, from what a ReLU network shows at the end of a cross-entropy phase.

    The features and their kernel are homogeneous: scaling all d hidden layers alike takes theta with fn^{2 - 2/d}.
    With the directions of the weights kept, theta at the new rest point is that of phase 1 carried along, and the
    tangent-kernel closure becomes an equation for fn alone, in frames fn^{2 + 2/d} = x^2 theta_1/(n d fn_1^{2 - 2/d}). A
    softmax pulls on the centred logits, of which only the share (K-1)/K meets units that are on: theta_1 K/(K-1) is
    what an uncentred pull sees.

    Args:
        theta: `rayleigh` on the class-mean part of the cross-entropy pull at the end of phase 1.
        feature_norm: fn there.
        hidden: d, ReLU layers below the head, without biases.
        decay: lambda of all parameters.
        loss: of the second phase, `theory.strength.Square`.
        samples_per_class: n.
        bias: of the head, "none" or "free".
        shape: (K, K) raw Gram of the class means at the end of phase 1; by default an orthogonal frame.

    Raises:
        BadInput: naming the argument.
    """
    _positive(theta=theta, feature_norm=feature_norm, hidden=hidden, decay=decay)
    require(isinstance(loss, strength.Square), "loss", type(loss).__name__, "Square: the phase whose rest is forecast")
    require(bias in ("none", "free"), "bias", bias, '"none" or "free"')
    K = loss.classes
    seen = theta * (K / (K - 1) if bias == "none" else 1.0)
    found = _closed(seen, 2 - 2 / hidden, feature_norm, hidden, decay, loss, samples_per_class, bias, decay, shape)
    return replace(found, law="forecast", assumptions=(FORECAST_ERROR,))


def _closed(theta: float, power: float, reference: float, degree: float, decay: float, loss: strength.Square, n: int,
            bias: str, bias_decay: float, shape: ArrayLike | None) -> Closure:
    """fn at which the head stationary on the class means needs the kernel theta (fn/reference)^power."""
    K, c = loss.classes, loss.loss_scale
    gram = np.eye(K) if shape is None else _array(shape)
    require(gram.shape == (K, K), "shape", f"array of shape {gram.shape}", f"({K}, {K})")
    gram = gram / np.mean(np.sqrt(np.diag(gram))) ** 2
    a = 2 * c / (decay * K)

    def at(log_fn: float) -> tuple[float, Array]:
        """log of theta over what the head on means of that norm makes of it, and the head's residual."""
        G = np.exp(2 * log_fn) * gram
        R = head_from_gram(G, decay, c, bias, bias_decay=bias_decay if bias == "decayed" else None).residual
        WW = a**2 * R @ G @ R.T  # W = -a R M^T
        pulls = 4 * c**2 / (K**2 * n) * np.sum(R * (WW @ R))
        there = np.log(theta) + power * (log_fn - np.log(reference))
        return float(np.log(decay**2 * degree * np.trace(WW) / pulls) - there), R

    # a kernel that goes with fn has a second root next to zero: take the largest
    grid = np.linspace(-3 + np.log(decay / (2 * c)) / 2, 20.0, 161)
    below = np.flatnonzero([at(v)[0] < 0 for v in grid])
    log_fn = np.nan
    if len(below) and below[-1] + 1 < len(grid):
        log_fn = strength.crossing(lambda v: at(v)[0], float(grid[below[-1]]), float(grid[below[-1] + 1]))
    if not np.isfinite(log_fn):
        nothing = float("nan")
        return Closure(feature_norm=nothing, signal=nothing, feature_decay=nothing, theta=nothing)
    signal = 1 + float(np.trace(at(log_fn)[1]) / (K - (bias != "none")))
    fn = float(np.exp(log_fn))
    carried = theta * (fn / reference) ** power
    return Closure(feature_norm=fn, signal=signal, feature_decay=decay * degree / carried, theta=carried)


def relu_mlp(hidden: int, classes: int, amplitude: float, decay: float, *, noise: float = 0.0,
             samples_per_class: int = 1, loss_scale: float = 0.5) -> FixedPoint:
    """Rest point of a bias-free ReLU network of `hidden` layers on class means that are `amplitude` times
    orthonormal vectors, with i.i.d. noise of standard deviation `noise` per coordinate.

    Exact without noise: the linear network of `theory.deep_linear` with M = hidden + 1 layers; with noise
    empirical. Low-rank solutions of deep networks are another branch.
    """
    model = DeepLinear(classes=classes, samples_per_class=samples_per_class, layers=hidden + 1, decay=decay,
                       loss_scale=loss_scale, inputs=Isotropic(amplitude, classes * noise**2), width=classes)
    point = deep_linear.fixed_point(model, 0, deep_linear.moments(model))
    said = (*point.assumptions, A_PRIORI_ERROR)
    return replace(point, assumptions=said, status="empirical" if noise else point.status, modes=None)
