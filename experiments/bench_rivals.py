"""What training is compared with: stretches of the usual script, and products and convolutions alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments import usual_script as usual
from experiments.timing import synchronise
from realnets import products
from realnets.data import data_root


class Window:
    """`steps` batches of a loader, timed, after `skip` that are not."""

    def __init__(self, batches: Iterable, skip: int, steps: int, device: str):
        self.batches, self.skip, self.steps, self.device, self.seconds = batches, skip, steps, device, float("nan")

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.batches)
        skip = min(self.skip, len(self.batches) - self.steps)  # type: ignore[arg-type]
        for _ in range(skip):
            yield next(batches)
        synchronise(self.device)
        start = perf_counter()
        for _ in range(self.steps):
            yield next(batches)
        synchronise(self.device)
        self.seconds = perf_counter() - start


class Products:
    """The matrix products alone of MLPs of weight `shapes` (outputs, inputs) at one batch size, `lanes` of them side by side.

    By `torch.bmm` into memory that is there, or with `fast` as `realnets.products` has them.
    """

    def __init__(self, shapes: list[tuple[int, ...]], batch: int, device: str, lanes: int = 1, fast: bool = False):
        def new(*shape: int) -> Tensor:
            return torch.randn(lanes, *shape, device=device)

        self.shapes, self.fast = shapes, fast
        self.weights = [new(o, i) for o, i in shapes]
        self.inputs = [new(batch, i) for _, i in shapes]
        self.outputs = [new(batch, o) for o, _ in shapes]
        self.pulls = [torch.empty_like(W) for W in self.weights], [torch.empty_like(a) for a in self.inputs]

    def forward(self) -> None:
        for i, (W, a, z) in enumerate(zip(self.weights, self.inputs, self.outputs, strict=True)):
            self.outputs[i] = products.affine(a, W, None) if self.fast else torch.bmm(a, W.mT, out=z)

    def step(self) -> None:
        """Forward, and backward by weights and, above the first layer, by inputs."""
        self.forward()
        by_weights, by_inputs = self.pulls
        for i, (W, a, z) in enumerate(zip(self.weights, self.inputs, self.outputs, strict=True)):
            by_weights[i] = products.product(z.mT, a) if self.fast else torch.bmm(z.mT, a, out=by_weights[i])
            if i:
                by_inputs[i] = products.product(z, W) if self.fast else torch.bmm(z, W, out=by_inputs[i])


def convolutions(side: int, batch: int, device: str, last: bool) -> Callable[[], None]:
    """Every convolution of ResNet-20, forward and backward, alone."""
    model, seen = usual.resnet20().to(device), []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, inputs, output: seen.append((layer, inputs[0].shape[1:], output.shape[1:])))
    model(torch.zeros(2, 3, side, side, device=device))
    format = torch.channels_last if last else torch.contiguous_format

    def images(shape: torch.Size) -> Tensor:
        return torch.randn(batch, *shape, device=device).contiguous(memory_format=format)

    layers = [(layer, images(a).requires_grad_(i > 0), images(z)) for i, (layer, a, z) in enumerate(seen)]

    def step() -> None:
        for layer, a, pull in layers:
            wanted = [layer.weight, a] if a.requires_grad else [layer.weight]
            torch.autograd.grad(F.conv2d(a, layer.weight, None, layer.stride, layer.padding), wanted, pull)

    return step


@contextmanager
def idx_files(root: str | None) -> Iterator[str]:
    """A folder in which torchvision finds MNIST, written from the `.npz` under the data root."""
    with tempfile.TemporaryDirectory(prefix="ncflow-") as folder, np.load(data_root(root) / "mnist.npz") as arrays:
        raw = Path(folder) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for part, name in (("train", "train"), ("test", "t10k")):
            for key, kind in ((f"x_{part}", "images-idx3"), (f"y_{part}", "labels-idx1")):
                a = arrays[key].astype(np.uint8)
                a = a.reshape(len(a), 28, 28) if key[0] == "x" else a
                head = np.array([0x0800 + a.ndim, *a.shape], dtype=">i4").tobytes()
                (raw / f"{name}-{kind}-ubyte").write_bytes(head + a.tobytes())
        yield folder
