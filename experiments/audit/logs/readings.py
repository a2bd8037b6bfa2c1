"""What a first reading of the logs said, confirmed or refuted number by number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from experiments.audit.check import Check, Verdict
from experiments.audit.logs import leads, reading_checks, spreads
from experiments.published import Claim
from experiments.published.logs import Logs


class Standing(Enum):
    """What became of a reading."""

    CONFIRMED = "confirmed"
    IN_PART = "confirmed in part"
    REFUTED = "refuted"
    UNCHECKED = "not checked"


@dataclass(frozen=True)
class Reading:
    """A reading and the checks of its numbers; `missing` the log that stood in the way."""

    claim: Claim
    checks: tuple[Check, ...]
    missing: str = ""

    @property
    def standing(self) -> Standing:
        """Confirmed if every check agrees, a slip of the last digit allowed; refuted if none does."""
        good = [c.verdict is not Verdict.DISAGREES for c in self.checks]
        if not good:
            return Standing.UNCHECKED
        return Standing.CONFIRMED if all(good) else Standing.IN_PART if any(good) else Standing.REFUTED

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.claim.id,
            "wording": self.claim.wording,
            "standing": self.standing.value,
            "missing": self.missing,
            "checks": [c.as_dict() for c in self.checks],
        }


def tests() -> dict[str, Callable[[Logs], list[Check]]]:
    """id -> its checks."""
    r = reading_checks
    return {
        "a": r.phase_of_resnet,
        "b": r.schedule,
        "c": leads.checks,
        "d": r.shallow,
        "e": r.after_collapse,
        "f": r.stalled,
        "g": r.mlp_on_cifar,
        "h": r.norm_product,
        "i": r.scaled_down,
        "j": r.excluded,
        "k": spreads.checks,
    }
