"""The linear network on a condition's inputs: its closed form, and its gradient flow simulated to rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import ClassVar

import numpy as np

from experiments.compare import HORIZON, REST, RTOL, linear_model
from experiments.paper.experiment import Condition
from experiments.show import short
from experiments.sweeps.study import Study
from ncflow import Trajectory, simulate, summarise
from ncflow.errors import require
from ncflow.provenance import provenance
from realnets import TwoPhase
from theory import fixed_point


@dataclass(frozen=True, kw_only=True)
class LinearFlow(Study):
    """As many weight layers as the network, no biases, the same inputs and decays; neither its fixed point nor its NC1 depends
    on the width. Its record is the simulation, with `theory_fn`, `theory_nc1` (closed form), `flow_fn` and `flow_nc1`
    (simulated, NaN where it did not come to rest).

    Attributes:
        dataset, subset, scaling, data_seed, depth: as in `TwoPhase`.
        decay: greater than 0.
    """

    kind: ClassVar[str] = "linear-flow"
    dataset: str
    subset: int | None
    scaling: str
    data_seed: int
    depth: int
    decay: float

    def __post_init__(self) -> None:
        require(self.decay > 0, "decay", self.decay, "greater than 0")

    @property
    def cost_kind(self) -> str:
        return f"{self.kind} {self.dataset} {self.subset or 'all'}, depth {self.depth}, decay {self.decay:g}"

    def run(self, *, root: str | Path | None, progress: Callable[[float], None]) -> Trajectory:
        began = perf_counter()
        protocol = TwoPhase(dataset=self.dataset, subset=self.subset, scaling=self.scaling, data_seed=self.data_seed,
                            depth=self.depth, decays=(self.decay,), seeds=(0,))  # fmt: skip
        model = linear_model(protocol, None if root is None else str(root))
        at_rest, end = fixed_point(model), HORIZON / self.decay
        run = simulate(model, seeds=[0], until=end, save_at=[0.0, *np.geomspace(1e-1, end, 120)], rest=REST, rtol=RTOL, atol=1e-9,
                       progress=progress)  # fmt: skip
        found = summarise(run)
        columns = {"theory_fn": at_rest.feature_norm, "theory_nc1": at_rest.nc1_floor, "flow_fn": [c.fn_inf for c in found],
                   "flow_nc1": [c.nc1_end if np.isfinite(c.fn_inf) else np.nan for c in found]}  # fmt: skip
        data = run.data.assign({name: ("lane", np.atleast_1d(np.asarray(v, dtype=np.float64))) for name, v in columns.items()})
        about = provenance(config=self.config(), seconds={"all": perf_counter() - began}, device="cpu")
        return Trajectory(data.assign_attrs(provenance=json.dumps(about)))


def linear_flow(like: TwoPhase, group: str, decay: float) -> Condition:
    """The linear network on the inputs of a perceptron's protocol, as a condition of the same group."""
    study = LinearFlow(dataset=like.dataset, subset=like.subset, scaling=like.scaling, data_seed=like.data_seed, depth=like.depth,
                       decay=decay)  # fmt: skip
    return Condition(label=f"linear network, depth {like.depth}, decay {short(decay)}", setting=study, group=group,
                     parameters={"linear": True, "depth": like.depth, "decay": decay})  # fmt: skip
