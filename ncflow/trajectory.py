"""The record that theory, simulation and real networks share."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ncflow.errors import BadInput


class Status(IntEnum):
    """How a lane ended; `.sentence` says it for people."""

    FINISHED = 0
    AT_REST = 1
    MAX_STEPS = 2
    DIVERGED = 3
    NON_FINITE = 4
    STEP_TOO_SMALL = 5

    @property
    def sentence(self) -> str:
        return {
            Status.FINISHED: "reached the end of the requested time",
            Status.AT_REST: "came to rest before the end of the requested time",
            Status.MAX_STEPS: "stopped at the maximum number of steps; what was integrated is kept",
            Status.DIVERGED: "diverged; the last good state is kept",
            Status.NON_FINITE: "produced a value that is not finite; the last good state is kept",
            Status.STEP_TOO_SMALL: "needs a step below the resolution of the time; the last good state is kept",
        }[self]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What was recorded of a run, simulated or trained.

    Attributes:
        data: `xarray.Dataset` with dims (lane, time[, layer]); every variable carries `units` and `long_name` where it
            has them. Coordinates over `lane` name what distinguishes the lanes (seed, decay ...). Attributes:
            `time_kind` ("flow", "steps" or "epochs"), `provenance` (a JSON string), `source` ("simulation" or "network").
        final: the last state of each lane, arrays with a leading lane axis ("H", "W_1" ..., "b"); not saved to file.
    """

    data: xr.Dataset
    final: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def lanes(self) -> int:
        return self.data.sizes["lane"]

    @property
    def provenance(self) -> dict[str, Any]:
        return json.loads(self.data.attrs["provenance"])

    @property
    def status(self) -> list[Status]:
        """One `Status` per lane."""
        return [Status(int(s)) for s in self.data["status"].values]

    def save(self, path: str | Path) -> Path:
        """Write netCDF to `path`, whole or not at all (temporary file, then rename)."""
        path = Path(path)
        temporary = path.with_name(path.name + ".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.data.to_netcdf(temporary, engine="h5netcdf", encoding=self._encoding())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return path

    def _encoding(self) -> dict[str, dict[str, Any]]:
        return {str(name): {"zlib": True, "complevel": 1} for name, v in self.data.data_vars.items()
                if np.issubdtype(v.dtype, np.number) and v.ndim > 1}

    @classmethod
    def load(cls, path: str | Path) -> Trajectory:
        """Read a record that `save` wrote.

        Raises:
            BadInput: there is no such file, or it is not a record of ncflow.
        """
        try:
            data = xr.load_dataset(path, engine="h5netcdf")
        except Exception as e:
            raise BadInput("path", str(path), f"a netCDF record written by ncflow ({type(e).__name__})") from None
        if "lane" not in data.sizes or "provenance" not in data.attrs:
            raise BadInput("path", str(path), "a netCDF record written by ncflow, with dims (lane, time)")
        return cls(data)
