"""The main job: what theory predicts, what the simulator finds and what a real network does, on one setting.

Three answers to "where does the mean feature norm go?", per weight decay:

- real: MLPs trained under the two-phase protocol, all decays and seeds at once;
- theory: from the trained head and the shape of its class-mean Gram matrix (`theory.feature_norm_from_head`; exact at a
  collapsed stationary point), and from configuration and data alone (the fixed point of the linear network on the same
  inputs; exact for linear layers, an approximation for ReLU with biases);
- simulation: the gradient flow of that linear network, integrated to rest from a random start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from ncflow import Collapse, DeepLinear, Regime, Status, Trajectory, simulate, summarise
from ncflow.errors import require
from ncflow.provenance import provenance
from realnets import TwoPhase, load, train
from theory import FixedPoint, feature_norm_from_head, fixed_point

#: A simulated lane counts as being at rest once |dy/dt| < REST |y| (root mean squares): fn is then within about 1e-5.
REST = 1e-9
#: Tolerance of the steps on the way; the point of rest does not depend on it.
RTOL = 1e-4
#: End of the simulation in units of 1/lambda; balance between layers is restored at rate 2 lambda.
HORIZON = 100.0


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found; `rows` as in `--json`, the records behind them beside it.

    Attributes:
        protocol: the setting.
        rows: one dictionary per decay, keys "decay", "theory", "simulation", "real", "relative_error", "agreement".
        network, simulation: the records.
        collapses: one `Collapse` per lane of `network`.
        seconds: wall time of each part.
        provenance: versions, machine, command.
    """

    protocol: TwoPhase
    rows: list[dict[str, Any]]
    network: Trajectory
    simulation: Trajectory
    collapses: list[Collapse]
    seconds: dict[str, float]
    provenance: dict[str, Any]

    def setting(self) -> dict[str, Any]:
        """The setting as a JSON-ready dictionary."""
        return {**self.protocol.config(), "loss_scale": 1 / self.classes, "layers": self.protocol.depth + 1,
                "simulation_width": self.classes, "simulation_rest": REST}

    @property
    def classes(self) -> int:
        return self.network.data.sizes["class"]


