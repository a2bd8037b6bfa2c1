"""A number as printed: its value, and how far the true one may be from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from ncflow.errors import require

_NUMBER = re.compile(r"~?[+-]?\d+(\.\d+)?")


@dataclass(frozen=True)
class Printed:
    """A printed number.

    Attributes:
        text: as printed, with "~" in front where the text says "about".

    Raises:
        BadInput: `text` is not a number.
    """

    text: str

    def __post_init__(self) -> None:
        good = isinstance(self.text, str) and bool(_NUMBER.fullmatch(self.text))
        require(good, "text", self.text, "a number such as 1.077 or ~16")

    @property
    def value(self) -> float:
        return float(self.text.lstrip("~"))

    @property
    def unit(self) -> float:
        """One unit of the last digit that counts. Zeros at the end of a whole number count, unless it is an "about"."""
        digits = self.text.lstrip("~+-")
        if "." in digits:
            return float(Decimal(1).scaleb(-len(digits.split(".")[1])))
        zeros = len(digits) - len(digits.rstrip("0")) if self.text.startswith("~") and digits.strip("0") else 0
        return float(10**zeros)

    @property
    def half(self) -> float:
        """Half of `unit`: how far a number rounded to the text may be from it."""
        return self.unit / 2

    @property
    def low(self) -> float:
        return self.value - self.half

    @property
    def high(self) -> float:
        return self.value + self.half

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Spread:
    """mean ± standard deviation, as printed."""

    mean: Printed
    std: Printed

    def __str__(self) -> str:
        return f"{self.mean} ± {self.std}"


Cell = Printed | Spread | tuple[Printed, ...] | str | None


def read(value: object) -> Cell:
    """A JSON value of the data file: "1.077" becomes a `Printed`, "1.077 ± 0.020" a `Spread`, a list of numbers a tuple of
    `Printed`; other text stays as it is."""
    if isinstance(value, list):
        return tuple(Printed(v) for v in value)
    if not isinstance(value, str):
        require(value is None, "value", value, "text, or a list of numbers as text")
        return None
    mean, plus, std = value.partition(" ± ")
    if plus:
        return Spread(Printed(mean), Printed(std))
    return Printed(value) if _NUMBER.fullmatch(value) else value
