"""A model along one parameter: fixed point, rates, fold and T_NC at every value, also where nothing collapses."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import theory
from experiments.theory_model import LANES, SWEPT, WHOLE, build
from experiments.theory_report import Start, linear_model, one_lane, plain_model
from ncflow import UFM, DeepLinear
from ncflow.errors import BadInput, require
from theory import cross_entropy

Array = NDArray[np.float64]
MOST = 100_000
ACCEPTED = "PARAMETER=LOW:HIGH:log|lin:POINTS or PARAMETER=A,B,C"

#: Columns of the table, and what they hold; nan where theory has no value.
COLUMNS = {
    "exists": "whether the collapsed state exists",
    "feature_norm": "fn at rest",
    "signal": "smallest signal of the active modes",
    "loss": "L at rest, decay terms included",
    "rank": "active modes",
    "class_mean_cosine": "mean cosine of raw class means",
    "nc1_floor": "NC1 at rest",
    "saddle_feature_norm": "fn on the lower root",
    "saddle_signal": "smallest signal on the lower root",
    "saddle_loss": "L on the lower root",
    "fold_factor": "multiple of the decays at which the collapsed state disappears",
    "maxwell_factor": "multiple of the decays at which zero becomes cheaper",
    "nc1_rate": "-d log NC1/dt of the features that enter the head",
    "fn_rate": "-d log |fn - fn_inf|/dt",
    "signal_rate": "-d log of the slowest singular value's distance from rest",
    "t_nc": "flow time at which NC1 falls below the threshold; inf: never",
    "t_nc_feature_norm": "fn then",
    "regime": "collapse, metastable, vanishing or floor",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Sweep:
    """`columns` (P,) by name, at `values` (P,) of `parameter`; `missing` says why a column has gaps; `tips` are further
    points just inside each of `ends`, where the branches of a figure meet."""

    parameter: str
    values: Array
    scale: str
    columns: dict[str, NDArray[Any]]
    missing: dict[str, str]
    threshold: float
    tips: tuple[tuple[Array, dict[str, NDArray[Any]]], ...] = ()

    @property
    def edges(self) -> list[float]:
        """Values of the parameter at which the first mode of the collapsed state is lost, where the fold is known;
        interpolated between points, exactly where the fold goes as a power of the parameter. None for whole numbers."""
        return self._crossings("fold_factor")

    @property
    def ties(self) -> list[float]:
        """The same where zero becomes cheaper than the collapsed state, except where that is an edge."""
        return [at for at in self._crossings("maxwell_factor") if not np.isclose(at, self.edges, rtol=1e-9, atol=0).any()]

    def _crossings(self, column: str) -> list[float]:
        """Where the multiple of the decays in `column` passes 1."""
        if self.parameter in WHOLE:
            return []
        with np.errstate(divide="ignore"):
            log, x = np.log(self.columns[column]), self.values
        if self.scale == "log":
            x = np.log(x)
        turns = np.flatnonzero((np.sign(log[1:]) != np.sign(log[:-1])) & np.isfinite(log[1:] + log[:-1]))
        at = x[turns] - log[turns] * (x[turns + 1] - x[turns]) / (log[turns + 1] - log[turns])
        return (np.exp(at) if self.scale == "log" else at).tolist()

    @property
    def ends(self) -> list[tuple[float, float, float]]:
        """(low, high, at) wherever the collapsed state exists at one of the neighbours low, high and not at the other; `at`
        is the edge between them, nan where it is not known."""
        x, turns = self.values, np.flatnonzero(np.diff(self.columns["exists"].astype(int)))
        pairs = [(float(x[i]), float(x[i + 1])) for i in turns]
        return [(low, high, next((e for e in self.edges if low <= e <= high), np.nan)) for low, high in pairs]

    def csv(self) -> str:
        """All points, one line each."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow([self.parameter, *self.columns])
        for i, value in enumerate(self.values.tolist()):
            table.writerow([value, *(column[i] for column in self.columns.values())])
        return text.getvalue()

    def json(self) -> dict[str, Any]:
        return {"parameter": self.parameter, "scale": self.scale, "values": self.values.tolist(),
                "columns": {name: column.tolist() for name, column in self.columns.items()}, "meaning": COLUMNS,
                "not_known": self.missing, "edges": self.edges, "ties": self.ties, "threshold": self.threshold}


