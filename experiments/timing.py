"""How things are timed against each other: in alternation, on one stated machine.

A machine changes its speed while it is measured (clock, other processes), so rivals take turns and what is reported is the
ratio within each round; the least of the times is what the machine can do, the median what it did.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import torch


@dataclass(frozen=True)
class Times:
    """Seconds of one contestant, a number per round."""

    seconds: tuple[float, ...]

    @property
    def least(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return median(self.seconds)

    def over(self, other: Times) -> Ratio:
        """How many times as long as `other`, round by round."""
        return Ratio(tuple(a / b for a, b in zip(self.seconds, other.seconds, strict=True)))

    def scaled(self, factor: float) -> Times:
        return Times(tuple(factor * s for s in self.seconds))

    def plus(self, other: Times) -> Times:
        return Times(tuple(a + b for a, b in zip(self.seconds, other.seconds, strict=True)))

    def json(self) -> dict[str, Any]:
        return {"median": self.median, "least": self.least, "rounds": list(self.seconds)}


@dataclass(frozen=True)
class Ratio:
    """One number per round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.rounds)

    def json(self) -> dict[str, Any]:
        return {"median": self.median, "least": min(self.rounds), "most": max(self.rounds), "rounds": list(self.rounds)}


def alternate(contestants: Mapping[str, Callable[[], Any]], rounds: int, *, device: str = "cpu",
              progress: Callable[[float], None] | None = None) -> dict[str, Times]:
    """Each contestant once per round, in turn, and every other round backwards.

    Args:
        contestants: name -> what is timed. One that times a part of itself returns the seconds as a float.
        rounds: at least one.
        device: synchronised before the clock is read.
        progress: called with the fraction done.
    """
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for i in range(rounds):
        names = list(contestants) if i % 2 == 0 else list(contestants)[::-1]
        for j, name in enumerate(names):
            found[name].append(seconds(contestants[name], device))
            if progress is not None:
                progress((i * len(names) + j + 1) / (rounds * len(names)))
    return {name: Times(tuple(values)) for name, values in found.items()}


def seconds(work: Callable[[], Any], device: str = "cpu") -> float:
    """Wall time of one call, or what it returns if that is a float."""
    synchronise(device)
    start = perf_counter()
    result = work()
    synchronise(device)
    return result if isinstance(result, float) else perf_counter() - start


def synchronise(device: str) -> None:
    """Wait until `device` has done what was asked of it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Target:
    """What a ratio should be, and whether it was."""

    what: str
    found: float
    least: float | None = None
    most: float | None = None
    met: bool = field(init=False)

    def __post_init__(self) -> None:
        good = (self.least is None or self.found >= self.least) and (self.most is None or self.found <= self.most)
        object.__setattr__(self, "met", good)

    @property
    def wanted(self) -> str:
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"

    def json(self) -> dict[str, Any]:
        return {"what": self.what, "found": self.found, "wanted": self.wanted, "met": self.met}


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the times are times of: processor, cores, threads, load at the start, libraries, and the GPU if one is used."""
    found = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "float32_matmul": torch.get_float32_matmul_precision(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkl": torch.backends.mkl.is_available(),
    }
    if torch.device(device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(torch.device(device))
    return found


def _processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
