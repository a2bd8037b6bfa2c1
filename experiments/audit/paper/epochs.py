"""What the printed collapse times betray: the spacing at which the authors looked, and the ddof of each standard deviation.

A mean of n times that are all multiples of a step is a multiple of step/n (the GRIM test of Brown and Heathers 2017), and only
few sets of such times have a given mean and standard deviation: all are enumerated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement

from experiments.audit.check import Check, statement
from experiments.published import Row, Spread, published

STEP = 10
#: Below this chance, that times happen to lie on the coarser grid is not believed.
CHANCE = 1e-3


@dataclass(frozen=True)
class Times:
    """The sets of times, all multiples of `STEP`, that have a printed mean and standard deviation.

    Attributes:
        on_grid: whether the mean alone can be one of multiples; `chance` the share of whole numbers of which that is true.
        sets: ddof -> the sets.
    """

    on_grid: bool
    chance: float
    sets: dict[int, tuple[tuple[int, ...], ...]]

    @property
    def ddofs(self) -> tuple[int, ...]:
        """The ddofs that are possible."""
        return tuple(d for d, found in self.sets.items() if found)


def times(printed: Spread, n: int) -> Times:
    """`Times` of n runs."""
    m, s = printed.mean, printed.std
    sums = [k for k in range(math.floor(n * m.low / STEP), math.ceil(n * m.high / STEP) + 1) if m.low <= k * STEP / n <= m.high]
    hit = sum(abs(round(n * v / STEP) * STEP / n - v) <= 0.5 for v in range(STEP * n))
    reach = math.ceil(s.high * math.sqrt(n) / STEP) + 1
    middle = round(m.value / STEP)
    found: dict[int, list[tuple[int, ...]]] = {0: [], 1: []}
    for some in combinations_with_replacement(range(middle - reach, middle + reach + 1), n):
        if sum(some) not in sums:
            continue
        mean = sum(some) / n
        squares = sum((v - mean) ** 2 for v in some)
        for ddof in (0, 1):
            if s.low <= STEP * math.sqrt(squares / (n - ddof)) <= s.high:
                found[ddof].append(tuple(STEP * v for v in some))
    return Times(bool(sums), hit / (STEP * n), {d: tuple(v) for d, v in found.items()})


def cells() -> list[tuple[str, Row, Spread]]:
    """Every distinct printed T_NC with a standard deviation: (where, row, cell)."""
    seen: dict[tuple[str, int | None], tuple[str, Row, Spread]] = {}
    for number in (2, 3, 4, 7, 8):
        for row in published().table(number).rows:
            cell = row["t_nc"]
            if isinstance(cell, Spread) and cell.std.value > 0:
                seen.setdefault((str(cell), row.n), (f"Table {number}", row, cell))
    return list(seen.values())


def checks() -> list[Check]:
    """The ddof of each printed T_NC, whether they are one, and the spacing of looks."""
    made, ddofs, chance, on_grid = [], {}, 1.0, True
    for where, row, cell in cells():
        assert row.n is not None  # a table with T_NC counts its runs
        found = times(cell, row.n)
        on_grid, chance = on_grid and found.on_grid, chance * found.chance
        sets = "; ".join(f"ddof {d}: {_listed(s)}" for d, s in found.sets.items() if s)
        label = f"ddof {' or '.join(map(str, found.ddofs))}" if found.ddofs else "neither"
        ddofs.setdefault(found.ddofs, []).append(f"{where} {row.label}")
        made.append(
            statement(
                where,
                f"T_NC, {row.label}, as multiples of {STEP} epochs",
                str(cell),
                bool(found.ddofs),
                label,
                sets or "no multiples have this mean and std",
            )
        )
    alone = {d[0]: names for d, names in ddofs.items() if len(d) == 1}
    told = "; ".join(f"ddof {d}: {', '.join(names)}" for d, names in sorted(alone.items()))
    made.append(
        statement(
            "Tables 2-8",
            "standard deviations of T_NC are of one kind",
            "mean ± std",
            len(alone) < 2,
            f"{len(alone.get(0, []))} cells can only be ddof 0, {len(alone.get(1, []))} only ddof 1",
            told,
            "Table 4 mixes both in one column" if _copied() else "",
        )
    )
    coarse = on_grid and chance < CHANCE
    made.append(
        statement(
            "Section 4",
            "how often NC1 was measured",
            "at every epoch",
            not coarse,
            f"every {STEP} epochs, by the means of T_NC" if coarse else "cannot be told",
            f"{'all' if on_grid else 'not all'} {len(cells())} means are multiples of {STEP}/n, which whole "
            f"numbers are by chance with probability {chance:.0e}",
        )
    )
    return made


def _listed(sets: tuple[tuple[int, ...], ...], most: int = 2) -> str:
    shown = " or ".join("{" + ", ".join(map(str, s)) + "}" for s in sets[:most])
    return shown + (f" or {len(sets) - most} more" if len(sets) > most else "")


def _copied() -> bool:
    """Whether Table 4 repeats a cell of Table 2 whose ddof differs from that of its neighbours."""
    kinds = set()
    for row in published().table(4).rows:
        if isinstance(row["t_nc"], Spread) and row.n is not None and len(d := times(row["t_nc"], row.n).ddofs) == 1:
            kinds.add(d[0])
    return len(kinds) > 1
