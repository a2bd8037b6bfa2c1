"""Named settings: those that show the phenomenon in minutes on one core, and the authors' own."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

DIGITS = {
    "dataset": "digits",
    "depth": 5,
    "width": 64,
    "batch_size": 16,
    "lr": 3e-3,
    "epochs_ce": 20,
    "epochs_mse": 150,
    "seeds": (0, 1, 2),
    "decays": (1e-5, 1e-4, 3e-4, 1e-3),
    "measure_every": 2,
}
MNIST = {
    "dataset": "mnist",
    "depth": 5,
    "width": 128,
    "batch_size": 64,
    "lr": 1e-3,
    "epochs_ce": 10,
    "epochs_mse": 170,
    "seeds": (0, 1, 2),
    "decays": (5e-5, 1e-4, 2e-4, 5e-4),
    "measure_every": 2,
}
#: The authors' MLP: coupled Adam, a new optimiser and cosine per phase, standardised inputs; divergence as the paper has it.
_PAPER = {
    **MNIST,
    "architecture": "mlp",
    "scaling": "standardised",
    "activation": "relu",
    "biases": True,
    "width": 512,
    "optimiser": "adam",
    "decay_biases": True,
    "schedule": "cosine",
    "epochs_ce": 200,
    "decays": (1e-4,),
    "measure_every": 10,
    "diverged_after": 300,
}
#: A ResNet as small as it goes: width counts the channels of the first stage.
RESNET = {
    "architecture": "resnet20",
    "depth": 20,
    "width": 16,
    "normalization": "batch",
    "skip": True,
    "shortcut": "B",
    "optimiser": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "decays": (1e-3,),
    "decay_biases": True,
}
#: The authors' ResNet-20: SGD with Nesterov, lr / 10 at epochs 100 and 150 of phase 1, 300 and 450 of phase 2.
_PAPER_RESNET = {
    **RESNET,
    "schedule": "multistep",
    "milestones_ce": (100, 150),
    "milestones_mse": (300, 450),
    "lr_factor": 0.1,
    "epochs_ce": 200,
    "epochs_mse": 600,
    "seeds": (0, 1, 2),
    "measure_every": 10,
    "diverged_after": 300,
}
_SMALL_IMAGES = {"dataset": "mnist", "image_size": 14, "batch_size": 50, "seeds": (0,), "measure_every": 2}

PRESETS: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "digits": DIGITS,
        "mnist-10k": {**MNIST, "subset": 10_000},
        "mnist-1k": {**MNIST, "subset": 1_000, "batch_size": 16, "epochs_ce": 30, "epochs_mse": 250,
                     "decays": (5e-5, 1e-4, 5e-4)},
        "resnet-mnist-14": {**RESNET, **_SMALL_IMAGES, "subset": 2_000, "epochs_ce": 30, "epochs_mse": 220},
        "resnet-cifar-1k": {**RESNET, "dataset": "cifar10", "subset": 1_000, "batch_size": 50, "seeds": (0,),
                            "measure_every": 2, "schedule": "multistep", "epochs_ce": 40, "milestones_ce": (20, 30),
                            "epochs_mse": 120, "milestones_mse": (60, 90)},
        "paper-mlp-baseline": {**_PAPER, "batch_size": 256, "epochs_mse": 300},
        "paper-mlp-sweep": {**_PAPER, "batch_size": 256, "epochs_mse": 400},
        "paper-mlp-decay": {**_PAPER, "batch_size": 256, "epochs_mse": 600},
        "paper-mlp-width": {**_PAPER, "batch_size": 512, "epochs_mse": 500},
        "paper-mlp-intervention": {**_PAPER, "batch_size": 512, "epochs_mse": 400},
        "paper-resnet-mnist": {**_PAPER_RESNET, "dataset": "mnist", "image_size": 32, "channels": 3, "batch_size": 512},
        "paper-resnet-cifar": {**_PAPER_RESNET, "dataset": "cifar10", "batch_size": 128},
    }
)  # fmt: skip
