"""What `ncflow simulate` integrates, and how its outcome is laid beside theory: options to arguments, rows, a table, a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from experiments.figures import MARKERS, STYLES, _colour, _plain
from experiments.show import _table, number, short
from ncflow import SGD, UFM, Adam, AdamW, Collapse, Cosine, Crossing, DeepLinear, GradientDescent, Phase, Rescale, Trajectory
from ncflow.errors import BadInput, require
from theory import fixed_point

OPTIMISERS = {"gd": GradientDescent, "sgd": SGD, "adam": Adam, "adamw": AdamW}
SHOWN = 40  # lanes in the table and in the figure


def horizon(model: UFM | DeepLinear) -> float:
    """Flow time at which what decays slowest has decayed for ten of its times.

    Raises:
        BadInput: nothing decays.
    """
    rates = [*model.weight_decays.flat, *(model.mobilities * model.feature_decays if isinstance(model, UFM) else ())]
    slow = [float(r) for r in rates if r > 0]
    if not slow:
        raise BadInput("until", None, "given where nothing decays: no time is the natural one")
    return 10 / min(slow)


def crossing(text: str) -> Crossing:
    """An event from "METRIC=LEVEL", falling, or "METRIC=LEVEL:rising"."""
    name, _, rest = text.partition("=")
    level, _, way = rest.partition(":")
    accepted = "METRIC=LEVEL or METRIC=LEVEL:rising, such as nc1_trace_ratio=0.05"
    require(way in ("", "falling", "rising"), "event", text, accepted)
    return Crossing(name, _number("event", text, level, accepted), way != "rising")


def rescaling(text: str) -> Rescale:
    """An intervention from "TIME:LAYER=FACTOR", LAYER an index into the weight layers or "features"."""
    accepted = "TIME:LAYER=FACTOR, such as 100:-2=0.3 or 0:features=3"
    time, _, rest = text.partition(":")
    layer, _, factor = rest.partition("=")
    where: int | str = layer
    if layer != "features":
        where = int(_number("rescale", text, layer, accepted))
        require(str(where) == layer, "rescale", text, accepted)
    return Rescale(where, _number("rescale", text, factor, accepted), _number("rescale", text, time, accepted))


def _number(name: str, text: str, part: str, accepted: str) -> float:
    try:
        return float(part)
    except ValueError:
        raise BadInput(name, text, accepted) from None


def phases(options: Any) -> tuple[Phase, ...]:
    """The phases of a discrete optimiser that the options describe; none for a flow."""
    if options.optimiser is None:
        for name in ("steps", "steps_ce", "lr", "momentum", "schedule"):
            require(getattr(options, name) is None, name, getattr(options, name), "used with --optimiser only")
        return ()
    kind, name = OPTIMISERS.get(options.optimiser), options.schedule or "constant"
    require(kind is not None, "optimiser", options.optimiser, f"one of {', '.join(OPTIMISERS)}")
    assert kind is not None
    require(options.steps is not None, "steps", None, "given with --optimiser")
    require(name in ("constant", "cosine"), "schedule", name, "constant or cosine")
    require(options.momentum is None or kind is SGD, "momentum", options.momentum, "used with --optimiser sgd only")
    words: dict[str, Any] = {"lr": options.lr if options.lr is not None else 1e-3 if issubclass(kind, Adam) else 0.1}
    words |= {"schedule": Cosine()} if name == "cosine" else {}
    words |= {"momentum": options.momentum} if options.momentum is not None else {}
    made = [] if options.steps_ce is None else [Phase(steps=options.steps_ce, optimiser=kind(**words), loss="cross_entropy")]
    return (*made, Phase(steps=options.steps, optimiser=kind(**words)))


def at_rest(model: UFM | DeepLinear) -> tuple[np.ndarray | None, str]:
    """fn of the closed form, one per lane of the model, and its status; None and the reason where there is none."""
    try:
        point = fixed_point(model)
    except BadInput as e:
        return None, str(e)
    fn = np.broadcast_to(np.asarray(point.feature_norm, dtype=float), (model.lanes,))
    return fn, point.status


def rows(run: Trajectory, found: Sequence[Collapse], theory: np.ndarray | None) -> list[dict[str, Any]]:
    """One per lane: its `Collapse`, events, and the closed form with the relative error of what came to rest."""
    data, out = run.data, []
    of = np.repeat(np.arange(len(theory)), run.lanes // len(theory)) if theory is not None else []
    for i, each in enumerate(found):
        row = each.as_dict()
        closed = float(theory[of[i]]) if theory is not None else None
        row["theory_fn"] = closed
        row["error"] = each.fn_inf / closed - 1 if closed and np.isfinite(each.fn_inf) else None
        if "event_time" in data:
            lane = data.isel(lane=i)
            row["events"] = {str(name): {"time": float(t), "fn": float(fn)} for name, t, fn in zip(
                data["event"].values, lane["event_time"].values, lane["event_fn"].values, strict=True)}
        out.append(row)
    return out


def show(found: Sequence[dict[str, Any]], steps: bool, console: Console) -> None:
    """Print a table of at most `SHOWN` lanes, 100 columns wide at most."""
    made = _table("Lanes" if steps else "Lanes, in flow time", "seed", "decay", "T_NC", "fn there", "fn at end", "at rest",
                  "theory", "error", "NC1 at end", "became")  # fmt: skip
    for row in found[:SHOWN]:
        fn = [number(row[name], ".4f") for name in ("fn_star", "fn_end", "fn_inf", "theory_fn")]
        error = "" if row["error"] is None else f"{row['error']:+.0e}"
        made.add_row(str(row["seed"]), short(row["decay"]), number(row["t_nc"], ".4g"), *fn, error,
                     number(row["nc1_end"], ".2g"), row["regime"])  # fmt: skip
    console.print(made)
    if len(found) > SHOWN:
        console.print(f"... and {len(found) - SHOWN} more lanes, in the JSON file", highlight=False)


def figure(run: Trajectory, found: Sequence[dict[str, Any]], title: str, threshold: float, nc1: str) -> Figure:
    """fn above and NC1 below, against time; marks at T_NC, thin lines at the closed form."""
    made = Figure(figsize=(8, 7), layout="constrained")
    top, bottom = made.subplots(2, 1, sharex=True)
    data, time = run.data, run.data["time"].values
    decays = list(dict.fromkeys(row["decay"] for row in found))
    seen = time > 0
    for i, row in enumerate(found[:SHOWN]):
        j = decays.index(row["decay"])
        shade, style = _colour(j, len(decays)), STYLES[j % len(STYLES)]
        first = all(row["decay"] != other["decay"] for other in found[:i])
        for ax, name in ((top, "fn"), (bottom, nc1)):
            ax.plot(time[seen], data[name].values[i][seen], linestyle=style, color=shade, linewidth=1.3,
                    label=f"decay {short(row['decay'])}" if first else None)  # fmt: skip
        if row["t_nc"] is not None and row["t_nc"] > 0:
            top.plot(row["t_nc"], row["fn_star"], MARKERS[j % 6], color=shade, markersize=6, markeredgecolor="black", zorder=5)
        if first and row["theory_fn"]:
            top.axhline(row["theory_fn"], color=shade, linestyle=style, linewidth=0.8, alpha=0.7, zorder=1)
    bottom.axhline(threshold, color="black", linewidth=0.8)
    bottom.annotate("threshold", (1, threshold), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    for ax in (top, bottom):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.grid(alpha=0.25, linewidth=0.5)
        ax.spines[["top", "right"]].set_visible(False)
    _plain(top)
    top.set_title("fn (mark: T_NC, thin line: closed form)", fontsize=10, loc="left")
    bottom.set_title(f"NC1 ({nc1})", fontsize=10, loc="left")
    top.set_ylabel("fn, mean feature norm")
    bottom.set_ylabel("NC1")
    bottom.set_xlabel("steps" if run.data.attrs["time_kind"] == "steps" else "flow time")
    if len(decays) > 1:
        top.legend(fontsize=8, frameon=False)
    made.suptitle(title, fontsize=10, wrap=True)
    return made
