"""The smallest models that carry batch normalisation and a residual stream."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ncflow import metrics
from ncflow.flows.flow import Flow, Observation, class_moments, float64, members
from ncflow.flows.layout import Layout
from ncflow.losses import Loss
from ncflow.model import UFM


class BatchNormFlow(Flow):
    """Features H = relu(sum_l (gamma_l * BN(Z_l) + beta_l)) of L blocks on one residual stream, under a linear head.

    BN standardises every coordinate over the N samples (biased variance, no epsilon). The pre-normalisation blocks Z_l (p x N)
    are free and scale-invariant: the loss does not see their size, so decay shrinks them and speeds them up but does not move the
    fixed point. gamma, beta and the head are decayed by `decay.weights`, Z by `decay.features`.
    """

    name = "full"
    smooth = False

    def __init__(self, model: UFM, lane: Tensor, device: torch.device):
        def tensor(values: np.ndarray) -> Tensor:
            return float64(values, device)[lane]

        lanes = {"decay_W": tensor(model.weight_decays)[:, 0], "decay_b": tensor(model.bias_decays),
                 "decay_Z": tensor(model.feature_decays), "mobility": tensor(model.mobilities)}
        labels = torch.as_tensor(model.labels, device=device)
        super().__init__(Layout(model.block_shapes), lanes, 1, labels)
        self.members = members(labels, model.classes)
        self.counts = self.members.sum(1)
        self.loss = Loss.of(model.loss, labels, model.classes, scale=model.loss_scale, smoothing=model.smoothing,
                            gamma=model.focal_gamma)

    def _forward(self, y: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor, Tensor]:
        """Blocks, BN(Z), 1/std, features and logits."""
        blocks = self.layout.unpack(y)
        centred = blocks["Z"] - blocks["Z"].mean(3, keepdim=True)
        scale = centred.square().mean(3, keepdim=True).rsqrt()
        normal = centred * scale
        stream = torch.einsum("lsp,lspn->lpn", blocks["gamma"], normal) + blocks["beta"].sum(1)[:, :, None]
        features = stream.clamp(min=0)
        logits = blocks["W_1"] @ features
        return blocks, normal, scale, features, logits.add_(blocks["b"][:, :, None]) if "b" in blocks else logits

    def field(self, y: Tensor) -> Tensor:
        blocks, normal, scale, features, logits = self._forward(y)
        decay = self.lanes["decay_W"][:, None, None]
        error = self.loss.gradient(logits)
        gradient: dict[str, Tensor] = {}
        if "b" in blocks:
            gradient["b"] = torch.addcmul(error.sum(2), self.lanes["decay_b"][:, None], blocks["b"])
        gradient["W_1"] = torch.addcmul(error @ features.mT, decay, blocks["W_1"])
        error = (blocks["W_1"].mT @ error).mul_(features > 0)
        gradient["gamma"] = torch.addcmul(torch.einsum("lpn,lspn->lsp", error, normal), decay, blocks["gamma"])
        gradient["beta"] = torch.addcmul(error.sum(2)[:, None], decay, blocks["beta"])
        g = blocks["gamma"][..., None] * error[:, None]
        g = g - g.mean(3, keepdim=True) - normal * (g * normal).mean(3, keepdim=True)
        dZ = (g * scale).addcmul_(self.lanes["decay_Z"][:, None, None, None], blocks["Z"])
        gradient["Z"] = dZ.mul_(self.lanes["mobility"][:, None, None, None])
        return self.layout.pack(gradient).neg_()

    def moments(self, y: Tensor, detailed: bool = False) -> metrics.Moments:
        return class_moments(self._forward(y)[3], self.members, self.counts, detailed)

    def observe(self, y: Tensor) -> Observation:
        blocks, _, _, features, logits = self._forward(y)
        decay = self.lanes["decay_W"]
        energy = self.loss.value(logits) + self.lanes["decay_Z"] / 2 * blocks["Z"].square().sum((1, 2, 3))
        for name in ("W_1", "gamma", "beta"):
            energy = energy + decay / 2 * blocks[name].square().flatten(1).sum(1)
        if "b" in blocks:
            energy = energy + self.lanes["decay_b"] / 2 * blocks["b"].square().sum(1)
        norms = features.norm(dim=1).mean(1)[:, None]
        return Observation(features.mT, [blocks["W_1"]], blocks.get("b"), energy, norms)
