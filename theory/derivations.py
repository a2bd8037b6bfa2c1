r"""The symbolic steps behind the formulas of this package, in sympy, which takes a second to import.

Each function derives its result from the loss and returns it as sympy equations, so that a wrong step shows
in the result; the tests compare them with the numerical code. `LAWS` names the equations that a `FixedPoint`
quotes, `latex` prints them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, reduce
from operator import mul
from typing import Any

import sympy as sp

Equation = Expression = Any  # sympy's own annotations are wider than what its functions return here

K, n, N, c, D = sp.symbols("K n N c D", positive=True)
x, z, b, g, e = sp.symbols("x z b g e", positive=True)
lam, lam_b, lam_H, lam_W = sp.symbols("lambda lambda_b lambda_H lambda_W", positive=True)
Gamma, sigma, theta = sp.symbols("Gamma sigma theta", positive=True)


@dataclass(frozen=True)
class Mode:
    """One mode of D factors: `imbalance` of neighbours, `energy` e = lambda_i w_i^2, mode `equation`."""

    imbalance: tuple[Expression, ...]
    energy: Equation
    equation: Equation
    tension: Equation


@cache
def mode(degree: int) -> Mode:
    """From L = (c/N)(g z^2 - 2 b z) + sum lambda_i w_i^2 / 2, z = prod w_i, to x^{D-2} (1 - x)^D = Gamma with
    x = g z/b.

    `imbalance` holds w_i dL/dw_i - w_j dL/dw_j - (lambda_i w_i^2 - lambda_j w_j^2), which vanishes
    identically: at rest the factors share one energy. `tension` gives Gamma in terms of P = prod lambda_i.
    """
    w = sp.symbols(f"w1:{degree + 1}", positive=True)
    l = sp.symbols(f"l1:{degree + 1}", positive=True)  # noqa: E741
    P = sp.Symbol("P", positive=True)
    product = reduce(mul, w)
    decay = sum(li * wi**2 / 2 for li, wi in zip(l, w, strict=True))
    loss = c / N * (g * product**2 - 2 * b * product) + decay
    force = [sp.expand(wi * sp.diff(loss, wi)) for wi in w]
    pull = [sp.expand(f - li * wi**2) for f, li, wi in zip(force, l, w, strict=True)]
    imbalance = tuple(sp.expand(pull[0] - p) for p in pull[1:])
    rest = sp.simplify(pull[0].subs(w[0], z / reduce(mul, w[1:], sp.Integer(1)))) + e
    energy: Expression = sp.factor(sp.solve(rest, e)[0])
    # z^2 prod lambda_i = e^D, because e = lambda_i w_i^2 for every factor
    decays = sp.powsimp(sp.simplify(energy.subs(z, x * b / g) ** degree / (x * b / g) ** 2), force=True)
    shape = x ** (degree - 2) * (1 - x) ** degree
    unit = sp.simplify(decays / shape)
    if unit.has(x):
        raise ArithmeticError(f"the mode equation of degree {degree} does not separate: {unit}")
    return Mode(imbalance, sp.Eq(e, energy), sp.Eq(shape, Gamma), sp.Eq(Gamma, P / unit))


@cache
def fold() -> tuple[Expression, Expression]:
    """(x, Gamma) where the left side of the mode equation is largest, for symbolic D."""
    top = sp.solve(sp.diff((D - 2) * sp.log(x) + D * sp.log(1 - x), x), x)[0]
    return top, (x ** (D - 2) * (1 - x) ** D).subs(x, top)


@cache
def mode_cost() -> Expression:
    """Loss at a root less that at zero, in units of (c/N) b^2/g, the decay costing D/2 energies."""
    energy = 2 * c / N * z * (b - g * z)
    loss = c / N * (g * z**2 - 2 * b * z) + D / 2 * energy
    return sp.expand(sp.simplify(loss.subs(z, x * b / g) * N * g / (c * b**2)))


@cache
def maxwell() -> tuple[Expression, Expression]:
    """(x, Gamma) where a mode on its upper root costs as much as zero, for symbolic D."""
    tie = sp.solve(sp.cancel(mode_cost() / x), x)[0]
    return tie, (x ** (D - 2) * (1 - x) ** D).subs(x, tie)


@dataclass(frozen=True)
class Bias:
    """Head bias eliminated: its `optimum`, and the `theta` of the loss left over, (c/N)(Q - theta S^2/N)."""

    optimum: Equation
    theta: Equation


@cache
def bias() -> Bias:
    """min over beta of (c/N) sum_i (r_i + beta)^2 + (lambda_b/2) beta^2, r having sum S and square Q."""
    S, Q, beta = sp.symbols("S Q beta", real=True)
    loss = c / N * (Q + 2 * beta * S + N * beta**2) + lam_b / 2 * beta**2
    best = sp.solve(sp.diff(loss, beta), beta)[0]
    left = sp.simplify((Q - loss.subs(beta, best) * N / c) * N / S**2)
    return Bias(sp.Eq(beta, best), sp.Eq(theta, left))


@dataclass(frozen=True)
class TwoFactors:
    """UFM with one layer and equal classes, per active mode: sigma, m^2 of class means, w^2 of the head."""

    signal: Equation
    class_mean: Equation
    weight: Equation


@cache
def two_factors() -> TwoFactors:
    """From L = (c/K)(w m - 1)^2 + lambda_W w^2/2 + lambda_H n m^2/2 on one mode, N = K n."""
    w, m, t = sp.symbols("w m t", positive=True)
    loss = c / K * (w * m - 1) ** 2 + lam_W * w**2 / 2 + lam_H * n * m**2 / 2
    share = sp.solve(sp.expand(w * sp.diff(loss, w) - m * sp.diff(loss, m)), w)[0]  # balance: w = t m
    square = sp.solve(sp.expand(sp.diff(loss, w).subs(w, t * m) / m), m**2)[0]  # and sigma = w m = t m^2
    ratio = sp.simplify(share / m)
    signal = sp.expand(sp.expand(square * t).subs(t, ratio))
    return TwoFactors(sp.Eq(sigma, signal), sp.Eq(m**2, sigma / ratio), sp.Eq(w**2, sigma * ratio))


@cache
def mean_mode_threshold() -> Expression:
    """lambda_b above which the mean mode of a one-layer UFM is active: its signal, c shrunk, is 0 there."""
    shrunk = c * (1 - bias().theta.rhs)
    return sp.factor(sp.solve(sp.simplify(two_factors().signal.rhs.subs(c, shrunk)), lam_b)[0])


@cache
def isotropic() -> tuple[Equation, Equation]:
    """Mode equation on `Isotropic` data, for a centred mode and for the mean mode under a bias, from G and B
    of a small example.

    K = 3 classes of two samples mu_k +- noise with E E^T = n v2 I; Gram and cross moments are diagonal in
    class space and its mean.
    """
    r, s, v2, M = sp.symbols("r s v2 M", positive=True)
    k, each = 3, 2
    means, noise = r * sp.eye(k), sp.sqrt(sp.Rational(each, 2) * v2) * sp.eye(k)
    X = sp.Matrix.hstack(*(means[:, i] + sign * noise[:, i] for i in range(k) for sign in (1, -1)))
    Y = sp.Matrix.hstack(*(sp.eye(k)[:, i] for i in range(k) for _ in (1, -1)))
    total = k * each
    centre = sp.eye(total) - theta * sp.ones(total, total) / total
    G, B = (X * centre * X.T).applyfunc(sp.expand), (Y * centre * X.T).applyfunc(sp.expand)
    equations = []
    for u in (sp.Matrix([1, -1, 0]) / sp.sqrt(2), sp.ones(k, 1) / sp.sqrt(3)):
        gram, cross = sp.simplify((u.T * G * u)[0]), sp.simplify((u.T * B * u)[0])
        if any(sp.simplify(entry) != 0 for entry in [*(G * u - gram * u), *(B * u - cross * u)]):
            raise ArithmeticError("isotropic data do not decouple")
        pull = sp.expand(cross / each) - s * sp.expand(gram / each)
        equations.append(sp.Eq(2 * c / K * sp.collect(pull, s), lam * s ** (2 / M - 1)))
    return equations[0], equations[1]


def head(classes: int, bias: str = "none", *, equal: bool = False) -> tuple[sp.Matrix, sp.Matrix]:
    """What is left of the stationarity of the head in `theory.head` when the claimed W and b are put in:
    zeros.

    For a symbolic Gram G and shares pi (1/K if `equal`), with a = 2c/lambda and delta = lambda_b/2c, over the
    common denominator: a R Pi + T, where W = T M^T, and R pi + delta b, where R = T G + b 1^T - I.
    """
    a, delta = sp.symbols("a delta", positive=True)
    G = sp.Matrix(classes, classes, lambda i, j: sp.Symbol(f"G{min(i, j)}{max(i, j)}", positive=True))
    some = sp.symbols(f"pi0:{classes - 1}", positive=True)
    pi = sp.ones(classes, 1) / classes if equal else sp.Matrix([*some, 1 - sum(some)])
    Pi, one, eye = sp.diag(*pi), sp.ones(classes, 1), sp.eye(classes)
    system = eye + a * Pi * G
    adjugate, det = system.adjugate().applyfunc(sp.expand), sp.expand(system.det(method="berkowitz"))
    weight = {"none": None, "free": sp.Integer(0), "decayed": delta}[bias]
    u = (adjugate * pi).applyfunc(sp.expand)  # times det
    q = sp.Integer(1) if weight is None else sp.expand(weight * det + (one.T * u)[0])
    b = sp.zeros(classes, 1) if weight is None else u  # times q
    T = a * ((q * eye - b * one.T).applyfunc(sp.expand) * adjugate * Pi).applyfunc(sp.expand)  # times q det
    R = (T * G + det * b * one.T - q * det * eye).applyfunc(sp.expand)  # times q det
    on_bias = sp.zeros(classes, 1) if weight is None else R * pi + weight * det * b
    return (a * R * Pi + T).applyfunc(sp.expand), on_bias.applyfunc(sp.expand)


def _head() -> Equation:
    k, p = sp.symbols("K p", integer=True, positive=True)
    G, Pi = sp.MatrixSymbol("G", k, k), sp.MatrixSymbol(r"\Pi", k, k)
    W, M, b, one = sp.MatrixSymbol("W", k, p), sp.MatrixSymbol("M", p, k), sp.MatrixSymbol("b", k, 1), sp.MatrixSymbol("1", k, 1)
    a = 2 * c / lam
    return sp.Eq(W, a * (sp.Identity(k) - b * one.T) * (sp.Identity(k) + a * Pi * G).inverse() * Pi * M.T, evaluate=False)


def _head_cosine() -> Equation:
    m, W, rho = sp.symbols("m W rho", positive=True)
    return sp.Eq(m * sp.Abs(W), x * sp.sqrt((K - 1) / (1 - rho)), evaluate=False)


def _soft_threshold() -> Equation:
    """W H = U (S - tau)_+ V^T: the mode equation at D = 2, in singular values of the targets."""
    s, Z = sp.Symbol("s", positive=True), sp.Symbol("z", positive=True)
    equation = mode(2)
    P = sp.solve(equation.tension, sp.Symbol("P", positive=True))[0]
    gamma = sp.solve(sp.Eq(P, lam_H * lam_W), Gamma)[0].subs({g: 1, b: s})
    roots = sp.solve(sp.Eq(equation.equation.lhs, gamma), x)
    root = next(r for r in roots if (r - 1).could_extract_minus_sign())
    return sp.Eq(Z, sp.expand(s * root))


def _mode() -> Equation:
    s, i = sp.Symbol("s", positive=True), sp.Symbol("i", integer=True)
    decays = sp.Product(sp.Indexed(sp.IndexedBase("lambda", positive=True), i), (i, 0, D - 1))
    return sp.Eq(x ** (D - 2) * (1 - x) ** D, decays * (N / (2 * c)) ** D * s ** (2 - 2 * D))


def _ridge() -> Equation:
    d, k = sp.symbols("d K", integer=True, positive=True)
    A, B = sp.MatrixSymbol("A", k, d), sp.MatrixSymbol("B", k, d)
    return sp.Eq(A * (sp.MatrixSymbol("G", d, d) + N * lam / (2 * c) * sp.Identity(d)), B, evaluate=False)


def _schatten() -> Equation:
    d, k = sp.symbols("d K", integer=True, positive=True)
    A, B = sp.MatrixSymbol("A", k, d), sp.MatrixSymbol("B", k, d)
    penalty = sp.MatPow(A * A.T, 1 / D - 1)
    return sp.Eq(A * sp.MatrixSymbol("G", d, d) + N * lam / (2 * c) * penalty * A, B, evaluate=False)


def _nonlinear(name: str) -> Callable[[], Equation]:
    def law() -> Equation:
        from theory import derivations_nonlinear

        return derivations_nonlinear.LAWS[name]()

    return law


NONLINEAR = ("strength", "cross_entropy", "label_smoothing", "focal", "frame", "frame_decayed", "batchnorm",
             "tangent_kernel", "balance", "simplex_head", "pairs", "forecast", "fold_strength")
LAWS: dict[str, Callable[[], Equation]] = {
    "soft_threshold": _soft_threshold,
    "mode": _mode,
    "isotropic": lambda: isotropic()[0],
    "ridge": _ridge,
    "schatten": _schatten,
    "head": _head,
    "head_cosine": _head_cosine,
    **{name: _nonlinear(name) for name in NONLINEAR},
}


@cache
def latex(law: str) -> str:
    """The equation named `law` in LaTeX."""
    return sp.latex(LAWS[law]())
