"""What the simulations share: a record of one row per lane, of numbers at the end of gradient flows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np
import xarray as xr

from experiments.sweeps.study import Study
from ncflow import Status, Trajectory
from ncflow.provenance import provenance

#: Tolerances of the flows: their fixed points, not their way, are compared with closed forms.
TOLERANCES: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-9, "rest": 1e-8}


def record(
    study: Study,
    began: float,
    rows: list[dict[str, Any]],
    curves: Mapping[str, np.ndarray] | None = None,
    time: np.ndarray | None = None,
) -> Trajectory:
    """The record of `study`: columns of numbers or words over lanes, and `curves` (lanes, times)."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: ("lane", np.array([row[name] for row in rows])) for name in names}
    times = np.array([0.0]) if time is None else time
    data = xr.Dataset(
        columns | {name: (("lane", "time"), values) for name, values in (curves or {}).items()},
        {"time": ("time", times, {"units": "flow time"})},
        {
            "source": "simulation",
            "time_kind": "flow",
            "provenance": json.dumps(provenance(config=study.config(), seconds={"all": perf_counter() - began}, device="cpu")),
        },
    )
    if "status" not in data:
        data["status"] = ("lane", np.full(len(rows), int(Status.FINISHED)))
    return Trajectory(data)


def column(run: Trajectory, name: str) -> np.ndarray:
    """(lanes,) of a record."""
    return run.data[name].values
