"""The model options of `ncflow theory`: a `UFM` or a `DeepLinear` from a command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any

import numpy as np
import tyro

from ncflow import UFM, Decay, DeepLinear, Isotropic
from ncflow.errors import BadInput, require


def option(text: str, **words: Any) -> Any:
    """tyro's description of one option."""
    return tyro.conf.arg(help=text, **words)


def number(text: str, default: str) -> Any:
    """The description of a number that another option or the model decides when it is not given."""
    return option(text, metavar="FLOAT", help_behavior_hint=f"(default: {default})")


MODELS = ("ufm", "deep_linear")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Fields of the command line that describe a model; None leaves a field to the model's own default."""

    model: Annotated[str, option("ufm (free features) or deep_linear (features tied to data)")] = "ufm"
    classes: Annotated[int, option("K")] = 4
    samples_per_class: Annotated[tuple[int, ...], option("n, or one number per class", metavar="INT ...")] = (100,)
    width: Annotated[tuple[int, ...], option("of features and hidden layers: one number or one each", metavar="INT ...")] = (64,)
    layers: Annotated[int, option("M weight layers above the features (ufm) or above the data (deep_linear)")] = 1
    loss: Annotated[str, option("mse, cross_entropy, label_smoothing or focal")] = "mse"
    loss_scale: Annotated[float, option("c in (c/N)|.|^2 of mse; 1/K is PyTorch's mean")] = 0.5
    smoothing: Annotated[float, option("a of label_smoothing")] = 0.0
    focal_gamma: Annotated[float, option("gamma of focal")] = 0.0
    bias: Annotated[str, option("of the head: none, free or decayed")] = "none"
    decay: Annotated[float, option("weight decay of everything that is decayed")] = 5e-4
    weight_decay: Annotated[tuple[float, ...] | None, option(
        "of the weights: one number or one per layer", metavar="FLOAT ...", help_behavior_hint="(default: decay)")] = None
    feature_decay: Annotated[float | None, number("of the free features", "decay")] = None
    bias_decay: Annotated[float | None, number("of a decayed bias", "decay")] = None
    mobility: Annotated[float | None, number("theta, clock of the free features", "1")] = None
    activation: Annotated[str, option("linear or relu, of the layers between features and head")] = "linear"
    nonnegative: Annotated[bool, option("features H >= 0")] = False
    normalization: Annotated[str, option("none, or batch: batch-normalised features")] = "none"
    streams: Annotated[int, option("L batch-normalised blocks summed on the residual stream")] = 1
    classifier: Annotated[str, option("free, or etf: a frozen simplex")] = "free"
    amplitude: Annotated[float | None, number("r, norm of the class means of the data (deep_linear)", "1")] = None
    noise: Annotated[float | None, number(
        "v2 = K eps^2, noise of standard deviation eps per coordinate of the data (deep_linear)", "0")] = None
    dataset: Annotated[str | None, option("real inputs for deep_linear: digits, mnist, fashion_mnist or cifar10",
                                          metavar="NAME", help_behavior_hint="(default: isotropic)")] = None
    subset: Annotated[int | None, option("this many images of the data set, the same number of each class", metavar="INT",
                                         help_behavior_hint="(default: all)")] = None
    data: Annotated[str | None, option("folder of the data sets", metavar="PATH",
                                       help_behavior_hint="(default: NCFLOW_DATA, else the user's cache)")] = None


#: Options of free features that mean nothing on data, and the other way round.
FREE_ONLY = ("weight_decay", "feature_decay", "mobility", "nonnegative", "normalization", "streams", "classifier")
DATA_ONLY = ("amplitude", "noise", "dataset", "subset", "data")
#: What can be swept, with the lanes of one model or with a model for each value.
LANES = ("decay", "weight_decay", "feature_decay", "bias_decay", "mobility")
WHOLE = ("classes", "samples_per_class", "layers", "width", "streams")
SWEPT = (*LANES, *WHOLE, "loss_scale", "smoothing", "focal_gamma", "amplitude", "noise")


