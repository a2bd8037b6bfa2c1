"""Work of many small kernels as one launch: a CUDA graph of what goes on between two looks at a GPU.

A step of a reduced flow is some two hundred kernels of microseconds each, and Python takes longer to hand them out than the GPU
to run them. A graph hands them out together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

_EAGER = 24  # calls before it pays to record: a recording takes as long as some of them


class Replay:
    """`work`, which replaces some attributes of some objects by new tensors, recorded on a GPU once it has been called often.

    Args:
        work: takes and returns nothing; reads nothing back, and of the host only what does not change between calls.
        owners: objects with the names of those attributes, all tensors that share no memory.
        device: where they are; anywhere but on a GPU the work is just done.
    """

    def __init__(self, work: Callable[[], None], owners: Sequence[tuple[Any, Sequence[str]]], device: torch.device):
        self.work, self.owners = work, owners
        self.left = _EAGER if device.type == "cuda" else -1
        self.graph: torch.cuda.CUDAGraph | None = None
        self.buffers: list[Tensor] = []

    def __call__(self) -> None:
        if self.graph is None:
            self.left -= 1
            if self.left != 0:
                return self.work()
            if not self._record():
                return self.work()
        assert self.graph is not None
        for (owner, name), buffer in zip(self._names(), self.buffers, strict=True):
            value = getattr(owner, name)
            if value is not buffer:  # replaced since the last replay
                buffer.copy_(value)
                setattr(owner, name, buffer)
        self.graph.replay()

    def _names(self) -> Iterator[tuple[Any, str]]:
        return ((owner, name) for owner, names in self.owners for name in names)

    def _record(self) -> bool:
        """Whether it worked; nothing is computed, and every attribute keeps its value either way."""
        self.buffers = [getattr(owner, name).clone() for owner, name in self._names()]
        graph, stream, here = torch.cuda.CUDAGraph(), torch.cuda.Stream(), torch.cuda.current_stream()
        self._point()
        stream.wait_stream(here)
        try:
            with torch.cuda.stream(stream):
                graph.capture_begin()
                try:
                    self.work()
                    for (owner, name), buffer in zip(self._names(), self.buffers, strict=True):
                        value = getattr(owner, name)
                        if value is not buffer:
                            buffer.copy_(value)
                finally:
                    graph.capture_end()
        except RuntimeError:  # something in it cannot be recorded: it is done call by call
            return False
        finally:
            here.wait_stream(stream)
            self._point()
        self.graph = graph
        return True

    def _point(self) -> None:
        for (owner, name), buffer in zip(self._names(), self.buffers, strict=True):
            setattr(owner, name, buffer)
