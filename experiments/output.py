"""Where results go: a folder that is checked before anything is computed, and JSON that is always valid."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from ncflow.errors import BadInput


def writable(out: str | Path) -> Path:
    """`out` as a folder that files can be written to; it is made if it is missing.

    Raises:
        BadInput: it cannot be made or written.
    """
    path = Path(out).expanduser()
    made = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as e:
        raise BadInput("out", str(out), f"a folder that can be written ({e.strerror})") from None
    finally:
        for folder in made:  # leave nothing behind until there is something to keep
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    return path


def clean(value: Any) -> Any:
    """`value` with every number that JSON cannot hold (NaN, infinities) as None."""
    if isinstance(value, dict):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(value: Any, path: Path) -> Path:
    """Write JSON to `path`, whole or not at all."""
    temporary = path.with_name(path.name + ".partial")
    try:
        temporary.write_text(json.dumps(clean(value), indent=1, allow_nan=False) + "\n")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
