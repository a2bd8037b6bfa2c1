"""Events: the first time that a metric crosses a level, located inside a step."""

from __future__ import annotations

from dataclasses import dataclass

from ncflow import metrics
from ncflow.errors import require


@dataclass(frozen=True)
class Crossing:
    """First time that `metric` is below (`falling`) or above `level`.

    Attributes:
        metric: a name of `metrics.NAMES` that needs one pass over the samples only.
        level: greater than 0 and finite.
        falling: whether the crossing is from above (as for T_NC) or from below.

    Raises:
        BadInput: an unknown metric, or a level outside what is accepted.
    """

    metric: str = "nc1_trace_ratio"
    level: float = 0.01
    falling: bool = True

    def __post_init__(self) -> None:
        names = tuple(n for n in metrics.NAMES if "samples" not in metrics.METRICS[n].needs)
        require(self.metric in names, "event.metric", self.metric, f"one of {', '.join(names)}")
        require(isinstance(self.level, float | int) and 0 < self.level < float("inf"), "event.level", self.level,
                "a finite number greater than 0")

    @property
    def name(self) -> str:
        return f"{self.metric} {'<' if self.falling else '>'} {self.level:g}"
