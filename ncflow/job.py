"""A job: lanes whose models, starts and controls are settled, from initial states to records, on one or several processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncflow import memory
from ncflow.descent import Descent, StepRecorder
from ncflow.errors import RunFailed
from ncflow.events import Crossing
from ncflow.flows import Flow, Horizon, plan
from ncflow.integrators import Batch, Control, integrate
from ncflow.model import UFM, DeepLinear
from ncflow.optimisers import Phase
from ncflow.record import build
from ncflow.recorder import Recorder
from ncflow.threads import few_threads
from ncflow.trajectory import Status, Trajectory

_GROUP = {"cpu": 2**16}  # numbers of the lanes that go together: what stays in cache between stages
_KEPT = {"cpu": 2**25}  # numbers of the states that wait to be measured
_SHARES = 4  # parts per process, so that none waits long for the last


@dataclass(frozen=True, eq=False)
class Job:
    """What `simulate` settled.

    `lane`, `row` and `seed` (lanes,) say of every lane which of the model's own lanes it is, which of the initial states `blocks`
    it starts from, and its seed; `number` (lanes,) where it stands among the `total` lanes of the run. `stops` maps times to
    the (block, alpha (lanes,)) applied there; `facts` are the provenance."""

    model: UFM | DeepLinear
    flow: str
    blocks: dict[str, Tensor]
    lane: np.ndarray
    row: np.ndarray
    seed: np.ndarray
    number: np.ndarray
    total: int
    times: np.ndarray
    stops: dict[float, list[tuple[str, np.ndarray]]]
    events: Sequence[Crossing]
    control: Control
    phases: Sequence[Phase]
    horizon: Horizon
    facts: dict[str, Any]
    device: torch.device

    def part(self, lanes: np.ndarray) -> Job:
        """The job of some of the lanes."""
        stops = {at: [(block, alpha[lanes]) for block, alpha in changes] for at, changes in self.stops.items()}
        own = {name: getattr(self, name)[lanes] for name in ("lane", "row", "seed", "number")}
        return replace(self, stops=stops, **own)

    def run(self, progress: Callable[[float], None] | None = None) -> tuple[list[Trajectory], np.ndarray]:
        """One record per flow that was used, and the numbers of their lanes, one record after the other."""
        _keep_memory()
        lane, start = (torch.as_tensor(x, device=self.device) for x in (self.lane, self.row))
        blocks = {name: value.to(self.device) for name, value in self.blocks.items()}
        # The largest product of a reduction is of the largest block with itself.
        block = max((value[0] for value in blocks.values()), key=Tensor.numel)
        with few_threads(2.0 * block.numel() * min(block.shape)):
            flows = plan(self.flow, self.model, lane, blocks, start, self.horizon)
        runs, order, done = [], [], 0
        for chosen, lanes in flows:
            own = lanes.cpu().numpy()
            here = self.part(own)
            tell = None if progress is None else partial(_tell, progress, done, len(own), len(lane))
            batch, recorders = here._follow(chosen, chosen.begin(blocks, start[lanes]), tell)
            runs.append(build(self.model, chosen, batch, recorders, here.lane, here.seed, self.facts | {"flow": chosen.name}))
            order.append(own)
            done += len(own)
        return runs, np.concatenate(order)

    def share(self, workers: int, progress: Callable[[float], None] | None = None) -> tuple[list[Trajectory], np.ndarray]:
        """As `run`, by that many processes of one thread each."""
        from concurrent.futures.process import BrokenProcessPool

        from joblib import Parallel, delayed

        parts = np.array_split(np.arange(len(self.lane)), min(_SHARES * workers, len(self.lane)))
        runs, order, done = [], [], 0
        pool = Parallel(n_jobs=workers, return_as="generator")
        try:
            done_parts: Any = pool(delayed(_run_part)(self.part(lanes)) for lanes in parts)
            for (own, numbers), lanes in zip(done_parts, parts, strict=True):
                runs += own
                order.append(lanes[numbers])
                done += len(lanes)
                if progress is not None:
                    progress(done / len(self.lane))
        except BrokenProcessPool:
            raise RunFailed(f"a process of {workers} workers was ended from outside, perhaps for lack of memory") from None
        return runs, np.concatenate(order)

    def _follow(self, flow: Flow, y: Tensor, progress: Callable[[float], None] | None) -> tuple[Batch, list[Recorder]]:
        """All lanes of one flow, from their states y to the end, by the steps of an optimiser if there are phases."""
        lane_of, stops = torch.as_tensor(self.lane, device=y.device), dict(self.stops)
        if len(self.phases):
            rates = torch.stack([p.optimiser.rates(self.total, y.device) for p in self.phases])[:, self.number]
        # Lanes are independent: they go in groups that stay in cache, and what is kept of them until it is measured
        # is bounded. Both follow from shapes alone, so that no lane's steps depend on its neighbours.
        room, kept = _GROUP.get(y.device.type, 2**22), _KEPT.get(y.device.type, 2**28)
        slots = max(1, kept // max(room, y.shape[1]))
        group = max(1, room // y.shape[1])
        needed = memory.estimate(len(y), y.shape[1], min(group, len(y)), len(self.times), min(slots, len(self.times)))
        memory.check(needed + 8 * len(y) * flow.numbers, y.device, self.total, len(self.times))  # and the states at the end
        for at in self.times[slots - 1 :: slots].tolist():
            stops.setdefault(at, [])
        batches, recorders = [], []
        for part in torch.arange(len(y), device=y.device).split(group):
            tell = None if progress is None else partial(_tell, progress, int(part[0]), len(part), len(y))
            batches.append(Batch.start(y[part]))
            kind = StepRecorder if len(self.phases) else Recorder
            recorders.append(kind(flow.select(part), batches[-1], self.times, self.events, slots, tell))
            if len(self.phases):
                advance = Descent(self.model, self.phases, lane_of[part], rates[:, part], recorders[-1]).advance
            else:
                advance = partial(integrate, recorders[-1].flow, batches[-1], control=self.control, watch=recorders[-1])
            # The largest product of an evaluation has K rows on the largest block.
            with torch.no_grad(), few_threads(2 * len(part) * self.model.classes * max(flow.layout.sizes)):
                _run(recorders[-1], part, sorted(stops.items()), advance)
        return Batch.join(batches), recorders


def _run_part(job: Job) -> tuple[list[Trajectory], np.ndarray]:
    """`Job.run` in a process of its own."""
    torch.set_num_threads(1)
    return job.run()


def _keep_memory() -> None:
    """Teach the C library, by freeing one large block, to reuse memory between stages instead of returning it every time
    (glibc's dynamic threshold; two to three times faster on states of megabytes)."""
    torch.empty(3 * 2**20, dtype=torch.float64)


def _run(recorder: Recorder, part: Tensor, stops: list[tuple[float, list]], advance: Callable[..., None]) -> None:
    """Go from stop to stop, and do there what is to be done."""
    batch = recorder.batch
    for at, changes in stops:
        advance(until=at)
        recorder.hold(at)
        if changes:
            batch.wake(batch.running | (batch.status == Status.AT_REST), at)
        for block, alpha in changes:
            _rescale(recorder.flow, batch, block, torch.as_tensor(alpha, device=part.device)[part])
        recorder.resume(at)
        recorder.flush(at)
    batch.status[batch.running] = Status.FINISHED


def _rescale(flow: Flow, batch: Batch, block: str, alpha: Tensor) -> None:
    for part in flow.scaled(flow.layout.unpack(batch.y), block):
        part *= torch.where(batch.running, alpha, 1.0).reshape(-1, *[1] * (part.ndim - 1))


def _tell(progress: Callable[[float], None], before: int, count: int, lanes: int, share: float) -> None:
    """The fraction of all lanes' times that is done when `share` of those of `count` lanes is, after `before` others."""
    progress((before + share * count) / lanes)
