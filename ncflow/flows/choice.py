"""Which exact reductions of a linear MSE model hold for an initial state, and which is the smallest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log

import torch
from torch import Tensor

from ncflow.errors import BadInput
from ncflow.flows.alignment import Alignment, align
from ncflow.flows.equal_decays import EqualDecaysFlow, holds
from ncflow.flows.factored import Factored, factor, stack
from ncflow.flows.flow import Flow, float64
from ncflow.flows.full import FullFlow
from ncflow.flows.reduced import ReducedFlow
from ncflow.flows.spectral import SpectralFlow
from ncflow.flows.subspace import invariant
from ncflow.model import UFM

REDUCTIONS = ("reduced", "subspace", "equal_decays", "spectral")
_FALL = 20.0  # by which NC1 may fall under equal decays, whose scatter is a difference of squares, to stay within ten tolerances
_GAIN = 0.9  # a smaller flow is worth its coordinates if its state has at most this share of the numbers


@dataclass(frozen=True)
class Horizon:
    """What equal decays depend on: the end of the run, and whether anything intervenes."""

    until: float = float("inf")
    interventions: bool = False


def reduce(
    name: str, model: UFM, lane: Tensor, blocks: dict[str, Tensor], row: Tensor, horizon: Horizon
) -> list[tuple[Flow, Tensor]]:  # fmt: skip
    """Flows, each with the lanes that it is for: the smallest that hold ("auto"), or those called `name`.

    `lane` (lanes,) says which of the model's own lanes each lane is, `row` (lanes,) which of the initial
    states `blocks`. Lanes are sorted by what holds for them, so the choice for one depends on it alone.

    Raises:
        BadInput: `name` does not hold for a lane; the message says why.
    """
    candidates = [_Candidates(model, state) for state in factor(model, blocks)]
    conserved, accurate = _conservation(model, horizon)
    groups: dict[tuple, list[int]] = {}
    refused: dict[tuple, str] = {}
    for i, (own, start) in enumerate(zip(lane.tolist(), row.tolist(), strict=True)):
        state = candidates[start]
        if name == "auto":
            kind, why = state.smallest(conserved[own], accurate[own])
        else:
            kind, why = name, state.obstacle(name, conserved[own])
            if why is not None:
                where = f" (lane {i})" if len(lane) > 1 else ""
                raise BadInput("flow", name, f"does not hold here: {why}{where}")
        key = (kind, state.shape(kind))
        groups.setdefault(key, []).append(i)
        refused.setdefault(key, why or "")
    out: list[tuple[Flow, Tensor]] = []
    for key, members in groups.items():
        lanes = torch.tensor(members, device=lane.device)
        out.append((_flow(key[0], model, lane[lanes], candidates, row[lanes], refused[key]), lanes))
    return out


def _flow(
    kind: str, model: UFM, lane: Tensor, candidates: list[_Candidates], row: Tensor, refused: str
) -> Flow:  # fmt: skip
    if kind == "full":
        return FullFlow(model, lane, lane.device)
    used, row = row.unique(return_inverse=True)
    chosen = [candidates[i] for i in used.tolist()]
    notes = {"flow_refused": refused} if refused else {}
    if kind == "spectral":
        states = stack([c.state.within(c.alignment.bases) for c in chosen])
        modes = torch.stack([c.alignment.modes for c in chosen])
        return SpectralFlow(model, lane, states, row, notes, modes=modes)
    if kind != "reduced" and chosen[0].smaller:
        states = stack([c.state.within(c.bases) for c in chosen])
    else:
        states = stack([c.state for c in chosen])
    return (EqualDecaysFlow if kind == "equal_decays" else ReducedFlow)(model, lane, states, row, notes)


def _conservation(model: UFM, horizon: Horizon) -> tuple[list[str | None], list[bool]]:
    """Of every lane of the model: what is in the way of equal decays; are they accurate to the end?"""
    decays = torch.as_tensor(model.weight_decays)
    features = torch.as_tensor(model.mobilities * model.feature_decays)
    unequal = "decay.weights of the first layer is not mobility * decay.features"
    if horizon.interventions:
        why: list[str | None] = ["a Rescale breaks the conservation law"] * len(features)
    else:
        why = [None if equal else unequal for equal in holds(decays[:, 0], features).tolist()]
    # How far log NC1 falls outside the span of the classifier.
    fall = 2 * (features + decays[:, :-1].sum(1)) * horizon.until
    return why, (fall <= log(_FALL)).tolist()


class _Candidates:
    """The reductions that hold for one initial state."""

    def __init__(self, model: UFM, state: Factored):
        self.model, self.state, self.moments = model, state, state.V is None

    @cached_property
    def alignment(self) -> Alignment:
        return align(self.state, float64(self.model.class_counts, self.state.B.device))

    @cached_property
    def bases(self) -> list[Tensor]:
        return invariant(self.state)

    @property
    def smaller(self) -> bool:
        """Whether the invariant subspaces are smaller than the whole, and more than nothing."""
        dims = [q.shape[1] for q in self.bases]
        return min(dims) > 0 and sum(dims) < sum(self.model.widths)

    def dimensions(self, kind: str) -> tuple[int, ...]:
        small = kind in ("subspace", "equal_decays") and self.smaller
        return tuple(q.shape[1] for q in self.bases) if small else self.model.widths

    def shape(self, kind: str) -> tuple:
        """What lanes of one flow have in common."""
        if kind == "full":
            return ()
        return (self.state.rank,) if kind == "spectral" else (self.state.rank, *self.dimensions(kind))

    def size(self, kind: str) -> int:
        """Numbers in the state of a lane."""
        K, M, d = self.model.classes, self.model.layers, self.dimensions(kind)
        if kind == "spectral":
            return (M + 2) * K + M
        rest = sum(a * b for a, b in zip((*d[1:], K), d, strict=True)) + K * (self.model.bias != "none")
        columns = {"full": self.model.samples, "equal_decays": K}.get(kind, K + min(self.state.rank, d[0]))
        return d[0] * columns + rest

    def obstacle(self, kind: str, conserved: str | None) -> str | None:
        """Why `kind` does not hold, or None; `conserved`: what is in the way of equal decays."""
        if kind == "spectral":
            return self.alignment.obstacle
        if kind == "subspace" and not self.smaller and min(q.shape[1] for q in self.bases) == 0:
            return "the initial state is zero"
        if kind == "subspace" and not self.smaller:
            p, S = self.model.widths[0], torch.linalg.svdvals(self.state.F).square().tolist()
            why = f"the class means, weights and scatter of the initial state reach all {p} dimensions"
            if self.state.rank == p and S[-1] > (1 - 1e-9) * S[0]:
                return why
            low = S[-1] if self.state.rank == p else 0.0
            return (f"{why}: the scatter of the initial features is not isotropic, its eigenvalues span "
                    f"{low:.3g} .. {S[0] if S else 0.0:.3g}")
        if kind == "equal_decays":
            samples = 'the features are given as samples, which it does not recover; give "M" and "scatter"'
            return conserved if self.moments else samples
        return None

    def smallest(self, conserved: str | None, accurate: bool) -> tuple[str, str]:
        """The flow with the smallest state that holds, and why not the others."""
        best, refused = "reduced" if self.moments else "full", []
        for kind in [kind for kind in REDUCTIONS if kind != best]:
            why = self.obstacle(kind, conserved)
            if why is None and kind == "equal_decays" and not accurate:
                why = f"NC1 may fall by more than {_FALL:g}, and the scatter is a difference of squares"
            if why is None and self.size(kind) > _GAIN * self.size(best):
                why = f"{self.size(kind)} numbers instead of {self.size(best)} are no gain"
            if why is None:
                best = kind
            else:
                refused.append(f"{kind}: {why}")
        return best, "; ".join(refused)
