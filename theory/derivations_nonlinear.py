r"""The symbolic steps behind the nonlinear models: `strength` and all that stands on it, and `activation`.

As `theory.derivations`, whose symbols and `latex` it shares: each function derives its result from a loss and
returns what is left when a claim is put in, zeros, or the equation itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, reduce
from operator import mul
from typing import Any

import sympy as sp

from theory.derivations import D, Equation, Expression, K, c, lam, lam_b, lam_H, lam_W, n, theta, x

a, f, g, L, rho, t, d, v = sp.symbols("a f g L rho t d v", positive=True)
gamma, p = sp.symbols("gamma p", positive=True)


def loss_curve(name: str) -> Expression:
    """l(x) on logits x (e_y - 1/K), written from the loss's definition."""
    if name == "mse":  # each of K classes: own logit short by (1-x)(1-1/K), others by (1-x)/K; b = 1/K
        return sp.simplify(c * ((1 - x) ** 2 * (1 - 1 / K) ** 2 + (K - 1) * ((1 - x) / K) ** 2))
    own, other = x * (1 - 1 / K), -x / K
    total = sp.exp(own) + (K - 1) * sp.exp(other)
    log_own, log_other = own - sp.log(total), other - sp.log(total)
    if name == "focal":
        return -((1 - sp.exp(log_own)) ** f) * log_own
    weight = a if name == "label_smoothing" else sp.Integer(0)
    return -(1 - weight + weight / K) * log_own - (K - 1) * weight / K * log_other


def strength(name: str) -> Expression:
    """g(x) = -l'(x)/(K - 1) from `loss_curve`."""
    return -sp.diff(loss_curve(name), x) / (K - 1)


def claim(name: str) -> Expression:
    """g(x) as `theory.strength` states it."""
    q = (K - 1) / (sp.exp(x) + K - 1)
    return {
        "mse": 2 * c / K * (1 - x),
        "cross_entropy": 1 / (sp.exp(x) + K - 1),
        "label_smoothing": 1 / (sp.exp(x) + K - 1) - a / K,
        "focal": (q**f - f * q ** (f - 1) * (1 - q) * sp.log(1 - q)) * q / (K - 1),
    }[name]


@cache
def rest(degree: int) -> tuple[tuple[Expression, ...], Equation]:
    """From L = l(w_1 .. w_D) + (K-1) sum lambda_i w_i^2/2 with l' = -(K-1) g: imbalances, zero identically,
    and the equation of the signal, prod lambda_i being P."""
    w, decays = sp.symbols(f"w1:{degree + 1}", positive=True), sp.symbols(f"l1:{degree + 1}", positive=True)
    curve, signal, P = sp.Function("l"), reduce(mul, w), sp.Symbol("P", positive=True)
    pairs = list(zip(w, decays, strict=True))
    loss = curve(signal) + (K - 1) * sum(li * wi**2 for wi, li in pairs) / 2
    pull = [sp.expand(wi * sp.diff(loss, wi).doit() - (K - 1) * li * wi**2) for wi, li in pairs]
    imbalance = tuple(sp.simplify(pull[0] - other) for other in pull[1:])
    # every lambda_i w_i^2 is x g; their product is P x^2
    return imbalance, sp.Eq(sp.powsimp((x * g) ** degree / x**2), P)


def root(name: str) -> Expression:
    """x with g(x) = gamma, D = 2."""
    if name == "label_smoothing":  # whose g is cross-entropy's less a/K
        return root("cross_entropy").subs(gamma, gamma + a / K)
    return sp.solve(sp.Eq(claim(name), gamma), x)[0]


def lambert(degree: int) -> Expression:
    """x^{D-2} e^{-D x} - gamma^D at the Lambert root, zero."""
    at = sp.Rational(degree, degree - 2)
    inner = sp.LambertW(-at * gamma**at, -1)
    found = -inner / at  # W e^W = argument eliminates the exponential
    exponential = (-at * gamma**at / inner) ** (degree - 2)  # e^{-D x} = e^{(D-2) W}
    return sp.simplify(sp.expand_power_base(found ** (degree - 2) * exponential, force=True) - gamma**degree)


def within_class(name: str, classes: int) -> tuple[Expression, Expression]:
    """Curvatures of one sample's loss at x (e_1 - 1/K), towards its own class and across the others."""
    z = sp.symbols(f"z1:{classes + 1}", real=True)
    total = sum(sp.exp(zi) for zi in z)
    logs = [zi - sp.log(total) for zi in z]
    if name == "focal":
        loss = -((1 - sp.exp(logs[0])) ** f) * logs[0]
    else:
        w = a if name == "label_smoothing" else sp.Integer(0)
        loss = -(1 - w + w / classes) * logs[0] - w / classes * sum(logs[1:])
    own = [sp.Rational(int(i == 0)) - sp.Rational(1, classes) for i in range(classes)]
    hessian = sp.hessian(loss, z).subs({zi: x * oi for zi, oi in zip(z, own, strict=True)})
    across = sp.Matrix([0, 1, -1, *[0] * (classes - 3)])
    return tuple(((u.T * hessian * u) / (u.T * u)[0])[0] for u in (sp.Matrix(own), across))  # type: ignore[return-value]


