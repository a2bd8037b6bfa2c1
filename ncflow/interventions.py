"""Interventions: what is done to a running lane from outside, such as the rescaling of the paper's section 6.4."""

from __future__ import annotations

from dataclasses import dataclass

from ncflow.errors import require
from ncflow.model import Numbers, _numbers


@dataclass(frozen=True)
class Rescale:
    """Multiply one layer by `alpha` at time `at`.

    Attributes:
        layer: index into [W_1, ..., W_M] as into a list (-1 is the head, -2 the last hidden layer), or "features" for
            the free features H of a `UFM`.
        alpha: the factor, greater than 0; one number or one per lane.
        at: flow time, not negative.

    Raises:
        BadInput: `alpha` or `at` outside what is accepted. `simulate` checks `layer` against the model.
    """

    layer: int | str
    alpha: Numbers
    at: float = 0.0

    def __post_init__(self) -> None:
        good = self.layer == "features" or (isinstance(self.layer, int) and not isinstance(self.layer, bool))
        require(good, "intervention.layer", self.layer, 'an index into the weight layers, or "features"')
        object.__setattr__(self, "alpha", _numbers("intervention.alpha", self.alpha, positive=True))
        object.__setattr__(self, "at", _numbers("intervention.at", self.at, ndim=0))
