"""The configuration: what it resolves to and what it refuses."""

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from ncflow.errors import BadInput
from realnets import PRESETS, TwoPhase, preset


def test_the_contract_call_takes_the_rest_from_the_digits_setting():
    p = TwoPhase(dataset="digits", architecture="mlp", depth=5, width=128, seeds=(0, 1, 2))
    assert p == preset("digits", width=128)
    assert (p.batch_size, p.lr, p.epochs_ce, p.epochs_mse) == (16, 3e-3, 20, 150)
    assert p.lanes[:4] == ((1e-5, 0), (1e-5, 1), (1e-5, 2), (1e-4, 0)) and len(p.lanes) == 12
    assert p.phases == ((1, "cross_entropy", 20), (2, "mse", 150)) and p.epochs == 170


def test_other_data_sets_take_the_mnist_setting_but_no_subset():
    p = TwoPhase(dataset="cifar10")
    assert (p.width, p.batch_size, p.lr, p.epochs_ce, p.epochs_mse, p.subset) == (
        128,
        64,
        1e-3,
        10,
        170,
        None,
    )
    assert replace(p, dataset="mnist", subset=10_000) == preset("mnist-10k")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_json_ready(name):
    p = preset(name, seeds=[4, np.int64(5)], decays=2e-4)
    assert p.seeds == (4, 5) and p.decays == (2e-4,)
    assert json.loads(json.dumps(p.config()))["seeds"] == [4, 5]


def test_it_is_frozen():
    with pytest.raises(FrozenInstanceError):
        TwoPhase().depth = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"dataset": "svhn"}, "dataset = 'svhn': one of digits, mnist, fashion_mnist, cifar10"),
        ({"dataset": ["mnist"]}, r"dataset = \['mnist'\]: one of"),
        ({"architecture": "vit"}, "architecture = 'vit': one of mlp"),
        ({"activation": "swish"}, "activation = 'swish': one of linear, relu"),
        ({"optimiser": "adamw"}, "optimiser = 'adamw': one of adam, sgd"),
        ({"schedule": "step"}, "schedule = 'step': one of cosine, constant"),
        ({"scaling": "none"}, "scaling = 'none': one of standardised, unit"),
        ({"nc1": "nc2"}, "nc1 = 'nc2': one of nc1_trace_ratio"),
        ({"depth": 0}, "depth = 0: a whole number, at least 1"),
        ({"depth": 2.5}, "depth = 2.5: a whole number"),
        ({"width": 9}, "width = 9: a whole number, at least 10, one unit per class"),
        ({"batch_size": 0}, "batch_size = 0: a whole number, at least 1"),
        ({"batch_size": True}, "batch_size = True: a whole number"),
        ({"epochs_ce": 0}, "epochs_ce = 0: a whole number, at least 1"),
        ({"epochs_mse": -1}, "epochs_mse = -1: a whole number, at least 1"),
        ({"measure_every": 0}, "measure_every = 0: a whole number, at least 1"),
        ({"subset": 19}, "subset = 19: a whole number, at least 20"),
        ({"data_seed": -1}, "data_seed = -1: a whole number, at least 0"),
        ({"seeds": ()}, r"seeds = \(\): one number or a sequence"),
        ({"seeds": (0, -1)}, "seeds = -1: a whole number, at least 0"),
        ({"seeds": "01"}, "seeds = '01': one number or a sequence"),
        ({"seeds": (0.5,)}, "seeds = 0.5: a whole number"),
        ({"decays": (1e-4, -1e-4)}, "decays = -0.0001: a finite number, not negative"),
        ({"decays": float("nan")}, "decays = nan: a finite number"),
        ({"decays": object}, "decays = .*: one number or a sequence"),
        ({"lr": 0}, "lr = 0: a finite number, greater than 0"),
        ({"lr": float("inf")}, "lr = inf: a finite number, greater than 0"),
        ({"lr": "fast"}, "lr = 'fast': a finite number"),
        ({"momentum": 1.0}, "momentum = 1.0: a finite number, not negative, below 1"),
        ({"nesterov": 1}, "nesterov = 1: True or False"),
        ({"biases": "no"}, "biases = 'no': True or False"),
        ({"threshold": 0.0}, "threshold = 0.0: a finite number, greater than 0, below 1"),
        ({"threshold": 1.0}, "threshold = 1.0: a finite number, greater than 0, below 1"),
    ],
)
def test_what_it_refuses(fields, message):
    with pytest.raises(BadInput, match=f"^{message}") as error:
        TwoPhase(**fields)
    assert "\n" not in str(error.value)


def test_preset_refuses_unknown_names_and_fields():
    with pytest.raises(BadInput, match="preset = 'digit': one of digits, mnist-10k"):
        preset("digit")
    with pytest.raises(BadInput, match="override = 'widht': one of dataset"):
        preset("digits", widht=3)
