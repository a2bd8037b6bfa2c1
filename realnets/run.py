"""The state of a training run, and its epochs: what is kept in a checkpoint and goes on from one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncflow.errors import require
from ncflow.trajectory import Status, Trajectory
from realnets.architectures import ARCHITECTURES
from realnets.data import DataSet
from realnets.graphs import Replay
from realnets.measure import accuracy, class_mean_gram, layers, measure, nc1_hidden
from realnets.network import Network
from realnets.optimise import Stepper, decay_mask, order
from realnets.protocol import Lane, TwoPhase
from realnets.record import build
from realnets.settle import Settling

SETTLE = 3  # number of the third stage among the phases


class Run:
    """Every lane of `protocol` on `data`.

    Attributes:
        lanes: those that are trained: `protocol.roots` in phase 1, `protocol.lanes` from phase 2 on.
        net: the network of these lanes.
        done: epochs trained since the start of the run.
        alive, ended: (L,) which lanes are finite; which have nothing left to do (stopped at T_NC, or at rest).
        seconds: spent training and measuring, also before a resume.
    """

    def __init__(self, protocol: TwoPhase, data: DataSet, device: torch.device, dtype: torch.dtype):
        self.protocol, self.data, self.device, self.dtype = protocol, data, device, dtype
        samples, batch = len(data.y_train), protocol.batch_size
        fits = f"at most {samples}, the number of training samples"
        require(batch <= samples, "batch_size", batch, fits)
        self.lanes: tuple[Lane, ...] = protocol.roots
        self.net = self._network(self.lanes)
        if any(a != 1 for a in protocol.alphas):
            can = hasattr(self.net, "rescale")
            require(can, "alphas", protocol.alphas, f"1 for {protocol.architecture}, which has no last hidden layer to rescale")
        if self.net.buffers():
            rest = samples % batch
            require(rest != 1, "batch_size", batch, f"one that does not leave a last batch of 1 of {samples} images: batch "
                    "normalisation has no statistics of one")  # fmt: skip
        self.x, self.y = torch.as_tensor(data.x_train).to(device, dtype), torch.as_tensor(data.y_train).to(device)
        self.targets = torch.eye(data.classes, dtype=dtype, device=device)[self.y]
        self.test = None
        if data.x_test is not None and data.y_test is not None:
            self.test = torch.as_tensor(data.x_test).to(device, dtype), torch.as_tensor(data.y_test).to(device)
        self.mask = None if protocol.decay_biases else decay_mask(self.net)
        self.shuffle = torch.as_tensor(order(0, 0, 0, samples)).to(device)  # for batches that have statistics
        self.alive = torch.ones(self.net.lanes, dtype=torch.bool, device=device)
        self.ended = torch.zeros_like(self.alive)
        self.good = self.net.theta.clone()
        self.good_buffers = {name: value.clone() for name, value in self.net.buffers().items()}
        self.done = self.phase = 0
        self.stepper: Stepper | None = None
        self._replay: Replay | None = None
        self.settling: Settling | None = None
        self.times: list[tuple[int, int]] = []
        self.rates: list[np.ndarray] = []
        self.measured: list[dict[str, np.ndarray]] = []
        self.seconds = {"training": 0.0, "measuring": 0.0}

    @property
    def active(self) -> Tensor:
        """(L,) lanes that still train."""
        return self.alive & ~self.ended

    @property
    def epochs(self) -> int:
        """At most so many."""
        return self.protocol.epochs + (self.protocol.settle_epochs if self.protocol.settle else 0)

    def all(self, after: Callable[[], None]) -> None:
        """Train from where the run stands to its end, with a call of `after` after each epoch."""
        p = self.protocol
        if not self.times:
            self.record(1, self._lane_rates(1, 0))
        spans = [(number, loss, epochs) for number, loss, epochs in p.phases]
        if p.settle:
            spans.append((SETTLE, p.losses[SETTLE], p.settle_epochs))
        start = 0
        for phase, loss, epochs in spans:
            for epoch in range(max(0, self.done - start), epochs):
                if not self.active.any():
                    return
                if self.phase != phase:
                    self.begin(phase)
                rates = self._lane_rates(phase, epoch)
                self.epoch(phase, loss, epoch, rates)
                self.done += 1
                look = self.settling is not None and (epoch + 1) % self.settling.block == 0
                if self.done % p.measure_every == 0 or epoch == epochs - 1 or look:
                    self.record(phase, rates, look)
                after()
            start += epochs

    def begin(self, phase: int) -> None:
        """A new optimiser; at phase 2 the lanes branch and are rescaled."""
        p = self.protocol
        if phase == 2:
            self.branch()
            if any(lane.alpha != 1 for lane in self.lanes):
                alphas = torch.tensor([lane.alpha for lane in self.lanes], device=self.device)
                where = (p.rescaled_layer,) if p.architecture == "mlp" else ()
                self.net.rescale(alphas, *where)  # type: ignore[attr-defined]
        if phase == SETTLE:
            self.settling = Settling(torch.tensor([lane.lr for lane in self.lanes]), p.epochs)
        self.phase = phase
        self._optimiser()

    def branch(self) -> None:
        """From the lanes of phase 1 to all of them."""
        if self.lanes == self.protocol.lanes:
            return
        rows, old = torch.tensor(self.protocol.branches, device=self.device), self.net
        self.lanes = self.protocol.lanes
        if len(rows) != old.lanes:
            self.net = self._network(self.lanes)
            self.net.theta.copy_(old.theta[rows])
            for name, value in self.net.buffers().items():
                value.copy_(old.buffers()[name][rows])
        self.alive, self.ended, self.good = self.alive[rows], self.ended[rows], self.good[rows]
        self.good_buffers = {name: value[rows] for name, value in self.good_buffers.items()}
        take = rows.cpu().numpy()
        self.measured = [{name: value[take] for name, value in found.items()} for found in self.measured]
        self.rates = [rates[take] for rates in self.rates]

    @torch.no_grad()
    def epoch(self, phase: int, loss: str, epoch: int, rates: Sequence[float]) -> None:
        """One pass over the data in each lane's own order, then a look for lanes no longer finite."""
        began = perf_counter()
        net, stepper = self.net, self.stepper
        assert stepper is not None
        stepper.set_rates(rates)
        step = self._step(loss)
        seeds = [lane.seed for lane in self.lanes]
        visits = {seed: order(seed, phase, epoch, len(self.y)) for seed in dict.fromkeys(seeds)}
        all_visits = torch.as_tensor(np.stack([visits[seed] for seed in seeds])).to(self.device)
        for batch in all_visits.split(self.protocol.batch_size, dim=1):
            step(batch.flatten())
        stepper.clear()
        self.alive &= net.theta.isfinite().all(1)
        active = self.active
        self.good = torch.where(active[:, None], net.theta, self.good)
        for name, value in net.buffers().items():
            shown = active.view(-1, *(1,) * (value.ndim - 1))
            self.good_buffers[name] = torch.where(shown, value, self.good_buffers[name])
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds["training"] += perf_counter() - began

    def _step(self, loss: str) -> Callable[[Tensor], None]:
        """What takes the rows of a batch, lane after lane, and moves every lane one step; recorded on a GPU."""
        if self._replay is not None:
            return self._replay
        net, lanes, stepper = self.net, self.net.lanes, self.stepper
        assert stepper is not None

        def step(rows: Tensor) -> None:
            x = self.x.index_select(0, rows).view(lanes, -1, self.x.shape[1])
            net.gradient(x, self.targets.index_select(0, rows).view(lanes, -1, self.data.classes), loss)
            stepper.step()

        if self.device.type != "cuda" or not stepper.recordable:
            return step
        self._replay = Replay(step)
        return self._replay

    def record(self, phase: int, rates: Sequence[float], look: bool = False) -> None:
        """Measure every lane; one that has ended, or is not finite, is NaN. With `look`, also judge rest."""
        began = perf_counter()
        p, net = self.protocol, self.net
        found = measure(net, self.x, self.y)
        if net.buffers():
            batches = measure(net, self.x[self.shuffle], self.y[self.shuffle], "batch", p.batch_size)
            found |= {f"{name}_batch": value for name, value in batches.items()}
        theta = net.theta.double()
        squares = (theta if self.mask is None else theta * self.mask).square().sum(1)
        decay = torch.tensor([lane.decay for lane in self.lanes], dtype=torch.float64, device=self.device)
        found["energy"] = found[p.losses[phase]] + decay / 2 * squares
        if self.test is not None:
            often = len(self.test[1]) <= len(self.y) or self.done in (0, p.epochs_ce, p.epochs)
            found["test_accuracy"] = accuracy(net, *self.test) if often else torch.full_like(found["mse"], torch.nan)
        if p.layerwise:
            found["nc1_hidden"] = nc1_hidden(net, self.x, self.y)
        self.alive &= found["energy"].isfinite()
        found |= layers(net)
        found["norm_product"] = found["fn"] * found["weight_norm"][:, -1]
        hide = ~self.active
        self.times.append((self.done, phase))
        self.rates.append(np.asarray(rates, dtype=np.float64))
        self.measured.append(
            {
                name: value.masked_fill(hide.view(-1, *(1,) * (value.ndim - 1)), torch.nan).cpu().numpy()
                for name, value in found.items()
            }
        )
        if p.stop == "t_nc":
            self.ended |= self.active & (found[p.nc1] < p.threshold)
        if look and self.settling is not None:
            self.settling.look(found["fn"], found["energy"], found.get("balance"))
            self.ended |= self.settling.at_rest.to(self.device)
        self.seconds["measuring"] += perf_counter() - began

    def finish(self, provenance: dict[str, Any]) -> Trajectory:
        """The record, with every lane's last good parameters in `final`."""
        self.branch()
        net = self.net
        net.theta.copy_(self.good)
        for name, value in net.buffers().items():
            value.copy_(self.good_buffers[name])
        gram = class_mean_gram(net, self.x, self.y).cpu().numpy()
        alive = self.alive.cpu().numpy()
        status = np.where(alive, Status.FINISHED, Status.NON_FINITE)
        more: dict[str, tuple[np.ndarray, str, str]] = {}
        if self.settling is not None:
            rest = self.settling.at_rest.numpy() & alive
            status = np.where(rest, Status.AT_REST, status)
            for name, value in self.settling.drift().items():
                unit, how = ("1", "relative ") if name != "balance" else ("1", "")
                more[f"drift_{name}"] = value.numpy(), unit, f"{how}change of {name} over the last span of the third stage"
            fn = np.stack([found["fn"] for found in self.measured], 1)
            last = fn.shape[1] - 1 - np.isfinite(fn)[:, ::-1].argmax(1)
            more["fn_inf"] = np.where(rest, fn[np.arange(len(fn)), last], np.nan), "feature", "fn at rest; NaN if not at rest"
        record = build(
            self.protocol, self.lanes, self.data.classes, net.weight_layers, self.times, np.stack(self.rates, 1),
            self._stacked(), status.astype(np.int64), alive, more, gram, provenance,
        )  # fmt: skip
        weights = {name: view.cpu().numpy().copy() for name, view in (net.named() | net.buffers()).items()}
        return Trajectory(record, final={**weights, "class_mean_gram": gram})

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on as if nothing had happened."""
        return {
            "done": self.done,
            "phase": self.phase,
            "branched": self.lanes == self.protocol.lanes,
            "theta": self.net.theta,
            "good": self.good,
            "buffers": self.net.buffers(),
            "good_buffers": self.good_buffers,
            "alive": self.alive,
            "ended": self.ended,
            "stepper": self.stepper.state() if self.stepper is not None else [],
            "settling": self.settling.tensors if self.settling is not None else {},
            "times": self.times,
            "rates": torch.as_tensor(np.stack(self.rates, 1)),
            "measured": {name: torch.as_tensor(value) for name, value in self._stacked().items()},
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        if state["branched"]:
            self.branch()
        self.done, self.phase = state["done"], state["phase"]
        self.net.theta.copy_(state["theta"])
        for name, value in self.net.buffers().items():
            value.copy_(state["buffers"][name])
        self.good = state["good"].to(self.device)
        self.good_buffers = {name: value.to(self.device) for name, value in state["good_buffers"].items()}
        self.alive, self.ended = state["alive"].to(self.device), state["ended"].to(self.device)
        if state["settling"]:
            self.settling = Settling(torch.tensor([lane.lr for lane in self.lanes]), self.protocol.epochs)
            self.settling.tensors = state["settling"]
        if self.phase:
            self._optimiser()
            assert self.stepper is not None
            self.stepper.restore(state["stepper"])
        self.times = [tuple(each) for each in state["times"]]
        self.rates = list(state["rates"].numpy().T)
        measured = {name: value.numpy() for name, value in state["measured"].items()}
        self.measured = [{name: value[:, i] for name, value in measured.items()} for i in range(len(self.times))]
        self.seconds = dict(state["seconds"])

    def _network(self, lanes: Sequence[Lane]) -> Network:
        build = ARCHITECTURES[self.protocol.architecture]
        return build(self.protocol, self.data.shape, self.data.classes, [lane.seed for lane in lanes], self.dtype, self.device)

    def _lane_rates(self, phase: int, epoch: int) -> list[float]:
        if phase == SETTLE:
            assert self.settling is not None
            return self.settling.rates
        rate = dict(zip(self.protocol.lrs, self.protocol.rates(phase, epoch), strict=True))
        return [rate[lane.lr] for lane in self.lanes]

    def _optimiser(self) -> None:
        p = self.protocol
        how = {"kind": p.optimiser, "momentum": p.momentum, "nesterov": p.nesterov, "mask": self.mask}
        decays, rates = [lane.decay for lane in self.lanes], [lane.lr for lane in self.lanes]
        self.stepper = Stepper(self.net.theta, self.net.grad, decays, rates, apart=self.phase == SETTLE, **how)
        self._replay = None

    def _stacked(self) -> dict[str, np.ndarray]:
        """Measurements by name, (lanes, times[, layers])."""
        return {name: np.stack([found[name] for found in self.measured], axis=1) for name in self.measured[0]}
