"""`ncflow bench engine`: the engine against general solvers, a plain training loop, itself lane by lane, and its own products.

Both sides of a comparison run at the loosest tolerance at which they meet the accuracy asked for, against a reference that is
not the engine's (SciPy's DOP853 at rtol 1e-12). Where a rival would take minutes its time is the measured time of an evaluation
of its own solver on the full flow, times the evaluations that it needs on the reduced problem, and the row says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from experiments.plain_ufm import (
    Start,
    descend,
    feature_norm,
    full_field,
    nc1,
    scipy_run,
    seconds_per_evaluation,
    torchdiffeq_run,
)
from experiments.time_shares import shares
from experiments.timing import Target, alternate, seconds
from ncflow import UFM, Crossing, Decay, Trajectory, simulate
from theory import fixed_point

LADDER = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)


@dataclass(frozen=True)
class Size:
    """How large the benchmark is."""

    width: int = 512
    per_class: int = 6000
    counts: tuple[int, ...] = (60, 6000, 6_000_000)
    decay: float = 5e-4
    collapsed: float = 1e-6
    small_decay: float = 1e-5
    lanes: int = 64  # seeds, and as many decays
    alone: int = 16
    horizon: float = 2000.0  # of the lanes
    depths: tuple[int, ...] = (1, 3, 6, 9)
    published: dict[str, int] = field(default_factory=lambda: {"classes": 4, "samples_per_class": 100, "width": 64})
    rounds: int = 3


QUICK = Size(width=24, per_class=60, counts=(60, 6000), decay=5e-3, collapsed=1e-3, small_decay=1e-3, lanes=4, alone=2,
             horizon=100.0, depths=(1,), published={"classes": 3, "samples_per_class": 10, "width": 8}, rounds=1)


@dataclass
class Case:
    """One comparison: what was set, rows of a table, and the targets that it is judged by."""

    name: str
    title: str
    setting: str
    columns: tuple[str, ...]
    rows: list[dict[str, Any]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        return asdict(self) | {"targets": [t.json() for t in self.targets]}


def start(width: int, isotropic: bool, classes: int = 10) -> Start:
    """Class means of length 0.1, a semi-orthogonal classifier, scatter of 0.01 in all, isotropic or of Gaussian samples."""
    g = np.random.default_rng(0)
    means = g.normal(size=(width, classes)) * 0.1 / np.sqrt(width)
    W = 0.3 * np.linalg.qr(g.normal(size=(width, classes)))[0].T
    samples = g.normal(size=(width, 4 * width))
    return Start(means, 0.01 / width if isotropic else 0.01 / width * samples @ samples.T / (4 * width), W)


def model_of(width: int, per_class: int, decay: float) -> UFM:
    """n lambda_H = lambda_W = decay, theta = N/K = n, c = 1/2."""
    return UFM(classes=10, samples_per_class=per_class, width=width, layers=1, loss="mse", loss_scale=0.5, bias="none",
               decay=Decay(weights=decay, features=decay / per_class), mobility=float(per_class))


def initial(begin: Start, per_class: int) -> dict[str, Any]:
    """The start for `simulate`, by its moments."""
    N = 10 * per_class
    return {"M": begin.means, "scatter": begin.covariance * N, "W": [begin.W]}


def collapse_time(begin: Start, per_class: int, decay: float, level: float) -> float:
    """When NC1 reaches `level`, on the reference: bisection of a dense solution."""
    from scipy.integrate import solve_ivp

    f, y, out = begin.reduced(per_class, decay)
    crossing = lambda t, y: np.log(nc1(f, y, t, out) / level)  # noqa: E731
    crossing.terminal = True
    return float(solve_ivp(f, (0, 100 / decay), y, method="DOP853", rtol=1e-8, atol=1e-11, events=crossing).t[-1])


def loosest(attempt: Callable[[float], tuple[np.ndarray, Any]], reference: np.ndarray, within: float
            ) -> tuple[float, float, Any]:
    """The loosest rtol of `LADDER` at which `attempt(rtol)` = (fn, anything) is within; its error; and that anything."""
    for rtol in LADDER:
        fn, found = attempt(rtol)
        error = float(np.abs(fn / reference - 1).max())
        if error <= within:
            return rtol, error, found
    return rtol, error, found


def large(size: Size, device: str, tell: Callable[[float], None]) -> Case:
    """The full flow of 60,000 samples under general solvers, against the engine, to collapse."""
    n, p, decay = size.per_class, size.width, size.decay
    case = Case("large", "To collapse: the engine against general solvers on the full flow",
                f"K = 10, n = {n:,} (N = {10 * n:,}), p = {p}, theta = N/K, c = 1/2, n lambda_H = lambda_W = {decay:g}, to NC1 < "
                f"{size.collapsed:g}; fn(t) within 1e-6 of DOP853 at rtol 1e-12 at 30 times; start given by its moments",
                ("scatter", "by", "rtol", "fn error", "evaluations", "seconds", "times as long"))
    full, state = full_field(n, 10, p, decay, device)
    cost = {name: seconds_per_evaluation(name, full, state) for name in ("torchdiffeq dopri5", "SciPy DOP853")}
    del full, state
    tell(0.3)
    for step, isotropic in enumerate((True, False)):
        begin = start(p, isotropic)
        f, y, out = begin.reduced(n, decay)
        end = collapse_time(begin, n, decay, size.collapsed)
        times = np.geomspace(1.0, end, 30)
        reference = feature_norm(f, scipy_run(f, y, times, 1e-12 if isotropic else 1e-11)[0], times, out)
        model, moments, flow = model_of(p, n, decay), initial(begin, n), "auto" if isotropic else "equal_decays"

        def ours(rtol: float, save_at: Iterable[float] = times) -> Trajectory:
            return simulate(model, initial=moments, save_at=list(save_at), rtol=rtol, flow=flow, device=device,  # noqa: B023
                            events=(Crossing(level=size.collapsed),))

        def engine(rtol: float) -> tuple[np.ndarray, Trajectory]:
            run = ours(rtol)
            return run.data["fn"].values[0], run

        rtol, error, run = loosest(engine, reference, 1e-6)
        time = alternate({"ours": lambda: ours(rtol)}, size.rounds, device=device)["ours"].median  # noqa: B023
        scatter, evaluations = ("isotropic" if isotropic else "general"), int(run.data["evaluations"].item())
        case.rows.append({"scatter": scatter, "by": f"ncflow, flow {run.data.attrs['flow']}", "rtol": rtol, "fn error": error,
                          "evaluations": evaluations, "seconds": time, "times as long": 1.0})
        for name, solve in (("torchdiffeq dopri5", torchdiffeq_run), ("SciPy DOP853", scipy_run)):
            def rival(rtol: float) -> tuple[np.ndarray, int]:
                states, count = solve(f, y, times, rtol)  # noqa: B023
                return feature_norm(f, states, times, out), count  # noqa: B023

            loose, wrong, count = loosest(rival, reference, 1e-6)
            case.rows.append({"scatter": scatter, "by": name, "rtol": loose, "fn error": wrong, "evaluations": count,
                              "seconds": count * cost[name], "times as long": count * cost[name] / time})
            case.targets.append(Target(f"{name} over ncflow, {scatter} scatter", count * cost[name] / time, least=1000))
        tell(0.3 + 0.35 * (step + 1))
    paid = ", ".join(f"{name} {value:.3g} s" for name, value in cost.items())
    case.notes.append(f"Rivals: measured seconds per evaluation on the full flow ({paid}; the solver's own work included) times "
                      "evaluations counted on the reduced problem.")
    return case


def samples(size: Size, device: str, tell: Callable[[float], None]) -> Case:
    """Time against the number of samples."""
    case = Case("samples", "The same state whatever the number of samples",
                f"as before, isotropic scatter, rtol 1e-6, to t = {20 / size.decay:g}, median of {max(5, size.rounds)} runs "
                "in turn",
                ("n per class", "evaluations", "seconds"))
    begin, runs = start(size.width, True), {}

    def make(n: int) -> Callable[[], Trajectory]:
        return lambda: runs.setdefault(n, []).append(  # type: ignore[return-value]
            simulate(model_of(size.width, n, size.decay), initial=initial(begin, n), until=20 / size.decay, rtol=1e-6,
                     save_at=[20 / size.decay], device=device))

    jobs = {str(n): make(n) for n in size.counts}
    jobs[str(size.counts[0])]()
    times = alternate(jobs, max(5, size.rounds), device=device, progress=tell)
    for n in size.counts:
        case.rows.append({"n per class": n, "evaluations": int(runs[n][0].data["evaluations"].item()),
                          "seconds": times[str(n)].median})
    median = [row["seconds"] for row in case.rows]
    case.targets.append(Target("slowest over fastest", max(median) / min(median), most=1.2))
    return case


def stiff(size: Size, device: str, tell: Callable[[float], None]) -> Case:
    """Evaluations of the stabilised method against the explicit pair over a long horizon."""
    decay, n = size.small_decay, size.per_class
    case = Case("stiff", "A long horizon: stabilised against explicit steps",
                f"as before, isotropic scatter, lambda = {decay:g}, to t = 5/lambda; fn(t) within 1e-6 of DOP853 at rtol 1e-12 "
                "at 50 times",
                ("method", "rtol", "fn error", "NC1 error", "evaluations", "seconds"))
    begin = start(size.width, True)
    f, y, out = begin.reduced(n, decay)
    times = np.geomspace(1.0, 5 / decay, 50)
    states = scipy_run(f, y, times, 1e-12)[0]
    reference = feature_norm(f, states, times, out)
    true_nc1 = np.array([nc1(f, s, t, out) for s, t in zip(states, times, strict=True)])
    counts = {}
    methods = ("dopri5", "auto", "rkc2", "rkc3", "rkc4")
    for i, method in enumerate(methods):
        def run(rtol: float) -> tuple[np.ndarray, Trajectory]:
            made = simulate(model_of(size.width, n, decay), initial=initial(begin, n), save_at=times.tolist(), rtol=rtol,
                            atol=1e-9, method=method, device=device, events=())  # noqa: B023
            return made.data["fn"].values[0], made

        rtol, error, made = loosest(run, reference, 1e-6)
        counts[method] = int(made.data["evaluations"].item())
        spent = seconds(lambda: run(rtol) and None, device)  # noqa: B023
        wrong = float(np.abs(made.data["nc1_trace_ratio"].values[0] / true_nc1 - 1).max())
        case.rows.append({"method": method, "rtol": rtol, "fn error": error, "NC1 error": wrong, "evaluations": counts[method],
                          "seconds": spent})
        tell((i + 1) / len(methods))
    case.targets.append(Target("evaluations, dopri5 over auto", counts["dopri5"] / counts["auto"], least=20))
    return case


def lanes(size: Size, device: str, tell: Callable[[float], None]) -> Case:
    """Many lanes at once against one at a time."""
    decays, horizon, total = np.geomspace(1e-4, 1e-2, size.lanes), size.horizon, size.lanes**2
    workers = (os.cpu_count() or 1) if torch.device(device).type == "cpu" else 1
    case = Case("lanes", "Many lanes at once against one at a time",
                f"K = 10, n = 100, p = 32, reduced flow, {size.lanes} seeds x {size.lanes} decays 1e-4 .. 1e-2, theta = n, "
                f"rtol 1e-6, to t = {horizon:g}, one record at the end; alone: {size.alone} lanes spread over all",
                ("how", "lanes", "seconds", "lanes per second", "times"))

    def make(chosen: np.ndarray) -> UFM:
        return UFM(classes=10, samples_per_class=100, width=32, layers=1, loss="mse", loss_scale=0.5,
                   decay=Decay(weights=chosen.tolist(), features=(chosen / 100).tolist()), mobility=100.0)

    def go(chosen: np.ndarray, seeds: Iterable[int], share: int = 1, progress: Any = None) -> Trajectory:
        return simulate(make(chosen), seeds=seeds, save_at=[horizon], rtol=1e-6, flow="reduced", device=device, workers=share,
                        progress=progress)

    go(decays[:1], [0])
    if workers > 1:  # processes are there before the clock starts
        go(decays[:workers], range(2 * workers), workers)
    picked = np.linspace(0, total - 1, size.alone).astype(int)
    single: dict[int, Trajectory] = {}

    def one_at_a_time() -> None:
        for i in picked:
            single[i] = go(decays[i // size.lanes : i // size.lanes + 1], [int(i % size.lanes)])

    alone = alternate({"alone": one_at_a_time}, size.rounds, device=device)["alone"].median
    tell(0.1)
    found: list[Trajectory] = []
    spent = seconds(lambda: found.append(go(decays, range(size.lanes), workers, lambda x: tell(0.1 + 0.7 * x))), device)
    some = decays[:: max(1, size.lanes // 8)]
    spent_one = seconds(lambda: go(some, range(size.lanes)) and None, device)
    tell(0.9)
    base = size.alone / alone
    for how, count, time in (("one at a time", size.alone, alone), ("batched, 1 process", len(some) * size.lanes, spent_one),
                             (f"batched, {workers} processes", total, spent)):
        case.rows.append({"how": how, "lanes": count, "seconds": time, "lanes per second": count / time,
                          "times": count / time / base})
    apart = max(float(np.abs(found[0].data["fn"].values[i, -1] / single[i].data["fn"].values[0, -1] - 1)) for i in picked)
    case.targets.append(Target("throughput over one at a time", case.rows[-1]["times"], least=10))
    case.notes.append(f"Largest relative difference of fn between a lane in the batch and alone: {apart:.1e}.")
    if torch.device(device).type == "cpu":  # steps that a GPU replays cannot be looked into
        case.notes.append(str(shares(lambda: go(decays[len(decays) // 2 :][:1], range(min(64, 4 * size.lanes))))))
    return case


def published(size: Size, device: str, tell: Callable[[float], None]) -> Case:
    """The published synthetic experiment, against the usual loop."""
    shape, decay, within = size.published, 5e-4, 1e-6
    K, n, p = shape["classes"], shape["samples_per_class"], shape["width"]
    case = Case("published", "The published synthetic experiment against the usual loop",
                f"K = {K}, n = {n}, p = {p}, all decays {decay:g}, no bias, N(0, 0.1) start, c = 1/2, to a relative distance of "
                f"{within:g} of both Gram matrices (class means, head) from the fixed point; loop: full-batch SGD, lr 0.1, "
                "momentum 0.9, no metrics, float64",
                ("M", "by", "seconds", "times as long", "t or steps", "fn error on the way", "distance"))
    labels = np.repeat(np.arange(K), n)
    for step, M in enumerate(size.depths):
        model = UFM(classes=K, samples_per_class=n, width=p, layers=M, loss="mse", loss_scale=0.5, bias="none",
                    decay=Decay(weights=decay, features=decay))
        point = fixed_point(model)
        g = np.random.default_rng(0)
        state = {"H": 0.1 * g.normal(size=(p, K * n)), "W": [0.1 * g.normal(size=(p if i < M - 1 else K, p)) for i in range(M)]}
        means, head = float(point.class_mean_norms[0]) ** 2, float(point.weight_norms[-1]) ** 2 / K

        def distance(H: np.ndarray, W: list[np.ndarray]) -> float:
            for w in W[:-1]:
                H = w @ H
            m = H.reshape(len(H), K, n).mean(2)
            return max(float(np.linalg.norm(a / b - np.eye(K)) / K**0.5)
                       for a, b in ((m.T @ m, means), (W[-1] @ W[-1].T, head)))  # noqa: B023

        def ours(until: float, rtol: float = 1e-3, save_at: Any = None) -> Trajectory:
            return simulate(model, initial=state, save_at=save_at or [until], rtol=rtol, atol=1e-6, events=(), device=device)  # noqa: B023

        def reached(until: float) -> float:
            last = ours(until).final
            return distance(last["H"][0], [last[f"W_{i}"][0] for i in range(1, M + 1)])  # noqa: B023

        low, high = 1e3, 1e3
        while (far := reached(high)) > within and high < 2e5:
            low, high = high, 1.5 * high
        arrived = far <= within
        while arrived and high / low > 1.02:
            middle = (low * high) ** 0.5
            low, high = (low, middle) if reached(middle) <= within else (middle, high)
        grid = np.geomspace(10, high, 40).round().tolist()
        exact = ours(high, 1e-9, grid).data["fn"].values[0]
        error = float(np.abs(ours(high, save_at=grid).data["fn"].values[0] / exact - 1).max())
        time = alternate({"ours": lambda: ours(high)}, max(5, size.rounds), device=device)["ours"].median  # noqa: B023
        case.rows.append({"M": M, "by": "ncflow, rtol 1e-3", "seconds": time, "times as long": 1.0, "t or steps": high,
                          "fn error on the way": error, "distance": reached(high)})
        seen: list[tuple[int, float, float]] = []

        def look(done: int, H: torch.Tensor, W: list[torch.Tensor]) -> bool:
            h, w = H.cpu().numpy(), [x.cpu().numpy() for x in W]
            far = distance(h, w)
            for x in w[:-1]:
                h = x @ h
            seen.append((done, float(np.linalg.norm(h, axis=0).mean()), far))  # noqa: B023
            return far <= within

        steps, spent = descend(state["H"], state["W"], labels, decay, 60_000, 50, look, device)
        done, fn, far = (np.array(x, dtype=float) for x in zip(*seen, strict=True))
        flow = np.interp(done, grid, exact)  # effective rate lr / (1 - momentum) = 1: one step is t = 1
        between = done >= grid[len(grid) // 2]
        case.rows.append({"M": M, "by": "PyTorch SGD loop", "seconds": spent, "times as long": spent / time, "t or steps": steps,
                          "fn error on the way": float(np.abs(fn / flow - 1)[between].max()), "distance": float(far[-1])})
        both = arrived and far[-1] <= within
        if both:
            case.targets.append(Target(f"loop over ncflow, M = {M}", spent / time, least=50))
        else:
            case.notes.append(f"M = {M}: {'the loop' if arrived else 'ncflow'} does not get within {within:g}: it ends at a "
                              "lower rank, or runs out of time.")
        tell((step + 1) / len(size.depths))
    case.notes.append("fn error on the way: against the flow at rtol 1e-9; of the loop, with t = steps lr / (1 - momentum), over "
                      "the later half of the times.")
    return case


def peers(size: Size, device: str, tell: Callable[[float], None]) -> Case:
    """Other solver libraries, where installed, on the reduced problem and, by their evaluations, on the full one."""
    from experiments.solver_peers import PEERS

    n, decay = size.per_class, size.decay
    case = Case("peers", "Other batched solvers",
                "the first setting, isotropic scatter; time on the reduced problem of 2K dimensions that ncflow finds by itself, "
                "compilation apart, and evaluations times a bare evaluation of the full flow",
                ("by", "rtol", "fn error", "evaluations", "seconds, reduced", "seconds, full"))
    begin = start(size.width, True)
    f, y, out = begin.reduced(n, decay)
    times = np.geomspace(1.0, collapse_time(begin, n, decay, size.collapsed), 30)
    reference = feature_norm(f, scipy_run(f, y, times, 1e-12)[0], times, out)
    full, state = full_field(n, 10, size.width, decay, device)
    bare = min(alternate({"bare": partial(full, 0.0, state)}, 3, device=device)["bare"].seconds)
    for i, (name, solve) in enumerate(PEERS.items()):
        if find_spec(name.split()[0]) is None:
            case.notes.append(f"{name}: not installed.")
            continue

        def rival(rtol: float) -> tuple[np.ndarray, tuple[int, float]]:
            states, count, spent = solve(f, y, times, rtol)  # noqa: B023
            return feature_norm(f, states, times, out), (count, spent)

        rtol, error, (count, spent) = loosest(rival, reference, 1e-6)
        case.rows.append({"by": name, "rtol": rtol, "fn error": error, "evaluations": count, "seconds, reduced": spent,
                          "seconds, full": count * bare})
        tell((i + 1) / len(PEERS))
    return case


CASES = {"large": large, "samples": samples, "stiff": stiff, "lanes": lanes, "published": published, "peers": peers}


def agreement(device: str) -> float:
    """Largest relative difference of fn and NC1 between `device` and the CPU on a small run."""
    model = model_of(32, 100, 5e-4)
    runs = [simulate(model, seeds=range(8), until=1000.0, rtol=1e-9, device=d).data for d in ("cpu", device)]
    return max(float(np.nanmax(np.abs(runs[1][name].values / runs[0][name].values - 1))) for name in ("fn", "nc1_trace_ratio"))


def bench(names: Iterable[str], size: Size, device: str = "cpu",
          progress: Callable[[str, float], None] | None = None) -> Iterator[Case]:
    """The cases of `names`, one after the other, each as soon as it is measured."""
    for name in names:
        tell = (lambda share, name=name: progress(name, share)) if progress is not None else (lambda share: None)
        tell(0.0)
        case = CASES[name](replace(size), device, tell)
        tell(1.0)
        yield case
