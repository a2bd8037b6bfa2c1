"""Extrapolated RKC: order, stability, error estimate, rounding, isolation of lanes, and what it saves on a gradient flow."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from ncflow.integrators.chebyshev import Chebyshev
from ncflow.integrators.dormand_prince import DormandPrince
from ncflow.integrators.extrapolated_chebyshev import FEWEST, PLANS, ExtrapolatedChebyshev, coefficients, combination

ORDERS = sorted(PLANS)
Y = torch.tensor(np.random.default_rng(1).normal(size=(1, 4)))


def symmetric(eigenvalues):
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(len(eigenvalues),) * 2))[0]
    return torch.tensor(Q * np.asarray(eigenvalues) @ Q.T)


A = symmetric([0.1, 0.5, 1.0, 3.0])
B = torch.tensor(np.random.default_rng(3).normal(size=(4, 4)))


def linear(y):
    return -y @ A


def nonlinear(y):
    return y @ B.T - y**3


def exact(field, y, t):
    if field is linear:
        return y @ torch.linalg.matrix_exp(-A * t)
    f = lambda _, x: field(torch.tensor(x)[None])[0].numpy()  # noqa: E731
    return torch.tensor(solve_ivp(f, (0, t), y[0].numpy(), method="DOP853", rtol=2.3e-14, atol=1e-16).y[:, -1])[None]


def one(value):
    return torch.full((1,), value, dtype=torch.float64)


def march(order, reach, field, steps):
    """Error at time 1 of steps with h * radius = `reach`, however large: the numbers of stages do not change with h."""
    y, h = Y, 1 / steps
    f = field(y)
    for _ in range(steps):
        step = ExtrapolatedChebyshev(one(reach / h), order).step(field, y, f, one(h))
        y, f = step.y, step.f
    return float((y - exact(field, Y, 1.0)).norm())


def slopes(errors):
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


@pytest.mark.parametrize("field, reach", [(linear, 1.0), (linear, 100.0), (linear, 1000.0), (nonlinear, 1.0)])
@pytest.mark.parametrize("order", ORDERS)
def test_order_of_convergence(order, field, reach):
    """reach 1: equal numbers of stages; 100 and 1000: fewer in the parts than in the whole."""
    measured = slopes([march(order, reach, field, n) for n in (8, 16, 32, 64)])
    assert abs(measured[-1] - order) < 0.25, measured


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("reach", [40.0, 100.0, 400.0])
def test_unequal_numbers_of_stages_leave_almost_nothing_of_the_second_order_error(order, reach):
    steps = 64
    y, f, h = Y, nonlinear(Y), one(1 / steps)
    for _ in range(steps):
        step = Chebyshev(one(reach * steps)).step(nonlinear, y, f, h)
        y, f = step.y, step.f
    second = float((y - exact(nonlinear, Y, 1.0)).norm())
    equal, unequal = march(order, 1.0, nonlinear, steps), march(order, reach, nonlinear, steps)
    assert unequal < 2 * equal + 1e-4 * second


def local(order, field, h, what):
    step = ExtrapolatedChebyshev(one(1.0), order).step(field, Y, field(Y), one(h))
    return float(what(step).norm())


@pytest.mark.parametrize("field", [linear, nonlinear])
@pytest.mark.parametrize("order", ORDERS)
def test_order_of_the_error_estimate_and_of_the_interpolant(order, field):
    sizes = (0.08, 0.04, 0.02)
    assert abs(slopes([local(order, field, h, lambda s: s.error) for h in sizes])[-1] - order) < 0.3
    least = 4.7 if order == 4 and field is linear else 3.7  # local errors h^5, h^4

    def worst(h):
        return max(local(order, field, h, lambda s: s.interpolate(one(x)) - exact(field, Y, x * h)) for x in (0.2, 0.4, 0.6, 0.8))  # noqa: B023

    inside = [worst(h) for h in sizes]
    assert slopes(inside)[-1] > least
    assert inside[-1] < 8 * local(order, field, sizes[-1], lambda s: s.y - exact(field, Y, sizes[-1]))  # about as good as the end
    for theta, end in ((0.0, lambda s: Y), (1.0, lambda s: s.y)):
        assert local(order, field, 0.1, lambda s: s.interpolate(one(theta)) - end(s)) < 1e-15  # noqa: B023


@pytest.mark.parametrize("order", ORDERS)
def test_weights_match_the_exponential(order):
    """Taylor coefficients of the combined stability polynomial, from the numbers of stages alone."""
    plan = PLANS[order]
    for reach in (1.0, 30.0, 47.0, 200.0, 5e3, 1e6):
        stages = tuple(ExtrapolatedChebyshev(one(reach), order).stages(one(1 / n))[0] for n in plan.parts)
        weights, companion = combination(order, stages)
        errors = np.array([coefficients(s, plan.damping).error for s in stages])
        n = np.array(plan.parts)
        assert weights.sum() == pytest.approx(1, abs=1e-14) and companion.sum() == pytest.approx(1, abs=1e-14)
        assert abs(weights @ (errors[:, 0] / n**2)) < 1e-15
        if order == 4:
            assert abs(weights @ (errors[:, 1] / n**3)) < 1e-15
        if len(set(stages)) == 1:
            assert weights == pytest.approx({3: [-1 / 3, 4 / 3], 4: [1 / 12, -16 / 12, 27 / 12]}[order], abs=1e-12)


def polynomial(order, reach, z):
    """R(z), all z at once, a lane each, with the numbers of stages for h * radius = `reach`."""
    method = ExtrapolatedChebyshev(torch.full_like(z, reach), order)
    return method.step(lambda y: z[:, None] * y, torch.ones(len(z), 1, dtype=z.dtype), z[:, None], torch.ones_like(z))


@pytest.mark.parametrize("order", ORDERS)
def test_stable_and_damped_on_the_whole_interval(order):
    plan = PLANS[order]
    reaches = [*np.geomspace(3, 400, 60), 1e3, 3e3, 1e4, 1e5]
    for reach in reaches:
        z = -torch.linspace(0, reach, 1200, dtype=torch.float64)
        R = polynomial(order, reach, z).y[:, 0]
        assert float(R.abs().max()) <= 1
        assert float(R[z < -3].abs().max() if reach > 3.1 else 0) < 0.98, reach
        # Neither estimate nor interpolant amplifies a stiff component, however stiff.
        step = polynomial(order, reach, z)
        assert float(step.error.max()) < 0.1
        for theta in (0.1, 0.25, 0.4, 0.6, 0.8, 0.9):
            assert float(step.interpolate(torch.full_like(z, theta)).abs().max()) < 1.07
    small = -torch.logspace(-2, -1, 10, dtype=torch.float64)
    for reach in (1.0, 100.0, 1e5):
        R = polynomial(order, reach, small).y[:, 0]
        assert float(((R - small.exp()) / small ** (order + 1)).abs().max()) < 0.02
    largest = ExtrapolatedChebyshev(one(1.0), order).largest_step
    assert largest == pytest.approx(2 / 3 * (2000**2 - 1) * (1 - 2 * plan.damping / 15))


@pytest.mark.parametrize("order", ORDERS)
def test_every_number_of_stages_is_stable_to_its_reach(order):
    """RKC2 by its closed form R_s = 1 - b T_s(w0) + b T_s(w0 + w1 z)."""
    damping, method = PLANS[order].damping, ExtrapolatedChebyshev(one(1.0), order)
    for s in [*range(FEWEST, 200), 300, 500, 1000, 2000]:
        rows = coefficients(s, damping).rows
        assert np.isfinite(rows).all() and rows.shape == (s, 4)
        w0 = 1 + damping / s**2
        a = np.arccosh(w0)
        T, dT = np.cosh(s * a), s * np.sinh(s * a) / np.sinh(a)
        w1 = rows[-1, 2] * w0 / rows[-1, 0]  # mu~ / mu = w1 / w0
        x = w0 - w1 * np.linspace(0, method.reach(s), 4000)
        assert x[-1] >= -w0  # where |T_s| starts to exceed its value at w0
        R = 1 + (np.where(np.abs(x) <= 1, np.cos(s * np.arccos(np.clip(x, -1, 1))),
                          np.sign(x) ** s * np.cosh(s * np.arccosh(np.maximum(np.abs(x), 1)))) - T) / (dT * w1)  # fmt: skip
        assert np.abs(R).max() <= 1 + 1e-12


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("reach", [3e4, 1e6])
def test_rounding_stays_small_with_hundreds_of_stages(order, reach):
    """A linear step in double precision against the same recurrence in extended precision."""
    z = -np.concatenate([[0, 1e-6, 1e-3, 0.1], np.geomspace(1, reach, 60)])
    method = ExtrapolatedChebyshev(torch.full((len(z),), reach, dtype=torch.float64), order)
    counts = [method.stages(torch.full((len(z),), 1 / n, dtype=torch.float64))[0] for n in method.plan.parts]
    assert max(counts) > 200
    Z, total = z.astype(np.longdouble), np.zeros(len(z), np.longdouble)
    for n, s, weight in zip(method.plan.parts, counts, combination(order, tuple(counts))[0], strict=True):
        y = np.ones(len(z), np.longdouble)
        for _ in range(n):
            rows = coefficients(s, method.plan.damping).rows.astype(np.longdouble)
            before, now = 0 * y, rows[0, 2] * Z / n * y
            for mu, nu, mu_t, gamma_t in rows[1:]:
                before, now = now, mu * now + nu * before + Z / n * (gamma_t * y + mu_t * (y + now))
            y = y + now
        total += weight * y
    found = polynomial(order, reach, torch.tensor(z)).y[:, 0].numpy()
    assert np.abs(found - total).max() < 1e-11
    assert found[0] == 1
    assert np.abs(found[:3] - np.exp(z[:3])).max() < 1e-13


@pytest.mark.parametrize("order", ORDERS)
def test_a_lane_does_not_see_its_batch(order):
    radius = torch.tensor([0.1, 200.0, 3e3, 1e5, 1.0], dtype=torch.float64)
    decay = radius * torch.tensor([1.0, 0.9, 0.7, 0.99, 1.0], dtype=torch.float64)
    h = torch.tensor([0.5, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64)  # the last lane idles
    y = torch.tensor(np.random.default_rng(5).normal(size=(5, 7)))

    def field(rows):
        return lambda u: -decay[rows, None] * u * torch.linspace(0, 1, 7, dtype=torch.float64) - 0.1 * u**3

    every = torch.arange(5)
    together = ExtrapolatedChebyshev(radius, order).step(field(every), y, field(every)(y), h)
    theta = torch.full((5,), 0.4, dtype=torch.float64)
    for i in range(5):
        row = every[i : i + 1]
        alone = ExtrapolatedChebyshev(radius[row], order).step(field(row), y[row], field(row)(y[row]), h[row])
        for a, b in ((together.y[i], alone.y[0]), (together.f[i], alone.f[0]), (together.error[i], alone.error[0]),
                     (together.interpolate(theta)[i], alone.interpolate(theta[:1])[0])):  # fmt: skip
            torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13 * max(1.0, float(b.abs().max())))
        assert together.evaluations[i] == alone.evaluations[0]
    assert len(set(together.evaluations.tolist())) == 4
    assert torch.equal(together.y[4], y[4])
    broken = y.clone()
    broken[2] = torch.nan
    others = ExtrapolatedChebyshev(radius, order).step(field(every), broken, field(every)(broken), h)
    assert torch.equal(others.y[[0, 1, 3, 4]], together.y[[0, 1, 3, 4]]) and bool(others.y[2].isnan().all())


@pytest.mark.parametrize("order", ORDERS)
def test_evaluations_are_counted(order):
    for radius in (0.1, 50.0, 4e3):
        calls = 0

        def field(y):
            nonlocal calls
            calls += 1
            return -radius * y  # noqa: B023

        step = ExtrapolatedChebyshev(one(radius), order).step(field, Y, -radius * Y, one(1.0))
        assert calls == int(step.evaluations)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("power", [1, 2, 3, 4])
def test_forced_stiff_components_do_not_lose_accuracy_with_stiffness(order, power):
    """Prothero and Robinson (1974): y' = -r (y - t^k) + k t^(k-1), y(0) = 0, one step to t = 1, exact y = 1."""
    for reach in (1e2, 1e3, 1e4, 1e5):
        r = torch.linspace(10, reach, 800, dtype=torch.float64)[:, None]

        def field(u):
            y, t = u[:, :1], u[:, 1:]
            return torch.cat([-r * (y - t**power) + power * t ** (power - 1), torch.ones_like(t)], 1)  # noqa: B023

        u = torch.zeros(len(r), 2, dtype=torch.float64)
        step = ExtrapolatedChebyshev(torch.full((len(r),), reach, dtype=torch.float64), order).step(
            field, u, field(u), torch.ones(len(r), dtype=torch.float64)
        )
        error = (step.y[:, 0] - 1).abs()
        assert float(error.max()) < {1: 1e-11, 2: 0.02 / reach, 3: 0.03, 4: 0.05}[power], reach
        assert float(error[400:].max()) < 3 / reach  # the stiff half follows ever closer


