r"""How fast a linear model approaches its fixed point: every asymptotic rate, from the spectrum at rest.

    NC1 of H_1           2 theta lambda_H (p_0 > R), else 2 theta lambda_H/(1 - x)
    NC1 penultimate      twice the slowest way of a sample's deviation through the layers:
                         lambda_H/(1 - x)                              inside the modes,
                         lambda_H + l_1 + .. + l_{M-1}                 outside them throughout,
                         lambda_H + .. + l_k + (l_k + l_{k+1})         outside up to layer k, then in
    signal               smallest eigenvalue of the symmetric block; D = 2: about 4 sigma lW lH/(lW + lH)
    fn                   the slowest of signal, NC1 and twice the bias block
    balance              2 lambda (equal decays): norms of the layers equalise at this rate and no other

Ways that leave the modes need spare width there. Rates of decaying quantities, -d log/dt of the flow with
mobility theta; the last is exact at all times, the others hold for t -> infinity from a generic start near
the fixed point. Derived here (`theory.derivations_dynamics`); balance: Arora, Cohen and Hazan (2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ncflow.errors import require
from ncflow.model import UFM, DeepLinear, Isotropic
from theory.point import Standing
from theory.rest import Rest, points, require_linear, rest
from theory.spectrum import blocks

SOURCE = "derived here; balance: Arora, Cohen and Hazan 2018; signal: Saxe, McClelland and Ganguli 2014"


@dataclass(frozen=True, eq=False)
class Rate:
    """One rate: a number, or (lanes,); nan where the quantity does not decay to zero.

    Attributes:
        value: -d log(quantity)/dt.
        law: key of `theory.derivations_dynamics.LAWS`.
        status: "exact" at all times, or "asymptotic" for t -> infinity.
        assumptions, source: as in `FixedPoint`.
    """

    value: Any
    law: str
    status: Standing
    assumptions: tuple[str, ...] = ()
    source: str = SOURCE

    @property
    def formula(self) -> str:
        """The law in LaTeX."""
        from theory.derivations_dynamics import latex

        return latex(self.law)


@dataclass(frozen=True, eq=False, kw_only=True)
class Rates:
    """Asymptotic rates of one model.

    Attributes:
        nc1: of the features that enter the head.
        nc1_first: of H_1.
        fn: of |fn/fn_inf - 1|.
        signal: of the singular values towards rest.
        balance: of lambda_i |W_i|^2 - lambda_{i+1} |W_{i+1}|^2.
    """

    nc1: Rate
    nc1_first: Rate
    fn: Rate
    signal: Rate
    balance: Rate


def rates(model: UFM | DeepLinear) -> Rates:
    """Every asymptotic rate of `model` at its collapsed fixed point; nan where no mode is active.

    Raises:
        BadInput: a loss, activation or constraint for which the fixed point is not known; data that are not
            `Isotropic`.
    """
    require_linear(model, "rates")
    free = isinstance(model, UFM)
    require(free or isinstance(model.inputs, Isotropic), "inputs", "an array",
            "Isotropic: data that are not aligned mix all modes; read spectrum(model)")
    theta = model.mobilities if isinstance(model, UFM) else np.ones(model.lanes)
    rows = []
    for lane, point in enumerate(points(model)):
        state = rest(model, lane, point, float(theta[lane]))
        rows.append(_lane(state, free, model.balanced) if point.exists else [np.nan] * 5)
    nc1, first, fn, signal, balance = (float(v[0]) if len(v) == 1 else v for v in np.array(rows).T)
    generic = "Generic start near the fixed point, t -> infinity."
    spare = "Width beyond the number of modes decides." if free else "NC1 tends to its floor, not to zero."
    return Rates(
        nc1=Rate(nc1, "nc1_penultimate", "asymptotic", (generic, spare)),
        nc1_first=Rate(first, "nc1_first", "asymptotic", (generic, spare)),
        fn=Rate(fn, "fn_rate", "asymptotic", (generic, "The slowest of the ways that fn can still move.")),
        signal=Rate(signal, "symmetric", "asymptotic", (generic,)),
        balance=Rate(balance, "balance", "exact",
                     ("Equal mobility times decay in all factors; nan otherwise.", "At all times.")))


def _lane(state: Rest, free: bool, balanced: bool) -> list[float]:
    l, r = state.decay_rates, state.rank  # noqa: E741
    found: dict[str, list[float]] = {}
    for block in blocks(state):
        if block.size:
            found.setdefault(block.name, []).extend(float(v) for v in block.eigenvalues if v != 0)

    def least(*names: str) -> float:
        return min((v for name in names for v in found.get(name, ())), default=np.inf)

    inside = least("within-class, seen by the head")
    first = min(inside, l[0]) if free and state.hidden[0] > r else inside
    ways = _ways(l, [p > r for p in state.hidden]) if free else []
    nc1 = 2 * min([inside, *ways]) if free and state.within else np.nan
    signal = least("symmetric", "mean mode")
    if state.degree == 1:
        signal = float(np.min(l[0] + state.scale * np.diag(state.gram)[:r]))
    # What else moves the norms of class means: at first order (1), or squared (2).
    rates = [signal, 2 * least("exchange of unequal modes")]
    if free:
        rates += [nc1] if state.within else []
        power = 2 if balanced else 1
        if state.push is not None:  # the global mean, which the bias follows
            outside = [least("dead mode in spare width")] if _tied(state) else ways
            inner = least("bias", "exchange with the mean mode")
            rates += [power * inner, power * min(outside, default=np.inf)]
            rates += [least("exchange of unequal modes")] if not balanced else []
        elif r < state.outputs:  # classes at zero, whose norms feel every motion
            outside = [least("dead mode in spare width")] if state.degree == 2 else ways
            rates += [least("dead mode against active"), min(outside, default=np.inf)]
    balance = 2 * l[0] if np.ptp(l) <= 1e-14 * l.max() and len(l) > 1 else np.nan
    return [nc1, 2 * first if free and state.within else np.nan, float(np.nanmin(rates)), signal, balance]


def _tied(state: Rest) -> bool:
    """Whether the head pulls on the features' mean outside the modes: D = 2, a decayed bias, a dead mean."""
    mean = state.mean
    return state.degree == 2 and mean is not None and mean >= state.rank and state.residual[mean] != 0


def _ways(l: Any, spare: list[bool]) -> list[float]:  # noqa: E741
    """Rates at which deviations outside the modes reach the penultimate layer; l = (lambda_H, l_1..l_M)."""
    M, ways = len(spare), []
    for k in range(M):
        if not spare[k]:
            break
        out = float(np.sum(l[:k + 1]))
        ways.append(out if k == M - 1 else out + l[k] + l[k + 1])
    return ways
