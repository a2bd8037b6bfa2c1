"""Jobs as tasks of a Ray cluster (the extra `cluster`). OUT and the data have to be in folders that every node sees.

A task whose worker or node is lost is started again by Ray, on another one, and goes on from the checkpoint in the folder of its
run; the lock of that folder keeps two from training it at once, and what is finished is only read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.sweeps.plan import Job
from experiments.sweeps.sweep import Told
from experiments.sweeps.work import work
from ncflow.errors import BadInput, RunFailed

#: How often a task is started again whose worker was lost.
RETRIES = 5


def ray_tasks(jobs: Sequence[Job], out: Path, *, device: str, root: str | None, every: int, address: str | None = None,
              workers: int | None = None) -> Iterator[Told]:  # fmt: skip
    """Jobs on the cluster at `address` ("auto" finds one, None starts one on this machine with `workers` cores).

    Raises:
        BadInput: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise BadInput("executor", "ray", "processes; ray needs the extra: pip install 'ncflow[cluster]'") from None
    started = not ray.is_initialized()
    if started:
        local: dict[str, Any] = {} if address is not None else {"num_cpus": workers, "include_dashboard": False}
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, RuntimeError, ValueError, OSError) as e:
            raise BadInput("address", address, f"that of a running Ray cluster ({' '.join(str(e).split())[:100]})") from None
    task = ray.remote(num_cpus=1, num_gpus=float(device == "cuda"), max_retries=RETRIES)(_task)
    refs = {task.remote(job, str(out.resolve()), device, root, every): i for i, job in enumerate(jobs)}
    left = list(refs)
    try:
        while left:
            done, left = ray.wait(left)
            for ref in done:
                try:
                    folder, error, notes = ray.get(ref)
                except ray.exceptions.RayError as e:
                    folder, notes = "", []
                    error = f"{type(e).__name__}: its worker was lost more than {RETRIES} times; what it kept can be resumed"
                yield from (Told(refs[ref], note=line) for line in notes)
                yield Told(refs[ref], 1.0, ended=True, folder=folder, error=error)
    finally:
        for ref in left:
            ray.cancel(ref, force=False)  # as Ctrl-C: it keeps its checkpoint
        if started:
            ray.shutdown()


def _task(job: Job, out: str, device: str, root: str | None, every: int) -> tuple[str, str, list[str]]:
    """(folder, error, lines for people) of one job."""
    from realnets import Stopped

    notes: list[str] = []
    try:
        return str(work(job.setting, Path(out), device=device, root=root, every=every, note=notes.append)), "", notes
    except (BadInput, RunFailed, Stopped) as e:
        return "", str(e), notes
