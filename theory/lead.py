r"""Which settles first, the feature norm or NC1?

Close to rest fn/fn_inf - 1 ~ A e^{-mu t} + (K-1)/(2R) NC1, mu the signal's slow rate, NC1 falling at its own:
fn is first in the end iff the signal is the faster. For one layer with spare width that is exactly lambda_W >
lambda_H and sigma > 1/2, since det(S - 2 lambda_H) of the symmetric block S has the sign of their product
(`theory.derivations_hessian.lead_condition`); equal decays tie. How long before depends on how closely each is
asked to have settled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ncflow.errors import BadInput, require
from ncflow.model import UFM
from theory.aligned import aligned, crossing
from theory.point import Standing
from theory.rates import rates
from theory.rest import points
from theory.times import Regime, time_to_collapse


@dataclass(frozen=True, eq=False, kw_only=True)
class Lead:
    """Which settles first, fn or NC1, from an aligned start (one lane).

    Attributes:
        lead: collapse_time - settling_time; positive where fn settles first.
        settling_time: last time at which |fn/fn_inf - 1| exceeds the tolerance.
        collapse_time: T_NC.
        fn_first: whether the signal is faster than NC1, which decides for thresholds and tolerances tending
            to zero. One layer: lambda_W > lambda_H and sigma > 1/2. False in a tie.
        status, law, assumptions, source: as in `FixedPoint`.
    """

    lead: float
    settling_time: float
    collapse_time: float
    fn_first: bool
    status: Standing = "exact"
    law: str = "lead"
    assumptions: tuple[str, ...] = ("Aligned start; noise outside the modes, of equal norm in all samples.",)
    source: str = "derived here; aligned flow: Saxe, McClelland and Ganguli 2014"

    @property
    def formula(self) -> str:
        """The law in LaTeX."""
        from theory.derivations_dynamics import latex

        return latex(self.law)


def lead_time(model: UFM, threshold: float = 0.01, tolerance: float = 0.01, *, signal: float = 1.0,
              scatter: float | None = None) -> Lead:
    """By how much fn settles before NC1 collapses; arguments as `time_to_collapse`, one lane.

    fn is taken as sqrt(m^2 R/K + |e|^2), exact when all samples deviate equally. The lead depends on both
    tolerance and threshold; do not read it without them.

    Raises:
        BadInput: as `time_to_collapse`; several lanes; a model whose features vanish.
    """
    require(model.lanes == 1, "model", f"{model.lanes} lanes", "one lane")
    require(0 < tolerance < 1, "tolerance", tolerance, "between 0 and 1")
    found = time_to_collapse(model, threshold, signal=signal, scatter=scatter)
    require(found.regime is not Regime.VANISHING and np.isfinite(found.time), "decay", model.decay,
            "decays under which the features stay: fn has nowhere to settle")
    flow = aligned(model, 0, signal, found.scatter)
    point, speed = next(points(model)), rates(model)
    slow = min(float(speed.signal.value), float(speed.nc1.value))
    until = (20 - np.log(tolerance)) / slow + found.time
    path = flow.run(until)
    t = np.unique(np.concatenate([path.t, np.linspace(0, until, 4000)]))

    def gap(at: Any) -> Any:
        return np.abs(flow.feature_norm(at, path.sol(at)) / point.feature_norm - 1) - tolerance

    outside = np.flatnonzero(gap(t) > 0)
    settled = 0.0
    if len(outside):
        i = int(outside[-1])
        if i + 1 == len(t):
            raise BadInput("tolerance", tolerance, "large enough for fn to settle within the flow")
        settled = crossing(gap, float(t[i]), float(t[i + 1]))
    return Lead(lead=found.time - settled, settling_time=settled, collapse_time=found.time,
                fn_first=bool(speed.signal.value > speed.nc1.value * (1 + 1e-9)))
