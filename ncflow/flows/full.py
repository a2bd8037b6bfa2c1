"""The full flow: every feature of every sample, every weight, exactly as the loss says."""

from __future__ import annotations

import torch
from torch import Tensor

from ncflow import metrics
from ncflow.flows.flow import Flow, Observation, class_moments, float64, members, one_layer
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
        lanes = {"decay_W": float64(model.weight_decays, device)[lane], "decay_b": float64(model.bias_decays, device)[lane]}
        if isinstance(model, UFM):
            lanes["decay_H"] = float64(model.feature_decays, device)[lane]
            lanes["mobility"] = float64(model.mobilities, device)[lane]
            self.inputs = None
        else:
            self.inputs = float64(model.inputs, device)
        super().__init__(Layout(shapes), lanes, model.layers, torch.as_tensor(model.labels, device=device))
        self.scale = 2 * model.loss_scale / model.samples
        self.loss_scale = model.loss_scale if one_layer(model) else None
        self.targets = members(self.labels, model.classes)
        self.counts = self.targets.sum(1)

    def _parts(self, y: Tensor) -> tuple[dict[str, Tensor], list[Tensor], Tensor]:
        """Blocks, W_1..W_M, and what enters W_1: (lanes, p_0, N)."""
        blocks = self.layout.unpack(y)
        return blocks, self.weights(blocks), blocks["H"] if self.inputs is None else self.inputs.expand(len(y), -1, -1)

    def _error(self, blocks: dict[str, Tensor], A: Tensor, H: Tensor, scale: float) -> Tensor:
        """scale (Y - A H - b 1^T), (lanes, K, N); with the flow's own scale this is -dL/dlogits."""
        error = torch.baddbmm(self.targets, A, H, beta=scale, alpha=-scale)
        return error.sub_(blocks["b"][:, :, None], alpha=scale) if "b" in blocks else error

    def field(self, y: Tensor) -> Tensor:
        blocks, W, H = self._parts(y)
        above = products_above(W)
        error = self._error(blocks, above[0], H, self.scale)
        descent: dict[str, Tensor] = {}
        if "b" in blocks:
            descent["b"] = torch.addcmul(error.sum(2), self.lanes["decay_b"][:, None], blocks["b"], value=-1)
        decay = self.lanes["decay_W"][:, :, None, None].unbind(1)
        for i, g in enumerate(weight_gradients(W, above, torch.bmm(error, H.mT))):
            descent[f"W_{i + 1}"] = torch.addcmul(g, decay[i], W[i], value=-1)
        if self.inputs is None:
            dH = torch.bmm(above[0].mT, error).addcmul_(self.lanes["decay_H"][:, None, None], H, value=-1)
            descent["H"] = dH.mul_(self.lanes["mobility"][:, None, None])
        return self.layout.pack(descent)

    def moments(self, y: Tensor, detailed: bool = False) -> metrics.Moments:
        _, W, H = self._parts(y)
        features = torch.bmm(chain(W[:-1]), H) if self.layers > 1 else H
        return class_moments(features, self.targets, self.counts, detailed)

    def observe(self, y: Tensor) -> Observation:
        blocks, W, H = self._parts(y)
        energy = self.scale / 2 * self._error(blocks, products_above(W)[0], H, 1.0).square().sum((1, 2))
        for i, w in enumerate(W):
            energy = energy + self.lanes["decay_W"][:, i] / 2 * w.square().sum((1, 2))
        if self.inputs is None:
            energy = energy + self.lanes["decay_H"] / 2 * H.square().sum((1, 2))
        if "b" in blocks:
            energy = energy + self.lanes["decay_b"] / 2 * blocks["b"].square().sum(1)
        hidden = [H]
        for w in W[:-1]:
            hidden.append(torch.bmm(w, hidden[-1]))
        own = hidden if self.inputs is None or self.layers == 1 else hidden[1:]
        norms = torch.stack([h.norm(dim=1).mean(1) for h in own], 1)
        return Observation(hidden[-1].mT, W, blocks.get("b"), energy, norms)
