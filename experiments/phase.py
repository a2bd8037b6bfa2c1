"""The phase diagram: what happens over weight decay and depth, for free features and for features tied to data.

Free features: T_NC from a drawn or an aligned start (`theory.times`), the fold, beyond which nothing but zero is left, and
the Maxwell line, beyond which zero is cheaper. Data: NC1 at rest of a linear network on Gaussian data with more inputs than
samples, which rises as decay^2; where it passes the threshold no training time suffices. When NC1 comes near that floor is
not known in closed form, so that panel shades the floor itself.

Networks of the paper are placed by tension (`theory.mode`), the one number that says how far a fixed point is from its
fold. A bias-free ReLU network of d hidden layers on orthogonal class means of norm r is a linear network of D = d + 1
factors; free features with M = d layers and n samples per class have its signal at

    decay_free = decay (n r^2)^(-1/D).

A batch-normalised stage of L blocks has that of one layer (D = 2) at decay_free = decay / sqrt(n (K-1) L). The paper's
networks have biases, correlated class means and Adam: where they sit is approximate, and flow time is not epochs.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import theory
from experiments.theory_report import Start
from ncflow import UFM, DeepLinear
from ncflow.errors import require

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Space:
    """What the diagram spans.

    Attributes:
        classes, samples_per_class, width, loss_scale, bias: of the free features.
        amplitude: r, norm of the class means of the data; places the paper's networks too.
        noise: v2 = K eps^2 of the data's i.i.d. noise eps; 0 leaves the data-tied diagram out.
        inputs, data_samples: d, and samples per class, of the data; d exceeds the number of samples.
        decays: lowest and highest decay. points: how many, logarithmic.
        layers: lowest and highest M.
        seed: of the data.
        start: threshold, and where time begins.
    """

    classes: int = 10
    samples_per_class: int = 100
    width: int = 64
    loss_scale: float = 0.1
    bias: str = "none"
    amplitude: float = 10.7
    noise: float = 0.0
    inputs: int = 200
    data_samples: int = 10
    decays: tuple[float, ...] = (1e-6, 5e-2)
    points: int = 50
    layers: tuple[int, ...] = (1, 8)
    seed: int = 0
    start: Start = field(default_factory=Start)

    def __post_init__(self) -> None:
        require(len(self.decays) == 2 and 0 < self.decays[0] < self.decays[1], "decays", self.decays, "LOW HIGH, 0 < LOW < HIGH")
        require(len(self.layers) == 2 and 1 <= self.layers[0] < self.layers[1] <= 50, "layers", self.layers,
                "LOW HIGH, 1 <= LOW < HIGH <= 50")
        require(2 <= self.points <= 2000, "points", self.points, "2 to 2000")
        require(self.bias in ("none", "free"), "bias", self.bias, '"none" or "free"')
        require(self.amplitude > 0, "amplitude", self.amplitude, "greater than 0")
        require(self.noise >= 0, "noise", self.noise, "not negative")
        require(self.data_samples >= 2, "data_samples", self.data_samples, "at least 2 per class")
        require(self.noise == 0 or self.inputs > self.classes * self.data_samples, "inputs", self.inputs,
                f"more than the {self.classes * self.data_samples} samples: NC1 has a limit above 0 otherwise")

    @property
    def grid(self) -> tuple[Array, NDArray[np.int_]]:
        return np.geomspace(self.decays[0], self.decays[1], self.points), np.arange(self.layers[0], self.layers[1] + 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Phase:
    """The diagram; matrices are (layers, decays).

    Attributes:
        decays, layers: axes.
        time, feature_norm: T_NC of free features and fn at rest; inf and nan where nothing collapses.
        regime: names of `theory.Regime`.
        fold, maxwell: (layers,) decays of free features.
        marks: the paper's settings.
        data: of features tied to data, or None: "floor" (layers, decays), NC1 at rest; "rank"; "boundary" (layers,), the decay
            at which the floor reaches the threshold; "fold" (layers,), where the first mode is lost, by bisection, inf
            beyond the grid.
    """

    space: Space
    decays: Array
    layers: NDArray[np.int_]
    time: Array
    feature_norm: Array
    regime: NDArray[Any]
    fold: Array
    maxwell: Array
    marks: list[dict[str, Any]]
    data: dict[str, Array] | None

    def json(self) -> dict[str, Any]:
        matrices = {"t_nc": self.time, "feature_norm": self.feature_norm, "regime": self.regime}
        data = None if self.data is None else {key: value.tolist() for key, value in self.data.items()}
        return {"space": asdict(self.space), "decays": self.decays.tolist(), "layers": self.layers.tolist(),
                "free_features": {**{key: value.tolist() for key, value in matrices.items()}, "fold": self.fold.tolist(),
                                  "maxwell": self.maxwell.tolist()}, "data": data, "paper": self.marks}

    def csv(self) -> str:
        """All points, one line each."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        extra = [] if self.data is None else ["data_nc1_floor", "data_rank"]
        table.writerow(["layers", "decay", "regime", "t_nc", "feature_norm", *extra])
        for i, m in enumerate(self.layers.tolist()):
            for j, lam in enumerate(self.decays.tolist()):
                more = [] if self.data is None else [self.data["floor"][i, j], int(self.data["rank"][i, j])]
                table.writerow([m, lam, self.regime[i, j], self.time[i, j], self.feature_norm[i, j], *more])
        return text.getvalue()


