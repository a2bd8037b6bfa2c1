"""Order, stability, error control and isolation of lanes of the integrators, on problems whose solution is known."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from ncflow.integrators import Batch, Chebyshev, Control, DormandPrince, integrate
from ncflow.integrators.chebyshev import spectral_radius
from ncflow.trajectory import Status


def symmetric(eigenvalues, seed=0):
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))[0]
    return torch.tensor(Q * np.asarray(eigenvalues) @ Q.T)


class Stub:
    """A flow as far as the integrators need one."""

    smooth, unit = True, 1.0

    def project(self, y):
        return y


def bare(field):
    stub = Stub()
    stub.field = field
    return stub


class Linear(Stub):
    """y' = -A y for one A or one per lane."""

    def __init__(self, A):
        self.A = A
        self.calls = 0

    def field(self, y):
        self.calls += 1
        return -(self.A @ y[..., None]).squeeze(-1)

    def exact(self, y, t):
        return (torch.linalg.matrix_exp(-self.A * t) @ y[..., None]).squeeze(-1)


class Pitchfork(Stub):
    """y' = B y - y^3, B not symmetric: nonlinear, coupled, without closed form."""

    B = torch.tensor(np.random.default_rng(3).normal(size=(4, 4)))

    def field(self, y):
        return y @ self.B.T - y**3

    def exact(self, y, t):
        f = lambda _, x: self.field(torch.tensor(x)[None])[0].numpy()  # noqa: E731
        ends = [solve_ivp(f, (0, t), x.numpy(), method="DOP853", rtol=2.3e-14, atol=1e-16).y[:, -1] for x in y]
        return torch.tensor(np.array(ends))


PROBLEMS = {"linear": Linear(symmetric([0.1, 0.5, 1.0, 3.0])), "nonlinear": Pitchfork()}
Y = torch.tensor(np.random.default_rng(1).normal(size=(2, 4)))


def solver(name, stages=None):
    if name == "dopri5":
        return lambda h: DormandPrince()
    return lambda h: Chebyshev(torch.full((2,), 0.999 * Chebyshev.reach(stages)) / h)


def march(make, problem, steps, t=1.0):
    y, h = Y, torch.full((2,), t / steps, dtype=torch.float64)
    f = problem.field(y)
    for _ in range(steps):
        step = make(h).step(problem.field, y, f, h)
        y, f = step.y, step.f
    return float((y - problem.exact(Y, t)).norm())


def slope(errors, factor=2.0):
    return np.log(np.array(errors[:-1]) / np.array(errors[1:])) / np.log(factor)


METHODS = [("dopri5", None), ("rkc2", 2), ("rkc2", 5), ("rkc2", 31)]


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("name, stages", METHODS)
def test_order_of_convergence(name, stages, problem):
    order = {"dopri5": 5, "rkc2": 2}[name]
    orders = slope([march(solver(name, stages), problem, n) for n in ((8, 16, 32) if order == 5 else (32, 64, 128, 256))])
    assert abs(orders[-1] - order) < 0.25, orders


def local(make, problem, h, what):
    steps = torch.full((2,), h, dtype=torch.float64)
    step = make(steps).step(problem.field, Y, problem.field(Y), steps)
    return float(what(step, h).norm())


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("name, stages", METHODS)
def test_order_of_the_error_estimate_and_of_the_interpolant(name, stages, problem):
    make, sizes = solver(name, stages), (0.08, 0.04, 0.02)
    kind = DormandPrince if name == "dopri5" else Chebyshev
    estimate = slope([local(make, problem, h, lambda step, h: step.error) for h in sizes])
    assert abs(estimate[-1] - kind.error_order) < 0.3, estimate
    for theta in (0.25, 0.6, 0.9):
        share = torch.full((2,), theta, dtype=torch.float64)
        inside = [local(make, problem, h, lambda step, h: step.interpolate(share) - problem.exact(Y, theta * h)) for h in sizes]  # noqa: B023
        # A polynomial of degree 4 (3) has a local error of h^5 (h^4, but that of the end of the step is h^3).
        assert slope(inside)[-1] > kind.error_order - 0.3, (theta, inside)


