"""Closed forms for the dynamics of neural collapse: derived in sympy, evaluated in numpy (float64).

    from theory import fixed_point
    fixed_point(UFM(classes=4, decay=5e-4)).feature_norm

One mechanism serves every linear model: `mode` (the scalar equation of one singular direction), `schatten`
(its matrix form when directions mix), `linear` (from an end-to-end map to norms, angles and loss), `ufm` and
`deep_linear` (what each model puts in). `rest` puts a fixed point in the bases of its second variation, from
which come `spectrum` and `rates`; `boundary` and `floor` say where collapse ends, `aligned`, `times`, `lead`
and `recovery` how it goes, `grid` evaluates millions of points. `derivations` and `derivations_dynamics` hold
the symbolic steps and print the formulas.

Other losses and what a ReLU leaves: `strength` (the same scalar equation for any loss), `existence` (where it
ends), `cross_entropy`, `nonnegative`, `low_rank` (cheaper than the frame), `batchnorm` and `etf` (a fixed simplex
for a head); `derivations_nonlinear` holds their symbolic steps.

What a real network's own numbers imply: `head` (fn from a trained classifier), `closure` (balance, Euler's
identity, the tangent kernel, a forecast from the cross-entropy phase), `batchnorm.stage` (effective streams),
`activation` (degrees of homogeneity), `adam` (effective rates of the optimiser).

Every result says its `formula` (LaTeX), `status`, `assumptions` and `source`; asked outside of what it knows, a
function raises `BadInput` naming the assumption that fails.
"""

from __future__ import annotations

from collections.abc import Callable

from ncflow.errors import BadInput, require
from ncflow.model import UFM, DeepLinear
from theory import (
    activation,
    adam,
    batchnorm,
    closure,
    cross_entropy,
    deep_linear,
    etf,
    existence,
    grid,
    low_rank,
    nonnegative,
    ufm,
)
from theory.activation import local_degree
from theory.adam import AdamRate, balance_rates, effective_rate
from theory.batchnorm import Stage, implied_streams, stage
from theory.boundary import Boundary, Threshold, fold, maxwell, mean_mode_threshold, minority_threshold
from theory.closure import Closure, balance, euler_degree, forecast, head_energy, relu_mlp, tangent_kernel
from theory.cross_entropy import Within, within_class
from theory.floor import Floor, floor, floor_boundary
from theory.head import Head, feature_norm_estimate, feature_norm_from_head, gram_scales, head_from_gram
from theory.lead import Lead, lead_time
from theory.low_rank import pairs
from theory.point import FixedPoint, stack
from theory.rates import Rate, Rates, rates
from theory.recovery import Response, intervention_response
from theory.spectrum import Block, Spectrum, spectrum
from theory.times import CollapseTime, Regime, regime, time_to_collapse

__all__ = [
    "AdamRate", "Block", "Boundary", "Closure", "CollapseTime", "FixedPoint", "Floor", "Head", "Lead", "Rate", "Rates",
    "Regime", "Response", "Spectrum", "Stage", "Threshold", "Within", "activation", "adam", "balance", "balance_rates",
    "batchnorm", "closure", "cross_entropy", "effective_rate", "etf", "euler_degree", "existence", "feature_norm_estimate",
    "feature_norm_from_head", "fixed_point", "floor", "floor_boundary", "fold", "forecast", "gram_scales", "grid",
    "head_energy", "head_from_gram", "implied_streams", "intervention_response", "lead_time", "local_degree", "low_rank",
    "maxwell", "mean_mode_threshold", "minority_threshold", "nonnegative", "pairs",
    "rates", "regime", "relu_mlp", "spectrum", "stage", "tangent_kernel", "time_to_collapse", "within_class",
]


def _formula(model: UFM) -> Callable[[UFM, int], FixedPoint]:
    """What knows the rest point of `model`."""
    if model.classifier == "etf":
        return etf.fixed_point
    if model.normalization == "batch":
        return batchnorm.fixed_point
    if model.nonnegative or model.activation == "relu":
        return nonnegative.fixed_point
    require(model.activation == "linear", "activation", model.activation, '"linear" or "relu"')
    return ufm.fixed_point if model.loss == "mse" else cross_entropy.fixed_point


def fixed_point(model: UFM | DeepLinear) -> FixedPoint:
    """Where gradient flow on `model` rests after collapse: norms, angles, bias and loss, with the status of
    each formula.

    Scalars for one lane, a leading lane axis for several (see `FixedPoint`). The mobility does not move it.

    Raises:
        BadInput: the model has a loss, activation or decay without a formula here; the message names the
            field.
    """
    if not isinstance(model, UFM | DeepLinear):
        raise BadInput("model", type(model), "a UFM or a DeepLinear")
    if isinstance(model, UFM):
        solve = _formula(model)
        return stack([solve(model, lane) for lane in range(model.lanes)])
    for name, plain in (("loss", "mse"), ("activation", "linear")):
        require(getattr(model, name) == plain, name, getattr(model, name), f"{plain!r}, on data")
    data = deep_linear.moments(model)
    return stack([deep_linear.fixed_point(model, lane, data) for lane in range(model.lanes)])
