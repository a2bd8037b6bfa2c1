"""Layered unconstrained features at several depths: does decay that acts on more layers slow collapse or speed it?

Every hidden layer is one more factor that decay acts on. In theory the rates of the layers add up, so that within-class scatter
of the penultimate features dies at 2 sum lambda_l (`theory.rates`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import numpy as np

from experiments.sweeps.study import Study
from experiments.why.flows import record
from experiments.why.scalings import SCALINGS, decay_at
from ncflow import UFM, Trajectory, simulate, summarise
from ncflow.errors import require
from theory import fixed_point, fold, rates


@dataclass(frozen=True, kw_only=True)
class LayeredFlow(Study):
    """One row per depth, scaling and seed: `depth`, `scaling`, `decay`, `seed`, `t_nc`, `fn_star`, `fn_inf` (simulated);
    `theory_fn`, `rate` of NC1 and `fold` (the decay beyond which nothing rests away from zero), in closed form.

    Attributes:
        depths: weight matrices above the free features, ascending; the scalings meet at `reference`.
        decay: there, of features and weights alike.
        classes, samples, width: K, per class, of every layer.
        seeds: of the start; `horizon` in units of one over the decay.
    """

    kind: ClassVar[str] = "layered-flow"
    depths: tuple[int, ...] = (1, 2, 3, 5, 8)
    reference: int = 3
    decay: float = 1e-3
    classes: int = 4
    samples: int = 20
    width: int = 16
    seeds: tuple[int, ...] = (0, 1)
    horizon: float = 6.0
    threshold: float = 0.01

    def __post_init__(self) -> None:
        require(bool(self.depths) and min(self.depths) >= 1, "depths", self.depths, "whole numbers, at least 1")
        require(self.decay > 0, "decay", self.decay, "greater than 0")

    @property
    def cost_kind(self) -> str:
        return f"{self.kind} depths {min(self.depths)} to {max(self.depths)}, {len(self.seeds)} seeds, {self.samples} samples"

    def run(self, *, root: str | Path | None, progress: Callable[[float], None]) -> Trajectory:
        began = perf_counter()
        rows: list[dict[str, Any]] = []
        for i, depth in enumerate(self.depths):
            # The features are a factor, too: decay acts on depth + 1 of them.
            decays = [decay_at(s, depth + 1, self.reference + 1, self.decay) for s in SCALINGS]
            model = UFM(
                classes=self.classes,
                samples_per_class=self.samples,
                width=self.width,
                layers=depth,
                decay=decays,
                loss_scale=1 / self.classes,
            )
            run = simulate(
                model,
                seeds=self.seeds,
                until=self.horizon / min(decays),
                rtol=1e-5,
                atol=1e-8,
                progress=lambda share, i=i: progress((i + share) / len(self.depths)),
            )
            at_rest, speed = fixed_point(model), rates(model)
            edge = np.broadcast_to(np.asarray(fold(model).decay, dtype=float), (len(decays),))
            lanes = [(k, scaling) for k, scaling in enumerate(SCALINGS) for _ in self.seeds]
            for (k, scaling), end in zip(lanes, summarise(run, threshold=self.threshold), strict=True):
                rows.append(
                    {
                        "depth": depth,
                        "scaling": scaling,
                        "decay": decays[k],
                        "seed": end.seed,
                        "t_nc": end.t_nc,
                        "fn_star": end.fn_star,
                        "fn_inf": end.fn_inf,
                        "theory_fn": float(at_rest.feature_norm[k]),
                        "rate": float(np.atleast_1d(speed.nc1.value)[k]),
                        "fold": float(edge[k]),
                        "horizon": self.horizon / min(decays),
                    }
                )
        return record(self, began, rows)
