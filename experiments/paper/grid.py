"""The grid of architectures and data sets: whose fn is what, and under which loss? (The paper's Table 6 and Figure 7.)

fn at T_NC of a pair belongs to the loss of the phase in which T_NC falls. Pairs are therefore compared twice: as the paper does,
and at equal loss (fn at T_NC if it fell in that phase, else fn at the end of the phase).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.paper import figures
from experiments.paper.evidence import Evidence
from experiments.paper.experiment import Condition, Experiment
from experiments.paper.grid_verdicts import CLAIMS, count, judge
from experiments.paper.pairs import fn_under
from experiments.paper.resnets import FULL_PAIRS, SIZES, SMALL, TITLES, resnet_conditions
from experiments.paper.settings import SEEDS, settings
from realnets import TwoPhase, preset


def _mlp(dataset: str, setting: TwoPhase, group: str, threshold: float = 0.01) -> Condition:
    return Condition(
        label=f"MLP-5, {TITLES[dataset]}",
        setting=setting,
        group=group,
        threshold=threshold,
        parameters={"architecture": "mlp", "dataset": dataset, "loss": "mse"},
    )


def _other(like: Condition, name: str, **changes: Any) -> Condition:
    """The same pair with another optimiser, as the authors later ran to tell optimiser and architecture apart."""
    setting = replace(like.setting, **changes)  # type: ignore[type-var]
    return replace(
        like, label=f"{like.label}, {name}", setting=setting, parameters={**like.parameters, "optimiser": name}
    )


def conditions(name: str) -> tuple[Condition, ...]:
    if name == "smoke":
        (s,) = settings(name)
        return (_mlp("digits", s.base, "digits, 100 images"), *resnet_conditions(name, ("digits",)))
    if name == "laptop":
        mnist, digits = settings(name)
        made = [_mlp(d, replace(mnist.base, dataset=d), "10,000 images each") for d in ("mnist", "fashion_mnist", "cifar10")]
        made.append(_mlp("digits", digits.base, "10,000 images each"))
        return (*made, _other(_mlp("mnist", mnist.base, "10,000 images each"), "SGD", optimiser="sgd", lr=0.1))
    if name == "laptop-resnet":
        small = preset("mnist-1k", seeds=SEEDS, decays=(1e-4,))
        pairs = [_mlp(d, replace(small, dataset=d, image_size=SIZES[d]), SMALL) for d in ("mnist", "cifar10", "digits")]
        both = resnet_conditions(name, ("mnist", "cifar10", "digits"), ce=True)
        adam = _other(both[0], "Adam", optimiser="adam", lr=1e-3, decays=(1e-4,))
        return (*pairs, *both, *resnet_conditions(name, ("fashion_mnist",)), adam)
    full = preset("paper-mlp-decay", decays=(1e-4,), seeds=SEEDS)
    pairs = [
        _mlp("mnist", preset("paper-mlp-sweep", seeds=SEEDS), FULL_PAIRS),
        _mlp("cifar10", replace(full, dataset="cifar10"), FULL_PAIRS, 0.05),
        _mlp("fashion_mnist", replace(full, dataset="fashion_mnist"), FULL_PAIRS, 0.05),
    ]
    nets = resnet_conditions(name, ("mnist", "cifar10", "fashion_mnist"))
    others = (
        _other(pairs[0], "SGD", optimiser="sgd", lr=0.1),
        _other(nets[0], "Adam", optimiser="adam", lr=1e-3, decays=(1e-4,)),
    )
    return (*pairs, *nets, *others)


def logs(condition: Condition) -> tuple[str, ...]:
    about = condition.parameters
    names = {
        ("mlp", "mnist"): ("mnist_twophase", "depth5_s1", "depth5_s2"),
        ("resnet20", "mnist"): ("resnet20_mnist_s1", "resnet20_mnist_s2"),
        ("mlp", "cifar10"): tuple(f"mlp5_cifar10_s{k}" for k in SEEDS),
        ("resnet20", "cifar10"): tuple(f"cifar10_s{k}" for k in SEEDS),
    }
    return names.get((about["architecture"], about["dataset"]), ()) if "optimiser" not in about else ()


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(3)
    rows = [r for r in evidence.rows if r.condition.parameters["loss"] == "mse" and "optimiser" not in r.condition.parameters]
    figures.dynamics(axes[0, 0], axes[0, 1], evidence.rows)
    x = list(range(len(rows)))
    names = [
        r.condition.label.replace("ResNet-20, ", "Res\n").replace("MLP-5, ", "MLP\n").replace("Fashion-MNIST", "Fashion")
        for r in rows
    ]
    series = [("at T_NC", [r.times(every=evidence.cadence).fn_star for r in rows])]
    for loss, label in (("cross_entropy", "cross-entropy"), ("mse", "squared error")):
        series.append((label, [np.array([fn_under(n, loss, r.condition.threshold) for n in r.networks]) for r in rows]))
    figures.against(axes[0, 2], x, series, "fn", "", names=names, lines=False, logy=True)
    figures.titles(axes, "fn (mark: T_NC)", "NC1", "fn by pair and loss")
    return made


EXPERIMENT = Experiment(
    name="grid",
    title="Architectures and data sets",
    question="Is fn at collapse a property of the pair of network and data set, and do their effects multiply?",
    measures="fn at T_NC with the phase and learning rate in which it fell, and fn of every pair at equal loss.",
    claims=CLAIMS,
    conditions=conditions,
    table=6,
    logs=logs,
    judge=judge,
    count=count,
    figure=figure,
)