#: The paper's runs that differ in depth or decay: name, hidden layers, decay, what NC1 did (Tables 2, 4 and 6).
PAPER = (
    ("MLP-5", 5, 1e-5, "NC1 < 0.01"),
    ("MLP-5", 5, 5e-5, "NC1 < 0.01"),
    ("MLP-5", 5, 1e-4, "NC1 < 0.01"),
    ("MLP-5", 5, 5e-4, "NC1 stalls at 0.03"),
    ("MLP-2", 2, 1e-4, "NC1 < 0.05"),
    ("MLP-3", 3, 1e-4, "NC1 < 0.05"),
    ("MLP-7", 7, 1e-4, "NC1 < 0.01"),
)
RESNET = ("ResNet-20", 1e-3, 4, "NC1 < 0.01")  # decay; BatchNorms that feed the last residual stream


def placed(space: Space) -> list[dict[str, Any]]:
    """The paper's settings on both diagrams; how, says the module."""
    n, K, r = space.samples_per_class, space.classes, space.amplitude
    marks = [{"name": name, "decay": lam, "outcome": outcome, "free_layers": depth,
              "free_decay": lam * (n * r**2) ** (-1 / (depth + 1)), "data_layers": depth + 1}
             for name, depth, lam, outcome in PAPER]
    name, lam, blocks, outcome = RESNET
    return [*marks, {"name": name, "decay": lam, "outcome": outcome, "free_layers": 1,
                     "free_decay": float(lam / np.sqrt(n * (K - 1) * blocks)), "data_layers": None}]


def phase(space: Space, *, tell: Callable[[str, float], None] = lambda part, share: None) -> Phase:
    """Evaluate the diagram.

    Args:
        tell: called with the part under way and the fraction of it that is done.

    Raises:
        BadInput: naming the argument.
    """
    decays, layers = space.grid
    rows = []
    for i, m in enumerate(layers.tolist()):
        rows.append(_free(space, m, decays))
        tell("features", (i + 1) / len(layers))
    time, fn, regime, fold, maxwell = zip(*rows, strict=True)
    data = None
    if space.noise:
        X, found = _inputs(space), []
        for i, m in enumerate(layers.tolist()):
            found.append(_tied(space, X, m, decays))
            tell("data", (i + 1) / len(layers))
        data = {key: np.array([row[key] for row in found]) for key in ("floor", "rank", "boundary", "fold")}
    return Phase(space=space, decays=decays, layers=layers, time=np.array(time), feature_norm=np.array(fn),
                 regime=np.array(regime, dtype=object), fold=np.array(fold), maxwell=np.array(maxwell), marks=placed(space),
                 data=data)


def _free(space: Space, m: int, decays: Array) -> tuple[Array, Array, list[str], float, float]:
    model = UFM(classes=space.classes, samples_per_class=space.samples_per_class, width=space.width, layers=m,
                loss_scale=space.loss_scale, bias=space.bias, decay=decays.tolist())
    found = theory.time_to_collapse(model, space.start.threshold, signal=space.start.signal, scatter=space.start.scatter)
    point = theory.fixed_point(model)
    gone = np.array([r is theory.Regime.VANISHING for r in found.regime])
    alive = np.where(point.exists, point.feature_norm, np.nan)
    return (np.where(gone, np.inf, found.time), alive, [r.name.lower() for r in found.regime],
            float(theory.fold(model).decay), float(theory.maxwell(model).decay))


def _inputs(space: Space) -> Array:
    """(d, N) class means r times orthonormal vectors plus i.i.d. noise of variance v2/K."""
    rng = np.random.default_rng(space.seed)
    frame = np.linalg.qr(rng.normal(size=(space.inputs, space.classes)))[0]
    noise = rng.normal(size=(space.inputs, space.classes * space.data_samples)) * np.sqrt(space.noise / space.classes)
    return space.amplitude * np.repeat(frame, space.data_samples, axis=1) + noise


def _tied(space: Space, X: Array, m: int, decays: Array) -> dict[str, Any]:
    def model(lam: Any) -> DeepLinear:
        return DeepLinear(inputs=X, classes=space.classes, samples_per_class=space.data_samples, layers=m,
                          width=space.classes, loss_scale=space.loss_scale, bias=space.bias, decay=lam)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # near the fold the descent is slow; a pixel does not show it
        point = theory.fixed_point(model(decays.tolist()))
        boundary = theory.floor_boundary(model(float(decays[0])), space.start.threshold).decay if m > 1 else np.nan
        full = space.classes - (space.bias != "none")
        lost, fold = np.flatnonzero(point.rank < full), np.inf
        if len(lost) and lost[0]:
            low, high = decays[lost[0] - 1], decays[lost[0]]
            for _ in range(8):
                middle = float(np.sqrt(low * high))
                low, high = (middle, high) if theory.fixed_point(model(middle)).rank == full else (low, middle)
            fold = float(np.sqrt(low * high))
    return {"floor": np.where(point.rank == full, point.nc1_floor, np.nan), "rank": point.rank, "boundary": boundary,
            "fold": fold}
