"""The two-phase protocol as one validated configuration: cross-entropy, then squared error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ncflow.errors import require
from realnets.activations import ACTIVATIONS
from realnets.architectures import ARCHITECTURES
from realnets.data import SCALINGS, SOURCES
from realnets.mlp import LOSSES
from realnets.optimise import OPTIMISERS, SCHEDULES, learning_rate
from realnets.presets import DIGITS, MNIST, PRESETS, RESNET

NC1 = ("nc1_trace_ratio", "nc1_pinv_over_k", "nc1_pinv", "cdnv")
STOPS = ("end", "t_nc")

_LAST_HIDDEN = -2  # place among the weight layers
_UNSET: Any = None  # resolved by data set in __post_init__
if TYPE_CHECKING:  # what an instance holds
    Whole = int
    Wholes = tuple[int, ...]
    Rate = Any  # a float, or a tuple of several
    Numbers = tuple[float, ...]
else:  # what the constructor, and so a command line made from it, takes
    Whole, Wholes = int | None, tuple[int, ...] | None
    Rate = Numbers = tuple[float, ...] | None


class Lane(NamedTuple):
    """What distinguishes one network of a run; lanes that differ in `alpha` alone share phase 1."""

    decay: float
    lr: float
    alpha: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class TwoPhase:
    """What is trained, on what, and how; lanes are decays x learning rates x interventions x seeds, in this order.

    A field left out (None) takes the value of the "digits" preset when the data set is digits, else that of
    "mnist-10k"; the instance holds the resolved values. `subset` alone means what it says: None is the whole
    training set.

    Attributes:
        dataset: digits, mnist, fashion_mnist or cifar10; `subset`, `scaling`, `data_seed`, `image_size` as in
            `realnets.data.load`.
        channels: 3 to repeat a grey image for "resnet20", as the authors did; None as it is.
        architecture: a name of `realnets.architectures.ARCHITECTURES`; `depth` and `width` (at least K) are
            hidden layers and units of "mlp" and what others make of them; `activation`, as a phi(z/a) with a =
            `activation_scale`, and `biases` are for "mlp"; `normalization` ("batch", "none"), `skip` and `shortcut` ("A", "B")
            are for residual networks.
        seeds: of initialisation and mini-batch order, one lane each.
        decays: lambda >= 0, on all parameters, or with `decay_biases` False on the weights of the layers alone.
        batch_size: the last batch of an epoch may be smaller.
        lr: learning rate at the start of each phase; a number, or a sequence for a lane each.
        optimiser: "adam" or "sgd" (decay coupled to the gradient), or "adamw"; a new one in each phase. `momentum` and
            `nesterov` are for "sgd".
        schedule: per epoch: "cosine" over the length of each phase, "cosine_run" over the run, "multistep" (times
            `lr_factor` at the epochs `milestones_ce` of phase 1 and `milestones_mse` of phase 2) or "constant".
        epochs_ce, epochs_mse: lengths of phase 1 (mean cross-entropy) and phase 2 (squared error, mean over N K);
            phase 2 may have none.
        second_loss: "mse", or "cross_entropy" to continue with that in phase 2.
        alphas: factors on a layer at the start of phase 2, one lane each: the paper's intervention.
        rescaled_layer: which one, an index into the weight layers; -2, the last hidden one, is the paper's. Others for mlp only.
        stop: "end", or "t_nc": a lane ends at the first measurement with NC1 below the threshold, as the authors did.
        settle: add a third stage, which brings each lane to rest with a decaying step (see `realnets.settle`), of at most
            `settle_epochs` (default four times those before).
        measure_every: epochs between measurements; the start and the end of each phase are always measured.
        layerwise: measure NC1 after every hidden layer, too.
        threshold, nc1: what counts as collapsed.
        diverged_after: a lane that does not collapse and has NC1 > 0.5 after this epoch counts as diverged; default phase 1
            and a third of phase 2, which for the paper's 200 + 300 is its 300.

    Raises:
        BadInput: a field outside what is accepted; the message names it.
    """

    dataset: str = "digits"
    architecture: str = "mlp"
    subset: int | None = None
    scaling: str = "standardised"
    data_seed: int = 0
    image_size: int | None = None
    channels: int | None = None
    depth: Whole = _UNSET
    width: Whole = _UNSET
    activation: str = "relu"
    activation_scale: float = 1.0
    biases: bool = True
    normalization: str = "batch"
    skip: bool = True
    shortcut: str = "B"
    seeds: Wholes = _UNSET
    decays: Numbers = _UNSET
    decay_biases: bool = True
    batch_size: Whole = _UNSET
    lr: Rate = _UNSET
    optimiser: str = "adam"
    momentum: float = 0.9
    nesterov: bool = True
    schedule: str = "cosine"
    milestones_ce: tuple[int, ...] = ()
    milestones_mse: tuple[int, ...] = ()
    lr_factor: float = 0.1
    epochs_ce: Whole = _UNSET
    epochs_mse: Whole = _UNSET
    second_loss: str = "mse"
    alphas: tuple[float, ...] = (1.0,)
    rescaled_layer: int = _LAST_HIDDEN
    stop: str = "end"
    settle: bool = False
    settle_epochs: Whole = _UNSET
    measure_every: Whole = _UNSET
    layerwise: bool = False
    threshold: float = 0.01
    nc1: str = "nc1_trace_ratio"
    diverged_after: Whole = _UNSET

    def __post_init__(self) -> None:
        self._one_of(
            dataset=tuple(SOURCES),
            architecture=tuple(ARCHITECTURES),
            scaling=SCALINGS,
            activation=tuple(ACTIVATIONS),
            normalization=("batch", "none"),
            shortcut=("A", "B"),
            optimiser=OPTIMISERS,
            schedule=SCHEDULES,
            second_loss=tuple(LOSSES),
            stop=STOPS,
            nc1=NC1,
        )
        usual: dict[str, Any] = dict(DIGITS if self.dataset == "digits" else MNIST)
        if self.architecture == "resnet20":
            usual |= {name: RESNET[name] for name in ("depth", "width")}
        for name, value in usual.items():
            if getattr(self, name) is None:
                self._set(name, value)
        classes = SOURCES[self.dataset].classes
        for name in ("depth", "batch_size", "epochs_ce", "measure_every"):
            self._set(name, _whole(name, getattr(self, name), 1))
        for name in ("epochs_mse", "data_seed"):
            self._set(name, _whole(name, getattr(self, name), 0))
        self._set("width", _whole("width", self.width, classes, ", one unit per class"))
        if self.subset is not None:
            least = ", two images per class; None for all"
            self._set("subset", _whole("subset", self.subset, 2 * classes, least))
        if self.image_size is not None:
            self._set("image_size", _whole("image_size", self.image_size, 1))
        self._channels()
        if self.architecture != "mlp":
            require(self.activation == "relu", "activation", self.activation, f"relu for {self.architecture}")
        for name in ("biases", "nesterov", "skip", "decay_biases", "settle", "layerwise"):
            require(isinstance(getattr(self, name), bool), name, getattr(self, name), "True or False")
        self._set("seeds", tuple(_whole("seeds", v, 0) for v in _sequence("seeds", self.seeds)))
        self._set("decays", tuple(_real("decays", v) for v in _sequence("decays", self.decays)))
        rates = tuple(_real("lr", v, above=True) for v in _sequence("lr", self.lr))
        self._set("lr", rates[0] if len(rates) == 1 else rates)
        self._set("alphas", tuple(_real("alphas", v, above=True) for v in _sequence("alphas", self.alphas)))
        self._layer()
        for name in ("milestones_ce", "milestones_mse"):
            whole = tuple(_whole(name, v, 1) for v in _sequence(name, getattr(self, name), least=0))
            self._set(name, whole)
        self._set("activation_scale", _real("activation_scale", self.activation_scale, above=True))
        self._set("lr_factor", _real("lr_factor", self.lr_factor, above=True))
        self._set("momentum", _real("momentum", self.momentum, below=1))
        self._set("threshold", _real("threshold", self.threshold, above=True, below=1))
        self._spans()

    def _channels(self) -> None:
        there, _, _ = SOURCES[self.dataset].shape
        good = self.channels is None or (self.architecture == "resnet20" and self.channels in (there, 3))
        accepted = "3, or None for as many as there are" if self.architecture == "resnet20" else "None: it is for resnet20"
        require(good, "channels", self.channels, accepted)

    def _layer(self) -> None:
        """The rescaled layer, counted from the head."""
        layer, count = self.rescaled_layer, self.depth + 1
        whole = isinstance(layer, int) and not isinstance(layer, bool) and -count <= layer < count
        require(whole, "rescaled_layer", layer, f"a whole number, {-count} to {count - 1}")
        layer = layer - count if layer >= 0 else layer
        mlp = self.architecture == "mlp" or layer == _LAST_HIDDEN
        require(mlp, "rescaled_layer", self.rescaled_layer, f"{_LAST_HIDDEN} for {self.architecture}")
        self._set("rescaled_layer", layer)

    def _spans(self) -> None:
        """What the lengths of the phases decide."""
        third = self.epochs_ce + self.epochs_mse // 3
        for name, fallback, low in (("settle_epochs", 4 * self.epochs, 1), ("diverged_after", third, 0)):
            value = getattr(self, name)
            self._set(name, fallback if value is None else _whole(name, value, low))
        if any(a != 1 for a in self.alphas):
            require(self.epochs_mse > 0, "alphas", self.alphas, "1 where there is no phase 2, at whose start they act")

    @property
    def lrs(self) -> tuple[float, ...]:
        """Every learning rate, also of a single one."""
        return self.lr if isinstance(self.lr, tuple) else (self.lr,)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """What distinguishes each lane: decay, learning rate, factor, seed; the seed counts fastest."""
        return tuple(Lane(*each) for each in product(self.decays, self.lrs, self.alphas, self.seeds))

    @property
    def roots(self) -> tuple[Lane, ...]:
        """The lanes of phase 1, which those of different `alphas` share."""
        return tuple(Lane(*each) for each in product(self.decays, self.lrs, (1.0,), self.seeds))

    @property
    def branches(self) -> tuple[int, ...]:
        """For each lane, the place in `roots` of the one that it branches from."""
        place = {lane: i for i, lane in enumerate(self.roots)}
        return tuple(place[lane._replace(alpha=1.0)] for lane in self.lanes)

    @property
    def phases(self) -> tuple[tuple[int, str, int], ...]:
        """(number, loss, epochs) of each phase."""
        return ((1, "cross_entropy", self.epochs_ce), (2, self.second_loss, self.epochs_mse))

    @property
    def losses(self) -> dict[int, str]:
        """Loss of each phase by its number; the settling stage, 3, has that of the last phase before it."""
        return {1: "cross_entropy", 2: self.second_loss, 3: self.second_loss if self.epochs_mse else "cross_entropy"}

    @property
    def epochs(self) -> int:
        """Of phase 1 and 2."""
        return self.epochs_ce + self.epochs_mse

    def rates(self, phase: int, epoch: int) -> tuple[float, ...]:
        """The learning rate of each of `lrs` during `epoch` (from 0) of `phase`, 1 or 2."""
        length = self.epochs_ce if phase == 1 else self.epochs_mse
        if self.schedule == "cosine_run":
            epoch, length = epoch + (phase == 2) * self.epochs_ce, self.epochs
        milestones = self.milestones_ce if phase == 1 else self.milestones_mse
        return tuple(learning_rate(self.schedule, lr, epoch, length, milestones, self.lr_factor) for lr in self.lrs)

    def config(self) -> dict[str, Any]:
        """Every field, JSON-ready; a run of the paper's intervention is the same as before there were others."""
        fields = asdict(self)
        if self.rescaled_layer == _LAST_HIDDEN:
            del fields["rescaled_layer"]
        return fields

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _one_of(self, **accepted: tuple[str, ...]) -> None:
        for name, choices in accepted.items():
            value = getattr(self, name)
            require(isinstance(value, str) and value in choices, name, value, f"one of {', '.join(choices)}")


