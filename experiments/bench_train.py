"""What training costs: against the usual script, against the machine's own limit, lanes against one after another.

Every comparison is of rivals that take turns (`experiments.timing`). Ours are whole epochs of `realnets.run.Run`, what
`ncflow train` does; the usual script is timed on a stretch of its epoch after its workers have started, which is in its
favour, as is that its metric pass has no test set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import Any

import torch
from torch.nn import functional as F

from experiments import usual_script as usual
from experiments.bench_rivals import Products, Window, convolutions, idx_files
from experiments.timing import Target, alternate, seconds
from ncflow.threads import few_threads
from realnets import ACTIVATIONS, TwoPhase, products, train
from realnets.data import DataSet, load
from realnets.mlp import LOSSES
from realnets.optimise import Stepper, order
from realnets.resnet import ResNet
from realnets.run import Run

PARTS = ("mlp", "lanes", "resnet")
RELU = ACTIVATIONS["relu"]
_BLOCK = 1024  # rows of a product in the metric pass


@dataclass(frozen=True)
class Sizes:
    """How much is measured; the defaults are what the targets are for.

    Attributes:
        rounds: of each comparison.
        samples: MNIST images, None for all; `width` of the MLP-5, `batches` its batch sizes.
        stretch: images in the stretch of an epoch on which the script and the bare products are timed.
        lanes: numbers of networks; `lane_width`, `lane_samples`, `lane_batch`.
        sides: of ResNet-20's images, `image_batch` of them per step, `image_steps` steps.
    """

    rounds: int = 3
    samples: int | None = None
    width: int = 512
    batches: tuple[int, ...] = (128, 512)
    stretch: int = 8192
    lanes: tuple[int, ...] = (12, 48)
    lane_width: int = 128
    lane_samples: int = 1000
    lane_batch: int = 16
    sides: tuple[int, ...] = (14, 32)
    image_batch: int = 128
    image_steps: int = 4


QUICK = Sizes(rounds=1, samples=200, width=16, batches=(16, 32), stretch=64, lanes=(2, 3), lane_width=16, lane_samples=40,
              lane_batch=8, sides=(14,), image_batch=8, image_steps=1)  # fmt: skip
#: What is aimed at: times as fast as the script; times the bare products, by batch size; times as fast as one by one, by lanes.
SCRIPT, LIMIT, LANES = 3.0, {128: 1.8, 512: 1.5}, {12: 3.0, 48: 5.0}
EVEN = 0.97  # as fast as: the same convolutions on both sides, to what rounds differ by
Tell = Callable[[str, float], None]


def bench(sizes: Sizes, *, root: str | None, device: str = "cpu", parts: Iterable[str] = PARTS, progress: Tell) -> dict[str, Any]:
    """The results of each of `parts` by name, JSON-ready, with "targets" and, on a GPU, its agreement with the processor.

    Raises:
        BadInput: device or data not there.
    """
    data = load("mnist", sizes.samples, root)
    found: dict[str, Any] = {}
    targets: list[Target] = []
    if "mlp" in parts:
        with idx_files(root) as folder:
            found["mlp"] = [mlp(sizes, batch, data, folder, device, targets, progress) for batch in sizes.batches]
    if "lanes" in parts:
        few = load("mnist", sizes.lane_samples, root)
        found["lanes"] = [lanes(sizes, count, few, device, targets, progress) for count in sizes.lanes]
    if "resnet" in parts:
        found["resnet"] = [resnet(sizes, side, root, device, targets, progress) for side in sizes.sides]
    found["targets"] = [target.json() for target in targets]
    found["gpu"] = agreement(device) if torch.device(device).type == "cuda" else "unmeasured"
    return found


def mlp(sizes: Sizes, batch: int, data: DataSet, folder: str, device: str, targets: list[Target],
        progress: Tell) -> dict[str, Any]:
    """Seconds per epoch, training and metrics, of ours, the script and the bare products; and where ours go."""
    protocol = TwoPhase(dataset="mnist", subset=sizes.samples, width=sizes.width, depth=5, batch_size=batch, lr=1e-3,
                        decays=(1e-4,), seeds=(0,), epochs_ce=1, epochs_mse=1)  # fmt: skip
    count, rates, loss = len(data.y_train), [1e-3], "mse"
    part, run = min(count, sizes.stretch) // batch, _begun(protocol, data, device)
    source, model = usual.mnist(folder), usual.mlp(sizes.width).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)

    def script(work: Callable[[Iterable], Any], workers: int, shuffle: bool) -> float:
        window = Window(usual.loader(source, batch, workers, shuffle), 2 * workers, part, device)
        work(window)
        return window.seconds * count / (part * batch)

    training = partial(usual.train_epoch, model, optimiser=optimiser, loss=loss, device=device)
    measuring = partial(usual.metrics, model, device=device)
    workers = min((0, 2), key=lambda n: script(training, n, True))
    shapes, blocks = _shapes(run), max(1, part * batch // _BLOCK)
    _epoch(run)  # warm
    name = f"MLP-5/{sizes.width}, batch {batch}"
    contest: dict[str, Callable[[], Any]] = {
        "ours": lambda: _epoch(run),
        "script": lambda: script(training, workers, True),
        "ours_metrics": lambda: run.record(2, rates),
        "script_metrics": lambda: script(measuring, workers, False),
    }
    libraries = ("torch.bmm", "oneDNN") if products.onednn() and torch.device(device).type == "cpu" else ("torch.bmm",)
    bare = {library: Products(shapes, batch, device, fast=library == "oneDNN") for library in libraries}
    for library, alone in bare.items():
        forward = Products(shapes, _BLOCK, device, fast=alone.fast).forward
        contest[library] = lambda alone=alone: _per(alone.step, part, device) * count / batch
        contest[f"{library}_metrics"] = lambda forward=forward: _per(forward, blocks, device) * count / _BLOCK
    times = alternate(contest, sizes.rounds, device=device, progress=partial(progress, name))
    fastest = min(libraries, key=lambda library: times[library].median)
    times |= {"limit": times[fastest], "limit_metrics": times[f"{fastest}_metrics"]}
    pieces = _pieces(run, bare[fastest], part, device)
    whole = {who: times[who].plus(times[f"{who}_metrics"]) for who in ("ours", "script", "limit")}
    against = {"script": whole["script"].over(whole["ours"]), "limit": whole["ours"].over(whole["limit"]),
               "script to limit": whole["script"].over(whole["limit"])}  # fmt: skip
    targets.append(Target(f"{name}: times as fast as the usual script", against["script"].median, least=SCRIPT))
    most = LIMIT.get(batch, max(LIMIT.values()))
    targets.append(Target(f"{name}: times the bare products", against["limit"].median, most=most))
    pieces["Python and the rest"] = times["ours"].median - sum(pieces.values())
    pieces["metrics: products"] = times["limit_metrics"].median
    pieces["metrics: all else"] = times["ours_metrics"].median - times["limit_metrics"].median
    times |= {f"{who}_whole": value for who, value in whole.items()}
    return {"batch": batch, "width": sizes.width, "samples": count, "workers": workers, "stretch_steps": part, "limit": fastest,
            "seconds_per_epoch": {who: value.json() for who, value in times.items()},
            "ratios": {who: ratio.json() for who, ratio in against.items()}, "where": pieces}  # fmt: skip


def _pieces(run: Run, bare: Products, steps: int, device: str) -> dict[str, float]:
    """Seconds per epoch of each kind of work of a training epoch, each on its own at the shapes of `run`."""
    batch, count, stepper = run.protocol.batch_size, len(run.y), run.stepper
    assert stepper is not None
    visits = cycle(torch.as_tensor(order(0, 1, 0, count)).to(device).split(batch))
    targets = run.targets[None, :batch]
    outputs = [size for size, _ in bare.shapes]
    activations = [torch.randn(1, batch, size, device=device) for size in outputs]
    biases = [torch.zeros(1, 1, size, device=device) for size in outputs]
    sums = [torch.zeros(1, size, device=device) for size in outputs]

    def elementwise() -> None:
        for z, b in zip(activations[:-1], biases, strict=False):
            RELU.backward(z, RELU.forward(z.add_(b)))
        for z, out in zip(activations, sums, strict=True):
            torch.sum(z, 1, out=out)

    def gather() -> None:
        rows = next(visits)
        run.x.index_select(0, rows)
        run.targets.index_select(0, rows)

    kept = run.net.theta.clone()
    pieces = {"products": bare.step, "optimiser": stepper.step, "activations and biases": elementwise,
              "loss": lambda: LOSSES["mse"](activations[-1].clone(), targets), "gather": gather}  # fmt: skip
    found = {name: min(_per(work, steps, device) for _ in range(2)) * count / batch for name, work in pieces.items()}
    run.net.theta.copy_(kept)
    found["order"] = seconds(lambda: torch.as_tensor(order(0, 1, 0, count)).to(device), device)
    return found


def lanes(sizes: Sizes, count: int, data: DataSet, device: str, targets: list[Target], progress: Tell) -> dict[str, Any]:
    """Seconds per epoch of `count` small networks, in one batch and one after another, without metrics.

    All are timed with the number of threads that `realnets.train` would take and with all; what counts is the better of each.
    One after another is ours with a lane at a time; the plain loop is what it would be written as otherwise, autograd and
    `torch.optim.Adam` as it comes, on images that are already in memory.
    """
    protocol = TwoPhase(dataset="mnist", subset=sizes.lane_samples, width=sizes.lane_width, depth=5, batch_size=sizes.lane_batch,
                        lr=1e-3, decays=(1e-4,), seeds=tuple(range(count)), epochs_ce=1, epochs_mse=1)  # fmt: skip
    together = [_begun(protocol, data, device)]
    single = [_begun(replace(protocol, seeds=(seed,)), data, device) for seed in range(count)]
    shapes, steps = _shapes(single[0]), -(-len(data.y_train) // sizes.lane_batch)
    one, many = (Products(shapes, sizes.lane_batch, device, n) for n in (1, count))
    x, y = together[0].x, together[0].y
    models = [usual.mlp(sizes.lane_width).to(device) for _ in range(count)]
    optimisers = [torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4) for model in models]

    def plain(threads: float) -> None:
        with few_threads(threads):
            for model, optimiser in zip(models, optimisers, strict=True):
                visits = torch.randperm(len(y), device=device).split(sizes.lane_batch)
                usual.train_epoch(model, ((x[rows], y[rows]) for rows in visits), optimiser, "mse", device)

    threads = {"batched": _epoch(together[0]), "one by one": _epoch(single[0])}
    name = f"{count} lanes of MLP-5/{sizes.lane_width}"
    times = alternate({
        "batched": partial(_all, together), "batched, all threads": partial(_all, together, few=False),
        "one by one": partial(_all, single), "one by one, all threads": partial(_all, single, few=False),
        "plain loop": partial(plain, 0.0), "plain loop, all threads": partial(plain, float("inf")),
        "bare products, batched": lambda: _per(many.step, steps, device) * steps,
        "bare products, one by one": lambda: _per(one.step, steps, device) * steps * count,
    }, sizes.rounds, device=device, progress=partial(progress, name))  # fmt: skip
    best = {who: min((each for key, each in times.items() if key.startswith(who)), key=lambda t: t.median)
            for who in ("batched", "one by one", "plain loop", "bare products")}  # fmt: skip
    gain = best["one by one"].over(best["batched"])
    targets.append(Target(f"{name}: times as fast as one by one", gain.median, least=LANES.get(count, 1.0)))
    return {"lanes": count, "width": sizes.lane_width, "samples": len(data.y_train), "batch": sizes.lane_batch,
            "threads": threads, "seconds": {who: value.json() for who, value in times.items()}, "ratio": gain.json(),
            "against_plain": best["plain loop"].over(best["batched"]).json(),
            "at_most": best["one by one"].over(best["bare products"]).json()}  # fmt: skip


def resnet(sizes: Sizes, side: int, root: str | None, device: str, targets: list[Target], progress: Tell) -> dict[str, Any]:
    """Training images per second of ResNet-20 on 3-channel images, ours and plain modules, in both memory formats."""
    batch, steps = sizes.image_batch, sizes.image_steps
    data = load("mnist", max(20, batch // 10 * 10), root, size=side)
    x, y = torch.as_tensor(data.x_train).to(device), torch.as_tensor(data.y_train).to(device)
    rows = torch.arange(batch, device=device) % len(y)
    images, Y = x[rows].view(batch, *data.shape).expand(-1, 3, -1, -1).contiguous(), F.one_hot(y[rows], 10).to(x)

    def ours(last: bool) -> Callable[[], float]:
        net = ResNet(data.shape, 10, (0,), channels=3, channels_last=last, device=device)
        stepper = Stepper(net.theta, net.grad, [1e-3], 1e-2, kind="sgd")

        def step() -> None:
            net.gradient(x.index_select(0, rows), Y, "mse")
            stepper.step()

        return lambda: _per(step, steps, device)

    def plain(last: bool) -> Callable[[], float]:
        format = torch.channels_last if last else torch.contiguous_format
        model = usual.resnet20().to(device).to(memory_format=format)
        held = images.to(memory_format=format)
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, nesterov=True, weight_decay=1e-3)
        return lambda: _per(lambda: usual.train_epoch(model, [(held, y[rows])], optimiser, "mse", device), steps, device)

    formats = {"contiguous": False, "channels_last": True}
    contest: dict[str, Callable[[], float]] = {}
    for format, last in formats.items():
        bare = convolutions(side, batch, device, last)
        contest |= {f"ours, {format}": ours(last), f"plain, {format}": plain(last),
                    f"convolutions, {format}": partial(_per, bare, steps, device)}  # fmt: skip
    for work in contest.values():
        work()
    name = f"ResNet-20, {side}x{side}, batch {batch}"
    times = alternate(contest, sizes.rounds, device=device, progress=partial(progress, name))
    gains = {format: times[f"plain, {format}"].over(times[f"ours, {format}"]) for format in formats}
    gains["default against plain contiguous"] = times["plain, contiguous"].over(times["ours, channels_last"])
    for format in formats:
        targets.append(Target(f"{name}, {format}: times as fast as the plain loop", gains[format].median, least=EVEN))
    share = {format: times[f"convolutions, {format}"].over(times[f"ours, {format}"]) for format in formats}
    return {"side": side, "batch": batch, "images_per_second": {who: batch / t.median for who, t in times.items()},
            "seconds_per_step": {who: t.json() for who, t in times.items()}, "ratios": {k: r.json() for k, r in gains.items()},
            "convolutions_share": {k: r.json() for k, r in share.items()}}  # fmt: skip


def agreement(device: str) -> dict[str, Any]:
    """Largest relative difference between `device` and the processor after two epochs of digits, in float64."""
    found: dict[str, dict[str, float]] = {}
    shapes: dict[str, dict[str, Any]] = {"mlp": {"depth": 3, "width": 32}, "residual_mlp": {"depth": 3, "width": 32},
                                         "resnet20": {"depth": 8, "width": 10}}  # fmt: skip
    for architecture, how in shapes.items():
        protocol = TwoPhase(dataset="digits", subset=200, architecture=architecture, seeds=(0, 1), decays=(1e-4,), batch_size=50,
                            lr=1e-3, epochs_ce=1, epochs_mse=1, **how)  # fmt: skip
        runs = [train(protocol, device=where, dtype="float64").data for where in ("cpu", device)]
        found[architecture] = {
            name: float(abs(runs[1][name] / runs[0][name] - 1).max()) for name in ("fn", "nc1_trace_ratio", "weight_norm", "mse")
        }
    return {"largest_relative_difference": found, "agrees": all(v < 1e-6 for each in found.values() for v in each.values())}


def _begun(protocol: TwoPhase, data: DataSet, device: str) -> Run:
    """A run at the start of phase 2."""
    run = Run(protocol, data, torch.device(device), torch.float32)
    run.begin(2)
    return run


def _shapes(run: Run) -> list[tuple[int, ...]]:
    """(outputs, inputs) of every weight of one lane."""
    return [tuple(run.net.named()[name].shape[1:]) for name in run.net.weight_layers]


def _epoch(run: Run, few: bool = True) -> int:
    """One epoch, with as many threads as `realnets.train` takes if `few`, else with all; returns how many."""
    work = run.net.work(run.protocol.batch_size)  # type: ignore[attr-defined]
    with few_threads(work if few else float("inf")):
        run.epoch(2, "mse", 0, [1e-3] * run.net.lanes)
        return torch.get_num_threads()


def _all(runs: list[Run], few: bool = True) -> None:
    for run in runs:
        _epoch(run, few)


def _per(work: Callable[[], Any], calls: int, device: str) -> float:
    """Seconds per call."""
    work()

    def many() -> None:
        for _ in range(calls):
            work()

    return seconds(many, device) / calls
