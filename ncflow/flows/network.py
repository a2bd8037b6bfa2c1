"""The full flow with activations between the weight layers: back-propagation over all samples of all lanes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ncflow import metrics
from ncflow.activations import find, scaled
from ncflow.flows.flow import Flow, Observation, class_moments, float64, members, one_layer
from ncflow.flows.layout import Layout
from ncflow.losses import Loss
from ncflow.model import UFM, DeepLinear


class NetworkFlow(Flow):
    """dx/dt = -dL/dx of a model whose hidden layers are A_l = phi_a(W_l A_{l-1}), the head being linear.

    A_0 is the free features H of a `UFM` (no activation acts on them) or the data of a `DeepLinear`, which then is an MLP under
    exact gradient flow. With non-negative features the flow is the projected one: an entry at 0 that the gradient pushes below
    stays there (`project` puts back what a step overshoots). A frozen classifier does not move. Cost per evaluation and lane
    O(N sum_l p_l p_{l-1}).
    """

    name = "full"

    def __init__(self, model: UFM | DeepLinear, lane: Tensor, device: torch.device):
        def tensor(values: np.ndarray) -> Tensor:
            return float64(values, device)[lane]

        lanes = {"decay_W": tensor(model.weight_decays), "decay_b": tensor(model.bias_decays),
                 "knob": tensor(model.activation_scales)}
        if isinstance(model, UFM):
            lanes |= {"decay_H": tensor(model.feature_decays), "mobility": tensor(model.mobilities)}
        labels = torch.as_tensor(model.labels, device=device)
        super().__init__(Layout(model.block_shapes), lanes, model.layers, labels)
        self.members = members(labels, model.classes)
        self.counts = self.members.sum(1)
        self.inputs = None if isinstance(model, UFM) else float64(model.inputs, device)
        self.classes, self.activation = model.classes, model.activation
        self.loss_scale = model.loss_scale if one_layer(model) else None
        self.frozen = isinstance(model, UFM) and model.classifier == "etf"
        self.smooth = find(model.activation).smooth and not (isinstance(model, UFM) and model.nonnegative)
        if self.frozen:
            lanes["decay_W"][:, -1] = 0.0
        self.nonnegative = isinstance(model, UFM) and model.nonnegative
        self.loss = Loss.of(model.loss, labels, model.classes, scale=model.loss_scale, smoothing=model.smoothing,
                            gamma=model.focal_gamma)

    def _forward(self, y: Tensor) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor], Tensor]:
        """Blocks, [A_0 .. A_{M-1}], [Z_1 .. Z_{M-1}] and logits."""
        blocks = self.layout.unpack(y)
        if self.nonnegative:
            blocks["H"] = blocks["H"].clamp(min=0)
        phi, _ = scaled(self.activation, self.lanes["knob"][:, None, None])
        outputs, before = [blocks["H"] if self.inputs is None else self.inputs.expand(len(y), -1, -1)], []
        for i in range(1, self.layers):
            before.append(blocks[f"W_{i}"] @ outputs[-1])
            outputs.append(phi(before[-1]))
        logits = blocks[f"W_{self.layers}"] @ outputs[-1]
        return blocks, outputs, before, logits.add_(blocks["b"][:, :, None]) if "b" in blocks else logits

    def field(self, y: Tensor) -> Tensor:
        blocks, outputs, before, logits = self._forward(y)
        _, slope = scaled(self.activation, self.lanes["knob"][:, None, None])
        error = self.loss.gradient(logits)
        gradient: dict[str, Tensor] = {}
        if "b" in blocks:
            gradient["b"] = torch.addcmul(error.sum(2), self.lanes["decay_b"][:, None], blocks["b"])
        for i in range(self.layers, 0, -1):
            W = blocks[f"W_{i}"]
            gradient[f"W_{i}"] = torch.addcmul(error @ outputs[i - 1].mT, self.lanes["decay_W"][:, i - 1, None, None], W)
            if i > 1:
                error = (W.mT @ error).mul_(slope(before[i - 2]))
        if self.frozen:
            gradient[f"W_{self.layers}"].zero_()
        if self.inputs is None:
            dH = (blocks["W_1"].mT @ error).addcmul_(self.lanes["decay_H"][:, None, None], blocks["H"])
            if self.nonnegative:
                dH.masked_fill_((blocks["H"] == 0) & (dH > 0), 0.0)
            gradient["H"] = dH.mul_(self.lanes["mobility"][:, None, None])
        return self.layout.pack(gradient).neg_()

    def project(self, y: Tensor) -> Tensor:
        if self.nonnegative:
            y = y.clone()
            self.layout.unpack(y)["H"].clamp_(min=0)
        return y

    def moments(self, y: Tensor, detailed: bool = False) -> metrics.Moments:
        return class_moments(self._forward(y)[1][-1], self.members, self.counts, detailed)

    def observe(self, y: Tensor) -> Observation:
        blocks, outputs, _, logits = self._forward(y)
        weights = [blocks[f"W_{i}"] for i in range(1, self.layers + 1)]
        energy = self.loss.value(logits)
        for i, W in enumerate(weights):
            energy = energy + self.lanes["decay_W"][:, i] / 2 * W.square().sum((1, 2))
        if self.inputs is None:
            energy = energy + self.lanes["decay_H"] / 2 * blocks["H"].square().sum((1, 2))
        if "b" in blocks:
            energy = energy + self.lanes["decay_b"] / 2 * blocks["b"].square().sum(1)
        own = outputs if self.inputs is None or self.layers == 1 else outputs[1:]
        norms = torch.stack([a.norm(dim=1).mean(1) for a in own], 1)
        return Observation(outputs[-1].mT, weights, blocks.get("b"), energy, norms)
