"""How the blocks of a state (H, W_1 .. W_M, b) lie in one flat vector per lane."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch


@dataclass(frozen=True)
class Layout:
    """Named blocks in the order they are packed; `shapes[name]` excludes the lane axis."""

    shapes: dict[str, tuple[int, ...]]

    @cached_property
    def sizes(self) -> list[int]:
        return [prod(s) for s in self.shapes.values()]

    @property
    def size(self) -> int:
        return sum(self.sizes)

    def pack(self, blocks: dict[str, torch.Tensor]) -> torch.Tensor:
        """Blocks (lanes, *shape) to one (lanes, size) tensor."""
        return torch.cat([blocks[name].flatten(1) for name in self.shapes], 1)

    def unpack(self, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views (lanes, *shape) into a (lanes, size) tensor."""
        parts = y.split(self.sizes, 1)
        return {name: part.view(-1, *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
