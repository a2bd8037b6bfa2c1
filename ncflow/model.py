"""What is minimised: the unconstrained-features model and its data-tied sibling, as validated frozen dataclasses.

Both share one loss,

    L = (c/N) |logits - Y|_F^2 + sum_l (lambda_l/2) |W_l|_F^2 + (lambda_H/2) |H|_F^2 + (lambda_b/2) |b|^2,

with logits = W_M ... W_1 H + b 1^T. In `UFM` the features H are free variables; in `DeepLinear` they are the data X, which
are fixed. The conventions (letters, loss scale, bias modes) are those of the package docstring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np

from ncflow.activations import find
from ncflow.errors import BadInput, require
from ncflow.losses import LOSSES

BIASES = ("none", "free", "decayed")
NORMALIZATIONS = ("none", "batch")
CLASSIFIERS = ("free", "etf")

Numbers = float | Sequence[float]


def _numbers(name: str, value: Any, *, ndim: int = 1, positive: bool = False) -> Any:
    """`value` as a float or nested tuples of floats, every entry finite and not negative."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, dtype=object)  # rows of unequal length
    require(array.dtype.kind in ("i", "u", "f"), name, value, "a number or a sequence of numbers is accepted")
    array = array.astype(float)
    low = "greater than 0" if positive else "not negative"
    inside = np.isfinite(array) & ((array > 0) if positive else (array >= 0))
    require(array.ndim <= ndim and array.size > 0 and bool(inside.all()), name, value,
            f"finite and {low}, one number or a sequence of at most {ndim} dimension(s)")
    return float(array) if array.ndim == 0 else _tuples(array.tolist())


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _whole(name: str, value: Any, low: int) -> int:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    require(whole and bool(value >= low), name, value, f"a whole number, at least {low}")
    return int(value)


def _choice(name: str, value: Any, accepted: tuple[str, ...]) -> None:
    require(value in accepted, name, value, f"one of {', '.join(accepted)}")


@dataclass(frozen=True)
class Decay:
    """Weight decays lambda of each group, the factor in (lambda/2)|.|^2.

    Attributes:
        weights: one number for all layers; a sequence of length `layers` (> 1), one per layer; a sequence of any other
            length, one per lane; or a (lanes, layers) array, of which either axis may have length 1.
        features: one number or one per lane.
        bias: one number or one per lane; used when the model's bias is "decayed".
    """

    weights: Any = 5e-4
    features: Numbers = 5e-4
    bias: Numbers = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _numbers("decay.weights", self.weights, ndim=2))
        object.__setattr__(self, "features", _numbers("decay.features", self.features))
        object.__setattr__(self, "bias", _numbers("decay.bias", self.bias))


