"""What became of each lane of a training run."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

#: A lane with NC1 above this late in the run has diverged (the paper).
DIVERGED = 0.5
#: fn below this is no features at all; NC1, a ratio, can fall all the same.
ZERO = 1e-3


class Outcome(IntEnum):
    """What became of a lane; `.sentence` says it for people."""

    COLLAPSED = 0
    NOT_COLLAPSED = 1
    ZERO_FEATURES = 2
    DIVERGED = 3
    NON_FINITE = 4

    @property
    def words(self) -> str:
        return "collapsed to zero features" if self is Outcome.ZERO_FEATURES else self.name.lower().replace("_", " ")

    @property
    def sentence(self) -> str:
        return {
            Outcome.COLLAPSED: "NC1 was below the threshold at a measurement",
            Outcome.NOT_COLLAPSED: "NC1 stayed above the threshold",
            Outcome.ZERO_FEATURES: f"the features vanished (fn < {ZERO:g})",
            Outcome.DIVERGED: f"NC1 was above {DIVERGED:g} after the epoch stated in the protocol, and never below the threshold",
            Outcome.NON_FINITE: "left the finite numbers; its last good parameters are kept",
        }[self]


def first_below(nc1: np.ndarray, threshold: float) -> np.ndarray:
    """(lanes,) index of the first of the measurements nc1 (lanes, times) below the threshold, -1 where there is none."""
    below = nc1 < threshold
    return np.where(below.any(1), below.argmax(1), -1)


def outcomes(
    time: np.ndarray, nc1: np.ndarray, fn: np.ndarray, alive: np.ndarray, threshold: float, diverged_after: float
) -> np.ndarray:
    """(lanes,) values of `Outcome`, from NC1 and fn (lanes, times; NaN where a lane was not measured) and whether each lane
    is finite (`alive`)."""
    seen = np.isfinite(fn)
    last = np.where(seen.any(1), fn.shape[1] - 1 - seen[:, ::-1].argmax(1), 0)
    lanes, first = np.arange(len(fn)), first_below(nc1, threshold)
    found = np.where(first >= 0, Outcome.COLLAPSED, Outcome.NOT_COLLAPSED)
    late = ((nc1 > DIVERGED) & (time > diverged_after)).any(1)
    found = np.where(late & (first < 0), Outcome.DIVERGED, found)
    vanished = (fn[lanes, last] < ZERO) | ((first >= 0) & (fn[lanes, first] < ZERO))
    found = np.where(vanished, Outcome.ZERO_FEATURES, found)
    return np.where(alive, found, Outcome.NON_FINITE).astype(np.int64)