def axis(text: str) -> tuple[str, Array, str]:
    """(parameter, values, "log" or "lin") of a --sweep argument.

    Raises:
        BadInput: it does not read `ACCEPTED`, or the parameter cannot be swept.
    """
    name, _, spec = text.partition("=")
    name = name.strip().replace("-", "_")
    require(bool(spec), "sweep", text, ACCEPTED)
    require(name in SWEPT, "sweep", text, f"a parameter out of {', '.join(SWEPT)}")
    if ":" not in spec:
        values, scale = [_number(text, v) for v in spec.split(",")], "lin"
        if len(values) > 2 and min(values) > 0 and max(values) / min(values) > 30:
            scale = "log"
        found = np.array(values)
    else:
        parts = re.split(":", spec)
        require(len(parts) == 4 and parts[2] in ("log", "lin"), "sweep", text, ACCEPTED)
        low, high, scale = _number(text, parts[0]), _number(text, parts[1]), parts[2]
        require(parts[3].isdigit() and 2 <= int(parts[3]) <= MOST, "sweep", text, f"2 to {MOST} points")
        require(low < high, "sweep", text, "LOW below HIGH")
        require(scale == "lin" or low > 0, "sweep", text, "LOW above 0 on a logarithmic scale")
        found = (np.geomspace if scale == "log" else np.linspace)(low, high, int(parts[3]))
    if name in WHOLE:
        found = np.unique(np.round(found))
    require(bool(np.all(np.diff(found) > 0)), "sweep", text, "ascending values")
    return name, found, scale


