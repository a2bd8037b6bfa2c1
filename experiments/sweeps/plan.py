"""From what experiments need to what is left to do: equal lanes once, finished ones never again, the rest in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import gcd

from experiments.sweeps.catalogue import Catalogue, key
from experiments.sweeps.study import Study
from realnets import Lane, TwoPhase


@dataclass(frozen=True)
class Job:
    """One run to make. `resumes` epochs of it are there already."""

    setting: TwoPhase | Study
    resumes: int = 0

    @property
    def lanes(self) -> int:
        return len(self.setting.lanes) if isinstance(self.setting, TwoPhase) else 1

    @property
    def name(self) -> str:
        s = self.setting
        if isinstance(s, Study):
            return getattr(s, "cost_kind", s.kind)
        images = f" {s.subset}" if s.subset else ""
        what = s.architecture if s.architecture == "resnet20" else f"{s.architecture} {s.depth}x{s.width} {s.activation}"
        return f"{s.dataset}{images} {what}, {self.lanes} lane{'s' * (self.lanes > 1)}"


@dataclass(frozen=True)
class Plan:
    """What is left to do.

    Attributes:
        jobs: disjoint; together with what is finished they hold every lane that is needed.
        needed, finished: numbers of lanes (a study counts as one).
    """

    jobs: tuple[Job, ...]
    needed: int
    finished: int


def plan(needs: Iterable[TwoPhase | Study], held: Catalogue, *, most: Callable[[TwoPhase], int] = lambda setting: 12) -> Plan:
    """What is left to do of `needs`.

    Runs that were stopped half-way go on as they were begun; other lanes that differ in decay, rate, intervention or seed
    alone are batched.

    Args:
        needs: settings, of which equal ones (lane by lane) are done once.
        held: what is there.
        most: setting -> lanes of one job.
    """
    wanted: dict[str, tuple[TwoPhase, dict[Lane, None]]] = {}
    studies: dict[str, Study] = {}
    needed = finished = 0
    for need in needs:
        if isinstance(need, Study):
            if key(need) not in studies:
                needed += 1
                there = held.find(need) is not None
                finished += there
                studies[key(need)] = need
            continue
        group = key(need) + (f" {need.nc1} {need.threshold}" if need.stop == "t_nc" else "")
        group += f" {need.settle_epochs}" if need.settle else ""
        template, lanes = wanted.get(group, (need, {}))
        lanes.update(dict.fromkeys(need.lanes))
        wanted[group] = _union(template, need), lanes
    jobs: list[Job] = []
    for template, lanes in wanted.values():
        left = [lane for lane in lanes if held.find(template, lane) is None]
        needed += len(lanes)
        finished += len(lanes) - len(left)
        for run in held.partial:
            if isinstance(run.setting, TwoPhase) and run.serves(template) and run.lanes <= set(left):
                jobs.append(Job(run.setting, run.done))
                left = [lane for lane in left if lane not in run.lanes]
        jobs += [Job(setting) for setting in _batches(template, left, most(template))]
    jobs += [Job(study) for study in studies.values() if held.find(study) is None]
    return Plan(tuple(jobs), needed, finished)


def _union(a: TwoPhase, b: TwoPhase) -> TwoPhase:
    """A setting whose record serves both."""
    return replace(a, measure_every=gcd(a.measure_every, b.measure_every), layerwise=a.layerwise or b.layerwise)


def _batches(template: TwoPhase, lanes: Iterable[Lane], most: int) -> list[TwoPhase]:
    """Settings with just `lanes`, in as few products of decays, rates, alphas and seeds as joining equal rows gives, each of
    at most `most` lanes (alphas, which share phase 1, stay together)."""
    rows = [[(lane.decay,), (lane.lr,), (lane.alpha,), (lane.seed,)] for lane in lanes]
    for axis in (2, 3, 0, 1):
        joined: dict[tuple, list] = {}
        for row in rows:
            rest = tuple(v for i, v in enumerate(row) if i != axis)
            if rest in joined:
                joined[rest][axis] = (*joined[rest][axis], *row[axis])
            else:
                joined[rest] = list(row)
        rows = list(joined.values())
    return [replace(template, decays=d, lr=r, alphas=a, seeds=s) for row in rows for d, r, a, s in _halved(row, most)]


def _halved(row: list[tuple], most: int) -> list[list[tuple]]:
    sizes = [len(v) for v in row]
    if sizes[0] * sizes[1] * sizes[2] * sizes[3] <= most:
        return [row]
    axis = max((3, 0, 1), key=lambda i: sizes[i])
    if sizes[axis] == 1:
        return [row]
    middle = sizes[axis] // 2
    parts = (row[axis][:middle], row[axis][middle:])
    return [each for part in parts for each in _halved([*row[:axis], part, *row[axis + 1 :]], most)]
