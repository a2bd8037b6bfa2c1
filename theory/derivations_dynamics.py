r"""The symbolic steps behind spectra, rates and times, as `theory.derivations` has them for fixed points.

`pair_hessian`, `bias_hessian` and `spare_hessian` differentiate the loss of a small linear network at its
fixed point and return what is left of the stated matrices: zeros. `LAWS` names the equations that results
quote.
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
    lam_W,
    maxwell,
    mean_mode_threshold,
    n,
    sigma,
    x,
    z,
)

e, t, q, s0 = sp.symbols("e t q s_0", positive=True)


def _factors(degree: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Amplitudes w_i, and decays at which they are at rest: lambda_i = e/w_i^2 (balance)."""
    w = sp.symbols(f"w1:{degree + 1}", positive=True)
    return w, tuple(e / wi**2 for wi in w)


def _second(loss: Expression, entries: list[Any], at: dict[Any, Any]) -> sp.Matrix:
    """Hessian of a polynomial `loss` of `entries`, at values `at`."""
    gradient = [sp.diff(loss, v) for v in entries]
    return sp.Matrix(len(entries), len(entries),
                     lambda i, j: sp.diff(gradient[i], entries[j]).subs(at) if j >= i else 0)


def _mirror(matrix: sp.Matrix) -> Any:
    return sp.Matrix(matrix.rows, matrix.cols, lambda i, j: matrix[min(i, j), max(i, j)])


@cache
def pair_hessian(degree: int) -> tuple[sp.Matrix, sp.Matrix, sp.Matrix]:
    """Two equal modes of `degree` factors, entries (a, a), then (a, b) +- (b, a): the Hessian less what is
    stated, for the diagonal, the symmetric and the antisymmetric combinations.

    L = (c/N)(g |Z|^2 - 2 b tr Z) + sum (lambda_i/2)|X_i|^2, Z = X_D ... X_1, at X_i = w_i I, with lambda_i =
    e/w_i^2 and e = (2c/N) z (b - g z), b = g z/x, so that 2c/N = e x/(g z^2 (1 - x)).
    """
    w, decay = _factors(degree)
    X: list[Any] = [sp.Matrix(2, 2, sp.symbols(f"X{i}_11 X{i}_12 X{i}_21 X{i}_22")) for i in range(degree)]
    Z: Any = reduce(lambda product, factor: factor * product, X)
    top = reduce(mul, w)
    scale = e * x / (g * top**2 * (1 - x))
    bare = scale / 2 * (g * sum(v**2 for v in Z) - 2 * g * top / x * Z.trace())
    loss = bare + sum(di / 2 * sum(v**2 for v in Xi) for di, Xi in zip(decay, X, strict=True))
    at = {Xi[j, k]: wi if j == k else 0 for Xi, wi in zip(X, w, strict=True) for j in (0, 1) for k in (0, 1)}
    first = [sp.simplify(sp.diff(loss, Xi[0, 0]).subs(at)) for Xi in X]
    if any(v != 0 for v in first):
        raise ArithmeticError("the stated point is not stationary")
    same, cross, back = ([Xi[j, k] for Xi in X] for j, k in ((0, 0), (0, 1), (1, 0)))
    diagonal = _mirror(_second(loss, same, at))
    H = _mirror(_second(loss, cross + back, at))
    d = degree
    symmetric = (H[:d, :d] + H[:d, d:] + H[d:, :d] + H[d:, d:]) / 2
    turning = (H[:d, :d] - H[:d, d:] - H[d:, :d] + H[d:, d:]) / 2
    root: Any = sp.Matrix([sp.sqrt(e) / wi for wi in w])
    stated = 2 * sp.diag(*decay) + (2 * x - 1) / (1 - x) * root * root.T
    turn = root * root.T / (1 - x)
    return tuple((m - known).applyfunc(sp.simplify)
                 for m, known in ((diagonal, stated), (symmetric, stated), (turning, turn)))  # type: ignore


