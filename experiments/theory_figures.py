"""Figures of the closed forms: along one parameter, and the phase diagram. Legible in greyscale."""

from __future__ import annotations

from itertools import pairwise
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from experiments.phase import Phase
from experiments.theory_sweep import Sweep

#: What a parameter is called on an axis.
WORDS = {"decay": "weight decay", "weight_decay": "decay of the weights", "feature_decay": "decay of the features",
         "bias_decay": "decay of the bias", "mobility": "mobility of the features", "classes": "classes K",
         "samples_per_class": "samples per class n", "layers": "weight layers M", "width": "width", "streams": "streams L",
         "loss_scale": "loss scale c", "smoothing": "label smoothing a", "focal_gamma": "focal gamma",
         "amplitude": "amplitude r of the class means", "noise": "noise v2 of the data"}


def sweep_figure(found: Sweep, title: str) -> Figure:
    """Four panels: fn, signal, loss and times; solid: the collapsed state, dashed: the saddle; hatched: no such state."""
    figure = Figure(figsize=(10.5, 7.2), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    c, x = found.columns, found.values
    few = len(x) <= 30
    style: dict[str, Any] = {"marker": "o" if few else None, "markersize": 4}

    def line(ax: Axes, y: Any, *, label: str, dash: str = "-", colour: str = "black", width: float = 1.8) -> None:
        values = np.where(np.isfinite(y), y, np.nan)
        if np.isfinite(values).any():
            ax.plot(x, values, linestyle=dash, color=colour, linewidth=width, label=label, **style)

    def branch(ax: Axes, key: str, **words: Any) -> None:
        """A branch, drawn up to the fold, where it meets the other."""
        for at, tip in found.tips:
            inside = np.flatnonzero(alive)[np.argmin(np.abs(x[alive] - at[0]))]
            ax.plot([*at, x[inside]], [*tip[key], c[key][inside]], linestyle=words.get("dash", "-"), linewidth=words["width"],
                    color=words["colour"])
        line(ax, np.where(alive, c[key], np.nan), **words)

    alive = c["exists"]
    panels = zip(axes.flat, "abc", ("feature_norm", "signal", "loss"), ("fn", "smallest signal", "loss"), strict=False)
    for ax, letter, key, name in panels:
        branch(ax, key, label="collapsed state", colour="black", width=1.8)
        branch(ax, f"saddle_{key}", label="saddle (lower root)", dash="--", colour="0.45", width=1.4)
        ax.set_title(f"({letter}) {name} at rest", loc="left", fontsize=10)
    line(axes[1, 0], np.where(alive, np.nan, c["loss"]), label="zero", dash=":", colour="0.3")
    last = axes[1, 1]
    line(last, c["t_nc"], label=f"T_NC: NC1 < {found.threshold:g}")
    with np.errstate(divide="ignore"):
        line(last, 1 / c["nc1_rate"], label="1 / tail rate of NC1", dash="--", colour="0.45", width=1.4)
        line(last, 1 / c["signal_rate"], label="1 / rate of the signal", dash=":", colour="0.3")
    last.set_title("(d) times (flow time)", loc="left", fontsize=10)
    positive = [v[np.isfinite(v) & (v > 0)] for v in (c["t_nc"], c["nc1_rate"], c["signal_rate"])]
    if any(v.size for v in positive):
        last.set_yscale("log")
    else:
        last.annotate("\n".join(wrap(f"not known: {found.missing.get('t_nc', 'no value')}", 60)), (0.04, 0.5),
                      xycoords="axes fraction", fontsize=9, va="center")
        last.set_yticks([])
    fn = c["feature_norm"][alive & np.isfinite(c["feature_norm"])]
    if fn.size and fn.max() > 20 * max(fn.min(), 1e-300):
        axes[0, 0].set_yscale("log")
    for ax in axes.flat:
        if found.scale == "log":
            ax.set_xscale("log")
        _absent(ax, found, loss=ax is axes[1, 0])
        ax.margins(x=0.02 if few else 0.0)
        ax.grid(alpha=0.25, linewidth=0.5)
        ax.spines[["top", "right"]].set_visible(False)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8, frameon=False, loc="best")
    for ax in axes[1]:
        ax.set_xlabel(WORDS[found.parameter])
    figure.suptitle(title, fontsize=11)
    return figure


