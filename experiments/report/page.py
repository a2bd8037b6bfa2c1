"""The report as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from experiments.paper.evidence import LOGS
from experiments.paper.experiment import PRESETS, Judgement
from experiments.paper.verdicts import RULES
from experiments.published import published
from experiments.report.collect import BODIES, Part, Report, Section
from experiments.report.witnesses import COLUMNS, lines, networks
from experiments.sweeps import Catalogue
from ncflow.provenance import provenance

MARKS = {Judgement.REPLICATES: ("yes", "✓"), Judgement.IN_PART: ("part", "◐"), Judgement.CONTRADICTED: ("no", "✗"),
         Judgement.UNTESTABLE: ("open", "·")}  # fmt: skip
_DPI = 110


def page(
    report: Report, held: Catalogue, folder: Path | None = None, progress: Callable[[float], None] = lambda share: None
) -> str:
    """The page; links to runs are relative to `folder`, where it will stand. `progress` is called with the fraction done."""
    loader = jinja2.FunctionLoader(lambda name: files("experiments.report").joinpath(name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["short"] = _number
    sections = []
    for i, section in enumerate(report.sections):
        progress(i / len(report.sections))
        sections.append(_section(section))
    used = {run for s in sections for p in s["parts"] for line in p["lines"] for run, _ in line.runs}
    used |= {row.run for s in report.sections for p in s.parts for row in p.evidence.studies}
    return environment.get_template("page.html").render(
        report=report, sections=sections, source=published().source, marks=MARKS, judgements=list(Judgement), rules=RULES,
        columns=COLUMNS, presets=PRESETS, bodies=BODIES, runs=_runs(held, used, folder), about=provenance(), LOGS=LOGS,
    )  # fmt: skip


def _section(section: Section) -> dict[str, Any]:
    return {"experiment": section.experiment, "parts": [_part(section, p) for p in section.parts],
            "counted": section.counted,
            "absent": [f"{name} ({PRESETS[name]})" for name in section.absent]}  # fmt: skip


def _part(section: Section, part: Part) -> dict[str, Any]:
    experiment, evidence = section.experiment, part.evidence
    logs = section.logs
    overlay = logs if evidence.preset == "paper" else None
    columns, found = lines(evidence, logs, experiment.table)
    gaps = [text for line in found for text in line.missing]
    gaps += [f"{r.condition.label}: {g.why}" for r in evidence.studies for g in r.gaps]
    return {"part": part, "columns": columns, "lines": found, "gaps": gaps if evidence.preset != LOGS else [],
            "panels": panels(experiment.figure(evidence, overlay)), "networks": networks(evidence.rows, evidence.cadence),
            "cadence": evidence.cadence}  # fmt: skip


def panels(figure: Figure) -> list[Markup]:
    """Each panel of `figure` as a PNG in a data URL, so that a phone can show them one below the other."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DPI)
    canvas.draw()
    whole = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    images = []
    for ax in figure.axes:
        box = ax.get_tightbbox(canvas.get_renderer())
        if box is None:
            continue
        left, low, right, high = box.padded(6).extents  # pixels, from below; those of a picture count from above
        panel = whole.crop((max(0, int(left)), max(0, int(whole.height - high)), int(right), int(whole.height - low)))
        stream = io.BytesIO()
        panel.quantize(48).save(stream, "png", optimize=True)
        title = f"{ax.get_title(loc='left')}: {ax.get_ylabel()} against {ax.get_xlabel() or 'condition'}"
        images.append(
            Markup('<img alt="{}" src="data:image/png;base64,{}">').format(title, base64.b64encode(stream.getvalue()).decode())
        )
    return images


def _runs(held: Catalogue, used: set[str], folder: Path | None) -> list[dict[str, Any]]:
    """What is known of each run that a number came from."""
    found = []
    for run in held.finished:
        if run.run not in used:
            continue
        about = run.record().provenance
        seconds = about.get("seconds") or {}
        setting = run.setting if isinstance(run.setting, dict) else run.setting.config()
        link = None
        if folder is not None:
            try:
                link = run.folder.resolve().relative_to(folder.resolve().parent).as_posix()
            except ValueError:
                link = None
        found.append(
            {
                "run": run.run,
                "folder": run.folder.name,
                "link": None if link is None else f"../{link}/record.nc",
                "about": about,
                "seconds": sum(v for v in seconds.values() if isinstance(v, int | float)),
                "setting": ", ".join(f"{k} {_plain(v)}" for k, v in setting.items()),
            }
        )
    return found


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _number(value: Any, form: str = ".4g") -> str:
    return (
        "–" if value is None or value != value or value == "" else format(value, form) if isinstance(value, float) else str(value)
    )