def build(setting: Any, **values: Any) -> UFM | DeepLinear:
    """The model of `setting`, fields in `values` replaced; a field of `LANES` may be an array, a lane for each entry.

    Raises:
        BadInput: naming the option.
    """
    v = {f.name: values.get(f.name, getattr(setting, f.name)) for f in fields(Setting)}
    require(v["model"] in MODELS, "model", v["model"], f"one of {', '.join(MODELS)}")
    free = v["model"] == "ufm"
    defaults = {f.name: f.default for f in fields(Setting)}
    for name in DATA_ONLY if free else FREE_ONLY:
        if v[name] != defaults[name]:
            raise BadInput(name, v[name], f"used with --model {'deep_linear' if free else 'ufm'} only")
    require(v["bias_decay"] is None or (v["bias"] == "decayed" and free), "bias_decay", v["bias_decay"],
            "used with --model ufm --bias decayed only")
    common: dict[str, Any] = dict(
        classes=v["classes"], samples_per_class=_one(v["samples_per_class"]), layers=v["layers"], loss=v["loss"],
        loss_scale=v["loss_scale"], smoothing=v["smoothing"], focal_gamma=v["focal_gamma"], bias=v["bias"],
        activation=v["activation"])
    width = _one(v["width"])
    if not free:
        if v["dataset"] is not None:
            return DeepLinear(**_images(v, common), decay=_lanes(v["decay"]))
        for name in ("subset", "data"):
            require(v[name] is None, name, v[name], "used with --dataset only")
        inputs = Isotropic(1.0 if v["amplitude"] is None else v["amplitude"], v["noise"] or 0.0)
        return DeepLinear(**common, inputs=inputs, width=width, decay=_lanes(v["decay"]))
    every = v["decay"]
    weights = every if v["weight_decay"] is None else v["weight_decay"]
    # lanes are rows, layers are columns
    columns = [weights] if isinstance(weights, tuple) else [(float(w),) for w in np.atleast_1d(weights)]
    return UFM(
        **common, width=width, mobility=1.0 if v["mobility"] is None else _lanes(v["mobility"]),
        nonnegative=v["nonnegative"], normalization=v["normalization"], streams=v["streams"], classifier=v["classifier"],
        decay=Decay(weights=columns, features=_lanes(every if v["feature_decay"] is None else v["feature_decay"]),
                    bias=_lanes(every if v["bias_decay"] is None else v["bias_decay"]) if v["bias"] == "decayed" else 0.0))


def _images(v: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    """`common` with the standardised images of a data set as inputs, classes contiguous."""
    for name in ("amplitude", "noise"):
        require(v[name] is None, name, v[name], "used without --dataset only: it describes isotropic data")
    plain = {f.name: f.default for f in fields(Setting)}
    for name in ("classes", "samples_per_class", "width"):
        require(v[name] == plain[name], name, v[name], "left out with --dataset, which decides it")
    x, y, classes = _load(v["dataset"], v["subset"], v["data"])
    counts = np.bincount(y, minlength=classes)
    return {**common, "classes": classes, "samples_per_class": [int(n) for n in counts], "width": classes, "inputs": x}


@cache
def _load(name: str, subset: int | None, root: str | None) -> tuple[np.ndarray, np.ndarray, int]:
    from realnets.data import load

    data = load(name, subset, root)
    order = np.argsort(data.y_train, kind="stable")
    return data.x_train[order].T.astype(np.float64), data.y_train[order], data.classes


def describe(setting: Any, model: UFM | DeepLinear, *, without: str = "") -> str:
    """The model in one line, without the field `without`."""
    words = {"classes": f"K = {model.classes}", "samples_per_class": f"n = {_counts(model.samples_per_class)}",
             "layers": f"M = {model.layers}", "loss": model.loss, "loss_scale": f"c = {model.loss_scale:g}",
             "smoothing": f"smoothing {model.smoothing:g}", "focal_gamma": f"gamma {model.focal_gamma:g}",
             "bias": f"bias {model.bias}", "decay": f"decay {setting.decay:g}"}
    if model.loss != "mse":
        words.pop("loss_scale")
    for name, loss in (("smoothing", "label_smoothing"), ("focal_gamma", "focal")):
        if model.loss != loss:
            words.pop(name)
    for name in ("weight_decay", "feature_decay", "bias_decay", "mobility"):
        if (value := getattr(setting, name)) is not None:
            words[name] = f"{name.replace('_', ' ')} {_counts(value)}"
    for name, plain in (("activation", "linear"), ("normalization", "none"), ("classifier", "free")):
        if (value := getattr(setting, name)) != plain:
            words[name] = f"{name} {value}"
    if setting.nonnegative:
        words["nonnegative"] = "H >= 0"
    if setting.normalization == "batch":
        words["streams"] = f"L = {setting.streams}"
    kind = "free features" if isinstance(model, UFM) else "linear network on data"
    if isinstance(model, DeepLinear) and isinstance(model.inputs, Isotropic):
        words |= {"amplitude": f"r = {model.inputs.amplitude:g}", "noise": f"v2 = {model.inputs.noise:g}"}
    elif isinstance(model, DeepLinear):
        kind = f"linear network on {setting.dataset}"
        words["inputs"] = f"{model.samples} samples of {model.inputs.shape[0]} inputs"
    return f"{kind}: " + ", ".join(text for key, text in words.items() if key != without)


def _counts(value: Any) -> str:
    values = list(value) if isinstance(value, Sequence) else [value]
    if len(set(values)) == 1:
        values = values[:1]
    if len(values) > 6:
        return f"{min(values):g} to {max(values):g}"
    return ", ".join(f"{v:g}" for v in values)


def _one(value: Any) -> Any:
    """A tuple of one entry as that entry."""
    return value[0] if isinstance(value, Sequence) and len(value) == 1 else value


def _lanes(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