@pytest.mark.parametrize("name, stages", METHODS)
def test_the_interpolant_meets_both_ends_with_their_slopes(name, stages):
    problem, h = PROBLEMS["nonlinear"], torch.full((2,), 0.1, dtype=torch.float64)
    step = solver(name, stages)(h).step(problem.field, Y, problem.field(Y), h)
    at = lambda x: step.interpolate(torch.full((2,), x, dtype=torch.float64))  # noqa: E731
    torch.testing.assert_close(at(0.0), Y, rtol=0, atol=1e-15)
    torch.testing.assert_close(at(1.0), step.y, rtol=0, atol=1e-14)
    e = 1e-5
    torch.testing.assert_close((at(e) - at(-e)) / (2 * e), 0.1 * problem.field(Y), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close((at(1 + e) - at(1 - e)) / (2 * e), 0.1 * step.f, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("s", [2, 3, 4, 5, 7, 10, 20, 50, 111, 300, 1000, 2000])
def test_rkc_is_stable_on_its_interval_and_not_far_beyond(s):
    """The stability polynomial R(z), all z at once: z = h * eigenvalue, a lane each."""

    def R(z):
        method = Chebyshev(torch.full_like(z, 0.9999999 * Chebyshev.reach(s)))
        step = method.step(lambda y: z[:, None] * y, torch.ones(len(z), 1, dtype=torch.float64), z[:, None], torch.ones_like(z))
        assert set(step.evaluations.tolist()) == {s}
        return step.y[:, 0]

    reach = Chebyshev.reach(s)
    assert reach == pytest.approx(2 / 3 * (s**2 - 1) * (1 - 2 / 15 * 2 / 13))
    z = -torch.linspace(0, reach, 4001, dtype=torch.float64)
    assert float(R(z).abs().max()) <= 1
    assert float(R(z)[z < -3].abs().max() if s > 2 else 0) < 0.96  # damped, not just bounded
    assert float(R(-torch.linspace(1.0, 1.2 if s < 20 else 1.01, 100, dtype=torch.float64) * reach).abs().max()) > 1
    assert float(R(torch.zeros(1, dtype=torch.float64))) == 1  # what is at rest stays, to the bit
    small = -torch.logspace(-4, -2, 20, dtype=torch.float64)
    assert float(((R(small) - small.exp()) / small**3).abs().max()) < 0.2  # consistent of order 2


def test_rkc_takes_as_few_stages_as_are_stable():
    radius = torch.tensor([0.1, 1.0, 1e2, 1e4, 1e9], dtype=torch.float64)
    step = Chebyshev(radius).step(
        lambda y: 0 * y,
        torch.ones(5, 1, dtype=torch.float64),
        torch.zeros(5, 1, dtype=torch.float64),
        torch.ones(5, dtype=torch.float64),
    )
    s = step.evaluations
    assert s.tolist()[:2] == [2, 2] and float(s[-1]) == Chebyshev.max_stages
    assert bool((Chebyshev.reach(s) >= radius)[:4].all()) and not bool((Chebyshev.reach(s - 1) >= radius)[2:4].any())
    largest = Chebyshev(radius).largest_step
    torch.testing.assert_close(largest * radius, torch.full_like(radius, Chebyshev.reach(Chebyshev.max_stages)))


@pytest.mark.parametrize(
    "eigenvalues", [np.linspace(0, 100, 40), np.geomspace(1e-6, 70, 30), [100, *[99] * 20], [0, 0, 5], [3.0]]
)
def test_the_spectral_radius_is_found_from_below(eigenvalues):
    A = symmetric(eigenvalues)
    problem, n = Linear(A), len(eigenvalues)
    y = torch.tensor(np.random.default_rng(5).normal(size=(3, n)))
    guess = torch.tensor(np.random.default_rng(6).normal(size=(3, n)))
    radius, direction, count = spectral_radius(problem.field, y, problem.field(y), guess, torch.tensor([True, True, False]))
    top = max(eigenvalues)
    assert bool((radius[:2] <= top * (1 + 1e-6)).all()) and bool((radius[:2] > 0.9 * top).all())
    assert bool((count[:2] > 0).all())
    # The lane that was not asked for is left alone; what the others find does not depend on it.
    assert float(radius[2]) == 0 and float(count[2]) == 0 and torch.equal(direction[2], guess[2])


def test_the_spectral_radius_of_a_lane_does_not_see_its_neighbours():
    A = torch.stack([symmetric(np.linspace(0, 50, 8)), symmetric([1, 1, 1, 1, 1, 1, 1, 1.0])])
    B = torch.stack([A[0], symmetric(np.linspace(0, 90, 8), 4)])  # the neighbour needs more iterations
    y = torch.tensor(np.random.default_rng(5).normal(size=(2, 8)))
    wanted = torch.tensor([True, True])
    found = [spectral_radius(p.field, y, p.field(y), y.flip(1), wanted) for p in (Linear(A), Linear(B))]
    assert float(found[0][2][1]) != float(found[1][2][1])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a[0], b[0])


def run(problem, y, until, watch=lambda inside: None, **control):
    batch = Batch.start(y)
    integrate(problem, batch, until, Control(**control), watch)
    return batch


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("method", ["dopri5", "rkc2", "rkc3", "rkc4"])
def test_the_error_follows_the_tolerance(method, problem):
    """As tol where the solution is one order better than its error estimate, as tol^(2/3) for order 2 with one of order 3.

    The extrapolated methods count a share of their estimate only, tuned to gradient flows; here errors are larger.
    """
    tolerances = [1e-4, 1e-6, 1e-8] + ([] if method == "rkc2" else [1e-10])
    exact = problem.exact(Y, 5.0)
    errors = [float((run(problem, Y, 5.0, rtol=r, atol=r, method=method).y - exact).abs().max()) for r in tolerances]
    power = 2 / 3 if method == "rkc2" else 1
    for tolerance, error in zip(tolerances, errors, strict=True):
        assert error < (20 if method in ("rkc3", "rkc4") else 5) * tolerance**power, errors
    assert errors[-1] < errors[0] * (tolerances[-1] / tolerances[0]) ** (0.8 * power), errors


def test_the_end_is_met_exactly_and_steps_add_up():
    seen = []
    batch = run(PROBLEMS["linear"], Y, 3.0, lambda inside: seen.append((inside.t0, inside.t1, inside.accepted)))
    assert batch.t.tolist() == [3.0, 3.0]
    assert (batch.steps - batch.rejected).tolist() == torch.stack([good for _, _, good in seen]).sum(0).tolist()
    for lane in (0, 1):
        ends = [(float(t0[lane]), float(t1[lane])) for t0, t1, good in seen if good[lane]]
        assert ends[0][0] == 0 and ends[-1][1] == 3.0
        assert all(a[1] == b[0] for a, b in pairwise(ends))


@pytest.mark.parametrize("method, rtol, bound", [("dopri5", 1e-9, 1e-8), ("rkc2", 1e-5, 1e-3)])
def test_the_interpolant_is_as_accurate_as_the_steps(method, rtol, bound):
    problem, inside, ends = PROBLEMS["nonlinear"], [], []

    def watch(seen):
        for share, errors in ((0.2, inside), (0.5, inside), (0.8, inside), (1.0, ends)):
            at = torch.full((2,), share, dtype=torch.float64)
            times = seen.t0 + at * (seen.t1 - seen.t0)
            exact = torch.stack([problem.exact(Y[[i]], float(t))[0] for i, t in enumerate(times)])
            errors.append(float((seen.step.interpolate(at) - exact).abs().max()))

    run(problem, Y, 0.5, watch, rtol=rtol, atol=rtol, method=method)
    assert max(ends) < bound and max(inside) < 1.2 * max(ends) + 2 * rtol


def stiff(n=30, seed=0):
    return Linear(symmetric([0, *np.geomspace(1e-3, 1e2, n - 1)], seed))


def test_stiff_problems_are_handed_to_the_stabilised_method():
    problem = stiff()
    y = torch.tensor(np.random.default_rng(2).normal(size=(2, 30)))
    control = {"rtol": 1e-6, "atol": 1e-9}
    auto, explicit = (run(problem, y, 200.0, method=m, **control) for m in ("auto", "dopri5"))
    assert bool((auto.stabilised > 0).all()) and bool((explicit.stabilised == 0).all())
    assert bool((auto.evaluations < explicit.evaluations / 6).all())
    exact = problem.exact(y, 200.0)
    for batch in (auto, explicit):
        torch.testing.assert_close(batch.y, exact, rtol=0, atol=2e-5)


def test_what_is_not_stiff_stays_with_the_explicit_method():
    problem = Linear(symmetric(np.linspace(0.5, 2, 10)))
    batch = run(problem, torch.ones(2, 10, dtype=torch.float64), 3.0, rtol=1e-8)
    assert batch.stabilised.tolist() == [0, 0]


@pytest.mark.parametrize("method", ["auto", "dopri5", "rkc2"])
def test_evaluations_are_counted_as_they_happen(method):
    problem = stiff(10)
    y = torch.tensor(np.random.default_rng(2).normal(size=(1, 10)))
    problem.calls = 0
    batch = run(problem, y, 20.0, method=method, rtol=1e-5, atol=1e-8)
    assert int(batch.evaluations[0]) == problem.calls


class Explosive(Stub):
    """y' = y^2 in the first lane, which ends at t = 1/y(0); y' = -y in the second."""

    def field(self, y):
        return torch.stack([y[0] ** 2, -y[1]])


@pytest.mark.parametrize("method", ["auto", "dopri5"])
def test_a_lane_that_blows_up_keeps_its_last_good_state_and_the_other_goes_on(method):
    y = torch.ones(2, 3, dtype=torch.float64)
    batch = run(Explosive(), y, 5.0, method=method, rtol=1e-6)
    assert int(batch.status[0]) in (Status.STEP_TOO_SMALL, Status.NON_FINITE) and bool(batch.running[1])
    assert float(batch.t[0]) == pytest.approx(1.0, rel=1e-3) and bool(batch.y.isfinite().all())
    alone = run(bare(lambda y: -y), y[1:], 5.0, method=method, rtol=1e-6)
    torch.testing.assert_close(batch.y[1:], alone.y, rtol=1e-13, atol=0)
    assert int(batch.steps[1]) == int(alone.steps[0])


def test_values_that_are_not_finite_stop_only_their_lane():
    def field(y):
        return torch.where((torch.arange(2) == 0)[:, None] & (y < 0.5), torch.nan, -y)

    batch = run(bare(field), torch.ones(2, 3, dtype=torch.float64), 5.0)
    assert int(batch.status[0]) == Status.NON_FINITE and bool((batch.y[0] >= 0.5).all())
    assert float(batch.t[0]) == pytest.approx(np.log(2), abs=1e-3)
    torch.testing.assert_close(batch.y[1], torch.full((3,), np.exp(-5.0), dtype=torch.float64), rtol=1e-6, atol=0)


def test_the_number_of_steps_is_bounded_lane_by_lane():
    A = torch.stack([symmetric([1e5, 1.0]), symmetric([1.0, 0.5])])
    batch = run(Linear(A), torch.ones(2, 2, dtype=torch.float64), 50.0, method="dopri5", max_steps=1000)
    assert batch.status.tolist() == [Status.MAX_STEPS, -1] and batch.steps.tolist()[0] == 1000
    assert 0 < float(batch.t[0]) < 50 and float(batch.t[1]) == 50
    exact = Linear(A[0]).exact(torch.ones(2, dtype=torch.float64), float(batch.t[0]))
    torch.testing.assert_close(batch.y[0], exact, rtol=1e-5, atol=1e-8)


def test_rest_is_noticed_and_so_is_nothing_left():
    fixed = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    batch = run(
        bare(lambda y: fixed - y),
        torch.tensor([[3.0, 4.0], [1.0, 2.0], [1.0, 1.0]], dtype=torch.float64),
        1e3,
        rest=1e-6,
    )
    assert batch.status.tolist() == [Status.AT_REST] * 3
    # |y' | = |y - y*|: the distance where it stops is what was asked for; what decays to nothing is at rest below atol.
    distance = (batch.y - fixed).norm(dim=1) / fixed.norm(dim=1)
    assert float(distance[0]) < 1e-6 and float(batch.t[0]) == pytest.approx(np.log(2**1.5 / 5**0.5 / 1e-6), rel=0.3)
    assert float(batch.y[2].abs().max()) <= 1e-12 and float(batch.t[2]) == pytest.approx(12 * np.log(10), rel=0.3)


@pytest.mark.parametrize("method", ["auto", "rkc2"])
def test_a_lane_keeps_its_bits_whatever_its_neighbours_do(method):
    """At a fixed shape of the batch: neighbours that are stiffer, fail, rest or finish early."""
    A = symmetric([0, *np.geomspace(1e-2, 1e2, 7)])
    others = [0.0 * A, 30 * A, -1e4 * symmetric(np.ones(8)), symmetric(np.linspace(1, 1e4, 8), 3)]
    y = torch.tensor(np.random.default_rng(2).normal(size=(3, 8)))
    ends = []
    for B in others:
        problem = Linear(torch.stack([B, A, B]))
        batch = run(problem, y, 100.0, method=method, rtol=1e-6, rest=1e-8, max_steps=3000)
        ends.append((batch.y[1], batch.t[1], batch.steps[1], batch.evaluations[1]))
    for end in ends[1:]:
        assert all(torch.equal(a, b) for a, b in zip(ends[0], end, strict=True))


@pytest.mark.parametrize("rtol", [1e-5, 1e-8, 1e-11])
def test_automatic_leaves_the_explicit_method_at_any_tolerance(rtol):
    """Stiff from the start, smooth after t = 0.1: what the explicit method would need is 500 * 1000 / 3.3 steps of 6."""
    problem = Linear(symmetric([0.01, 0.02, 0.05, 500.0]))
    batch = run(problem, Y, 1000.0, rtol=rtol, atol=1e-14)
    assert float(batch.evaluations.max()) < 500 * 1000 / 3.3 * 6 / 5
    assert bool((batch.y - problem.exact(Y, 1000.0)).abs().max() < 10 * rtol)
