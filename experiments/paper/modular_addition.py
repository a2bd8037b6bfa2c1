"""A perceptron on modular addition, where generalisation comes long after memorisation (Power et al. 2022).

(a, b) -> a + b mod p, as two one-hot vectors; one hidden layer of z^2 without biases, which generalises soon (Gromov 2023);
full-batch Adam on cross-entropy with decoupled decay.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import ClassVar

import numpy as np
import torch
import xarray as xr

from experiments.sweeps.study import Study
from ncflow import Trajectory
from ncflow.errors import require
from ncflow.provenance import provenance
from ncflow.trajectory import Status


@dataclass(frozen=True, kw_only=True)
class ModularAddition(Study):
    """Lanes are decays x seeds (of initialisation and of the split), the seed counting fastest.

    The record has dims (lane, time in steps): train_accuracy, test_accuracy, weight_norm (the root of all squares).

    Attributes:
        modulus: p; `share` of the p^2 pairs that is trained on.
        width: hidden units; `lr` of Adam; decays per unit of lr and step; `steps`, looked at every `look`.
    """

    kind: ClassVar[str] = "modular-addition"
    modulus: int = 23
    width: int = 64
    share: float = 0.6
    lr: float = 1e-2
    decays: tuple[float, ...] = (0.3, 0.6, 1.0, 2.0, 5.0)
    seeds: tuple[int, ...] = (0, 1)
    steps: int = 3000
    look: int = 25

    def __post_init__(self) -> None:
        for name in ("modulus", "width", "steps", "look"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "a whole number, at least 1")
        require(0 < self.share < 1, "share", self.share, "between 0 and 1")

    @property
    def cost_kind(self) -> str:
        return f"{self.kind} p {self.modulus}, width {self.width}, {len(self.decays) * len(self.seeds)} lanes, {self.steps} steps"

    def run(self, *, root: str | Path | None, progress: Callable[[float], None]) -> Trajectory:
        began = perf_counter()
        p, lanes = self.modulus, list(product(self.decays, self.seeds))
        a, b = (v.flatten() for v in torch.meshgrid(torch.arange(p), torch.arange(p), indexing="ij"))
        x = torch.cat([torch.nn.functional.one_hot(v, p) for v in (a, b)], 1).float()
        y = (a + b) % p
        first, last, train, test = [], [], [], []
        for _, seed in lanes:
            g = torch.Generator().manual_seed(seed)
            order = torch.randperm(p * p, generator=g)
            train.append(order[: round(self.share * p * p)])
            test.append(order[round(self.share * p * p) :])
            first.append(torch.randn(self.width, 2 * p, generator=g) / (2 * p) ** 0.5)
            last.append(torch.randn(p, self.width, generator=g) / self.width**0.5)
        weights = [torch.stack(w).requires_grad_() for w in (first, last)]
        inside, outside = torch.stack(train), torch.stack(test)
        shrink = 1 - self.lr * torch.tensor([d for d, _ in lanes])[:, None, None]
        adam = torch.optim.Adam(weights, lr=self.lr, betas=(0.9, 0.98))
        seen: list[list[np.ndarray]] = []
        for step in range(self.steps + 1):
            if step % self.look == 0:
                with torch.no_grad():
                    right = [(_logits(weights, x[s]).argmax(-1) == y[s]).double().mean(1).numpy() for s in (inside, outside)]
                    norm = sum(w.double().square().sum((1, 2)) for w in weights).sqrt()  # type: ignore[union-attr]
                seen.append([*right, norm.numpy()])
                progress(step / self.steps)
            logits = _logits(weights, x[inside])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y[inside].flatten(), reduction="sum") / inside.shape[1]
            adam.zero_grad()
            loss.backward()
            with torch.no_grad():
                for w in weights:
                    w.mul_(shrink)
            adam.step()
        columns = np.stack([np.stack(each) for each in seen], -1)  # (3, lanes, times)
        names = ("train_accuracy", "test_accuracy", "weight_norm")
        good = np.isfinite(columns).all((0, 2))
        data = xr.Dataset(
            {name: (("lane", "time"), c) for name, c in zip(names, columns, strict=True)}
            | {"status": ("lane", np.where(good, Status.FINISHED, Status.NON_FINITE).astype(np.int64))},
            {"time": ("time", np.arange(0.0, self.steps + 1, self.look), {"units": "step"}),
             "decay": ("lane", np.array([d for d, _ in lanes])), "seed": ("lane", np.array([s for _, s in lanes]))},
            {"source": "network", "time_kind": "steps",
             "provenance": json.dumps(provenance(config=self.config(), seconds={"all": perf_counter() - began}, device="cpu"))},
        )  # fmt: skip
        return Trajectory(data)


def _logits(weights: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """(L, n, p) of x (L, n, 2p)."""
    return (x @ weights[0].mT).square() @ weights[1].mT
