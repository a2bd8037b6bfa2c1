"""What the linear network on a perceptron's inputs says at every depth and decay of a sweep, in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import numpy as np

from experiments.compare import linear_model
from experiments.sweeps.study import Study
from experiments.why.flows import record
from ncflow import Trajectory
from ncflow.errors import require
from realnets import TwoPhase
from theory import fixed_point, fold


@dataclass(frozen=True, kw_only=True)
class LinearDepths(Study):
    """One row per depth and decay: `depth`, `decay`, `theory_fn` and `floor` of NC1 at rest, `fold` (the decay beyond which
    the first mode is lost), `rate` 2 lambda at which layers balance.

    Attributes:
        dataset, subset, scaling, data_seed: as in `TwoPhase`.
        lanes: (hidden layers, decay) each.
        edges: whether to look for the fold, which takes seconds per depth; NaN if not.
    """

    kind: ClassVar[str] = "linear-depths"
    dataset: str
    subset: int | None
    scaling: str
    data_seed: int
    lanes: tuple[tuple[int, float], ...]
    edges: bool = True

    def __post_init__(self) -> None:
        good = bool(self.lanes) and all(depth >= 1 and decay > 0 for depth, decay in self.lanes)
        require(good, "lanes", self.lanes, "(depth, decay) each, depth at least 1 and decay greater than 0")

    @property
    def cost_kind(self) -> str:
        return f"{self.kind} {self.dataset} {self.subset or 'all'}, {len(self.lanes)} lanes"

    def run(self, *, root: str | Path | None, progress: Callable[[float], None]) -> Trajectory:
        began = perf_counter()
        rows: list[dict[str, Any]] = []
        base = TwoPhase(dataset=self.dataset, subset=self.subset, scaling=self.scaling, data_seed=self.data_seed, seeds=(0,))
        depths = sorted({depth for depth, _ in self.lanes})
        for i, depth in enumerate(depths):
            decays = tuple(decay for d, decay in self.lanes if d == depth)
            model = linear_model(replace(base, depth=depth, decays=decays), None if root is None else str(root))
            at_rest = fixed_point(model)
            edge = float(fold(replace(model, decay=decays[0]), first=True).decay) if self.edges else np.nan
            fn, floor = np.atleast_1d(at_rest.feature_norm), np.atleast_1d(at_rest.nc1_floor)
            for k, decay in enumerate(decays):
                rows.append(
                    {
                        "depth": depth,
                        "decay": decay,
                        "theory_fn": float(fn[k]),
                        "floor": float(floor[k]),
                        "fold": edge,
                        "rate": 2 * decay,
                    }
                )
            progress((i + 1) / len(depths))
        return record(self, began, rows)
