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
    assert [(lane.decay, lane.seed) for lane in p.lanes[:4]] == [(1e-5, 0), (1e-5, 1), (1e-5, 2), (1e-4, 0)]
    assert len(p.lanes) == 12 and p.roots == p.lanes and p.branches == tuple(range(12))
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


@pytest.mark.parametrize("name", PRESETS)
def test_presets_leave_the_switches_of_the_command_line_alone(name):
    """A switch cannot say whether it was given, so no preset may decide one."""
    for field, spec in TwoPhase.__dataclass_fields__.items():
        if isinstance(spec.default, bool):
            assert getattr(preset(name), field) is spec.default, field


PAPER = {  # PROTOCOL.md: batch, phase 1, phase 2
    "paper-mlp-baseline": (256, 200, 300), "paper-mlp-sweep": (256, 200, 400), "paper-mlp-decay": (256, 200, 600),
    "paper-mlp-width": (512, 200, 500), "paper-mlp-intervention": (512, 200, 400), "paper-resnet-mnist": (512, 200, 600),
    "paper-resnet-cifar": (128, 200, 600),
}  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), PAPER.items())
def test_the_authors_settings(name, expected):
    p = preset(name)
    assert (p.batch_size, p.epochs_ce, p.epochs_mse) == expected and p.subset is None and p.measure_every == 10
    assert p.diverged_after == 300 and p.decay_biases and p.scaling == "standardised" and p.threshold == 0.01 and p.stop == "end"
    if p.architecture == "mlp":
        assert (p.depth, p.width, p.optimiser, p.lr, p.schedule, p.decays) == (5, 512, "adam", 1e-3, "cosine", (1e-4,))
        assert p.rates(1, 0) == p.rates(2, 0) == (1e-3,)
    else:
        assert (p.optimiser, p.momentum, p.nesterov, p.lr, p.decays) == ("sgd", 0.9, True, 0.1, (1e-3,))
        drops = [(phase, epoch) for phase, _, epochs in p.phases for epoch in range(1, epochs)
                 if p.rates(phase, epoch)[0] < p.rates(phase, epoch - 1)[0]]
        assert drops == [(1, 100), (1, 150), (2, 300), (2, 450)]
        assert p.rates(2, 0)[0] == 0.1 and p.rates(2, 599)[0] == pytest.approx(1e-3)
    assert name != "paper-resnet-mnist" or (p.image_size, p.channels) == (32, 3)


def test_lanes_branch_from_roots():
    p = TwoPhase(decays=(1e-4, 1e-3), lr=(1e-3, 3e-3), alphas=(0.3, 1, 3), seeds=(0, 1))
    assert len(p.lanes) == 24 and len(p.roots) == 8 and p.lrs == (1e-3, 3e-3)
    assert [p.roots[i] for i in p.branches] == [lane._replace(alpha=1.0) for lane in p.lanes]
    assert p.lanes[2] == (1e-4, 1e-3, 1.0, 0) and p.lanes[1].seed == 1
    assert TwoPhase(lr=[2e-3]).lr == 2e-3


def test_a_cosine_over_the_run_ends_once():
    p = TwoPhase(schedule="cosine_run", epochs_ce=3, epochs_mse=5, lr=1.0)
    rates = [p.rates(phase, epoch)[0] for phase, _, epochs in p.phases for epoch in range(epochs)]
    assert rates == pytest.approx([0.5 * (1 + np.cos(np.pi * k / 8)) for k in range(8)])


def test_what_counts_as_late_is_the_papers_by_default():
    assert TwoPhase(epochs_ce=200, epochs_mse=300).diverged_after == 300
    assert TwoPhase(epochs_ce=20, epochs_mse=0).diverged_after == 20
    assert TwoPhase(epochs_ce=20, epochs_mse=10).settle_epochs == 120


def test_losses_by_phase():
    assert TwoPhase().losses == {1: "cross_entropy", 2: "mse", 3: "mse"}
    assert TwoPhase(second_loss="cross_entropy").losses[2] == "cross_entropy"
    assert TwoPhase(epochs_mse=0).losses[3] == "cross_entropy"


def test_it_is_frozen():
    with pytest.raises(FrozenInstanceError):
        TwoPhase().depth = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"dataset": "svhn"}, "dataset = 'svhn': one of digits, mnist, fashion_mnist, cifar10"),
        ({"dataset": ["mnist"]}, r"dataset = \['mnist'\]: one of"),
        ({"architecture": "vit"}, "architecture = 'vit': one of mlp, residual_mlp, resnet20"),
        ({"activation": "swish"}, "activation = 'swish': one of linear, relu"),
        ({"activation_scale": 0}, "activation_scale = 0: a finite number, greater than 0"),
        ({"architecture": "resnet20", "activation": "gelu"}, "activation = 'gelu': relu for resnet20"),
        ({"optimiser": "lion"}, "optimiser = 'lion': one of adam, sgd, adamw"),
        ({"schedule": "step"}, "schedule = 'step': one of cosine, cosine_run, multistep, constant"),
        ({"scaling": "none"}, "scaling = 'none': one of standardised, tripled, unit"),
        ({"nc1": "nc2"}, "nc1 = 'nc2': one of nc1_trace_ratio"),
        ({"depth": 0}, "depth = 0: a whole number, at least 1"),
        ({"depth": 2.5}, "depth = 2.5: a whole number"),
        ({"width": 9}, "width = 9: a whole number, at least 10, one unit per class"),
        ({"batch_size": 0}, "batch_size = 0: a whole number, at least 1"),
        ({"batch_size": True}, "batch_size = True: a whole number"),
        ({"epochs_ce": 0}, "epochs_ce = 0: a whole number, at least 1"),
        ({"epochs_mse": -1}, "epochs_mse = -1: a whole number, at least 0"),
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
        ({"lr": "fast"}, "lr = 'fast': one number or a sequence"),
        ({"lr": (0.1, "fast")}, "lr = 'fast': a finite number"),
        ({"momentum": 1.0}, "momentum = 1.0: a finite number, not negative, below 1"),
        ({"nesterov": 1}, "nesterov = 1: True or False"),
        ({"biases": "no"}, "biases = 'no': True or False"),
        ({"alphas": (1.0, 0)}, "alphas = 0: a finite number, greater than 0"),
        ({"alphas": 0.3, "epochs_mse": 0}, r"alphas = \(0.3,\): 1 where there is no phase 2"),
        ({"rescaled_layer": 6, "depth": 5}, "rescaled_layer = 6: a whole number, -6 to 5"),
        ({"rescaled_layer": 0, "architecture": "residual_mlp"}, "rescaled_layer = 0: -2 for residual_mlp"),
        ({"stop": "now"}, "stop = 'now': one of end, t_nc"),
        ({"second_loss": "hinge"}, "second_loss = 'hinge': one of cross_entropy, mse"),
        ({"milestones_ce": (0,)}, "milestones_ce = 0: a whole number, at least 1"),
        ({"lr_factor": 0}, "lr_factor = 0: a finite number, greater than 0"),
        ({"settle": 1}, "settle = 1: True or False"),
        ({"settle_epochs": 0}, "settle_epochs = 0: a whole number, at least 1"),
        ({"diverged_after": -1}, "diverged_after = -1: a whole number, at least 0"),
        ({"normalization": "layer"}, "normalization = 'layer': one of batch, none"),
        ({"channels": 3}, "channels = 3: None: it is for resnet20"),
        ({"architecture": "resnet20", "channels": 2}, "channels = 2: 3, or None"),
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
