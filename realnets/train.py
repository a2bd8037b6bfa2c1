"""Training under the two-phase protocol: every lane at once, one record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ncflow.errors import BadInput, require
from ncflow.provenance import provenance
from ncflow.threads import few_threads
from ncflow.trajectory import Status, Trajectory
from realnets.data import DataSet, load
from realnets.measure import accuracy, class_mean_gram, layer_norms, measure
from realnets.mlp import LaneMLP
from realnets.optimise import learning_rate, optimiser, order
from realnets.protocol import TwoPhase
from realnets.record import build

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def train(
    protocol: TwoPhase,
    *,
    device: str | torch.device = "cpu",
    root: str | Path | None = None,
    dtype: str = "float32",
    progress: Callable[[float], None] | None = None,
) -> Trajectory:
    """Train every lane of `protocol` and record it.

    A lane's initialisation and mini-batches depend on its seed alone. The same protocol gives the same bits
    on the same machine, and on one processor thread a lane gives the same bits in any batch of lanes. A
    lane that leaves the finite numbers is NaN from then on, keeps the parameters of its last good epoch in
    `final`, and leaves the others alone.

    Args:
        protocol: what, on what, and how.
        device: "cpu" or "cuda"; data and parameters stay there.
        root: data root, as in `realnets.data.load`.
        dtype: "float32" or "float64" (for checks); measurements are accumulated in float64 either way.
        progress: called after each epoch with the fraction of the epochs done.

    Returns:
        A record with dims (lane, time[, layer]); time counts epochs from the start of the run, 0 is the
        initialisation. Per lane and time the losses, accuracies and metrics of `realnets.measure.VARIABLES`;
        per layer `weight_norm`, `weight_norm_sq`, `bias_norm_sq`; per time `phase` (1 cross-entropy, 2
        squared error; the end of phase 1 counts to phase 1) and `learning_rate` of the epoch that ended then;
        per lane `status` and `class_mean_gram`. `final` holds "W_1" .., "b_1" .., "class_mean_gram".

    Raises:
        BadInput: device or dtype not available; data missing or unfit; a batch larger than the data.
    """
    require(isinstance(protocol, TwoPhase), "protocol", type(protocol), "a realnets.TwoPhase")
    require(isinstance(dtype, str) and dtype in DTYPES, "dtype", dtype, f"one of {', '.join(DTYPES)}")
    where = _device(device)
    data = load(protocol.dataset, protocol.subset, root, scaling=protocol.scaling, seed=protocol.data_seed)
    samples = len(data.y_train)
    fits = f"at most {samples}, the number of training samples"
    require(protocol.batch_size <= samples, "batch_size", protocol.batch_size, fits)
    run = _Run(protocol, data, where, DTYPES[dtype])
    with few_threads(run.net.work(protocol.batch_size)):
        run.all(progress)
        how = {"config": protocol.config(), "data": data.describe(), "device": where.type, "dtype": dtype}
        return run.finish(provenance(**how))


class _Run:
    """State of one call of `train`."""

    def __init__(self, protocol: TwoPhase, data: DataSet, device: torch.device, dtype: torch.dtype):
        self.protocol, self.data = protocol, data
        self.decays, self.seeds = zip(*protocol.lanes, strict=True)
        self.x = torch.as_tensor(data.x_train).to(device, dtype)
        self.y = torch.as_tensor(data.y_train).to(device)
        self.targets = torch.eye(data.classes, dtype=dtype, device=device)[self.y]
        self.test = None
        if data.x_test is not None:
            x, y = torch.as_tensor(data.x_test), torch.as_tensor(data.y_test)
            self.test = x.to(device, dtype), y.to(device)
        sizes = (self.x.shape[1], *(protocol.width,) * protocol.depth, data.classes)
        how = {"activation": protocol.activation, "biases": protocol.biases}
        self.net = LaneMLP(sizes, self.seeds, **how, dtype=dtype, device=device)
        self.alive = torch.ones(self.net.lanes, dtype=torch.bool, device=device)
        self.good = self.net.theta.clone()
        self.times: list[tuple[int, int, float]] = []
        self.measured: list[dict[str, np.ndarray]] = []

    def all(self, progress: Callable[[float], None] | None) -> None:
        p, done = self.protocol, 0
        self.record(0, 1, learning_rate(p.schedule, p.lr, 0, p.epochs_ce))
        for phase, loss, epochs in p.phases:
            step = self.optimiser()
            for epoch in range(epochs):
                if not self.alive.any():
                    return
                rate = learning_rate(p.schedule, p.lr, epoch, epochs)
                self.epoch(step, phase, loss, epoch, rate)
                done += 1
                if done % p.measure_every == 0 or epoch == epochs - 1:
                    self.record(done, phase, rate)
                if progress is not None:
                    progress(done / p.epochs)

    def optimiser(self) -> torch.optim.Optimizer:
        p, net = self.protocol, self.net
        how = {"kind": p.optimiser, "momentum": p.momentum, "nesterov": p.nesterov}
        return optimiser(net.theta, net.grad, self.decays, p.lr, **how)

    @torch.no_grad()
    def epoch(self, step: torch.optim.Optimizer, phase: int, loss: str, epoch: int, rate: float) -> None:
        """One pass over the data in each lane's own order, then a look for lanes no longer finite."""
        for group in step.param_groups:
            group["lr"] = rate
        net, lanes = self.net, self.net.lanes
        visits = np.stack([order(seed, phase, epoch, len(self.y)) for seed in self.protocol.seeds])
        visits = torch.as_tensor(visits).to(self.x.device).repeat(len(self.protocol.decays), 1)
        for batch in visits.split(self.protocol.batch_size, dim=1):
            rows = batch.flatten()
            x = self.x.index_select(0, rows).view(lanes, -1, self.x.shape[1])
            net.gradient(x, self.targets.index_select(0, rows).view(lanes, -1, self.data.classes), loss)
            step.step()
        self.alive &= net.theta.isfinite().all(1)
        self.good = torch.where(self.alive[:, None], net.theta, self.good)

    def record(self, time: int, phase: int, rate: float) -> None:
        found = measure(self.net, self.x, self.y)
        theta = self.net.theta.double()
        decay = torch.tensor(self.decays, dtype=torch.float64, device=theta.device)
        found["energy"] = found["cross_entropy" if phase == 1 else "mse"] + decay / 2 * theta.square().sum(1)
        if self.test is not None:
            found["test_accuracy"] = accuracy(self.net, *self.test)
        self.alive &= found["energy"].isfinite()
        found |= layer_norms(self.net)
        hide = ~self.alive
        self.times.append((time, phase, rate))
        self.measured.append(
            {
                name: value.masked_fill(hide.view(-1, *(1,) * (value.ndim - 1)), torch.nan).cpu().numpy()
                for name, value in found.items()
            }
        )

    def finish(self, provenance: dict[str, Any]) -> Trajectory:
        """The record, with every lane's last good parameters in `final`."""
        self.net.theta.copy_(self.good)
        gram = class_mean_gram(self.net, self.x, self.y).cpu().numpy()
        status = np.where(self.alive.cpu().numpy(), Status.FINISHED, Status.NON_FINITE).astype(np.int64)
        data = build(self.protocol, self.data, self.times, self.measured, status, gram, provenance)
        weights = {name: view.cpu().numpy().copy() for name, view in self.net.named().items()}
        return Trajectory(data, final={**weights, "class_mean_gram": gram})


def _device(device: str | torch.device) -> torch.device:
    accepted = "cpu" + (", cuda" if torch.cuda.is_available() else "; this machine has no CUDA device")
    try:
        found = torch.device(device)
        require(found.type in ("cpu", "cuda"), "device", str(device), accepted)
        torch.empty(1, device=found)
    except BadInput:
        raise
    except Exception:  # torch's own errors differ by version and build
        raise BadInput("device", str(device), accepted) from None
    return found
