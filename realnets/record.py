"""From what training measured to the `xarray.Dataset` of a `Trajectory`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from realnets.data import DataSet
from realnets.measure import VARIABLES
from realnets.protocol import TwoPhase


def build(
    protocol: TwoPhase,
    data: DataSet,
    times: list[tuple[int, int, float]],
    measured: list[dict[str, np.ndarray]],
    status: np.ndarray,
    gram: np.ndarray,
    provenance: dict[str, Any],
) -> xr.Dataset:
    """The record of a finished run.

    Args:
        times: (epoch, phase, learning rate) of each measurement.
        measured: name -> (lanes,) or (lanes, layers) of each measurement.
        status: (lanes,) values of `Status`; `gram` (lanes, K, K) of the class means at the end.
    """
    epochs, phases, rates = (np.array(column) for column in zip(*times, strict=True))
    variables: dict[str, Any] = {}
    for name in measured[0]:
        values = np.stack([found[name] for found in measured], axis=1)
        variables[name] = (("lane", "time", "layer")[: values.ndim], values, VARIABLES[name])
    for name, dims, values, unit, meaning in (
        ("phase", "time", phases, "1", "loss in use: 1 cross-entropy, 2 squared error"),
        ("learning_rate", "time", rates, "1", "rate of the epoch that ended at this time"),
        ("status", "lane", status, "1", "how the lane ended, a Status"),
        ("class_mean_gram", ("lane", "class", "class2"), gram, "feature^2",
         "inner products of the uncentred class means at the end"),
    ):  # fmt: skip
        variables[name] = (dims, values, {"units": unit, "long_name": meaning})
    since = {"units": "epoch", "long_name": "epochs since the start of the run"}
    decays, seeds = zip(*protocol.lanes, strict=True)
    coords = {
        "time": ("time", epochs.astype(np.float64), since),
        "layer": np.arange(1, variables["weight_norm"][1].shape[2] + 1),
        "seed": ("lane", np.array(seeds)),
        "decay": ("lane", np.array(decays), {"long_name": "weight decay of all parameters"}),
    }
    attrs = {
        "source": "network",
        "time_kind": "epochs",
        "nc1": protocol.nc1,
        "threshold": protocol.threshold,
        "loss_scale": 1 / data.classes,
        "provenance": json.dumps(provenance),
    }
    return xr.Dataset(variables, coords, attrs)
