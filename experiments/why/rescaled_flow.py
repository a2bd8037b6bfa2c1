"""A layered model at rest, one of its layers rescaled: does fn come back, from where, and how fast?

From the fixed point fn starts at alpha times its value at rest, so that alpha < 1 starts truly below. Theory: the imbalance of
the layers fades at 2 lambda (`theory.recovery`); but zero attracts too from three factors on, so that not every start comes back.
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
from ncflow import UFM, Rescale, Trajectory, simulate
from ncflow.errors import require
from theory import fixed_point, intervention_response

#: What can be rescaled: name -> `Rescale.layer`.
PLACES: dict[str, int | str] = {"features": "features", "first": 0, "last hidden": -2, "head": -1}
#: Distance from rest, relative, between which the rate of return is read off, and the waiting time before, in 1/lambda.
NEAR, FAR, WAIT = 1e-5, 0.1, 0.5


@dataclass(frozen=True, kw_only=True)
class RescaledFlow(Study):
    """One row per place and factor: `place`, `alpha`, `start` and `end` (fn after the rescaling and at the end, over fn at
    rest), `rate` of return over 2 lambda (NaN where it is never between `NEAR` and `FAR`), `error` of the theory's fn over the
    return (NaN where theory has no way back); curves `fn` over fn at rest.

    Attributes:
        alphas: factors; `layers`, `classes`, `samples`, `width` of the model, `decay` of all its factors.
        before, after: flow time of the way to rest and of the return, in 1/decay.
    """

    kind: ClassVar[str] = "rescaled-flow"
    alphas: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    layers: int = 3
    classes: int = 4
    samples: int = 5
    width: int = 8
    decay: float = 2e-3
    before: float = 6.0
    after: float = 6.0

    def __post_init__(self) -> None:
        require(bool(self.alphas) and min(self.alphas) > 0, "alphas", self.alphas, "numbers greater than 0")
        require(self.layers >= 2, "layers", self.layers, "at least 2: one hidden layer")
        require(self.decay > 0, "decay", self.decay, "greater than 0")

    @property
    def cost_kind(self) -> str:
        return f"{self.kind} {self.layers} layers, {len(self.alphas)} alphas, decay {self.decay:g}"

    def model(self, lanes: int) -> UFM:
        decay = self.decay if lanes == 1 else [self.decay] * lanes
        return UFM(
            classes=self.classes,
            samples_per_class=self.samples,
            width=self.width,
            layers=self.layers,
            decay=decay,
            loss_scale=1 / self.classes,
        )

    def run(self, *, root: str | Path | None, progress: Callable[[float], None]) -> Trajectory:
        began = perf_counter()
        at, end = self.before / self.decay, (self.before + self.after) / self.decay
        since = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 119)]) * (end - at)
        model, one = self.model(len(self.alphas)), self.model(1)
        at_rest = float(fixed_point(one).feature_norm)
        rows: list[dict[str, Any]] = []
        curves = []
        for i, (place, layer) in enumerate(PLACES.items()):
            run = simulate(
                model,
                seeds=[0],
                save_at=[0.0, 0.999 * at, *(at + since[1:])],
                rtol=1e-7,
                atol=1e-10,
                events=(),
                interventions=[Rescale(layer=layer, alpha=list(self.alphas), at=at)],
                progress=lambda share, i=i: progress((i + share) / len(PLACES)),
            )
            fn = run.data["fn"].values[:, 1:] / at_rest
            moves = place != "head"  # the head does not enter the features
            fn[:, 0] *= np.array(self.alphas) if moves else 1.0
            theory = intervention_response(one, self.alphas, since, layer=layer)
            use = since > theory.settled
            for alpha, curve, expected in zip(self.alphas, fn, theory.feature_norm / at_rest, strict=True):
                known = use & np.isfinite(expected)
                error = float(np.abs(curve / expected - 1)[known].max()) if known.any() else np.nan
                rows.append(
                    {
                        "place": place,
                        "alpha": alpha,
                        "start": float(curve[0]),
                        "end": float(curve[-1]),
                        "rate": rate(since, curve, self.decay),
                        "error": error,
                    }
                )
            curves.append(fn)
        return record(self, began, rows, {"fn": np.concatenate(curves)}, since)


def rate(since: np.ndarray, fn: np.ndarray, decay: float) -> float:
    """-d log|fn - 1|/dt over 2 lambda, least squares where the return is under way."""
    distance = np.abs(fn - 1)
    use = (distance > NEAR) & (distance < FAR) & (since > WAIT / decay)
    return float(-np.polyfit(since[use], np.log(distance[use]), 1)[0] / (2 * decay)) if use.sum() > 4 else np.nan
