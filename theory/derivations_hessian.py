r"""The symbolic steps behind `theory.spectrum`: the loss of a small linear network differentiated twice at its fixed point.

Every function returns what is left of the stated matrices: zeros. `exchange_hessian` needs no stationarity and is the
rule that `theory.rest.Rest.curvature` applies entry by entry; the others put the fixed point in.
"""

from __future__ import annotations

from functools import cache, reduce
from operator import mul
from typing import Any

import sympy as sp

from theory.derivations import Expression, N, c, g, lam_b, lam_H, lam_W, sigma, x

e = sp.Symbol("e", positive=True)


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
def exchange_hessian(degree: int) -> tuple[sp.Matrix, sp.Matrix]:
    """Two modes a, b of any amplitudes, Gram and targets of their own: second derivatives between the entries (a, b) of
    the factors, and between (a, b) and (b, a) of a lower and a higher one, less what is stated."""
    va, vb = (sp.symbols(f"{name}1:{degree + 1}", positive=True) for name in ("u", "v"))
    decay = sp.symbols(f"l1:{degree + 1}", positive=True)
    grams, targets = sp.symbols("g_a g_b", positive=True), sp.symbols("t_a t_b", positive=True)
    X: list[Any] = [sp.Matrix(2, 2, sp.symbols(f"X{i}_11 X{i}_12 X{i}_21 X{i}_22")) for i in range(degree)]
    Z: Any = reduce(lambda product, factor: factor * product, X)
    data = sum(grams[k] * Z[j, k] ** 2 for j in (0, 1) for k in (0, 1)) - 2 * sum(targets[k] * Z[k, k] for k in (0, 1))
    loss = c / N * data + sum(di / 2 * sum(v**2 for v in Xi) for di, Xi in zip(decay, X, strict=True))
    at = {Xi[j, k]: (va if j == 0 else vb)[i] if j == k else 0 for i, Xi in enumerate(X) for j in (0, 1) for k in (0, 1)}
    same = _mirror(_second(loss, [Xi[0, 1] for Xi in X], at))
    gain = [sp.prod(va[i + 1:]) * sp.prod(vb[:i]) for i in range(degree)]
    stated = sp.Matrix(degree, degree, lambda i, j: (decay[i] if i == j else 0) + 2 * c / N * grams[1] * gain[i] * gain[j])
    swapped: Any = sp.zeros(degree, degree)
    residual = grams[0] * sp.prod(va) - targets[0]  # of mode a, (2c/N times)
    for i in range(degree):
        for j in range(i + 1, degree):
            found = sp.diff(loss, X[i][1, 0], X[j][0, 1]).subs(at)
            through = sp.prod(va[j + 1:]) * sp.prod(vb[i + 1:j]) * sp.prod(va[:i])
            swapped[i, j] = sp.expand(found - 2 * c / N * residual * through)
    return (same - stated).applyfunc(sp.expand), swapped


@cache
def dead_hessian() -> sp.Matrix:
    """Two factors, a mode that is at zero with residual r_a, beside a spare hidden direction: Hessian in (head, features)
    less [[l_W, 2c r_a/N], [2c r_a/N, l_H]]."""
    out, into, r = sp.symbols("out into r_a")
    loss = c / N * ((out * into) ** 2 + 2 * r * out * into) + lam_W / 2 * out**2 + lam_H / 2 * into**2
    H = _mirror(_second(loss, [out, into], {out: 0, into: 0}))
    return H - sp.Matrix([[lam_W, 2 * c * r / N], [2 * c * r / N, lam_H]])


@cache
def lead_condition() -> Expression:
    """det(S - 2 lambda_H I) of the symmetric block S for two factors, less 2 lambda_H (lambda_W - lambda_H) (2 sigma - 1)/
    (1 - sigma), zero. With sigma > 1/2 the upper left entry exceeds 2 lambda_H once lambda_W does, so that both
    eigenvalues of S exceed NC1's rate 2 lambda_H iff lambda_W > lambda_H; with sigma < 1/2 never both, because the
    lower right entry is below it."""
    root = sp.Matrix([sp.sqrt(lam_W), sp.sqrt(lam_H)])
    block = 2 * sp.diag(lam_W, lam_H) + (2 * sigma - 1) / (1 - sigma) * root * root.T
    found = (block - 2 * lam_H * sp.eye(2)).det()
    return sp.simplify(found - 2 * lam_H * (lam_W - lam_H) * (2 * sigma - 1) / (1 - sigma))
