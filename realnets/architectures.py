"""Which architectures there are, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from realnets import mlp, residual_mlp, resnet
from realnets.network import Network

if TYPE_CHECKING:
    from realnets.protocol import TwoPhase

#: (protocol, shape (channels, height, width) of one image, classes, seeds, dtype, device) -> network, one lane per seed, that
#: takes images with their pixels in a row.
Build = Callable[["TwoPhase", tuple[int, int, int], int, Sequence[int], torch.dtype, torch.device], Network]

#: name -> how it is made. A new architecture is one line here.
ARCHITECTURES: MappingProxyType[str, Build] = MappingProxyType(
    {
        "mlp": mlp.build,
        "residual_mlp": residual_mlp.build,
        "resnet20": resnet.build,
    }
)
