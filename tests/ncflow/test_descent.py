"""Discrete optimisers against PyTorch's own, on the loss written out here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ncflow import (
    SGD,
    UFM,
    Adam,
    AdamW,
    BadInput,
    Constant,
    Cosine,
    Crossing,
    Decay,
    GradientDescent,
    MultiStep,
    Phase,
    Rescale,
    Status,
    simulate,
    summarise,
)

DECAY = Decay(weights=1e-2, features=3e-3, bias=5e-3)


def model(**more):
    return UFM(**{"classes": 3, "samples_per_class": [3, 4, 5], "width": [6, 5], "layers": 2, "bias": "decayed",
                  "decay": DECAY, **more})


def loss(m, H, W1, W2, b, kind, decayed=True):
    logits = W2 @ (W1 @ H) + b[:, None]
    labels = torch.as_tensor(m.labels)
    if kind == "mse":
        value = m.loss_scale / m.samples * (logits - torch.nn.functional.one_hot(labels, 3).T).square().sum()
    else:
        value = torch.nn.functional.cross_entropy(logits.T, labels)
    if decayed:
        value = value + 5e-3 * (W1.square().sum() + W2.square().sum()) + 1.5e-3 * H.square().sum() + 2.5e-3 * b.square().sum()
    return value


def torch_run(m, start, phases):
    """The same phases with torch.optim on separate tensors."""
    x = {name: torch.tensor(start.final[name][0]).requires_grad_() for name in ("H", "W_1", "W_2", "b")}
    for steps, build, kind, schedule, decayed in phases:
        optimiser = build(x)
        scheduler = schedule(optimiser) if schedule else None
        for _ in range(steps):
            optimiser.zero_grad()
            loss(m, x["H"], x["W_1"], x["W_2"], x["b"], kind, decayed).backward()
            optimiser.step()
            if scheduler:
                scheduler.step()
    return {name: v.detach().numpy() for name, v in x.items()}


def initial(m):
    return simulate(m, seeds=[3], phases=[Phase(steps=1, optimiser=GradientDescent(lr=1e-300))])


CASES = {
    "gd": (GradientDescent(lr=0.2), lambda x: torch.optim.SGD(x.values(), lr=0.2), True),
    "momentum": (SGD(lr=0.1), lambda x: torch.optim.SGD(x.values(), lr=0.1, momentum=0.9), True),
    "nesterov": (SGD(lr=0.1, momentum=0.8, nesterov=True),
                 lambda x: torch.optim.SGD(x.values(), lr=0.1, momentum=0.8, nesterov=True), True),
    "adam": (Adam(lr=1e-2), lambda x: torch.optim.Adam(x.values(), lr=1e-2), True),
    "adamw": (AdamW(lr=1e-2, betas=(0.8, 0.99)),
              lambda x: torch.optim.AdamW([{"params": [x["H"]], "weight_decay": 3e-3}, {"params": [x["b"]], "weight_decay": 5e-3},
                                           {"params": [x["W_1"], x["W_2"]], "weight_decay": 1e-2}], lr=1e-2, betas=(0.8, 0.99)),
              False),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["mse", "cross_entropy"])
def test_steps_equal_torch(name, kind):
    rule, build, decayed = CASES[name]
    m = model(loss=kind)
    start = initial(m)
    run = simulate(m, seeds=[3], phases=[Phase(steps=40, optimiser=rule)])
    expected = torch_run(m, start, [(40, build, kind, None, decayed)])
    for block, value in expected.items():
        np.testing.assert_allclose(run.final[block][0], value, rtol=1e-10, atol=1e-13)


def test_two_phases_with_new_optimiser_and_cosine_each():
    m = model()
    phases = [Phase(steps=30, optimiser=Adam(lr=1e-2, schedule=Cosine()), loss="cross_entropy"),
              Phase(steps=50, optimiser=Adam(lr=1e-2, schedule=Cosine()), loss="mse")]
    run = simulate(m, seeds=[3], phases=phases)

    def adam(x):
        return torch.optim.Adam(x.values(), lr=1e-2)

    def cosine(steps):
        return lambda optimiser: torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)

    expected = torch_run(m, initial(m), [(30, adam, "cross_entropy", cosine(30), True), (50, adam, "mse", cosine(50), True)])
    for block, value in expected.items():
        np.testing.assert_allclose(run.final[block][0], value, rtol=1e-9, atol=1e-12)
    assert run.data.attrs["time_kind"] == "steps" and run.data["time"].attrs["units"] == "step"
    phase = run.data["phase"].sel(time=[1, 30, 31, 80]).values
    np.testing.assert_array_equal(phase, [1, 1, 2, 2])
    rate = run.data["learning_rate"].isel(lane=0)
    assert float(rate.sel(time=1)) == 1e-2 and float(rate.sel(time=31)) == 1e-2
    energy = run.data["energy"].isel(lane=0)
    assert float(energy.sel(time=30)) < float(energy.sel(time=1))


def test_schedules_equal_torch():
    p = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([p], lr=1.0)
    steps = torch.optim.lr_scheduler.MultiStepLR(optimiser, [3, 7], 0.1)
    for i in range(10):
        assert MultiStep([3, 7]).factor(i, 10) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-14)
        optimiser.step()
        steps.step()
    assert Constant().factor(5, 10) == 1.0
    per_epoch = [Cosine(intervals=4).factor(i, 8) for i in range(8)]
    np.testing.assert_allclose(per_epoch, np.repeat([(1 + np.cos(np.pi * e / 4)) / 2 for e in range(4)], 2), rtol=1e-14)


def test_lanes_have_their_own_rate_and_do_not_meet():
    m = model()
    both = simulate(m, seeds=[3], initial=None, phases=[Phase(steps=25, optimiser=SGD(lr=0.1))])
    batch = simulate(model(decay=Decay(weights=[[1e-2, 1e-2]] * 2, features=3e-3, bias=5e-3)), seeds=[3],
                     phases=[Phase(steps=25, optimiser=SGD(lr=[0.1, 1e9]))])
    np.testing.assert_array_equal(batch.final["H"][0], both.final["H"][0])
    assert batch.status == [Status.FINISHED, Status.DIVERGED] or batch.status == [Status.FINISHED, Status.NON_FINITE]
    assert np.isfinite(batch.final["H"][1]).all()


def test_slow_motion_follows_the_flow():
    """SGD with momentum m moves as the flow with t = lr steps/(1 - m), to first order in lr."""
    m = UFM(classes=3, samples_per_class=4, width=6, decay=0.02)
    flow = simulate(m, seeds=[1], until=20.0, save_at=[20.0], rtol=1e-10)
    errors = []
    for lr in (0.02, 0.01):
        run = simulate(m, seeds=[1], phases=[Phase(steps=round(20.0 * 0.5 / lr), optimiser=SGD(lr=lr, momentum=0.5))])
        errors.append(abs(run.final["W_1"] - flow.final["W_1"]).max())
    assert errors[0] < 0.02 and 1.7 < errors[0] / errors[1] < 2.3


def test_events_interventions_and_summary_in_steps():
    m = UFM(classes=3, samples_per_class=4, width=6, decay=0.05)
    run = simulate(m, seeds=[1], phases=[Phase(steps=400, optimiser=GradientDescent(lr=0.5))], save_at=range(401),
                   interventions=[Rescale(layer=-1, alpha=2.0, at=200)], events=[Crossing(level=0.05)])
    nc1 = run.data["nc1_trace_ratio"].values[0]
    first = int(np.flatnonzero(nc1 < 0.05)[0])
    summary = summarise(run, threshold=0.05)[0]
    assert summary.t_nc == first == float(run.data["event_time"][0, 0])
    assert summary.fn_star == pytest.approx(float(run.data["fn"][0, first]), rel=1e-12)
    norm = run.data["weight_norm"].values[0, :, 0]
    assert norm[200] > 1.5 * norm[199]


@pytest.mark.parametrize(("make", "names"), [
    (lambda: Adam(lr=-1.0), ["optimiser.lr", "-1"]),
    (lambda: SGD(lr=0.1, momentum=1.0), ["optimiser.momentum"]),
    (lambda: Adam(lr=0.1, betas=(0.9, 1.0)), ["optimiser.betas"]),
    (lambda: Phase(steps=0, optimiser=Adam(lr=0.1)), ["phase.steps", "0"]),
    (lambda: Phase(steps=1, optimiser="adam"), ["phase.optimiser"]),
    (lambda: Cosine(intervals=0), ["schedule.intervals"]),
    (lambda: MultiStep([1.5]), ["schedule.milestones"]),
    (lambda: simulate(model(), phases=[Phase(steps=5, optimiser=Adam(lr=[0.1, 0.2, 0.3]))], seeds=[0, 1]), ["optimiser.lr"]),
    (lambda: simulate(model(), phases=[Phase(steps=5, optimiser=Adam(lr=0.1))], until=7), ["until", "5"]),
    (lambda: simulate(model(), phases=[Phase(steps=5, optimiser=Adam(lr=0.1))], save_at=[0.5]), ["save_at", "whole"]),
    (lambda: simulate(model(), phases=[Phase(steps=5, optimiser=Adam(lr=0.1))], flow="gram"), ["flow", "full"]),
    (lambda: simulate(model(), phases=[Phase(steps=5, optimiser=Adam(lr=0.1), loss="nope")]), ["loss", "mse"]),
])
def test_bad_input(make, names):
    with pytest.raises(BadInput) as caught:
        make()
    for name in names:
        assert name in str(caught.value)
    assert "\n" not in str(caught.value)
