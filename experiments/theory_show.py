"""How the reports of `ncflow theory` look in a terminal, as wide as 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.theory_sweep import Sweep

#: Rows of a sweep's table in a terminal; the CSV has all.
ROWS = 20


def table(title: str, *columns: str, left: int = 1) -> Table:
    """An empty table; the first `left` columns are words; with none, no cell is wrapped."""
    made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False,
                 collapse_padding=True)
    for i, name in enumerate(columns):
        made.add_column(name, justify="left" if i < left else "right", overflow="fold", no_wrap=not left)
    return made


def figures(value: Any) -> str:
    """A number to six digits, an array as its first entries."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) > 1 and np.ptp(value) <= 1e-12 * np.abs(value).max():
            return f"{figures(value[0])} (x {len(value)})"
        return ", ".join(figures(v) for v in value[:6]) + (", ..." if len(value) > 6 else "")
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)


POINT = {
    "exists": "collapsed state exists", "feature_norm": "fn, mean feature norm", "weight_norms": "|W_l|_F",
    "class_mean_norms": "norms of class means", "layer_feature_norms": "fn in each layer",
    "class_mean_cosine": "cosine of class means (raw)", "bias": "head bias", "loss": "loss, decay included",
    "signal": "signal", "rank": "active modes", "nc1_floor": "NC1 at rest",
}


def show(found: Mapping[str, Any], console: Console, title: str = "") -> None:
    """Print a report of `theory_report`, after a line that says of what."""
    if title:
        _say(console, title, "")
    _point(found["fixed_point"], console)
    _rates(found["rates"], console)
    _boundaries(found, console)
    _times(found, console)
    if "rescaled" in found:
        _rescaled(found["rescaled"], console)
    if "spectrum" in found:
        _spectrum(found["spectrum"], console)


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _point(point: Mapping[str, Any], console: Console) -> None:
    roots = point["other_roots"]
    made = table("Where it rests", "", "collapsed", *(r["branch"] for r in roots))
    for key, name in POINT.items():
        made.add_row(name, *(figures(p[key]) for p in (point, *roots)))
    console.print(made)
    cheaper = [r["branch"] for r in roots if point["exists"] and r["exists"] and r["loss"] < point["loss"]]
    warn = [f"The state {name!r} costs less: descent may end there." for name in cheaper]
    _say(console, *warn, f"Formula: {point['law']} ({point['status']}; --latex prints it). {point['source']}.",
         *(f"  {s}" for s in point["assumptions"]), "")


def _rates(rates: Mapping[str, Any], console: Console) -> None:
    made = table("How fast (per flow time; -: does not decay to zero)", "-d log/dt of", "rate", "status", left=1)
    names = {"nc1": "NC1, features that enter the head", "nc1_first": "NC1, first features", "fn": "fn - fn_inf",
             "signal": "signal - signal at rest", "balance": "imbalance between layers",
             "slowest": "slowest Hessian eigenvalue", "stiffest": "stiffest Hessian eigenvalue"}
    for key, name in names.items():
        if key in rates:
            made.add_row(name, figures(rates[key]["value"]), rates[key]["status"])
    if made.row_count:
        console.print(made)
    for entry in (rates, rates.get("others", {})):
        if "not_known" in entry:
            _say(console, f"Rates not known: {entry['not_known']}", "")


def _boundaries(found: Mapping[str, Any], console: Console) -> None:
    made = table("Where it ends", "boundary", "value", "status", left=1)
    value = {
        "fold": _multiple,
        "maxwell": _multiple,
        "floor": lambda e: f"NC1 at rest {figures(e['nc1'])}",
        "floor_boundary": lambda e: f"decay {figures(e['decay'])}",
        "minority_threshold": lambda e: f"{figures(e['value'])} samples",
        "mean_mode_threshold": lambda e: f"bias decay {figures(e['value'])}",
    }
    names = {"fold": "fold: the collapsed state disappears", "maxwell": "Maxwell: zero becomes cheaper",
             "floor": "NC1 floor", "floor_boundary": "floor reaches the threshold",
             "minority_threshold": "a class of so few samples vanishes", "mean_mode_threshold": "the mean mode becomes active"}
    absent = []
    for key, entry in found["boundaries"].items():
        if "not_known" in entry:
            absent.append(f"  {key.replace('_', ' ')}: {entry['not_known']}")
        else:
            made.add_row(names[key], value[key](entry), entry["status"])
    if made.row_count:
        console.print(made)
    _say(console, *(["Not for this model:", *absent] if absent else []), "")


def _multiple(entry: Mapping[str, Any]) -> str:
    if np.isinf(entry["factor"]):
        return "never"
    common = f"common decay {figures(entry['decay'])}, " if "decay" in entry else ""
    return f"{common}{figures(entry['factor'])} x its own"


def _times(found: Mapping[str, Any], console: Console) -> None:
    regime, time, lead = found["regime"], found["time_to_collapse"], found["lead_time"]
    if "not_known" not in regime:
        _say(console, f"Regime: {regime['name']}: {regime['meaning']}.")
    if "not_known" in time:
        _say(console, f"T_NC not known: {time['not_known']}")
    else:
        _say(console, f"T_NC (NC1 < {time['threshold']:g}): {figures(time['time'])} of flow time, fn then "
                      f"{figures(time['feature_norm'])} ({time['status']}).", *(f"  {s}" for s in time["assumptions"]))
    if "not_known" in lead:
        _say(console, f"Lead time not known: {lead['not_known']}", "")
    else:
        first = "fn settles first in the end" if lead["fn_first"] else "NC1 is as fast or faster in the end"
        _say(console, f"From an aligned start with signal {lead['signal']:g}: fn within {lead['tolerance']:g} of rest at "
                      f"{figures(lead['settling_time'])}, T_NC {figures(lead['collapse_time'])}, lead {figures(lead['lead'])}; "
                      f"{first}.", "")