class ReducedUFM:
    """Gradient flow of a UFM in class means: W (K, p), M (p, K), E (p, p) with E E^T / N the within-class scatter; features
    move at speed N / K. L = (c/N) sum |W h - e|^2 + (l/2) |W|^2 + (l/2n) |H|^2, c = 1/2."""

    K, p, n = 5, 10, 100

    def __init__(self, decay):
        self.decay, self.calls = decay, 0

    def field(self, y):
        K, p, decay = self.K, self.p, self.decay
        self.calls += 1
        W, M, E = y[:, : K * p].view(-1, K, p), y[:, K * p : 2 * K * p].view(-1, p, K), y[:, 2 * K * p :].view(-1, p, p)
        R, WE = (W @ M - torch.eye(K, dtype=y.dtype)) / K, W @ E
        dW = R @ M.mT + WE @ E.mT + decay * W
        return -torch.cat([x.flatten(1) for x in (dW, W.mT @ R + decay * M, W.mT @ WE / K + decay * E)], 1)

    def start(self):
        g = np.random.default_rng(0)
        W = np.linalg.qr(g.normal(size=(self.p, self.K)))[0].T
        M = g.normal(size=(self.p, self.K)) / np.sqrt(self.p * self.n)
        E = np.linalg.qr(g.normal(size=(self.p, self.p)))[0] / np.sqrt(self.p)
        return torch.tensor(np.concatenate([W.ravel(), M.ravel(), E.ravel()]))[None]

    def fn(self, y):
        return float(y[:, self.K * self.p : 2 * self.K * self.p].view(-1, self.p, self.K).norm(dim=1).mean())


