"""Aligned initial states: singular bases that weights, class means and scatter share, and the flow keeps.

There are orthonormal r_i in class space and u_{l,i} in the features of layer l with

    B = sum_i z_i u_{0,i} r_i^T,   W_M = sum_i w_{M,i} r_i u_{M-1,i}^T,   C u_{0,i} = c_i u_{0,i},
    W_l = sum_i w_{l,i} u_{l,i} u_{l-1,i}^T + (what maps the complement to the complement),

the r_i being eigenvectors of diag(n_k) and, with a bias b = beta 1/sqrt(K), one of them 1/sqrt(K).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import matrix_norm, vector_norm

from ncflow.flows.factored import Factored, unit

#: How far a matrix may be from aligned, relative to its norm.
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Alignment:
    """The singular bases of a state, as far as it has them in common.

    Attributes:
        modes: (K, K) the r_i as columns; with a bias the mean mode 1/sqrt(K) is the last.
        bases: u_{l,i} as columns, (p_l, K) each, zero for modes that are zero.
        obstacle: what keeps the state from being aligned, in words, or None.
    """

    modes: Tensor
    bases: list[Tensor]
    obstacle: str | None


def align(state: Factored, counts: Tensor) -> Alignment:
    """The shared singular bases of a single `state`, as far as it has them; `counts` (K,) are the n_k.

    The r_i are the eigenvectors of a generic sum of the symmetric K x K matrices that must commute.
    """
    B, F, *W = (unit(x) for x in (state.B, state.F, *state.W))
    up, down = [B], [W[-1].mT]  # W_l .. W_1 B, and its counterpart from the head downwards
    for w in W[:-1]:
        up.append(w @ up[-1])
    for w in reversed(W[:-1]):
        down.append(w.mT @ down[-1])
    A, sizes = down[-1].mT, torch.diag(counts / counts.max())
    grams = [x.mT @ x for x in (*up, *down, F.mT @ B, F.mT @ A.mT)] + [A @ B + (A @ B).mT, sizes]
    mix = torch.stack([(i + 1.3) ** 0.5 * g for i, g in enumerate(grams)]).sum(0)
    mean = B.new_full((len(counts),), len(counts) ** -0.5)
    if state.b is not None:  # the mean mode is known: to the end of the spectrum with it
        mix = _besides(_besides(mix, mean).mT, mean) + 100 * torch.outer(mean, mean)
    R = torch.linalg.eigh(mix)[1]
    if state.b is not None:
        R[:, -1] = mean
    bases = [_basis(u @ R, d @ R) for u, d in zip(up, reversed(down), strict=True)]
    return Alignment(R, bases, _obstacle(state, [B, F, *W], R, bases, sizes))


def _obstacle(
    state: Factored, units: list[Tensor], R: Tensor, bases: list[Tensor], sizes: Tensor
) -> str | None:  # fmt: skip
    B, F, *W = units
    moved = F @ (F.mT @ bases[0])
    misfit = {"the class means": _off(B, R, bases[0]), "the scatter": _along(moved, bases[0]),
              f"W_{len(W)}": _off(W[-1].mT, R, bases[-1]), "diag(n_k)": _off_diagonal(R.mT @ sizes @ R)}
    for i, w in enumerate(W[:-1], 1):
        misfit[f"W_{i}"] = _along(w @ bases[i - 1], bases[i]) + _along(w.mT @ bases[i], bases[i - 1])
    for i, u in enumerate(bases):
        misfit[f"what is orthogonal in layer {i}"] = _off_diagonal(u.mT @ u)
    if state.b is not None:
        if bool((sizes.diagonal() != 1).any()):
            return "classes of different sizes and a bias have no common modes"
        misfit["the bias"] = vector_norm(_besides(unit(state.b[:, None]), R[:, -1]))
    name, worst = max(((name, float(value)) for name, value in misfit.items()), key=lambda pair: pair[1])
    return None if worst <= TOLERANCE else f"not aligned: {name} is off by {worst:.1e} of the norm"


def _besides(x: Tensor, direction: Tensor) -> Tensor:
    """x without the component of its columns along a unit vector."""
    return x - torch.outer(direction, direction @ x)


def _basis(up: Tensor, down: Tensor) -> Tensor:
    """u_i: the directions of the columns of `up`, of `down` where these are zero, zero where both are."""
    hats = []
    for x in (up, down):
        length = vector_norm(x, dim=0)
        hats.append(torch.where(length > 1e-14 * length.max(), x / length, 0.0))
    return torch.where(hats[0].any(0), *hats)


def _off_diagonal(x: Tensor) -> Tensor:
    return matrix_norm(x - x.diagonal().diag())


def _off(x: Tensor, R: Tensor, u: Tensor) -> Tensor:
    """Size of what x (p x K) has besides sum_i s_i u_i r_i^T."""
    return _along(x @ R, u)


def _along(x: Tensor, u: Tensor) -> Tensor:
    """Size of what the columns x_i have besides s_i u_i."""
    return matrix_norm(x - u * (u * x).sum(0))
