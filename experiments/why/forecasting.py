"""What a condition's networks show at the end of phase 1, and what the theory and the matched model make of that.

Only the configuration, the data and the state at the switch go in. `experiments.why.forecast_law` makes numbers of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from experiments.compare import linear_model
from experiments.sweeps.study import Study
from ncflow import DeepLinear, Status, Trajectory
from ncflow.errors import require
from ncflow.provenance import provenance
from realnets import TwoPhase
from realnets.at_epoch import train_to
from realnets.bridge import Matched, bridges
from realnets.data import DataSet
from realnets.train import dataset
from theory import closure, fixed_point, strength


@dataclass(frozen=True, kw_only=True)
class Forecasting(Study):
    """Phase 1 of `setting` and the forecasts from its end. One row per seed:

    - `fn_1`, `nc1_1`, `theta`, `degree`, `contrast`, `noise`, `balance`, `head_norm`: what the network shows then;
    - `kernel_fn`: fn at rest that the tangent kernel of then implies, class means in a frame (`theory.closure.forecast`);
    - `data_fn`, `means_fn`: fn at rest of the linear network of that depth on all samples, and on the class means alone;
    - `model_fn_end`, `model_fn_inf`, `model_t_nc`, and over epochs `model_fn`, `model_nc1`: what the matched model does in the
      engine (`realnets.bridge`), of the first `simulated` seeds (NaN for the others).

    Attributes:
        setting: a perceptron's protocol with one decay > 0, rate and alpha.
    """

    kind: ClassVar[str] = "forecast"
    setting: TwoPhase
    simulated: int = 1

    def __post_init__(self) -> None:
        s = self.setting
        require(s.architecture == "mlp", "architecture", s.architecture, "mlp, whose second phase has a forecast here")
        require((len(s.decays), len(s.lrs), s.alphas) == (1, 1, (1.0,)), "setting", (s.decays, s.lrs, s.alphas), "one decay, one "
                "learning rate, no intervention")  # fmt: skip
        require(s.decays[0] > 0, "decays", s.decays, "greater than 0: only decay fixes the norm")
        squared = s.epochs_mse > 0 and s.second_loss == "mse"
        require(squared, "second_loss", (s.second_loss, s.epochs_mse), "a phase of squared error")

    @property
    def cost_kind(self) -> str:
        s = self.setting
        size = f"{s.dataset} {s.subset or 'all'} {s.depth}x{s.width} {s.activation}"
        return f"{self.kind} {size}, decay {s.decays[0]:g}, {s.optimiser}, {len(s.seeds)} lanes"

    def run(self, *, root: str | Path | None, progress: Callable[[float], None]) -> Trajectory:
        began, s = perf_counter(), self.setting
        data = dataset(s, root)
        trained = train_to(s, data=data, progress=lambda share: progress(0.6 * share))
        matched = bridges((trained.net, trained.x, trained.y, s))
        seconds = {"phase 1": perf_counter() - began}
        before = _from_data(s, data, root)
        rows: list[dict[str, float]] = []
        count = s.epochs_mse + 1
        curves = {name: np.full((len(matched), count), np.nan) for name in ("model_fn", "model_nc1")}
        for i, m in enumerate(matched):
            rows.append(_row(m) | before)
            if i < self.simulated:
                found = m.forecast()
                curves["model_fn"][i], curves["model_nc1"][i] = found.fn, found.nc1
                rows[-1] |= {"model_fn_end": found.fn_end, "model_fn_inf": found.fn_inf, "model_t_nc": found.t_nc}
            progress(0.6 + 0.4 * (i + 1) / len(matched))
        seconds["all"] = perf_counter() - began
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns: dict[str, Any] = {n: ("lane", np.array([row.get(n, np.nan) for row in rows])) for n in names}
        columns |= {name: (("lane", "time"), values) for name, values in curves.items()}
        about = provenance(config=self.config(), data=data.describe(), seconds=seconds, device="cpu")
        return Trajectory(xr.Dataset(
            columns | {"seed": ("lane", np.array(s.seeds)), "status": ("lane", np.full(len(rows), int(Status.FINISHED)))},
            {"time": ("time", np.arange(s.epochs_ce, s.epochs + 1.0), {"units": "epoch"})},
            {"source": "forecast", "time_kind": "epochs", "provenance": json.dumps(about)}))  # fmt: skip


def _row(m: Matched) -> dict[str, float]:
    s, K = m.shown, len(m.shown.counts)
    square = strength.Square(K, 1 / K)
    kernel = closure.forecast(s.theta, s.fn, m.protocol.depth, s.decay, square, m.samples // K, "free")
    return {"fn_1": s.fn, "nc1_1": s.nc1, "theta": s.theta, "degree": s.degree, "contrast": s.contrast, "noise": s.noise,
            "balance": s.balance, "head_norm": float(s.layer_norms[-1]), "kernel_fn": kernel.feature_norm,
            "steps": float(m.steps)}  # fmt: skip


def _from_data(s: TwoPhase, data: DataSet, root: str | Path | None) -> dict[str, float]:
    """fn at rest of linear networks: no weight of the network enters."""
    means = np.stack([data.x_train[data.y_train == k].mean(0, dtype=np.float64) for k in range(data.classes)], 1)
    alone = DeepLinear(inputs=means, classes=data.classes, samples_per_class=1, layers=s.depth + 1, width=data.classes,
                       decay=s.decays[0], loss_scale=1 / data.classes)  # fmt: skip
    whole = fixed_point(linear_model(s, None if root is None else str(root)))
    return {"data_fn": float(np.ravel(whole.feature_norm)[0]), "means_fn": float(np.ravel(fixed_point(alone).feature_norm)[0])}
