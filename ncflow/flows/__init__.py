"""Gradient flows: the vector fields that the integrators follow."""

from __future__ import annotations

import torch
from torch import Tensor

from ncflow.errors import require
from ncflow.flows.flow import Flow, Observation
from ncflow.flows.full import FullFlow
from ncflow.flows.gram import GramFlow
from ncflow.model import UFM, DeepLinear, Isotropic

__all__ = ["FLOWS", "Flow", "FullFlow", "GramFlow", "Observation", "choose"]

FLOWS = ("auto", "full", "gram")


def choose(name: str, model: UFM | DeepLinear, lane: Tensor, device: torch.device) -> Flow:
    """The flow called `name` for `model`; "auto" takes the cheapest that is exact.

    Raises:
        BadInput: an unknown name, or a flow that does not hold for this model (the message says why).
    """
    require(name in FLOWS, "flow", name, f"one of {', '.join(FLOWS)}")
    data_tied = isinstance(model, DeepLinear)
    if name == "auto":
        name = "gram" if data_tied else "full"
    if name == "gram":
        require(data_tied, "flow", name, "a DeepLinear: a UFM's features are free, its Gram matrix is not fixed")
        return GramFlow(model, lane, device)
    require(not (data_tied and isinstance(model.inputs, Isotropic)), "flow", name,
            'inputs given as an array: Isotropic moments have no samples; use flow = "gram"')
    return FullFlow(model, lane, device)
