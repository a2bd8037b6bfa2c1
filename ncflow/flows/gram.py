"""The Gram flow: a linear network on fixed data, exact and independent of the number of samples.

The squared loss of a linear network sees the data only through X X^T, Y X^T and the sums of X and Y. In the left singular
basis of X the first layer's gradient needs a product with a diagonal instead of with X, so one evaluation costs
O(K p d) for the data part, whatever N is.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from ncflow import metrics
from ncflow.flows.flow import Flow, Observation
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

        def tensor(values) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float64, device=device)

        lanes = {"decay": tensor(model.decays)[lane], "decay_b": tensor(model.bias_decays)[lane]}
        super().__init__(Layout(shapes), lanes, model.layers, torch.as_tensor(model.labels, device=device))
        self.classes, self.samples = K, N
        self.scale = 2 * model.loss_scale / N
        self.counts = tensor(np.asarray(model.class_counts, dtype=float))
        if isinstance(model.inputs, Isotropic):
            n, r, v2 = N / K, model.inputs.amplitude, model.inputs.noise
            means, gram = r * np.eye(K), np.full(K, n * (r**2 + v2))
            self.rotated = None
            self.basis = torch.eye(K, dtype=torch.float64, device=device)
            self.scatter_root = tensor(np.sqrt(n * v2) * np.eye(K))
        else:
            U, S, Vt = np.linalg.svd(model.inputs, full_matrices=True) if model.inputs.shape[0] <= N else (
                *np.linalg.svd(model.inputs, full_matrices=False)[:2], None)
            if Vt is None:
                # More coordinates than samples: complete the basis so that the rest of W_1 (which only decays) is kept.
                U = np.linalg.qr(np.hstack([U, np.eye(len(U))]))[0][:, : len(U)]
            gram = np.zeros(len(U))
            gram[: len(S)] = S**2
            X = U.T @ model.inputs
            bounds = np.concatenate([[0], np.cumsum(model.class_counts)])
            means = np.stack([X[:, a:b].mean(1) for a, b in zip(bounds[:-1], bounds[1:], strict=True)], 1)
            self.rotated = tensor(X)
            self.basis = tensor(U)
            residual = X - means[:, model.labels]
            self.scatter_root = tensor(np.linalg.qr(residual.T, mode="r").T if N > len(U) else residual)
        self.means = tensor(means)  # (d, K) class means of the inputs
        self.gram = tensor(gram)  # diagonal of X X^T
        self.cross = self.counts[:, None] * self.means.T  # Y X^T, (K, d)
        self.total = self.means @ self.counts  # X 1

    def pack_initial(self, blocks: dict[str, Tensor]) -> Tensor:
        """Pack a state given in the user's coordinates."""
        return self.layout.pack(blocks | {"W_1": blocks["W_1"] @ self.basis})

    def state(self, y: Tensor) -> dict[str, Tensor]:
        blocks = self.layout.unpack(y)
        return blocks | {"W_1": blocks["W_1"] @ self.basis.T}

    def _weights(self, blocks: dict[str, Tensor]) -> list[Tensor]:
        return [blocks[f"W_{i}"] for i in range(1, self.layers + 1)]

    def field(self, y: Tensor) -> Tensor:
        blocks = self.layout.unpack(y)
        W = self._weights(blocks)
        above = products_above(W)
        A = cast(Tensor, above[0])
        error = A * self.gram - self.cross
        gradient: dict[str, Tensor] = {}
        if "b" in blocks:
            b = blocks["b"]
            error = error + b[:, :, None] * self.total
            db = self.scale * (A @ self.total + b * self.samples - self.counts)
            gradient["b"] = torch.addcmul(db, self.lanes["decay_b"][:, None], b)
        decay = self.lanes["decay"][:, None, None]
        for i, g in enumerate(weight_gradients(W, above, error * self.scale), 1):
            gradient[f"W_{i}"] = torch.addcmul(g, decay, W[i - 1])
        return self.layout.pack(gradient).neg_()

    def moments(self, y: Tensor) -> metrics.Moments:
        blocks = self.layout.unpack(y)
        return self._moments(self._feature_map(self._weights(blocks)[:-1], len(y)))

    def _feature_map(self, W: list[Tensor], lanes: int) -> Tensor:
        """(lanes, p, d) map from the inputs to the features above the layers W."""
        return chain(W) if W else torch.eye(len(self.gram), dtype=torch.float64, device=self.gram.device).expand(
            lanes, -1, -1)

    def _moments(self, C: Tensor) -> metrics.Moments:
        """Moments of C x from those of x: the total within-class scatter is shared out by class sizes, |.| is a root mean square."""
        means = (C @ self.means).mT
        within = (C @ self.scatter_root).square().sum((1, 2))
        norm_sum = ((self.counts * means.square().sum(2)).sum(1) + within).mul(self.samples).sqrt()
        share = self.counts / self.samples
        return metrics.Moments(self.counts, means, within[:, None] * share, norm_sum)

    def observe(self, y: Tensor) -> Observation:
        blocks = self.layout.unpack(y)
        weights = self._weights(blocks)
        A = cast(Tensor, products_above(weights)[0])
        error = (A.square() * self.gram).sum((1, 2)) - 2 * (A * self.cross).sum((1, 2)) + self.samples
        if "b" in blocks:
            b = blocks["b"]
            error = error + 2 * (b * (A @ self.total)).sum(1) - 2 * b @ self.counts + self.samples * b.square().sum(1)
        energy = self.scale / 2 * error
        for W in weights:
            energy = energy + self.lanes["decay"] / 2 * W.square().sum((1, 2))
        if "b" in blocks:
            energy = energy + self.lanes["decay_b"] / 2 * blocks["b"].square().sum(1)
        norms, features, moments = [], None, None
        for count in range(min(1, self.layers - 1), self.layers):
            C = self._feature_map(weights[:count], len(y))
            if self.rotated is None:
                moments = self._moments(C)
                norms.append(moments.norm_sum / self.samples)
            else:
                features = (C @ self.rotated).mT
                norms.append(features.norm(dim=2).mean(1))
        weights = [self.state(y)["W_1"], *weights[1:]]
        return Observation(features, weights, blocks.get("b"), energy, torch.stack(norms, 1), moments)