def preset(name: str, **overrides: Any) -> TwoPhase:
    """The setting `name` of `PRESETS` with some fields replaced.

    Raises:
        BadInput: unknown preset or field, or a value that `TwoPhase` refuses.
    """
    require(isinstance(name, str) and name in PRESETS, "preset", name, f"one of {', '.join(PRESETS)}")
    fields = TwoPhase.__dataclass_fields__
    for field in overrides:
        require(field in fields, "override", field, f"one of {', '.join(fields)}")
    return TwoPhase(**{**PRESETS[name], **overrides})


def _whole(name: str, value: Any, low: int, why: str = "") -> int:
    good = isinstance(value, int | np.integer) and not isinstance(value, bool) and low <= value < 2**63
    require(bool(good), name, value, f"a whole number, at least {low}{why}")
    return int(value)


def _real(name: str, value: Any, *, above: bool = False, below: float = math.inf) -> float:
    """`value` in [0, below), or in (0, below) if `above`."""
    good = isinstance(value, int | float | np.number) and not isinstance(value, bool) and 0 <= value < below
    bounds = ("greater than 0" if above else "not negative") + ("" if below == math.inf else f", below {below}")
    require(bool(good and not (above and value == 0)), name, value, f"a finite number, {bounds}")
    return float(value)


def _sequence(name: str, value: Any, least: int = 1) -> tuple[Any, ...]:
    if isinstance(value, int | float):
        return (value,)
    accepted = "one number or a sequence of numbers"
    require(isinstance(value, Iterable) and not isinstance(value, str), name, value, accepted)
    values = tuple(value)
    require(len(values) >= least, name, value, accepted)
    return values
