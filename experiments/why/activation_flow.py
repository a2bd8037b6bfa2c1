"""Where fn of a perceptron rests, as a continuous function of its activation's knob.

The inputs are the class means of the data, so that nothing but the activation can keep a network from collapse; no biases. The
descent is of the whole batch with momentum, in double precision, which rests where the gradient flow does and does not mind the
kinks that the flow's integrators stall at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import torch

from experiments.sweeps.study import Study
from experiments.why.flows import record
from ncflow import SGD, DeepLinear, Phase, Status, Trajectory, simulate, summarise
from ncflow.activations import find
from ncflow.errors import require
from realnets import load


@dataclass(frozen=True, kw_only=True)
class ActivationFlow(Study):
    """One row per knob and seed: `activation`, `knob`, `seed`, `fn_inf` (NaN where it still moves), `fn_end` and `degree` (NaN
    where it blew up).

    The degree is sum z phi'(z) phi(z) / sum phi(z)^2 over units, classes and hidden layers at the end, what enters Euler's
    identity in place of the degree of homogeneity.

    Attributes:
        dataset, subset, scaling, data_seed: as in `TwoPhase`.
        activation: a name of `ncflow.activations`, with the `knobs` a of a phi(z/a).
        layers: weight matrices; `width` of the hidden layers.
        decay: of every layer; `seeds` of the initial weights.
        lr, momentum, steps: of the descent; lr steps / (1 - momentum) is its flow time.
    """

    kind: ClassVar[str] = "activation-flow"
    dataset: str
    subset: int | None
    scaling: str
    data_seed: int
    activation: str
    knobs: tuple[float, ...] = (1.0,)
    layers: int = 3
    width: int = 24
    decay: float = 5e-3
    seeds: tuple[int, ...] = (0, 1, 2)
    lr: float = 0.03
    momentum: float = 0.9
    steps: int = 8000

    def __post_init__(self) -> None:
        find(self.activation)
        require(bool(self.knobs) and min(self.knobs) > 0, "knobs", self.knobs, "numbers greater than 0")
        require(self.decay > 0, "decay", self.decay, "greater than 0")

    @property
    def cost_kind(self) -> str:
        lanes = len(self.knobs) * len(self.seeds)
        return f"{self.kind} {self.dataset} {self.activation}, {self.layers} layers, {lanes} lanes, decay {self.decay:g}"

    def run(self, *, root: str | Path | None, progress: Callable[[float], None]) -> Trajectory:
        began = perf_counter()
        data = load(self.dataset, self.subset, root, scaling=self.scaling, seed=self.data_seed)
        means = np.stack([data.x_train[data.y_train == k].mean(0, dtype=np.float64) for k in range(data.classes)], 1)
        model = DeepLinear(
            inputs=means,
            classes=data.classes,
            samples_per_class=1,
            layers=self.layers,
            width=self.width,
            activation=self.activation,
            activation_scale=list(self.knobs),
            decay=self.decay,
            loss_scale=1 / data.classes,
        )
        descent = Phase(optimiser=SGD(lr=self.lr, momentum=self.momentum), steps=self.steps)
        run = simulate(
            model,
            seeds=self.seeds,
            phases=[descent],
            save_at=np.linspace(0, self.steps, 21).round(),
            events=(),
            progress=progress,
        )
        rows: list[dict[str, Any]] = []
        for i, ((a, seed), end) in enumerate(zip(product(self.knobs, self.seeds), summarise(run), strict=True)):
            good = end.status in (Status.FINISHED, Status.AT_REST)
            weights = [run.final[f"W_{k}"][i] for k in range(1, self.layers)]
            rows.append(
                {
                    "activation": self.activation,
                    "knob": a,
                    "seed": seed,
                    "fn_inf": end.fn_inf if good else np.nan,
                    "fn_end": end.fn_end if good else np.nan,
                    "degree": degree(self.activation, a, weights, means) if good else np.nan,
                    "status": int(Status(end.status)),
                }
            )
        return record(self, began, rows)


def degree(activation: str, a: float, weights: list[Any], x: np.ndarray) -> float:
    """sum z phi_a'(z) phi_a(z) / sum phi_a(z)^2 over everything that `weights` make of the columns of x."""
    phi, h = find(activation), torch.as_tensor(x, dtype=torch.float64)
    above, below = 0.0, 0.0
    for W in weights:
        z = torch.as_tensor(np.asarray(W), dtype=torch.float64) @ h
        h = a * phi.value(z / a)
        above += float((z * phi.slope(z / a) * h).sum())
        below += float(h.square().sum())
    return above / below if below else np.nan