def compare(
    protocol: TwoPhase,
    *,
    root: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Comparison:
    """Train, predict and simulate the setting of `protocol`.

    Args:
        protocol: an MLP setting; all decays greater than 0, since without decay nothing fixes the norm.
        root: data root, as in `realnets.load`.
        device: where networks train and the simulation runs.
        seed: of the simulation's random start.
        progress: called with the name of the part under way and the fraction of it that is done.

    Raises:
        BadInput: naming the argument.
    """
    require(protocol.architecture == "mlp", "architecture", protocol.architecture, "mlp, which the linear model is made for")
    require(all(d > 0 for d in protocol.decays), "decays", protocol.decays, "greater than 0: only decay fixes the norm")
    require(len(protocol.lrs) == 1, "lr", protocol.lr, "one number: rows differ in decay alone")
    require(protocol.alphas == (1.0,), "alphas", protocol.alphas, "1: rows differ in decay alone")
    tell = progress or (lambda part, share: None)
    seconds: dict[str, float] = {}

    def timed(part: str, work: Callable[[], Any]) -> Any:
        start = perf_counter()
        tell(part, 0.0)
        out = work()
        tell(part, 1.0)
        seconds[part] = perf_counter() - start
        return out

    network = timed("training", lambda: train(protocol, device=device, root=root, progress=lambda x: tell("training", x)))
    model = linear_model(protocol, root)
    at_rest = timed("theory", lambda: fixed_point(model))
    end = HORIZON / min(protocol.decays)
    simulation = timed("simulation", lambda: simulate(
        model, seeds=[seed], until=end, save_at=[0.0, *np.geomspace(1e-1, end, 120)], rest=REST, rtol=RTOL, atol=1e-9,
        device=device, progress=lambda x: tell("simulation", x)))
    collapses = summarise(network, nc1=protocol.nc1, threshold=protocol.threshold)
    flows = summarise(simulation, nc1=protocol.nc1, threshold=protocol.threshold)
    counts = np.asarray(model.class_counts, dtype=float)
    rows = []
    for i, decay in enumerate(protocol.decays):
        lanes = [j for j, lane in enumerate(protocol.lanes) if lane.decay == decay]
        rows.append(_row(decay, lanes, network, collapses, _lane(at_rest, i, len(protocol.decays)), flows[i], counts,
                         protocol.threshold))
    return Comparison(protocol, rows, network, simulation, collapses, seconds, provenance())


def linear_model(protocol: TwoPhase, root: str | None = None) -> DeepLinear:
    """The linear network on the same inputs, with as many weight layers, the same decays and loss scale, and no biases.

    It is as narrow as it can be, K: neither fixed point nor NC1 depends on the width.
    """
    data = load(protocol.dataset, protocol.subset, root, scaling=protocol.scaling, seed=protocol.data_seed)
    order = np.argsort(data.y_train, kind="stable")
    counts = np.bincount(data.y_train, minlength=data.classes)
    return DeepLinear(inputs=data.x_train[order].T.astype(np.float64), classes=data.classes,
                      samples_per_class=[int(n) for n in counts], layers=protocol.depth + 1, width=data.classes,
                      decay=list(protocol.decays), loss_scale=1 / data.classes)


def _lane(point: FixedPoint, i: int, lanes: int) -> dict[str, float]:
    pick = (lambda v: float(v)) if lanes == 1 else (lambda v: float(v[i]))
    return {"feature_norm": pick(point.feature_norm), "nc1_floor": pick(point.nc1_floor)}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation (ddof 1) over the seeds that have a value, and every seed's value (None: none)."""
    array = np.asarray(values, dtype=float)
    good = array[np.isfinite(array)]
    return {"mean": float(good.mean()) if good.size else None,
            "std": float(good.std(ddof=1)) if good.size > 1 else None,
            "per_seed": [float(v) if np.isfinite(v) else None for v in array]}


def _row(decay: float, lanes: list[int], network: Trajectory, collapses: list[Collapse], point: dict[str, float],
         flow: Collapse, counts: np.ndarray, threshold: float) -> dict[str, Any]:
    """One weight decay of the comparison."""
    seeds = [collapses[j] for j in lanes]
    end = network.data.isel(lane=lanes, time=-1)
    head = _from_head(decay, end, counts, biases="bias_norm_sq" in end)
    fn_end = [s.fn_end for s in seeds]
    measured = float(np.mean(fn_end))
    phases = sorted({s.phase for s in seeds if s.phase})
    real = {
        "t_nc": _spread([s.t_nc for s in seeds]), "fn_star": _spread([s.fn_star for s in seeds]),
        "fn_end": _spread(fn_end), "nc1_end": _spread([s.nc1_end for s in seeds]),
        "fn_drift": _spread([s.fn_drift for s in seeds]),
        "norm_product": _spread((end["fn"] * end["weight_norm"].isel(layer=-1)).values.tolist()),
        "weight_norm_sq": end["weight_norm_sq"].mean("lane").values.tolist(),
        "balance": _spread(_imbalance(end)),
        "train_accuracy": _spread(end["train_accuracy"].values.tolist()),
        "nc1": seeds[0].nc1, "threshold": seeds[0].threshold,
        "phase": phases[0] if len(phases) == 1 else phases or None,
        "regime": [s.regime.value for s in seeds], "status": [s.status.name.lower() for s in seeds],
    }
    at_rest = flow.status is Status.AT_REST

    def error(prediction: float | None) -> float | None:
        return None if prediction is None or not np.isfinite(prediction * measured) else prediction / measured - 1

    head_mean = _spread(head)
    theory = {"feature_norm_head": head_mean["mean"], "feature_norm_head_std": head_mean["std"],
              "feature_norm_head_per_seed": head_mean["per_seed"], "feature_norm_data": point["feature_norm"],
              "nc1_floor_data": point["nc1_floor"]}
    simulated = {"fn_inf": flow.fn_inf if at_rest else None, "nc1_floor": flow.nc1_end if at_rest else None,
                 "rate": None if np.isnan(flow.fn_rate) else flow.fn_rate, "fn_end": flow.fn_end,
                 "status": flow.status.name.lower()}
    errors = {"feature_norm_head": error(theory["feature_norm_head"]), "feature_norm_data": error(point["feature_norm"]),
              "fn_inf": error(simulated["fn_inf"]),
              "simulation_to_theory": flow.fn_end / point["feature_norm"] - 1 if at_rest else None}
    collapsed = sum(s.regime is Regime.COLLAPSED for s in seeds)
    linear = point["nc1_floor"] < threshold
    agreement = {"real_collapsed": collapsed, "seeds": len(seeds), "linear_collapses": bool(linear),
                 "agree": collapsed == (len(seeds) if linear else 0)}
    return {"decay": decay, "theory": theory, "simulation": simulated, "real": real, "relative_error": errors,
            "agreement": agreement}


def _from_head(decay: float, end: Any, counts: np.ndarray, biases: bool) -> list[float]:
    """Per seed: fn that stationarity implies from |W_head|_F and the shape of the class-mean Gram matrix."""
    norms = end["weight_norm"].isel(layer=-1).values
    gram = end["class_mean_gram"].values
    if not (np.isfinite(norms).all() and np.isfinite(gram).all()):
        return [float("nan")] * len(norms)
    shape = gram / np.trace(gram, axis1=1, axis2=2)[:, None, None]
    return feature_norm_from_head(norms, shape, decay, 1 / len(counts), "decayed" if biases else "none",
                                  shares=counts).tolist()


def _imbalance(end: Any) -> list[float]:
    """Per seed: the largest ||W_{l+1}|^2 - |W_l|^2 - |b_l|^2| over the mean |W_l|^2; 0 at any stationary point of a
    positively homogeneous network whose parameters are all decayed."""
    squares = end["weight_norm_sq"].values
    below = squares[:, :-1] + (end["bias_norm_sq"].values[:, :-1] if "bias_norm_sq" in end else 0.0)
    return (np.abs(squares[:, 1:] - below).max(axis=1, initial=0.0) / squares.mean(axis=1)).tolist()
