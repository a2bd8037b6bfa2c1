"""What is measured of networks in training: losses, accuracies, metrics of neural collapse, layer norms and ranks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ncflow import metrics
from realnets.network import Network, Statistics

_BLOCK = 2**19  # activations of one layer and lane held at a time (more on a GPU); a lane's blocks do not depend on its batch
_KEEP = 2**26  # features kept between the two passes of the metrics; more are computed twice

#: name -> attributes of every variable that a training record holds beside phase and learning rate.
VARIABLES: dict[str, dict[str, str]] = {
    name: {"units": unit, "long_name": meaning}
    for name, unit, meaning in (
        ("energy", "loss", "loss of the phase including decay terms: data term + (decay/2) |decayed parameters|^2"),
        ("cross_entropy", "nat", "mean cross-entropy on the training set"),
        ("mse", "1", "mean over N K of (logits - one-hot)^2 on the training set"),
        ("train_accuracy", "1", "share of training samples with the right argmax"),
        ("test_accuracy", "1", "share of test samples with the right argmax; of a test set larger than the training set at the "
         "ends of phases only, else NaN"),
        ("weight_norm", "weight", "Frobenius norm of the weight of each layer, W_1 .. W_M"),
        ("weight_norm_sq", "weight^2", "squared Frobenius norm of the weight of each layer"),
        ("bias_norm_sq", "weight^2", "squared norm of the bias of each layer"),
        ("effective_rank", "1", "exp of the entropy of s_i / sum s, singular values s of each weight (outputs x rest)"),
        ("balance", "1", "largest |residual| of the norm identities at rest, over the mean squared layer norm"),
        ("norm_product", "feature weight", "fn |W_head|_F"),
        ("nc1_hidden", "1", "Tr Sigma_W / Tr Sigma_B after each hidden layer"),
    )
} | {
    name: {"units": m.unit, "long_name": m.formula, "source": m.source} for name, m in metrics.METRICS.items()
}
VARIABLES |= {
    f"{name}_batch": {**about, "long_name": about["long_name"] + "; batch normalisation by the statistics of each batch"}
    for name, about in VARIABLES.items()
}


def _rows(net: Network, x: Tensor, width: int) -> int:
    """Samples in a block."""
    widest = getattr(net, "widest", max(width, x[0].numel()))
    return max(1, (_BLOCK if x.device.type == "cpu" else 32 * _BLOCK) // widest)


def _blocks(
    net: Network, x: Tensor, y: Tensor, statistics: Statistics = "running", rows: int | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(logits, features, labels) of a block of samples at a time."""
    rows = rows or _rows(net, x, net.head[0].shape[-1])
    for xb, yb in zip(x.split(rows), y.split(rows), strict=True):
        yield *net.forward(xb, statistics), yb


@torch.no_grad()
def measure(
    net: Network, x: Tensor, y: Tensor, statistics: Statistics = "running", rows: int | None = None
) -> dict[str, Tensor]:
    """Losses, accuracy and every metric of `ncflow.metrics` on (x (N, ...), y (N,)), by name, (L,) float64.

    The forward pass has the network's precision; what follows the logits and the features is accumulated in
    float64. With `statistics` "batch" the batches are blocks of `rows` samples in the order given.
    """
    W, b = net.head
    classes, width = W.shape[-2:]
    right, entropy, squares = torch.zeros(3, net.lanes, dtype=torch.float64, device=x.device)
    kept: list[tuple[Tensor, Tensor]] = []

    def first() -> Iterator[tuple[Tensor, Tensor]]:
        for logits, features, labels in _blocks(net, x, y, statistics, rows):
            z, truth = logits.double(), labels.expand(logits.shape[:-1]).unsqueeze(-1)
            right.add_((logits.argmax(-1) == labels).sum(-1))
            entropy.sub_(z.log_softmax(-1).gather(-1, truth).sum((-2, -1)))
            residual = z.scatter_add_(-1, truth, torch.full_like(truth, -1, dtype=z.dtype))
            squares.add_(residual.square_().sum((-2, -1)))
            if net.lanes * len(y) * width <= _KEEP:
                kept.append((features, labels))
            yield features, labels

    def again() -> Iterator[tuple[Tensor, Tensor]]:
        if kept:
            return iter(kept)
        return ((features, labels) for _, features, labels in _blocks(net, x, y, statistics, rows))

    passes = iter((first, again))
    found = metrics.compute_streamed(lambda: next(passes)(), classes, W, b)
    n = len(y)
    return {
        "cross_entropy": entropy / n,
        "mse": squares / (n * classes),
        "train_accuracy": right / n,
        **found,
    }


