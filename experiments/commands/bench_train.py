"""`ncflow bench train`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Annotated, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments import bench_train as job
from experiments.options import COMMON
from experiments.output import clean, writable, write_json
from experiments.progress import progress
from experiments.timing import machine
from ncflow.errors import require
from ncflow.provenance import provenance
from realnets.train import find_device


@dataclass(frozen=True, kw_only=True)
class Options:
    """How fast training is: against the usual script, against the bare matrix products, many networks at once against one
    after another, and ResNet-20 against a plain loop.

    Times are taken in turns, so that the ratios mean something on a machine that is not quite free; seconds do not. MNIST
    has to be at hand (`mnist.npz` in the folder of the data sets). A minute or two per part on two cores.

    For example,

        ncflow bench train --data FOLDER

        ncflow bench train --parts resnet --device cuda --data FOLDER --json
    """

    out: Annotated[str, tyro.conf.arg(help="folder for results")] = "runs"
    data: Annotated[str | None, tyro.conf.arg(help=COMMON["data"][2])] = None
    device: Annotated[str, tyro.conf.arg(help="cpu or cuda; on cuda, agreement with the processor is checked")] = "cpu"
    parts: Annotated[tuple[str, ...], tyro.conf.arg(help="what to measure: mlp, lanes, resnet", metavar="STR ...")] = job.PARTS
    rounds: Annotated[int, tyro.conf.arg(help="how often the rivals take turns")] = 3
    quick: Annotated[bool, tyro.conf.arg(help="tiny sizes, to see that it works; the numbers mean nothing")] = False
    json: Annotated[bool, tyro.conf.arg(help="print one JSON object on stdout and nothing else there")] = False


def run(options: Options) -> int:
    """Exit code: 1 if a GPU does not agree with the processor; a missed target is reported, not an error."""
    for part in options.parts:
        require(part in job.PARTS, "parts", part, f"among {', '.join(job.PARTS)}")
    require(options.rounds >= 1, "rounds", options.rounds, "1 or more")
    out, device = writable(options.out), find_device(options.device)
    sizes = job.QUICK if options.quick else job.Sizes(rounds=options.rounds)
    start, about = perf_counter(), machine(str(device))
    with progress() as tell:
        found = job.bench(sizes, root=options.data, device=str(device), parts=options.parts, progress=tell)
    folder = writable(out / "bench-train")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bench-train-{device.type}.json"
    report = {"machine": about, "device": device.type, "quick": options.quick, "sizes": asdict(sizes), **found,
              "seconds": perf_counter() - start, "file": str(path), "provenance": provenance()}  # fmt: skip
    write_json(report, path)
    if options.json:
        print(json.dumps(clean(report), allow_nan=False))
    else:
        show(report, Console() if sys.stdout.isatty() else Console(width=100))
    if found["gpu"] != "unmeasured" and not found["gpu"]["agrees"]:
        print("ncflow: the GPU does not agree with the processor to 1e-6", file=sys.stderr)
        return 1
    return 0


def show(report: dict[str, Any], console: Console) -> None:
    """Print settings, tables and targets."""
    at = report["machine"]
    load = "unknown" if at["load_average"] is None else f"{at['load_average']:.1f}"
    console.print(f"{at.get('gpu', at['processor'])}, {at['cores']} cores, {at['threads']} threads, load {load}, torch "
                  f"{at['torch']}, float32, {report['sizes']['rounds']} rounds", highlight=False)  # fmt: skip
    if report["quick"]:
        console.print("--quick: tiny sizes, the numbers mean nothing")
    for entry in report.get("mlp", []):
        _mlp(entry, console)
    for entry in report.get("lanes", []):
        _lanes(entry, console)
    for entry in report.get("resnet", []):
        _resnet(entry, console)
    targets = _table("Targets", "what", "found", "wanted", "met")
    targets.columns[0].justify = "left"
    for target in report["targets"]:
        targets.add_row(target["what"], f"{target['found']:.2f}", target["wanted"], "yes" if target["met"] else "NO")
    console.print(targets)
    gpu = report["gpu"]
    console.print("GPU: unmeasured" if gpu == "unmeasured" else f"GPU against the processor: {gpu}", highlight=False)
    console.print(f"{report['seconds']:.0f} s, json: {report['file']}", highlight=False, soft_wrap=True)


def _mlp(entry: dict[str, Any], console: Console) -> None:
    s, ratios = entry["seconds_per_epoch"], entry["ratios"]
    title = f"MLP-5/{entry['width']}, {entry['samples']} images, batch {entry['batch']}: seconds per epoch (median; least)"
    table = _table(title, "", "training", "metrics", "both", "ours against it")
    names = {"ours": "ours", "script": f"usual script, {entry['workers']} workers", "limit": f"products alone, {entry['limit']}"}
    against = {"ours": "", "script": f"{ratios['script']['median']:.2f} x as fast",
               "limit": f"{ratios['limit']['median']:.2f} x its time"}  # fmt: skip
    for who, name in names.items():
        table.add_row(name, _both(s[who]), _both(s[f"{who}_metrics"]), _both(s[f"{who}_whole"]), against[who])
    console.print(table)
    console.print(f"The script takes {ratios['script to limit']['median']:.2f} x the products alone: no program that does these "
                  "products can be faster than it by more.", highlight=False)  # fmt: skip
    where = _table("Where our epoch goes", "work", "seconds", "share")
    whole = s["ours_whole"]["median"]
    for work, value in entry["where"].items():
        where.add_row(work, f"{value:.3f}", f"{100 * value / whole:.0f}%")
    console.print(where)


def _lanes(entry: dict[str, Any], console: Console) -> None:
    s = entry["seconds"]
    title = f"{entry['lanes']} MLP-5/{entry['width']}, {entry['samples']} images, batch {entry['batch']}: seconds per epoch"
    few = ", ".join(f"{who} {n}" for who, n in entry["threads"].items())
    table = _table(title, "", "few threads", "all threads", "times batched")
    for who, ratio in (("batched", None), ("one by one", entry["ratio"]), ("plain loop", entry["against_plain"])):
        table.add_row(who, f"{s[who]['median']:.3g}", f"{s[f'{who}, all threads']['median']:.3g}",
                      "" if ratio is None else f"{ratio['median']:.2f}")  # fmt: skip
    bare = min(value["median"] for who, value in s.items() if who.startswith("bare products"))
    table.add_row("products alone", "", f"{bare:.3g}", "")
    console.print(table)
    console.print(f"Few threads: what `ncflow train` takes ({few}; the plain loop 1). If batched were products alone, one by one "
                  f"would take {entry['at_most']['median']:.2f} times as long.", highlight=False)  # fmt: skip


def _resnet(entry: dict[str, Any], console: Console) -> None:
    rate, share = entry["images_per_second"], entry["convolutions_share"]
    title = f"ResNet-20, {entry['side']}x{entry['side']}, batch {entry['batch']}: training images per second"
    table = _table(title, "", "ours", "plain loop", "ratio", "convolutions alone", "their share")
    for form in ("contiguous", "channels_last"):
        ours, plain, bare = (f"{rate[f'{who}, {form}']:.0f}" for who in ("ours", "plain", "convolutions"))
        table.add_row(form, ours, plain, f"{entry['ratios'][form]['median']:.2f}", bare, f"{100 * share[form]['median']:.0f}%")
    console.print(table)
    bound = "the convolutions" if share["channels_last"]["median"] > 0.5 else "BatchNorm, ReLU and sums, which move memory"
    console.print(f"channels_last is the default; most of its step is {bound}.")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i or not name else "left", no_wrap=bool(i))
    return table


def _both(times: dict[str, Any]) -> str:
    return f"{times['median']:.3g}; {times['least']:.3g}"