def _absent(ax: Axes, found: Sweep, *, loss: bool) -> None:
    """Hatch where the collapsed state does not exist, mark the fold and where zero becomes cheaper."""
    x, alive = found.values, found.columns["exists"]
    edges = found.edges
    for at in edges:
        ax.axvline(at, color="black", linewidth=0.9)
    for at in found.ties:
        ax.axvline(at, color="0.35", linewidth=0.9, linestyle=(0, (5, 3)))
        if loss:
            ax.annotate("zero is cheaper", (at, 0.06), xycoords=("data", "axes fraction"), xytext=(-12, 0), color="0.35",
                        textcoords="offset points", fontsize=8, rotation=90)
    ends = []
    for low, high, at in found.ends:
        middle = np.sqrt(low * high) if found.scale == "log" else (low + high) / 2
        ends.append(middle if np.isnan(at) else at)
    cuts = [x[0], *ends, x[-1]]
    for low, high in pairwise(cuts):
        inside = alive[(x >= low) & (x <= high)]
        if inside.size and not inside[len(inside) // 2]:
            ax.axvspan(low, high, facecolor="0.95", edgecolor="0.75", hatch="///", linewidth=0, zorder=0)
    if edges:
        name = "fold" if edges[0] in ends else "first mode lost"
        ax.annotate(name, (edges[0], 0.04), xycoords=("data", "axes fraction"), xytext=(2, 0), textcoords="offset points",
                    fontsize=8, rotation=90)


#: Marker and filling of the paper's networks by what NC1 did.
OUTCOMES = {"NC1 < 0.01": ("o", "white"), "NC1 < 0.05": ("s", "white"), "NC1 stalls at 0.03": ("X", "black")}
ABSENT: dict[str, Any] = {"facecolor": "0.93", "edgecolor": "0.6", "hatch": "///", "linewidth": 0}


def phase_figure(found: Phase) -> Figure:
    """T_NC of free features over decay and depth; beside it, with noise, NC1 at rest of features tied to data."""
    two = found.data is not None
    figure = Figure(figsize=(14.0 if two else 8.6, 6.2), layout="constrained")
    axes = np.atleast_1d(np.asarray(figure.subplots(1, 2 if two else 1)))
    space = found.space
    _time_panel(figure, axes[0], found)
    if two:
        _floor_panel(figure, axes[1], found)
    handles: list[Any] = [Line2D([], [], marker=m, color="none", markerfacecolor=f, markeredgecolor="black", markersize=8,
                      label=f"paper, decay below: {outcome}") for outcome, (m, f) in OUTCOMES.items()]
    handles += [Line2D([], [], color="black", linewidth=2.4, label="fold: collapsed state ends"),
                Line2D([], [], color="black", linewidth=1.6, linestyle="--", label="zero becomes cheaper")]
    if two:
        handles.append(Line2D([], [], color="black", linewidth=2.4, linestyle=":", label="floor = threshold"))
    handles.append(Patch(**ABSENT, label="features vanish from this start"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4 if two else 3, fontsize=9, frameon=False)
    bias = "no bias" if space.bias == "none" else "free bias"
    figure.suptitle(f"K = {space.classes}, c = {space.loss_scale:g}, {bias}, NC1 threshold {space.start.threshold:g}",
                    fontsize=11)
    return figure


def _edges(found: Phase) -> tuple[Any, Any]:
    """Edges of the cells: logarithmic in the decay, a unit for each depth."""
    log = np.log(found.decays)
    step = log[1] - log[0]
    return np.exp(np.append(log - step / 2, log[-1] + step / 2)), np.append(found.layers - 0.5, found.layers[-1] + 0.5)


def _stairs(ax: Axes, at: Any, layers: Any, **style: Any) -> None:
    """A line at decay `at` through the row of each depth."""
    inside = np.isfinite(at) & (at > 0)
    x, y = np.repeat(at, 2), np.stack([layers - 0.5, layers + 0.5], axis=1).ravel()
    keep = np.repeat(inside, 2)
    halo = [withStroke(linewidth=style["linewidth"] + 2, foreground="white", alpha=0.8)]
    ax.plot(x[keep], y[keep], color="black", path_effects=halo, zorder=5, **style)


def _map(figure: Figure, ax: Axes, found: Phase, values: Any, label: str, fold: Any) -> None:
    """Shade positive `values` (layers, decays) up to the fold, with contours; the rest is left to the hatching."""
    x, y = _edges(found)
    ax.set_facecolor("0.93")
    ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, zorder=0, **ABSENT))
    shown = np.ma.masked_invalid(np.where(values > 0, values, np.nan))
    low, high = np.floor(np.log10(shown.min())), np.ceil(np.log10(shown.max()))
    levels = 10.0 ** np.arange(low, high + 1)
    step = 1 if high - low < 8 else 2
    fine = 10.0 ** np.arange(low, high + 0.01, 0.25 if high - low < 8 else 0.5)
    mesh = ax.pcolormesh(x, y, shown, cmap="cividis_r", norm=BoundaryNorm(fine, 256), rasterized=True, zorder=1)
    for i, m in enumerate(found.layers):
        good = np.flatnonzero(~np.ma.getmaskarray(shown)[i])
        if not good.size or not np.isfinite(fold[i]):
            continue
        last = good[-1]
        colour = mesh.cmap(mesh.norm(shown[i, last]))
        if last + 1 < len(found.decays) and found.decays[last + 1] >= fold[i] > x[last + 1]:  # the cell that the fold cuts
            ax.add_patch(Rectangle((x[last + 1], m - 0.5), fold[i] - x[last + 1], 1, facecolor=colour, linewidth=0, zorder=1))
        elif x[last + 1] > fold[i]:
            ax.add_patch(Rectangle((fold[i], m - 0.5), x[last + 1] - fold[i], 1, zorder=2, **ABSENT))
    # the contour of a row is vertical: repeat every row at its two edges
    rows = np.repeat(np.ma.filled(np.ma.log10(shown), np.nan), 2, axis=0)
    heights = np.stack([found.layers - 0.499, found.layers + 0.499], axis=1).ravel()
    lines = ax.contour(found.decays, heights, rows, levels=np.log10(levels[::step]), colors="white", linewidths=0.8,
                       linestyles="solid")
    ax.clabel(lines, fmt=lambda v: f"$10^{{{v:.0f}}}$", fontsize=8)
    bar = figure.colorbar(mesh, ax=ax, label=label, pad=0.015, ticks=levels)
    bar.ax.set_yticklabels([f"$10^{{{np.log10(v):.0f}}}$" for v in levels])
    ax.set_xscale("log")
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    ax.set_yticks(found.layers)
    ax.set_xlabel("weight decay, the same for all")


