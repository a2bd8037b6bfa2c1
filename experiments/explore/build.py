"""The page as one self-contained file: template, style, scripts, and the values it checks itself against."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from experiments.explore.reference import DEFAULT, Setting, closed_forms, collapse, draw, path, start_scatter
from ncflow.provenance import package_version

SCRIPTS = ("formulas.js", "flow.js", "selfcheck.js", "plots.js", "setting.js", "numbers.js", "page.js")
CLOSED, TIMED, SEED = 60, 12, 0  # reference settings: closed forms, and those among them with collapse times; seed of the draw
PROBES = (5.0, 60.0, 400.0)  # flow times at which trajectories are compared
#: Trajectories to compare, as changes to a small setting whose full flow the engine integrates in a fraction of a second.
SMALL: Setting = dict(DEFAULT, K=3, n=4, lw=4e-3, lh=1e-3, nc0=2.0)
PATHS: tuple[Setting, ...] = (
    dict(M=1), dict(M=3, bias="free", theta=2.0), dict(M=1, loss="cross_entropy"), dict(M=3, loss="cross_entropy", theta=2.0),
    dict(M=1, kind="data"), dict(M=4, kind="data", bias="free", r=0.7))


def source(*names: str) -> str:
    """The text of package files, one after the other."""
    return "\n".join((files("experiments.explore") / name).read_text(encoding="utf-8") for name in names)


def timed(setting: Setting, fold_factor: float) -> bool:
    """Whether `theory.time_to_collapse` has an exact answer: not so far beyond the fold that its logistic overflows."""
    return (setting["kind"] == "free" and setting["loss"] == "mse" and setting["bias"] != "decayed" and fold_factor > 0.1)


def reference(progress: Callable[[str, float], None] = lambda part, share: None) -> list[dict[str, Any]]:
    """Rows {setting, closed, collapse, times, path} of values by `theory/` and the engine."""
    rows: list[dict[str, Any]] = []
    settings = [DEFAULT, *draw(CLOSED, SEED)]
    clocked = 0
    for setting in settings:
        row: dict[str, Any] = {"setting": setting, "closed": closed_forms(setting)}
        if clocked < TIMED and timed(setting, row["closed"]["edge.fold.factor"]):
            scatter = start_scatter(setting)
            row["collapse"] = collapse(setting, scatter) | {"scatter": scatter}
            clocked += 1
        rows.append(row)
        progress("reference", 0.5 * len(rows) / len(settings))
    for i, change in enumerate(PATHS, 1):
        setting, times = SMALL | change, list(PROBES)
        rows.append({"setting": setting, "times": times, "path": path(setting, times)})
        progress("reference", 0.5 + 0.5 * i / len(PATHS))
    return rows


def _json(value: Any) -> str:
    """JSON that may stand inside a script element; numbers that JSON lacks as "NaN" and "Infinity"."""
    def plain(v: Any) -> Any:
        if isinstance(v, dict):
            return {k: plain(x) for k, x in v.items()}
        if isinstance(v, list | tuple):
            return [plain(x) for x in v]
        if hasattr(v, "item"):
            v = v.item()
        return v if not isinstance(v, float) or math.isfinite(v) else "NaN" if math.isnan(v) else "Infinity"

    return json.dumps(plain(value), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def page(rows: list[dict[str, Any]]) -> str:
    """The HTML text with everything inline; `rows` from `reference`."""
    version = package_version()
    parts = {"style": source("style.css"), "script": source(*SCRIPTS), "data": _json({"default": DEFAULT, "rows": rows}),
             "version": "from its source tree" if version == "unknown" else version}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], source("page.html"))


def write(text: str, target: Path) -> Path:
    """Write `text` to `target`, whole or not at all."""
    temporary = target.with_name(target.name + ".partial")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return target
