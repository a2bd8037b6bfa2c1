r"""From a network to its unconstrained-features model: what a checkpoint says of the rest of its run.

Features h that follow the gradient flow of the network's weights theta move as dh/dt = -Theta dL/dH - lambda (J theta), Theta =
J J^T (THEORY 6.1, 6.3). The matched `UFM` has the class means, the within-class scatter, the head and the bias of the network,
and in place of Theta and J theta one number each,

    mobility = theta, the Rayleigh quotient of Theta on the class-mean part of the pull,
    lambda_H = lambda d/theta, d the Euler degree of the features there (`realnets.probe`).

It is the network itself, step by step, where features are W_1 x of orthogonal inputs of one length. In a network with more
hidden layers theta goes with the size of the features, theta ~ fn^{2 - 2/d} as all hidden layers are scaled alike; it is then
carried to where the model rests (`Matched.carried`).

Time. Full batches are followed by the protocol's own optimiser and schedule, a step of the engine for a step of the network.
Mini-batches of SGD follow the flow with t = sum of lr/(1 - momentum). Mini-batches of Adam divide each step by the noise s of
its coordinate (`theory.adam`): t = sum of lr/s, s the standard deviation of a mini-batch gradient, measured on the checkpoint
after all layers are scaled alike so that its outputs have the contrast of the targets. What of this holds for a network in
training is for `experiments.why` to measure; nothing here is fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncflow import SGD, UFM, Adam, AdamW, Constant, Cosine, Decay, MultiStep, Phase, Status, simulate
from ncflow.errors import require
from realnets.at_epoch import read
from realnets.look import ALL, Array, Checkpoint, look
from realnets.network import Network
from realnets.protocol import TwoPhase

SAMPLES = ("auto", "all", "moments")
RTOL = 1e-4  # of a flow, far finer than what is left out of the model


@dataclass(frozen=True, eq=False, kw_only=True)
class Forecast:
    """What is expected of the rest of a run.

    Attributes:
        time: (T,) epochs since the start of the run; `fn`, `nc1` (T,) then.
        fn_end, fn_inf: fn at the end of the protocol; at rest, if the run went on (NaN if the model does not come to rest).
        t_nc: first epoch with NC1 below the threshold, NaN if not within the protocol.
        fn_interval, t_nc_interval: (low, high) for fn_end and t_nc at `level`; NaN where the errors of such forecasts are not
            known.
        threshold, level: as asked.
        clock: "steps", "flow" or "noise": what time was.
    """

    time: Array
    fn: Array
    nc1: Array
    fn_end: float
    fn_inf: float
    t_nc: float
    fn_interval: tuple[float, float]
    t_nc_interval: tuple[float, float]
    threshold: float
    level: float
    clock: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Matched:
    """The unconstrained-features model of a checkpoint.

    Attributes:
        model: with the true class counts, or as many samples as `initial` has.
        initial: for `ncflow.simulate`: samples "H", or moments "M" and "scatter"; "W" and "b".
        protocol, shown: of the run; what the checkpoint showed.
        samples: N of the training set.
    """

    model: UFM
    initial: dict[str, Any]
    protocol: TwoPhase
    shown: Checkpoint
    samples: int

    @property
    def steps(self) -> int:
        """Of one epoch."""
        return -(-self.samples // self.protocol.batch_size)

    @property
    def full_batch(self) -> bool:
        return self.protocol.batch_size >= self.samples

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The second phase with its own optimiser and schedule, in steps.

        Raises:
            BadInput: the checkpoint lies within the second phase, whose optimiser has a memory that it does not show.
        """
        p, lr, epochs = self.protocol, self.shown.lr, self.protocol.epochs_mse
        require(epochs > 0, "epochs_mse", epochs, "at least 1: there is nothing to forecast")
        require(self.shown.epoch <= p.epochs_ce, "epoch", self.shown.epoch,
                f"at most {p.epochs_ce}, the end of phase 1, for a forecast in steps")  # fmt: skip
        known = p.schedule in ("cosine", "multistep", "constant")
        require(known, "schedule", p.schedule, "cosine, multistep or constant for a forecast in steps")
        schedule = {"cosine": Cosine(intervals=epochs), "constant": Constant(),
                    "multistep": MultiStep([m * self.steps for m in p.milestones_mse], p.lr_factor)}[p.schedule]  # fmt: skip
        rule = (SGD(lr=lr, schedule=schedule, momentum=p.momentum, nesterov=p.nesterov and p.momentum > 0)
                if p.optimiser == "sgd" else (Adam if p.optimiser == "adam" else AdamW)(lr=lr, schedule=schedule))  # fmt: skip
        return (Phase(steps=self.steps * epochs, loss=p.second_loss, optimiser=rule),)

    @property
    def epochs_left(self) -> Array:
        """Epochs, counted from the start of the run, after which the rest of phase 2 can be looked at."""
        return np.arange(max(self.shown.epoch, self.protocol.epochs_ce), self.protocol.epochs + 1)

    @property
    def flow_time(self) -> Array:
        """(T,) flow time at `epochs_left`, by the learning rates to come and, under Adam, the noise of the checkpoint.

        Raises:
            BadInput: Adam on a network whose noise is not known.
        """
        p, s = self.protocol, self.shown
        adam = p.optimiser != "sgd"
        require(not adam or s.noise > 0, "noise", s.noise, "a perceptron with noisy mini-batches, or clock = steps")
        place = p.lrs.index(s.lr)
        first = int(self.epochs_left[0]) - p.epochs_ce
        rates = [p.rates(2, e)[place] for e in range(first, p.epochs_mse)]
        scale = self.steps / (s.noise if adam else 1 - p.momentum)
        return np.concatenate([[0.0], scale * np.cumsum(rates)])

    @cached_property
    def carried(self) -> UFM:
        """The model with mobility and feature decay where it rests: theta_1 (fn/fn_1)^(2 - 2/d) at the fn that they lead to.

        With class means in an orthogonal frame fn = sqrt(x) (theta/(n d))^(1/4), x = 1 - (K/2c) lambda sqrt(n d/theta)
        (THEORY 6.3), a fixed point of one number; a model that rests only at zero keeps its own numbers.
        """
        s, K = self.shown, len(self.shown.counts)
        hidden, n = max(1.0, round(s.degree)), self.samples / K
        theta = s.theta
        for _ in range(200):
            x = 1 - K * K / 2 * s.decay * np.sqrt(n * s.degree / theta)  # c = 1/K
            if not x > 0:
                return self.model
            fn = np.sqrt(x) * (theta / (n * s.degree)) ** 0.25
            theta = s.theta * (fn / s.fn) ** (2 - 2 / hidden)
        share = theta / s.theta
        decay = replace(self.model._decay, features=float(np.asarray(self.model._decay.features)) / share)
        return replace(self.model, mobility=float(np.asarray(self.model.mobility)) * share, decay=decay)

    def forecast(self, *, clock: str = "auto", threshold: float = 0.01, errors: tuple[float, float] | None = None,
                 level: float = 0.9, progress: Callable[[float], None] | None = None) -> Forecast:  # fmt: skip
        """The rest of the run, by the engine.

        Args:
            clock: "steps" (the protocol's optimiser, full batches), "flow" (gradient flow in the time of SGD), "noise" (in that
                of Adam), or "auto": "steps" for full batches, else by the optimiser.
            threshold: of NC1 (trace ratio).
            errors: relative standard errors of fn_end and of T_NC (its distance from the switch), as measured on other
                networks, from which the intervals are made (log-normal).
            level: of the intervals.

        Raises:
            BadInput: an argument outside what is accepted; a second phase without squared error, which the model has no flow for.
        """
        p = self.protocol
        require(clock in ("auto", "steps", "flow", "noise"), "clock", clock, "auto, steps, flow or noise")
        require(0 < threshold < 1, "threshold", threshold, "between 0 and 1")
        require(0 < level < 1, "level", level, "between 0 and 1")
        require(p.epochs_mse > 0, "epochs_mse", p.epochs_mse, "at least 1: there is nothing to forecast")
        own = "flow" if p.optimiser == "sgd" else "noise"
        chosen = ("steps" if self.full_batch and self.shown.epoch <= p.epochs_ce else own) if clock == "auto" else clock
        require(chosen in ("steps", own), "clock", clock, f"steps or {own} for {p.optimiser}")
        require(chosen == "steps" or p.second_loss == "mse", "second_loss", p.second_loss, "mse, or clock = steps")
        time = self.epochs_left.astype(float)
        if chosen == "steps":
            start = self._samples()
            run = simulate(start[0], initial=start[1], phases=self.phases, events=(), progress=progress,
                           save_at=(np.arange(p.epochs_mse + 1.0) * self.steps).tolist())  # fmt: skip
            fn_inf = np.nan
        else:
            at, decay = self.flow_time, self.shown.decay
            after: dict[str, Any] = {}
            if decay > 0:  # else nothing fixes the norm
                after = {"until": max(2 * float(at[-1]), 40 / decay), "rest": 1e-3 * decay}
            run = simulate(self.carried, initial=self.initial, save_at=at.tolist(), rtol=RTOL, atol=1e-9, events=(),
                           progress=progress, **after)  # fmt: skip
            fn_inf = float(run.data["fn"][0, -1]) if int(run.data["status"][0]) == Status.AT_REST else np.nan
        fn, nc1 = (run.data[name].values[0][: len(time)] for name in ("fn", "nc1_trace_ratio"))
        below = np.flatnonzero(nc1 < threshold)
        t_nc = float(time[below[0]]) if len(below) else np.nan
        bounds = intervals(float(fn[-1]), t_nc - p.epochs_ce, errors, level)
        return Forecast(time=time, fn=fn, nc1=nc1, fn_end=float(fn[-1]), fn_inf=float(fn_inf), t_nc=t_nc, fn_interval=bounds[0],
                        t_nc_interval=(bounds[1][0] + p.epochs_ce, bounds[1][1] + p.epochs_ce), threshold=threshold, level=level,
                        clock=chosen)  # fmt: skip

    def _samples(self) -> tuple[UFM, dict[str, Any]]:
        """The model on samples, which an optimiser needs: the network's own if there are few, else as few as have the same means
        and scatter, with mobility and feature decay that belong to their number."""
        if "H" in self.initial:
            return self.model, self.initial
        s = self.shown
        H, n = stand_ins(s.means, s.scatter / self.samples)
        more = n * len(s.counts) / self.samples  # mobility goes with N, so that theta/N stays
        decay = replace(self.model._decay, features=float(np.asarray(self.model._decay.features)) / more)
        model = replace(self.model, samples_per_class=n, mobility=float(np.asarray(self.model.mobility)) * more, decay=decay)
        return model, {"H": H, **{name: self.initial[name] for name in ("W", "b") if name in self.initial}}


