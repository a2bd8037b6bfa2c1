"""Initial states: drawn from a seed, or given by the user and checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncflow.errors import BadInput, require
from ncflow.model import UFM, DeepLinear


def draw(model: UFM | DeepLinear, seed: int) -> dict[str, Tensor]:
    """A random state, a function of the model's shape and the seed alone.

    Weights are semi-orthogonal (Saxe et al. 2014), the bias is zero. Free features are small, N(0, 0.01/p_0) so that |h_i| is
    about 0.1, under weights of singular value n^(1/(2M + 2)), n = N/K: that of the balanced fixed point as decay vanishes.

    For M >= 2 zero attracts, and so does every point of lower rank (THEORY, section 3). Large features bring it about: their
    within-class part shrinks the weights before the class means have grown. Measured over M = 1 .. 5, K = 4 and 10, n = 10
    and 100, decays 5e-4 and 5e-3, widths 64 and K, 20 seeds each: 1600 of 1600 runs reach full rank. In the 11 hardest of these
    settings (3 seeds each) |h_i| = 1 under orthonormal weights does in 6 of 33, |h_i| = 0.1 under orthonormal weights in
    24, this start in 33.

    On fixed data (`DeepLinear`, orthonormal weights) 720 of 720 runs with width 64 reach the fixed point of section 4.2, but
    323 of 720 with width K on K-dimensional inputs: square layers keep the sign of det(W_M .. W_1). Take wider layers there.
    """
    generator = torch.Generator().manual_seed(int(seed))
    state: dict[str, Tensor] = {}
    size = (model.samples / model.classes) ** (1 / (2 * model.layers + 2)) if "H" in model.block_shapes else 1.0
    for i, (rows, columns) in enumerate(model.weight_shapes, 1):
        tall = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
        Q, R = torch.linalg.qr(tall)
        Q = size * Q * R.diagonal().sign()
        state[f"W_{i}"] = Q if rows >= columns else Q.T
    for name, shape in model.block_shapes.items():
        if name in ("H", "Z"):
            state[name] = torch.randn(shape, generator=generator, dtype=torch.float64)
        elif name in ("gamma", "beta", "b"):
            state[name] = torch.full(shape, 1.0 if name == "gamma" else 0.0, dtype=torch.float64)
    if "H" in state:
        state["H"] = state["H"] * (0.1 / state["H"].shape[0] ** 0.5)
    if isinstance(model, UFM) and model.nonnegative:
        state["H"] = state["H"].abs()
    if isinstance(model, UFM) and model.classifier == "etf":
        K, head = model.classes, state[f"W_{model.layers}"]
        centre = torch.eye(K, dtype=torch.float64) - 1 / K
        if head.shape[1] < K:  # K - 1 orthonormal columns, turned into the plane of the simplex
            plane = torch.linalg.qr(centre[:, 1:])[0]
            head = plane @ torch.linalg.qr(plane.mT @ head)[0]
        else:
            head = centre @ (head / head.norm(dim=1, keepdim=True))  # of orthonormal rows
        state[f"W_{model.layers}"] = (K / (K - 1)) ** 0.5 * head
    return state


def given(model: UFM | DeepLinear, initial: dict[str, Any]) -> tuple[dict[str, Tensor], int]:
    """`initial` = {"H": (p, N), "W": [W_1 .. W_M], "b": (K,)}, each also with a leading lane axis, as blocks and lanes.

    A batch-normalised model has "Z" (L, p, N), "gamma" and "beta" (L, p) in place of "H"; data-tied models have neither.
    Moments may stand for "H", whatever N is: "M" (p, K), the class means, with the total within-class scatter E E^T as "scatter",
    a number s2 for s2 I (a sequence: one per lane) or a (p, p) matrix, or as "scatter_root", (p, r) with E E^T = root root^T.

    Raises:
        BadInput: a missing or unknown entry, a wrong shape, an entry that is not finite, a scatter that is not symmetric and
            positive semidefinite, or unequal lane counts.
    """
    shapes = model.block_shapes
    others = [name for name in shapes if not name.startswith("W_")]
    require(isinstance(initial, dict), "initial", type(initial).__name__, "a dict of arrays")
    if "H" in others and "M" in initial and "H" not in initial:
        shapes = shapes | {"M": (model.widths[0], model.classes)}
        others[others.index("H")] = "M"
        others.append("scatter_root" if "scatter_root" in initial else "scatter")
    expected = {"W", *others}
    require("b" in shapes or "b" not in initial, "initial['b']", "a bias", 'left out where the model has bias = "none"')
    require(set(initial) - {"b"} == expected - {"b"}, "initial", sorted(initial),
            f"entries {', '.join(sorted(expected))}" + (" (b may be left out and is then zero)" if "b" in shapes else ""))
    weights = initial["W"]
    require(isinstance(weights, list | tuple) and len(weights) == model.layers, "initial['W']", type(weights),
            f"a list of {model.layers} arrays, W_1 .. W_{model.layers}")
    entries: dict[str, Any] = {f"W_{i}": w for i, w in enumerate(weights, 1)}
    entries |= {name: initial[name] for name in others if name in initial}
    blocks, lanes = {}, 1
    for name, value in entries.items():
        shown = f"initial[{name!r}]" if name in others else f"initial['W'][{int(name[2:]) - 1}]"
        array = _array(shown, value)
        if name.startswith("scatter"):
            array = array if name == "scatter_root" else _root(shown, array, model.widths[0])
            name, shapes["root"] = "root", (model.widths[0], *array.shape[-1:])
        shape = shapes[name]
        require(array.ndim in (len(shape), len(shape) + 1) and tuple(array.shape[-len(shape):]) == shape, shown,
                f"array of shape {tuple(array.shape)}", f"shape {shape}, or (lanes, *{shape})")
        if array.ndim > len(shape):
            require(lanes in (1, len(array)), shown, f"{len(array)} lanes", f"the same number of lanes as the others, {lanes}")
            lanes = max(lanes, len(array))
        blocks[name] = array
    if isinstance(model, UFM) and model.nonnegative and "H" in blocks:
        require(bool((blocks["H"] >= 0).all()), "initial['H']", "an array with negative entries", "entries >= 0 (nonnegative)")
    if "b" in shapes and "b" not in blocks:
        blocks["b"] = torch.zeros(model.classes, dtype=torch.float64)
    full = {n: v.expand(lanes, *shapes[n]) if v.ndim == len(shapes[n]) else v.expand(lanes, *v.shape[1:])
            for n, v in blocks.items()}
    return full, lanes


def _array(shown: str, value: Any) -> Tensor:
    """`value`, called `shown` in messages, as a float64 tensor with finite entries."""
    try:
        array = value.detach().cpu() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value, float))
    except (TypeError, ValueError):
        raise BadInput(shown, type(value), "an array of numbers") from None
    require(bool(array.isfinite().all()), shown, "an array with NaN or infinite entries", "finite entries")
    return array.to(torch.float64)


def _root(shown: str, scatter: Tensor, p: int) -> Tensor:
    """R (..., p, p) with R R^T = scatter: of s2 I for numbers (...), of symmetric positive semidefinite (..., p, p)."""
    if scatter.ndim < 2:
        require(bool((scatter >= 0).all()), shown, scatter.tolist(), "not negative")
        return scatter.sqrt()[..., None, None] * torch.eye(p, dtype=torch.float64)
    require(tuple(scatter.shape[-2:]) == (p, p), shown, f"array of shape {tuple(scatter.shape)}",
            f"a number, shape {(p, p)}, or one of these per lane")
    size = scatter.abs().amax((-2, -1), keepdim=True)
    require(bool(((scatter - scatter.mT).abs() <= 1e-10 * size).all()), shown, "a matrix that is not symmetric",
            "a symmetric matrix E E^T")
    values, vectors = torch.linalg.eigh((scatter + scatter.mT) / 2)
    require(bool((values >= -1e-10 * size[..., 0]).all()), shown, f"a matrix with eigenvalue {float(values.min()):.3g}",
            "positive semidefinite")
    return vectors * values.clamp(min=0).sqrt()[..., None, :]
