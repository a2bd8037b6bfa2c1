"""What `ncflow train` reports: a row per lane, the table and the figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from experiments.figures import MARKERS, STYLES, _colour, _plain
from experiments.show import _table, number, short
from ncflow import Trajectory
from realnets import Outcome, TwoPhase


def rows(protocol: TwoPhase, run: Trajectory) -> list[dict[str, Any]]:
    """One JSON-ready dictionary per lane of `run`."""
    found = []
    for i, lane in enumerate(protocol.lanes):
        data = run.data.isel(lane=i)
        seen = np.flatnonzero(np.isfinite(data["fn"].values))
        end = data.isel(time=int(seen[-1]) if seen.size else 0)
        outcome = Outcome(int(data["outcome"]))
        row = lane._asdict() | {"outcome": outcome.words, "phase_at_t_nc": int(data["phase_at_t_nc"]) or None}
        row |= {name: float(data[name]) for name in ("t_nc", "learning_rate_at_t_nc", "fn_at_t_nc")}
        row |= {f"{name}_end": float(end[source]) for name, source in (
            ("epoch", "time"), ("fn", "fn"), ("nc1", protocol.nc1), ("norm_product", "norm_product"),
            ("train_accuracy", "train_accuracy"), ("test_accuracy", "test_accuracy"), ("balance", "balance"))
            if source in end or source in end.coords}  # fmt: skip
        layers = ("weight_norm_sq", "bias_norm_sq", "effective_rank", "nc1_hidden")
        row |= {f"{name}_end": end[name].values.tolist() for name in layers if name in end}
        row |= {name: float(data[name]) for name in ("fn_inf", "drift_fn", "drift_energy", "drift_balance") if name in data}
        if f"{protocol.nc1}_batch" in end:
            row |= {"nc1_end_batch": float(end[f"{protocol.nc1}_batch"]), "fn_end_batch": float(end["fn_batch"])}
        found.append(row)
    return found


def title(protocol: TwoPhase) -> str:
    images = f" ({protocol.subset} images)" if protocol.subset else ""
    return f"{protocol.dataset}{images}, {protocol.architecture} {protocol.depth} x {protocol.width}"


def show(protocol: TwoPhase, found: list[dict[str, Any]], console: Console) -> None:
    """Print the table of `rows`, and what stands behind it."""
    several = [name for name, values in (("lr", protocol.lrs), ("alpha", protocol.alphas)) if len(values) > 1]
    settled = [name for name in ("fn_inf",) if protocol.settle]
    table = _table(title(protocol), "decay", *several, "seed", "T_NC", "ph", "lr", "fn*", "fn end", "NC1 end", "|W|fn",
                   *settled, "outcome")  # fmt: skip
    for row in found:
        clean = {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
        rate = clean["learning_rate_at_t_nc"]
        there = [number(clean["t_nc"], ".0f"), str(row["phase_at_t_nc"] or "-"), "-" if rate is None else short(rate),
                 number(clean["fn_at_t_nc"])]  # fmt: skip
        end = [number(clean["fn_end"]), number(clean["nc1_end"], ".4f"), number(clean["norm_product_end"], ".2f")]
        table.add_row(short(row["decay"]), *(f"{row[name]:g}" for name in several), str(row["seed"]), *there, *end,
                      *(number(clean[name], ".4f") for name in settled), row["outcome"].removeprefix("collapsed to "))
    console.print(table)
    losses = {1: "cross-entropy", 2: protocol.second_loss.replace("_", "-")}
    console.print(f"T_NC: first epoch, looking every {protocol.measure_every}, with {protocol.nc1} < {protocol.threshold:g}, "
                  f"and phase, lr and fn* there; phase 1 is {losses[1]}, phase 2 {losses[2]}. |W|fn: norm of the head times fn, "
                  "at the end.", highlight=False)  # fmt: skip
    if protocol.settle:
        drift = max((abs(row[f"drift_{name}"]), name) for row in found for name in ("fn", "energy", "balance")
                    if np.isfinite(row[f"drift_{name}"]))  # fmt: skip
        console.print(f"fn_inf: fn at rest, - where a lane did not come to rest; largest drift over the last span of the third "
                      f"stage {drift[0]:.1e} ({drift[1]}).", highlight=False)  # fmt: skip


def cost(run: Trajectory) -> str:
    """What measuring cost."""
    seconds = run.provenance["seconds"]
    share = seconds["measuring"] / max(1e-9, seconds["training"] + seconds["measuring"])
    times = run.data.sizes["time"]
    return f"training {seconds['training']:.1f} s, measuring {seconds['measuring']:.1f} s ({100 * share:.0f}%, {times} times)"


def figure(protocol: TwoPhase, run: Trajectory) -> Figure:
    """fn and NC1 against epoch, a line per lane and a mark at T_NC; vertical lines where the loss changes."""
    made = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = made.subplots(1, 2)
    data = run.data
    epochs = data["time"].values
    kinds = list(dict.fromkeys(lane._replace(seed=0) for lane in protocol.lanes))
    for i, lane in enumerate(protocol.lanes):
        k = kinds.index(lane._replace(seed=0))
        how = {"color": _colour(k, len(kinds)), "linestyle": STYLES[k % len(STYLES)], "linewidth": 1.2}
        label = _label(protocol, lane) if lane.seed == protocol.seeds[0] else None
        for ax, name in ((left, "fn"), (right, protocol.nc1)):
            values = data[name].values[i]
            ax.plot(epochs, np.where(values > 0, values, np.nan), label=label, **how)
        if np.isfinite(t := float(data["t_nc"][i])):
            left.plot(t, float(data["fn_at_t_nc"][i]), MARKERS[k % 6], color=how["color"], markeredgecolor="black", markersize=5)
    phases = data["phase"].values
    for ax in (left, right):
        ax.set_yscale("log")
        ax.set_xlabel("epoch")
        _switches(ax, protocol, epochs, phases)
        ax.grid(alpha=0.25, linewidth=0.5)
        ax.spines[["top", "right"]].set_visible(False)
    _plain(left)
    left.set_ylabel("fn, mean feature norm (mark: T_NC)")
    right.set_ylabel(protocol.nc1)
    right.axhline(protocol.threshold, color="black", linewidth=0.8)
    right.legend(fontsize=8, frameon=False)
    made.suptitle(title(protocol), fontsize=11)
    return made


def _switches(ax: Axes, protocol: TwoPhase, epochs: np.ndarray, phases: np.ndarray) -> None:
    names = {2: protocol.second_loss.replace("_", "-").replace("mse", "MSE"), 3: "settling"}
    for phase, name in names.items():
        if (phases == phase).any():
            at = float(epochs[phases < phase].max())
            ax.axvline(at, color="0.4", linewidth=0.8)
            ax.annotate(name, (at, 0.98), xycoords=("data", "axes fraction"), ha="left", va="top", fontsize=8, xytext=(4, 0),
                        textcoords="offset points")  # fmt: skip


def _label(protocol: TwoPhase, lane: Any) -> str:
    parts = [f"decay {short(lane.decay)}"]
    parts += [f"lr {short(lane.lr)}"] * (len(protocol.lrs) > 1) + [f"alpha {lane.alpha:g}"] * (len(protocol.alphas) > 1)
    return ", ".join(parts)


