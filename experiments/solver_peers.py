"""Solver libraries that follow many problems at once, for `ncflow bench engine`: torchode and diffrax (extra `bench`)."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np
import torch

from experiments.plain_ufm import Field


def torchode_run(field: Field, y: np.ndarray, times: Sequence[float] | np.ndarray, rtol: float) -> tuple[np.ndarray, int, float]:
    """States (times, size), evaluations and seconds of torchode's Dopri5."""
    import torchode  # pyright: ignore[reportMissingImports]  # cannot be installed beside tyro

    targets, count = torch.as_tensor(field.targets), 0
    K, columns = targets.shape
    cut = field.width * columns

    def velocity(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        H, W = y[:, :cut].view(-1, field.width, columns), y[:, cut:].view(-1, K, field.width)
        G = field.scale * (W @ H - targets)
        dH = -field.mobility * (W.mT @ G + field.decay_H * H)
        return torch.cat([dH.flatten(1), -(G @ H.mT + field.decay_W * W).flatten(1)], 1)

    term = torchode.ODETerm(velocity)
    method = torchode.Dopri5(term=term)
    control = torchode.IntegralController(atol=1e-3 * rtol, rtol=rtol, term=term)
    adjoint = torchode.AutoDiffAdjoint(method, control)
    problem = torchode.InitialValueProblem(y0=torch.as_tensor(y)[None], t_eval=torch.tensor([[0.0, *times]], dtype=torch.float64))
    with torch.no_grad():
        start = perf_counter()
        states = adjoint.solve(problem).ys[0, 1:].numpy()
        return states, count, perf_counter() - start


def diffrax_run(field: Field, y: np.ndarray, times: Sequence[float] | np.ndarray, rtol: float) -> tuple[np.ndarray, int, float]:
    """States (times, size), evaluations (six per step) and seconds of diffrax's Dopri5, compiled before the clock starts."""
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    targets = jnp.asarray(field.targets)
    K, columns = targets.shape
    cut = field.width * columns

    def velocity(t, y, args):
        H, W = y[:cut].reshape(field.width, columns), y[cut:].reshape(K, field.width)
        G = field.scale * (W @ H - targets)
        dH = -field.mobility * (W.T @ G + field.decay_H * H)
        return jnp.concatenate([dH.ravel(), -(G @ H.T + field.decay_W * W).ravel()])

    @jax.jit
    def solve(y):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(velocity), diffrax.Dopri5(), 0.0, times[-1], None, y, saveat=diffrax.SaveAt(ts=jnp.asarray(times)),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=1e-3 * rtol), max_steps=10_000_000)
        return solution.ys, solution.stats["num_steps"]

    solve(y)[0].block_until_ready()
    start = perf_counter()
    states, steps = solve(y)
    states.block_until_ready()
    return np.asarray(states), 6 * int(steps), perf_counter() - start


PEERS = {"torchode Dopri5": torchode_run, "diffrax Dopri5": diffrax_run}
