"""Brute force for the engine, written from the definition of the loss alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from ncflow.model import UFM

torch.set_num_threads(1)


def names(model):
    return [
        *(["H"] if isinstance(model, UFM) else []),
        *(f"W_{i + 1}" for i in range(model.layers)),
        *(["b"] if model.bias != "none" else []),
    ]


def shapes(model):
    table = {"b": (model.classes,)} | {f"W_{i + 1}": s for i, s in enumerate(model.weight_shapes)}
    if isinstance(model, UFM):
        table["H"] = (model.widths[0], model.samples)
    return [table[n] for n in names(model)]


def loss(model, lane=0):
    """L as a differentiable function of the blocks in the order of `names`."""
    Y = torch.eye(model.classes, dtype=torch.float64)[:, torch.as_tensor(model.labels)]
    X = None if isinstance(model, UFM) else torch.tensor(np.array(model.inputs))

    def value(blocks):
        blocks = dict(zip(names(model), blocks, strict=True))
        Z = X if X is not None else blocks["H"]
        total = 0.0 if X is not None else model.feature_decays[lane] / 2 * blocks["H"].pow(2).sum()
        for i in range(model.layers):
            W = blocks[f"W_{i + 1}"]
            Z, total = W @ Z, total + model.weight_decays[lane, i] / 2 * W.pow(2).sum()
        if "b" in blocks:
            Z, total = Z + blocks["b"][:, None], total + model.bias_decays[lane] / 2 * blocks["b"].pow(2).sum()
        return total + model.loss_scale / model.samples * (Z - Y).pow(2).sum()

    return value


def split(model, vector):
    sizes = [int(np.prod(s)) for s in shapes(model)]
    return [v.reshape(s) for v, s in zip(torch.as_tensor(vector).split(sizes), shapes(model), strict=True)]


def field(model, lane=0):
    """-dL/dx by automatic differentiation, features times the mobility; flat numpy vectors in the order of `names`."""
    value = loss(model, lane)

    def f(_, x):
        blocks = [b.clone().requires_grad_() for b in split(model, x)]
        speeds = [model.mobilities[lane] if n == "H" else 1.0 for n in names(model)]
        gradients = torch.autograd.grad(value(blocks), blocks)
        return np.concatenate([-s * g.numpy().ravel() for s, g in zip(speeds, gradients, strict=True)])

    return f


def random_initial(model, seed=0, scale=0.5, lanes=None):
    """A state as `simulate(initial=...)` takes it."""
    rng = np.random.default_rng(seed)
    lead = () if lanes is None else (lanes,)
    state = {n: scale * rng.normal(size=(*lead, *s)) for n, s in zip(names(model), shapes(model), strict=True)}
    given = {"W": [state[f"W_{i + 1}"] for i in range(model.layers)]}
    return given | {n: state[n] for n in ("H", "b") if n in state}


def flat(model, initial, lane=None):
    table = {f"W_{i + 1}": w for i, w in enumerate(initial["W"])} | {n: initial[n] for n in ("H", "b") if n in initial}
    pick = (lambda v: v) if lane is None else (lambda v: v[lane])
    return np.concatenate([np.asarray(pick(table[n])).ravel() for n in names(model)])


def reference(model, initial, times, lane=0, dense=False, **options):
    """States at `times` (after 0) by SciPy's DOP853: a list of blocks by name for each, or the dense solution."""
    options = {"rtol": 1e-11, "atol": 1e-14} | options
    out = solve_ivp(
        field(model, lane),
        (0.0, times[-1]),
        flat(model, initial),
        method="DOP853",
        t_eval=None if dense else times,
        dense_output=dense,
        **options,
    )
    assert out.success
    if dense:
        return out.sol
    return [dict(zip(names(model), [b.numpy() for b in split(model, x)], strict=True)) for x in out.y.T]


def features(model, blocks):
    """Penultimate features (p, N)."""
    Z = blocks["H"] if isinstance(model, UFM) else np.asarray(model.inputs)
    for i in range(model.layers - 1):
        Z = blocks[f"W_{i + 1}"] @ Z
    return Z


def nc1(model, blocks):
    H = features(model, blocks)
    means = np.stack([H[:, model.labels == k].mean(1) for k in range(model.classes)], 1)
    within = ((H - means[:, model.labels]) ** 2).sum() / model.samples
    return within / ((means - H.mean(1, keepdims=True)) ** 2).sum() * model.classes


def fn(model, blocks):
    return np.linalg.norm(features(model, blocks), axis=0).mean()


@pytest.fixture(scope="session")
def brute():
    return SimpleNamespace(
        names=names,
        shapes=shapes,
        loss=loss,
        split=split,
        field=field,
        initial=random_initial,
        flat=flat,
        reference=reference,
        features=features,
        nc1=nc1,
        fn=fn,
    )
