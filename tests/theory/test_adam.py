"""Adam's effective rates against the engine's own Adam, with gradient noise added by hand."""

import numpy as np
import pytest
import sympy as sp
import torch

from ncflow import UFM, Adam, BadInput, Decay, Phase, simulate
from theory import adam, derivations_dynamics

BETAS = (0.9, 0.99)  # a memory of 100 steps instead of 1000: what is slow for it is ten times faster
LR = torch.tensor([[1e-3]], dtype=torch.float64)


def mean_path(h, s, start, steps, copies=4000):
    """Mean and variance over copies of x under noisy gradients h x + s xi, after each step."""
    rule, noise = Adam(lr=1e-3, betas=BETAS), torch.Generator().manual_seed(0)
    x = torch.full((1, copies), float(start), dtype=torch.float64)
    memory, mean = rule.memory(x), []
    for step in range(1, steps + 1):
        push = h * x + s * torch.randn(1, copies, dtype=torch.float64, generator=noise)
        x = rule.update(x, push, LR, step, memory)
        mean.append(float(x.mean()))
    return np.array(mean), float(x.var())


@pytest.mark.parametrize(("share", "error"), [(0.1, 0.01), (1.0, 0.2)])
def test_rate_and_its_limit(share, error):
    """At a tenth of 1 - beta_2 the rate holds to a percent, at 1 - beta_2 to a tenth or two."""
    s, rate = 1e-2, share * (1 - BETAS[1])
    h = rate * s / 1e-3
    found = adam.effective_rate(h, 1e-3, s)
    assert found.rate == pytest.approx(rate, rel=1e-5) and found.stable  # eps = 1e-8 against s = 1e-2
    start, steps = 0.2 * s / h, int(2 / rate)
    mean, _ = mean_path(h, s, start, steps)
    burn = steps // 4
    measured = -np.polyfit(np.arange(burn, steps), np.log(mean[burn:]), 1)[0]
    assert measured == pytest.approx(found.rate, rel=error)
    assert share < 1 or abs(measured / found.rate - 1) > 0.03


def test_spread_at_constant_rate():
    h, s = 5e-3, 1e-2
    _, spread = mean_path(h, s, 0.0, 8000)
    assert spread == pytest.approx(adam.effective_rate(h, 1e-3, s).spread, rel=0.05)
    assert adam.norm_floor(1e-4, 1e-3, 1e-3) == pytest.approx(5e-3, rel=1e-4)


def test_large_gradients_move_at_the_learning_rate():
    """Where the mean gradient exceeds the noise the speed is lr whatever the decay."""
    for h in (1e-2, 1e-1):
        mean, _ = mean_path(h, 1e-4, 5.0, 1000)
        x = 5.0 - 1e-3 * 500
        speed = adam.effective_rate(h, 1e-3, 1e-4, gradient=h * x).rate * x
        assert speed == pytest.approx(1e-3, rel=2e-3) and (mean[0] - mean[999]) / 999 == pytest.approx(speed, rel=0.02)


def balance_path(noise, steps, decay=0.05, copies=3000):
    """w_i^2 of one mode of len(noise) factors, (steps, D), means over copies."""
    rule, random = Adam(lr=1e-3, betas=BETAS), torch.Generator().manual_seed(1)
    D = len(noise)
    w = torch.ones(1, copies, D, dtype=torch.float64)
    w[..., 0] *= 1.1
    w[..., 1] /= 1.1
    state, s = w.reshape(1, -1), torch.tensor(noise, dtype=torch.float64)
    memory, out = rule.memory(state), []
    for step in range(1, steps + 1):
        w = state.reshape(1, copies, D)
        z = w.prod(-1, keepdim=True)
        # the pull of the data, such that the balanced mode rests at z = 1
        gradient = decay * w + (2.0 * (z - 1) - decay) * z / w + s * torch.randn(w.shape, dtype=torch.float64, generator=random)
        state = rule.update(state, gradient.reshape(1, -1), LR, step, memory)
        out.append((state.reshape(copies, D) ** 2).mean(0).numpy())
    return np.array(out)


