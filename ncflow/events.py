"""Events: the first time that a metric crosses a level, located inside a step."""

from __future__ import annotations

from dataclasses import dataclass

from ncflow import metrics
from ncflow.errors import require
from ncflow.model import _numbers

OF_STATE = ("energy", "stationarity")  # what a state has besides metrics of its features


@dataclass(frozen=True)
class Crossing:
    """First time that `metric` is below (`falling`) or above `level`.

    Attributes:
        metric: a name of `metrics.NAMES`; or "energy", the loss with its decay terms; or "stationarity", rms(dy/dt)/rms(y) in
            the coordinates of the flow, which is what `rest` of `simulate` looks at. `metrics.NEEDS_SAMPLES` take a pass over
            all samples after every step, and a state that has samples; `nc2_gof_*` a `UFM` of one layer under MSE.
        level: greater than 0 and finite, as no metric is negative; for no mismatch at all take a share below 1/N.
        falling: whether the crossing is from above (as for T_NC) or from below.

    Raises:
        BadInput: an unknown metric, or a level outside what is accepted.
    """

    metric: str = "nc1_trace_ratio"
    level: float = 0.01
    falling: bool = True

    def __post_init__(self) -> None:
        names = (*metrics.NAMES, *OF_STATE)
        require(self.metric in names, "event.metric", self.metric, f"one of {', '.join(names)}")
        object.__setattr__(self, "level", _numbers("event.level", self.level, ndim=0, positive=True))

    @property
    def name(self) -> str:
        return crossing_name(self.metric, self.level, self.falling)


def crossing_name(metric: str, level: float, falling: bool = True) -> str:
    """What a crossing is called in a record, with every digit of the level."""
    return f"{metric} {'<' if falling else '>'} {level!r}"
