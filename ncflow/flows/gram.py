"""The Gram flow: a linear network on fixed data, exact and independent of the number of samples.

The squared loss of a linear network sees the data only through X X^T, Y X^T and the sums of X and Y. In the left singular
basis of X the first layer's gradient needs a product with a diagonal instead of with X, so one evaluation costs
O(K p d) for the data part, whatever N is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ncflow import metrics
from ncflow.flows.flow import Flow, Observation, float64
from ncflow.flows.layout import Layout
from ncflow.flows.linear import chain, products_above, weight_gradients
from ncflow.model import DeepLinear, Isotropic


class GramFlow(Flow):
    """dW_l/dt = -dL/dW_l of a linear `DeepLinear`, with W_1 kept in the basis U of X = U S V^T.

    For `Isotropic` inputs the moments are all there is: features are known through class means and within-class scatter,
    and the norm that is reported is the root mean square over samples.
    """

    name = "gram"

    def __init__(self, model: DeepLinear, lane: Tensor, device: torch.device):
        K, N = model.classes, model.samples
        shapes: dict[str, tuple[int, ...]] = {f"W_{i}": s for i, s in enumerate(model.weight_shapes, 1)}
        if model.bias != "none":
            shapes["b"] = (K,)
        layout = Layout(shapes)
        decay = np.repeat(model.decays[:, None], layout.size, axis=1)  # of every number of the state
        if model.bias != "none":
            decay[:, -K:] = model.bias_decays[:, None]
        super().__init__(layout, {"decay": float64(decay, device)[lane]}, model.layers,
                         torch.as_tensor(model.labels, device=device))
        self.samples, self.scale = N, 2 * model.loss_scale / N
        counts = np.asarray(model.class_counts, dtype=float)
        if isinstance(model.inputs, Isotropic):
            n, r, v2 = N / K, model.inputs.amplitude, model.inputs.noise
            basis, means, gram = np.eye(K), r * np.eye(K), np.full(K, n * (r**2 + v2))
            scatter_root = np.sqrt(n * v2) * np.eye(K)
            self.rotated = None
        else:
            # U is square: where X has nothing W_1 only decays, but it is kept.
            gram, basis = np.linalg.eigh(model.inputs @ model.inputs.T)
            X = basis.T @ model.inputs
            means = np.stack([part.mean(1) for part in np.split(X, np.cumsum(model.class_counts)[:-1], axis=1)], 1)
            residual = X - means[:, model.labels]
            scatter_root = np.asarray(np.linalg.qr(residual.T, mode="r")).T if len(X) < N else residual
            self.rotated = float64(X, device)
        self.counts = float64(counts, device)
        self.basis = float64(basis, device)  # U
        self.means = float64(means, device)  # (d, K) class means of U^T X
        self.scatter_root = float64(scatter_root, device)  # (d, .) R with R R^T the total within-class scatter of U^T X
        self.gram = float64(np.maximum(gram, 0), device)  # diagonal of U^T X X^T U
        self.cross = float64(counts[:, None] * means.T, device)  # Y X^T U, (K, d)
        self.total = float64(means @ counts, device)  # U^T X 1

    def start(self, blocks: dict[str, Tensor]) -> Tensor:
        return self.layout.pack(blocks | {"W_1": blocks["W_1"] @ self.basis})

    def state(self, y: Tensor) -> dict[str, Tensor]:
        blocks = self.layout.unpack(y)
        return blocks | {"W_1": blocks["W_1"] @ self.basis.T}

    def field(self, y: Tensor) -> Tensor:
        blocks = self.layout.unpack(y)
        W = self.weights(blocks)
        above = products_above(W)
        error = torch.addcmul(self.cross, above[0], self.gram, value=-1)
        descent: dict[str, Tensor] = {}
        if "b" in blocks:
            b = blocks["b"]
            error.addcmul_(b[:, :, None], self.total, value=-1)
            db = self.counts - (above[0] * self.total).sum(2) - b * self.samples
            descent["b"] = self.scale * db
        for i, g in enumerate(weight_gradients(W, above, error.mul_(self.scale)), 1):
            descent[f"W_{i}"] = g
        return self.layout.pack(descent).addcmul_(self.lanes["decay"], y, value=-1)

    def decay(self, y: Tensor) -> Tensor:
        return self.lanes["decay"] * y

    def _feature_map(self, W: list[Tensor], lanes: int) -> Tensor:
        """(lanes, p, d) map from the rotated inputs to the features above the layers W."""
        return chain(W) if W else self.basis.expand(lanes, -1, -1)

    def moments(self, y: Tensor, detailed: bool = False) -> metrics.Moments:
        C = self._feature_map(self.weights(self.layout.unpack(y))[:-1], len(y))
        if detailed and self.rotated is not None:
            return metrics.Moments.of(torch.matmul(C, self.rotated).mT, self.labels, len(self.counts))
        return self._moments(C)

    def _moments(self, C: Tensor) -> metrics.Moments:
        """Moments of C x from those of x: within-class scatter shared out by class sizes, root mean square for the norms."""
        means = torch.matmul(C, self.means).mT
        within = torch.matmul(C, self.scatter_root).square().sum((1, 2))
        squares = (self.counts * means.square().sum(2)).sum(1) + within
        return metrics.Moments(self.counts, means, within[:, None] * (self.counts / self.samples),
                               (self.samples * squares).sqrt())

    def observe(self, y: Tensor) -> Observation:
        blocks = self.layout.unpack(y)
        weights = self.weights(blocks)
        A = products_above(weights)[0]
        error = (A.square() * self.gram).sum((1, 2)) - 2 * (A * self.cross).sum((1, 2)) + self.samples
        if "b" in blocks:
            b = blocks["b"]
            error = error + 2 * (b * (A @ self.total)).sum(1) - 2 * b @ self.counts + self.samples * b.square().sum(1)
        energy = self.scale / 2 * error + (self.lanes["decay"] * y.square()).sum(1) / 2
        norms, features, moments = [], None, None
        for count in range(min(1, self.layers - 1), self.layers):
            C = self._feature_map(weights[:count], len(y))
            if self.rotated is None:
                moments = self._moments(C)
                norms.append(moments.norm_sum / self.samples)
            else:
                features = torch.matmul(C, self.rotated).mT
                norms.append(features.norm(dim=2).mean(1))
        weights = [self.state(y)["W_1"], *weights[1:]]
        return Observation(features, weights, blocks.get("b"), energy, torch.stack(norms, 1), moments)
