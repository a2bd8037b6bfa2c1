"""What can be run beside a two-phase training: a simulation, or a network of another task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar

from ncflow import Trajectory


class Study(ABC):
    """A frozen dataclass whose fields determine one short run, with a record like any other.

    A study that was interrupted starts again; it should take minutes at most. Derived classes add validated fields.

    Attributes:
        kind: the name of its folders and records; no two classes share one.
    """

    kind: ClassVar[str]

    def config(self) -> dict[str, Any]:
        """Every field and the kind, JSON-ready; protocols and other studies in it as they say themselves."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        plain = asdict(self)  # type: ignore[call-overload]
        return {"kind": self.kind, **plain, **{name: v.config() for name, v in own.items() if hasattr(v, "config")}}

    @abstractmethod
    def run(self, *, root: str | Path | None, progress: Callable[[float], None]) -> Trajectory:
        """Do it, in this process.

        Args:
            root: data root, as in `realnets.load`.
            progress: called with the fraction done.
        """
