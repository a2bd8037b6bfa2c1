"""The smallest subspaces that a layered linear model cannot leave.

S_0 .. S_{M-1} contain the columns of M(0) (in S_0) and the rows of the head (in S_{M-1}), and are closed
under the scatter C(0) of the features and under W_l(0) and its transpose. All gradients lie inside; outside
everything only decays. For M = 1 this is the smallest C(0)-invariant subspace with the rows of W and the
columns of M, of dimension 2K if the scatter is isotropic, and at most N + K. For M > 1 an isotropic scatter
gives 2K as well if the hidden layers start as multiples of orthogonal matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ncflow.flows.factored import Factored, unit

#: A direction that the maps reach with less than this share of their norm counts as not reached.
TOLERANCE = 1e-12


def invariant(state: Factored, tolerance: float = TOLERANCE) -> list[Tensor]:
    """Orthonormal bases Q_l (p_l, d_l) of S_0 .. S_{M-1} by a block Krylov iteration.

    New directions are what the maps, scaled to norm one, add to the span by more than `tolerance`,
    orthogonalised twice. `state` is a single one.
    """
    C, *W = (unit(x) for x in (state.F, *state.W))
    top = len(W) - 1
    bases = [w[:0].mT for w in W]
    reached: list[list[Tensor]] = [[] for _ in W]
    reached[0].append(unit(state.B))
    reached[top].append(W[top].mT)
    while any(reached):
        new = [_beyond(q, x, tolerance) for q, x in zip(bases, reached, strict=True)]
        bases = [torch.cat(both, 1) for both in zip(bases, new, strict=True)]
        if all(q.shape[0] == q.shape[1] for q in bases):
            break
        reached = [[] for _ in W]
        for i, q in enumerate(new):
            if q.shape[1] == 0:
                continue
            if i == 0:
                reached[0].append(C @ (C.mT @ q))
            else:
                reached[i - 1].append(W[i - 1].mT @ q)
            if i < top:
                reached[i + 1].append(W[i] @ q)
    return bases


def _beyond(basis: Tensor, blocks: list[Tensor], tolerance: float) -> Tensor:
    """Orthonormal columns for what `blocks` add to the span of `basis`."""
    if not blocks or basis.shape[0] == basis.shape[1]:
        return basis[:, :0]
    x = _project(basis, _project(basis, torch.cat(blocks, 1)))
    U, S, _ = torch.linalg.svd(x, full_matrices=False)
    rank = min(int((tolerance < S).sum()), basis.shape[0] - basis.shape[1])
    # Singular vectors turn freely where singular values coincide: avoid them where x itself will do.
    x = x if rank == x.shape[1] and S[-1] > 1e-3 * S[0] else U[:, :rank]
    for _ in range(2):
        x = torch.linalg.qr(_project(basis, x))[0]
    return x


def _project(basis: Tensor, x: Tensor) -> Tensor:
    return x - basis @ (basis.mT @ x)