def intervals(fn: float, t_nc: float, errors: tuple[float, float] | None, level: float
              ) -> tuple[tuple[float, float], tuple[float, float]]:  # fmt: skip
    """Log-normal intervals about two forecasts, of relative standard errors `errors`; NaN without them."""
    if errors is None:
        return (np.nan, np.nan), (np.nan, np.nan)
    require(min(errors) >= 0 and bool(np.isfinite(errors).all()), "errors", errors, "two numbers, not negative")
    z = float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))
    widths = [float(np.exp(z * e)) for e in errors]
    return (fn / widths[0], fn * widths[0]), (t_nc / widths[1], t_nc * widths[1])


def stand_ins(means: Array, covariance: Array) -> tuple[Array, int]:
    """(H (p, K n), n): samples, classes contiguous and equal, with these class means (p, K) and within-class covariance (p, p).

    A root of the covariance is shared out in pairs of opposite sign, so that class means stay where they are.
    """
    p, K = means.shape
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    root = vectors * np.sqrt(np.clip(values, 0, None))
    pairs = -(-p // K)
    n = 2 * pairs
    H = np.repeat(means, n, axis=1)
    for j in range(p):
        k, place = j % K, j // K
        step = root[:, j] * np.sqrt(K * n / 2)
        H[:, k * n + 2 * place] += step
        H[:, k * n + 2 * place + 1] -= step
    return H, n


def bridge(source: str | Path | tuple[Network, Tensor, Tensor, TwoPhase], *, lane: int = 0, epoch: int | None = None,
           root: str | Path | None = None, samples: str = "auto") -> Matched:  # fmt: skip
    """The matched model of one lane of a checkpoint.

    Args:
        source: folder of a run with checkpoints, of which the newest is taken; or (network, x (N, ...), y (N,), protocol).
        lane: place among the network's lanes: `protocol.roots` up to the end of phase 1, `protocol.lanes` after it.
        epoch: done, with a network; default the end of phase 1. A state before that is taken for the one at the switch.
        root: data root, with a folder.
        samples: "all" follows every sample, "moments" their means and scatter, "auto" all of them if they are at most 400.

    Raises:
        BadInput: an argument outside what is accepted; a folder without a checkpoint that is intact; numbers that are not finite.
    """
    if isinstance(source, str | Path):
        require(epoch is None, "epoch", epoch, "None with a folder, whose checkpoint has one")
        run = read(source, root)
        source, epoch = (run.net, run.x, run.y, run.protocol), run.done
    good = isinstance(source, tuple) and len(source) == 4 and isinstance(source[3], TwoPhase)
    require(good, "source", type(source).__name__, "a folder with checkpoints, or (network, x, y, protocol)")
    net = source[0]
    whole = isinstance(lane, int | np.integer) and not isinstance(lane, bool) and 0 <= lane < net.lanes
    require(whole, "lane", lane, f"a whole number from 0 to {net.lanes - 1}")
    return bridges(source, epoch=epoch, samples=samples)[lane]


def bridges(source: tuple[Network, Tensor, Tensor, TwoPhase], *, epoch: int | None = None, samples: str = "auto"
            ) -> tuple[Matched, ...]:  # fmt: skip
    """As `bridge`, of every lane."""
    net, x, y, protocol = source
    require(samples in SAMPLES, "samples", samples, f"one of {', '.join(SAMPLES)}")
    require(protocol.normalization == "none" or not net.buffers(), "normalization", protocol.normalization,
            "none: features behind batch normalisation have another model, UFM(normalization=batch)")  # fmt: skip
    require(len(x) == len(y), "y", f"{len(y)} labels", f"{len(x)}, one per sample")
    done = protocol.epochs_ce if epoch is None else epoch
    require(0 <= done <= protocol.epochs, "epoch", done, f"from 0 to {protocol.epochs}")
    lanes = protocol.roots if len(protocol.roots) == net.lanes else protocol.lanes
    require(len(lanes) == net.lanes, "source", f"{net.lanes} lanes", f"a network of the {len(lanes)} lanes of its protocol")
    require(bool(net.theta.isfinite().all()), "source", "a network with NaN or infinite parameters", "finite parameters")
    return tuple(_match(s, protocol, samples) for s in look(net, x, y, protocol, lanes, done))


def _match(s: Checkpoint, protocol: TwoPhase, samples: str) -> Matched:
    p, K = s.means.shape
    N = int(s.counts.sum())
    require(p >= K, "width", p, f"at least {K}, one unit per class")
    require(bool((s.counts > 0).all()), "y", f"classes with {s.counts.min()} samples", f"every one of {K} classes")
    require(s.theta > 0 and s.degree > 0, "source", f"mobility {s.theta:.3g}, degree {s.degree:.3g}", "a network that is pulled: "
            "both greater than 0")  # fmt: skip
    require(samples != "all" or s.features is not None, "samples", samples, f"moments, or at most {ALL} samples; there are {N}")
    bias = "none" if s.bias is None else "decayed" if protocol.decay_biases and s.decay > 0 else "free"
    decay = Decay(weights=s.decay, features=s.decay * s.degree / s.theta, bias=s.decay if bias == "decayed" else 0.0)
    model = UFM(classes=K, samples_per_class=tuple(int(n) for n in s.counts), width=p, loss="mse", loss_scale=1 / K, bias=bias,
                decay=decay, mobility=s.theta)  # fmt: skip
    every = s.features is not None and samples != "moments"
    initial: dict[str, Any] = {"H": s.features} if every else {"M": s.means, "scatter": s.scatter}
    initial |= {"W": [s.weight]} | ({} if s.bias is None else {"b": s.bias})
    return Matched(model=model, initial=initial, protocol=protocol, shown=s, samples=N)