@cache
def bias_hessian(degree: int) -> sp.Matrix:
    """One active mode against the dead mean mode under a head bias decayed by lambda_b: Hessian in (row of
    the head, column of the first factor, bias) less the stated 3 x 3 matrix.

    Coordinates (active, mean) of classes and outputs; equal classes, targets sqrt(n) I, N = K n.
    """
    w, decay = _factors(degree)
    rows = sp.symbols("W_a W_0")
    columns = sp.symbols("H_a H_0")
    biases = sp.symbols("b_a b_0")
    inner = reduce(mul, w[1:-1], sp.Integer(1))
    b0 = sp.Symbol("beta")
    top = reduce(mul, w)
    root_n = top / x  # the target; z = x sqrt n
    scale = e * x / (top**2 * (1 - x))
    Z: Any = sp.Matrix(2, 2, lambda i, j: rows[i] * inner * columns[j] + sp.sqrt(N) * biases[i] * j)
    rest: Any = Z - root_n * sp.eye(2)
    loss = (scale / 2 * sum(v**2 for v in rest) + decay[0] / 2 * sum(v**2 for v in columns)
            + decay[-1] / 2 * sum(v**2 for v in rows) + lam_b / 2 * sum(v**2 for v in biases))
    at = {rows[0]: w[-1], rows[1]: 0, columns[0]: w[0], columns[1]: 0, biases[0]: 0, biases[1]: b0}
    level = sp.solve(sp.diff(loss, biases[1]).subs(at), b0)[0]
    H = _mirror(_second(loss, [rows[1], columns[1], biases[0]], at)).subs(b0, level)
    # 2c = N (2c/N): r_0 = K beta - 1 = -lambda_b/(2c + lambda_b)
    two_c = N * scale
    r0 = -lam_b / (two_c + lam_b)
    r = scale * root_n * r0 * inner
    reach = scale * sp.sqrt(N) * top / w[0]
    stated = sp.Matrix([[decay[-1] / (1 - x), r, 0], [r, decay[0] / (1 - x), reach],
                        [0, reach, two_c + lam_b]])
    return (H - stated).applyfunc(sp.simplify)


@cache
def spare_hessian(degree: int, k: int) -> sp.Matrix:
    """One mode beside one spare direction of the k-th hidden layer: Hessian in (column of factor k + 1, row
    of factor k) less the stated matrix of rank one, whose eigenvalues are 0 and l_k + l_{k+1}."""
    w, decay = _factors(degree)
    into, out = sp.symbols("into out")
    top = reduce(mul, w)
    scale = e * x / (g * top**2 * (1 - x))
    Z = top + out * into * top / (w[k] * w[k + 1])
    loss = (scale / 2 * (g * Z**2 - 2 * g * top / x * Z)
            + decay[k] / 2 * into**2 + decay[k + 1] / 2 * out**2)
    H = _mirror(_second(sp.expand(loss), [out, into], {into: 0, out: 0}))
    a, d = sp.sqrt(decay[k + 1]), sp.sqrt(decay[k])
    return (H - sp.Matrix([[a**2, -a * d], [-a * d, d**2]])).applyfunc(sp.simplify)


@cache
def within_curvature(degree: int) -> Expression:
    """Curvature of a deviation of a sample along an active mode, less lambda_H/(1 - x): zero."""
    w, decay = _factors(degree)
    step = sp.Symbol("h")
    top = reduce(mul, w)
    scale = e * x / (top**2 * (1 - x))
    loss = scale / 2 * (top / w[0] * step) ** 2 + decay[0] / 2 * step**2
    return sp.simplify(sp.diff(loss, step, 2) - decay[0] / (1 - x))


@cache
def two_factor_symmetric() -> tuple[Expression, Expression]:
    """Both eigenvalues of the symmetric block for D = 2 in terms of lambda_W, lambda_H and sigma."""
    root = sp.Matrix([sp.sqrt(lam_W), sp.sqrt(lam_H)])
    block = 2 * sp.diag(lam_W, lam_H) + (2 * sigma - 1) / (1 - sigma) * root * root.T
    trace, det = sp.simplify(block.trace()), sp.simplify(block.det())
    split = sp.sqrt(sp.factor(trace**2 - 4 * det))
    return (trace - split) / 2, (trace + split) / 2


@cache
def slow_mode() -> Expression:
    """Leading term of the slow eigenvalue for D = 2 when both decays are small against q at fixed sigma < 1:
    det/trace with 1 - sigma -> kappa."""
    low, high = two_factor_symmetric()
    return sp.factor(sp.simplify(sp.simplify(low * high) / sp.simplify(low + high)))


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


def _indexed(name: str) -> Any:
    return sp.IndexedBase(name, positive=True)


# Names of the formulas that results quote. mu is an eigenvalue, rho a rate of decay.
i, j, k = sp.symbols("i j k", integer=True)
M, R, p, T, S, A, r, v2, u = sp.symbols("M R p T S A r v_2 u", positive=True)
mu, rho, NC1, eps = (sp.Symbol(name, positive=True) for name in ("mu", "rho", "\\mathrm{NC1}", "epsilon"))
decay_of, gap_of, speed_of, size_of = (_indexed(name) for name in ("lambda", "d", "theta", "x"))
theta, t_nc, m = sp.symbols("theta T_{NC} m", positive=True)


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
    "lead": lambda: sp.StrictGreaterThan(2 * sigma * lam_W, lam_W + lam_H),
    "recovery": _recovery,
}


@cache
def latex(law: str) -> str:
    """The formula named `law` in LaTeX."""
    found = LAWS[law]()
    return found if isinstance(found, str) else sp.latex(found)