@torch.no_grad()
def accuracy(net: Network, x: Tensor, y: Tensor) -> Tensor:
    """(L,) float64: share of (x (N, ...), y (N,)) that each lane classifies rightly."""
    right = torch.zeros(net.lanes, dtype=torch.float64, device=x.device)
    for logits, _, labels in _blocks(net, x, y):
        right += (logits.argmax(-1) == labels).sum(-1)
    return right / len(y)


def layers(net: Network) -> dict[str, Tensor]:
    """(L, M) float64: `weight_norm`, `weight_norm_sq`, `effective_rank` and, of a network whose layers W_l all have a
    bias b_l, `bias_norm_sq`; (L,) `balance` of a network that knows such identities.

    The effective rank is that of Roy and Vetterli (2007).
    """
    named = net.named()
    weights = [named[name].double() for name in net.weight_layers]
    squares = torch.stack([W.square().flatten(1).sum(1) for W in weights], -1)
    found = {"weight_norm": squares.sqrt(), "weight_norm_sq": squares,
             "effective_rank": torch.stack([_effective_rank(W.flatten(2)) for W in weights], -1)}  # fmt: skip
    biases = [named.get("b" + name.removeprefix("W")) for name in net.weight_layers]
    if all(b is not None for b in biases):
        found["bias_norm_sq"] = torch.stack([b.double().square().sum(-1) for b in biases if b is not None], -1)
    if (balance := getattr(net, "balance", None)) is not None:
        found["balance"] = balance().abs().amax(-1)
    return found


def _effective_rank(W: Tensor) -> Tensor:
    """(L,) of W (L, outputs, inputs) in float64; NaN where W is not finite."""
    good = W.isfinite().all(-1).all(-1)
    W = torch.where(good[:, None, None], W, torch.zeros((), dtype=W.dtype, device=W.device))
    gram = W @ W.mT if W.shape[-2] <= W.shape[-1] else W.mT @ W
    s = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    share = s / s.sum(-1, keepdim=True)
    return torch.where(good, torch.special.entr(share).sum(-1).exp(), torch.nan)


@torch.no_grad()
def nc1_hidden(net: Network, x: Tensor, y: Tensor) -> Tensor:
    """(L, hidden layers) float64: Tr Sigma_W / Tr Sigma_B after each hidden layer."""
    classes, width = net.head[0].shape[-2:]
    moments: list[metrics.Moments] = []
    for xb, yb in zip(x.split(rows := _rows(net, x, width)), y.split(rows), strict=True):
        parts = [metrics.Moments.of(features, yb, classes) for features in net.hidden(xb)]
        moments = [a.merge(b) for a, b in zip(moments, parts, strict=True)] if moments else parts
    return torch.stack([metrics.from_moments(m, names=["nc1_trace_ratio"])["nc1_trace_ratio"] for m in moments], -1)


@torch.no_grad()
def class_mean_gram(net: Network, x: Tensor, y: Tensor) -> Tensor:
    """(L, K, K) float64: inner products mu_c . mu_c' of the uncentred class means of the features."""
    classes = net.head[0].shape[-2]
    parts = (metrics.Moments.of(features, labels, classes) for _, features, labels in _blocks(net, x, y))
    whole = next(parts)
    for part in parts:
        whole = whole.merge(part)
    return whole.means @ whole.means.mT
