"""What every flow is: a vector field over lanes, and a way to read features, weights and energy off its state."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ncflow import metrics
from ncflow.flows.layout import Layout
from ncflow.model import UFM, DeepLinear


@dataclass(frozen=True)
class Observation:
    """What can be measured of a state, lanes first.

    Attributes:
        features: (lanes, N, p) penultimate features, or None where only moments are known.
        weights: W_1..W_M, each (lanes, outputs, inputs).
        bias: (lanes, K) or None.
        energy: (lanes,) the loss L including the decay terms.
        layer_feature_norms: (lanes, layers) mean norms of H_1 .. penultimate.
        moments: `metrics.Moments` where the features are None.
    """

    features: Tensor | None
    weights: list[Tensor]
    bias: Tensor | None
    energy: Tensor
    layer_feature_norms: Tensor
    moments: metrics.Moments | None = None


class Flow(ABC):
    """A gradient flow dy/dt = field(y) of independent lanes; y is (lanes, size), float64, and time does not enter.

    Attributes:
        layout: the blocks of the state.
        lanes: tensors with a leading lane axis that parametrise the field (decays ...), by name.
        layers: M.
        labels: (N,) class of each sample.
        notes: what a record should say of the flow, by attribute name.
        loss_scale: c of a `UFM` of one layer under MSE, for which `nc2_gof_*` are defined; else None.
        unit: (size,) or a number, what each number of the state is worth in the user's units: tolerances count in these.
    """

    name = "flow"
    notes: Mapping[str, Any] = MappingProxyType({})
    loss_scale: float | None = None
    unit: Tensor | float = 1.0
    smooth = True  # whether the field is differentiable; one with kinks is integrated with fixed steps

    def __init__(self, layout: Layout, lanes: dict[str, Tensor], layers: int, labels: Tensor):
        self.layout, self.lanes, self.layers, self.labels = layout, lanes, layers, labels

    @abstractmethod
    def field(self, y: Tensor) -> Tensor:
        """dy/dt, (lanes, size)."""

    @abstractmethod
    def observe(self, y: Tensor) -> Observation:
        """Features, weights and energy of the states y."""

    @abstractmethod
    def moments(self, y: Tensor, detailed: bool = False) -> metrics.Moments:
        """Moments of the penultimate features: the cheap part of `observe`, for events.

        Class means and total within-class scatter are exact; the norms (`norm_sum`) and what each class has of the scatter
        only if `detailed`.
        """

    def project(self, y: Tensor) -> Tensor:
        """The feasible state nearest to y; the driver applies it after every step."""
        return y

    def decay(self, y: Tensor) -> Tensor:
        """The part of the gradient that comes from weight decay, lambda times each variable: (lanes, size)."""
        out = {}
        for name, part in self.layout.unpack(y).items():
            rate = self.lanes[f"decay_{name if name in ('H', 'Z', 'b') else 'W'}"]
            rate = rate[:, int(name[2:]) - 1] if rate.ndim == 2 else rate
            out[name] = rate.reshape(-1, *[1] * (part.ndim - 1)) * part
        return self.layout.pack(out)

    def start(self, blocks: dict[str, Tensor]) -> Tensor:
        """Pack a state given in the user's coordinates."""
        return self.layout.pack(blocks)

    def state(self, y: Tensor) -> dict[str, Tensor]:
        """The state in the user's coordinates: "H", "W_1" .. "W_M", "b" as far as the model has them."""
        return self.layout.unpack(y)

    def begin(self, blocks: dict[str, Tensor], row: Tensor) -> Tensor:
        """Packed initial states of the lanes, of which each starts from number `row` of the given states."""
        return self.start({name: value[row] for name, value in blocks.items()})

    @property
    def names(self) -> tuple[str, ...]:
        """What `state` consists of."""
        return tuple(self.layout.shapes)

    @property
    def numbers(self) -> int:
        """Numbers of one state once it is written out to be measured."""
        return self.layout.size

    def scaled(self, blocks: dict[str, Tensor], block: str) -> list[Tensor]:
        """What an intervention on "H" or "W_l" multiplies, as views into the unpacked `blocks`."""
        return [blocks[block]]

    def weights(self, blocks: dict[str, Tensor]) -> list[Tensor]:
        """W_1 .. W_M of unpacked blocks."""
        return [blocks[f"W_{i}"] for i in range(1, self.layers + 1)]

    def head(self, y: Tensor) -> Tensor:
        """(lanes, K, p) the classifier W_M."""
        blocks = self.layout.unpack(y) if self.layers > 1 else self.state(y)
        return blocks[f"W_{self.layers}"]

    def choices(self) -> dict[str, Any]:
        """What metrics need besides features and head: the decays, per lane, and the scale of the loss; or nothing."""
        if self.loss_scale is None:
            return {}
        decays = {"decay_weights": self.lanes["decay_W"][:, 0], "decay_features": self.lanes["decay_H"]}
        return {**decays, "loss_scale": self.loss_scale}

    def select(self, index: Tensor) -> Self:
        """The same flow of some of the lanes, in the order of `index`; a lane may occur more than once."""
        chosen = copy.copy(self)
        chosen.lanes = {name: value[index] for name, value in self.lanes.items()}
        return chosen


def one_layer(model: UFM | DeepLinear) -> bool:
    """Whether `nc2_gof_*` are defined: class means and head are all there is, free, and fitted by squares."""
    free = isinstance(model, UFM) and model.classifier == "free" and model.normalization == "none"
    return free and model.layers == 1 and model.loss == "mse"


def members(labels: Tensor, classes: int) -> Tensor:
    """(K, N) one where a sample is of a class, else zero."""
    return one_hot(labels, classes).T.to(torch.float64).contiguous()


def class_moments(features: Tensor, members: Tensor, counts: Tensor, detailed: bool) -> metrics.Moments:
    """Moments of features (lanes, p, N); nothing is read back from the device, unlike in `metrics.Moments.of`."""
    lanes = len(features)
    own = members.expand(lanes, -1, -1)
    means = torch.bmm(features, (own / counts[:, None]).mT)
    within = torch.bmm(torch.baddbmm(features, means, own, alpha=-1).square_().sum(1, keepdim=True), own.mT)
    total = features.norm(dim=1).sum(1) if detailed else features.new_full((lanes,), torch.nan)
    return metrics.Moments(counts, means.mT, within.squeeze(1), total)


def float64(values: Any, device: torch.device) -> Tensor:
    """A tensor of its own, whoever owns `values`."""
    return torch.tensor(np.asarray(values, dtype=np.float64), device=device)
