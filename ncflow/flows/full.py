"""The full flow: every feature of every sample, every weight, exactly as the loss says."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ncflow import metrics
from ncflow.flows.flow import Flow, Observation
from ncflow.flows.layout import Layout
from ncflow.flows.linear import chain, products_above, weight_gradients
from ncflow.model import UFM, DeepLinear


class FullFlow(Flow):
    """dx/dt = -dL/dx for x = (H, W_1..W_M, b) of a `UFM`, or (W_1..W_M, b) of a `DeepLinear` on its data.

    Cost per evaluation and lane O(K N p_0 + K sum_l p_l p_{l-1}).
    """

    name = "full"

    def __init__(self, model: UFM | DeepLinear, lane: Tensor, device: torch.device):
        """`lane` (lanes,) says which of the model's own lanes (decay, mobility) each lane of the batch is."""
        shapes: dict[str, tuple[int, ...]] = {}
        if isinstance(model, UFM):
            shapes["H"] = (model.widths[0], model.samples)
        shapes |= {f"W_{i}": s for i, s in enumerate(model.weight_shapes, 1)}
        if model.bias != "none":
            shapes["b"] = (model.classes,)

        def tensor(values) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float64, device=device)

        lanes = {"decay_W": tensor(model.weight_decays)[lane], "decay_b": tensor(model.bias_decays)[lane]}
        if isinstance(model, UFM):
            lanes |= {"decay_H": tensor(model.feature_decays)[lane], "mobility": tensor(model.mobilities)[lane]}
            self.inputs = None
        else:
            self.inputs = tensor(model.inputs)
        super().__init__(Layout(shapes), lanes, model.layers, torch.as_tensor(model.labels, device=device))
        self.classes, self.samples = model.classes, model.samples
        self.scale = 2 * model.loss_scale / model.samples
        self.targets = torch.nn.functional.one_hot(self.labels, model.classes).T.to(torch.float64).contiguous()

    def _parts(self, y: Tensor) -> tuple[dict[str, Tensor], list[Tensor], Tensor]:
        """Blocks, W_1..W_M, and what enters W_1: (lanes, p_0, N)."""
        blocks = self.layout.unpack(y)
        W = [blocks[f"W_{i}"] for i in range(1, self.layers + 1)]
        return blocks, W, blocks["H"] if self.inputs is None else self.inputs.expand(len(y), -1, -1)

    def _residual(self, blocks: dict[str, Tensor], A: Tensor, H: Tensor) -> Tensor:
        """W_M .. W_1 H + b 1^T - Y, (lanes, K, N)."""
        residual = torch.baddbmm(self.targets, A, H, beta=-1)
        return residual.add_(blocks["b"][:, :, None]) if "b" in blocks else residual

    def field(self, y: Tensor) -> Tensor:
        blocks, W, H = self._parts(y)
        above = products_above(W)
        A = cast(Tensor, above[0])
        error = self._residual(blocks, A, H).mul_(self.scale)
        gradient: dict[str, Tensor] = {}
        if "b" in blocks:
            gradient["b"] = torch.addcmul(error.sum(2), self.lanes["decay_b"][:, None], blocks["b"])
        for i, g in enumerate(weight_gradients(W, above, error @ H.mT), 1):
            gradient[f"W_{i}"] = torch.addcmul(g, self.lanes["decay_W"][:, i - 1, None, None], W[i - 1])
        if self.inputs is None:
            dH = (A.mT @ error).addcmul_(self.lanes["decay_H"][:, None, None], H)
            gradient["H"] = dH.mul_(self.lanes["mobility"][:, None, None])
        return self.layout.pack(gradient).neg_()

    def moments(self, y: Tensor) -> metrics.Moments:
        _, W, H = self._parts(y)
        features = chain(W[:-1]) @ H if self.layers > 1 else H
        return metrics.Moments.of(features.mT, self.labels, self.classes)

    def observe(self, y: Tensor) -> Observation:
        blocks, W, H = self._parts(y)
        A = cast(Tensor, products_above(W)[0])
        energy = self.scale / 2 * self._residual(blocks, A, H).square().sum((1, 2))
        for i, w in enumerate(W):
            energy = energy + self.lanes["decay_W"][:, i] / 2 * w.square().sum((1, 2))
        if self.inputs is None:
            energy = energy + self.lanes["decay_H"] / 2 * H.square().sum((1, 2))
        if "b" in blocks:
            energy = energy + self.lanes["decay_b"] / 2 * blocks["b"].square().sum(1)
        hidden = [H]
        for w in W[:-1]:
            hidden.append(w @ hidden[-1])
        own = hidden if self.inputs is None or self.layers == 1 else hidden[1:]
        norms = torch.stack([h.norm(dim=1).mean(1) for h in own], 1)
        return Observation(hidden[-1].mT, W, blocks.get("b"), energy, norms)
