"""Gradient flows: the vector fields that the integrators follow."""

from __future__ import annotations

import torch
from torch import Tensor

from ncflow.errors import require
from ncflow.flows.batchnorm import BatchNormFlow
from ncflow.flows.flow import Flow, Observation
from ncflow.flows.full import FullFlow
from ncflow.flows.gram import GramFlow
from ncflow.flows.network import NetworkFlow
from ncflow.model import UFM, DeepLinear, Isotropic

__all__ = ["FLOWS", "BatchNormFlow", "Flow", "FullFlow", "GramFlow", "NetworkFlow", "Observation", "choose", "nonlinear"]

FLOWS = ("auto", "full", "gram")


def choose(name: str, model: UFM | DeepLinear, lane: Tensor, device: torch.device) -> Flow:
    """The flow called `name` for `model`; "auto" takes the cheapest that is exact.

    Raises:
        BadInput: an unknown name, or a flow that does not hold for this model (the message says why).
    """
    require(name in FLOWS, "flow", name, f"one of {', '.join(FLOWS)}")
    why = nonlinear(model)
    data_tied = isinstance(model, DeepLinear)
    if name == "auto":
        name = "gram" if data_tied and why is None else "full"
    if name == "gram":
        require(data_tied, "flow", name, "a DeepLinear: a UFM's features are free, its Gram matrix is not fixed")
        require(why is None, "flow", name, f"a linear network under MSE: {why}")
        return GramFlow(model, lane, device)
    require(not (data_tied and isinstance(model.inputs, Isotropic)), "flow", name,
            'inputs given as an array: Isotropic moments have no samples; use flow = "gram"')
    if isinstance(model, UFM) and model.normalization == "batch":
        return BatchNormFlow(model, lane, device)
    return FullFlow(model, lane, device) if why is None else NetworkFlow(model, lane, device)


def nonlinear(model: UFM | DeepLinear) -> str | None:
    """What keeps `model` from being a linear network under MSE with all of it free, in words; None if nothing does."""
    if model.loss != "mse":
        return f"the loss is {model.loss}"
    if model.activation != "linear":
        return f"the activation is {model.activation}"
    if isinstance(model, UFM):
        if model.normalization != "none":
            return "features are batch-normalised"
        if model.nonnegative:
            return "features are constrained to be non-negative"
        if model.classifier != "free":
            return "the classifier is frozen"
    return None
