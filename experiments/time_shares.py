"""Where the time of a piece of work goes: matrix products, and the kinds of the other operations."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from experiments.timing import seconds, synchronise

#: What may be in the time of one evaluation but is not a product: torch operations by kind.
KINDS = {"products": ("bmm", "baddbmm", "mm", "addmm"),
         "copies": ("cat", "copy_", "where", "index", "index_put_", "fill_", "clone", "masked_fill_"),
         "reductions": ("sum", "linalg_vector_norm", "all", "any", "amax", "max", "mean")}
OTHER = "elementwise and other kernels"


@dataclass(frozen=True)
class Shares:
    """Of one piece of work.

    Attributes:
        seconds: wall time.
        products: share of it that the same products take alone, back to back.
        kernels: share of the time inside kernels by kind, as profiled; they sum to one.
        inside: share of the wall time that is inside kernels, as profiled (with the profiler's own cost in both).
    """

    seconds: float
    products: float
    kernels: dict[str, float]
    inside: float

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {100 * x:.0f}%" for kind, x in sorted(self.kernels.items(), key=lambda x: -x[1]))
        return (f"The same products alone take {100 * self.products:.0f}% of the time of a batch of one process. As profiled, "
                f"{100 * self.inside:.0f}% of the time is in kernels ({kinds}); the rest is Python and dispatch.")


def shares(work: Callable[[], Any], device: str = "cpu") -> Shares:
    """Of `work`, on one thread of the processor or on the GPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = min(seconds(lambda: work() and None, device) for _ in range(2))
        kernels, inside = _profile(work, device)
        return Shares(whole, _products(work, device) / whole, kernels, inside)
    finally:
        torch.set_num_threads(threads)


def _products(work: Callable[[], Any], device: str) -> float:
    """Seconds of the products of `work` on arrays of the same shapes and strides, repeated without anything between them."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: dict[tuple, int] = defaultdict(int)

    class Listen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[override]
            name = func.overloadpacket.__name__
            if name in KINDS["products"]:
                seen[name, tuple((tuple(a.shape), a.stride()) for a in args if isinstance(a, torch.Tensor))] += 1
            return func(*args, **(kwargs or {}))

    with Listen():
        work()
    alone = 0.0
    for (name, arrays), count in seen.items():
        spans = [sum((n - 1) * s for n, s in zip(*x, strict=True)) + 1 for x in arrays]
        memory = [torch.rand(span, dtype=torch.float64, device=device) for span in spans]
        made = [each.as_strided(*x) for each, x in zip(memory, arrays, strict=True)]
        call, few = getattr(torch, name), min(count, 200)
        call(*made)
        alone += count / few * seconds(lambda: [call(*made) for _ in range(few)] and None, device)  # noqa: B023
    return alone


def _profile(work: Callable[[], Any], device: str) -> tuple[dict[str, float], float]:
    """Shares of the time in kernels by kind, and the share of the wall time that is in kernels."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler talks on stderr
    from torch.profiler import ProfilerActivity, profile

    gpu = torch.device(device).type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as seen:
        wall = seconds(lambda: work() and None, device)
        synchronise(device)
    spent: dict[str, float] = defaultdict(float)
    for event in seen.key_averages():
        if event.key.startswith("aten::"):
            name = event.key.removeprefix("aten::")
            kind = next((kind for kind, names in KINDS.items() if name in names), OTHER)
            spent[kind] += event.self_device_time_total if gpu else event.self_cpu_time_total
    total = sum(spent.values()) or float("nan")
    return {kind: value / total for kind, value in spent.items()}, 1e-6 * total / wall