@cache
def frame_decayed() -> tuple[Expression, ...]:
    """What is left of the stationarity of w, w_0, beta and m for non-negative features under a bias with
    decay when the claims of `theory.nonnegative` are put in, the equation of v solved for lambda_H."""
    w, w0, m, beta = sp.symbols("w w0 m beta", positive=True)
    data = c / K * ((K - 1) * (1 - w * m) ** 2 + (m * w0 + K * beta - 1) ** 2)
    loss = data + (lam_W * ((K - 1) * w**2 + w0**2) + lam_H * n * K * m**2 + lam_b * K * beta**2) / 2
    q, slack = 2 * c / K, 2 * c / lam_b
    r, size = 1 / (1 + v + slack), sp.sqrt(v * lam_W / q)
    held = q**2 / (K * n * lam_W) * ((K - 1) / (1 + v) ** 2 + r**2)
    head = q / lam_W * size
    claims = {w: head / (1 + v), w0: head * r, beta: slack * r / K, m: size, lam_H: held}
    return tuple(sp.simplify(sp.diff(loss, u).subs(claims)) for u in (w, w0, beta, m))


@cache
def frame() -> tuple[Expression, ...]:
    """The same for a free bias, beta = 1/K, head w P V^T, with lambda_H K/(K-1) in the equation of x."""
    w, m = sp.symbols("w m", positive=True)
    loss = c / K * (K - 1) * (1 - w * m) ** 2 + (lam_W * (K - 1) * w**2 + lam_H * n * K * m**2) / 2
    pull = 2 * c / K * (1 - x)
    held = pull**2 / (n * lam_W) * (K - 1) / K  # pull = sqrt(n lambda_W lambda_H K/(K-1))
    forces = [sp.expand(u * sp.diff(loss, u)) for u in (w, m)]
    claims = [(w, x / m), (m**2, x * lam_W / pull), (lam_H, held)]  # m = sqrt(x lambda_W/pull), w m = x
    inverse = pull / (x * lam_W)
    return tuple(sp.simplify(sp.expand(force).subs(claims).subs(m**-2, inverse)) for force in forces)


@cache
def pairs(layers: int, units: int) -> tuple[Expression, Expression]:
    """Slopes of the loss of `theory.low_rank` along log A and rho, less the two sides of rest that it states; zeros."""
    A, r, P = sp.Symbol("A", positive=True), sp.Symbol("r", positive=True), sp.Symbol("P", positive=True)
    k, leak = units * (units - 1) // 2, sp.Integer(1) - r
    theta = (2 * (units - 2), units - 4, -2)
    times = (1, units - 1, k - units)
    q = 2 * c / k
    h = [A * (2 + leak * sp.Integer(v)) for v in theta]
    shape = 2 + (units - 2) * r**2
    e = (P * shape * A**2) ** sp.Rational(1, layers)  # P: decays, n and what is left of kappa
    # the head at its best: min over w of (c/k) (1 - w h)^2 + lambda w^2/2
    head = [(1 - q * v**2 / (q * v**2 + lam)) ** 2 * c / k + lam / 2 * (q * v / (q * v**2 + lam)) ** 2 for v in h]
    loss = sp.Rational(layers, 2) * e + sum(m * v for m, v in zip(times, head, strict=True))
    w2 = [(q * v / (q * v**2 + lam)) ** 2 for v in h]
    along = e - lam * sum(m * v for m, v in zip(times, w2, strict=True))
    across = (units - 2) * r * e / shape + lam * sum(
        m * v * t / (2 + leak * t) for m, v, t in zip(times, w2, theta, strict=True))
    return tuple(sp.simplify(left - right) for left, right in ((A * sp.diff(loss, A), along), (sp.diff(loss, r), across)))  # type: ignore[return-value]


@cache
def shares() -> tuple[Expression, Expression]:
    """Least decay cost per sample of a stream of mean mu and variance s^2 in L blocks, over lambda E s^2/2,
    and beta/gamma at which units outside a class of share 1/K sit at zero."""
    mu, s, scale = sp.symbols("mu s gamma_l", positive=True)
    cost = lam / 2 * L * ((s / L) ** 2 + (mu / L) ** 2)  # equal shares: the least sum of squares of given sum
    off = scale * (0 - 1 / K) / sp.sqrt((1 - 1 / K) / K)  # standardised indicator of one class, elsewhere
    return sp.simplify(cost / (lam / 2 * (s**2 + mu**2))), sp.simplify(-off / scale)


