"""`ncflow theory network`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from rich.console import Console

from experiments.output import clean
from experiments.theory_model import number, option
from experiments.theory_network import Network, implied
from experiments.theory_show import show_network


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a trained network's own numbers imply for fn, one closed form for each kind of number that is given.

    The norm of the head and the shape of the class means (exact at a collapsed rest point); the tangent kernel of the features
    (at the end, or of the cross-entropy phase alone); effective streams of a batch-normalised stage; Adam's learning rate and
    gradient noise (effective rates); an activation and its knob (degree of homogeneity).

    For example,

        ncflow theory network --weight-norm 3.07 --cosine 0.3 --bias free --decay 3e-4

        ncflow theory network --theta 9e3 --hidden 5 --samples-per-class 180 --phase1-feature-norm 4.1

        ncflow theory network --lr 1e-3 --noise 1e-3 2e-3 --activation gelu --scale 0.5 1 2
    """

    classes: Annotated[int, option("K")] = 10
    samples_per_class: Annotated[int, option("n")] = 100
    decay: Annotated[float, option("weight decay of all parameters, coupled")] = 1e-4
    loss: Annotated[str, option("mse or cross_entropy, whose rest point is asked")] = "mse"
    loss_scale: Annotated[float | None, number("c in (c/N)|.|^2 of mse", "1/K, PyTorch's mean")] = None
    bias: Annotated[str, option("of the head: none, free or decayed")] = "none"
    weight_norm: Annotated[float | None, number("|W|_F of the head", "not given")] = None
    cosine: Annotated[float | None, number("mean raw cosine of the class means", "0, an orthogonal frame")] = None
    gram: Annotated[str | None, option("K x K Gram of the raw class means up to scale, as .npy or .csv; instead of --cosine",
                                       metavar="FILE", help_behavior_hint="(default: not given)")] = None
    theta: Annotated[float | None, number("Rayleigh quotient of the features' tangent kernel on the class-mean pull",
                                          "not given")] = None
    hidden: Annotated[int | None, option("d, hidden layers below the head, with --theta", metavar="INT",
                                         help_behavior_hint="(default: not given)")] = None
    phase1_feature_norm: Annotated[float | None, number(
        "fn at the end of the cross-entropy phase, if --theta is from there: a forecast", "--theta is from the end")] = None
    streams: Annotated[float | None, number("effective batch-normalised streams L of the last stage", "not given")] = None
    lr: Annotated[float | None, number("learning rate of Adam", "not given")] = None
    noise: Annotated[tuple[float, ...], option("standard deviation of a weight's mini-batch gradient, one per layer, with --lr",
                                               metavar="FLOAT ...")] = ()
    activation: Annotated[str | None, option("gelu, silu, tanh, ...: its local degree of homogeneity", metavar="NAME",
                                             help_behavior_hint="(default: not given)")] = None
    knob: Annotated[float, option("a of a phi(x/a)")] = 1.0
    scale: Annotated[tuple[float, ...], option("pre-activations x, and standard deviations of Gaussian ones",
                                               metavar="FLOAT ...")] = (0.5, 1.0, 2.0)
    json: Annotated[bool, option("print one JSON object on stdout and nothing else there")] = False


def run(options: Any) -> int:
    """Exit code 0."""
    given = {name: getattr(options, name) for name in Network.__dataclass_fields__}
    found = implied(Network(**given))
    if options.json:
        print(json.dumps(clean({"setting": given, **found}), allow_nan=False))
    else:
        show_network(found, Console())
    return 0
