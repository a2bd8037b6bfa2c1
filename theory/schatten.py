r"""Schatten-penalised least squares: the end-to-end map of a decayed linear network of depth D.

    minimise over A (K x d):   (1/2) tr A G A^T - tr A B^T + (mu D/2) sum_j s_j(A)^{2/D},   mu = lambda N/2c,

the variational form of D weight layers under weight decay (Srebro et al. 2005 for D = 2; Dai, Karzand and
Srebro 2021). It is stationary where A G + mu (A A^T)^{1/D - 1} A = B on the active singular directions. D = 1
is ridge regression and D = 2 the nuclear norm (convex); for D >= 3 the problem is not convex and `minimise`
follows the descent from its start, by default the least-squares map, which is the fixed point for vanishing
decay.

Each iteration does two majorisation steps. tr (A A^T)^{1/D} is concave in A A^T, hence below its tangent, and
the tangent problem is ridge regression with a K x K penalty, solved mode by mode in the eigenbases of G and
of A A^T; then the same with A^T A. The left step alone can stop at a point that is not stationary: once a
mode has died it can no longer turn the remaining left singular vectors, and the right step can. Anderson
mixing accelerates, accepted only where it does not raise the objective.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Factors = tuple[Array, Array, Array]
DEAD = 1e-13  # a singular value below this share of the largest is zero
DYING = 1e-8  # one below this share is on its way there if the map without it is closer to rest


@dataclass(frozen=True, eq=False)
class Solution:
    """A = U diag(s) V^T on its r active modes; relative stationarity residual and objective there."""

    U: Array  # (K, r)
    s: Array  # (r,), descending
    V: Array  # (d, r), in the eigenbasis of G
    residual: float
    objective: float
    steps: int


def _svd(A: Array, floor: float = 0.0, most: int | None = None) -> Factors:
    """(U, s, V^T) on the live modes, at most `most` of them."""
    try:
        U, s, Vt = np.linalg.svd(A, full_matrices=False)
    except np.linalg.LinAlgError:  # divide and conquer can fail on a matrix of low rank
        from scipy.linalg import svd

        U, s, Vt = svd(A, full_matrices=False, lapack_driver="gesvd")
    live = min(int(np.sum(s > max(DEAD * s[0], floor))), len(s) if most is None else most)
    return U[:, :live], s[:live], Vt[:live]


def _left(U: Array, s: Array, g: Array, B: Array, mu: float, D: int) -> Array:
    weight = (s ** (2 - 2 / D))[:, None]
    return U @ (weight * (U.T @ B) / (weight * g + mu))


def _right(s: Array, Vt: Array, g: Array, B: Array, mu: float, D: int) -> Array:
    root = s ** (1 - 1 / D)
    normal = root[:, None] * ((Vt * g) @ Vt.T) * root + mu * np.eye(len(s))
    return (np.linalg.solve(normal, root[:, None] * (Vt @ B.T)).T * root) @ Vt


def _product(state: Factors) -> Array:
    U, s, Vt = state
    return (U * s) @ Vt


def objective(state: Factors, g: Array, B: Array, mu: float, D: int) -> float:
    """The function that is minimised, at A = U diag(s) V^T."""
    A, s = _product(state), state[1]
    return float(0.5 * np.sum(A * A * g) - np.sum(A * B) + mu * D / 2 * np.sum(s ** (2 / D)))


def stationarity(state: Factors, g: Array, B: Array, mu: float, D: int) -> float:
    """|gradient on the active modes| / |B|, and for D = 2 what the dual exceeds on the dead ones."""
    U, s, Vt = state
    gap = B - _product(state) * g
    force = gap - mu * (U * s ** (2 / D - 1)) @ Vt
    dead = force - U @ (U.T @ force)
    dead = dead - (dead @ Vt.T) @ Vt
    excess = max(np.linalg.norm(dead, 2) - mu, 0.0) if D == 2 and dead.size else 0.0
    return float(np.hypot(np.linalg.norm(force - dead), excess) / np.linalg.norm(B))


def minimise(g: Array, B: Array, mu: float, D: int, start: Array | None = None, *, memory: int = 8,
             most: int = 5000) -> Solution:
    """Solve in the eigenbasis of G.

    Args:
        g: (d,) eigenvalues of G, all positive (restrict to the range of G first).
        B: (K, d) cross moments in that basis.
        mu: lambda N / 2c >= 0; 0 gives least squares.
        D: depth.
        start: (K, d); the least-squares map by default.
        memory: how many steps Anderson mixing looks back.
        most: iterations before giving up; `Solution.residual` then says how far it came.
    """
    if D == 1 or mu == 0 or not B.any():
        return _finish(_svd(B / (g + mu)) if B.any() else None, g, B, mu, D, 0)
    A = B / g if start is None else start
    state = _svd(A)
    floor = DEAD * float(state[1][0])
    images: deque[Array] = deque(maxlen=memory)
    moves: deque[Array] = deque(maxlen=memory)
    best, since, steps = np.inf, 0, 0
    for steps in range(1, most + 1):
        image = majorise(state, g, B, mu, D, floor)
        if image is None:
            return _finish(None, g, B, mu, D, steps)
        state = _svd(image, floor)
        change = float(np.linalg.norm(image - A) / np.linalg.norm(image))
        best, since = (change, 0) if change < best / 2 else (best, since + 1)
        if change <= 1e-14 or (since > 100 and change < 1e-11):
            break
        images.append(image)
        moves.append(image - A)
        A = image
        if len(moves) > 2:
            trial = _svd(_mixed(images, moves), floor, most=len(state[1]))
            before, after = (objective(f, g, B, mu, D) for f in (state, trial))
            if after <= before + 1e-15 * abs(before):
                state, A = trial, _product(trial)
            else:
                images.clear()
                moves.clear()
    return _finish(state, g, B, mu, D, steps)


def majorise(state: Factors, g: Array, B: Array, mu: float, D: int, floor: float = 0.0) -> Array | None:
    """A left and a right step from A = U diag(s) V^T, neither of which raises the objective; None when every
    mode has died."""
    U, s, _ = state
    _, s, Vt = _svd(_left(U, s, g, B, mu, D), floor) if len(s) else state
    return _right(s, Vt, g, B, mu, D) if len(s) else None


def _mixed(images: deque[Array], moves: deque[Array]) -> Array:
    """Anderson's combination of the last images."""
    turn = np.diff(np.stack([m.ravel() for m in moves]), axis=0)
    weights = np.linalg.lstsq(turn.T, moves[-1].ravel(), rcond=1e-12)[0]
    step = weights @ np.diff(np.stack([i.ravel() for i in images]), axis=0)
    return images[-1] - step.reshape(images[-1].shape)


def _finish(state: Factors | None, g: Array, B: Array, mu: float, D: int, steps: int) -> Solution:
    if state is None:
        return Solution(np.zeros((len(B), 0)), np.zeros(0), np.zeros((len(g), 0)), 0.0, 0.0, steps)
    residual = stationarity(state, g, B, mu, D)
    while len(state[1]) > 1 and state[1][-1] < DYING * state[1][0]:
        U, s, Vt = state
        without = U[:, :-1], s[:-1], Vt[:-1]
        rest = stationarity(without, g, B, mu, D)
        if rest >= residual:
            break
        state, residual = without, rest
    U, s, Vt = state
    return Solution(U, s, Vt.T, residual, objective(state, g, B, mu, D), steps)