@dataclass(frozen=True)
class Isotropic:
    """Input data known by its moments: the model's `inputs` when only the geometry matters.

    Class means are `amplitude` (r) times orthonormal vectors and the total within-class scatter is E E^T = n v2 I with
    v2 = `noise`; i.i.d. noise of standard deviation eps per coordinate corresponds to v2 = K eps^2.
    """

    amplitude: float
    noise: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "amplitude", _numbers("inputs.amplitude", self.amplitude, ndim=0, positive=True))
        object.__setattr__(self, "noise", _numbers("inputs.noise", self.noise, ndim=0))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Classifier:
    """The part that `UFM` and `DeepLinear` share: classes, layers above the features, loss and bias."""

    classes: int
    samples_per_class: int | Sequence[int] = 100
    layers: int = 1
    loss: str = "mse"
    loss_scale: float = 0.5
    bias: str = "none"
    activation: str = "linear"
    activation_scale: Numbers = 1.0
    smoothing: float = 0.0
    focal_gamma: float = 0.0

    def _validate(self) -> None:
        object.__setattr__(self, "classes", _whole("classes", self.classes, 2))
        object.__setattr__(self, "layers", _whole("layers", self.layers, 1))
        n = self.samples_per_class
        if isinstance(n, Sequence | np.ndarray):
            require(len(n) == self.classes, "samples_per_class", n,
                    f"one number or a sequence of {self.classes} (one per class)")
            object.__setattr__(self, "samples_per_class", tuple(_whole("samples_per_class", v, 1) for v in n))
        else:
            object.__setattr__(self, "samples_per_class", _whole("samples_per_class", n, 1))
        _choice("loss", self.loss, LOSSES)
        _choice("bias", self.bias, BIASES)
        find(self.activation)
        object.__setattr__(self, "activation_scale", _numbers("activation_scale", self.activation_scale, positive=True))
        for name, loss in (("smoothing", "label_smoothing"), ("focal_gamma", "focal")):
            value = _numbers(name, getattr(self, name), ndim=0)
            require(value == 0 or self.loss == loss, name, value, f'0 unless loss = "{loss}"')
            object.__setattr__(self, name, value)
        require(self.smoothing < 1, "smoothing", self.smoothing, "below 1")
        object.__setattr__(self, "loss_scale", _numbers("loss_scale", self.loss_scale, ndim=0, positive=True))

    @cached_property
    def class_counts(self) -> tuple[int, ...]:
        """n_k for k = 1..K."""
        n = self.samples_per_class
        return (n,) * self.classes if isinstance(n, int) else tuple(n)

    @property
    def activation_scales(self) -> np.ndarray:
        """(lanes,) the knob a of a phi(x/a)."""
        return np.broadcast_to(np.asarray(self.activation_scale, dtype=float), (self.lanes,)).copy()

    @property
    def lanes(self) -> int:
        """Number of lanes that the numeric fields span (1 if none is a sequence)."""
        raise NotImplementedError

    @property
    def samples(self) -> int:
        """N = sum of n_k."""
        return sum(self.class_counts)

    @property
    def balanced(self) -> bool:
        return len(set(self.class_counts)) == 1

    @property
    def directions(self) -> int:
        """The least width: the most directions that class means can need in a layer, K, or K - 1 for a simplex.

        A softmax loss does not see the mean of the logits, and a free bias fits it: the rows of what drives a linear model sum to
        zero, whatever the class sizes. A bias that is decayed leaves a part of the mean to the features, and ReLUs (also
        `nonnegative` and batch-normalised features) cannot lie on both sides of it.
        """
        simplex = self.activation == "linear" and (self.loss != "mse" or self.bias == "free")
        return self.classes - 1 if simplex else self.classes

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) class of each sample, classes contiguous."""
        return np.repeat(np.arange(self.classes), self.class_counts)


def _widths(name: str, value: Any, count: int, model: _Classifier) -> tuple[int, ...]:
    widths = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value,) * count
    require(len(widths) == count, name, value, f"one number or a sequence of {count}")
    low = model.directions
    why = ("the number of classes: a narrower layer cannot carry one direction per class" if low == model.classes else
           "the number of classes less one: a narrower layer cannot carry a simplex")
    for w in widths:
        require(isinstance(w, int | np.integer) and bool(w >= low), name, value, f"a whole number, at least {low}, {why}")
    return tuple(int(w) for w in widths)


def _lane_count(name: str, lengths: list[int]) -> int:
    several = sorted({n for n in lengths if n != 1})
    require(len(several) <= 1, name, several, "sequences over lanes must have one common length")
    return several[0] if several else 1


@dataclass(frozen=True, kw_only=True, eq=False)
class UFM(_Classifier):
    """Unconstrained-features model: features H (p_0 x N) are free, `layers` = M weight matrices stand above them.

    Mixon, Parshall and Pi (2020) for M = 1; Tirer and Bruna (2022), Dang et al. (2023) for more layers.

    Attributes:
        classes: K >= 2.
        samples_per_class: n, or n_1..n_K.
        width: one number, or p_0..p_{M-1}: width of the features and of each hidden layer; all at least
            `directions`, K or K - 1.
        layers: M >= 1; W_1 is (p_1 x p_0), ..., the head W_M is (K x p_{M-1}).
        loss: "mse", "cross_entropy", "label_smoothing" (with `smoothing`) or "focal" (with `focal_gamma`).
        loss_scale: c in (c/N)|.|_F^2; 1/2 is the theory convention, 1/K is PyTorch's `MSELoss` mean.
        bias: "none", "free" (not decayed) or "decayed" head bias.
        activation: a name that `ncflow.activations.find` knows ("relu^1.5" too), applied to the output of every layer below the
            head (not to the free features), as a phi(x/a) with a = `activation_scale`, one number or one per lane.
        decay: a `Decay`, or one number (or one per lane) for weights and features, and the bias if it is decayed.
        mobility: theta in dH/dt = -theta dL/dH, one number or one per lane; 1 is the plain UFM.
        nonnegative: whether the features are constrained to H >= 0, as what follows a ReLU.
        normalization: "none", or "batch": the features are a ReLU of `streams` batch-normalised blocks summed on one residual
            stream, gamma and beta decayed like the head and the blocks by `decay.features`; one layer.
        classifier: "free", or "etf": the head is a simplex ETF with rows of norm 1 and does not move.

    Raises:
        BadInput: a field outside what is accepted; the message names it.
    """

    width: int | Sequence[int] = 64
    decay: Decay | Numbers = field(default_factory=Decay)
    mobility: Numbers = 1.0
    nonnegative: bool = False
    normalization: str = "none"
    streams: int = 1
    classifier: str = "free"

    def __post_init__(self) -> None:
        self._validate()
        object.__setattr__(self, "width", _widths("width", self.width, self.layers, self))
        require(isinstance(self.nonnegative, bool), "nonnegative", self.nonnegative, "True or False")
        _choice("normalization", self.normalization, NORMALIZATIONS)
        _choice("classifier", self.classifier, CLASSIFIERS)
        object.__setattr__(self, "streams", _whole("streams", self.streams, 1))
        require(self.activation == "linear" or self.layers > 1, "activation", self.activation,
                '"linear" with one layer: it acts on hidden layers (nonnegative = True constrains the features)')
        batch = self.normalization == "batch"
        require(batch or self.streams == 1, "streams", self.streams, '1 unless normalization = "batch"')
        require(not batch or self.layers == 1, "layers", self.layers, '1 with normalization = "batch"')
        require(not (batch and self.nonnegative), "nonnegative", True, 'False with normalization = "batch", whose ReLU does it')
        require(not (batch and self.classifier == "etf"), "classifier", self.classifier, '"free" with normalization = "batch"')
        if not isinstance(self.decay, Decay):
            both = _numbers("decay", self.decay)
            column = both if isinstance(both, float) else tuple((v,) for v in both)
            object.__setattr__(self, "decay", Decay(column, both, both if self.bias == "decayed" else 0.0))
        object.__setattr__(self, "mobility", _numbers("mobility", self.mobility, positive=True))
        require(self.bias != "free" or not np.any(self._decay.bias), "decay.bias", self._decay.bias,
                'must be 0 when bias = "free"; use bias = "decayed" to decay it')
        _ = self.lanes

    @property
    def directions(self) -> int:
        """As in every model, but features >= 0 need K, and a frozen simplex spans K - 1 whatever the loss."""
        if self.nonnegative or self.normalization == "batch":
            return self.classes
        frozen = self.classifier == "etf" and self.activation == "linear"
        return self.classes - 1 if frozen else super().directions

    @property
    def _decay(self) -> Decay:
        """What `decay` holds once it is validated."""
        return cast(Decay, self.decay)

    @property
    def widths(self) -> tuple[int, ...]:
        """(p_0, ..., p_{M-1})."""
        return self.width  # type: ignore[return-value]

    @cached_property
    def weight_shapes(self) -> tuple[tuple[int, int], ...]:
        """Shapes of W_1..W_M, (outputs, inputs)."""
        return tuple(zip((*self.widths[1:], self.classes), self.widths, strict=True))

    @property
    def block_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the free variables by name, in the order of a packed state: features (or batch-normalised blocks), W's, b."""
        p, N = self.widths[0], self.samples
        weights = {f"W_{i}": s for i, s in enumerate(self.weight_shapes, 1)}
        bias = {"b": (self.classes,)} if self.bias != "none" else {}
        if self.normalization == "batch":
            L = self.streams
            return {"Z": (L, p, N), "gamma": (L, p), "beta": (L, p), **weights, **bias}
        return {"H": (p, N), **weights, **bias}

    @cached_property
    def _weight_decays(self) -> np.ndarray:
        array = np.asarray(self._decay.weights, dtype=float)
        if array.ndim == 1:
            array = array[None, :] if self.layers > 1 and array.size == self.layers else array[:, None]
        array = array.reshape(1, 1) if array.ndim == 0 else array
        require(array.shape[1] in (1, self.layers), "decay.weights", self._decay.weights,
                f"1 or {self.layers} (layers) columns")
        return array

    @cached_property
    def lanes(self) -> int:
        """Number of lanes that the numeric fields span (1 if none is a sequence)."""
        sizes = [np.size(v) for v in (self._decay.features, self._decay.bias, self.mobility, self.activation_scale)]
        return _lane_count("decay, mobility and activation_scale", [*sizes, self._weight_decays.shape[0]])

    @property
    def weight_decays(self) -> np.ndarray:
        """(lanes, M) lambda_1..lambda_M."""
        return np.broadcast_to(self._weight_decays, (self.lanes, self.layers)).copy()

    @property
    def feature_decays(self) -> np.ndarray:
        """(lanes,) lambda_H."""
        return np.broadcast_to(np.asarray(self._decay.features, dtype=float), (self.lanes,)).copy()

    @property
    def bias_decays(self) -> np.ndarray:
        """(lanes,) lambda_b; zero unless the bias is decayed."""
        used = self._decay.bias if self.bias == "decayed" else 0.0
        return np.broadcast_to(np.asarray(used, dtype=float), (self.lanes,)).copy()

    @property
    def mobilities(self) -> np.ndarray:
        """(lanes,) theta."""
        return np.broadcast_to(np.asarray(self.mobility, dtype=float), (self.lanes,)).copy()


