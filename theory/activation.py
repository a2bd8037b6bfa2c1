r"""How far from homogeneous an activation is, and what its knob does.

Positive homogeneity, phi(s x) = s^t phi(x), is what makes layers balance (`theory.closure`). Its local
measure is the degree

    k(x) = x phi'(x)/phi(x),

constant and equal to t where phi is homogeneous. Two identities settle what a knob can test:

- alpha ReLU(x/alpha) = ReLU(x): scaling a ReLU in and out is no change at all, so an experiment that varies
  alpha there compares a network with itself.
- For every phi the family phi_a(x) = a phi(x/a) obeys phi_a(s x) = s phi_{a/s}(x), hence k_a(x) = k_1(x/a):
  the knob is the scale of what enters, in units of which the activation departs from its limits. A bias-free
  network whose every activation has knob a, on data X, is a times one with knob 1 on X/a.

The families of `ncflow.activations` and their limits (`limits`): gelu, silu and softplus tend to ReLU as
a -> 0; tanh_relu, a tanh(relu(x)/a), as a -> infinity, when tanh tends to linear and gelu and silu to x/2,
whose degree is 1 again: their defect is not monotone in a, softplus' is. leaky_relu keeps degree 1 and
changes shape, relu^t keeps homogeneity and changes degree. Exact; sympy forms in
`theory.derivations_nonlinear`, compared with the engine's own derivatives in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_ndtr

from ncflow.activations import exponent, find
from ncflow.errors import BadInput, require

Array = NDArray[np.float64]


def _gelu(u: Array) -> Array:
    return 1 + u * np.exp(-u * u / 2 - log_ndtr(u)) / np.sqrt(2 * np.pi)


def _softplus(u: Array) -> Array:
    v = np.maximum(u, -30.0)
    return np.where(u < -30, u, v * expit(v) / np.logaddexp(0, v))


def _tanh(u: Array) -> Array:
    v = np.minimum(np.abs(u), 350.0)
    return np.where(v > 0, 2 * v / np.sinh(np.where(v > 0, 2 * v, 1.0)), 1.0)


def _positive(degree: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda u: np.where(u > 0, degree(np.where(u > 0, u, 1.0)), np.nan)


def _constant(degree: float) -> Callable[[Array], Array]:
    return lambda u: np.full(np.shape(u), degree)


#: k(u) by name; nan where phi vanishes on an interval and the degree has no meaning.
DEGREES: Mapping[str, Callable[[Array], Array]] = MappingProxyType({
    "linear": _constant(1.0),
    "relu": _positive(_constant(1.0)),
    "leaky_relu": _constant(1.0),
    "relu^2": _positive(_constant(2.0)),
    "relu^3": _positive(_constant(3.0)),
    "gelu": _gelu,
    "silu": lambda u: 1 + u * expit(-u),
    "softplus": _softplus,
    "tanh": _tanh,
    "tanh_relu": _positive(_tanh),
})

#: (a -> 0, a -> infinity) of a phi(x/a) for x > 0, with the rest of the line in words.
LIMITS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "linear": ("x", "x"),
    "relu": ("relu(x)", "relu(x)"),
    "leaky_relu": ("leaky_relu(x)", "leaky_relu(x)"),
    "relu^2": ("diverges as relu(x)^2/a", "0, as relu(x)^2/a"),
    "relu^3": ("diverges as relu(x)^3/a^2", "0, as relu(x)^3/a^2"),
    "gelu": ("relu(x)", "x/2"),
    "silu": ("relu(x)", "x/2"),
    "softplus": ("relu(x)", "diverges as a ln 2 + x/2"),
    "tanh": ("0, as a sign(x)", "x"),
    "tanh_relu": ("0, as a [x > 0]", "relu(x)"),
})


def _degree(name: str) -> Callable[[Array], Array]:
    """k(u) of any activation that the engine finds."""
    find(name)
    return DEGREES[name] if name in DEGREES else _positive(_constant(exponent(name) or np.nan))


def local_degree(name: str, x: ArrayLike, a: ArrayLike = 1.0) -> Array:
    """k_a(x) = x phi_a'(x)/phi_a(x) of phi_a(x) = a phi(x/a). Exact, broadcast; nan where phi_a is 0 nearby.

    Args:
        name: one that `ncflow.activations.find` knows.
        x: pre-activation, in the units of the data.
        a: knob, positive.

    Raises:
        BadInput: `activation` or `a`.
    """
    knob = np.asarray(a, dtype=float)
    require(bool((knob > 0).all()), "a", a, "greater than 0")
    return _degree(name)(np.asarray(x, dtype=float) / knob)


def limits(name: str) -> tuple[str, str]:
    """What a phi(x/a) tends to as a -> 0 and as a -> infinity."""
    find(name)
    t = exponent(name)
    if t == 1:
        return LIMITS["relu"]
    if t is None or (name := f"relu^{t:g}") in LIMITS:
        return LIMITS[name]
    return (f"diverges as relu(x)^{t:g}/a^{t - 1:g}", f"0, as relu(x)^{t:g}/a^{t - 1:g}")


def homogeneous(name: str) -> float:
    """Degree t of positive homogeneity: phi_a = a^{1-t} phi, so for t = 1 the knob does nothing.

    Raises:
        BadInput: the activation has none.
    """
    values = _degree(name)(np.array([0.5, 3.0]))
    if np.ptp(values) > 0:
        raise BadInput("activation", name, "linear, leaky_relu, relu or relu^t; no other is")
    return float(values[0])


def mean_degree(name: str, scale: ArrayLike, a: float = 1.0) -> Array:
    """E[x phi_a' phi_a]/E[phi_a^2] for Gaussian x of standard deviation `scale`: the degree that enters the
    Euler identity <h, x dh/dx> = k |h|^2 of a wide layer at initialisation. By quadrature, to 1e-6."""
    require(a > 0, "a", a, "greater than 0")
    phi, sigma = find(name), np.asarray(scale, dtype=float)
    nodes = np.linspace(-12, 12, 20001)
    x = sigma[..., None] * nodes / a
    value, slope = (f(torch.tensor(x)).numpy() for f in (phi.value, phi.slope))
    weight = np.exp(-nodes**2 / 2)
    return np.sum(weight * x * slope * value, axis=-1) / np.sum(weight * value**2, axis=-1)
