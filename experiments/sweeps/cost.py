"""What a job will take, from measured times: seconds per step and per measurement by kind of network, in `costs.json`.

The table was measured on one machine with one thread; a short timing says how much slower or faster this one is. A kind that is
not in the table, and any kind on a GPU, is timed here, for about a second.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from math import ceil
from time import perf_counter
from typing import Any

import numpy as np
import torch

from experiments.sweeps.plan import Job
from experiments.sweeps.study import Study
from experiments.timing import synchronise
from ncflow.errors import RunFailed
from realnets import DataSet, TwoPhase
from realnets.data import SOURCES
from realnets.run import Run
from realnets.train import find_device

#: Training images of each data set.
IMAGES = {"digits": 1797, "mnist": 60_000, "fashion_mnist": 60_000, "cifar10": 50_000}
TEST = {"mnist": 10_000, "fashion_mnist": 10_000, "cifar10": 10_000}
#: What the machine is compared by.
YARDSTICK = TwoPhase(dataset="digits", depth=5, width=64, batch_size=16, seeds=(0, 1), decays=(1e-4,))
#: Numbers of lanes at which a kind is timed; what lies between is interpolated.
LANES = (1, 3, 6, 12)
TABLE = "costs.json"
#: Images of the measurement that is timed; an eighth of it for convolutions.
LOOK = 2048


def kind(setting: TwoPhase) -> str:
    """What the time of a step depends on, beside the number of lanes."""
    s = setting
    size = s.image_size or SOURCES[s.dataset].shape[1]
    channels = s.channels or SOURCES[s.dataset].shape[0]
    net = f"{s.architecture} {s.depth}x{s.width} {s.activation}"
    if s.architecture != "mlp":
        net += f" {s.normalization} {'skip' if s.skip else 'plain'} {s.shortcut}"
    return f"{net}{'' if s.biases else ' no biases'}, {channels}x{size}x{size}, batch {s.batch_size}, {s.optimiser}"


@dataclass(frozen=True)
class Pace:
    """Seconds by number of lanes: of a `step`, and of a measurement per image (`look`)."""

    lanes: tuple[int, ...]
    step: tuple[float, ...]
    look: tuple[float, ...]

    def at(self, lanes: int) -> tuple[float, float]:
        """(step, look) with `lanes`; in proportion beyond the most that was timed."""
        beyond = max(1.0, lanes / self.lanes[-1])
        return tuple(beyond * float(np.interp(lanes, self.lanes, values)) for values in (self.step, self.look))  # type: ignore[return-value]


@dataclass
class Costs:
    """Estimates for one machine.

    Attributes:
        table: `Pace` by kind, on the machine of the table; `studies` seconds of a study by its `cost_kind`.
        ratio: how much slower this machine is than the table's; `together` how much slower a process is when every core has
            one.
        device: where networks train; the table is of the processor.
        unknown: kinds of study that nobody has timed.
    """

    table: dict[str, Pace]
    studies: dict[str, float]
    ratio: float = 1.0
    together: float = 1.0
    device: str = "cpu"
    measured: dict[str, Pace] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)

    @classmethod
    def table_of(cls, device: str = "cpu") -> Costs:
        """The table, as it was measured on its machine."""
        held = _table()
        return cls({name: Pace(*map(tuple, each)) for name, each in held["kinds"].items()}, held["studies"],
                   together=held["together"], device=device)  # fmt: skip

    def calibrate(self) -> None:
        """Measure, in about a second, how this machine compares with that of the table."""
        if self.device == "cpu":
            self.ratio = yardstick() / _table()["yardstick"]

    def seconds(self, job: Job) -> float:
        """Expected wall time of `job` alone on one thread (or on the GPU); the most, where it may end early."""
        s = job.setting
        if isinstance(s, Study):
            name = cost_kind(s)
            if name not in self.studies:
                self.unknown.add(name)
            return self.ratio * self.studies.get(name, 0.0)
        pace, ratio = self._pace(s, job.lanes)
        images = s.subset or IMAGES[s.dataset]
        images_looked = images + (
            TEST.get(s.dataset, 0) if TEST.get(s.dataset, 0) <= images else 0
        )  # small test sets are looked at, too
        total, before = 0.0, 0
        spans = [(s.epochs_ce, len(s.roots)), (s.epochs_mse, len(s.lanes)), (s.settle_epochs if s.settle else 0, len(s.lanes))]
        for epochs, lanes in spans:
            left = max(0, before + epochs - max(before, job.resumes))
            step, look = pace.at(lanes)
            looks = left / s.measure_every * (1 + s.layerwise) * (2 if s.architecture != "mlp" else 1)
            total += ratio * (left * ceil(images / s.batch_size) * step + looks * images_looked * look)
            before += epochs
        return total

    def lanes(self, setting: TwoPhase, most: int) -> int:
        """How many lanes of one job take the least time per lane, up to `most`; `most` where that is not known."""
        if self.device != "cpu" or (name := kind(setting)) not in self.table:
            return most
        pace = self.table[name]
        each = {n: s / n for n, s in zip(pace.lanes, pace.step, strict=True) if n <= most}
        return int(min(each, key=lambda n: each[n]))

    def wall(self, jobs: Iterable[Job], workers: int) -> float:
        """Expected wall time of all jobs, the longest first, on so many workers."""
        loads = [0.0] * workers
        for seconds in sorted((self.seconds(job) for job in jobs), reverse=True):
            loads[loads.index(min(loads))] += seconds
        return max(loads) * (self.together if workers > 1 and self.device == "cpu" else 1.0)

    def _pace(self, setting: TwoPhase, lanes: int) -> tuple[Pace, float]:
        name = kind(setting)
        if self.device == "cpu" and name in self.table:
            return self.table[name], self.ratio
        if name not in self.measured or 1 < self.measured[name].lanes[-1] < lanes:
            several = setting.architecture == "mlp" or self.device != "cpu"  # convolutions run lane by lane
            self.measured[name] = time_kind(setting, sorted({1, lanes}) if several else (1,), self.device)
        return self.measured[name], 1.0


def cost_kind(study: Study) -> str:
    """Name under which the seconds of a study are kept."""
    return getattr(study, "cost_kind", study.kind)


@cache
def _table() -> dict[str, Any]:
    return json.loads(files("experiments.sweeps").joinpath(TABLE).read_text())


def time_kind(setting: TwoPhase, lanes: Sequence[int] = LANES, device: str = "cpu", seconds: float = 0.3) -> Pace:
    """Time steps and measurements of networks like those of `setting`, on random images, with one thread.

    Args:
        lanes: numbers of lanes, ascending.
        seconds: to spend on each, about; at least two steps, of which the fastest after the first counts.

    Raises:
        RunFailed: it does not fit into the memory.
    """
    step, look = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for count in lanes:
            one = _time(setting, count, device, seconds)
            step.append(one[0])
            look.append(one[1])
    except (RuntimeError, MemoryError) as e:
        raise RunFailed(f"timing {kind(setting)}: {' '.join(str(e).split())[:120]}") from None
    finally:
        torch.set_num_threads(threads)
    return Pace(tuple(lanes), tuple(step), tuple(look))


def _time(setting: TwoPhase, lanes: int, device: str, seconds: float) -> tuple[float, float]:
    run = _run(setting, lanes, device, 2 * setting.batch_size)
    run.begin(1)
    rates = [setting.lrs[0]] * lanes
    epoch = _fastest(lambda: run.epoch(1, "cross_entropy", 0, rates), device, seconds)
    images = max(setting.batch_size, LOOK if setting.architecture == "mlp" else LOOK // 8)  # a look has a fixed cost, too
    seen = _run(setting, lanes, device, images)
    return epoch / 2, _fastest(lambda: seen.record(1, rates), device, seconds) / images


def _run(setting: TwoPhase, lanes: int, device: str, images: int) -> Run:
    source = SOURCES[setting.dataset]
    size, classes = setting.image_size or source.shape[1], source.classes
    x = np.random.default_rng(0).standard_normal((images, source.shape[0] * size * size)).astype(np.float32)
    shape = (source.shape[0], size, size)
    data = DataSet(setting.dataset, x, np.arange(images) % classes, None, None, classes, shape, (0.0,), (1.0,), "")
    few = replace(setting, decays=setting.decays[:1], lr=setting.lrs[0], alphas=(1.0,), seeds=tuple(range(lanes)), subset=None)
    return Run(few, data, find_device(device), torch.float32)


def _fastest(work: Callable[[], Any], device: str, seconds: float) -> float:
    times: list[float] = []
    while len(times) < 2 or (sum(times) < seconds and len(times) < 100):
        synchronise(device)
        start = perf_counter()
        work()
        synchronise(device)
        times.append(perf_counter() - start)
    return min(times[1:])


def yardstick() -> float:
    """Seconds per step of `YARDSTICK` on this machine."""
    return time_kind(YARDSTICK, (2,), seconds=0.5).step[0]
