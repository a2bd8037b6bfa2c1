"""Jobs in processes of this machine, one thread and one run each; a process that dies takes no other with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from experiments.sweeps.plan import Job
from experiments.sweeps.sweep import Told

#: Seconds that a process has to keep its checkpoint when it is asked to stop.
GRACE = 60.0


def processes(jobs: Sequence[Job], out: Path, *, device: str, root: str | None, every: int, workers: int) -> Iterator[Told]:
    """Up to `workers` jobs at a time, each in a process of its own; on "cuda" in turn on the GPUs that are there."""
    context: Any = multiprocessing.get_context(
        "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    )
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["experiments.sweeps.work"])
    devices = _devices(device)
    waiting = list(range(len(jobs)))[::-1]
    busy: dict[Any, tuple[int, Any, int]] = {}  # connection -> (job, process, slot)
    free = list(range(workers))[::-1]
    try:
        while waiting or busy:
            while waiting and free:
                i, slot = waiting.pop(), free.pop()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=_child, args=(theirs, i, jobs[i], out, devices[slot % len(devices)], root, every)
                )
                process.start()
                theirs.close()
                busy[ours] = (i, process, slot)
                yield Told(i, 0.0)
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                i, process, slot = busy[ready]
                try:
                    told = ready.recv()
                except (EOFError, OSError):  # it died without a word
                    process.join()
                    told = Told(i, ended=True, error=_death(process.exitcode))
                if told.ended:
                    del busy[ready]
                    ready.close()
                    process.join()
                    free.append(slot)
                yield told
    finally:
        for _, process, _ in busy.values():
            process.terminate()
        for ready, (_, process, _) in busy.items():
            process.join(GRACE)
            if process.is_alive():
                process.kill()
                process.join()
            ready.close()


def _devices(device: str) -> list[str]:
    if device != "cuda":
        return [device]
    import torch

    return [f"cuda:{i}" for i in range(max(1, torch.cuda.device_count()))]


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"the process was ended by {signal.Signals(-code).name}; what it kept can be resumed"
    return f"the process ended with code {code}; what it kept can be resumed"


def _child(pipe: Connection, i: int, job: Job, out: Path, device: str, root: str | None, every: int) -> None:
    """What a process does: one job, telling how it goes."""
    import torch

    from experiments.sweeps.work import work
    from ncflow.errors import BadInput, RunFailed
    from realnets import Stopped

    torch.set_num_threads(1)
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in the terminal reaches the parent alone, which asks us to stop, once
    parent = os.getppid()

    def tell(**what: Any) -> None:
        with suppress(OSError):  # nobody listens any more: finish the epoch, `share` sees to the rest
            pipe.send(Told(i, **what))

    def share(done: float) -> None:
        if os.getppid() != parent:  # an orphan stops, with its checkpoint
            os.kill(os.getpid(), signal.SIGTERM)
        tell(share=done)

    try:
        folder = work(job.setting, out, device=device, root=root, every=every, progress=share, note=lambda line: tell(note=line))
        tell(share=1.0, ended=True, folder=str(folder))
    except (BadInput, RunFailed) as e:
        tell(ended=True, error=str(e))
    except Stopped as e:
        tell(ended=True, error=f"{e}; it can be resumed")
    except Exception as e:  # a fault of ours in one run must not end the others; its name is told
        tell(ended=True, error=f"{type(e).__name__}: {' '.join(str(e).split())[:200]}")
