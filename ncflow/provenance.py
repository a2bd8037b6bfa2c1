"""Where a number came from: versions, git state, machine and command, as a JSON-ready dictionary."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def package_version() -> str:
    """Version of the installed ncflow, or "unknown" when it runs from a source tree that was not installed."""
    try:
        return version("ncflow")
    except PackageNotFoundError:
        return "unknown"


@lru_cache(maxsize=1)
def _git() -> dict[str, Any]:
    here = Path(__file__).resolve().parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return {"git_commit": commit, "git_dirty": None if commit is None else bool(git("status", "--porcelain"))}


def _gpu() -> list[str]:
    """Name of the GPU that torch would use, if there is one."""
    import torch

    return [torch.cuda.get_device_name()] if torch.cuda.is_available() else []


def _without_folders(word: str) -> str:
    """A word of the command line with the last part only of the path in it, if there is one."""
    option, equals, value = word.rpartition("=")
    return option + equals + re.split(r"[/\\]", value.rstrip("/\\"))[-1]


def provenance(**more: Any) -> dict[str, Any]:
    """Facts that a record carries: package versions, git commit, processor kind, threads, command, UTC time.

    Paths and host names are left out: a record is meant to be shared. `more` is merged in (configuration, seeds ...).
    """
    import numpy
    import torch

    return {
        "ncflow": package_version(),
        **_git(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "machine": ", ".join([f"{platform.system()} {platform.machine()}", f"{os.cpu_count()} cores", *_gpu()]),
        "threads": torch.get_num_threads(),
        "command": " ".join(_without_folders(word) for word in sys.argv),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    }
