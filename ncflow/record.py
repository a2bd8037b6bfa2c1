"""From what a simulation measured to the `xarray.Dataset` of a `Trajectory`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from ncflow import metrics
from ncflow.flows import Flow
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
    attrs |= flow.notes
    if flow.name == "gram" and flow.rotated is None:
        attrs["feature_norm"] = "root mean square: the inputs are known by their moments only"
    return Trajectory(xr.Dataset(variables, coords, attrs), Final([(flow, batch.y)], np.arange(len(batch.y))))


class Final(Mapping[str, np.ndarray]):
    """The last states of all lanes by name, written out when asked for: they may be much larger than what was integrated."""

    def __init__(self, parts: list[tuple[Flow, torch.Tensor]], order: np.ndarray):
        """`order` are the numbers of the lanes of `parts` (flow, states), one part after the other."""
        self.parts, self.order = parts, order

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self:
            raise KeyError(name)
        out = []
        for flow, y in self.parts:
            for i in torch.arange(len(y), device=y.device).split(max(1, 2**24 // flow.numbers)):
                out.append(flow.select(i).state(y[i])[name].cpu().numpy())
        return np.concatenate(out)[np.argsort(self.order)]

    def __contains__(self, name: object) -> bool:
        return name in self.parts[0][0].names

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts[0][0].names)

    def __len__(self) -> int:
        return len(self.parts[0][0].names)


def merge(runs: Sequence[Trajectory], order: np.ndarray) -> Trajectory:
    """One record of several runs' lanes, of which `order` has the numbers, one run after the other; flows are named once."""
    place = np.argsort(order)
    data = xr.concat([run.data for run in runs], "lane", data_vars="minimal", coords="minimal", compat="override",
                     join="override", combine_attrs="override").isel(lane=place)
    kinds = list({(a["flow"], a.get("flow_size")): a for a in (run.data.attrs for run in runs)}.values())
    if len(kinds) > 1:
        for name in ("flow", "flow_dimension", "flow_size", "flow_refused"):
            data.attrs[name] = "; ".join(str(kind.get(name, "")) for kind in kinds)
        data["flow"] = ("lane", np.concatenate([[run.data.attrs["flow"]] * run.lanes for run in runs])[place])
    parts = [part for run in runs if isinstance(run.final, Final) for part in run.final.parts]
    return Trajectory(data, Final(parts, order))