def _rescaled(found: Mapping[str, Any], console: Console) -> None:
    if "not_known" in found:
        _say(console, f"Response to a rescaled layer not known: {found['not_known']}", "")
        return
    title = f"After layer {found['layer']} is multiplied by alpha (fn at rest {figures(found['fn_inf'])}, {found['status']})"
    made = table(title, "alpha", "fn at once", *(f"fn at {compact(t, 3)}" for t in found["times"]),
                 f"within {found['tolerance']:g} at", left=0)
    for row in found["rows"]:
        made.add_row(figures(row["alpha"]), compact(row["start"], 4), *(compact(v, 4) for v in row["feature_norm"]),
                     compact(row["back"], 4))
    console.print(made)
    _say(console, f"Back at rate {figures(found['rate'])}; fast modes settle within {figures(found['settled'])}.",
         *(f"  {s}" for s in found["assumptions"]), "")


def _spectrum(found: Mapping[str, Any], console: Console) -> None:
    if "not_known" in found:
        _say(console, f"Spectrum not known: {found['not_known']}")
        return
    made = table(f"Hessian: {found['parameters']} eigenvalues, {found['zeros']} of them zero ({found['status']})", "block",
                 "eigenvalues", "each", left=2)
    for block in found["blocks"]:
        more = block["distinct"] - len(block["eigenvalues"])
        made.add_row(block["name"], figures(block["eigenvalues"]) + (f" and {more} more" if more > 0 else ""),
                     f"x {block['multiplicity']}")
    console.print(made)


def show_sweep(found: Sweep, console: Console) -> None:
    """Print at most `ROWS` points of a sweep, evenly chosen, and what is not known."""
    names = {"exists": "exists", "feature_norm": "fn", "signal": "signal", "loss": "loss",
             "nc1_floor": "NC1 at rest", "nc1_rate": "NC1 rate", "t_nc": "T_NC", "regime": "regime"}
    keep = {key: name for key, name in names.items() if key not in found.missing and (
        found.columns[key].dtype.kind != "f" or np.isfinite(found.columns[key]).any())}
    if not np.nan_to_num(found.columns["nc1_floor"]).any():
        keep.pop("nc1_floor", None)
    made = table(f"Sweep of {found.parameter} ({len(found.values)} points)", found.parameter, *keep.values(), left=0)
    chosen = np.unique(np.linspace(0, len(found.values) - 1, min(ROWS, len(found.values))).round().astype(int))
    for i in chosen:
        cells = [found.columns[key][i] for key in keep]
        made.add_row(compact(float(found.values[i]), 4), *(_cell(key, v) for key, v in zip(keep, cells, strict=True)))
    console.print(made)
    ends = found.ends
    for at in set(found.edges) - {at for _, _, at in ends}:  # classes of unequal size are lost one by one
        _say(console, f"The first mode is lost at {found.parameter} = {at:.6g}.")
    for low, high, at in ends:
        where = f"between {found.parameter} = {low:.6g} and {high:.6g}" if np.isnan(at) else f"at {found.parameter} = {at:.6g}"
        _say(console, f"The collapsed state ends {where}.")
    reasons: dict[str, list[str]] = {}
    for key, why in found.missing.items():
        reasons.setdefault(why, []).append(key)
    _say(console, *(f"Not known{' everywhere' if keep.keys() & set(keys) else ''}: {', '.join(keys)} ({why})"
                    for why, keys in reasons.items()))


def _cell(key: str, value: Any) -> str:
    if key == "exists":
        return "yes" if value else "no"
    if isinstance(value, str):
        return value or "-"
    return "never" if np.isinf(value) else compact(value, 4 if key in ("feature_norm", "signal") else 3)


def compact(value: float, digits: int) -> str:
    """A number in few characters: 1.79e-6."""
    if np.isnan(value):
        return "-"
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def show_network(found: Mapping[str, Any], console: Console) -> None:
    """Print what `theory_network.implied` found."""
    titles = {"head": "From the head", "kernel": "From the tangent kernel", "streams": "From the batch-normalised streams",
              "adam": "Adam's effective rates, per step", "activation": "Degree of homogeneity"}
    names = {"feature_norm": "fn at rest", "signal": "signal", "weight_norm": "|W|_F of the head", "norm_product": "fn |W|_F",
             "theta": "theta at rest", "feature_decay": "effective decay of the features", "streams": "streams L",
             "cosine": "raw cosine", "noise": "gradient noise", "decay_rate": "weights that only decay holds",
             "balance_rates": "balance between layers", "norm_floor_per_weight": "|w|^2 that noise keeps in such a weight",
             "name": "activation", "knob": "knob a", "x": "at x", "degree": "local degree k(x)",
             "mean_degree": "mean over Gaussian x of that std", "limits": "a -> 0; a -> infinity"}
    for key, entry in found.items():
        made = table(titles[key], "", "value")
        for name, label in names.items():
            if name in entry:
                value = entry[name]
                made.add_row(label, "; ".join(value) if name == "limits" else figures(value))
        console.print(made)
        _say(console, f"Formula: {entry['law']} ({entry['status']}). {entry['source']}.",
             *(f"  {s}" for s in entry["assumptions"]), "")
