"""Batch-normalised features on a residual stream, brought to rest: does theory's fn hold in the smallest model that has both?

`theory.batchnorm`: fn = sqrt(x) ((K-1) L)^(1/4) for L normalised blocks that add into the stream, x the signal of the loss.
Descent of the whole batch with momentum, in double precision, which rests where the gradient flow does. The start knows the
classes: from one that does not, units that are off for single samples stay off, and the minimum is a local one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import numpy as np

from experiments.sweeps.study import Study
from experiments.why.flows import record
from ncflow import SGD, UFM, Decay, Phase, Trajectory, simulate, summarise
from ncflow.errors import require
from theory import fixed_point


@dataclass(frozen=True, kw_only=True)
class BatchNormFlow(Study):
    """One row per loss, number of streams and seed: `loss`, `streams`, `seed`, `fn_end`, `fn_inf` (NaN if it still moves),
    `theory_fn`, `nc1_end`.

    Attributes:
        streams: numbers L; L = 1 is a network without skip connections.
        classes, samples, width: K, per class, channels.
        decay: of gamma, beta and the head; the head's bias is free.
        seeds: of the start; `spread` of the samples about their class, whose directions have entries of size 1.
        lr, momentum, steps: of the descent, followed by half as many steps at a tenth of the rate.
    """

    kind: ClassVar[str] = "batchnorm-flow"
    streams: tuple[int, ...] = (1, 2, 3, 4)
    classes: int = 4
    samples: int = 5
    width: int = 16
    decay: float = 1e-2
    seeds: tuple[int, ...] = (0, 1)
    spread: float = 0.3
    lr: float = 0.1
    momentum: float = 0.9
    steps: int = 1500

    def __post_init__(self) -> None:
        require(bool(self.streams) and min(self.streams) >= 1, "streams", self.streams, "whole numbers, at least 1")
        require(self.decay > 0, "decay", self.decay, "greater than 0")

    @property
    def cost_kind(self) -> str:
        return (
            f"{self.kind} up to {max(self.streams)} streams, {len(self.seeds)} seeds, {self.samples} samples, {self.steps} steps"
        )

    def run(self, *, root: str | Path | None, progress: Callable[[float], None]) -> Trajectory:
        began = perf_counter()
        rows: list[dict[str, Any]] = []
        cases = list(product(("mse", "cross_entropy"), self.streams))
        for i, (loss, streams) in enumerate(cases):
            model = UFM(
                classes=self.classes,
                samples_per_class=self.samples,
                width=self.width,
                loss=loss,
                bias="free",
                loss_scale=1 / self.classes,
                normalization="batch",
                streams=streams,
                decay=Decay(weights=self.decay, features=0.0),
            )
            rates = ((self.lr, self.steps), (self.lr / 10, max(1, self.steps // 2)))
            descent = [Phase(optimiser=SGD(lr=lr, momentum=self.momentum), steps=steps) for lr, steps in rates]
            end = sum(steps for _, steps in rates)
            run = simulate(
                model,
                initial=self.start(streams),
                phases=descent,
                save_at=np.linspace(0, end, 21).round(),
                events=(),
                progress=lambda share, i=i: progress((i + share) / len(cases)),
            )
            theory = float(fixed_point(model).feature_norm)
            rows += [
                {
                    "loss": loss,
                    "streams": streams,
                    "seed": seed,
                    "fn_end": end.fn_end,
                    "fn_inf": end.fn_inf,
                    "nc1_end": end.nc1_end,
                    "theory_fn": theory,
                }
                for seed, end in zip(self.seeds, summarise(run), strict=True)
            ]
        return record(self, began, rows)

    def start(self, streams: int) -> dict[str, Any]:
        """Blocks whose samples are near their class, with a lane per seed."""
        K, n, p = self.classes, self.samples, self.width
        made: dict[str, list[np.ndarray]] = {"Z": [], "W": []}
        for seed in self.seeds:
            rng = np.random.default_rng(seed)
            classes = np.repeat(rng.standard_normal((1, p, K)), n, axis=2)
            made["Z"].append(classes + self.spread * rng.standard_normal((streams, p, K * n)))
            made["W"].append(0.3 * rng.standard_normal((K, p)))
        flat = np.zeros((len(self.seeds), streams, p))
        return {"Z": np.stack(made["Z"]), "gamma": flat + 1, "beta": flat, "W": [np.stack(made["W"])]}
