"""The conditions with ResNet-20: at full scale, and on images and subsets small enough for a laptop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments.paper.experiment import Condition
from experiments.paper.settings import SEEDS
from realnets import TwoPhase, preset

SMALL = "1,000 small images each"
FULL_PAIRS = "all images"
_TINY: dict[str, Any] = {
    "architecture": "resnet20",
    "depth": 8,
    "width": 10,
    "subset": 100,
    "batch_size": 25,
    "optimiser": "sgd",
    "lr": 0.1,
    "decays": (1e-3,),
    "epochs_ce": 2,
    "epochs_mse": 3,
    "seeds": (0,),
    "measure_every": 1,
}
_SMALL = preset("resnet-mnist-14", subset=1000, seeds=SEEDS, schedule="multistep", milestones_ce=(20,), epochs_mse=180,
                milestones_mse=(100, 150), measure_every=5)  # fmt: skip
#: Images of the small settings: blocks of 2x2 pixels averaged.
SIZES = {"mnist": 14, "fashion_mnist": 14, "cifar10": 16, "digits": None}


def resnet(name: str, dataset: str) -> TwoPhase:
    """ResNet-20 under the two phases on one data set, at the preset `name`."""
    if name == "smoke":
        return TwoPhase(dataset="digits", **_TINY)
    if name == "laptop-resnet":
        return replace(_SMALL, dataset=dataset, image_size=SIZES[dataset])
    if dataset == "cifar10":
        return preset("paper-resnet-cifar", seeds=SEEDS)
    return preset("paper-resnet-mnist", seeds=SEEDS, dataset=dataset)


def cross_entropy_alone(protocol: TwoPhase) -> TwoPhase:
    """The same, with cross-entropy in both phases."""
    return replace(protocol, second_loss="cross_entropy")


def resnet_conditions(name: str, datasets: tuple[str, ...], *, ce: bool = False) -> tuple[Condition, ...]:
    """At the presets that have ResNets; with `ce` also cross-entropy alone, where that is affordable."""
    if name not in ("smoke", "laptop-resnet", "paper"):
        return ()
    group = {"smoke": "digits, 100 images", "laptop-resnet": SMALL, "paper": FULL_PAIRS}[name]
    made = []
    for dataset in ("digits",) if name == "smoke" else datasets:
        protocol = resnet(name, dataset)
        about = {"architecture": "resnet20", "dataset": dataset}
        made.append(Condition(label=f"ResNet-20, {TITLES[dataset]}", setting=protocol, group=group,
                              parameters={**about, "loss": "mse"}))  # fmt: skip
        if ce:
            made.append(
                Condition(
                    label=f"ResNet-20, {TITLES[dataset]}, CE alone",
                    setting=cross_entropy_alone(protocol),
                    group=group,
                    parameters={**about, "loss": "cross_entropy"},
                )
            )
    return tuple(made)


TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "fashion_mnist": "Fashion-MNIST", "digits": "digits"}
