"""One audited number: what is stated, what other numbers make of it, and whether the two can both be right.

The only tolerance is rounding. A printed 1.077 stands for anything from 1.0765 to 1.0775; a quantity computed from printed
numbers is evaluated at every corner of the box that their roundings span, and agrees if the range so found meets that of the
stated number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import product
from typing import Any

from experiments.published import Printed


class Verdict(Enum):
    """Whether a stated number follows from others."""

    AGREES = "agrees"
    SLIP = "off in the last digit"
    DISAGREES = "does not agree"

    @property
    def sentence(self) -> str:
        return {
            Verdict.AGREES: "the stated number follows, within the rounding of what is printed",
            Verdict.SLIP: "the stated number misses what follows by less than one unit of its last digit",
            Verdict.DISAGREES: "the stated number does not follow, or two statements cannot both be true",
        }[self]


_WORST = (Verdict.AGREES, Verdict.SLIP, Verdict.DISAGREES)


@dataclass(frozen=True)
class Range:
    """A computed number: `value` from the printed ones as they are, between `low` and `high` for all that they may stand for."""

    value: float
    low: float
    high: float

    def shown(self, decimals: int) -> str:
        """value, and the range where it is wider than the last decimal shown; a whole number that is exact stays whole."""
        if self.low == self.high == round(self.value):
            return f"{self.value:.0f}"
        if self.high - self.low < 10.0**-decimals:
            return _plain(self.value, decimals)
        return f"{_plain(self.value, decimals)} ({_plain(self.low, decimals)} to {_plain(self.high, decimals)})"


def over(f: Callable[..., float], *inputs: Printed) -> Range:
    """`f` over all that the printed inputs may stand for.

    Evaluated at the printed values and at every corner of the rounding box: exact where f is monotone in each input over the box.
    """
    values = [float(f(*corner)) for corner in product(*((p.low, p.high) for p in inputs))]
    middle = float(f(*(p.value for p in inputs)))
    return Range(middle, min(middle, *values), max(middle, *values))


@dataclass(frozen=True)
class Check:
    """One line of the audit.

    Attributes:
        where: table, figure or section; `what` the number or statement.
        stated, found: as text.
        arithmetic: how `found` comes about.
        verdict: whether they agree.
        note: what follows, or what would explain it.
        numbers: for JSON.
    """

    where: str
    what: str
    stated: str
    found: str
    arithmetic: str
    verdict: Verdict
    note: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "where": self.where,
            "what": self.what,
            "stated": self.stated,
            "found": self.found,
            "arithmetic": self.arithmetic,
            "verdict": self.verdict.value,
            "note": self.note,
            **self.numbers,
        }


def compare(stated: Printed, found: Range) -> Verdict:
    """The verdict on a printed number, given the range in which it should lie."""
    gap = max(found.low - stated.high, stated.low - found.high)
    guard = 1e-9 * max(1.0, abs(stated.value))  # of binary fractions, far below any rounding
    if gap <= guard:
        return Verdict.AGREES
    return Verdict.SLIP if gap < stated.unit - guard else Verdict.DISAGREES


def number(where: str, what: str, stated: Printed, found: Range, arithmetic: str, note: str = "", unit: str = "") -> Check:
    """Check of one printed number."""
    numbers = {"stated_value": stated.value, "found_value": found.value, "found_low": found.low, "found_high": found.high}
    shown = found.shown(decimals(stated) + 1) + unit
    return Check(where, what, f"{stated}{unit}", shown, arithmetic, compare(stated, found), note, numbers)


def either(
    where: str, what: str, stated: Printed, found: Mapping[str, Range], arithmetic: str, note: str = "", unit: str = ""
) -> Check:
    """Check of a printed number that may have been made in several ways: it agrees if one of them gives it, and says which."""
    verdicts = {name: compare(stated, r) for name, r in found.items()}
    best = min(verdicts.values(), key=_WORST.index)
    right = [name for name, v in verdicts.items() if v is best]
    shown = "; ".join(f"{name} {r.shown(decimals(stated) + 1)}{unit}" for name, r in found.items())
    told = f"as {' or '.join(right)}" if best is not Verdict.DISAGREES and len(right) < len(found) else ""
    numbers = {"stated_value": stated.value, "found": {n: [r.value, r.low, r.high] for n, r in found.items()}}
    return Check(where, what, f"{stated}{unit}", shown, arithmetic, best, "; ".join(t for t in (told, note) if t), numbers)


def interval(where: str, what: str, stated: Sequence[Printed], ends: Sequence[Range], arithmetic: str, note: str = "") -> Check:
    """Check of a printed interval or range: the worse of its two ends."""
    low, high = ends
    verdict = max((compare(stated[0], low), compare(stated[1], high)), key=_WORST.index)
    digits = decimals(stated[0]) + (stated[0].unit < 1)
    shown = f"[{low.value:.{digits}f}, {high.value:.{digits}f}]"
    numbers = {"stated_value": [s.value for s in stated], "found_low": [low.low, low.high], "found_high": [high.low, high.high]}
    return Check(where, what, f"[{stated[0]}, {stated[1]}]", shown, arithmetic, verdict, note, numbers)


def statement(where: str, what: str, stated: str, holds: bool, found: str, arithmetic: str, note: str = "") -> Check:
    """Check of something that is true or not."""
    return Check(where, what, stated, found, arithmetic, Verdict.AGREES if holds else Verdict.DISAGREES, note)


def counts(checks: Sequence[Check]) -> dict[str, int]:
    """How many checks have each verdict."""
    return {v.value: sum(c.verdict is v for c in checks) for v in Verdict}


def noted(check: Check, note: str) -> Check:
    """The check with a further note."""
    return replace(check, note="; ".join(t for t in (check.note, note) if t))


def decimals(printed: Printed) -> int:
    """How many digits it shows after the point."""
    return max(0, -round(math.log10(printed.unit)))


def _plain(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text
