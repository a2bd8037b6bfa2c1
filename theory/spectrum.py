r"""The Hessian of a linear network at rest: every eigenvalue, named, with its multiplicity.

`theory.rest` gives the bases in which the second variation falls apart into

    symmetric        2 diag(l) + (2x - 1)/(1 - x) sqrt(l) sqrt(l)^T           r (r + 1)/2 times
    rotation         0 (D - 1 times), sum(l)/(1 - x)                          r (r - 1)/2 times
    interface k      0, l_k + l_{k+1}                                         r (p_k - r) times
    unused k         l_k                                                      (p_{k-1} - r)(p_k - r) times
    within-class     lambda_H/(1 - x) where the head looks, lambda_H elsewhere

for r equal modes of signal x, D factors with decays l and hidden widths p_k, and into small matrices where
modes differ (unequal classes, an active mean mode), where a mode is dead, and where the bias takes part. Flow
eigenvalues are minus these; the zeros are the rotations of the hidden layers. Zhou et al. (2022) prove for
two layers that the landscape is benign; the spectrum is derived here (`theory.derivations_hessian`). Only
unequal classes with a decayed bias, and linear networks on data that are not aligned, mix all modes at once:
those are diagonalised numerically, the complements still in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncflow.errors import require
from ncflow.model import UFM, DeepLinear
from theory.point import Branch, Standing
from theory.rest import Array, Rest, points, require_linear, rest, root_of

SOURCE = "derived here; landscape: Zhou et al. 2022, Tirer and Bruna 2022, Dang et al. 2023"
LARGEST = 4000  # rows of the largest matrix that is diagonalised densely


@dataclass(frozen=True, eq=False)
class Block:
    """Eigenvalues that occur together.

    Attributes:
        name: what moves.
        eigenvalues: (m,) ascending.
        multiplicity: how often each occurs.
        law: key of `theory.derivations_dynamics.LAWS`.
    """

    name: str
    eigenvalues: Array
    multiplicity: int
    law: str

    @property
    def size(self) -> int:
        """Number of eigenvalues, repeated ones counted."""
        return len(self.eigenvalues) * self.multiplicity

    @property
    def formula(self) -> str:
        """The matrix or its eigenvalues in LaTeX, printed from the sympy derivation."""
        from theory.derivations_dynamics import latex

        return latex(self.law)


@dataclass(frozen=True, eq=False, kw_only=True)
class Spectrum:
    """Eigenvalues of the Hessian of L in (H, W_1..W_M, b), mobility 1, or in (W_1..W_M, b) on data.

    With several lanes `lanes` holds one Spectrum each, numbers are stacked, and `blocks` is empty.

    Attributes:
        blocks: named groups of eigenvalues.
        zeros: number of exact zeros, the dimension of the rotation orbit.
        status: "exact", or "numerical" where a large matrix was diagonalised.
        branch: which stationary point.
        assumptions, source: as in `FixedPoint`.
    """

    blocks: tuple[Block, ...] = ()
    zeros: Any = 0
    status: Standing = "exact"
    branch: Branch = "collapsed"
    assumptions: tuple[str, ...] = ()
    source: str = SOURCE
    lanes: tuple[Spectrum, ...] = ()

    @cached_property
    def eigenvalues(self) -> Array:
        """(P,) or (lanes, P) ascending, P parameters, repeated ones and zeros included."""
        if self.lanes:
            return np.stack([lane.eigenvalues for lane in self.lanes])
        return np.sort(np.concatenate([np.repeat(b.eigenvalues, b.multiplicity) for b in self.blocks]))

    @property
    def multiplicities(self) -> tuple[Array, NDArray[np.int64]]:
        """Distinct eigenvalues, ascending, and how often each occurs; equal to 1e-12 of the largest."""
        require(not self.lanes, "lanes", len(self.lanes), "one: read Spectrum.lanes")
        values = np.concatenate([b.eigenvalues for b in self.blocks])
        times = np.concatenate([np.full(len(b.eigenvalues), b.multiplicity) for b in self.blocks])
        order = np.argsort(values)
        values, times = values[order], times[order]
        starts = np.flatnonzero(np.diff(values, prepend=-np.inf) > 1e-12 * np.abs(values).max())
        return values[starts], np.add.reduceat(times, starts)

    @cached_property
    def distinct(self) -> Array:
        """Eigenvalues of all blocks without their multiplicities, ascending (one lane)."""
        return np.sort(np.concatenate([b.eigenvalues for b in self.blocks]))

    @property
    def slowest(self) -> Any:
        """The smallest eigenvalue that is not zero: the last thing to move, or (negative) the way out."""
        if self.lanes:
            return np.array([lane.slowest for lane in self.lanes])
        return float(self.distinct[self.distinct != 0][0])

    @property
    def stiffest(self) -> Any:
        """The largest eigenvalue; an explicit step longer than about 2/stiffest is unstable."""
        return np.array([lane.stiffest for lane in self.lanes]) if self.lanes else float(self.distinct[-1])

    @property
    def stiffness(self) -> Any:
        """Largest over smallest magnitude that is not zero."""
        if self.lanes:
            return np.array([lane.stiffness for lane in self.lanes])
        sizes = np.abs(self.distinct[self.distinct != 0])
        return float(sizes.max() / sizes.min())

    @property
    def stable(self) -> Any:
        """Whether no direction descends."""
        if self.lanes:
            return np.array([lane.stable for lane in self.lanes])
        return bool(self.distinct[0] >= 0)

    def block(self, name: str) -> Block:
        """The block called `name` (one lane)."""
        names = [b.name for b in self.blocks]
        require(name in names, "name", name, f"one of {', '.join(names)}")
        return self.blocks[names.index(name)]


def spectrum(model: UFM | DeepLinear, *, branch: Branch = "collapsed") -> Spectrum:
    """Spectrum of the Hessian of the loss at a fixed point of `model`.

    Args:
        branch: the collapsed point or one of its `other_roots`, such as "saddle".

    Raises:
        BadInput: a loss, activation or constraint for which the fixed point is not known here; a decay of
            zero in a `UFM`; a branch that the model lacks; or modes that all mix and are too many.
    """
    require_linear(model, "the spectrum")
    found = [_of(model, i, root_of(point, branch)) for i, point in enumerate(points(model))]
    if len(found) == 1:
        return found[0]
    said = tuple(dict.fromkeys(s for f in found for s in f.assumptions))
    worst = "numerical" if any(f.status == "numerical" for f in found) else "exact"
    return replace(found[0], blocks=(), zeros=np.array([f.zeros for f in found]), status=worst,
                   assumptions=said, lanes=tuple(found))


def _of(model: UFM | DeepLinear, lane: int, point: Any) -> Spectrum:
    state = rest(model, lane, point)
    said = list(point.assumptions)
    if not point.exists:
        said.append("No mode is active: the Hessian at zero.")
    exact = state.decoupled and point.status != "numerical"
    if not state.decoupled:
        said.append("Modes mix; the block of the class directions is diagonalised numerically.")
    found = tuple(b for b in blocks(state) if b.size)
    zeros = sum(int(np.sum(b.eigenvalues == 0)) * b.multiplicity for b in found)
    return Spectrum(blocks=found, zeros=zeros, status="exact" if exact else "numerical",
                    branch=point.branch, assumptions=tuple(said))


def blocks(state: Rest) -> list[Block]:
    """All blocks at `state`, some of size zero."""
    if state.degree == 1:
        return [_ridge(state)]
    head = _pairs(state) if state.decoupled else [_together(state)]
    return head + _complements(state)


def _ridge(state: Rest) -> Block:
    matrix = state.scale * state.gram + state.decays[0] * np.eye(state.inputs)
    if state.push is not None:
        side = state.scale * state.push[:, None]
        matrix = np.block([[matrix, side], [side.T, state.bias_curvature * np.eye(1)]])
    return Block("ridge", _values(matrix), state.outputs, "ridge")


def _complements(state: Rest) -> list[Block]:
    """Entries of the factors that touch a hidden direction no mode uses, and samples about their means."""
    D, r, K, d = state.degree, state.rank, state.outputs, state.inputs
    l, spare = state.decay_rates, [p - r for p in state.hidden]  # noqa: E741
    out = [Block(f"interface {k}", np.array([0.0, l[k] + l[k + 1]]), r * spare[k], "interface")
           for k in range(D - 1)]
    out += [Block(f"unused {k}", l[[k]], spare[k] * spare[k - 1], "unused") for k in range(1, D - 1)]
    paired = min(K, d) if D == 2 else r
    pull = state.scale * state.residual * np.prod(state.clock)
    for group in _alike(pull[r:paired, None]):
        values = _two(l[0], l[1], float(pull[r + group[0]]))
        out.append(Block("dead mode in spare width", values, len(group) * spare[0], "dead_spare"))
    out.append(Block("dead input in spare width", l[[0]], (d - paired) * spare[0], "unused"))
    out.append(Block("dead output in spare width", l[[-1]], (K - paired) * spare[-1], "unused"))
    if state.within:
        seen = l[0] + state.scale * (state.left[0, :r] * state.clock[0]) ** 2
        out += [Block("within-class, seen by the head", seen[g[:1]], len(g) * state.within, "within_seen")
                for g in _alike(seen[:, None])]
        out.append(Block("within-class, unseen", l[[0]], spare[0] * state.within, "within_unseen"))
    return out


def _two(a: float, b: float, off: float) -> Array:
    middle, half = (a + b) / 2, np.hypot((a - b) / 2, off)
    return np.array([middle - half, middle + half])


def _alike(rows: Array) -> list[NDArray[np.intp]]:
    """Indices of `rows` (m, f) grouped where all features agree to rounding, in order of first appearance."""
    groups: list[list[int]] = []
    scale = np.abs(rows).max(axis=0, initial=0)
    for i, row in enumerate(rows):
        for group in groups:
            if np.all(np.abs(row - rows[group[0]]) <= 1e-12 * scale):
                group.append(i)
                break
        else:
            groups.append([i])
    return [np.array(g) for g in groups]


def _entries(state: Rest, a: int, b: int) -> list[tuple[int, int, int]]:
    """Entries (factor, row, column) that couple with the pair of modes a and b; a is active."""
    D, r, K, d = state.degree, state.rank, state.outputs, state.inputs
    if b < r:
        both = [(i, a, b) for i in range(D)]
        return both if a == b else both + [(i, b, a) for i in range(D)]
    return ([(0, a, b)] if b < d else []) + ([(D - 1, b, a)] if b < K else [])


def _matrix(state: Rest, a: int, b: int) -> Array:
    layer, row, column = np.array(_entries(state, a, b), dtype=np.intp).T
    moved = b if a == state.mean else a
    bias = [moved] if state.mean in (a, b) and moved < state.outputs else []
    return state.curvature(layer, row, column, np.array(bias, dtype=np.intp))


def _values(matrix: Array, zeros: int = 0) -> Array:
    """Ascending eigenvalues, of which `zeros` are known to vanish."""
    values: Array = np.linalg.eigvalsh(matrix).astype(float)
    values[np.argsort(np.abs(values))[:zeros]] = 0.0
    return values


def _pairs(state: Rest) -> list[Block]:
    """The class directions when pairs of modes are independent."""
    D, r, K, d = state.degree, state.rank, state.outputs, state.inputs
    mean = -1 if state.mean is None else state.mean
    size = max(K, d)
    place = np.arange(size)
    kind = np.zeros((size, 6))
    kind[:r, 0], kind[:, 1], kind[:d, 2] = state.z, state.residual, np.diag(state.gram)
    kind[:, 3], kind[:, 4], kind[:, 5] = place < d, place < K, place == mean
    active, dead = _alike(kind[:r]), [g + r for g in _alike(kind[r:])]
    out = []
    for i, group in enumerate(active):
        a, m = int(group[0]), len(group)
        if a == mean:
            out.append(Block("mean mode", _values(_matrix(state, a, a)), 1, "mean_mode"))
        else:
            out.append(Block("symmetric", _values(_matrix(state, a, a)), m * (m + 1) // 2, "symmetric"))
            turn = np.zeros(D)
            turn[-1] = np.sum(state.decay_rates + state.scale * state.gram[a, a]
                              * (state.left[:, a] * state.right[:, a] * state.clock) ** 2)
            out.append(Block("rotation", turn, m * (m - 1) // 2, "rotation"))
        for other in active[i + 1:]:
            b = int(other[0])
            name = "exchange with the mean mode" if mean in (a, b) else "exchange of unequal modes"
            out.append(Block(name, _values(_matrix(state, a, b), D - 1), m * len(other), "exchange"))
        for other in dead:
            b = int(other[0])
            bias = mean in (a, b)
            out.append(Block("bias" if bias else "dead mode against active", _values(_matrix(state, a, b)),
                             m * len(other), "bias" if bias else "dead_active"))
    if state.push is not None and mean >= r:
        out.append(Block("bias of dead modes", np.array([state.bias_curvature]), K - r, "bias_alone"))
    return out


def _together(state: Rest) -> Block:
    """The class directions in one matrix."""
    D, r, K, d = state.degree, state.rank, state.outputs, state.inputs
    grids = [np.indices((1, r, d)), np.indices((1, K, r)) + np.array([D - 1, 0, 0]).reshape(3, 1, 1, 1)]
    grids.append(np.indices((D - 2, r, r)) + np.array([1, 0, 0]).reshape(3, 1, 1, 1))
    layer, row, column = np.concatenate([g.reshape(3, -1) for g in grids], axis=1).astype(np.intp)
    bias = np.arange(K if state.push is not None else 0)
    count = len(layer) + len(bias)
    require(count <= LARGEST, "model", f"{count} coupled directions", f"at most {LARGEST} when all modes mix")
    values = _values(state.curvature(layer, row, column, bias), (D - 1) * r * (r - 1) // 2)
    return Block("class directions", values, 1, "together")
