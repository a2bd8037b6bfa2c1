"""Activations of the engine, each a family phi_a(x) = a phi(x/a) in the knob a.

For any phi, phi_a(s x) = s phi_{a/s}(x): turning the knob is turning the scale of the data. ReLU, leaky ReLU and the linear
map are positively homogeneous, so that the knob does nothing to them; the smooth ones tend to ReLU as a -> 0 (gelu, silu,
softplus) or as a -> infinity (tanh_relu). The local degree x phi_a'(x)/phi_a(x) measures how far from homogeneous they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from ncflow.errors import BadInput

SLOPE = 0.01  # of leaky_relu on the negative side, PyTorch's default


@dataclass(frozen=True)
class Activation:
    """phi and phi', elementwise.

    Attributes:
        value, slope: x -> phi(x), x -> phi'(x).
        degree: degree of positive homogeneity, or None.
        smooth: whether phi' is Lipschitz, as the field of gradient flow is made of phi': where its slope jumps to infinity
            (relu, and relu^t below t = 2, whose phi'' is x^(t-2)) adaptive steps of high order stall.
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    degree: float | None
    smooth: bool


def _normal_cdf(x: Tensor) -> Tensor:
    return torch.erfc(-x / math.sqrt(2)) / 2  # keeps the far tail, which torch.special.ndtr rounds to zero


def _normal_pdf(x: Tensor) -> Tensor:
    return torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)


def _power(t: float) -> Activation:
    return Activation(lambda x: x.clamp(min=0) ** t, lambda x: t * x.clamp(min=0) ** (t - 1), t, t >= 2)


def _silu_slope(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 + x * (1 - s))


#: By name; `find` knows relu^t for every t >= 1, homogeneous of another degree. "tanh_relu" is tanh(relu(x)), which saturates.
ACTIVATIONS: Mapping[str, Activation] = MappingProxyType({
    "linear": Activation(lambda x: x, torch.ones_like, 1, True),
    "relu": Activation(lambda x: x.clamp(min=0), lambda x: (x > 0).to(x.dtype), 1, False),
    "leaky_relu": Activation(lambda x: F.leaky_relu(x, SLOPE), lambda x: (x > 0).to(x.dtype) * (1 - SLOPE) + SLOPE, 1, False),
    "relu^2": _power(2),
    "relu^3": _power(3),
    "gelu": Activation(lambda x: x * _normal_cdf(x), lambda x: _normal_cdf(x) + x * _normal_pdf(x), None, True),
    "silu": Activation(lambda x: x * torch.sigmoid(x), _silu_slope, None, True),
    "softplus": Activation(lambda x: torch.logaddexp(x, torch.zeros_like(x)), torch.sigmoid, None, True),
    "tanh": Activation(torch.tanh, lambda x: 1 - torch.tanh(x).square(), None, True),
    "tanh_relu": Activation(lambda x: torch.tanh(x.clamp(min=0)),
                            lambda x: (1 - torch.tanh(x).square()) * (x > 0), None, False),
})


def exponent(name: str) -> float | None:
    """t of "relu^t", or None where the name is not of that form or t is not a number from 1 on."""
    try:
        t = float(name.removeprefix("relu^")) if name.startswith("relu^") else math.nan
    except ValueError:
        return None
    return t if 1 <= t < math.inf else None


def find(name: str) -> Activation:
    """The activation called `name`, one of `ACTIVATIONS` or "relu^t" with any number t >= 1, such as "relu^1.5".

    Raises:
        BadInput: an unknown name, or an exponent below 1.
    """
    if isinstance(name, str):
        if name in ACTIVATIONS:
            return ACTIVATIONS[name]
        if (t := exponent(name)) is not None:
            return ACTIVATIONS["relu"] if t == 1 else _power(t)
    raise BadInput("activation", name, f"one of {', '.join(ACTIVATIONS)}, or relu^t with a number t >= 1")


def scaled(name: str, a: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """x -> a phi(x/a) and its derivative x -> phi'(x/a); `a` broadcasts over lanes, (lanes, 1, 1)."""
    phi = find(name)
    if phi.degree == 1:
        return phi.value, phi.slope
    return lambda x: a * phi.value(x / a), lambda x: phi.slope(x / a)
