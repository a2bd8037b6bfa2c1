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

    Features are N(0, 1/p_0), so that |h_i| is about 1; weights are semi-orthogonal (Saxe et al. 2014); the bias is zero.
    Layers of order one keep layered models away from zero, which attracts for M >= 2 (THEORY, section 3).
    """
    generator = torch.Generator().manual_seed(int(seed))
    state: dict[str, Tensor] = {}
    for i, (rows, columns) in enumerate(model.weight_shapes, 1):
        tall = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
        Q, R = torch.linalg.qr(tall)
        Q = Q * R.diagonal().sign()
        state[f"W_{i}"] = Q if rows >= columns else Q.T
    for name, shape in model.block_shapes.items():
        if name in ("H", "Z"):
            state[name] = torch.randn(shape, generator=generator, dtype=torch.float64)
        elif name in ("gamma", "beta", "b"):
            state[name] = torch.full(shape, 1.0 if name == "gamma" else 0.0, dtype=torch.float64)
    if "H" in state:
        state["H"] = state["H"] / state["H"].shape[0] ** 0.5
    if isinstance(model, UFM) and model.nonnegative:
        state["H"] = state["H"].abs()
    if isinstance(model, UFM) and model.classifier == "etf":
        K = model.classes
        centre = torch.eye(K, dtype=torch.float64) - 1 / K
        head = state[f"W_{model.layers}"]  # orthonormal rows
        state[f"W_{model.layers}"] = (K / (K - 1)) ** 0.5 * centre @ head
    return state


def given(model: UFM | DeepLinear, initial: dict[str, Any]) -> tuple[dict[str, Tensor], int]:
    """`initial` = {"H": (p, N), "W": [W_1 .. W_M], "b": (K,)}, each also with a leading lane axis, as blocks and lanes.

    A batch-normalised model has "Z" (L, p, N), "gamma" and "beta" (L, p) in place of "H"; data-tied models have neither.

    Raises:
        BadInput: a missing or unknown entry, a wrong shape, an entry that is not finite, or unequal lane counts.
    """
    shapes = model.block_shapes
    others = [name for name in shapes if not name.startswith("W_")]
    expected = {"W", *others}
    require(isinstance(initial, dict), "initial", type(initial).__name__, "a dict of arrays")
    require(set(initial) - {"b"} == expected - {"b"} and set(initial) <= expected, "initial", sorted(initial),
            f"entries {', '.join(sorted(expected))} (b may be left out and is then zero)")
    weights = initial["W"]
    require(isinstance(weights, list | tuple) and len(weights) == model.layers, "initial['W']", type(weights),
            f"a list of {model.layers} arrays, W_1 .. W_{model.layers}")
    entries: dict[str, Any] = {f"W_{i}": w for i, w in enumerate(weights, 1)}
    entries |= {name: initial[name] for name in others if name in initial}
    blocks, lanes = {}, 1
    for name, value in entries.items():
        shown = f"initial[{name!r}]" if name in others else f"initial['W'][{int(name[2:]) - 1}]"
        try:
            array = value.detach().cpu() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value, float))
        except (TypeError, ValueError):
            raise BadInput(shown, type(value), "an array of numbers") from None
        array = array.to(torch.float64)
        shape = shapes[name]
        require(array.ndim in (len(shape), len(shape) + 1) and tuple(array.shape[-len(shape):]) == shape, shown,
                f"array of shape {tuple(array.shape)}", f"shape {shape}, or (lanes, *{shape})")
        require(bool(array.isfinite().all()), shown, "an array with NaN or infinite entries", "finite entries")
        if array.ndim > len(shape):
            require(lanes in (1, len(array)), shown, f"{len(array)} lanes", f"the same number of lanes as the others, {lanes}")
            lanes = max(lanes, len(array))
        blocks[name] = array
    if isinstance(model, UFM) and model.nonnegative:
        require(bool((blocks["H"] >= 0).all()), "initial['H']", "an array with negative entries", "entries >= 0 (nonnegative)")
    if "b" in shapes and "b" not in blocks:
        blocks["b"] = torch.zeros(model.classes, dtype=torch.float64)
    full = {n: v.expand(lanes, *shapes[n]) if v.ndim == len(shapes[n]) else v.expand(lanes, *v.shape[1:])
            for n, v in blocks.items()}
    return full, lanes
