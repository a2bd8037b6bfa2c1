"""The spectral flow: mode equations of aligned initial states, and their closed forms in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from torch import Tensor

from ncflow.errors import require
from ncflow.flows.factored import Factored
from ncflow.flows.reduced import ReducedFlow
from ncflow.model import UFM


class SpectralFlow(ReducedFlow):
    """The flow of an aligned state (see `alignment`). Per mode, with a = w_1 .. w_M and s = 2c/N,

        dz = -theta (a e + lambda_H z),   dw_l = -[(a / w_l) (e z + s a c) + lambda_l w_l],   e = s (a z - t),
        df = -theta (s a^2 + lambda_H) f,   c = f^2 (scatter along the mode),   t = sqrt(n) of the mode.

    A bias b = beta 1/sqrt(K) acts on the mean mode alone: e has s beta sqrt(N) added there, and
    dbeta = -(sqrt(N) e + lambda_b beta). For M = 1, theta = 1 these are the equations of Saxe et al. (2014)
    with decay and noise (THEORY 2(d)); layered ones those of 9.3. M + 2 numbers per mode.
    """

    def __init__(
        self, model: UFM, lane: Tensor, states: Factored, row: Tensor, notes: dict[str, Any] | None = None,
        *, modes: Tensor,
    ):  # fmt: skip
        """`states` in the frame of the aligned bases, `modes` (states, K, K) the r_i."""
        super().__init__(model, lane, states, row, notes)
        self.name, self.modes = "spectral", modes
        size = states.F.norm(dim=2, keepdim=True)
        self.rows = torch.where(size > 0, states.F / size, 0.0)
        self.lanes["target"] = (modes * (self.root[:, None] * modes)).sum(1)[row]

    def shapes(self, model: UFM) -> dict[str, tuple[int, ...]]:
        K, M = model.classes, model.layers
        bias: dict[str, tuple[int, ...]] = {} if model.bias == "none" else {"beta": (1,)}
        return {"w": (M, K), "z": (K,), "f": (K,), "out": (M,)} | bias

    def initial(self) -> dict[str, Tensor]:
        s, R = self.states, self.modes
        z = (s.B * R.mT).sum(2)
        w = torch.stack([*(x.diagonal(dim1=1, dim2=2) for x in s.W[:-1]), (R * s.W[-1]).sum(1)], 1)
        blocks = {"w": w, "z": z, "f": s.F.norm(dim=2)} | ({} if s.frame is None else {"out": s.frame.sizes})
        return blocks | ({} if s.b is None else {"beta": (s.b * R[:, :, -1]).sum(1, keepdim=True)})

    def scaled(self, blocks: dict[str, Tensor], block: str) -> list[Tensor]:
        layer = 0 if block == "H" else int(block[2:])
        parts = [blocks["z"], blocks["f"]] if layer == 0 else [blocks["w"][:, layer - 1]]
        return [*parts, blocks["out"][:, layer]] if layer < self.layers else parts

    def field(self, y: Tensor) -> Tensor:
        blocks, lanes, s = self.layout.unpack(y), self.lanes, self.scale
        w, z, f = blocks["w"], blocks["z"], blocks["f"]
        theta, decay_H = lanes["mobility"][:, None], lanes["decay_H"][:, None]
        below = torch.cat([torch.ones_like(w[:, :1]), w[:, :-1].cumprod(1)], 1)
        above = torch.cat([w[:, 1:].flip(1).cumprod(1).flip(1), torch.ones_like(w[:, :1])], 1)
        a = below[:, -1] * w[:, -1]
        e = s * (a * z - lanes["target"])
        descent: dict[str, Tensor] = {}
        if "beta" in blocks:
            beta, root = blocks["beta"][:, 0], self.samples**0.5
            e[:, -1] += s * root * beta
            descent["beta"] = -(root * e[:, -1] + lanes["decay_b"] * beta)[:, None]
        pull = e * z + s * a * f.square()
        descent["w"] = -(below * above * pull[:, None] + lanes["decay_W"][:, :, None] * w)
        descent["z"] = -theta * (a * e + decay_H * z)
        descent["f"] = -theta * (s * a.square() + decay_H) * f
        descent["out"] = -lanes["fading"] * blocks["out"]
        return self.layout.pack(descent)

    def expand(self, y: Tensor) -> dict[str, Tensor]:
        blocks = self.layout.unpack(y)
        R, w = self.own(self.modes), blocks["w"]
        full = {"B": blocks["z"][:, :, None] * R.mT, "F": blocks["f"][:, :, None] * self.own(self.rows),
                f"W_{self.layers}": R * w[:, -1, None, :], "out": blocks["out"]}
        full |= {f"W_{i}": w[:, i - 1].diag_embed() for i in range(1, self.layers)}
        return full | ({"b": blocks["beta"] * R[:, :, -1]} if "beta" in blocks else {})


def logistic(time: ArrayLike, *, rate: float, decay: float, signal: float) -> np.ndarray:
    """Signal s(t), the singular value of W M, of a mode of an aligned UFM with one layer, balanced classes,
    lambda_W = theta lambda_H, w^2 = n m^2 / theta (w, m: singular values of W, M), and no scatter along it:

        s(t) = s_inf / (1 + (s_inf / s_0 - 1) e^{-2 (q - lambda) t}),   s_inf = 1 - lambda / q

    (Saxe et al. 2014 with decay; THEORY 2(d), extended to any theta).

    Args:
        time: flow times t, not negative.
        rate: q = 2c sqrt(theta) / (K sqrt(n)), greater than 0.
        decay: lambda = lambda_W, not negative; from q on the signal dies.
        signal: s_0, greater than 0.

    Raises:
        BadInput: an argument outside what is accepted.
    """
    t = _checked(time, rate, decay, signal)
    gap = rate - decay
    with np.errstate(over="ignore"):
        rise = -rate / gap * np.expm1(-2 * gap * t) if gap != 0 else 2 * rate * t
        return 1 / (rise + np.exp(-2 * gap * t) / signal)


def nc1(
    time: ArrayLike, *, rate: float, decay: float, signal: float, scatter: float, modes: int, samples: float,
    mobility: float = 1.0,
) -> np.ndarray:  # fmt: skip
    """NC1 = Tr Sigma_W / Tr Sigma_B if all active modes follow one `logistic`, the scatter being outside:

        NC1(t) = A e^{-2 lambda t} / s(t),   A = S / ((K - 1) sqrt(n theta))

    (THEORY 9.1, extended to any theta): orthogonal frame (no bias) or simplex (free bias, b = 1/K).

    Args:
        time, rate, decay, signal: as for `logistic`.
        scatter: S = tr E E^T at t = 0.
        modes: K - 1.
        samples: n per class.
        mobility: theta.
    """
    return scatter / (modes * (samples * mobility) ** 0.5) * _fall(time, rate, decay, signal)


def time_to_collapse(
    threshold: float, *, rate: float, decay: float, signal: float, scatter: float, modes: int, samples: float,
    mobility: float = 1.0,
) -> float:  # fmt: skip
    """T_NC, the first time that `nc1` (same arguments) is at most `threshold`; infinite if it never is.

    NC1 falls throughout, or rises first and then falls: there is one crossing.
    """
    require(threshold > 0, "threshold", threshold, "a number greater than 0")

    def level(t: float) -> float:
        value = nc1(t, rate=rate, decay=decay, signal=signal, scatter=scatter, modes=modes, samples=samples,
                    mobility=mobility)  # fmt: skip
        return float(value) - threshold

    if level(0.0) <= 0:
        return 0.0
    if decay == 0 and level(np.inf) >= 0:
        return np.inf
    end = 1 / rate
    while level(end) > 0:
        end *= 2
    return float(brentq(level, 0.0, end, xtol=1e-15 * end, rtol=1e-14))  # type: ignore[arg-type]


def _checked(time: ArrayLike, rate: float, decay: float, signal: float) -> np.ndarray:
    require(rate > 0, "rate", rate, "greater than 0")
    require(decay >= 0, "decay", decay, "not negative")
    require(signal > 0, "signal", signal, "greater than 0")
    return np.asarray(time, dtype=float)


def _fall(time: ArrayLike, rate: float, decay: float, signal: float) -> np.ndarray:
    """e^{-2 lambda t} / s(t) = (e^{-2 lambda t} - e^{-2 q t}) / s_inf + e^{-2 q t} / s_0, any lambda."""
    t = _checked(time, rate, decay, signal)
    gap, slow = abs(rate - decay), min(rate, decay)
    share = -rate / gap * np.expm1(-2 * gap * t) if gap > 0 else 2 * rate * t
    return share * (np.exp(-2 * slow * t) if slow > 0 else 1.0) + np.exp(-2 * rate * t) / signal
