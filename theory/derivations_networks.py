r"""The symbolic steps behind `theory.closure`: identities of networks, whatever their loss and data.

A small network with the homogeneous activation phi(u) = u^t (its inputs positive, as a ReLU's are where it is on) and an
unspecified loss of its outputs stands for all; what is left of each claim is returned: zeros.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sympy as sp

from theory.derivations import Expression, K, N, c, lam, n, theta, x

t, d, s, m = sp.symbols("t d s m", positive=True)


def _network(degree: Any) -> tuple[list[Any], list[Any], list[Expression], list[Expression]]:
    """Weights and biases of two hidden layers of two units and a head of two outputs, the features and the outputs."""
    W = [sp.Matrix(2, 2, sp.symbols(f"W{i}_1:5", positive=True)) for i in (1, 2, 3)]
    B = [sp.Matrix(sp.symbols(f"b{i}_1:3", positive=True)) for i in (1, 2, 3)]
    h: Any = sp.Matrix(sp.symbols("x1:3", positive=True))
    for weights, shift in zip(W[:2], B[:2], strict=True):
        h = (weights * h + shift).applyfunc(lambda u: u**degree)
    return W, B, list(h), list(W[2] * h + B[2])


def _radial(value: Expression, entries: Any) -> Expression:
    """sum of v dvalue/dv over the entries."""
    return sum(v * sp.diff(value, v) for v in entries)


@cache
def balance(degree: int) -> tuple[Expression, ...]:
    """<W_l, dL/dW_l> + <b_l, dL/db_l> - t <W_{l+1}, dL/dW_{l+1}> for both hidden layers, L any function of the outputs; with
    decay lambda |.|^2/2 its stationarity is |W_l|^2 + |b_l|^2 = t |W_{l+1}|^2."""
    W, B, _, outputs = _network(sp.Integer(degree))
    left = sp.symbols("p1:3")  # dL/dF, arbitrary
    value = sum(p * f for p, f in zip(left, outputs, strict=True))
    return tuple(sp.expand(_radial(value, [*W[i], *B[i]]) - degree * _radial(value, W[i + 1])) for i in (0, 1))


@cache
def head_energy() -> Expression:
    """<W, dL/dW> + <b, dL/db> less <dL/dF, F> for the head: zero."""
    W, B, _, outputs = _network(sp.Integer(1))
    left = sp.symbols("p1:3")
    value = sum(p * f for p, f in zip(left, outputs, strict=True))
    return sp.expand(_radial(value, [*W[2], *B[2]]) - value)


@cache
def euler(degree: int) -> tuple[Expression, ...]:
    """sum of v dh/dv over the weights of the hidden layers less (t + t^2) h, without biases; and for t = 1 the same with the
    biases of layer l counted l times."""
    W, B, features, _ = _network(sp.Integer(degree))
    none = {v: 0 for shift in B for v in shift}
    bare = [h.subs(none) for h in features]
    out = [sp.expand(_radial(h, [*W[0], *W[1]]) - (degree + degree**2) * h) for h in bare]
    if degree == 1:
        out += [sp.expand(_radial(h, [*W[0], *W[1], *B[0]]) + 2 * _radial(h, B[1]) - 2 * h) for h in features]
    return tuple(out)


@cache
def homogeneity() -> tuple[Expression, ...]:
    """ReLU without biases, hidden layers times s: features less s^2 h, and their derivatives by one weight of each layer less s
    times those of h; zeros, so that a Rayleigh quotient of J J^T goes with s^{2(d-1)}, that is with fn^{2 - 2/d}; d = 2."""
    W, B, features, _ = _network(sp.Integer(1))
    none = {v: 0 for shift in B for v in shift}
    scaled = {v: s * v for weights in W[:2] for v in weights}
    h = features[0].subs(none)
    there = [sp.diff(h, v).subs(scaled, simultaneous=True) - s * sp.diff(h, v) for v in (W[0][0, 0], W[1][0, 1])]
    return tuple(sp.expand(v) for v in (h.subs(scaled, simultaneous=True) - s**2 * h, *there))


@cache
def tangent_kernel() -> tuple[Expression, Expression]:
    """Frames: m^4 less x^2 theta/(n d), and the signal's 1 - x less (K/2c) lambda sqrt(n d/theta), when the kernel is
    theta = lambda^2 d |W|^2/|G|^2 (Theta G = lambda d h at rest, balance) with |W|^2 = K w^2 and |G|^2 = N ((2c/N)(1 - x) w)^2,
    and the head is at rest, lambda w = (2c/N)(1 - x) n m, w m = x, N = K n."""
    w = x / m
    pull = 2 * c / N * (1 - x) * w
    kernel = lam**2 * d * K * w**2 / (N * pull**2)
    size = sp.solve(sp.Eq(lam * w, 2 * c / N * (1 - x) * n * m), m)[0]
    left = (m**4 - x**2 * kernel / (n * d)).subs(m, size).subs(N, K * n)
    # x < 1: the root of (1 - x)^2 is 1 - x
    gap = ((1 - x) ** 2 - (K / (2 * c)) ** 2 * lam**2 * n * d / theta).subs(theta, kernel).subs(N, K * n)
    return sp.simplify(left), sp.simplify(gap)
