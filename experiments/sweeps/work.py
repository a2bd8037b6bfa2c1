"""One job, in the process that calls: train or simulate in the folder of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from experiments.sweeps.study import Study
from ncflow.errors import RunFailed
from realnets import Outcome, Stopped, TwoPhase, Watch, train
from realnets.checkpoint import DiskTrouble, Store, identify
from realnets.train import dataset, find_device, run_id


def work(
    setting: TwoPhase | Study,
    out: Path,
    *,
    device: str = "cpu",
    root: str | Path | None = None,
    progress: Callable[[float], None] | None = None,
    note: Callable[[str], None] | None = None,
    every: int = 10,
) -> Path:
    """Make the run of `setting` in its folder below `out`, or go on with it, or find it finished.

    Args:
        device: where networks train; studies run on the processor.
        progress: called with the fraction done.
        note: called with a line about damaged files and where a run goes on; default says nothing.
        every: epochs between checkpoints.

    Returns:
        The folder.

    Raises:
        BadInput: as `realnets.train`; also when another process works in the folder.
        RunFailed: a lane left the finite numbers, or the disk is full; what was kept stays.
        Stopped: Ctrl-C or SIGTERM.
    """
    tell, say = progress or (lambda share: None), note or (lambda line: None)
    if isinstance(setting, Study):
        folder = folder_of(setting, out)
        with Store(folder, identify(**setting.config()), setting.config(), say) as store:
            if store.finished() is None:
                try:
                    store.finish(setting.run(root=root, progress=tell))
                except DiskTrouble as e:
                    raise RunFailed(str(e.strerror)) from None
        return folder
    where, data = find_device(device), dataset(setting, root)
    folder = folder_of(setting, out, run_id(setting, data, device=where.type))

    def watch(at: Watch) -> None:
        tell(at.epoch / at.epochs)

    try:
        record = train(setting, device=where, data=data, checkpoint=folder, every=every, watch=watch, note=say)
    except Stopped as e:
        if e.code == 1:  # the disk, not a signal
            raise RunFailed(str(e)) from None
        raise
    bad = [lane for lane, out in zip(setting.lanes, record.data["outcome"].values, strict=True) if out == Outcome.NON_FINITE]
    if bad:
        lane = bad[0]
        what = f"decay {lane.decay:g}, lr {lane.lr:g}, alpha {lane.alpha:g}, seed {lane.seed}"
        raise RunFailed(f"{len(bad)} of {len(setting.lanes)} lanes left the finite numbers, the first with {what}")
    return folder


def folder_of(setting: TwoPhase | Study, out: Path, run: str | None = None) -> Path:
    """Folder below `out` of a run, as `ncflow train` names it; the id of a study follows from its fields."""
    if isinstance(setting, Study):
        return out / f"{setting.kind}-{identify(**setting.config())[:10]}"
    assert run is not None
    return out / f"train-{setting.dataset}-{setting.architecture}-{run[:10]}"
