"""The two-phase protocol as one validated configuration: cross-entropy, then squared error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ncflow.errors import require
from realnets.data import SCALINGS, SOURCES
from realnets.mlp import ACTIVATIONS
from realnets.optimise import OPTIMISERS, SCHEDULES

ARCHITECTURES = ("mlp",)
NC1 = ("nc1_trace_ratio", "nc1_pinv_over_k", "nc1_pinv", "cdnv")
PHASES = MappingProxyType({1: "cross_entropy", 2: "mse"})

_DIGITS = {
    "dataset": "digits",
    "depth": 5,
    "width": 64,
    "batch_size": 16,
    "lr": 3e-3,
    "epochs_ce": 20,
    "epochs_mse": 150,
    "seeds": (0, 1, 2),
    "decays": (1e-5, 1e-4, 3e-4, 1e-3),
    "measure_every": 2,
}
_MNIST = {
    "dataset": "mnist",
    "depth": 5,
    "width": 128,
    "batch_size": 64,
    "lr": 1e-3,
    "epochs_ce": 10,
    "epochs_mse": 170,
    "seeds": (0, 1, 2),
    "decays": (5e-5, 1e-4, 2e-4, 5e-4),
    "measure_every": 2,
}
_PAPER = {**_MNIST, "width": 512, "epochs_ce": 200, "decays": (1e-4,), "measure_every": 10}

#: Named settings: two that show the phenomenon in minutes on one core, and the authors' own, by experiment.
PRESETS: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "digits": _DIGITS,
        "mnist-10k": {**_MNIST, "subset": 10_000},
        "paper-mlp-baseline": {**_PAPER, "batch_size": 256, "epochs_mse": 300},
        "paper-mlp-sweep": {**_PAPER, "batch_size": 256, "epochs_mse": 400},
        "paper-mlp-decay": {**_PAPER, "batch_size": 256, "epochs_mse": 600},
        "paper-mlp-width": {**_PAPER, "batch_size": 512, "epochs_mse": 500},
        "paper-mlp-intervention": {**_PAPER, "batch_size": 512, "epochs_mse": 400},
    }
)
_UNSET: Any = None  # resolved by data set in __post_init__
if TYPE_CHECKING:  # what an instance holds
    Whole = int
    Wholes = tuple[int, ...]
    Number = float
    Numbers = tuple[float, ...]
else:  # what the constructor, and so a command line made from it, takes
    Whole, Wholes = int | None, tuple[int, ...] | None
    Number, Numbers = float | None, tuple[float, ...] | None


@dataclass(frozen=True, kw_only=True)
class TwoPhase:
    """What is trained, on what, and how; lanes are decays x seeds, decay-major.

    A field left out (None) takes the value of the "digits" preset when the data set is digits, else that of
    "mnist-10k"; the instance holds the resolved values. `subset` alone means what it says: None is the whole
    training set.

    Attributes:
        dataset: digits, mnist, fashion_mnist or cifar10; `subset`, `scaling`, `data_seed` as in
            `realnets.data.load`.
        architecture: "mlp"; `depth` hidden layers of `width` units (at least K = 10), `activation`, `biases`
            or not.
        seeds: of initialisation and mini-batch order, one lane each.
        decays: lambda >= 0, coupled to the gradient, on all parameters, biases included.
        batch_size: the last batch of an epoch may be smaller.
        lr: learning rate at the start of each phase.
        optimiser: "adam", or "sgd" with `momentum` and `nesterov`; a new one in each phase.
        schedule: "cosine" over the length of each phase, stepped per epoch; or "constant".
        epochs_ce, epochs_mse: lengths of phase 1 (mean cross-entropy) and phase 2 (squared error, mean over N
            K).
        measure_every: epochs between measurements; the start and the end of each phase are always measured.
        threshold, nc1: what counts as collapsed; recorded for the summary, training does not stop there.

    Raises:
        BadInput: a field outside what is accepted; the message names it.
    """

    dataset: str = "digits"
    architecture: str = "mlp"
    subset: int | None = None
    scaling: str = "standardised"
    data_seed: int = 0
    depth: Whole = _UNSET
    width: Whole = _UNSET
    activation: str = "relu"
    biases: bool = True
    seeds: Wholes = _UNSET
    decays: Numbers = _UNSET
    batch_size: Whole = _UNSET
    lr: Number = _UNSET
    optimiser: str = "adam"
    momentum: float = 0.9
    nesterov: bool = True
    schedule: str = "cosine"
    epochs_ce: Whole = _UNSET
    epochs_mse: Whole = _UNSET
    measure_every: Whole = _UNSET
    threshold: float = 0.01
    nc1: str = "nc1_trace_ratio"

    def __post_init__(self) -> None:
        self._one_of(
            dataset=tuple(SOURCES),
            architecture=ARCHITECTURES,
            scaling=SCALINGS,
            activation=tuple(ACTIVATIONS),
            optimiser=OPTIMISERS,
            schedule=SCHEDULES,
            nc1=NC1,
        )
        for name, value in (_DIGITS if self.dataset == "digits" else _MNIST).items():
            if getattr(self, name) is None:
                self._settle(name, value)
        classes = SOURCES[self.dataset].classes
        for name in ("depth", "batch_size", "epochs_ce", "epochs_mse", "measure_every"):
            self._settle(name, _whole(name, getattr(self, name), 1))
        self._settle("width", _whole("width", self.width, classes, ", one unit per class"))
        self._settle("data_seed", _whole("data_seed", self.data_seed, 0))
        if self.subset is not None:
            least = ", two images per class; None for all"
            self._settle("subset", _whole("subset", self.subset, 2 * classes, least))
        for name in ("biases", "nesterov"):
            require(isinstance(getattr(self, name), bool), name, getattr(self, name), "True or False")
        self._settle("seeds", tuple(_whole("seeds", v, 0) for v in _sequence("seeds", self.seeds)))
        self._settle("decays", tuple(_real("decays", v) for v in _sequence("decays", self.decays)))
        self._settle("lr", _real("lr", self.lr, above=True))
        self._settle("momentum", _real("momentum", self.momentum, below=1))
        self._settle("threshold", _real("threshold", self.threshold, above=True, below=1))

    @property
    def lanes(self) -> tuple[tuple[float, int], ...]:
        """(decay, seed) of each lane."""
        return tuple((decay, seed) for decay in self.decays for seed in self.seeds)

    @property
    def phases(self) -> tuple[tuple[int, str, int], ...]:
        """(number, loss, epochs) of each phase."""
        return tuple(zip(PHASES, PHASES.values(), (self.epochs_ce, self.epochs_mse), strict=True))

    @property
    def epochs(self) -> int:
        return self.epochs_ce + self.epochs_mse

    def config(self) -> dict[str, Any]:
        """Every field, JSON-ready."""
        return asdict(self)

    def _settle(self, name: str, value: Any) -> None:
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
    bounds = ("greater than 0" if above else "not negative") + (
        "" if below == math.inf else f", below {below}"
    )
    require(bool(good and not (above and value == 0)), name, value, f"a finite number, {bounds}")
    return float(value)


def _sequence(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, int | float):
        return (value,)
    accepted = "one number or a sequence of numbers"
    require(isinstance(value, Iterable) and not isinstance(value, str), name, value, accepted)
    values = tuple(value)
    require(len(values) > 0, name, value, accepted)
    return values
