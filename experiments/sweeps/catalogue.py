"""Which runs are there: finished, or stopped half-way, in folders that training wrote.

A run serves a condition when everything that decides its course is equal, whatever the device and the batch of lanes it was
trained in; where it was looked at more often than needed, or for longer, the record holds what is needed all the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

from experiments.sweeps.study import Study
from ncflow import Trajectory
from ncflow.errors import BadInput
from realnets import Lane, TwoPhase
from realnets.checkpoint import VERSION

#: Fields of `TwoPhase` that distinguish lanes of one batch.
LANES = ("decays", "lr", "alphas", "seeds")
#: Fields that say how a run is looked at, not what it does (a lane that stops at T_NC is another matter: `stop`).
LOOKS = ("measure_every", "layerwise", "threshold", "nc1", "diverged_after")
#: Of the third stage: a record with it holds one without.
STAGE = ("settle", "settle_epochs")


def key(setting: TwoPhase | Study | Mapping[str, Any]) -> str:
    """What two settings have in common whose runs are interchangeable, lane by lane."""
    return json.dumps(setting, sort_keys=True) if isinstance(setting, Mapping) else _key(setting)


@cache
def _key(setting: TwoPhase | Study) -> str:
    config = setting.config()
    if isinstance(setting, TwoPhase):
        config = {k: v for k, v in config.items() if k not in (*LANES, *LOOKS, *STAGE)}
    return json.dumps(config, sort_keys=True)


@dataclass(frozen=True)
class Held:
    """A run in a folder.

    Attributes:
        run: its id; `folder` where it is.
        setting: its protocol, or the configuration of a study.
        finished: whether there is a record; if not, `done` of `epochs` have been trained.
    """

    run: str
    folder: Path
    setting: TwoPhase | dict[str, Any]
    finished: bool
    done: int = 0
    epochs: int = 0

    @cached_property
    def lanes(self) -> frozenset[Lane]:
        return frozenset(self.setting.lanes if isinstance(self.setting, TwoPhase) else ())

    @cached_property
    def key(self) -> str:
        return key(self.setting)

    def serves(self, need: TwoPhase | Study) -> bool:
        """Whether its lanes are as good as those of `need`, where it has them."""
        if self.key != key(need):
            return False
        if not isinstance(self.setting, TwoPhase) or not isinstance(need, TwoPhase):
            return True
        here = self.setting
        if here.stop == "t_nc" and (here.nc1, here.threshold) != (need.nc1, need.threshold):
            return False
        stage = (here.settle or not need.settle) and (not need.settle or here.settle_epochs == need.settle_epochs)
        return stage and need.measure_every % here.measure_every == 0 and (here.layerwise or not need.layerwise)

    def record(self) -> Trajectory:
        """The record of a finished run.

        Raises:
            BadInput: it cannot be read.
        """
        return _load(self.folder / "record.nc")


@lru_cache(maxsize=64)
def _load(path: Path) -> Trajectory:
    return Trajectory.load(path)


@dataclass(frozen=True)
class Catalogue:
    """The runs below some folders.

    Attributes:
        held: in the order of their folders.
        notes: a line for each folder that could not be used.
    """

    held: tuple[Held, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def scan(cls, folders: Iterable[str | Path]) -> Catalogue:
        """Look below each of `folders`; one that is not there holds nothing."""
        held, notes = [], []
        for top in folders:
            for folder in _runs(Path(top).expanduser()):
                try:
                    held.append(_read(folder))
                except BadInput as e:
                    notes.append(str(e))
        return cls(tuple(held), tuple(notes))

    @property
    def finished(self) -> tuple[Held, ...]:
        return tuple(h for h in self.held if h.finished)

    @property
    def partial(self) -> tuple[Held, ...]:
        return tuple(h for h in self.held if not h.finished)

    def find(self, need: TwoPhase | Study, lane: Lane | None = None, *, finished: bool = True) -> Held | None:
        """A run that serves `need` and, of a training, has `lane`; the one looked at most often, then the first."""
        found = [h for h in self.held if h.finished == finished and (lane is None or lane in h.lanes) and h.serves(need)]
        return min(found, key=lambda h: h.setting.measure_every if isinstance(h.setting, TwoPhase) else 0, default=None)


def _runs(top: Path) -> Iterator[Path]:
    """Folders below `top` that training or a study wrote to."""
    if not top.is_dir():
        return
    found = {path.parent for name in ("finished.json", "epoch-*.json") for path in top.rglob(name)}
    yield from sorted(found)


def _read(folder: Path) -> Held:
    """The run in `folder`.

    Raises:
        BadInput: of another version, damaged, or of a setting that is not known; says which.
    """

    def refuse(why: str) -> BadInput:
        return BadInput("run", folder.name, why)

    end = folder / "finished.json"
    for path in [end] if end.exists() else sorted(folder.glob("epoch-*.json"), reverse=True):
        try:
            manifest = json.loads(path.read_text())
            version, run, config = manifest["version"], manifest["run"], manifest["config"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if version != VERSION:
            raise refuse(f"results of version {VERSION} are accepted, these are of version {version!r}")
        setting = _setting(config, refuse)
        if path != end:
            return Held(run, folder, setting, False, int(manifest.get("epoch", 0)), int(manifest.get("epochs", 0)))
        try:
            found = hashlib.sha256((folder / "record.nc").read_bytes()).hexdigest()
        except OSError as e:
            raise refuse(f"record.nc cannot be read ({e.strerror})") from None
        if found != manifest.get("sha256", {}).get("record.nc"):
            raise refuse("record.nc is truncated or altered; the run has to be made again")
        return Held(run, folder, setting, True)
    raise refuse("its manifest cannot be read; the run has to be made again")


def _setting(config: dict[str, Any], refuse: Any) -> TwoPhase | dict[str, Any]:
    if "kind" in config:
        return config
    known = {f.name for f in fields(TwoPhase)}
    if unknown := sorted(set(config) - known):
        raise refuse(f"results of this version are accepted, these have the unknown setting {unknown[0]}")
    try:
        fields_: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in config.items()}
        return TwoPhase(**fields_)
    except BadInput as e:
        raise refuse(f"a setting that this version knows is accepted ({e})") from None
