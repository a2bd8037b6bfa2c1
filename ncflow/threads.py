"""How many threads a job is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def few_threads(work: float) -> Iterator[None]:
    """One thread inside if a product of `work` floating-point operations is too small to share (32e6).

    Handing out tens of microseconds of work gains little on a free machine, and where other processes compete
    for the cores every hand-over waits for a thread that is not running: measured 57 times slower. The
    caller's number is restored.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if work < 32e6 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