def drive(flow, make, order, tolerance, y, t, until):
    """One lane to `until`: step sizes as in the driver."""
    f, h, last = flow.field(y), 1e-2, 1.0
    while t < until:
        tried = min(h, until - t)
        step = make().step(flow.field, y, f, one(tried))
        error = max(float((step.error / (tolerance * (1 + y.abs()))).square().mean().sqrt()), 1e-10)
        if error <= 1:
            t, y, f = t + tried, step.y, step.f
            h = tried * float(np.clip(0.9 * error ** (-0.7 / order) * last ** (0.4 / order), 0.2, 8))
            last = error
        else:
            h = tried * max(0.9 * error ** (-1 / order), 0.1)
    return y


def test_fewer_evaluations_than_others_on_the_tail_of_a_gradient_flow():
    """From t = 40, where the flow has turned stiff, to 1 / lambda, at the same accuracy of fn.

    Measured: Dormand-Prince 7345 evaluations; for errors of 1e-6, 1e-7, 2e-8, 2e-9 RKC2 takes 1000, 2000, 3600, 7000,
    order three 1000, 1400, 1900, 2700 and order four 1000, 1500, 1800, 2400.
    """
    decay = 1e-4
    rhs, radius = ReducedUFM(decay), one(0.5)
    start = drive(rhs, DormandPrince, 5, 1e-10, rhs.start(), 0.0, 40.0)
    reference = solve_ivp(lambda t, y: rhs.field(torch.tensor(y)[None])[0].numpy(), (40, 1 / decay), start[0].numpy(),
                          method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1]  # fmt: skip
    fn = rhs.fn(torch.tensor(reference)[None])
    calls = {}
    for name, make, order, tolerance, accuracy in (
        ("dopri5", DormandPrince, 5, 1e-6, 2e-7),
        ("rkc2", lambda: Chebyshev(radius), 3, 1e-9, 3e-8),
        ("rkc3", lambda: ExtrapolatedChebyshev(radius, 3), 3, 1e-8, 3e-8),
        ("rkc4", lambda: ExtrapolatedChebyshev(radius, 4), 4, 3e-8, 3e-8),
    ):
        flow = ReducedUFM(decay)
        assert abs(flow.fn(drive(flow, make, order, tolerance, start, 40.0, 1 / decay)) - fn) < accuracy, name
        calls[name] = flow.calls
    assert max(calls["rkc3"], calls["rkc4"]) < 0.7 * calls["rkc2"], calls
    assert max(calls["rkc3"], calls["rkc4"]) < 0.3 * calls["dopri5"], calls
