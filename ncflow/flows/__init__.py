"""Gradient flows: the vector fields that the integrators follow."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ncflow.errors import require
from ncflow.flows.batchnorm import BatchNormFlow
from ncflow.flows.choice import REDUCTIONS, Horizon, reduce
from ncflow.flows.flow import Flow, Observation, one_layer
from ncflow.flows.full import FullFlow
from ncflow.flows.gram import GramFlow
from ncflow.flows.network import NetworkFlow
from ncflow.model import UFM, DeepLinear, Isotropic

__all__ = ["FLOWS", "BatchNormFlow", "Flow", "FullFlow", "GramFlow", "Horizon", "NetworkFlow", "Observation", "choose",
           "nonlinear", "one_layer", "plan"]

FLOWS = ("auto", "full", "gram", *REDUCTIONS)


def plan(name: str, model: UFM | DeepLinear, lane: Tensor, blocks: dict[str, Tensor], row: Tensor,
         horizon: Horizon) -> list[tuple[Flow, Tensor]]:
    """Flows called `name` for `model` from the initial states `blocks`, each with the lanes that it is for.

    "auto" takes the smallest that is exact. `lane` (lanes,) says which of the model's own lanes each lane of the batch is, and
    `row` (lanes,) which of the initial states.

    Raises:
        BadInput: an unknown name, or a flow that does not hold for this model and state (the message says why).
    """
    require(name in FLOWS, "flow", name, f"one of {', '.join(FLOWS)}")
    why = nonlinear(model) if isinstance(model, UFM) else "the features are not free"
    if isinstance(model, UFM) and why is None and name in ("auto", *REDUCTIONS):
        return reduce(name, model, lane, blocks, row, horizon)
    require(name not in REDUCTIONS, "flow", name, f"a linear UFM under MSE: {why}")
    require("M" not in blocks, "initial", "moments", f"samples (H) with flow = {name!r}"
            + ("" if why is None else f", as a linear UFM under MSE is needed: {why}"))
    return [(choose(name, model, lane, lane.device), torch.arange(len(lane), device=lane.device))]


def choose(name: str, model: UFM | DeepLinear, lane: Tensor, device: torch.device) -> Flow:
    """The flow called `name` for `model`, whatever its state; "auto" takes the cheapest that is exact.

    Raises:
        BadInput: an unknown name, or a flow that does not hold for this model (the message says why).
    """
    accepted = [flow for flow in FLOWS if flow not in REDUCTIONS]
    require(name in accepted, "flow", name, f"one of {', '.join(accepted)}")
    why = nonlinear(model)
    data_tied = isinstance(model, DeepLinear)
    if name == "auto":
        name = "gram" if data_tied and why is None else "full"
    if name == "gram":
        require(data_tied, "flow", name, "a DeepLinear: a UFM's features are free, its Gram matrix is not fixed")
        require(why is None, "flow", name, f"a linear network under MSE: {why}")
        return GramFlow(cast(DeepLinear, model), lane, device)
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