def _marks(ax: Axes, found: Phase, decay: str, layers: str) -> None:
    low, high = found.layers[0], found.layers[-1]
    named: set[str] = set()
    for mark in found.marks:
        m, lam = mark[layers], mark[decay]
        if m is None or not (low <= m <= high and found.decays[0] <= lam <= found.decays[-1]):
            continue
        shape, fill = OUTCOMES[mark["outcome"]]
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        ax.plot(lam, m, shape, markersize=8, markerfacecolor=fill, markeredgecolor="black", zorder=6)
        ax.annotate(f"{mark['decay']:.0e}".replace("e-0", "e-"), (lam, m), xytext=(0, -15), textcoords="offset points",
                    ha="center", fontsize=7, zorder=7, bbox=box)
        if mark["name"] not in named:
            named.add(mark["name"])
            ax.annotate(mark["name"], (lam, m), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=8, zorder=7,
                        bbox=box)


def _time_panel(figure: Figure, ax: Axes, found: Phase) -> None:
    _map(figure, ax, found, np.where(np.isfinite(found.time), found.time, np.nan), "T_NC (flow time)", found.fold)
    _stairs(ax, found.fold, found.layers, linewidth=2.4)
    _stairs(ax, found.maxwell, found.layers, linewidth=1.6, linestyle="--")
    _marks(ax, found, "free_decay", "free_layers")
    ax.set_ylabel("weight layers M above the free features")
    ax.set_title(f"free features, n = {found.space.samples_per_class}: time to collapse", loc="left", fontsize=10)


def _floor_panel(figure: Figure, ax: Axes, found: Phase) -> None:
    assert found.data is not None
    space = found.space
    _map(figure, ax, found, np.where(found.layers[:, None] > 1, found.data["floor"], np.nan), "NC1 at rest", found.data["fold"])
    if found.layers[0] == 1:  # one layer has the NC1 of the data at any decay
        ax.set_ylim(bottom=1.5)
    _stairs(ax, found.data["fold"], found.layers, linewidth=2.4)
    _stairs(ax, found.data["boundary"], found.layers, linewidth=2.4, linestyle=":")
    _marks(ax, found, "decay", "data_layers")
    ax.set_ylabel("weight layers M above the data")
    ax.set_title(f"features tied to data, r = {space.amplitude:g}, v2 = {space.noise:g}, {space.inputs} inputs, "
                 f"{space.classes * space.data_samples} samples: what NC1 tends to", loc="left", fontsize=10)
