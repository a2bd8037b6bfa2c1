"""A run in the state that it had after some epoch: trained up to there, or read from its newest checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ncflow.errors import BadInput, require
from realnets.checkpoint import VERSION
from realnets.data import DataSet
from realnets.protocol import TwoPhase
from realnets.run import Run
from realnets.train import dataset


class _Reached(Exception):
    """The epoch that was asked for."""


def train_to(protocol: TwoPhase, epoch: int | None = None, *, data: DataSet | None = None, root: str | Path | None = None,
             progress: Callable[[float], None] | None = None) -> Run:  # fmt: skip
    """A run of `protocol` up to `epoch` (default the end of phase 1), bit for bit as `train` has it on the way.

    Raises:
        BadInput: as `realnets.train`; an epoch outside the protocol.
    """
    end = protocol.epochs_ce if epoch is None else epoch
    require(0 < end <= protocol.epochs, "epoch", epoch, f"from 1 to {protocol.epochs}")
    run = Run(protocol, dataset(protocol, root) if data is None else data, torch.device("cpu"), torch.float32)

    def after() -> None:
        if progress is not None:
            progress(run.done / end)
        if run.done >= end:
            raise _Reached

    with suppress(_Reached):
        run.all(after)
    return run


def read(folder: str | Path, root: str | Path | None = None) -> Run:
    """The run in a folder at its newest intact checkpoint; nothing is written there.

    Raises:
        BadInput: no folder, no intact checkpoint, one of another version, or of a setting that is not known.
    """
    top = Path(folder).expanduser()
    require(top.is_dir(), "source", str(folder), "a folder that is there")
    for path in sorted(top.glob("epoch-*.json"), reverse=True):
        payload = path.with_suffix(".pt")
        try:
            about = json.loads(path.read_text())
            content = payload.read_bytes()
            if hashlib.sha256(content).hexdigest() != about["sha256"][payload.name]:
                continue
            version, config = about["version"], about["config"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        require(version == VERSION, "source", str(folder), f"checkpoints of version {VERSION}, not {version!r}")
        known = {f.name for f in fields(TwoPhase)}
        strange = sorted(set(config) - known)
        require(not strange, "source", str(folder), f"settings of this version, not {', '.join(strange)}")
        settings: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in config.items()}
        protocol = TwoPhase(**settings)
        run = Run(protocol, dataset(protocol, root), torch.device("cpu"), torch.float32)
        run.restore(torch.load(payload, map_location="cpu", weights_only=True))
        return run
    raise BadInput("source", str(folder), "a folder with an intact checkpoint, as ncflow train keeps them")
