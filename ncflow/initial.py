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
    if isinstance(model, UFM):
        p = model.widths[0]
        state["H"] = torch.randn(p, model.samples, generator=generator, dtype=torch.float64) / p**0.5
    if model.bias != "none":
        state["b"] = torch.zeros(model.classes, dtype=torch.float64)
    return state


def given(model: UFM | DeepLinear, initial: dict[str, Any]) -> tuple[dict[str, Tensor], int]:
    """`initial` = {"H": (p, N), "W": [W_1 .. W_M], "b": (K,)}, each also with a leading lane axis, as blocks and lanes.

    Raises:
        BadInput: a missing or unknown entry, a wrong shape, an entry that is not finite, or unequal lane counts.
    """
    shapes = {f"W_{i}": s for i, s in enumerate(model.weight_shapes, 1)}
    expected = {"W"}
    if isinstance(model, UFM):
        shapes["H"] = (model.widths[0], model.samples)
        expected.add("H")
    if model.bias != "none":
        shapes["b"] = (model.classes,)
        expected.add("b")
    require(isinstance(initial, dict), "initial", type(initial).__name__, "a dict of arrays")
    require(set(initial) - {"b"} == expected - {"b"} and set(initial) <= expected, "initial", sorted(initial),
            f"entries {', '.join(sorted(expected))} (b may be left out and is then zero)")
    weights = initial["W"]
    require(isinstance(weights, list | tuple) and len(weights) == model.layers, "initial['W']", type(weights),
            f"a list of {model.layers} arrays, W_1 .. W_{model.layers}")
    entries: dict[str, Any] = {f"W_{i}": w for i, w in enumerate(weights, 1)}
    entries |= {name: initial[name] for name in ("H", "b") if name in initial}
    blocks, lanes = {}, 1
    for name, value in entries.items():
        shown = f"initial[{name!r}]" if name in ("H", "b") else f"initial['W'][{int(name[2:]) - 1}]"
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
    if "b" in shapes and "b" not in blocks:
        blocks["b"] = torch.zeros(model.classes, dtype=torch.float64)
    full = {n: v.expand(lanes, *shapes[n]) if v.ndim == len(shapes[n]) else v.expand(lanes, *v.shape[1:])
            for n, v in blocks.items()}
    return full, lanes
