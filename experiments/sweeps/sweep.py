"""Do the jobs of a plan: one after another, in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.sweeps.plan import Job
from experiments.sweeps.work import work
from ncflow.errors import BadInput, RunFailed


@dataclass(frozen=True)
class Result:
    """What became of one job: `folder` of the finished run, or `error`, one line."""

    job: Job
    folder: Path | None
    error: str = ""


@dataclass(frozen=True)
class Told:
    """What an executor tells about job number `job`: a share done, a line, or that it ended (with a folder or an error)."""

    job: int
    share: float | None = None
    note: str = ""
    ended: bool = False
    folder: str = ""
    error: str = ""


#: Who does jobs: called with them, OUT and options of its own, it does them in this order, as far as there is room, and tells
#: what happens. Closing the iterator stops what is under way, which keeps its checkpoint.
Executor = Callable[..., Iterator[Told]]


def inline(jobs: Sequence[Job], out: Path, *, device: str, root: str | None, every: int) -> Iterator[Told]:
    """In this process, one after another."""
    for i, job in enumerate(jobs):
        lines: list[Told] = []
        yield Told(i, 0.0)
        try:
            folder = work(job.setting, out, device=device, root=root, every=every,
                          note=lambda line, i=i, lines=lines: lines.append(Told(i, note=line)))  # fmt: skip
            yield from lines
            yield Told(i, 1.0, ended=True, folder=str(folder))
        except (BadInput, RunFailed) as e:
            yield from lines
            yield Told(i, ended=True, error=str(e))


def sweep(jobs: Sequence[Job], out: Path, executor: Executor, *, cost: Callable[[Job], float] | None = None,
          progress: Callable[[str, float], None] | None = None, note: Callable[[str], None] | None = None,
          **how: Any) -> list[Result]:  # fmt: skip
    """Do every job; one that fails is reported and the others go on.

    Args:
        executor: `inline`, `processes.processes` or `cluster.ray_tasks`; `how` is handed to it.
        cost: expected seconds, to begin with the longest of what is under way, then with the longest of the rest.
        progress: called with "all" and the share of the expected seconds that is done, and with the names of jobs under way.
        note: called with lines for people.

    Returns:
        In the order of `jobs`.

    Raises:
        Stopped: Ctrl-C or SIGTERM; everything can be resumed.
    """
    weigh = cost or (lambda job: 1.0)
    weights = [max(1e-9, weigh(job)) for job in jobs]
    order = sorted(range(len(jobs)), key=lambda i: (jobs[i].resumes == 0, -weights[i]))
    results: dict[int, Result] = {}
    shares = dict.fromkeys(range(len(jobs)), 0.0)
    told = executor([jobs[i] for i in order], out, **how)
    try:
        for event in told:
            i = order[event.job]
            if event.note and note is not None:
                note(event.note)
            if event.share is not None:
                shares[i] = event.share
            if event.ended:
                results[i] = Result(jobs[i], Path(event.folder) if event.folder else None, event.error)
                shares[i] = 1.0
                if event.error and note is not None:
                    note(f"failed: {jobs[i].name}: {event.error}")
            if progress is not None:
                progress("all", sum(w * shares[k] for k, w in enumerate(weights)) / sum(weights))
    finally:
        told.close()  # type: ignore[attr-defined]
    return [results[i] for i in range(len(jobs))]