u = sp.Symbol("u", real=True)
#: phi(u) of `ncflow.activations`.
ACTIVATIONS: dict[str, Expression] = {
    "linear": u, "relu": sp.Max(u, 0), "leaky_relu": sp.Piecewise((u, u > 0), (u / 100, True)),
    "relu^2": sp.Max(u, 0) ** 2, "relu^3": sp.Max(u, 0) ** 3, "gelu": u * (1 + sp.erf(u / sp.sqrt(2))) / 2,
    "silu": u / (1 + sp.exp(-u)), "softplus": sp.log(1 + sp.exp(u)), "tanh": sp.tanh(u),
    "tanh_relu": sp.tanh(sp.Max(u, 0)),
}


def knob(phi: Expression, at: Any, scale: Any) -> Expression:
    """phi_a(x) = a phi(x/a)."""
    return scale * phi.subs(u, at / scale)


def degree(name: str) -> Expression:
    """k(u) = u phi'(u)/phi(u)."""
    phi = ACTIVATIONS[name]
    return sp.simplify(u * sp.diff(phi, u) / phi)


def _strength() -> Equation:
    i = sp.Symbol("i", integer=True)
    decays = sp.Product(sp.Indexed(sp.IndexedBase("lambda", positive=True), i), (i, 0, D - 1))
    return sp.Eq(x ** (D - 2) * sp.Function("g")(x) ** D, n * decays)


def fold_condition(degree: int) -> Expression:
    """d log(left side)/dx of the signal's equation, times x: (D - 2) + D x g'/g, which vanishes at the fold."""
    pull = sp.Function("g")(x)
    left = x ** (degree - 2) * pull**degree
    return sp.simplify(x * sp.diff(left, x) / left)


def _fold_strength() -> Equation:
    pull = sp.Function("g")
    return sp.Eq(gamma, sp.Function(r"\max_x")(x ** (1 - 2 / D) * pull(x)))


def _simplex_head() -> Equation:
    return sp.Eq(_strength().lhs, _strength().rhs * (K - 1) / K)  # D = M: the head is no factor


def _two(name: str) -> Equation:
    return sp.Eq(x, root(name).subs(gamma, sp.sqrt(n * lam_H * lam_W)))


def _frame() -> Equation:
    r = sp.Symbol("r")  # factors that carry the orthogonal frame
    return sp.Eq(_strength().lhs, _strength().rhs * (K / (K - 1)) ** r)


def _frame_decayed() -> Equation:
    pull = (K - 1) / (1 + v) ** 2 + 1 / (1 + v + 2 * c / lam_b) ** 2
    return sp.Eq(pull, K * n * lam_H * lam_W * (K / (2 * c)) ** 2)


def _batchnorm() -> Equation:
    return sp.Eq(sp.Function("g")(x), lam / sp.sqrt((K - 1) * L * (1 - rho)))


def _tangent_kernel() -> Equation:
    return sp.Eq(sp.Symbol("f_n"), sp.sqrt(x) * (theta / (n * d)) ** sp.Rational(1, 4))


def _forecast() -> Equation:
    first, norm = sp.symbols("theta_1 f_1", positive=True)
    fn = sp.Symbol("f_n", positive=True)
    return sp.Eq(fn ** (2 + 2 / d), x**2 * first / (n * d * norm ** (2 - 2 / d)))


def _balance() -> Equation:
    layer = sp.Symbol("l", integer=True)
    def square(name: str, index: Expression) -> Expression:
        return sp.Abs(sp.Indexed(name, index)) ** 2

    return sp.Eq(square("W", layer) + square("b", layer), t * square("W", layer + 1))


def _pairs() -> Equation:
    kappa, M, A = sp.Symbol("kappa", positive=True), sp.Symbol("M", positive=True), sp.Symbol("A", positive=True)
    i = sp.Symbol("i", integer=True)
    decays = sp.Product(sp.Indexed(sp.IndexedBase("lambda", positive=True), i), (i, 0, M - 1))
    head = sp.Symbol("lambda_M", positive=True) * sp.Abs(sp.Symbol("W")) ** 2
    return sp.Eq((n * decays * kappa * A**2) ** (1 / M), head)


LAWS: dict[str, Callable[[], Equation]] = {
    "pairs": _pairs,
    "fold_strength": _fold_strength,
    "strength": _strength,
    "cross_entropy": lambda: _two("cross_entropy"),
    "label_smoothing": lambda: _two("label_smoothing"),
    "focal": lambda: sp.Eq(claim("focal"), sp.sqrt(n * lam_H * lam_W)),
    "frame": _frame,
    "frame_decayed": _frame_decayed,
    "batchnorm": _batchnorm,
    "tangent_kernel": _tangent_kernel,
    "forecast": _forecast,
    "balance": _balance,
    "simplex_head": _simplex_head,
}
