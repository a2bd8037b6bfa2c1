r"""The symbolic steps behind spectra, rates and times, as `theory.derivations` has them for fixed points.

Flows and balance here, second derivatives in `theory.derivations_hessian`; each returns what is left of a claim:
zeros. `LAWS` names the equations that results quote.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, reduce
from operator import mul
from typing import Any

import sympy as sp

from theory.derivations import LAWS as LAWS_OF_POINTS
from theory.derivations import (
    D,
    Expression,
    Gamma,
    K,
    N,
    b,
    c,
    fold,
    g,
    lam,
    lam_b,
    lam_H,
    maxwell,
    mean_mode_threshold,
    n,
    x,
    z,
)
from theory.derivations_hessian import slow_mode

t, q, s0 = sp.symbols("t q s_0", positive=True)


@cache
def aligned_flow() -> dict[str, Expression]:
    """Remainders, all zero, of the aligned two-factor flow with equal decays: a' = q a (1 - s) - l a with s =
    a^2/sqrt n has the logistic solution, and NC1 = A e^{-2lt}/s is the stated sum of exponentials."""
    A = sp.Symbol("A", positive=True)
    rate = 2 * (q - lam)
    top = 1 - lam / q
    path = top / (1 + (top / s0 - 1) * sp.exp(-rate * t))
    flow = sp.simplify(sp.diff(path, t) - 2 * path * (q * (1 - path) - lam))
    start = sp.simplify(path.subs(t, 0) - s0)
    ratio = A * sp.exp(-2 * lam * t) / path
    stated = A * (sp.exp(-2 * lam * t) / top + (1 / s0 - 1 / top) * sp.exp(-2 * q * t))
    return {"flow": flow, "start": start, "ratio": sp.simplify(sp.expand(ratio - stated))}


@cache
def recovery(degree: int) -> tuple[Expression, Expression]:
    """Factors w_i of equal decay: d(w_i^2 - w_j^2)/dt + 2 lambda (w_i^2 - w_j^2), and d(log z)/dt less (2c/N)
    (b - g z) z sum 1/w_i^2 - D lambda; both zero."""
    w = sp.symbols(f"w1:{degree + 1}", positive=True)
    product = reduce(mul, w)
    loss = c / N * (g * product**2 - 2 * b * product) + lam / 2 * sum(v**2 for v in w)
    speed = [-sp.diff(loss, v) for v in w]
    gap = sp.expand(2 * w[0] * speed[0] - 2 * w[1] * speed[1] + 2 * lam * (w[0] ** 2 - w[1] ** 2))
    pace = sum(v / wi for v, wi in zip(speed, w, strict=True))
    stated = 2 * c / N * (b - g * product) * product * sum(1 / v**2 for v in w) - degree * lam
    return gap, sp.simplify(pace - stated)


@cache
def adam_balance() -> tuple[Expression, Expression]:
    """Two factors whose flows are divided by s_1 and s_2: d(s_1 w_1^2 - s_2 w_2^2)/dt + 2 lambda (w_1^2 - w_2^2), and, with
    the product of the factors held, the rate of log w_1/w_2 near balance less 4 lambda/(s_1 + s_2); both zero."""
    w, s = sp.symbols("w1:3", positive=True), sp.symbols("s1:3", positive=True)
    pull = sp.Symbol("pull", positive=True)  # -d(data loss)/d log z
    speed = [(pull / wi - lam * wi) / si for wi, si in zip(w, s, strict=True)]
    gap = sp.expand(2 * s[0] * w[0] * speed[0] - 2 * s[1] * w[1] * speed[1] + 2 * lam * (w[0] ** 2 - w[1] ** 2))
    turn, size = sp.symbols("epsilon w", positive=True)
    at = {w[0]: size * sp.exp(turn), w[1]: size * sp.exp(-turn)}
    rates = [sp.expand((v / wi).subs(at)) for v, wi in zip(speed, w, strict=True)]
    held = sp.solve(sum(rates), pull)[0]  # z = w_1 w_2 does not move
    pace = sp.simplify(((rates[0] - rates[1]) / 2).subs(pull, held))
    slope = sp.simplify(sp.diff(pace, turn).subs(turn, 0))
    return gap, sp.simplify(slope + 4 * lam / (s[0] + s[1]))


def _indexed(name: str) -> Any:
    return sp.IndexedBase(name, positive=True)


# Names of the formulas that results quote. mu is an eigenvalue, rho a rate of decay.
i, j, k = sp.symbols("i j k", integer=True)
M, R, p, T, S, A, r, v2, u = sp.symbols("M R p T S A r v_2 u", positive=True)
mu, rho, NC1, eps = (sp.Symbol(name, positive=True) for name in ("mu", "rho", "\\mathrm{NC1}", "epsilon"))
decay_of, gap_of, speed_of, size_of = (_indexed(name) for name in ("lambda", "d", "theta", "x"))
theta, t_nc, m = sp.symbols("theta T_{NC} m", positive=True)
eta, h, noise = sp.symbols("eta h s", positive=True)


def _total(first: Any, last: Any) -> Expression:
    return sp.Sum(decay_of[i], (i, first, last))


def _eigen(matrix: Any) -> str:
    return rf"\mu \in \operatorname{{spec}} {sp.latex(sp.sympify(matrix))}"


def _symmetric() -> str:
    Lambda, root = sp.MatrixSymbol(r"\Lambda", D, D), sp.MatrixSymbol(r"\lambda^{1/2}", D, 1)
    form = sp.latex(2 * Lambda + (2 * x - 1) / (1 - x) * root * root.T)
    return rf"\mu \in \operatorname{{spec}} \left( {form} \right)"


def _pair() -> str:
    """Entries between two modes a, b: the matrix of `theory.rest.Rest.curvature`."""
    first = r"\lambda_i \delta_{ij} + \frac{2c}{N} g_b P_i P_j"
    second = r"\frac{2c}{N} r_a \prod_{k>j} x_k^a \prod_{i<k<j} x_k^b \prod_{k<i} x_k^a"
    same, swapped = (rf"\partial_{{X_i^{{{e}}}}} \partial_{{X_j^{{ab}}}} L" for e in ("ab", "ba"))
    gain = r"P_i = \prod_{k>i} x_k^a \prod_{k<i} x_k^b"
    return rf"{same} = {first}, \quad {gain}; \qquad {swapped} = {second} \quad (i < j)"


def _dead() -> str:
    q_r = sp.Symbol("r_a") * 2 * c / N
    return _eigen(sp.Matrix([[decay_of[1], q_r], [q_r, decay_of[0]]]))


def _bias() -> str:
    g0, r0 = sp.symbols("g_0 r_0")
    return _eigen(sp.Matrix([[decay_of[D - 1] / (1 - x), r0, 0], [r0, decay_of[0] / (1 - x), g0],
                             [0, g0, 2 * c + lam_b]]))


def _fold(law: tuple[Expression, Expression]) -> str:
    common = 2 * c / N * Gamma ** (1 / D) * b ** (2 - 2 / D) * g ** (2 / D - 1)
    return sp.latex(sp.Eq(lam, common)) + r", \quad " + sp.latex(sp.Eq(Gamma, sp.simplify(law[1])))


def _logistic() -> str:
    top = 1 - lam / q
    form = A * (sp.exp(-2 * lam * t) / top + (1 / s0 - 1 / top) * sp.exp(-2 * q * t))
    return sp.latex(sp.Eq(NC1, form, evaluate=False))


def _estimate() -> Expression:
    return sp.Eq(t_nc, sp.log(S / (eps * (K - 1) * n * m**2)) / (2 * _total(0, k)), evaluate=False)


def _recovery() -> str:
    w2 = u + gap_of[i] * sp.exp(-2 * lam * t)
    rest = sp.Eq(2 * c / N * (b - g * z) * z * sp.Sum(1 / w2, (i, 1, D)), D * lam, evaluate=False)
    return sp.latex(rest) + r", \quad " + sp.latex(sp.Eq(z**2, sp.Product(w2, (i, 1, D)), evaluate=False))


def _nc1_penultimate() -> str:
    ways = sp.Min(lam_H / (1 - x), _total(0, M - 1), evaluate=False)
    inner = sp.latex(_total(0, k) + decay_of[k] + decay_of[k + 1])
    return rf"\rho = 2 \min\left\{{ {', '.join(sp.latex(w) for w in ways.args)}, {inner} \right\}}"


def _floor() -> str:
    within = r"\frac{1}{N} \left\| S_0^{1/M-1} V_0^T X (X^T X)^{+} \Pi_w \right\|_F^2"
    between = r"\frac{1}{K} \sum_k \left\| \mu_k - \mu_G \right\|^2"
    least = r"Y X^{+} = U_0 S_0 V_0^T"
    return (r"\mathrm{NC1} \to \lambda^2 \left(\frac{N}{2c}\right)^2 "
            rf"\frac{{{within}}}{{{between}}}, \quad {least}")


LAWS: dict[str, Callable[[], Any]] = {
    "symmetric": _symmetric,
    "rotation": lambda: r"\mu \in \left\{0, " + sp.latex(_total(0, D - 1) / (1 - x)) + r"\right\}",
    "interface": lambda: r"\mu \in \left\{0, " + sp.latex(decay_of[k] + decay_of[k + 1]) + r"\right\}",
    "unused": lambda: sp.Eq(mu, decay_of[k]),
    "within_seen": lambda: sp.Eq(mu, lam_H / (1 - x)),
    "within_unseen": lambda: sp.Eq(mu, lam_H),
    "exchange": _pair,
    "mean_mode": _pair,
    "dead_active": _pair,
    "together": _pair,
    "dead_spare": _dead,
    "bias": _bias,
    "bias_alone": lambda: sp.Eq(mu, 2 * c + lam_b),
    "ridge": lambda: r"\mu \in \operatorname{spec} \left( \frac{2c}{N} X X^T + \lambda I \right)",
    "nc1_first": lambda: sp.Eq(rho, 2 * theta * lam_H),
    "nc1_penultimate": _nc1_penultimate,
    "slow": lambda: sp.Eq(rho, slow_mode(), evaluate=False),
    "fn_rate": lambda: (r"\rho = \min\left\{\rho_{\mathrm{signal}}, \rho_{\mathrm{NC1}}, "
                        r"2 \mu_{\mathrm{bias}}\right\}"),
    "balance": lambda: sp.Eq(rho, 2 * lam),
    "fold": lambda: _fold(fold()),
    "maxwell": lambda: _fold(maxwell()),
    "fold_followed": lambda: LAWS_OF_POINTS["schatten"](),
    "fold_strength": lambda: LAWS_OF_POINTS["fold_strength"](),
    "fold_bisected": lambda: LAWS_OF_POINTS["frame_decayed"](),
    "minority": lambda: r"n_k \le " + sp.latex(
        (sp.Product(decay_of[i], (i, 0, D - 1)) * (N / (2 * c)) ** D / Gamma) ** (1 / (D - 1))),
    "mean_mode_threshold": lambda: sp.Eq(lam_b, mean_mode_threshold(), evaluate=False),
    "floor": _floor,
    "floor_isotropic": lambda: sp.Eq(NC1, v2 / r**2 * R / (K - 1), evaluate=False),
    "floor_limit": lambda: r"H = S_0^{1-1/M} V_0^T X, \quad Y X^{+} = U_0 S_0 V_0^T",
    "floor_boundary": _floor,
    "nc1_logistic": _logistic,
    "nc1_aligned": lambda: sp.Eq(
        NC1, S * sp.exp(-2 * t * sp.Sum(speed_of[i] * decay_of[i], (i, 0, k)))
        / ((K - 1) * sp.Product(size_of[i] ** 2, (i, 0, k))), evaluate=False),
    "nc1_random": _estimate,
    "within_softmax": lambda: (r"\mu \in \left\{\lambda_{H},\ \lambda_{H} \left(1 + \frac{x s}{K}\right),\ "
                               r"\lambda_{H} \left(1 - x \frac{g'(x)}{g(x)}\right)\right\}, \quad \rho = 2 \theta \min \mu"),
    "adam_rate": lambda: sp.Eq(rho, eta * h / sp.sqrt(noise**2 + h**2 * x**2), evaluate=False),
    "adam_balance": lambda: (r"\rho \in \operatorname{spec}\left( (I - q q^T) A (I - q q^T) \right), \quad "
                             r"A = \operatorname{diag}(2 \lambda \eta / s_i), \quad q = A^{1/2} 1 / |A^{1/2} 1|"),
    "lead": lambda: r"\lambda_{W} > \lambda_{H}, \quad \sigma > \frac{1}{2}",
    "recovery": _recovery,
}


@cache
def latex(law: str) -> str:
    """The formula named `law` in LaTeX."""
    found = LAWS[law]()
    return found if isinstance(found, str) else sp.latex(found)
