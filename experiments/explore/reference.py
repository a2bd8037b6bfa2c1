"""What `theory/` and the engine say of settings of the page: the values its JavaScript is held against.

A setting is a dictionary by the names that `formulas.js` lists. Trajectories start aligned: from `theory.aligned` for free
features under squared loss, from the engine's flows otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ncflow import simulate
from ncflow.model import UFM, Decay, DeepLinear, Isotropic
from theory import fixed_point, floor, fold, maxwell, mean_mode_threshold, rates, regime, strength, time_to_collapse
from theory.aligned import aligned
from theory.cross_entropy import decays_of, within_class
from theory.ufm import helmert

Setting = dict[str, Any]
Values = dict[str, Any]

#: Where the page opens: the example of the README.
DEFAULT: Setting = dict(kind="free", K=4, n=100, M=1, lw=5e-4, lh=5e-4, lb=5e-4, bias="none", loss="mse", c=0.5, r=2.0, v2=0.1,
                        theta=1.0, eps=0.01, s0=0.05, nc0=10.0)


def draw(count: int, seed: int) -> list[Setting]:
    """`count` random settings: both kinds, both losses, every bias, some beyond the fold."""
    rng = np.random.default_rng(seed)

    def log(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    settings = []
    for _ in range(count):
        kind = str(rng.choice(["free", "free", "data"]))
        equal = rng.random() < 0.4
        lw = log(1e-6, 0.2)
        settings.append(dict(
            kind=kind, K=int(rng.integers(2, 25)), n=int(log(2, 5000)), M=int(rng.integers(1, 8)), lw=lw,
            lh=lw if equal else log(1e-6, 0.2), lb=log(1e-6, 1), bias=str(rng.choice(["none", "free", "decayed"])),
            loss="mse" if kind == "data" or rng.random() < 0.7 else "cross_entropy", c=log(0.02, 1), r=log(0.2, 20),
            v2=log(1e-3, 2), theta=1.0 if equal else log(0.1, 100), eps=log(1e-4, 0.3), s0=log(1e-3, 0.9), nc0=log(0.5, 100)))
    return settings


def model_of(s: Setting) -> UFM | DeepLinear:
    """The model of a setting; widths exceed the number of classes."""
    common: dict[str, Any] = dict(classes=s["K"], samples_per_class=s["n"], layers=s["M"], width=max(64, 2 * s["K"]),
                                  bias=s["bias"])
    if s["kind"] == "data":
        return DeepLinear(inputs=Isotropic(s["r"], s["v2"]), decay=s["lw"], loss_scale=s["c"], **common)
    decay = Decay(weights=s["lw"], features=s["lh"], bias=s["lb"] if s["bias"] == "decayed" else 0.0)
    return UFM(loss=s["loss"], loss_scale=s["c"], decay=decay, mobility=s["theta"], **common)


def closed_forms(s: Setting) -> Values:
    """Every closed form that the page shows, by `name` or `name.part`; absent where `theory/` has none."""
    model, free, square = model_of(s), s["kind"] == "free", s["loss"] == "mse"
    point = fixed_point(model)
    signals = np.sort(np.atleast_1d(point.signal))[::-1]
    saddle = next((root for root in point.other_roots if root.branch == "saddle"), None)
    out: Values = dict(
        exists=bool(point.exists), rank=int(point.rank), fn=point.feature_norm, layers=list(point.layer_feature_norms),
        weightNorm=float(point.weight_norms[0]), cosine=point.class_mean_cosine, bias=float(np.mean(point.bias)),
        loss=point.loss, floor=point.nc1_floor, signal=float(signals[0]) if point.rank else 0.0,
        saddle=None if saddle is None else {"fn": saddle.feature_norm, "loss": saddle.loss})
    if not square:
        assert isinstance(model, UFM)
        lams = decays_of(model, 0)
        gamma = float(np.exp((np.log(s["n"]) + np.log(lams).sum()) / len(lams)))
        factor = strength.fold(strength.of(model), len(lams))[1] / gamma
        out |= {"edge.fold.factor": factor, "edge.fold.decay": factor * float(np.exp(np.log(lams).mean()))}
        if point.exists:
            out |= {name: within_class(model).nc1_rate for name in ("rate.nc1First", "rate.nc1")[: 1 + (s["M"] == 1)]}
        return out
    end, tie, speed = fold(model), maxwell(model), rates(model)
    out |= {"edge.fold.factor": end.factor, "edge.fold.decay": end.decay, "edge.maxwell.factor": tie.factor,
            "edge.maxwell.decay": tie.decay, "regime": regime(model, s["eps"]).name,  # type: ignore[union-attr]
            "floor": floor(model).nc1 if point.exists else float("nan"), "rate.balance": speed.balance.value}
    if free:
        out |= {"rate.nc1": speed.nc1.value, "rate.nc1First": speed.nc1_first.value}
    if s["bias"] != "decayed":
        out["rate.signal"] = speed.signal.value
    elif isinstance(model, UFM):
        out["edge.meanMode"] = mean_mode_threshold(model).value
    return out


def collapse(s: Setting, scatter: float) -> Values:
    """T_NC, fn there and whether the features vanish, for free features under squared loss."""
    found = time_to_collapse(model_of(s), s["eps"], signal=s["s0"], scatter=scatter)
    return dict(time=found.time, fn=found.feature_norm, vanishes=found.regime.name == "VANISHING")


def start_scatter(s: Setting) -> float:
    """S that makes NC1 of the penultimate features `nc0` at the aligned start."""
    model = model_of(s)
    assert isinstance(model, UFM)
    return s["nc0"] * (s["K"] - 1) * float(np.prod(aligned(model, 0, s["s0"], 1.0).start[:-1] ** 2))


def path(s: Setting, times: list[float]) -> Values:
    """fn and log NC1 at `times` from the aligned start."""
    if s["kind"] == "free" and s["loss"] == "mse":
        model = model_of(s)
        assert isinstance(model, UFM)
        flow = aligned(model, 0, s["s0"], start_scatter(s))
        y, t = flow.run(times[-1] * (1 + 1e-9)).sol(times), np.array(times)
        return dict(fn=list(flow.feature_norm(t, y)), logNC1=list(flow.log_nc1(t, y)))
    return simulated(s, times)


def simulated(s: Setting, times: list[float]) -> Values:
    """As `path`, from the engine: the gradient flow of all weights and features. Equal norms of all deviations make fn a root
    mean square; n has to be even. Keep K and n small."""
    model, K, n, M = model_of(s), s["K"], s["n"], s["M"]
    F = helmert(K)[:, (s["bias"] == "free" or s["loss"] != "mse"):]
    if isinstance(model, DeepLinear):
        w = (s["s0"] * s["r"] / (s["r"] ** 2 + s["v2"])) ** (1 / M)
        W = _frames(model.weight_shapes, F, w, 0.0)
        initial: Values = {"W": W}
    else:
        lams = decays_of(model, 0)
        x = np.sqrt(np.exp(np.log(lams).mean()) / lams) * (s["s0"] * np.sqrt(n)) ** (1 / (M + 1))
        W = _frames(model.weight_shapes, F, x[1], 1.0)
        scatter = s["nc0"] * (K - 1) * float(np.prod(x[:-1] ** 2))
        H = np.zeros((model.widths[0], K * n))
        H[: F.shape[1]] = np.repeat(x[0] / np.sqrt(n) * F.T, n, axis=1)
        # +-e in the spare directions: class means stay, all deviations have one norm
        H[-1] = np.where(np.arange(K * n) % n % 2, -1, 1) * np.sqrt(scatter / (K * n))
        initial = {"H": H, "W": W}
    run = simulate(model, initial=initial, save_at=times, rtol=1e-11, atol=1e-14, flow="auto" if s["kind"] == "data" else "full")
    return dict(fn=run.data["fn"].values[0].tolist(), logNC1=np.log(run.data["nc1_trace_ratio"].values[0]).tolist())


def _frames(shapes: Iterable[tuple[int, int]], F: np.ndarray, size: float, spare: float) -> list[np.ndarray]:
    """Weights with singular value `size` on the modes, the columns of F (K, R) in class space, and `spare` beside them."""
    shapes, r = list(shapes), F.shape[1]
    W = []
    for i, (rows, columns) in enumerate(shapes):
        w = spare * np.eye(rows, columns)
        w[:r, :r] = size * np.eye(r)
        if columns == len(F) and i == 0 and not spare:  # on data, whose coordinates are the classes
            w = np.zeros((rows, columns))
            w[:r] = size * F.T
        if i == len(shapes) - 1:
            w = np.zeros((rows, columns))
            w[:, :r] = size * F
            if len(shapes) == 1 and not spare:
                w = size * F @ F.T
        W.append(w)
    return W
