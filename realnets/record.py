"""From what training measured to the `xarray.Dataset` of a `Trajectory`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from realnets.measure import VARIABLES
from realnets.outcome import Outcome, first_below, outcomes
from realnets.protocol import Lane, TwoPhase

_LAYERS = {"nc1_hidden": "hidden"}


def build(
    protocol: TwoPhase,
    lanes: Sequence[Lane],
    classes: int,
    layers: Sequence[str],
    times: Sequence[tuple[int, int]],
    rates: np.ndarray,
    measured: Mapping[str, np.ndarray],
    status: np.ndarray,
    alive: np.ndarray,
    per_lane: Mapping[str, tuple[np.ndarray, str, str]],
    gram: np.ndarray,
    provenance: dict[str, Any],
) -> xr.Dataset:
    """The record of a finished run.

    Args:
        layers: names of the weights, from the input to the head.
        times: (epoch, phase) of each measurement; `rates` (lanes, times) of the epoch that ended there.
        measured: name -> (lanes, times) or (lanes, times, layers).
        status: (lanes,) values of `Status`; `alive` whether each lane is finite.
        per_lane: name -> ((lanes,), unit, meaning) of what else there is; `gram` (lanes, K, K) of the class means.
    """
    epochs, phases = (np.array(column) for column in zip(*times, strict=True))
    variables: dict[str, Any] = {}
    for name, values in measured.items():
        dims = ("lane", "time", _LAYERS.get(name, "layer"))[: values.ndim]
        variables[name] = (dims, values, VARIABLES[name])
    first = first_below(measured[protocol.nc1], protocol.threshold)
    row = np.arange(len(first))

    def there(values: np.ndarray, missing: Any = np.nan) -> np.ndarray:
        return np.where(first >= 0, values, missing)

    found = outcomes(epochs, measured[protocol.nc1], measured["fn"], alive, protocol.threshold, protocol.diverged_after)
    losses = ", ".join(f"{number} {loss}" for number, loss in protocol.losses.items())
    for name, dims, values, unit, meaning in (
        ("phase", "time", phases, "1", f"phase, and its loss: {losses}"),
        ("learning_rate", ("lane", "time"), rates, "1", "rate of the epoch that ended at this time"),
        ("status", "lane", status, "1", "how the lane ended, a Status"),
        ("outcome", "lane", found, "1", "; ".join(f"{o.value} {o.words}: {o.sentence}" for o in Outcome)),
        ("t_nc", "lane", there(epochs[first]), "epoch", "first measured epoch with NC1 below the threshold"),
        ("phase_at_t_nc", "lane", there(phases[first], 0), "1", "phase in which it fell; 0 if there was none"),
        ("learning_rate_at_t_nc", "lane", there(rates[row, first]), "1", "learning rate of that epoch"),
        ("fn_at_t_nc", "lane", there(measured["fn"][row, first]), "feature", "fn there"),
        ("class_mean_gram", ("lane", "class", "class2"), gram, "feature^2",
         "inner products of the uncentred class means at the end"),
    ):  # fmt: skip
        variables[name] = (dims, values, {"units": unit, "long_name": meaning})
    for name, (values, unit, meaning) in per_lane.items():
        variables[name] = ("lane", values, {"units": unit, "long_name": meaning})
    since = {"units": "epoch", "long_name": "epochs since the start of the run"}
    coords: dict[str, Any] = {
        "time": ("time", epochs.astype(np.float64), since),
        "layer": np.arange(1, len(layers) + 1),
        "seed": ("lane", np.array([lane.seed for lane in lanes])),
        "decay": ("lane", np.array([lane.decay for lane in lanes]), {"long_name": "weight decay"}),
        "lr": ("lane", np.array([lane.lr for lane in lanes]), {"long_name": "learning rate at the start of each phase"}),
        "alpha": ("lane", np.array([lane.alpha for lane in lanes]), {"long_name": "factor on the rescaled layer at phase 2"}),
    }
    if "nc1_hidden" in measured:
        coords["hidden"] = np.arange(1, measured["nc1_hidden"].shape[2] + 1)
    attrs = {
        "source": "network",
        "time_kind": "epochs",
        "nc1": protocol.nc1,
        "threshold": protocol.threshold,
        "loss_scale": 1 / classes,
        "layers": json.dumps(list(layers)),
        "provenance": json.dumps(provenance),
    }
    return xr.Dataset(variables, coords, attrs)
