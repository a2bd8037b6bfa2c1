"""What `theory` makes of the numbers of a trained network, each kind of number on its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import theory
from ncflow.errors import BadInput, require
from ncflow.model import BIASES
from theory import activation, batchnorm, closure, derivations, derivations_dynamics, strength

LOSSES = ("mse", "cross_entropy")


@dataclass(frozen=True, kw_only=True)
class Network:
    """Numbers of a network; None or () for what is not known. Fields as the options of `ncflow theory network`."""

    classes: int = 10
    samples_per_class: int = 100
    decay: float = 1e-4
    loss: str = "mse"
    loss_scale: float | None = None
    bias: str = "none"
    weight_norm: float | None = None
    cosine: float | None = None
    gram: str | None = None
    theta: float | None = None
    hidden: int | None = None
    phase1_feature_norm: float | None = None
    streams: float | None = None
    lr: float | None = None
    noise: tuple[float, ...] = ()
    activation: str | None = None
    knob: float = 1.0
    scale: tuple[float, ...] = (0.5, 1.0, 2.0)

    def __post_init__(self) -> None:
        require(self.classes >= 2, "classes", self.classes, "at least 2")
        require(self.samples_per_class >= 1, "samples_per_class", self.samples_per_class, "at least 1")
        require(np.isfinite(self.decay) and self.decay > 0, "decay", self.decay, "greater than 0")
        require(self.loss in LOSSES, "loss", self.loss, f"one of {', '.join(LOSSES)}")
        require(self.bias in BIASES, "bias", self.bias, f"one of {', '.join(BIASES)}")
        for name in ("loss_scale", "weight_norm", "theta", "phase1_feature_norm", "streams", "lr", "knob"):
            value = getattr(self, name)
            require(value is None or (np.isfinite(value) and value > 0), name, value, "greater than 0")
        require(self.hidden is None or self.hidden >= 1, "hidden", self.hidden, "at least 1")
        low = -1 / (self.classes - 1)
        require(self.cosine is None or low <= self.cosine < 1, "cosine", self.cosine, f"from {low:g} to below 1")
        require(self.cosine is None or self.gram is None, "gram", self.gram, "without --cosine: it holds the cosines")
        require((self.theta is None) == (self.hidden is None), "hidden", self.hidden, "given with --theta, and only with it")
        require(self.phase1_feature_norm is None or self.theta is not None, "phase1_feature_norm", self.phase1_feature_norm,
                "given with --theta, measured at the same time")
        require(bool(self.noise) == (self.lr is not None), "noise", self.noise, "given with --lr, and only with it")
        asked = (self.weight_norm, self.theta, self.streams, self.lr, self.activation)
        require(any(v is not None for v in asked), "weight_norm", self.weight_norm,
                "at least one of --weight-norm, --theta, --streams, --lr and --activation")

    @property
    def curve(self) -> strength.Square | strength.Softmax:
        """The loss."""
        if self.loss == "mse":
            return strength.Square(self.classes, 1 / self.classes if self.loss_scale is None else self.loss_scale)
        return strength.Softmax(self.classes)

    @property
    def shape(self) -> np.ndarray | None:
        """(K, K) Gram of the raw class means up to scale, None if nothing was said of it."""
        K = self.classes
        if self.gram is not None:
            return _read(self.gram, K)
        return None if self.cosine is None else (1 - self.cosine) * np.eye(K) + self.cosine


def _read(path: str, K: int) -> np.ndarray:
    try:
        found = np.load(path) if Path(path).suffix == ".npy" else np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError) as e:
        raise BadInput("gram", path, f"a .npy or .csv file with {K} x {K} numbers ({type(e).__name__})") from None
    good = found.shape == (K, K) and np.issubdtype(found.dtype, np.number) and np.isfinite(found).all()
    require(bool(good), "gram", f"{path}, {found.dtype} {found.shape}", f"{K} x {K} finite numbers")
    found = np.asarray(found, dtype=float)
    good = np.allclose(found, found.T, rtol=1e-6, atol=1e-9 * np.abs(found).max()) and bool((np.diag(found) > 0).all())
    require(bool(good), "gram", path, "a symmetric matrix with a positive diagonal")
    return found


def implied(network: Network) -> dict[str, Any]:
    """Sections "head", "kernel", "streams", "adam" and "activation", those that the numbers allow, JSON-ready.

    Raises:
        BadInput: naming the number or the assumption that fails.
    """
    parts = {"weight_norm": ("head", _head), "theta": ("kernel", _kernel), "streams": ("streams", _streams),
             "lr": ("adam", _adam), "activation": ("activation", _activation)}
    return {name: make(network) for field, (name, make) in parts.items() if getattr(network, field) is not None}


def _words(found: Any, latex: str) -> dict[str, Any]:
    return {"law": found.law, "status": found.status, "assumptions": list(found.assumptions), "source": found.source,
            "latex": latex}


def _head(net: Network) -> dict[str, Any]:
    require(net.loss == "mse", "loss", net.loss, "mse with --weight-norm: the head of a softmax loss has no closed form")
    assert isinstance(net.curve, strength.Square) and net.weight_norm is not None
    K, c = net.classes, net.curve.loss_scale
    shape = np.eye(K) if net.shape is None else net.shape
    fn = float(theory.feature_norm_from_head(net.weight_norm, shape, net.decay, c, net.bias))
    out: dict[str, Any] = {"feature_norm": fn, "weight_norm": net.weight_norm, "norm_product": fn * net.weight_norm}
    if not np.isfinite(fn):
        scales = np.geomspace(1e-6, 1e6, 2001)[:, None, None]
        most = float(theory.head_from_gram(scales * shape, net.decay, c, net.bias).weight_norm.max())
        raise BadInput("weight_norm", net.weight_norm,
                       f"at most {most:.4g}, the largest head that is stationary at this decay and shape")
    mean = np.mean(np.sqrt(np.diag(shape)))
    head = theory.head_from_gram(shape * (fn / mean) ** 2, net.decay, c, net.bias)
    out["signal"] = 1 + float(np.trace(head.residual)) / (K - (net.bias != "none"))
    said = [] if net.shape is not None else ["Class means taken as an orthogonal frame: give --cosine or --gram for others."]
    words = _words(head, derivations.latex("head"))
    return {**out, **words, "assumptions": [*words["assumptions"], *said]}


def _kernel(net: Network) -> dict[str, Any]:
    assert net.theta is not None and net.hidden is not None
    curve, shape = net.curve, net.shape
    if net.phase1_feature_norm is None:
        found = closure.tangent_kernel(net.theta, net.hidden, net.decay, curve, net.samples_per_class, net.bias, shape=shape)
    else:
        if not isinstance(curve, strength.Square):
            raise BadInput("loss", net.loss, "mse with --phase1-feature-norm: the phase whose rest is forecast")
        found = closure.forecast(net.theta, net.phase1_feature_norm, net.hidden, net.decay, curve, net.samples_per_class,
                                 net.bias, shape=shape)
    require(bool(np.isfinite(found.feature_norm)), "theta", net.theta, "larger: no head is stationary above such features")
    return {"feature_norm": found.feature_norm, "signal": found.signal, "theta": found.theta,
            "feature_decay": found.feature_decay, **_words(found, found.formula)}


def _streams(net: Network) -> dict[str, Any]:
    assert net.streams is not None
    require(net.gram is None, "gram", net.gram, "--cosine instead, with --streams")
    require(net.bias != "decayed", "bias", net.bias, '"none" or "free" with --streams')
    require(net.loss != "mse" or net.bias == "free", "bias", net.bias, '"free" with --streams: the head has to be centred')
    cosine = 0.0 if net.cosine is None else net.cosine
    fn, x = batchnorm.feature_norm(net.curve, net.streams, net.decay, cosine=cosine)
    require(bool(np.isfinite(fn)), "decay", net.decay, "weaker: nothing rests away from zero")
    said = ["Collapsed, head and scales balanced; class means of equal norm and one raw cosine.", batchnorm.POOLING]
    return {"feature_norm": float(fn), "signal": float(x), "streams": net.streams, "cosine": cosine, "law": "batchnorm",
            "status": "exact", "assumptions": said, "source": batchnorm.SOURCE, "latex": derivations.latex("batchnorm")}


def _adam(net: Network) -> dict[str, Any]:
    assert net.lr is not None
    one = theory.effective_rate(net.decay, net.lr, np.array(net.noise))
    out = {"decay_rate": np.atleast_1d(one.rate).tolist(), "norm_floor_per_weight": np.atleast_1d(one.spread).tolist(),
           "noise": list(net.noise), **_words(one, derivations_dynamics.latex("adam_rate"))}
    if len(net.noise) > 1:
        both = theory.balance_rates(net.decay, net.lr, net.noise)
        out["balance_rates"] = both.rate.tolist()
    else:
        out["balance_rates"] = [2 * float(one.rate[0])]
    return out


def _activation(net: Network) -> dict[str, Any]:
    assert net.activation is not None
    x = np.array(net.scale)
    require(bool(np.isfinite(x).all() and (x > 0).all()), "scale", net.scale, "positive numbers")
    degree = activation.local_degree(net.activation, x, net.knob)
    low, high = activation.limits(net.activation)
    return {"name": net.activation, "knob": net.knob, "x": list(net.scale), "degree": degree.tolist(),
            "mean_degree": activation.mean_degree(net.activation, x, net.knob).tolist(), "limits": [low, high],
            "law": "degree", "status": "exact", "source": "derived here",
            "assumptions": ["Local degree x phi'(x)/phi(x) of a phi(x/a); its mean over Gaussian pre-activations by quadrature, "
                            "to 1e-6. ReLU has degree 1 at every knob: a relu(x/a) = relu(x)."],
            "latex": r"k_a(x) = \frac{x \phi_a'(x)}{\phi_a(x)} = k_1(x / a)"}

