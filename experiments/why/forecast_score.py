"""A forecaster on trial: every pair of network and data set that its constants never saw, beside rules that need no theory.

A collapse time that never came, or is not expected, counts as the end of the run, for every rule alike. fn is that at the end of
the run; a pair is one condition, its fn the mean over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from experiments import statistics
from experiments.paper.evidence import Evidence, Row
from experiments.paper.networks import Network
from experiments.sweeps.catalogue import Held, key
from experiments.why.forecast_law import CALIBRATION, Case, Constants, Expected, Seen, forecast
from experiments.why.forecasting import Forecasting
from ncflow import Trajectory
from ncflow.errors import require
from realnets import Lane, TwoPhase

THRESHOLD = 0.01
#: What may warn of collapse by falling: name -> its values in a network's record.
SIGNALS: Mapping[str, Callable[[Network], np.ndarray]] = {
    "fn": lambda n: n.fn,
    "training loss": lambda n: n.values["mse"],
    "norm product": lambda n: n.values["norm_product"],
    "head norm": lambda n: n.layers["weight_norm"][:, -1],
    "imbalance of layers": lambda n: n.values["balance"],
}


def is_calibration(setting: TwoPhase) -> bool:
    """Whether constants may have been fitted to it."""
    same = [(key(c), c.decays, c.lr) for c in CALIBRATION]
    return (key(setting), setting.decays, setting.lr) in same


def case_of(setting: TwoPhase, record: Trajectory, seed: int) -> Case:
    """What is known of one seed at the switch."""
    seeds = record.data["seed"].values
    require(seed in seeds, "seed", seed, f"one of {', '.join(map(str, seeds))}")
    row = record.data.isel(lane=int(np.flatnonzero(seeds == seed)[0]))
    return Case(setting, {str(n): float(v) for n, v in row.data_vars.items() if v.dims == () and n != "seed"})


def seen_of(held: Held, lane: Lane) -> Seen:
    """What became of one lane of a finished run."""
    return seen(Network.of(held, lane))


def seen(network: Network) -> Seen:
    time, _, nc1 = network.in_phase(2)
    start = float(network.time[network.phase == 1].max())
    return Seen(time - start, nc1, network.last("fn"))


@dataclass(frozen=True, eq=False)
class Pair:
    """One condition: its networks and what was expected of them.

    Attributes:
        label, setting; `calibration` whether constants saw it.
        networks, expected: of the same seeds.
        fn, t_nc: (n,) fn at the end; T_NC, the end of the run where it never came.
        end: epochs of a run.
        model_fn, model_t_nc: (n,) of the matched model, NaN where it was not simulated.
        collapsed: (n,) whether T_NC came.
    """

    label: str
    setting: TwoPhase
    calibration: bool
    networks: tuple[Network, ...]
    expected: tuple[Expected, ...]
    fn: np.ndarray
    t_nc: np.ndarray
    collapsed: np.ndarray
    end: float
    model_fn: np.ndarray
    model_t_nc: np.ndarray

    @property
    def fn_hat(self) -> np.ndarray:
        return np.array([e.fn for e in self.expected])

    @property
    def t_hat(self) -> np.ndarray:
        """(n,), at most the end."""
        return np.minimum([e.t_nc for e in self.expected], self.end)


def pairs(evidence: Evidence, constants: Constants) -> list[Pair]:
    """Those that have both networks and a forecast."""
    records = {_same(r.condition.setting.setting): r.record for r in evidence.studies
               if isinstance(r.condition.setting, Forecasting) and r.record is not None}  # fmt: skip
    out = []
    for row in evidence.present:
        setting = row.condition.setting
        if isinstance(setting, TwoPhase) and (record := records.get(_same(setting))) is not None:
            out.append(_pair(row, setting, record, constants))
    return out


def _same(setting: TwoPhase) -> tuple:
    return key(setting), setting.decays, setting.lr, setting.seeds


def _pair(row: Row, setting: TwoPhase, record: Trajectory, c: Constants) -> Pair:
    nets = row.networks
    cases = [case_of(setting, record, n.seed) for n in nets]
    onsets = [n.onset(THRESHOLD) for n in nets]
    end = float(setting.epochs)
    t_nc = np.array([o.t_nc for o in onsets])
    model = [case.known for case in cases]
    unseen = np.array([k.get("model_t_nc", np.nan) for k in model])
    simulated = np.array([k.get("model_fn_end", np.nan) for k in model])
    expected = tuple(forecast(case, c, threshold=THRESHOLD) for case in cases)
    came = np.isfinite(t_nc)
    model_t_nc = np.where(np.isfinite(simulated) & ~np.isfinite(unseen), end, unseen)
    return Pair(row.condition.label, setting, is_calibration(setting), nets, expected, np.array([n.last("fn") for n in nets]),
                np.where(came, t_nc, end), came, end, simulated, model_t_nc)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Rule:
    """How well one way of forecasting does on the held-out pairs.

    Attributes:
        name; `sees` what it needs beyond the end of phase 1, empty if nothing.
        error: (pairs,) NaN where it has no answer: relative error of fn, or mean distance of T_NC in epochs.
    """

    name: str
    sees: str
    error: np.ndarray

    @property
    def answers(self) -> int:
        return int(np.isfinite(self.error).sum())

    @property
    def median(self) -> float:
        return float(np.nanmedian(self.error)) if self.answers else np.nan

    @property
    def mean(self) -> float:
        return float(np.nanmean(self.error)) if self.answers else np.nan


OTHERS = "other held-out pairs"


def fn_rules(held_out: Sequence[Pair], calibration: Sequence[Pair]) -> list[Rule]:
    """Ours first, then the matched model alone and the baselines."""
    everyone = [*calibration, *held_out]
    truth = np.array([p.fn.mean() for p in held_out])
    mean = float(np.mean([p.fn.mean() for p in calibration])) if calibration else np.nan

    def like(same: Callable[[Pair, Pair], bool]) -> np.ndarray:
        groups = [[q.fn.mean() for q in everyone if q is not p and same(p, q)] for p in held_out]
        return np.array([np.mean(g) if g else np.nan for g in groups])

    guesses = [
        ("forecast", "", np.array([p.fn_hat.mean() for p in held_out])),
        ("matched model alone", "", np.array([_mean(p.model_fn) for p in held_out])),
        ("one constant", "", np.full(len(truth), mean)),
        ("mean of the same width", OTHERS, like(lambda p, q: p.setting.width == q.setting.width)),
        ("mean of the same data set", OTHERS, like(lambda p, q: p.setting.dataset == q.setting.dataset)),
    ]
    return [Rule(name, sees, np.abs(guess / truth - 1)) for name, sees, guess in guesses]


def _mean(values: np.ndarray) -> float:
    use = values[np.isfinite(values)]
    return float(use.mean()) if len(use) else np.nan


def time_rules(held_out: Sequence[Pair], calibration: Sequence[Pair]) -> list[Rule]:
    """As `fn_rules`; those with a signal watch phase 2 until it crosses."""
    shares = [share for p in calibration for share in (p.t_nc - p.setting.epochs_ce) / p.setting.epochs_mse]
    typical = float(np.mean(shares)) if shares else np.nan
    rules = [
        Rule("forecast", "", np.array([np.abs(p.t_hat - p.t_nc).mean() for p in held_out])),
        Rule("matched model alone", "", np.array([_mean(np.abs(p.model_t_nc - p.t_nc)) for p in held_out])),
        Rule("one constant", "", np.array([np.abs(p.setting.epochs_ce + typical * p.setting.epochs_mse - p.t_nc).mean()
                                           for p in held_out])),
    ]  # fmt: skip
    known = [(n, t) for p in calibration for n, t, came in zip(p.networks, p.t_nc, p.collapsed, strict=True) if came]
    for name, read in SIGNALS.items():
        error = [np.mean([_lead_error(n, t, p.end, read, known) for n, t in zip(p.networks, p.t_nc, strict=True)])
                 for p in held_out]  # fmt: skip
        title = "the paper's rule: fn" if name == "fn" else f"the same with {name}"
        rules.append(Rule(title, "phase 2 up to the crossing", np.array(error)))
    error = [np.mean([_lead_error(n, t, p.end, SIGNALS["fn"], _others(p, i))
                      for i, (n, t) in enumerate(zip(p.networks, p.t_nc, strict=True))]) for p in held_out]  # fmt: skip
    rules.append(Rule("the paper's rule: fn, from other seeds", "other seeds of the pair, phase 2", np.array(error)))
    return rules


def _others(p: Pair, i: int) -> list[tuple[Network, float]]:
    return [(n, t) for j, (n, t) in enumerate(zip(p.networks, p.t_nc, strict=True)) if j != i and p.collapsed[j]]


def _lead_error(net: Network, t_nc: float, end: float, read: Callable[[Network], np.ndarray],
                known: Sequence[tuple[Network, float]]) -> float:  # fmt: skip
    """Distance of "crossing of the mean value at T_NC of `known` networks, plus their mean lead" from T_NC; a network that never
    crosses is expected at the end."""
    guess = end
    if known:
        threshold = float(np.mean([read(n)[n.time == t][0] for n, t in known]))
        leads = [t - cross for n, t in known if np.isfinite(cross := _cross(n, read, threshold))]
        cross = _cross(net, read, threshold)
        if np.isfinite(cross):
            guess = min(end, cross + (float(np.mean(leads)) if leads else 0.0))
    return abs(guess - t_nc)


def _cross(net: Network, read: Callable[[Network], np.ndarray], threshold: float) -> float:
    below = np.flatnonzero((net.phase == 2) & (read(net) < threshold))
    return float(net.time[below[0]]) if len(below) else np.nan


@dataclass(frozen=True, eq=False)
class Score:
    """The trial.

    Attributes:
        held_out, calibration: pairs.
        fn, time: rules, ours first.
        seed_spread: pooled standard deviation of log fn over the seeds of a pair.
        fn_covered, t_covered: share of held-out networks within their intervals; `level` what was promised.
        fn_order, t_order: Spearman's rho over held-out pairs, and its p.
    """

    held_out: tuple[Pair, ...]
    calibration: tuple[Pair, ...]
    fn: tuple[Rule, ...]
    time: tuple[Rule, ...]
    seed_spread: float
    fn_covered: float
    t_covered: float
    level: float
    fn_order: tuple[float, float]
    t_order: tuple[float, float]
    skill: Mapping[str, float] = field(default_factory=dict)


def score(every: Sequence[Pair]) -> Score | None:
    """None where fewer than three pairs are held out."""
    held_out = [p for p in every if not p.calibration]
    calibration = [p for p in every if p.calibration]
    if len(held_out) < 3:
        return None
    fn, time = fn_rules(held_out, calibration), time_rules(held_out, calibration)
    spreads = [np.log(p.fn).var(ddof=1) for p in held_out if len(p.fn) > 1]
    inside_fn = [e.fn_low <= v <= e.fn_high for p in held_out for e, v in zip(p.expected, p.fn, strict=True)]
    inside_t = [e.t_nc_low <= (t if came else np.inf) <= e.t_nc_high for p in held_out
                for e, t, came in zip(p.expected, p.t_nc, p.collapsed, strict=True)]  # fmt: skip
    spread = float(np.sqrt(np.mean(spreads))) if spreads else np.nan
    skill = {f"fn, {r.name}": _skill(fn[0], r) for r in fn[1:]} | {f"T_NC, {r.name}": _skill(time[0], r) for r in time[1:]}
    return Score(tuple(held_out), tuple(calibration), tuple(fn), tuple(time), spread,
                 float(np.mean(inside_fn)), float(np.mean(inside_t)),
                 held_out[0].expected[0].level,
                 _order([p.fn_hat.mean() for p in held_out], [p.fn.mean() for p in held_out]),
                 _order([p.t_hat.mean() for p in held_out], [p.t_nc.mean() for p in held_out]), skill)  # fmt: skip


def _skill(ours: Rule, other: Rule) -> float:
    """1 - our mean error over theirs, where both have an answer."""
    both = np.isfinite(ours.error) & np.isfinite(other.error)
    theirs = float(other.error[both].mean()) if both.any() else 0.0
    return 1 - float(ours.error[both].mean()) / theirs if theirs > 0 else np.nan


def _order(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    if len(set(a)) < 2 or len(set(b)) < 2:
        return np.nan, np.nan
    found = statistics.spearman(a, b)
    return float(found.statistic), float(found.p)
