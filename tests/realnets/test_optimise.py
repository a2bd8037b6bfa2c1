"""Optimisers and schedules against PyTorch's own, lanes against themselves alone."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ncflow.errors import BadInput
from ncflow.threads import few_threads
from realnets.mlp import LaneMLP
from realnets.optimise import Stepper, decay_mask, learning_rate, order

SIZES = (6, 11, 10, 4)
SEEDS, DECAYS, RATES = (0, 1, 0, 1, 2), (1e-2, 1e-2, 0.0, 1e-3, 1e-3), (3e-3, 3e-3, 3e-3, 1e-2, 1e-2)


def batches(seeds, steps, dtype=torch.float64):
    """(x, one-hot) of each step, each lane's own by its seed."""
    for step in range(steps):
        generators = [torch.Generator().manual_seed(1000 * seed + step) for seed in seeds]
        x = torch.stack([torch.randn(8, SIZES[0], generator=g) for g in generators]).to(dtype)
        y = torch.stack([torch.randint(0, SIZES[-1], (8,), generator=g) for g in generators])
        yield x, F.one_hot(y, SIZES[-1]).to(dtype)


def module(seed):
    """The same network of PyTorch's layers."""
    layers = []
    for i, o in pairwise(SIZES):
        layers += [torch.nn.Linear(i, o, dtype=torch.float64), torch.nn.ReLU()]
    made = torch.nn.Sequential(*layers[:-1])
    net = LaneMLP(SIZES, (seed,), dtype=torch.float64)
    with torch.no_grad():
        for layer, W in zip(made[::2], net.weights, strict=True):
            layer.weight.copy_(W[0])
            layer.bias.zero_()
    return made


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd", "nesterov"])
def test_lanes_follow_separate_models_under_torch_optim(kind, masked):
    """With a mask as well: biases are then a group of their own, without decay."""
    net = LaneMLP(SIZES, SEEDS, dtype=torch.float64)
    sgd = {"momentum": 0.9, "nesterov": kind == "nesterov"} if kind in ("sgd", "nesterov") else {}
    mask = decay_mask(net) if masked else None
    ours = Stepper(net.theta, net.grad, DECAYS, RATES, kind="sgd" if sgd else kind, mask=mask, **sgd)
    models = [module(seed) for seed in SEEDS]
    theirs = []
    for made, decay, lr in zip(models, DECAYS, RATES, strict=True):
        groups = [
            {"params": [p for p in made.parameters() if p.ndim == 2], "weight_decay": decay},
            {"params": [p for p in made.parameters() if p.ndim == 1], "weight_decay": 0.0 if masked else decay},
        ]
        library = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}.get(kind, torch.optim.SGD)
        theirs.append(library(groups, lr=lr, **sgd))
    for x, one_hot in batches(SEEDS, 30):
        net.gradient(x, one_hot, "mse")
        ours.step()
        for lane, (made, step) in enumerate(zip(models, theirs, strict=True)):
            step.zero_grad()
            F.mse_loss(made(x[lane]), one_hot[lane]).backward()
            step.step()
    for lane, made in enumerate(models):
        for layer, W, b in zip(made[::2], net.weights, net.biases, strict=True):
            torch.testing.assert_close(W[lane], layer.weight.detach(), rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(b[lane], layer.bias.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
@pytest.mark.parametrize("chosen", [[0], [4], [1, 3], [4, 0, 2]])
def test_a_lane_has_the_same_bits_in_any_batch_of_lanes(kind, chosen):
    def run(lanes):
        seeds = [SEEDS[i] for i in lanes]
        net = LaneMLP(SIZES, seeds)
        step = Stepper(net.theta, net.grad, [DECAYS[i] for i in lanes], 1e-2, kind=kind)
        for x, one_hot in batches(seeds, 50, torch.float32):
            net.gradient(x, one_hot, "cross_entropy")
            step.step()
        return net.theta

    with few_threads(0):
        assert torch.equal(run(chosen), run(range(5))[chosen])


def test_a_lane_of_nan_leaves_the_others_alone():
    with few_threads(0):
        sound, sick = (LaneMLP(SIZES, (0, 1, 2)) for _ in range(2))
        sick.weights[0][1, 0, 0] = torch.nan
        for net in (sound, sick):
            step = Stepper(net.theta, net.grad, (1e-3,) * 3, 1e-2)
            for x, one_hot in batches((0, 1, 2), 20, torch.float32):
                net.gradient(x, one_hot, "mse")
                step.step()
    assert torch.equal(sick.theta[[0, 2]], sound.theta[[0, 2]]) and sick.theta[1].isnan().any()


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_what_underflows_is_cleared_and_nothing_else_moves(kind):
    """Without it, entries that only decay moves end subnormal (Adam); those with data keep their bits."""

    def after(clear):
        theta = torch.linspace(0.1, 1, 40).reshape(1, 40)
        grad = torch.zeros_like(theta)
        stepper = Stepper(theta, grad, (1e-2,), 1e-3, kind=kind)
        for step in range(4000):
            stepper.set_rates([learning_rate("cosine", 1e-2, step, 4000)])
            grad[:, 20:] = theta[:, 20:] - 1
            grad[:, :20] = 0
            stepper.step()
            if clear and step % 100 == 99:
                stepper.clear()
        return theta, stepper.state()[0]

    def subnormal(x):
        return int(((x != 0) & (x.abs() < torch.finfo(x.dtype).tiny)).sum())

    (kept, kept_state), (cleared, state) = after(False), after(True)
    moments = [name for name, value in state.items() if value.ndim]
    assert torch.equal(kept[:, 20:], cleared[:, 20:])
    assert all(torch.equal(kept_state[m][:, 20:], state[m][:, 20:]) for m in moments)
    assert subnormal(cleared) == 0 and all(subnormal(state[m]) == 0 for m in moments)
    if kind == "adam":
        assert subnormal(kept) + subnormal(kept_state["exp_avg"]) > 0 and (cleared[:, :20] == 0).any()
    else:
        assert torch.equal(kept, cleared)


def test_multistep_is_torchs():
    weight = torch.nn.Parameter(torch.zeros(1))
    step = torch.optim.SGD([weight], lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(step, milestones=[3, 7], gamma=0.2)
    for epoch in range(10):
        found = learning_rate("multistep", 0.1, epoch, 10, (3, 7), 0.2)
        assert found == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
        step.step()
        schedule.step()


def test_the_mask_is_the_weights_of_the_layers():
    net = LaneMLP(SIZES, (0, 1))
    before = net.theta.clone()
    mask = decay_mask(net)
    assert torch.equal(net.theta, before) and mask.sum() == sum(W[0].numel() for W in net.weights)
    assert not any((b[0] * 0 + mask[W_end:W_end + b.shape[1]]).any() for b, W_end in zip(
        net.biases, [int(mask.sum()) + sum(c.shape[1] for c in net.biases[:i]) for i in range(3)], strict=True))  # fmt: skip


def test_cosine_is_torchs():
    weight = torch.nn.Parameter(torch.zeros(1))
    step = torch.optim.SGD([weight], lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(step, T_max=37)
    for epoch in range(37):
        assert learning_rate("cosine", 3e-3, epoch, 37) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        step.step()
        schedule.step()
    assert learning_rate("cosine", 3e-3, 0, 37) == 3e-3
    assert learning_rate("constant", 3e-3, 30, 37) == 3e-3


def test_order_is_a_permutation_and_depends_on_all_of_its_arguments():
    first = order(0, 1, 0, 50)
    assert sorted(first) == list(range(50)) and np.array_equal(first, order(0, 1, 0, 50))
    for other in ((1, 1, 0), (0, 2, 0), (0, 1, 1)):
        assert not np.array_equal(first, order(*other, 50))


def test_threads_are_restored():
    before = torch.get_num_threads()
    with few_threads(1e6):
        assert torch.get_num_threads() == 1
    with pytest.raises(KeyError), few_threads(1e6):
        raise KeyError
    with few_threads(1e12):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


def test_refusals_name_the_argument():
    theta = torch.zeros(2, 64)
    with pytest.raises(BadInput, match="optimiser = 'rmsprop'"):
        Stepper(theta, theta, (0, 0), 0.1, kind="rmsprop")
    with pytest.raises(BadInput, match="decays"):
        Stepper(theta, theta, (0,), 0.1)
    with pytest.raises(BadInput, match="lr"):
        Stepper(theta, theta, (0, 0), (0.1,))
    with pytest.raises(BadInput, match="schedule = 'step'"):
        learning_rate("step", 0.1, 0, 1)
