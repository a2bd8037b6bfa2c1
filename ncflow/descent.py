"""Discrete descent: lanes stepped by an optimiser, phase after phase, in the same batch and record as a flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from ncflow.flows import Flow, choose
from ncflow.integrators import Batch, Inside, Step
from ncflow.model import UFM, DeepLinear
from ncflow.optimisers import Phase
from ncflow.recorder import Recorder
from ncflow.trajectory import Status, Trajectory

BLOWN_UP = 1e100  # a lane with a larger number has diverged


class StepRecorder(Recorder):
    """A recorder for discrete time: an event happens at the first step that is past it."""

    def _locate(self, inside: Inside, lanes: Tensor, e: int, before: Tensor, after: Tensor) -> None:
        happened = torch.zeros_like(self.event_time, dtype=torch.bool)
        happened[:, e] = lanes
        self._note(happened, inside.t1, inside.step.y)


class Descent:
    """The phases of one group of lanes; `advance` takes the steps up to a given count.

    Features move `mobility` times as fast as their gradient says (which Adam's normalisation takes out again). Momentum and
    Adam's memory start at zero in each phase, as with a new optimiser.
    """

    def __init__(self, model: UFM | DeepLinear, phases: Sequence[Phase], lane: Tensor, rates: Tensor, recorder: Recorder):
        """`lane` (lanes,): which of the model's own lanes each lane is; `rates` (phases, lanes): its learning rates."""
        self.phases, self.ends, self.recorder = phases, list(accumulate(p.steps for p in phases)), recorder
        self.flows = [choose("full", with_loss(model, p.loss or model.loss), lane, lane.device) for p in phases]
        self.rates = rates[:, :, None]
        self.now, self.phase = 0, -1
        recorder.flow = self.flows[0]
        self.memory: dict[str, Tensor] = {}

    def advance(self, until: float) -> None:
        """Take whole steps until the count `until`."""
        batch = self.recorder.batch
        while self.now < until and bool(batch.running.any()):
            index = next(i for i, end in enumerate(self.ends) if self.now < end)
            phase = self.phases[index]
            if index != self.phase:
                self.phase, self.memory = index, phase.optimiser.memory(batch.y)
                self.recorder.flow = self.flows[index]
            local = self.now - (self.ends[index] - phase.steps)
            self._step(batch, self.flows[index], phase, self.rates[index], local)
            self.now += 1

    def _step(self, batch: Batch, flow: Flow, phase: Phase, rate: Tensor, local: int) -> None:
        rule = phase.optimiser
        lr = rate * rule.schedule.factor(local, phase.steps)
        y = batch.y
        gradient = -flow.field(y)
        if not rule.coupled:
            decay = flow.decay(y)
            gradient, y = gradient - decay, y - lr * decay
        new = rule.update(y, gradient, lr, local + 1, self.memory)
        finite = new.isfinite().all(1)
        small = new.abs().amax(1) < BLOWN_UP
        batch.status[batch.running & ~finite] = Status.NON_FINITE
        batch.status[batch.running & finite & ~small] = Status.DIVERGED
        good = batch.running
        t0, t1 = batch.t, torch.where(good, batch.t + 1, batch.t)
        nothing = torch.zeros_like(batch.t)
        step = Step(new, gradient, new, nothing + 1, nothing, lambda share: new)
        self.recorder(Inside(good, t0, t1, step))
        batch.t, batch.y = t1, torch.where(good[:, None], new, batch.y)
        batch.steps += good
        batch.evaluations += good


def label_steps(run: Trajectory, phases: Sequence[Phase]) -> Trajectory:
    """The record of a descent: time in steps, the phase (from 1) that each step belongs to, and its rate of learning."""
    time = run.data["time"].values
    ends = np.cumsum([p.steps for p in phases])
    phase = np.searchsorted(ends, np.maximum(time, 1), side="left")
    lanes = run.lanes
    rates = np.empty((lanes, len(time)))
    for j, (t, k) in enumerate(zip(time, phase, strict=True)):
        local = max(int(t) - 1, 0) - (int(ends[k]) - phases[k].steps)
        rule = phases[k].optimiser
        rates[:, j] = np.broadcast_to(rule.lr, (lanes,)) * rule.schedule.factor(local, phases[k].steps)
    data = run.data.assign(phase=("time", phase + 1, {"long_name": "phase of the step, from 1"}),
                           learning_rate=(("lane", "time"), rates, {"long_name": "rate of the step that ended here"}))
    data["time"].attrs["units"] = "step"
    data.attrs["time_kind"] = "steps"
    return Trajectory(data, run.final)


def with_loss(model: UFM | DeepLinear, loss: str) -> UFM | DeepLinear:
    """`model` with another loss, and that loss's parameters at their neutral value if it does not use them."""
    return replace(model, loss=loss, smoothing=model.smoothing if loss == "label_smoothing" else 0.0,
                   focal_gamma=model.focal_gamma if loss == "focal" else 0.0)
