"""Initial states with the samples rotated away, the start of every exact reduction of a linear MSE model.

Let O have orthonormal rows that span those of Y and of E(0), the features' deviations from their class means.
The gradient of every layer, and that of H itself, sees the samples through Z = H O^T only, so the model moves
exactly like one of K + r pseudo-samples Z with the targets Y O^T = [D^(1/2), 0], D = diag(n_k):

    Z = [B, F],   B = M D^(1/2) (class means),   F F^T = C (within-class scatter, r its rank),
    H = B D^(-1/2) Y + F V.

V (r x N, orthonormal rows) is fixed and recovers the samples; without it the flow is that of M and C.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ncflow.model import UFM


@dataclass(frozen=True)
class Frame:
    """Coordinates of an invariant family of subspaces S_l of the R^(p_l), and what lies outside it.

    W_l maps S_{l-1} to S_l and the complements to each other, the head sees S_{M-1} only, the class means lie
    in S_0, and C maps S_0 to itself. Outside, H decays as e^(-theta lambda_H t) and W_l as e^(-lambda_l t).

    Attributes:
        bases: Q_0 .. Q_{M-1}, (p_l, d_l), their columns orthonormal or zero.
        sizes: (M,) norms at t = 0 of what is outside of H and of W_1 .. W_{M-1}, in the user's coordinates.
        weights: the parts of W_1 .. W_{M-1} outside, over their norms.
        deviations: for the features of each layer (p_l, r), what multiplies V outside, over the norms of its factors.
    """

    bases: list[Tensor]
    sizes: Tensor
    weights: list[Tensor]
    deviations: list[Tensor]


@dataclass(frozen=True)
class Factored:
    """An initial state, or several with a leading axis, in the user's coordinates or those of `frame`.

    Attributes:
        B: (p_0, K) class means times the roots of the class sizes.
        F: (p_0, r) root of the within-class scatter E E^T.
        V: (r, N) orthonormal rows with E = F V, or None where only moments are known.
        W: W_1 .. W_M.
        b: (K,) or None.
        frame: None for the user's coordinates.
    """

    B: Tensor
    F: Tensor
    V: Tensor | None
    W: list[Tensor]
    b: Tensor | None
    frame: Frame | None = None

    @property
    def rank(self) -> int:
        """r, the columns of F."""
        return self.F.shape[-1]

    @property
    def dimensions(self) -> tuple[int, ...]:
        """d_0 .. d_{M-1}."""
        return tuple(w.shape[-1] for w in self.W)

    def within(self, bases: Sequence[Tensor]) -> Factored:
        """The same state in the frame of an invariant family of subspaces, F with at most d_0 columns."""
        Q = bases[0]
        inside = Q.mT @ self.F
        # Rows of V turned so that the first ones carry all that is inside.
        X, R = torch.linalg.qr(inside.mT, mode="complete")
        parts = [_besides(self.F, Q @ inside) @ X]
        deviations = [unit(parts[0])]
        weights, outside = [], []
        for w, below, above in zip(self.W, bases, [*bases[1:], None], strict=True):
            if above is None:
                weights.append(w @ below)
                continue
            weights.append(above.mT @ w @ below)
            parts.append(_besides(w, above @ weights[-1] @ below.mT))
            outside.append(unit(parts[-1]))
            deviations.append(outside[-1] @ deviations[-1])
        V = None if self.V is None else X.mT @ self.V
        F = R[: Q.shape[-1]].mT
        frame = Frame(list(bases), torch.stack([part.norm() for part in parts]), outside, deviations)
        return Factored(Q.mT @ self.B, F, V, weights, self.b, frame)


def stack(states: Sequence[Factored]) -> Factored:
    """Several states of the same shapes as one with a leading axis."""

    def join(parts: Sequence[Tensor | None]) -> Tensor | None:
        return None if parts[0] is None else torch.stack([x for x in parts if x is not None])

    def each(parts: Sequence[list[Tensor]]) -> list[Tensor]:
        return [torch.stack(x) for x in zip(*parts, strict=True)]

    frames = [s.frame for s in states if s.frame is not None]
    frame = None
    if frames:
        bases, weights, deviations = ([getattr(f, name) for f in frames] for name in ("bases", "weights", "deviations"))
        frame = Frame(each(bases), torch.stack([f.sizes for f in frames]), each(weights), each(deviations))
    B, F = torch.stack([s.B for s in states]), torch.stack([s.F for s in states])
    V, b = join([s.V for s in states]), join([s.b for s in states])
    return Factored(B, F, V, each([s.W for s in states]), b, frame)


def factor(model: UFM, blocks: dict[str, Tensor]) -> Iterator[Factored]:
    """The initial states in `blocks` ("H", or "M" and "root", with "W_1" .. "W_M" and "b"), factored.

    Columns of F within rounding are dropped: below p eps of the largest, or below eps |H|_F. One state at a
    time, so that the result for one does not depend on the others.
    """
    p, N, K = model.widths[0], model.samples, model.classes
    root = blocks["W_1"].new_tensor(model.class_counts).sqrt()
    labels = torch.as_tensor(model.labels, device=root.device) if "H" in blocks else None
    means = None if labels is None else one_hot(labels, K) / root
    for i in range(len(blocks["W_1"])):
        W = [blocks[f"W_{layer}"][i] for layer in range(1, model.layers + 1)]
        b = blocks["b"][i] if "b" in blocks else None
        if labels is None or means is None:
            F, _ = _compress(blocks["root"][i], p, p, 0.0)
            yield Factored(blocks["M"][i] * root, F, None, W, b)
            continue
        H = blocks["H"][i]
        B = H @ means
        F, V = _compress(H - (B / root).index_select(1, labels), p, N - K, float(H.norm()))
        yield Factored(B, F, V, W, b)


def _compress(E: Tensor, p: int, most: int, size: float) -> tuple[Tensor, Tensor]:
    """F, V with E = F V, V V^T = I and as many columns of F as E's rank, at most `most`."""
    eps = torch.finfo(E.dtype).eps
    Q, R = torch.linalg.qr(E.T)
    S = torch.linalg.svdvals(R)
    cutoff = eps * max(p * float(S[0]), size) if len(S) else 0.0
    rank = min(int((cutoff < S).sum()), most)
    if rank == len(S):
        return R.T, Q.T
    U, S, Xh = torch.linalg.svd(R.T, full_matrices=False)
    return U[:, :rank] * S[:rank], Xh[:rank] @ Q.T


def _besides(whole: Tensor, part: Tensor) -> Tensor:
    """whole - part, zero if that is rounding."""
    rest = whole - part
    return rest if rest.norm() > 1e-13 * whole.norm() else torch.zeros_like(rest)


def unit(x: Tensor) -> Tensor:
    """x over its Frobenius norm, if that is not zero."""
    size = x.norm()
    return x / size if size > 0 else x