def _number(text: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise BadInput("sweep", text, ACCEPTED) from None
    require(bool(np.isfinite(value)), "sweep", text, "finite numbers")
    return value


def sweep(setting: Any, text: str, start: Start, *, tell: Callable[[float], None] = lambda share: None) -> Sweep:
    """The model of `setting` along the --sweep argument `text`; lanes of one model wherever the parameter can be one.

    Args:
        tell: called with the fraction that is done.

    Raises:
        BadInput: as `axis`, or a value that the model does not accept.
    """
    name, values, scale = axis(text)
    models: list[UFM | DeepLinear]
    if name in LANES and not (name != "decay" and setting.model == "deep_linear"):
        parts = np.array_split(values, max(1, len(values) // 25))
        models = [build(setting, **{name: part if len(part) > 1 else float(part[0])}) for part in parts]
    else:
        models = [build(setting, **{name: _value(name, v)}) for v in values.tolist()]
    rows, missing = [], {}
    for i, model in enumerate(models):
        found, why = evaluate(model, start)
        if model.lanes > 1 and isinstance(model, UFM) and plain_model(model) and why:  # perhaps not for every lane
            alone, reasons = zip(*(evaluate(one_lane(model, j), start) for j in range(model.lanes)), strict=True)
            found = {key: np.concatenate([row[key] for row in alone]) for key in COLUMNS}
            why = {key: reason for each in reasons for key, reason in each.items()}
        rows.append(found)
        missing.update(why)
        tell((i + 1) / len(models))
    columns = {key: np.concatenate([row[key] for row in rows]) for key in COLUMNS}
    found = Sweep(parameter=name, values=values, scale=scale, columns=columns, missing=missing, threshold=start.threshold)
    if name not in LANES:
        return found
    tips = []
    for low, high, at in found.ends:
        if np.isnan(at):
            continue
        near = low if columns["exists"][values == low][0] else high
        inside = at + (near - at) * np.array([1e-9, 1e-3, 1e-2, 0.05, 0.15, 0.4])
        tips.append((inside, evaluate(build(setting, **{name: inside}), start)[0]))
    return replace(found, tips=tuple(tips))


def _value(name: str, value: float) -> Any:
    if name in WHOLE:
        return (int(value),) if name in ("samples_per_class", "width") else int(value)
    return value


def evaluate(model: UFM | DeepLinear, start: Start) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """(columns, reasons): the (lanes,) arrays of `COLUMNS` for one model, and why a column is not known.

    Raises:
        BadInput: the fixed point is not known.
    """
    lanes = model.lanes
    point = theory.fixed_point(model)
    saddle = next((r for r in point.other_roots if r.branch == "saddle"), None)
    out: dict[str, NDArray[Any]] = {key: np.full(lanes, np.nan) for key in COLUMNS}
    out["regime"] = np.full(lanes, "", dtype=object)
    out["exists"] = _flat(point.exists, lanes).astype(bool)
    for key in ("feature_norm", "loss", "rank", "class_mean_cosine", "nc1_floor"):
        out[key] = _flat(getattr(point, key), lanes)
    out["signal"] = _least(point.signal, lanes)
    if saddle is not None:
        out["saddle_feature_norm"], out["saddle_loss"] = _flat(saddle.feature_norm, lanes), _flat(saddle.loss, lanes)
        out["saddle_signal"] = _least(saddle.signal, lanes)
    why: dict[str, str] = {}

    def ask(keys: Sequence[str], work: Callable[[], Sequence[Any]]) -> None:
        try:
            found = work()
        except BadInput as e:
            why.update(dict.fromkeys(keys, str(e)))
            return
        for key, value in zip(keys, found, strict=True):
            out[key] = _flat(value, lanes)

    def rates() -> list[Any]:
        found = theory.rates(model)
        return [found.nc1.value, found.fn.value, found.signal.value]

    def collapse() -> list[Any]:
        found = theory.time_to_collapse(model, start.threshold, signal=start.signal, scatter=start.scatter)
        # where zero swallows the start the time of a ratio of two vanishing numbers says nothing
        gone = np.array([r is theory.Regime.VANISHING for r in _regimes(found.regime)])
        return [np.where(gone, np.inf, found.time), np.where(gone, np.nan, found.feature_norm)]

    ask(["fold_factor"], lambda: [theory.fold(model, first=True).factor])
    ask(["maxwell_factor"], lambda: [theory.maxwell(model).factor])
    ask(["nc1_rate", "fn_rate", "signal_rate"], rates)
    if "nc1_rate" in why and isinstance(model, UFM) and linear_model(model) and model.loss != "mse" and model.layers == 1:
        why.pop("nc1_rate")
        ask(["nc1_rate"], lambda: [[cross_entropy.within_class(model, i).nc1_rate if out["exists"][i] else np.nan
                                    for i in range(lanes)]])
    ask(["t_nc", "t_nc_feature_norm"], collapse)
    try:
        out["regime"] = np.array([r.name.lower() for r in _regimes(theory.regime(model, start.threshold))], dtype=object)
    except BadInput as e:
        why["regime"] = str(e)
    return out, why


def _regimes(found: Any) -> tuple[theory.Regime, ...]:
    return found if isinstance(found, tuple) else (found,)


def _flat(value: Any, lanes: int) -> Array:
    return np.broadcast_to(np.asarray(value, dtype=float), (lanes,)).copy()


def _least(signal: Any, lanes: int) -> Array:
    """(lanes,) smallest signal that is not zero, 0 where there is none."""
    rows = np.asarray(signal, dtype=float)
    rows = rows.reshape(lanes, -1) if rows.size != 1 else np.full((lanes, 1), float(rows))
    on = np.where(rows > 0, rows, np.inf).min(axis=1)
    return np.where(np.isnan(rows).all(axis=1), np.nan, np.where(np.isfinite(on), on, 0.0))