@pytest.mark.parametrize("noise", [(0.05, 0.05), (0.03, 0.12), (0.04, 0.04, 0.04)])
def test_balance_comes_back(noise):
    """log w_1^2/w_2^2 decays at the slowest rate, with layers of unequal noise as well."""
    found = adam.balance_rates(0.05, 1e-3, noise)
    assert found.rate.shape == (len(noise) - 1,)
    if len(set(noise)) == 1:
        assert found.rate == pytest.approx(np.full(len(noise) - 1, 2 * 0.05 * 1e-3 / noise[0]), rel=1e-12)
    if len(noise) == 2:
        assert found.rate[0] == pytest.approx(4 * 0.05 * 1e-3 / sum(noise), rel=1e-12)
    steps = int(1.2 / found.rate[0])
    squares = balance_path(noise, steps)
    rest = 0.0 if len(set(noise)) == 1 else None
    gap = np.log(squares[:, 0] / squares[:, 1])
    if rest is None:  # unequal noise leaves unequal diffusion: its own small offset is fitted away
        t, late = np.arange(steps), gap[-1]
        grid = np.linspace(-0.05, min(late - 1e-4, 0.05), 200)
        fits = [np.polyfit(t[200:], np.log(gap[200:] - g), 1, full=True)[1][0] for g in grid if np.all(gap[200:] > g)]
        rest = grid[int(np.argmin(fits))]
    measured = -np.polyfit(np.arange(200, steps), np.log(gap[200:] - rest), 1)[0]
    assert measured == pytest.approx(found.rate[0], rel=0.05 if rest == 0 else 0.12)


def test_full_batch_moves_at_the_learning_rate():
    """Without noise the engine's Adam walks: amplitudes move by lr per step, whatever the decay."""
    speeds = []
    for lam in (1e-3, 1e-2):
        m = UFM(classes=2, samples_per_class=1, width=2, decay=Decay(weights=lam, features=lam))
        start = {"H": 0.2 * np.eye(2), "W": [3.0 * np.eye(2)]}
        run = simulate(m, initial=start, phases=[Phase(steps=100, optimiser=Adam(lr=1e-5))], save_at=[20.0, 80.0])
        size = run.data["fn"].sel(time=[20.0, 80.0]).values[0]
        speeds.append((size[1] - size[0]) / 60)
    assert speeds == pytest.approx([1e-5, 1e-5], rel=0.01)


def test_stability_limit():
    for share, stable in ((0.97, True), (1.03, False)):
        h = share * 38 / 1e-3
        assert bool(adam.effective_rate(h, 1e-3, 1.0, epsilon=0.0).stable) == stable
        rule = Adam(lr=1e-3, eps=1.0)  # eps alone in the denominator: gradients are tiny
        x = torch.full((1, 1), 1e-12, dtype=torch.float64)
        memory = rule.memory(x)
        for step in range(10**4, 10**4 + 2000):  # past the correction of an empty memory
            x = rule.update(x, h * x, LR, step, memory)
            if abs(float(x)) > 1e-6:
                break
        assert (abs(float(x)) < 1e-12) == stable


def test_derivation():
    """s_i w_i^2 - s_j w_j^2 changes by decay alone, and two factors restore balance at 4 lambda eta/(s_1 + s_2)."""
    assert derivations_dynamics.adam_balance() == (0, 0)
    assert all("=" in derivations_dynamics.latex(law) for law in ("adam_rate", "adam_balance"))
    assert isinstance(derivations_dynamics.LAWS["adam_rate"](), sp.Eq)


def test_what_is_refused():
    for call, field in ((lambda: adam.effective_rate(0.0, 1e-3, 1.0), "curvature"),
                        (lambda: adam.effective_rate(1.0, -1e-3, 1.0), "lr"),
                        (lambda: adam.effective_rate(1.0, 1e-3, 0.0), "noise"),
                        (lambda: adam.effective_rate(1.0, 1e-3, 1.0, beta1=1.0), "beta1"),
                        (lambda: adam.balance_rates(1e-3, 1e-3, [1.0]), "noise"),
                        (lambda: adam.balance_rates(0.0, 1e-3, [1.0, 1.0]), "decay")):
        with pytest.raises(BadInput) as caught:
            call()
        assert caught.value.argument == field
    found = adam.effective_rate([1e-3, 1e-2], 1e-3, 1e-2)
    assert found.rate.shape == (2,) and "eta" in found.formula and found.source and found.status == "asymptotic"
