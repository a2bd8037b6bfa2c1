"""Checkpoints that survive a kill at any moment, and the record of a finished run.

A folder belongs to one run. A checkpoint is a payload `epoch-000120.pt`, written to a temporary file, synchronised and
renamed, and then a manifest `epoch-000120.json` with the hash of the payload, written the same way: what has no valid manifest
does not exist. The newest two are kept. A finished run leaves `record.nc` and `final.npz` with a manifest of its own,
`finished.json`, and its last checkpoint.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ncflow.errors import BadInput, require
from ncflow.trajectory import Trajectory

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not noticed there
    fcntl = None

#: Of what is in a payload; another one is not read.
VERSION = 1
_KEPT = 2


class DiskTrouble(OSError):
    """A checkpoint could not be written; those before it are intact."""


def identify(**what: Any) -> str:
    """Run id: SHA-256 of what determines a run, as canonical JSON."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


class Store:
    """The folder of one run, locked while this object is open (use as a context manager).

    Args:
        folder: made if it is missing.
        run: id of the run; `config` its configuration, from which a refusal says what differs.
        note: called with a line for each file that is passed over.

    Raises:
        BadInput: the folder holds another run, or checkpoints of another version, or another process uses it, or it cannot
            be written.
    """

    def __init__(self, folder: str | Path, run: str, config: Mapping[str, Any], note: Callable[[str], None]):
        self.folder, self.run, self.note = Path(folder).expanduser(), run, note
        self.config = json.loads(json.dumps(config))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("w")
        except OSError as e:
            raise BadInput("checkpoint", str(folder), f"a folder that can be written ({e.strerror})") from None
        if fcntl is not None:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._lock.close()
                raise BadInput("checkpoint", str(folder), "a folder that no other process is training in") from None
        try:
            for name in ("finished.json", *(path.name for path in self._manifests())):
                self._belongs(self._manifest(name))
        except BaseException:
            self._lock.close()
            raise
        for path in self.folder.glob("*.partial"):
            path.unlink()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.close()

    def save(self, epoch: int, state: Mapping[str, Any], **about: Any) -> None:
        """Keep `state` (tensors, numbers, strings, lists and dictionaries of them) as the checkpoint of `epoch`.

        Raises:
            DiskTrouble: it could not be written; nothing of it is left behind.
        """
        name = f"epoch-{epoch:06d}"
        buffer = io.BytesIO()
        torch.save({**state, "run": self.run, "epoch": epoch}, buffer)
        self._pair(name, {f"{name}.pt": bytes(buffer.getbuffer())}, epoch=epoch, **about)
        for path in self._manifests()[_KEPT:]:
            path.unlink()
            path.with_suffix(".pt").unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """The newest state that is intact; a line is noted for each one that is not."""
        for path in self._manifests():
            payload = path.with_suffix(".pt")
            why = self._damage(path.name)
            if not why:
                try:
                    state = torch.load(payload, map_location="cpu", weights_only=True)
                    why = "" if state.get("run") == self.run and path.stem == f"epoch-{state['epoch']:06d}" else "misplaced"
                except Exception as e:  # whatever torch makes of bytes that hash right but are not a checkpoint
                    why = f"not a checkpoint ({type(e).__name__})"
                if not why:
                    return state
            self.note(f"checkpoint {path.stem} in {self.folder} is refused: {why}")
        return None

    def finish(self, run: Trajectory) -> None:
        """Keep the record and the final weights.

        Raises:
            DiskTrouble: as `save`.
        """
        temporary = self.folder / "record.nc.partial"
        buffer = io.BytesIO()
        np.savez(buffer, **run.final)
        try:
            run.save(temporary)
            record = temporary.read_bytes()
            temporary.unlink()
        except OSError as e:
            temporary.unlink(missing_ok=True)
            raise self._trouble(e) from None
        self._pair("finished", {"record.nc": record, "final.npz": buffer.getvalue()})

    def finished(self) -> Trajectory | None:
        """The record of a run that has finished, None otherwise, or with a note if it is damaged."""
        if not (self.folder / "finished.json").exists():
            return None
        if why := self._damage("finished.json"):
            self.note(f"the record in {self.folder} is refused and made again: {why}")
            return None
        with np.load(self.folder / "final.npz") as file:
            final = {name: file[name] for name in file}
        return Trajectory(Trajectory.load(self.folder / "record.nc").data, final=final)

    def _manifests(self) -> list[Path]:
        """Of the checkpoints, newest first."""
        return sorted(self.folder.glob("epoch-*.json"), reverse=True)

    def _manifest(self, name: str) -> dict[str, Any]:
        """Content of a manifest; empty if there is none or it is not valid JSON."""
        try:
            held = json.loads((self.folder / name).read_text())
        except (OSError, ValueError):
            return {}
        return held if isinstance(held, dict) else {}

    def _belongs(self, manifest: Mapping[str, Any]) -> None:
        """Refuse a manifest of another version or run; one that cannot be read is passed over, and noted, later."""
        if not manifest:
            return
        version = manifest.get("version")
        accepted = f"checkpoints of version {VERSION}, not {version!r}; another folder starts anew"
        require(version == VERSION, "checkpoint", str(self.folder), accepted)
        if manifest.get("run") != self.run:
            there = manifest.get("config") or {}
            differs = [f"{k} {there.get(k)!r} there, {self.config.get(k)!r} here"
                       for k in {**self.config, **there} if there.get(k) != self.config.get(k)]  # fmt: skip
            why = "; ".join(differs[:3]) + (f" and {len(differs) - 3} more" if len(differs) > 3 else "")
            why = why or "other data, device or dtype"
            raise BadInput("checkpoint", str(self.folder), f"a folder of this run; it holds another ({why})")

    def _damage(self, name: str) -> str:
        """Why the files of a manifest cannot be used, empty if they can."""
        manifest = self._manifest(name)
        hashes = manifest.get("sha256")
        needed = {"record.nc", "final.npz"} if name == "finished.json" else {Path(name).stem + ".pt"}
        if not isinstance(hashes, dict) or set(hashes) != needed:
            return f"{name} cannot be read"
        for file, expected in hashes.items():
            try:
                found = hashlib.sha256((self.folder / file).read_bytes()).hexdigest()
            except OSError as e:
                return f"{file} cannot be read ({e.strerror})"
            if found != expected:
                return f"{file} is truncated or altered"
        return ""

    def _pair(self, name: str, files: Mapping[str, bytes], **about: Any) -> None:
        """Write `files`, then the manifest `name` with their hashes."""
        hashes = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
        manifest = {"version": VERSION, "run": self.run, "config": self.config, **about, "sha256": hashes}
        text = json.dumps(manifest, indent=1) + "\n"
        for file, content in (*files.items(), (f"{name}.json", text.encode())):
            self._write(file, content)

    def _write(self, name: str, content: bytes) -> None:
        temporary = self.folder / f"{name}.partial"
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.folder / name)
            self._sync()
        except OSError as e:
            temporary.unlink(missing_ok=True)
            raise self._trouble(e) from None

    def _sync(self) -> None:
        """Make a rename last."""
        if hasattr(os, "O_DIRECTORY"):
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _trouble(self, e: OSError) -> DiskTrouble:
        return DiskTrouble(e.errno, f"{self.folder} cannot be written ({e.strerror})")


def fingerprint(arrays: Iterator[tuple[str, np.ndarray]]) -> str:
    """SHA-256 over name, type, shape and bytes of arrays."""
    digest = hashlib.sha256()
    for name, a in arrays:
        digest.update(f"{name}{a.dtype.str}{a.shape}".encode())
        digest.update(np.ascontiguousarray(a).data)
    return digest.hexdigest()
