"""The usual ways to follow a UFM, written plainly: what `ncflow bench engine` measures the engine against.

One layer: dW = -(G H^T + lambda_W W), dH = -theta (W^T G + lambda_H H), G = (2c/N) (W H - Y). The same formula moves the samples
(H is p x N) and the reduced model of class means and a root F of the scatter (H is [sqrt(n) M, F], Y is [sqrt(n) I, 0]).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Field:
    """Velocity of the flat state [H, W] (p n' + K p numbers); counts its calls. Arrays of numpy and torch alike."""

    targets: Any
    width: int
    samples: int
    scale: float
    decay_W: float
    decay_H: float
    mobility: float
    calls: list[int]

    def __call__(self, t: Any, y: Any) -> Any:
        self.calls[0] += 1
        K, columns = self.targets.shape
        cut = self.width * columns
        H, W = y[:cut].reshape(self.width, columns), y[cut:].reshape(K, self.width)
        G = self.scale * (W @ H - self.targets)
        dH, dW = -self.mobility * (W.T @ G + self.decay_H * H), -(G @ H.T + self.decay_W * W)
        join = torch.cat if isinstance(y, Tensor) else np.concatenate
        return join([dH.reshape(-1), dW.reshape(-1)])


@dataclass(frozen=True, eq=False)
class Start:
    """Class means M (p, K), per-sample scatter covariance (p, p) or one number for a multiple of the identity, W (K, p)."""

    means: np.ndarray
    covariance: np.ndarray | float
    W: np.ndarray

    def reduced(self, samples_per_class: int, decay: float) -> tuple[Field, np.ndarray, float]:
        """Field and state [sqrt(n) M, F], W for n lambda_H = lambda_W = `decay`, theta = n, c = 1/2, and |F|^2 left out.

        Isotropic scatter is followed in the span of M and W alone, which the flow keeps; outside, H decays exponentially.
        """
        n, (p, K) = samples_per_class, self.means.shape
        basis, root, out = np.eye(p), None, 0.0
        if isinstance(self.covariance, float):
            basis = np.linalg.qr(np.concatenate([self.means, self.W.T], 1))[0]
            root = np.sqrt(self.covariance * n * K) * np.eye(2 * K)
            out = (p - 2 * K) * self.covariance * n * K
        else:
            root = np.linalg.cholesky(self.covariance * n * K)
        d = basis.shape[1]
        state = np.concatenate([np.concatenate([np.sqrt(n) * basis.T @ self.means, root], 1).ravel(), (self.W @ basis).ravel()])
        targets = np.concatenate([np.sqrt(n) * np.eye(K), np.zeros((K, d))], 1)
        return Field(targets, d, n * K, 1 / (n * K), decay, decay / n, float(n), [0]), state, out


def feature_norm(field: Field, states: np.ndarray, times: Sequence[float] | np.ndarray, outside: float) -> np.ndarray:
    """Root mean square of |h| of reduced states (times, size); `outside` as from `Start.reduced`."""
    fading = np.exp(-2 * field.mobility * field.decay_H * np.asarray(times))
    inside = np.square(states[:, : field.width * field.targets.shape[1]]).sum(1)
    return np.sqrt((inside + outside * fading) / field.samples)


def nc1(field: Field, state: np.ndarray, time: float, outside: float) -> float:
    """Tr Sigma_W / Tr Sigma_B of a reduced state."""
    K = len(field.targets)
    Z = state[: field.width * field.targets.shape[1]].reshape(field.width, -1)
    M = Z[:, :K] / np.sqrt(field.samples / K)
    within = (np.square(Z[:, K:]).sum() + outside * np.exp(-2 * field.mobility * field.decay_H * time)) / field.samples
    return float(within / (np.square(M - M.mean(1, keepdims=True)).sum() / K))


def scipy_run(field: Field, y: np.ndarray, times: Sequence[float] | np.ndarray, rtol: float) -> tuple[np.ndarray, int]:
    """States (times, size) by SciPy's DOP853, and the evaluations that it takes without output in between."""
    args = {"method": "DOP853", "rtol": rtol, "atol": 1e-3 * rtol}
    states = solve_ivp(field, (0, times[-1]), y, t_eval=times, **args).y.T
    field.calls[0] = 0
    solve_ivp(field, (0, times[-1]), y, **args)
    return states, field.calls[0]


def torchdiffeq_run(field: Field, y: np.ndarray, times: Sequence[float] | np.ndarray, rtol: float) -> tuple[np.ndarray, int]:
    """States (times, size) by torchdiffeq's dopri5, and its evaluations."""
    from torchdiffeq import odeint

    made = Field(torch.as_tensor(field.targets), field.width, field.samples, field.scale, field.decay_W, field.decay_H,
                 field.mobility, [0])
    grid = torch.tensor([0.0, *times], dtype=torch.float64)
    states = odeint(made, torch.as_tensor(y), grid, rtol=rtol, atol=1e-3 * rtol, method="dopri5")
    assert isinstance(states, Tensor)
    return states[1:].numpy(), made.calls[0]


def full_field(samples_per_class: int, classes: int, width: int, decay: float, device: str) -> tuple[Field, Tensor]:
    """The field on samples, and a state of its size."""
    N, place = samples_per_class * classes, torch.device(device)
    targets = torch.eye(classes, dtype=torch.float64, device=place).repeat_interleave(samples_per_class, 1)
    g = torch.Generator().manual_seed(0)
    y = 0.1 * torch.randn(width * (N + classes), generator=g, dtype=torch.float64)
    return Field(targets, width, N, 1 / N, decay, decay / samples_per_class, float(samples_per_class), [0]), y.to(place)


def seconds_per_evaluation(solver: str, field: Field, y: Tensor) -> float:
    """Wall time per evaluation of a few steps of the solver on the full flow, its own work between them included."""
    field.calls[0] = 0
    start = perf_counter()
    if solver == "torchdiffeq dopri5":
        from torchdiffeq import odeint

        with torch.no_grad():
            odeint(field, y, torch.tensor([0.0, 0.5], dtype=torch.float64, device=y.device), rtol=1e-6, atol=1e-9,
                   method="dopri5", options={"first_step": 0.1, "max_num_steps": 1000})
        if y.is_cuda:
            torch.cuda.synchronize()
    else:
        plain = Field(field.targets.cpu().numpy(), field.width, field.samples, field.scale, field.decay_W, field.decay_H,
                      field.mobility, field.calls)
        solve_ivp(plain, (0, 0.3), y.cpu().numpy(), method="DOP853", rtol=1e-3, atol=1.0, first_step=0.1, max_step=0.1)
    return (perf_counter() - start) / field.calls[0]


def descend(features: np.ndarray, weights: Sequence[np.ndarray], labels: np.ndarray, decay: float, steps: int, every: int,
            look: Callable[[int, Tensor, list[Tensor]], bool], device: str = "cpu") -> tuple[int, float]:
    """The usual loop: full-batch SGD (lr 0.1, momentum 0.9, decay on everything) on (1/2N) |W_M .. W_1 H - Y|^2.

    Args:
        features: (p, N); weights: W_1 .. W_M; labels: (N,).
        steps: at most; `look(steps done, H, weights)` is asked after every `every` of them whether to stop, off the clock.

    Returns:
        The steps taken, and their seconds.
    """
    H = torch.tensor(features, device=device, requires_grad=True)
    W = [torch.tensor(w, device=device, requires_grad=True) for w in weights]
    Y = torch.nn.functional.one_hot(torch.as_tensor(labels, device=device), len(weights[-1])).T.double()
    optimiser = torch.optim.SGD([H, *W], lr=0.1, momentum=0.9, weight_decay=decay)
    spent = 0.0
    for done in range(every, steps + 1, every):
        start = perf_counter()
        for _ in range(every):
            optimiser.zero_grad()
            out = H
            for w in W:
                out = w @ out
            loss = (out - Y).square().sum() / (2 * Y.shape[1])
            loss.backward()
            optimiser.step()
        if H.is_cuda:
            torch.cuda.synchronize()
        spent += perf_counter() - start
        if look(done, H.detach(), [w.detach() for w in W]):
            return done, spent
    return steps, spent
