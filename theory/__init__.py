"""Closed forms for the dynamics of neural collapse: derived in sympy, evaluated in numpy (float64).

    from theory import fixed_point
    fixed_point(UFM(classes=4, decay=5e-4)).feature_norm

One mechanism serves every linear model: `mode` (the scalar equation of one singular direction), `schatten`
(its matrix form when directions mix), `linear` (from an end-to-end map to norms, angles and loss), `ufm` and
`deep_linear` (what each model puts in). `head` reads a trained classifier; `derivations` holds the symbolic
steps and prints the formulas.
"""

from __future__ import annotations

from ncflow.errors import BadInput
from ncflow.model import UFM, DeepLinear
from theory import deep_linear, ufm
from theory.head import Head, feature_norm_estimate, feature_norm_from_head, gram_scales, head_from_gram
from theory.point import FixedPoint, stack

__all__ = ["FixedPoint", "Head", "feature_norm_estimate", "feature_norm_from_head", "fixed_point",
           "gram_scales", "head_from_gram"]


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
    if model.loss != "mse":
        raise BadInput("loss", model.loss, 'fixed points are known here for "mse"')
    if model.activation != "linear":
        raise BadInput("activation", model.activation, 'fixed points are known here for "linear"')
    if isinstance(model, UFM):
        return stack([ufm.fixed_point(model, lane) for lane in range(model.lanes)])
    data = deep_linear.moments(model)
    return stack([deep_linear.fixed_point(model, lane, data) for lane in range(model.lanes)])
