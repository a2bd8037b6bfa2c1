r"""When a model collapses: the first time that NC1 of its features is below a threshold, and what fn is then.

From an aligned start (`theory.aligned`) the flow is D equations for the amplitudes, with S the scatter that
no mode carries at t = 0. For one layer, equal decays l and theta = 1, balanced amplitudes make the signal
logistic (Saxe, McClelland and Ganguli 2014, with decay) and

    NC1 = A [e^{-2lt}/s_inf + (1/s_0 - 1/s_inf) e^{-2qt}],  A = S/((K-1) sqrt n),  q = 2c/(K sqrt n),
    s_inf = 1 - l/q.

Both are exact. From a random start the same equations are run from root mean square singular values, and the
noise takes every way of `theory.rates` in proportion to the dimensions it finds there; with modes long at
rest and the slowest way alone that is

    T = ln( S / (eps (K-1) n m^2) ) / (2 sum theta_i l_i).

Beyond the fold features vanish: NC1, a ratio, still falls at 2q for D = 2 and freezes for D >= 3, so that a
crossing says nothing; `regime` tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from ncflow import initial as initial_state
from ncflow.errors import require
from ncflow.model import UFM, DeepLinear
from theory import mode
from theory.aligned import Aligned, aligned, crossing, of
from theory.boundary import fold, maxwell
from theory.floor import floor
from theory.point import FixedPoint, Standing
from theory.rest import Array, points, require_linear

SOURCE = "derived here; logistic signal: Saxe, McClelland and Ganguli 2014"
ERROR = "1.2 (M = 1), 1.35 (M = 2), 1.75 (M = 3); 2 where widths are below 2 K."


class Regime(Enum):
    """What decay does to the features; the value says it for people."""

    COLLAPSE = "the collapsed point is the global minimum"
    METASTABLE = "the collapsed point is a local minimum, zero is cheaper"
    VANISHING = "the features go to zero; NC1, a ratio, says nothing"
    FLOOR = "features tied to data keep NC1 above the threshold"


@dataclass(frozen=True, eq=False, kw_only=True)
class CollapseTime:
    """Numbers for one lane, (lanes,) for several.

    Attributes:
        time: first flow time with NC1 below the threshold; inf if it never is.
        feature_norm: fn then (root mean square over samples); nan if never.
        regime: `Regime`, or a tuple of them for several lanes.
        scatter: S, the total within-class scatter that decays alone.
        law, status, assumptions, source: as in `FixedPoint`.
    """

    time: Any
    feature_norm: Any
    regime: Any
    scatter: Any
    law: str
    status: Standing
    assumptions: tuple[str, ...] = ()
    source: str = SOURCE

    @property
    def formula(self) -> str:
        """The law in LaTeX."""
        from theory.derivations_dynamics import latex

        return latex(self.law)


def time_to_collapse(model: UFM | DeepLinear, threshold: float = 0.01, *, signal: float | None = None,
                     scatter: float | None = None, initial: dict[str, Any] | None = None,
                     layer: int = -1) -> CollapseTime:
    """First flow time at which `nc1_trace_ratio` is below `threshold`.

    Args:
        signal: s_0 in (0, 1] of every mode at t = 0 for an aligned, balanced start (lambda_i x_i^2 equal);
            None for a random start, which is estimated. The scale is that of `FixedPoint.signal`.
        scatter: S at t = 0, sum of |e_i|^2 over all samples outside the modes, in that layer; by default
            estimated from `initial`.
        initial: a random state {"H": (p_0, N), "W": [W_1, ..]} as for `simulate`; by default what
            `ncflow.initial.draw` gives for seed 0.
        layer: features measured, as an index into H_1 .. penultimate.

    Raises:
        BadInput: as `fixed_point`; unequal classes; an active mean mode; no spare width for noise to live in;
            data without a floor above the threshold, whose collapse time is not known here.
    """
    require_linear(model, "the time to collapse")
    require(isinstance(threshold, int | float) and threshold > 0, "threshold", threshold, "a number above 0")
    if isinstance(model, DeepLinear):
        return _tied(model, threshold)
    require(model.balanced, "samples_per_class", model.samples_per_class, "equal classes")
    require(-model.layers <= layer < model.layers, "layer", layer, f"an index into {model.layers} layer(s)")
    require(signal is None or 0 < signal <= 1, "signal", signal, "in (0, 1], or None for a random start")
    require(scatter is None or scatter > 0, "scatter", scatter, "greater than 0")
    layer %= model.layers
    regimes = _regimes(model)
    rows, law, said = [], "", ""
    for lane, point in enumerate(points(model)):
        total, begin = _started(model, layer, initial)
        S = total if scatter is None else float(scatter)
        if signal is None:
            row, law, said = _estimated(model, lane, point, begin, S, threshold, layer)
        else:
            row, law, said = _aligned(model, lane, float(signal), S, threshold, layer)
        rows.append((*row, S))
    time, fn, vanished, left = (np.array(v) for v in zip(*rows, strict=True))
    regimes = tuple(Regime.VANISHING if gone else r for gone, r in zip(vanished, regimes, strict=True))
    one = len(rows) == 1
    start = ("Random start: modes are taken to be alike, and noise to spread over all directions alike."
             if signal is None else
             "Aligned start: every mode the same signal, balanced amplitudes, noise outside the modes.")
    return CollapseTime(
        time=float(time[0]) if one else time, feature_norm=float(fn[0]) if one else fn,
        regime=_one(regimes), scatter=float(left[0]) if one else left, law=law,
        status="exact" if signal is not None else "empirical", assumptions=(start, said))


def regime(model: UFM | DeepLinear, threshold: float = 0.01) -> Regime | tuple[Regime, ...]:
    """The `Regime` of each lane: a Regime for one, a tuple for several. `threshold` matters for data only.

    Raises:
        BadInput: as `fold`.
    """
    return _one(_regimes(model, threshold))


def _one(regimes: tuple[Regime, ...]) -> Any:
    return regimes[0] if len(regimes) == 1 else regimes


def _regimes(model: UFM | DeepLinear, threshold: float = 0.01) -> tuple[Regime, ...]:
    require_linear(model, "the regime")
    end = np.atleast_1d(fold(model, first=True).factor)
    tie = end
    if isinstance(model, UFM) or not isinstance(model.inputs, np.ndarray):
        tie = np.atleast_1d(maxwell(model).factor)
    high = np.zeros(model.lanes, dtype=bool)
    if isinstance(model, DeepLinear):
        high = np.atleast_1d(floor(model).nc1) >= threshold
    return tuple(Regime.VANISHING if e <= 1 else Regime.FLOOR if h else Regime.METASTABLE if t <= 1
                 else Regime.COLLAPSE for e, t, h in zip(end, tie, high, strict=True))


def _tied(model: DeepLinear, threshold: float) -> CollapseTime:
    regimes = _regimes(model, threshold)
    require(all(r is Regime.FLOOR for r in regimes), "model", "a DeepLinear with a floor below the threshold",
            "a UFM: on data only the floor is known, not when NC1 comes near it")
    several = len(regimes) > 1
    never, nothing = (np.full(len(regimes), v) if several else v for v in (np.inf, np.nan))
    return CollapseTime(time=never, feature_norm=nothing, regime=_one(regimes),
                        scatter=nothing, law="floor", status="exact",
                        assumptions=("The floor of NC1 is above the threshold.",))


def _aligned(model: UFM, lane: int, signal: float, S: float, eps: float, layer: int) -> tuple[Any, str, str]:
    flow = aligned(model, lane, signal, S, layer)
    if len(flow.decays) == 2 and flow.decays[0] == flow.decays[1] and flow.speeds[0] == 1:
        return _logistic(flow, signal, eps), "nc1_logistic", "Logistic signal; T is its root."

    def gap(t: float, y: Array) -> float:
        return float(flow.log_nc1(t, y) - np.log(eps))

    y = np.log(flow.start)
    if gap(0.0, y) <= 0:
        return (0.0, float(flow.feature_norm(0.0, y)), _doomed(flow)), "nc1_aligned", "Below at the start."
    # Once the signal is gone for good (D >= 3), amplitude and noise decay alike and NC1 stands still.
    found = flow.run(1e3 / float(np.min(flow.decays * flow.speeds)), gap)
    gone = _doomed(flow)
    if found.t_events is None or not len(found.t_events[0]):
        return (np.inf, np.nan, gone), "nc1_aligned", "Integrated to a relative 1e-11."
    t, y = float(found.t_events[0][0]), found.y_events[0][0]
    return (t, float(flow.feature_norm(t, y)), gone), "nc1_aligned", "Integrated to a relative 1e-11."


def _doomed(flow: Aligned) -> bool:
    """Whether the signal vanishes: beyond the fold, or (D >= 3) from a start in the basin of zero."""
    D, mean = len(flow.decays), float(np.exp(np.mean(np.log(flow.decays))))
    upper, lower = (float(x) for x in mode.roots(D, mode.tension(D, mean, flow.scale, flow.target)))
    if D == 2 or np.isnan(upper):
        return bool(np.isnan(upper))
    end = flow.run(40 / float(np.min(flow.decays * flow.speeds)))
    return bool(np.exp(np.sum(end.y[:, -1])) / flow.target < lower)


def _logistic(flow: Aligned, s0: float, eps: float) -> tuple[float, float, bool]:
    l, q = float(flow.decays[0]), flow.scale * flow.target  # noqa: E741
    A, top = flow.scatter / ((flow.classes - 1) * flow.target), 1 - l / q

    def inverse(t: float) -> float:
        """e^{-2lt}/s(t), smooth through l = q."""
        gone = 2 * (q - l) * t
        rise = 2 * q * t * np.exp(-2 * l * t) * (-np.expm1(-gone) / gone if gone else 1.0)
        return float(rise + np.exp(-2 * q * t) / s0)

    def gap(t: float) -> float:
        return A * inverse(t) / eps - 1

    if gap(0.0) <= 0:
        t = 0.0
    else:
        high = 1 / q
        while gap(high) > 0:
            high *= 2
        t = crossing(gap, 0.0, high)
    s = np.exp(-2 * l * t) / inverse(t)
    y = 0.5 * np.log(s * flow.target) * np.ones(2)
    return t, float(flow.feature_norm(t, y)), top <= 0


def _started(model: UFM, layer: int, state: dict[str, Any] | None) -> tuple[float, Array]:
    """Total within-class scatter in `layer` of a state, by default a drawn one, and its D amplitudes: root
    mean square singular values of the weights, and of the class means along any K directions."""
    if state is None:
        drawn = initial_state.draw(model, 0)
        state = {"H": drawn["H"], "W": [drawn[f"W_{i}"] for i in range(1, model.layers + 1)]}
    H, W = np.asarray(state["H"], dtype=float), [np.asarray(w, dtype=float) for w in state["W"]]
    shape = (model.widths[0], model.samples)
    require(H.shape == shape, "initial['H']", f"features of shape {H.shape}", f"shape {shape}")
    require([w.shape for w in W] == list(model.weight_shapes), "initial['W']", [w.shape for w in W],
            f"shapes {model.weight_shapes}")
    K, n = model.classes, model.class_counts[0]
    means = np.stack([H[:, model.labels == k].mean(axis=1) for k in range(K)], axis=1)
    noise = H - means[:, model.labels]
    for w in W[:layer]:
        noise = w @ noise
    sizes = [np.sqrt(n / K) * np.linalg.norm(means) * np.sqrt(K / model.widths[0])]
    sizes += [float(np.linalg.norm(w)) / np.sqrt(min(w.shape)) for w in W]
    return float(np.sum(noise**2)), np.array(sizes)


def _ways(model: UFM, lane: int, point: FixedPoint, layer: int) -> Array:
    """(ways, 2): rate and share of the scatter in `layer` for each way of `theory.rates`; the one outside the
    modes throughout first.

    Shares are those of dimensions; a deviation that enters the modes between layers k and k + 1 has lost to
    the rotation of the modes all but l_{k+1}/(l_k + l_{k+1}) of itself.
    """
    l = np.concatenate([model.feature_decays[[lane]] * model.mobilities[lane],  # noqa: E741
                        model.weight_decays[lane]])
    p, r, share, ways = model.widths, point.rank, 1.0, []
    for k in range(layer + 1):
        ways.append((l[0] / (1 - np.min(point.signal)), r / p[0]) if k == 0 else (
            float(np.sum(l[:k]) + l[k - 1] + l[k]), share * r / p[k] * (l[k] / (l[k - 1] + l[k])) ** 2))
        share *= (p[k] - r) / p[k]
    return np.array([(float(np.sum(l[:layer + 1])), share), *ways])


def _estimated(model: UFM, lane: int, point: FixedPoint, start: Array, S: float, eps: float,
               layer: int) -> tuple[Any, str, str]:
    said = "Against flows from drawn starts: NC1 at T off by a factor of at most " + ERROR
    if not point.exists:
        return (np.inf, np.nan, True), "nc1_random", said
    K, n = model.classes, model.class_counts[0]
    require(model.bias != "decayed" or point.rank < K, "decay.bias", model.bias_decays[lane],
            "small enough that the mean mode is not active")
    speed, share = _ways(model, lane, point, layer).T
    require(share[0] > 0 and S > 0, "width", model.width, "more than the number of active modes in every "
            "layer up to the one measured, and several samples per class: else no noise is left to wait for")
    flow = of(model, lane, start, S, layer, point.rank)
    means = (K - 1) * n * float(point.layer_feature_norms[layer]) ** 2 * K / point.rank
    until = max(float(np.log(S / (eps * means)) / (2 * speed.min())), 0.0) + 10 / float(np.min(flow.decays))

    def left(t: float) -> float:
        return float(share @ np.exp(-2 * speed * t))

    def gap(t: float, y: Array) -> float:
        sink = float(np.sum((flow.speeds * flow.decays)[:layer + 1]))
        return float(flow.log_nc1(t, y)) + 2 * sink * t + np.log(left(t) / eps)

    if gap(0.0, np.log(start)) <= 0:
        t, y = 0.0, np.log(start)
    else:
        found = flow.run(until, gap)
        if not len(found.t_events[0]):
            return (np.inf, np.nan, True), "nc1_random", said
        t, y = float(found.t_events[0][0]), found.y_events[0][0]
    square = point.rank / K / n * float(np.exp(2 * y[:layer + 1].sum()))
    return (t, float(np.sqrt(square + S * left(t) / model.samples)), False), "nc1_random", said
