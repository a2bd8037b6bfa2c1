r"""fn at the end of a run and T_NC from the end of its first phase: a law with constants that are fitted once and then frozen.

A network enters phase 2 with the random bulk of its initial weights, several times the norm that decay lets it keep. With mini-
batches, Adam shrinks what only decay holds at the rate lambda lr/s (`theory.adam`), s the noise of its gradient. The residuals
that make the noise shrink with decay too; on the networks that the constants come from s goes as lambda^(1/2) times what the
checkpoint shows, so that the share u of the bulk that is left after t epochs is

    u = exp(-rate sqrt(lambda) sum lr/noise),

the sum over steps. (Under SGD, u = exp(-2 lambda sum lr/(1 - momentum)), which is theory's and has no constant.) Then

    NC1 = bulk nc1_1 u (1 + stir lr/lr_0) + floor lambda,        T_NC its crossing of the threshold,
    fn  = scale f (10^4 lambda)^{1/(2M)} (1 + imbalance u),      f = sqrt(kernel_fn sqrt(data_fn means_fn)),

M weight layers: f is the geometric mean of what the tangent kernel at the switch implies and of what lies between a linear
network on all samples and on the class means alone.

Form and constants were chosen on the conditions of `CALIBRATION` (and, in one of their runs, its lanes with an intervention) and
frozen before any other condition's second phase was looked at.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.special import ndtri

from ncflow.errors import BadInput, require
from ncflow.provenance import provenance
from realnets import TwoPhase, preset

Array = np.ndarray
FROZEN = Path(__file__).with_name("forecast_constants.json")
SKIP = 0.1  # share of phase 2 at its start in which NC1 is still that of the new loss
#: What constants may be fitted to; everything else is held out.
CALIBRATION: tuple[TwoPhase, ...] = (
    *(preset("digits", decays=(decay,), seeds=(0, 1, 2)) for decay in (1e-5, 1e-4, 3e-4, 1e-3)),
    preset("mnist-10k", decays=(1e-4,), seeds=(0, 1, 2), measure_every=5),
)


@dataclass(frozen=True)
class Constants:
    """See the module; `fn_error`, `t_nc_error` are standard errors in the logarithm, of conditions that were left out."""

    rate: float
    bulk: float
    stir: float
    floor: float
    scale: float
    imbalance: float
    fn_error: float = np.nan
    t_nc_error: float = np.nan


@dataclass(frozen=True, eq=False)
class Case:
    """One network: its protocol, and by the names of `Forecasting` what is known of it at the switch."""

    setting: TwoPhase
    known: dict[str, float]

    @property
    def rates(self) -> Array:
        """(epochs,) learning rate of each epoch of phase 2."""
        return np.array([self.setting.rates(2, e)[0] for e in range(self.setting.epochs_mse)])

    def left(self, rate: float) -> Array:
        """(epochs + 1,) u after each epoch of phase 2."""
        s, total = self.setting, np.concatenate([[0.0], np.cumsum(self.rates)]) * self.known["steps"]
        if s.optimiser == "sgd":
            return np.exp(-2 * s.decays[0] * total / (1 - s.momentum))
        return np.exp(-rate * np.sqrt(s.decays[0]) * total / self.known["noise"])

    def nc1(self, c: Constants) -> Array:
        """(epochs + 1,)."""
        stirred = np.concatenate([self.rates[:1], self.rates]) / self.rates[0]
        return c.bulk * self.known["nc1_1"] * self.left(c.rate) * (1 + c.stir * stirred) + c.floor * self.setting.decays[0]

    @property
    def rest(self) -> float:
        """f (10^4 lambda)^{1/(2M)}."""
        k = self.known
        f = np.sqrt(k["kernel_fn"] * np.sqrt(k["data_fn"] * k["means_fn"]))
        return float(f * (1e4 * self.setting.decays[0]) ** (0.5 / (self.setting.depth + 1)))

    def fn(self, c: Constants) -> Array:
        """(epochs + 1,)."""
        return c.scale * self.rest * (1 + c.imbalance * self.left(c.rate))


@dataclass(frozen=True)
class Expected:
    """fn at the end and T_NC in epochs since the start (infinite: not within the run), with intervals of `level`."""

    fn: float
    t_nc: float
    fn_low: float
    fn_high: float
    t_nc_low: float
    t_nc_high: float
    level: float


def forecast(case: Case, c: Constants, *, threshold: float = 0.01, level: float = 0.9) -> Expected:
    """What is expected of one network; only the frozen constants and what is known at the switch go in."""
    start, length = case.setting.epochs_ce, case.setting.epochs_mse
    fn, z = float(case.fn(c)[-1]), float(ndtri((1 + level) / 2))
    t = first_below(case.nc1(c), threshold)
    wide = float(np.exp(z * c.t_nc_error))
    low, high = min(t, length) / wide, t * wide
    return Expected(fn, t + start, fn * float(np.exp(-z * c.fn_error)), fn * float(np.exp(z * c.fn_error)), low + start,
                    high + start if high <= length else np.inf, level)  # fmt: skip


def first_below(nc1: Array, threshold: float) -> float:
    """First epoch of phase 2, from 1; infinity if there is none."""
    below = np.flatnonzero(nc1[1:] < threshold)
    return float(below[0] + 1) if len(below) else np.inf


@dataclass(frozen=True, eq=False)
class Seen:
    """What became of a network: (T,) epochs of phase 2 and NC1 there, fn at the end."""

    time: Array
    nc1: Array
    fn: float


def fit(cases: Sequence[tuple[Case, Seen]]) -> Constants:
    """Constants by least squares in the logarithm, conditions weighted alike; NC1 first, then fn given its u."""
    sizes = Counter(case.setting for case, _ in cases)
    weights = [1 / np.sqrt(sizes[case.setting]) for case, _ in cases]

    def miss(x: Array) -> Array:
        rate, bulk, stir, floor = np.exp(x).tolist()
        c, out = Constants(rate, bulk, stir, floor, 1.0, 0.0), []
        for (case, seen), w in zip(cases, weights, strict=True):
            use = (seen.time > SKIP * case.setting.epochs_mse) & (seen.nc1 > 0)
            model = case.nc1(c)[seen.time[use].astype(int)]
            out.append(w / np.sqrt(use.sum()) * (np.log(model) - np.log(seen.nc1[use])))
        return np.concatenate(out)

    tries = [least_squares(miss, np.log([r, 0.1, 5.0, 30.0]), loss="soft_l1", f_scale=0.1) for r in (0.005, 0.02, 0.08)]
    rate, bulk, stir, floor = (float(v) for v in np.exp(min(tries, key=lambda t: t.cost).x))

    def off(x: Array) -> Array:
        return np.array([w * (x[0] + np.log1p(np.exp(x[1]) * case.left(rate)[-1]) + np.log(case.rest / seen.fn))
                         for (case, seen), w in zip(cases, weights, strict=True)])  # fmt: skip

    scale, imbalance = np.exp(least_squares(off, [0.0, 0.0]).x)
    return Constants(rate, bulk, stir, floor, float(scale), float(imbalance))


def cross_validated(groups: Sequence[Sequence[tuple[Case, Seen]]], threshold: float = 0.01) -> Constants:
    """Constants from all groups, with the errors that each group has when it is left out.

    fn: root mean square over groups of the logarithm of the ratio of means. T_NC: of runs that were seen to collapse, of which
    one that is not expected to counts as expected at the end.
    """
    every = fit([pair for group in groups for pair in group])
    fns, times = [], []
    for left_out in range(len(groups)):
        c = fit([pair for i, group in enumerate(groups) if i != left_out for pair in group])
        group = groups[left_out]
        fns.append(np.log(np.mean([case.fn(c)[-1] for case, _ in group]) / np.mean([seen.fn for _, seen in group])))
        for case, seen in group:
            there = seen.time[seen.nc1 < threshold]
            if len(there):
                t = min(first_below(case.nc1(c), threshold), case.setting.epochs_mse)
                times.append(np.log(t / there[0]))
    errors = [float(np.sqrt(np.mean(np.square(v)))) for v in (fns, times)]
    return replace(every, fn_error=errors[0], t_nc_error=errors[1])


def frozen(path: Path = FROZEN) -> Constants:
    """The constants that were written.

    Raises:
        BadInput: there are none, or not such.
    """
    try:
        held = json.loads(path.read_text())
        return Constants(**held["constants"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise BadInput("constants", str(path), f"a file that python -m experiments.why.forecast_law wrote ({e})") from None


def calibrate(folders: Sequence[str | Path], path: Path) -> dict[str, Any]:
    """Fit to the runs and forecasts of `CALIBRATION` that lie below `folders`, and write the constants.

    Raises:
        BadInput: a condition or its forecast is not there.
    """
    from experiments.sweeps.catalogue import Catalogue
    from experiments.why.forecast_score import case_of, seen_of
    from experiments.why.forecasting import Forecasting

    held, groups, runs = Catalogue.scan(folders), [], []
    for setting in CALIBRATION:
        study = held.find(Forecasting(setting=setting))
        trained = [(lane, held.find(setting, lane)) for lane in setting.lanes]
        there = [(lane, run) for lane, run in trained if run is not None]
        name = f"{setting.dataset}, decay {setting.decays[0]:g}"
        if study is None or not there:
            raise BadInput("records", [str(f) for f in folders], f"folders with the runs and the forecast of {name}")
        record = study.record()
        groups.append([(case_of(setting, record, lane.seed), seen_of(run, lane)) for lane, run in there])
        runs.append({"condition": name, "seeds": [lane.seed for lane, _ in there],
                     "runs": sorted({run.run for _, run in there}), "forecast": study.run})  # fmt: skip
    found = {"constants": asdict(cross_validated(groups)), "calibration": runs, "provenance": provenance()}
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the constants of the forecast to the conditions that are for it.")
    parser.add_argument("--records", nargs="+", required=True, help="folders with finished runs and forecasts")
    parser.add_argument("--to", default=str(FROZEN), help="file that is written")
    chosen = parser.parse_args()
    require(all(Path(f).is_dir() for f in chosen.records), "records", chosen.records, "folders that are there")
    print(json.dumps(calibrate(chosen.records, Path(chosen.to))["constants"], indent=1))


if __name__ == "__main__":
    main()
