"""From what a simulation measured to the `xarray.Dataset` of a `Trajectory`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
import xarray as xr

from ncflow import metrics
from ncflow.model import UFM
from ncflow.trajectory import Trajectory

UNITS = {"energy": ("loss", "loss including decay terms"), "weight_norm": ("weight", "Frobenius norm of W_1 .. W_M"),
         "bias_norm": ("bias", "norm of the head bias"),
         "event_time": ("flow time", "first time of each event; NaN: did not happen"),
         "event_fn": ("feature", "fn at that time"),
         "layer_feature_norm": ("feature", "mean norm of the features of each layer, H_1 to the penultimate")}


def attributes(name: str) -> dict[str, str]:
    """`units` and `long_name` of a recorded variable."""
    if name in metrics.METRICS:
        metric = metrics.METRICS[name]
        return {"units": metric.unit, "long_name": metric.formula, "source": metric.source}
    units, text = UNITS.get(name, ("1", name))
    return {"units": units, "long_name": text}


def build(model, flow, batch, recorders, lane, seed, provenance: dict[str, Any]) -> Trajectory:
    """The record of a finished simulation: dims (lane, time, layer, feature_layer, event)."""
    variables: dict[str, Any] = {}
    for name in recorders[0].columns:
        value = torch.cat([recorder.columns[name] for recorder in recorders])
        dims = ("lane", "time", *{"weight_norm": ("layer",), "layer_feature_norm": ("feature_layer",)}.get(name, ()))
        variables[name] = (dims, value.cpu().numpy(), attributes(name))
    per_lane = {"status": (batch.status, "how the lane ended, a Status"), "t_end": (batch.t, "flow time reached"),
                "steps": (batch.steps, "steps tried"), "rejected": (batch.rejected, "steps rejected"),
                "stabilised_steps": (batch.stabilised, "steps taken by the stabilised method"),
                "evaluations": (batch.evaluations.long(), "field evaluations")}
    for name, (value, text) in per_lane.items():
        variables[name] = ("lane", value.cpu().numpy(), {"long_name": text})
    coords: dict[str, Any] = {"time": ("time", recorders[0].times.cpu().numpy(), {"units": "flow time"}), "seed": ("lane", seed)}
    decays = model.weight_decays[lane]
    coords["decay"] = ("lane", decays[:, -1], {"long_name": "weight decay of the head"})
    if isinstance(model, UFM):
        coords["decay_features"] = ("lane", model.feature_decays[lane])
        coords["mobility"] = ("lane", model.mobilities[lane])
    if recorders[0].events:
        coords["event"] = ("event", np.array([e.name for e in recorders[0].events]))
        for name in ("event_time", "event_fn"):
            value = torch.cat([getattr(recorder, name) for recorder in recorders])
            variables[name] = (("lane", "event"), value.cpu().numpy(), attributes(name))
    attrs = {"source": "simulation", "time_kind": "flow", "flow": flow.name, "provenance": json.dumps(provenance)}
    if flow.name == "gram" and flow.rotated is None:
        attrs["feature_norm"] = "root mean square: the inputs are known by their moments only"
    final = {name: value.cpu().numpy() for name, value in flow.state(batch.y).items()}
    return Trajectory(xr.Dataset(variables, coords, attrs), final)
