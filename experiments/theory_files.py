"""Tables and figures of the closed forms on disk, whole or not at all, without importing the training code."""

from __future__ import annotations

import io
import os
from pathlib import Path

from matplotlib.figure import Figure


def write(content: str | bytes, path: Path) -> Path:
    """Write `content` to `path`, whole or not at all."""
    temporary = path.with_name(path.name + ".partial")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def png(figure: Figure) -> bytes:
    """`figure` at 150 dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
