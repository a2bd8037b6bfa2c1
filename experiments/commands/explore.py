"""`ncflow explore`."""

from __future__ import annotations

import json
import os
import sys
import webbrowser
from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.explore import build
from experiments.output import writable
from experiments.progress import progress


@dataclass(frozen=True, kw_only=True)
class Options:
    """A page with sliders for the closed forms: where the feature norm rests, how it gets there, and where collapse ends.

    Writes explore.html, one file that needs no network: the formulas of `theory` in JavaScript, with values of `theory` inside
    that the page compares itself with when it opens; and opens it in a browser where there is a display.

    For example,

        ncflow explore

        ncflow explore --out FOLDER --no-open
    """

    out: Annotated[str, tyro.conf.arg(help="folder for the page")] = "runs"
    open: Annotated[bool, tyro.conf.arg(help="open the page in a browser")] = True
    json: Annotated[bool, tyro.conf.arg(help="print one JSON object on stdout and nothing else there; opens nothing")] = False


def run(options: Options) -> int:
    """Exit code 0; raises `BadInput` for a folder that cannot be written."""
    out = writable(options.out)
    with progress() as tell:
        rows = build.reference(tell)
    text = build.page(rows)
    out = writable(out)
    out.mkdir(parents=True, exist_ok=True)
    target = build.write(text, out / "explore.html")
    opened = options.open and not options.json and _display() and webbrowser.open(target.resolve().as_uri())
    if options.json:
        print(json.dumps({"files": {"page": str(target)}, "bytes": len(text.encode()), "reference_settings": len(rows)}))
    else:
        print(f"page: {target}" + ("" if opened or not options.open else " (no display: open it in a browser)"))
    return 0


def _display() -> bool:
    """Whether a browser window can appear."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
