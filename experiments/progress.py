"""Progress on stderr, for people only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """A callable (part, fraction) that draws a bar per part on stderr; silent when stderr is not a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<12}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        parts: dict[str, Any] = {}

        def tell(part: str, share: float) -> None:
            if part not in parts:
                parts[part] = bars.add_task(part, total=1.0)
            bars.update(parts[part], completed=share)

        yield tell
