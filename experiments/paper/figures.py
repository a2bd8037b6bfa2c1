"""Panels that experiments share. Lines differ by dash and marks by shape, so that grey print tells them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from experiments.figures import MARKERS, STYLES, _colour, _plain
from experiments.paper.evidence import LOGS, Evidence, Row, Times
from experiments.paper.networks import Network


def grid(columns: int, rows: int = 1, *, height: float = 3.1) -> tuple[Figure, np.ndarray]:
    """(figure, axes (rows, columns)) of the report's width."""
    figure = Figure(figsize=(3.8 * columns, height * rows))
    figure.subplots_adjust(
        left=0.16 / columns, right=1 - 0.04 / columns, bottom=0.19, top=0.9, wspace=0.28
    )  # far quicker than a layout
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.grid(alpha=0.25, linewidth=0.5)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    return figure, axes


def titles(axes: np.ndarray, *texts: str) -> None:
    """(a), (b), ... above the panels."""
    for ax, letter, text in zip(axes.flat, "abcdefghij", texts, strict=False):
        ax.set_title(f"({letter}) {text}", fontsize=9, loc="left")


def nothing(ax: Axes, text: str = "no runs yet") -> None:
    """Say that a panel has nothing to show."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", fontsize=9, color="0.35")


def curves(ax: Axes, rows: Sequence[Row], value: Callable[[Network], np.ndarray], label: str, *, log: bool = True,
           onset: bool = False, legend: bool = False) -> None:  # fmt: skip
    """`value` against epoch, a line per network and a dash per row; with `onset`, a mark at each T_NC."""
    if not any(row.networks for row in rows):
        nothing(ax)
    for i, row in enumerate(rows):
        colour, style = _colour(i, len(rows)), STYLES[i % len(STYLES)]
        for k, net in enumerate(row.networks):
            y = value(net)
            use = np.isfinite(y) & (net.time > 0) & ((y > 0) if log else True)
            ax.plot(
                net.time[use], y[use], linestyle=style, color=colour, linewidth=1.1, label=row.condition.label if not k else None
            )
            if onset and (at := net.onset(row.condition.threshold)).happened:
                ax.plot(at.t_nc, at.fn, MARKERS[i % 6], color=colour, markeredgecolor="black", markersize=5, zorder=5)
    if log:
        ax.set_yscale("log")
        _plain(ax)
    switches(ax, rows)
    ax.set_xlabel("epoch", fontsize=8)
    ax.set_ylabel(label, fontsize=8)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if legend and ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=7, frameon=False)


def overlay(ax: Axes, logs: Evidence, value: Callable[[Network], np.ndarray]) -> None:
    """The authors' logged curves, thin and grey, behind ours."""
    first = True
    for net in (n for row in logs.rows for n in row.networks):
        y = value(net)
        use = np.isfinite(y) & (y > 0)
        ax.plot(net.time[use], y[use], color="0.55", linewidth=2.2, alpha=0.6, zorder=1, label="published log" if first else None)
        first = False


def switches(ax: Axes, rows: Sequence[Row]) -> None:
    """A vertical line where the loss changes."""
    at = {
        float(n.time[n.phase == 1].max()) for row in rows for n in row.networks if (n.phase == 1).any() and (n.phase == 2).any()
    }
    for epoch in at:
        ax.axvline(epoch, color="0.4", linewidth=0.8)


def level(ax: Axes, value: float, text: str) -> None:
    """A thin line with a word on it."""
    ax.axhline(value, color="black", linewidth=0.8)
    ax.annotate(text, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7)


def dynamics(ax_fn: Axes, ax_nc1: Axes, rows: Sequence[Row]) -> None:
    """fn with marks at T_NC, and NC1 with the thresholds."""
    curves(ax_fn, rows, lambda n: n.fn, "fn, mean feature norm", onset=True)
    curves(ax_nc1, rows, lambda n: n.nc1, "NC1", legend=True)
    for threshold in sorted({row.condition.threshold for row in rows}):
        level(ax_nc1, threshold, f"{threshold:g}")


def against(
    ax: Axes,
    x: Sequence[float],
    evidence: Sequence[tuple[str, Sequence[Times | np.ndarray]]],
    label: str,
    xlabel: str,
    *,
    names: Sequence[str] | None = None,
    logx: bool = False,
    logy: bool = False,
    lines: bool = True,
) -> None:
    """Values of seeds against a parameter: a mark per seed and a line through the means. A collapse time that never came stands
    as an open triangle at the end of its run.

    Args:
        evidence: (name, one entry per x): collapse times, or values (n,).
        names: ticks in place of numbers.
        lines: whether x has an order that lines may follow.
    """
    for k, (name, entries) in enumerate(evidence):
        colour, style, marker = _colour(k, max(2, len(evidence))), STYLES[k % len(STYLES)], MARKERS[k % 6]
        means: list[tuple[float, float]] = []
        for at, entry in zip(x, entries, strict=True):
            values = entry.came if isinstance(entry, Times) else entry[np.isfinite(entry)]
            aside = k - (len(evidence) - 1) / 2  # so that marks of one x do not hide each other
            shift = at * (1 + 0.05 * aside) if logx else at + (0.06 if lines else 0.2) * aside
            ax.plot([shift] * len(values), values, marker, color=colour, markersize=4, markeredgecolor="black",
                    markeredgewidth=0.4, zorder=4)  # fmt: skip
            if isinstance(entry, Times):
                never = entry.horizon[~np.isfinite(entry.t_nc)]
                ax.plot([shift] * len(never), never, "^", color=colour, markerfacecolor="none", markersize=6)
            if len(values) and (not isinstance(entry, Times) or entry.crossed == entry.n):
                means.append((at, float(values.mean())))
        if means and lines:
            ax.plot(*zip(*means, strict=True), linestyle=style, color=colour, linewidth=1.1, label=name)
        elif any(len(e.t_nc) if isinstance(e, Times) else len(e) for e in entries):
            ax.plot([], [], linestyle=style, marker=marker, color=colour, label=name)
    if logx:
        ax.set_xscale("log")
    if logy:
        ax.set_yscale("log")
        _plain(ax)
    ax.set_xticks(list(x), list(names) if names is not None else [f"{v:g}" for v in x])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(xlabel, fontsize=8)
    ax.set_ylabel(label, fontsize=8)
    if len(evidence) > 1 and ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=7, frameon=False)


def named(evidence: Evidence, logs: Evidence | None) -> list[tuple[str, Evidence]]:
    """(name for a legend, evidence) of ours and the authors'."""
    return [("here", evidence)] + ([(LOGS, logs)] if logs is not None and not logs.empty else [])


def percent_axis(ax: Axes) -> None:
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g}%"))