@dataclass(frozen=True, kw_only=True, eq=False)
class DeepLinear(_Classifier):
    """Linear network of `layers` = M weight matrices on fixed data X: logits = W_M ... W_1 X + b 1^T, one decay for all.

    The data-tied counterpart of `UFM`: what a bias-free MLP with M - 1 hidden layers becomes without its activation. With an
    `activation` it is that MLP, under exact gradient flow.

    Attributes:
        inputs: X, an array (d x N) with the samples of a class contiguous, or `Isotropic` moments.
        classes, samples_per_class, layers, loss, loss_scale, bias, activation ...: as in `UFM`; M counts the weight layers
            above the input, so an MLP with d hidden layers has M = d + 1. A bias is decayed by `decay` if "decayed".
        width: one number, or p_1..p_{M-1}; at least `directions`, K or K - 1. The fixed point does not depend on it.
        decay: lambda of every layer, one number or one per lane.

    Raises:
        BadInput: a field outside what is accepted; the message names it.
    """

    inputs: Any
    width: int | Sequence[int] = 64
    decay: Numbers = 5e-4

    def __post_init__(self) -> None:
        self._validate()
        object.__setattr__(self, "width", _widths("width", self.width, self.layers - 1, self))
        object.__setattr__(self, "decay", _numbers("decay", self.decay))
        _ = self.lanes
        if isinstance(self.inputs, Isotropic):
            require(self.loss == "mse" and self.activation == "linear", "inputs", self.inputs,
                    "an array unless loss is mse and activation linear: moments are not enough")
            require(self.balanced, "samples_per_class", self.samples_per_class, "equal classes with Isotropic inputs")
            return
        try:
            X = np.array(self.inputs, dtype=np.float64)
        except (TypeError, ValueError):
            raise BadInput("inputs", type(self.inputs), "an array (d, N) or Isotropic(amplitude, noise)") from None
        require(X.ndim == 2 and X.shape[1] == self.samples, "inputs", f"array of shape {X.shape}",
                f"shape (d, N) with N = {self.samples}, the sum of samples_per_class")
        require(bool(np.isfinite(X).all()), "inputs", "an array with NaN or infinite entries", "finite entries")
        X.setflags(write=False)
        object.__setattr__(self, "inputs", X)

    @property
    def widths(self) -> tuple[int, ...]:
        """(p_1, ..., p_{M-1})."""
        return self.width  # type: ignore[return-value]

    @property
    def input_size(self) -> int:
        """d; for `Isotropic` data the K directions of the class means."""
        return self.classes if isinstance(self.inputs, Isotropic) else self.inputs.shape[0]

    @cached_property
    def weight_shapes(self) -> tuple[tuple[int, int], ...]:
        """Shapes of W_1..W_M, (outputs, inputs)."""
        return tuple(zip((*self.widths, self.classes), (self.input_size, *self.widths), strict=True))

    @property
    def lanes(self) -> int:
        """Number of lanes that `decay` and `activation_scale` span."""
        return _lane_count("decay and activation_scale", [np.size(self.decay), np.size(self.activation_scale)])

    @property
    def block_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the free variables by name, in the order of a packed state: W's, b."""
        bias = {"b": (self.classes,)} if self.bias != "none" else {}
        return {f"W_{i}": s for i, s in enumerate(self.weight_shapes, 1)} | bias

    @property
    def decays(self) -> np.ndarray:
        """(lanes,) lambda."""
        return np.broadcast_to(np.asarray(self.decay, dtype=float), (self.lanes,)).copy()

    @property
    def weight_decays(self) -> np.ndarray:
        """(lanes, M), the same lambda for every layer."""
        return np.repeat(self.decays[:, None], self.layers, axis=1)

    @property
    def bias_decays(self) -> np.ndarray:
        """(lanes,) lambda_b; zero unless the bias is decayed."""
        return self.decays if self.bias == "decayed" else np.zeros(self.lanes)
