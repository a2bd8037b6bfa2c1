"""What is measured of networks in training: losses, accuracies, metrics of neural collapse, layer norms."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ncflow import metrics
from realnets.mlp import LaneMLP

_BLOCK = 2**19  # activations of one layer and lane held at a time; a lane's blocks do not depend on its batch
_KEEP = 2**26  # features kept between the two passes of the metrics; more are computed twice

#: name -> attributes of every variable that a training record holds beside phase and learning rate.
VARIABLES: dict[str, dict[str, str]] = {
    name: {"units": unit, "long_name": meaning}
    for name, unit, meaning in (
        ("energy", "loss", "loss of the phase including decay terms: data term + (decay/2) |theta|^2"),
        ("cross_entropy", "nat", "mean cross-entropy on the training set"),
        ("mse", "1", "mean over N K of (logits - one-hot)^2 on the training set"),
        ("train_accuracy", "1", "share of training samples with the right argmax"),
        ("test_accuracy", "1", "share of test samples with the right argmax"),
        ("weight_norm", "weight", "Frobenius norm of W_1 .. W_M"),
        ("weight_norm_sq", "weight^2", "squared Frobenius norm of W_1 .. W_M"),
        ("bias_norm_sq", "weight^2", "squared norm of b_1 .. b_M"),
    )
} | {
    name: {"units": m.unit, "long_name": m.formula, "source": m.source} for name, m in metrics.METRICS.items()
}


def _blocks(net: LaneMLP, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(logits, features, labels) of a block of samples at a time."""
    rows = max(1, _BLOCK // max(outputs for outputs, _ in net.shapes))
    for xb, yb in zip(x.split(rows), y.split(rows), strict=True):
        yield *net.forward(xb), yb


@torch.no_grad()
def measure(net: LaneMLP, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Losses, accuracy and every metric of `ncflow.metrics` on (x (N, d), y (N,)), by name, (L,) float64.

    The forward pass has the network's precision; what follows the logits and the features is accumulated in
    float64.
    """
    classes, width = net.shapes[-1]
    right, entropy, squares = torch.zeros(3, net.lanes, dtype=torch.float64, device=x.device)
    kept: list[tuple[Tensor, Tensor]] = []

    def first() -> Iterator[tuple[Tensor, Tensor]]:
        for logits, features, labels in _blocks(net, x, y):
            z, truth = logits.double(), labels.expand(logits.shape[:-1]).unsqueeze(-1)
            right.add_((logits.argmax(-1) == labels).sum(-1))
            entropy.sub_(z.log_softmax(-1).gather(-1, truth).sum((-2, -1)))
            residual = z.scatter_add_(-1, truth, torch.full_like(truth, -1, dtype=z.dtype))
            squares.add_(residual.square_().sum((-2, -1)))
            if net.lanes * len(y) * width <= _KEEP:
                kept.append((features, labels))
            yield features, labels

    def again() -> Iterator[tuple[Tensor, Tensor]]:
        return iter(kept) if kept else ((features, labels) for _, features, labels in _blocks(net, x, y))

    passes = iter((first, again))
    found = metrics.compute_streamed(
        lambda: next(passes)(), classes, net.weights[-1], net.biases[-1] if net.biases else None
    )
    n = len(y)
    return {
        "cross_entropy": entropy / n,
        "mse": squares / (n * classes),
        "train_accuracy": right / n,
        **found,
    }


@torch.no_grad()
def accuracy(net: LaneMLP, x: Tensor, y: Tensor) -> Tensor:
    """(L,) float64: share of (x (N, d), y (N,)) that each lane classifies rightly."""
    right = torch.zeros(net.lanes, dtype=torch.float64, device=x.device)
    for logits, _, labels in _blocks(net, x, y):
        right += (logits.argmax(-1) == labels).sum(-1)
    return right / len(y)


def layer_norms(net: LaneMLP) -> dict[str, Tensor]:
    """(L, M) float64: `weight_norm`, `weight_norm_sq` and, of a network with biases, `bias_norm_sq`."""
    squares = torch.stack([W.double().square().sum((-2, -1)) for W in net.weights], -1)
    found = {"weight_norm": squares.sqrt(), "weight_norm_sq": squares}
    if net.biases:
        found["bias_norm_sq"] = torch.stack([b.double().square().sum(-1) for b in net.biases], -1)
    return found


@torch.no_grad()
def class_mean_gram(net: LaneMLP, x: Tensor, y: Tensor) -> Tensor:
    """(L, K, K) float64: inner products mu_c . mu_c' of the uncentred class means of the features."""
    parts = (
        metrics.Moments.of(features, labels, net.shapes[-1][0]) for _, features, labels in _blocks(net, x, y)
    )
    whole = next(parts)
    for part in parts:
        whole = whole.merge(part)
    return whole.means @ whole.means.mT
