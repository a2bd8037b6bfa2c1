"""A training step as one launch: what a GPU is asked for again and again, recorded once.

A step of a small network is some sixty kernels of microseconds each, so that Python's handing them out takes longer than the
GPU's work. A CUDA graph hands them out together. Nothing is recorded on a processor.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Replay:
    """`step`, recorded at its second call and replayed from then on.

    The first call runs as it is, since optimisers make their state in it; so does one with another number of rows, the last
    batch of an epoch.

    Args:
        step: takes the rows (B,) of a batch, on the GPU, and changes tensors that stay where they are. What it reads from the
            host (numbers, lists) is that of the recording.
    """

    def __init__(self, step: Callable[[Tensor], None]):
        self.step = step
        self.rows: Tensor | None = None
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, rows: Tensor) -> None:
        if self.rows is None:
            self.rows = rows.clone()
            self.step(self.rows)
        elif rows.shape != self.rows.shape:
            self.step(rows)
        else:
            self.rows.copy_(rows)
            if self.graph is None:
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph):
                    self.step(self.rows)
            self.graph.replay()
