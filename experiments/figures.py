"""Figures, drawn without a display and legible in greyscale: lines differ by dash and marker as well as by colour."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from experiments.compare import Comparison
from experiments.show import short

STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = "osD^vP"


def save(figure: Figure, path: Path) -> Path:
    """Write `figure` to `path`, whole or not at all."""
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        figure.savefig(temporary, dpi=150)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def _colour(i: int, count: int):
    return matplotlib.colormaps["viridis"](0.05 + 0.8 * i / max(1, count - 1))


def compare_figure(result: Comparison) -> Figure:
    """Six panels: fn above and NC1 below; real networks over epochs, the simulation over flow time, all against decay."""
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    axes = figure.subplots(2, 3)
    _dynamics(result, axes[0, 0], axes[1, 0])
    _flow(result, axes[0, 1], axes[1, 1])
    _against_decay(result, axes[0, 2], axes[1, 2])
    p = result.protocol
    figure.suptitle(f"{p.dataset}{f' ({p.subset} images)' if p.subset else ''}: MLP with {p.depth} hidden layers of {p.width}, "
                    f"{p.activation}, {len(p.seeds)} seeds "
                    "(line: geometric mean, band: range); simulated linear network on the same inputs", fontsize=11)
    titles = ("network: fn (mark: T_NC, thin line: from head)", "simulation: fn (thin line: fixed point)", "where fn rests",
              "network: NC1", "simulation: NC1 (thin line: theory)", "where NC1 ends")
    for ax, letter, title in zip(axes.flat, "abcdef", titles, strict=True):
        ax.set_title(f"({letter}) {title}", fontsize=10, loc="left")
        ax.grid(alpha=0.25, linewidth=0.5)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _dynamics(result: Comparison, top: Axes, bottom: Axes) -> None:
    p, data = result.protocol, result.network.data
    epochs = data["time"].values
    count = len(p.decays)
    for i, (decay, row) in enumerate(zip(p.decays, result.rows, strict=True)):
        lanes = np.flatnonzero(data["decay"].values == decay)
        colour, style = _colour(i, count), STYLES[i % len(STYLES)]
        for ax, name in ((top, "fn"), (bottom, p.nc1)):
            values = data[name].isel(lane=lanes).values
            middle = np.exp(np.log(values).mean(0))
            ax.plot(epochs[1:], middle[1:], linestyle=style, color=colour, linewidth=1.5, label=f"decay {short(decay)}")
            ax.fill_between(epochs[1:], values.min(0)[1:], values.max(0)[1:], color=colour, alpha=0.15, linewidth=0)
        fixed = row["theory"]["feature_norm_head"]
        if fixed is not None:
            _level(top, fixed, colour, style)
        if row["real"]["t_nc"]["mean"] is not None:
            top.plot(row["real"]["t_nc"]["mean"], row["real"]["fn_star"]["mean"], MARKERS[i % 6], color=colour,
                     markersize=6, markeredgecolor="black", zorder=5)
    for ax in (top, bottom):
        ax.axvline(p.epochs_ce, color="0.4", linewidth=0.8)
        ax.set_yscale("log")
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _plain(top)
    bottom.axhline(p.threshold, color="black", linewidth=0.8)
    bottom.annotate("threshold", (1, p.threshold), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    top.annotate("MSE", (p.epochs_ce, 0.97), xycoords=("data", "axes fraction"), ha="left", fontsize=8,
                 xytext=(4, 0), textcoords="offset points", va="top")
    top.set_ylabel("fn, mean feature norm")
    bottom.set_ylabel("NC1")
    bottom.legend(fontsize=8, frameon=False, loc="lower left")


def _level(ax: Axes, value: float, colour, style) -> None:
    """A thin line at a predicted value, with a tick at the right where lines crowd."""
    ax.axhline(value, color=colour, linestyle=style, linewidth=0.8, alpha=0.7, zorder=1)
    ax.plot([1.0, 1.03], [value, value], transform=ax.get_yaxis_transform(), clip_on=False, color=colour, linewidth=2.5)


def _flow(result: Comparison, top: Axes, bottom: Axes) -> None:
    data = result.simulation.data
    time = data["time"].values
    count = len(result.protocol.decays)
    for i, row in enumerate(result.rows):
        colour, style = _colour(i, count), STYLES[i % len(STYLES)]
        lane = data.isel(lane=i)
        moving = time <= float(lane["t_end"])
        for ax, name in ((top, "fn"), (bottom, result.protocol.nc1)):
            ax.plot(time[moving][1:], lane[name].values[moving][1:], linestyle=style, color=colour, linewidth=1.5)
        for ax, value in ((top, row["theory"]["feature_norm_data"]), (bottom, row["theory"]["nc1_floor_data"])):
            _level(ax, value, colour, style)
    for ax in (top, bottom):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("flow time")
        _plain(ax)
    top.set_ylabel("fn, mean feature norm")
    bottom.set_ylabel("NC1")


def _against_decay(result: Comparison, top: Axes, bottom: Axes) -> None:
    rows = result.rows
    decays = [row["decay"] for row in rows]

    def bars(ax: Axes, key: str, label: str) -> None:
        seeds = [[v for v in row["real"][key]["per_seed"] if v is not None] for row in rows]
        use = [i for i, values in enumerate(seeds) if values]
        middle = np.array([np.mean(seeds[i]) for i in use])
        low = middle - [min(seeds[i]) for i in use]
        high = np.array([max(seeds[i]) for i in use]) - middle
        ax.errorbar([decays[i] for i in use], middle, yerr=[low, high], fmt="o", color="black", capsize=3, label=label)

    def line(ax: Axes, part: str, key: str, style: str, label: str, colour: str) -> None:
        values = [np.nan if row[part][key] is None else row[part][key] for row in rows]
        ax.plot(decays, values, style, color=colour, label=label, markersize=7, markerfacecolor="none")

    bars(top, "fn_end", "real network, end (mean, range)")
    line(top, "theory", "feature_norm_head", "s--", "theory from trained head", "tab:blue")
    line(top, "theory", "feature_norm_data", "-", "theory from data (linear)", "tab:red")
    line(top, "simulation", "fn_inf", "x", "simulation (linear)", "tab:red")
    bars(bottom, "nc1_end", "real network, end")
    line(bottom, "theory", "nc1_floor_data", "-", "theory from data (linear)", "tab:red")
    line(bottom, "simulation", "nc1_floor", "x", "simulation (linear)", "tab:red")
    bottom.axhline(result.protocol.threshold, color="black", linewidth=0.8)
    bottom.annotate("threshold", (1, result.protocol.threshold), xycoords=("axes fraction", "data"), ha="right",
                    va="bottom", fontsize=8)
    bottom.set_yscale("log")
    for ax in (top, bottom):
        ax.set_xscale("log")
        ax.set_xlabel("weight decay")
        ax.set_xticks(decays, [short(d) for d in decays])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.legend(fontsize=8, frameon=False)
    top.set_ylim(0, 1.06 * top.get_ylim()[1])
    top.set_ylabel("fn, mean feature norm")
    bottom.set_ylabel("NC1")


def _plain(ax: Axes) -> None:
    """Decimal labels on a logarithmic axis, also between the powers of ten where it spans little."""
    form = FuncFormatter(lambda v, _: f"{v:g}")
    ax.yaxis.set_major_formatter(form)
    low, high = ax.get_ylim()
    if high / low < 30:
        ax.yaxis.set_minor_formatter(FuncFormatter(lambda v, _: f"{v:g}" if f"{v:e}"[0] in "25" else ""))
        ax.tick_params(axis="y", which="minor", labelsize=7)
