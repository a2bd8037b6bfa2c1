"""Activations of the perceptrons and their pullbacks, each a family phi_a(z) = a phi(z/a) in the knob a.

By the names of `ncflow.activations`, where the family is explained, and ELU. What is positively homogeneous of degree 1 does
not see the knob: a ReLU(z/a) is ReLU(z).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

_aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """phi and its pullback.

    Attributes:
        forward: z -> phi(z); overwrites z when `in_place`.
        backward: (g, v) -> g phi'(z), where v is phi(z) if `in_place`, else z.
        in_place: the derivative is known from phi(z) alone, so z need not be kept.
        degree: degree of positive homogeneity, or None.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    in_place: bool = True
    degree: int | None = None


def _power(t: int) -> Activation:
    return Activation(lambda z: z.clamp(min=0).pow_(t), lambda g, z: g * z.clamp(min=0).pow_(t - 1).mul_(t), False, t)


#: By name, with PyTorch's default parameters (leaky slope 0.01, ELU scale 1, exact GELU).
ACTIVATIONS = MappingProxyType(
    {
        "linear": Activation(lambda z: z, lambda g, a: g, degree=1),
        "relu": Activation(torch.relu_, lambda g, a: _aten.threshold_backward(g, a, 0), degree=1),
        "leaky_relu": Activation(
            lambda z: F.leaky_relu_(z, 0.01), lambda g, a: _aten.leaky_relu_backward(g, a, 0.01, True), degree=1
        ),
        "relu^2": _power(2),
        "relu^3": _power(3),
        "elu": Activation(F.elu_, lambda g, a: _aten.elu_backward(g, 1, 1, 1, True, a)),
        "tanh": Activation(torch.tanh_, _aten.tanh_backward),
        "tanh_relu": Activation(
            lambda z: z.relu_().tanh_(), lambda g, a: _aten.threshold_backward(_aten.tanh_backward(g, a), a, 0)
        ),
        "gelu": Activation(F.gelu, _aten.gelu_backward, in_place=False),
        "silu": Activation(F.silu, _aten.silu_backward, in_place=False),
        "softplus": Activation(F.softplus, lambda g, z: _aten.softplus_backward(g, z, 1, 20), in_place=False),
    }
)


def scaled(name: str, a: float) -> Activation:
    """z -> a phi(z/a), a > 0."""
    phi = ACTIVATIONS[name]
    if a == 1 or phi.degree == 1:
        return phi
    if phi.in_place:
        return Activation(lambda z: phi.forward(z.div_(a)).mul_(a), lambda g, v: phi.backward(g, v / a), True, phi.degree)
    return Activation(lambda z: phi.forward(z / a).mul_(a), lambda g, z: phi.backward(g, z / a), False, phi.degree)
