"""Training under the two-phase protocol: every lane at once, one record, resumable."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch

from ncflow.errors import BadInput, require
from ncflow.provenance import provenance
from ncflow.threads import few_threads
from ncflow.trajectory import Trajectory
from realnets.checkpoint import DiskTrouble, Store, fingerprint, identify
from realnets.data import DataSet, load
from realnets.interrupts import Interrupts, Stopped
from realnets.protocol import TwoPhase
from realnets.run import Run

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Watch(NamedTuple):
    """Where a run stands after an epoch.

    Attributes:
        epoch, epochs: done, and in all (at most, with a settling stage).
        phase: the one under way; `nc1` and `fn` (lanes,) as last measured, the NC1 that the protocol names.
        eta: seconds left, at the pace of this call.
    """

    epoch: int
    epochs: int
    phase: int
    nc1: np.ndarray
    fn: np.ndarray
    eta: float


def train(
    protocol: TwoPhase,
    *,
    device: str | torch.device = "cpu",
    root: str | Path | None = None,
    dtype: str = "float32",
    progress: Callable[[float], None] | None = None,
    watch: Callable[[Watch], None] | None = None,
    data: DataSet | None = None,
    checkpoint: str | Path | None = None,
    every: int = 10,
    note: Callable[[str], None] | None = None,
) -> Trajectory:
    """Train every lane of `protocol` and record it.

    A lane's initialisation and mini-batches depend on its seed alone. The same protocol gives the same bits
    on the same machine, and on one processor thread a lane gives the same bits in any batch of lanes. A
    lane that leaves the finite numbers is NaN from then on, keeps the parameters of its last good epoch in
    `final`, and leaves the others alone.

    With `checkpoint`, a run that was killed at any moment goes on where it stood when it is called again, and ends with
    the same bits (on the same machine and number of threads) as if nothing had happened; a finished run is not trained again.

    Args:
        protocol: what, on what, and how.
        device: "cpu" or "cuda"; data and parameters stay there.
        root: data root, as in `realnets.data.load`.
        dtype: "float32" or "float64" (for checks); measurements are accumulated in float64 either way.
        progress: called after each epoch with the fraction of the epochs done.
        watch: called after each epoch with where the run stands.
        data: in place of the data set that the protocol names; the subset and scaling are then those of `data`.
        checkpoint: folder of this one run, made if it is missing; None keeps nothing.
        every: epochs between checkpoints.
        note: called with a line about each damaged file that was passed over, and where a run goes on; default prints it on
            stderr.

    Returns:
        A record with dims (lane, time[, layer]); time counts epochs from the start of the run, 0 is the
        initialisation. Per lane and time the losses, accuracies and metrics of `realnets.measure.VARIABLES` and
        `learning_rate`, that of the epoch that ended then; per layer norms and effective ranks; per time `phase` (1, 2, or 3
        for the settling stage; the end of a phase counts to it); per lane `status`, `outcome`, `t_nc` with phase, rate and
        fn there, and `class_mean_gram`. `final` holds the parameters and running statistics by name, and "class_mean_gram".

    Raises:
        BadInput: device or dtype not available; data missing or unfit; a batch larger than the data; a checkpoint folder of
            another run or version, or in use.
        Stopped: Ctrl-C, SIGTERM or a full disk while training with `checkpoint`; the run can go on.
    """
    require(isinstance(protocol, TwoPhase), "protocol", type(protocol), "a realnets.TwoPhase")
    require(isinstance(dtype, str) and dtype in DTYPES, "dtype", dtype, f"one of {', '.join(DTYPES)}")
    good = isinstance(every, int) and not isinstance(every, bool) and every >= 1
    require(good, "every", every, "a whole number of epochs, at least 1")
    where = find_device(device)
    data = dataset(protocol, root) if data is None else data
    run = Run(protocol, data, where, DTYPES[dtype])
    about = {"config": protocol.config(), "data": data.describe(), "device": where.type, "dtype": dtype}
    work = getattr(run.net, "work", None)
    with few_threads(work(protocol.batch_size) if work else math.inf):
        if checkpoint is None:
            run.all(_after(run, progress, watch))
            return run.finish(provenance(**about, seconds=run.seconds))
        tell = note or (lambda line: print(line, file=sys.stderr))
        with Store(checkpoint, run_id(protocol, data, device=where.type, dtype=dtype), protocol.config(), tell) as store:
            return _resumable(run, store, about, every, tell, progress, watch)


def dataset(protocol: TwoPhase, root: str | Path | None = None) -> DataSet:
    """The data that `protocol` names."""
    return load(protocol.dataset, protocol.subset, root, scaling=protocol.scaling, seed=protocol.data_seed,
                size=protocol.image_size)  # fmt: skip


def run_id(protocol: TwoPhase, data: DataSet, *, device: str = "cpu", dtype: str = "float32") -> str:
    """SHA-256 of the resolved configuration and the data, with the kind of device and the precision."""
    arrays = ((name, getattr(data, name)) for name in ("x_train", "y_train", "x_test", "y_test"))
    held = fingerprint((name, a) for name, a in arrays if a is not None)
    return identify(config=protocol.config(), data=held, device=device, dtype=dtype)


def _resumable(run: Run, store: Store, about: dict[str, Any], every: int, note: Callable[[str], None],
               progress: Callable[[float], None] | None, watch: Callable[[Watch], None] | None) -> Trajectory:  # fmt: skip
    """Train with checkpoints in `store`, from the newest that is intact."""
    if (done := store.finished()) is not None:
        return done
    resumed: list[int] = []
    if (state := store.load()) is not None:
        run.restore(state)
        resumed = [*state["resumed"], run.done]
        note(f"going on from epoch {run.done} of {run.epochs} in {store.folder}")
    kept = run.done

    def keep() -> None:
        nonlocal kept
        if kept != run.done:
            at = run.measured[-1]
            shown = {name: [v if math.isfinite(v) else None for v in at[name].tolist()] for name in (run.protocol.nc1, "fn")}
            store.save(run.done, {**run.state(), "resumed": resumed}, epochs=run.epochs, phase=run.phase, last=shown)
            kept = run.done

    report = _after(run, progress, watch)
    with Interrupts() as interrupts:

        def after() -> None:
            report()
            if run.done % every == 0 or interrupts.asked:
                keep()
            if interrupts.asked:
                raise Stopped(f"stopped at epoch {run.done} of {run.epochs}", 128 + interrupts.asked)

        try:
            run.all(after)
            keep()
            result = run.finish(provenance(**about, seconds=run.seconds, resumed=resumed))
            store.finish(result)
        except DiskTrouble as e:
            what = f"the checkpoint of epoch {kept} is kept" if kept else "nothing was kept yet"
            raise Stopped(f"stopped at epoch {run.done} of {run.epochs}: {e.strerror}; {what}", 1) from None
    return result


def _after(
    run: Run, progress: Callable[[float], None] | None, watch: Callable[[Watch], None] | None
) -> Callable[[], None]:
    """What tells the caller where `run` stands."""
    began: list[float] = []

    def after() -> None:
        if progress is not None:
            progress(run.done / run.epochs)
        if watch is not None:
            if not began:
                began.extend((perf_counter(), run.done))
            pace = (perf_counter() - began[0]) / (run.done - began[1]) if run.done > began[1] else math.nan
            last = run.measured[-1]
            watch(Watch(run.done, run.epochs, run.phase, last[run.protocol.nc1], last["fn"], pace * (run.epochs - run.done)))

    return after


def find_device(device: str | torch.device) -> torch.device:
    """`device` as torch's, checked to be there."""
    accepted = "cpu" + (", cuda" if torch.cuda.is_available() else "; this machine has no CUDA device")
    try:
        found = torch.device(device)
        require(found.type in ("cpu", "cuda"), "device", str(device), accepted)
        torch.empty(1, device=found)
    except BadInput:
        raise
    except Exception:  # torch's own errors differ by version and build
        raise BadInput("device", str(device), accepted) from None
    return found
