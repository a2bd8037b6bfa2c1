"""Brute force, written from the definition of the loss alone: nothing of `theory` is used here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from ncflow.model import UFM, DeepLinear

torch.set_num_threads(1)
Blocks = list[np.ndarray]


def ufm_loss(model: UFM, lane: int = 0) -> Callable[[Sequence[torch.Tensor]], torch.Tensor]:
    """L of blocks (H, W_1, ..., W_M[, b])."""
    Y = torch.eye(model.classes, dtype=torch.float64)[:, model.labels]
    lw, lh, lb = model.weight_decays[lane], model.feature_decays[lane], model.bias_decays[lane]

    def loss(blocks: Sequence[torch.Tensor]) -> torch.Tensor:
        z = blocks[0]
        for W in blocks[1 : model.layers + 1]:
            z = W @ z
        total = lh / 2 * (blocks[0] ** 2).sum()
        total = total + sum(d / 2 * (W**2).sum() for d, W in zip(lw, blocks[1:], strict=False))
        if model.bias != "none":
            z = z + blocks[-1][:, None]
            total = total + lb / 2 * (blocks[-1] ** 2).sum()
        return total + model.loss_scale / model.samples * ((z - Y) ** 2).sum()

    return loss


def deep_linear_loss(model: DeepLinear, lane: int = 0) -> Callable[[Sequence[torch.Tensor]], torch.Tensor]:
    """L of blocks (W_1, ..., W_M[, b])."""
    X = torch.tensor(np.array(model.inputs))
    Y = torch.eye(model.classes, dtype=torch.float64)[:, model.labels]
    lam, lb = model.decays[lane], model.bias_decays[lane]

    def loss(blocks: Sequence[torch.Tensor]) -> torch.Tensor:
        z = X
        for W in blocks[: model.layers]:
            z = W @ z
        total = sum(lam / 2 * (W**2).sum() for W in blocks[: model.layers])
        if model.bias != "none":
            z = z + blocks[-1][:, None]
            total = total + lb / 2 * (blocks[-1] ** 2).sum()
        return total + model.loss_scale / model.samples * ((z - Y) ** 2).sum()

    return loss


def _split(vector: torch.Tensor, shapes: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    sizes = [int(np.prod(s)) for s in shapes]
    return [v.reshape(s) for v, s in zip(torch.split(vector, sizes), shapes, strict=True)]


def descend(
    loss: Callable[..., torch.Tensor], start: Blocks, newton: int = 12, lbfgs: bool = True
) -> tuple[Blocks, float]:
    """L-BFGS, then Newton with a pseudo-inverse (the rotation orbit has zero curvature); blocks and
    |gradient| at the end."""
    shapes = [b.shape for b in start]

    def value(vector: torch.Tensor) -> torch.Tensor:
        return loss(_split(vector, shapes))

    def scipy_value(vector: np.ndarray) -> tuple[float, np.ndarray]:
        v = torch.tensor(vector, requires_grad=True)
        out = value(v)
        return float(out.detach()), torch.autograd.grad(out, v)[0].numpy()

    options = dict(maxiter=20000, maxfun=40000, ftol=0, gtol=1e-9, maxcor=40)
    point = np.concatenate([b.ravel() for b in start])
    if lbfgs:
        point = minimize(scipy_value, point, jac=True, method="L-BFGS-B", options=options).x
    gradient = scipy_value(point)[1]
    for _ in range(newton):
        if np.abs(gradient).max() < 1e-15:
            break
        hessian = torch.autograd.functional.hessian(value, torch.tensor(point), vectorize=True).numpy()
        trial = point - np.linalg.lstsq(hessian, gradient, rcond=1e-9)[0]
        after = scipy_value(trial)[1]
        if np.abs(after).max() >= np.abs(gradient).max():
            break
        point, gradient = trial, after
    return [b.numpy() for b in _split(torch.tensor(point), shapes)], float(np.abs(gradient).max())


def curvature(loss: Callable[..., torch.Tensor], blocks: Blocks) -> np.ndarray:
    """Ascending eigenvalues of the Hessian at `blocks`."""
    shapes = [b.shape for b in blocks]
    point = torch.tensor(np.concatenate([b.ravel() for b in blocks]))
    return np.linalg.eigvalsh(
        torch.autograd.functional.hessian(lambda v: loss(_split(v, shapes)), point, vectorize=True)
    )


def gradient(loss: Callable[..., torch.Tensor], blocks: Blocks) -> float:
    """Largest entry of the gradient at `blocks`."""
    tensors = [torch.tensor(b, requires_grad=True) for b in blocks]
    return max(float(g.abs().max()) for g in torch.autograd.grad(loss(tensors), tensors))


def aligned_start(model: Any, rng: np.random.Generator, centred: bool = False) -> Blocks:
    """Orthonormal weights, a little disturbed, and a first factor (features, or W_1 on data) that fits the
    targets.

    `centred`: the targets less their mean over samples, the rest being left to the bias.
    """
    def frame(rows: int, columns: int) -> np.ndarray:
        Q = np.linalg.qr(rng.standard_normal((max(rows, columns),) * 2))[0]
        return Q[:rows, :columns] + 0.02 * rng.standard_normal((rows, columns))

    W = [frame(*shape) for shape in model.weight_shapes]
    product = np.linalg.multi_dot([*W[::-1], np.eye(W[0].shape[1])])
    Y = np.eye(model.classes)[:, model.labels]
    Y = Y - Y.mean(axis=1, keepdims=True) if centred else Y
    if isinstance(model, DeepLinear):
        above = product if model.layers == 1 else np.linalg.multi_dot([*W[:0:-1], np.eye(W[1].shape[1])])
        W[0] = (
            Y @ np.linalg.pinv(model.inputs)
            if model.layers == 1
            else np.linalg.pinv(above) @ Y @ np.linalg.pinv(model.inputs)
        )
        blocks = W
    else:
        blocks = [np.linalg.pinv(product) @ Y, *W]
    start = np.asarray(model.class_counts) / model.samples if centred else np.zeros(model.classes)
    return [*blocks, start] if model.bias != "none" else blocks


def lowest(model: Any, rng: np.random.Generator) -> tuple[Blocks, float]:
    """The cheaper of the descents with and without the mean of the targets in the features (one if there is
    no bias)."""
    loss = (ufm_loss if isinstance(model, UFM) else deep_linear_loss)(model)
    starts = [
        aligned_start(model, rng, centred)
        for centred in ((False, True) if model.bias != "none" else (False,))
    ]
    ends = [descend(loss, start) for start in starts]
    return min(ends, key=lambda end: float(loss([torch.tensor(b) for b in end[0]])))


def measure(model: Any, blocks: Blocks) -> dict[str, Any]:
    """What `FixedPoint` reports, from the blocks."""
    biased = model.bias != "none"
    b = blocks[-1] if biased else np.zeros(model.classes)
    W = blocks[-1 - model.layers : -1] if biased else blocks[-model.layers :]
    H = blocks[0] if isinstance(model, UFM) else np.asarray(model.inputs)
    loss = (ufm_loss if isinstance(model, UFM) else deep_linear_loss)(model)
    layers = [H]
    for V in W[:-1]:
        layers.append(V @ layers[-1])
    if isinstance(model, DeepLinear) and model.layers > 1:
        layers = layers[1:]
    last = layers[-1]
    groups = [last[:, model.labels == k] for k in range(model.classes)]
    means = np.stack([h.mean(axis=1) for h in groups], axis=1)
    norms = np.linalg.norm(means, axis=0)
    pairs = np.triu_indices(model.classes, 1)
    within = sum(((h - h.mean(axis=1, keepdims=True)) ** 2).sum() for h in groups) / model.samples
    shift = means - last.mean(axis=1, keepdims=True)
    between = float((shift**2).sum()) / model.classes  # Sigma_B by classes, as nc1_trace_ratio
    return dict(
        feature_norm=np.linalg.norm(last, axis=0).mean(), weight_norms=[np.linalg.norm(V) for V in W],
        class_mean_norms=norms, layer_feature_norms=[np.linalg.norm(h, axis=0).mean() for h in layers],
        class_mean_cosine=np.mean((means.T @ means / np.outer(norms, norms))[pairs]), bias=b,
        loss=float(loss([torch.tensor(v) for v in blocks])), nc1_floor=within / between)


def errors(model: Any, blocks: Blocks, point: Any) -> dict[str, float]:
    """Largest difference between `point` and the blocks for each quantity, relative to the quantity or to 1
    where it can vanish."""
    found = measure(model, blocks)
    unit = {"class_mean_cosine": 1.0, "bias": 1.0, "nc1_floor": 1.0}
    return {
        name: float(
            np.max(np.abs(getattr(point, name) - np.asarray(value))) / unit.get(name, np.max(np.abs(value)))
        )
        for name, value in found.items()
    }


@pytest.fixture(scope="session")
def brute() -> SimpleNamespace:
    return SimpleNamespace(
        ufm_loss=ufm_loss,
        deep_linear_loss=deep_linear_loss,
        descend=descend,
        curvature=curvature,
        gradient=gradient,
        aligned_start=aligned_start,
        lowest=lowest,
        measure=measure,
        errors=errors,
    )
