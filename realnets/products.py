"""Batched matrix products by the faster of the two libraries that PyTorch carries.

PyTorch hands float32 products on a processor to MKL, which on AMD keeps to AVX2. oneDNN, there for convolutions, uses AVX-512:
200 against 95 GF/s on a core of an EPYC (Zen 5) at 128 x 512 x 512, in all three orders of training, rounding like MKL (4e-7
relative). Its start takes some 10 us, so small products stay where they are. Which library multiplies depends on shape, type and
machine alone, never on a measurement, and on the shapes of one lane: a lane gives the same bits in any batch.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

LEAST = 4e6  # floating-point operations of one lane's product from which oneDNN is worth its start


@cache
def onednn() -> bool:
    """Whether oneDNN is there and beats what PyTorch takes: a processor with AVX-512 that is not Intel's."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        with open("/proc/cpuinfo") as file:
            intel = "GenuineIntel" in file.read()
    except OSError:
        return False
    return not intel and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def affine(a: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    """a W^T + b: (L, B, o) of a (L, B, i), W (L, o, i) and b (L, 1, o) or None; not for autograd."""
    if not _large(a, W.shape[1]):
        return torch.bmm(a, W.mT) if b is None else torch.baddbmm(b, a, W.mT)
    return _lanes([_product(x, V, None if b is None else b[lane, 0]) for lane, (x, V) in enumerate(zip(a, W, strict=True))])


def product(a: Tensor, B: Tensor, out: Tensor | None = None) -> Tensor:
    """a B: (L, m, n) of a (L, m, k) and B (L, k, n), in any strides, into `out` if it is given; not for autograd."""
    if not _large(a, B.shape[2]):
        return torch.bmm(a, B) if out is None else torch.bmm(a, B, out=out)
    found = [_product(x, V.T) for x, V in zip(a, B, strict=True)]
    if out is None:
        return _lanes(found)
    for row, each in zip(out, found, strict=True):
        row.copy_(each)
    return out


def _large(a: Tensor, n: int) -> bool:
    good = a.device.type == "cpu" and a.dtype == torch.float32 and onednn()
    return good and 2 * a.shape[1] * a.shape[2] * n >= LEAST


def _product(x: Tensor, V: Tensor, b: Tensor | None = None) -> Tensor:
    """x V^T + b of matrices."""
    return torch.ops.mkldnn._linear_pointwise(x, V, b, "none", [], "")


def _lanes(found: list[Tensor]) -> Tensor:
    return found[0][None] if len(found) == 1 else torch.stack(found)
