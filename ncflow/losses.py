"""Data terms of the loss: value and gradient with respect to the logits.

All are sums over samples divided by N. Logits are (lanes, K, N), labels (N,); values are (lanes,), gradients (lanes, K, N).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

LOSSES = ("mse", "cross_entropy", "label_smoothing", "focal")


@dataclass(frozen=True, eq=False)
class Loss:
    """The data term called `name`.

    - mse: (c/N) |Z - Y|_F^2 with c = `scale`
    - cross_entropy: -(1/N) sum_i log p_i, p_i the softmax probability of the true class
    - label_smoothing: cross-entropy against (1 - a) e_y + a/K with a = `smoothing` (Szegedy et al. 2016)
    - focal: -(1/N) sum_i (1 - p_i)^gamma log p_i with gamma = `gamma` (Lin et al. 2017)
    """

    name: str
    targets: Tensor  # (K, N): one-hot, smoothed for label smoothing
    scale: float = 0.5
    gamma: float = 0.0

    @classmethod
    def of(cls, name: str, labels: Tensor, classes: int, *, scale: float = 0.5, smoothing: float = 0.0,
           gamma: float = 0.0) -> Loss:
        targets = one_hot(labels, classes).T.to(torch.float64)
        if name == "label_smoothing":
            targets = (1 - smoothing) * targets + smoothing / classes
        return cls(name, targets.contiguous(), scale, gamma)

    @property
    def samples(self) -> int:
        return self.targets.shape[1]

    def gradient(self, logits: Tensor) -> Tensor:
        """dL/dZ; the logits are overwritten."""
        if self.name == "mse":
            return logits.sub_(self.targets).mul_(2 * self.scale / self.samples)
        log_p = logits.log_softmax(1)
        error = log_p.exp() - self.targets
        if self.name == "focal":
            log_true = (log_p * self.targets).sum(1, keepdim=True)
            p, miss = log_true.exp(), -torch.expm1(log_true)
            # d(-(1-p)^g log p)/dz = [(1-p)^g - g p (1-p)^(g-1) log p] (softmax - e_y)
            ratio = (-log_true / miss.clamp(min=1e-300)).masked_fill(miss <= 0, 1.0)
            error = error * miss**self.gamma * (1 + self.gamma * p * ratio)
        return error.div_(self.samples)

    def value(self, logits: Tensor) -> Tensor:
        """(lanes,) the data term."""
        if self.name == "mse":
            return self.scale / self.samples * (logits - self.targets).square().sum((1, 2))
        log_p = logits.log_softmax(1)
        if self.name == "focal":
            log_true = (log_p * self.targets).sum(1)
            return -((-torch.expm1(log_true)) ** self.gamma * log_true).sum(1) / self.samples
        return -(log_p * self.targets).sum((1, 2)) / self.samples
