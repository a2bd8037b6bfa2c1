"""What the paper says, as data: its tables, the figures' stated values, every quantitative claim, and its authors' later results.

`published()` reads `numbers.json`, the one place for these numbers. Source: arXiv:2604.00230v2; later results and per-epoch logs
(`experiments.published.logs`) as its authors publish them (GitHub Rupawheatly/NC). Wording is ours.

    published().table(2).row(depth=5)["fn"].mean.value      # 1.077
    [claim.id for claim in published().bearing_on("depth")]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from experiments.published.printed import Cell, Printed, Spread, read
from ncflow.errors import BadInput, require

#: What a claim may bear on.
EXPERIMENTS = ("baseline", "depth", "activation", "weight_decay", "width", "grid", "threshold_robustness", "lead_time", "ce_only",
               "intervention", "grokking_parallel")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        label: what the row is about; `n` its number of runs, None where the table does not say.
        condition: what distinguishes it, such as {"depth": 5}; plain numbers.
        cells: column -> `Printed`, `Spread`, a tuple of two `Printed` (range or interval), or None; also as `row[column]`.
    """

    label: str
    n: int | None
    condition: Mapping[str, Any]
    cells: Mapping[str, Cell]

    def __getitem__(self, column: str) -> Any:
        require(column in self.cells, "column", column, f"one of {', '.join(self.cells)}")
        return self.cells[column]


@dataclass(frozen=True)
class Table:
    """A table of the paper; `columns` are column -> heading, `page` and `section` say where it stands."""

    number: int
    title: str
    section: str
    page: int
    columns: Mapping[str, str]
    rows: tuple[Row, ...]

    def row(self, label: str | None = None, **condition: Any) -> Row:
        """The one row with this label, or whose condition has these values.

        Raises:
            BadInput: no such row, or several.
        """
        found = [r for r in self.rows if label in (None, r.label) and condition.items() <= r.condition.items()]
        given: Any = label if label is not None else condition
        require(len(found) == 1, "row", given, f"one of table {self.number}: {', '.join(r.label for r in self.rows)}")
        return found[0]


@dataclass(frozen=True)
class Figure:
    """What a figure or its caption states in numbers."""

    number: int
    section: str
    page: int
    wording: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, or a statement about its logs.

    Attributes:
        number: counted from 1 within its list; `id` a name that stays.
        wording: in our words; `values` the numbers in it.
        source: table, figure or "text", with `section` and `page` of the paper.
        experiments: those of `EXPERIMENTS` that bear on it.
    """

    number: int
    id: str
    wording: str
    values: Mapping[str, Any]
    source: str
    section: str
    page: int | None
    experiments: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """Everything in `numbers.json`.

    Attributes:
        source: title and identifier; `protocol` what the paper says it ran.
        claims: of the paper; `later` its authors' results since.
        readings: what a first reading of the per-epoch logs said, for the audit to confirm or refute.
    """

    source: Mapping[str, str]
    protocol: Mapping[str, Any]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    claims: tuple[Claim, ...]
    later: tuple[Claim, ...]
    readings: tuple[Claim, ...]

    def table(self, number: int) -> Table:
        return _find(self.tables, "number", number, "table")

    def figure(self, number: int) -> Figure:
        return _find(self.figures, "number", number, "figure")

    def claim(self, id: str) -> Claim:
        """The claim, later result or reading of this name."""
        return _find((*self.claims, *self.later, *self.readings), "id", id, "claim")

    def bearing_on(self, experiment: str) -> tuple[Claim, ...]:
        """The claims of the paper that `experiment` bears on."""
        require(experiment in EXPERIMENTS, "experiment", experiment, f"one of {', '.join(EXPERIMENTS)}")
        return tuple(c for c in self.claims if experiment in c.experiments)


@cache
def published() -> Published:
    """The published numbers, read once."""
    data = json.loads(files(__name__).joinpath("numbers.json").read_text(encoding="utf-8"))
    return Published(
        source=data["source"],
        protocol=data["protocol"]["values"],
        tables=tuple(_table(t) for t in data["tables"]),
        figures=tuple(Figure(**{**f, "values": _values(f["values"])}) for f in data["figures"]),
        claims=_claims(data["claims"], "text"),
        later=_claims(data["later"], "the authors' later results"),
        readings=_claims(data["readings"], "the per-epoch logs"),
    )


def _table(data: dict[str, Any]) -> Table:
    rows = []
    for row in data["rows"]:
        cells = {k: read(v) for k, v in row.items() if k not in ("label", "n", "condition")}
        rows.append(Row(row["label"], row["n"], row["condition"], cells))
    return Table(**{**data, "rows": tuple(rows)})


def _claims(data: list[dict[str, Any]], source: str) -> tuple[Claim, ...]:
    return tuple(
        Claim(number, c["id"], c["wording"], _values(c["values"]), c.get("source", source), c.get("section", ""), c.get("page"),
              tuple(c["experiments"]))
        for number, c in enumerate(data, 1)
    )  # fmt: skip


def _values(data: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as printed; what JSON holds as a plain number is a setting, not a result, and stays one."""
    return {k: v if isinstance(v, int | float) else read(v) for k, v in data.items()}


def _find(items: tuple[Any, ...], field: str, value: Any, what: str) -> Any:
    for item in items:
        if getattr(item, field) == value:
            return item
    known = [str(getattr(item, field)) for item in items]
    near = get_close_matches(str(value), known, 3, 0.4) if len(known) > 12 else known
    raise BadInput(what, value, f"one of {', '.join(near or known)}")


__all__ = ["EXPERIMENTS", "Cell", "Claim", "Figure", "Printed", "Published", "Row", "Spread", "Table", "published"]
