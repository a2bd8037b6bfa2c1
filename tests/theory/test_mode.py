"""The scalar mode equation: both roots, the fold and the Maxwell point."""

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from theory import derivations, mode


@given(st.integers(1, 12), st.floats(1e-12, 1.2))
def test_roots_solve_the_equation(degree, gamma):
    upper, lower = (float(x) for x in mode.roots(degree, gamma))
    limit = mode.fold(degree)[1]
    if gamma >= limit:
        assert np.isnan(upper) and np.isnan(lower)
        return
    for x in (upper, lower) if degree >= 3 else (upper,):
        gap, near_fold = (1 - x) * x ** (1 - 2 / degree) / gamma - 1, 1 - gamma / limit
        assert abs(gap) <= 1e-13 + 1e-15 / gamma + 1e-16 / max(near_fold, 1e-16)
    assert degree < 3 or lower <= mode.fold(degree)[0] <= upper


def test_small_tension_keeps_its_digits():
    gamma = 1e-9
    upper, lower = mode.roots(4, gamma)
    assert lower == pytest.approx(gamma**2 * (1 + 2 * gamma**2), rel=1e-14)
    assert 1 - upper == pytest.approx(gamma * (1 + gamma / 2), rel=1e-7)
    assert mode.roots(4, 0.0)[0] == 1 and mode.roots(4, 0.0)[1] == 0


@pytest.mark.parametrize("degree", [3, 4, 6, 9])
def test_roots_meet_at_the_fold(degree):
    x, gamma = mode.fold(degree)
    upper, lower = mode.roots(degree, gamma * (1 - 1e-10))
    assert upper == pytest.approx(x, abs=2e-5) and lower == pytest.approx(x, abs=2e-5) and lower < x < upper
    assert np.isnan(mode.roots(degree, gamma * (1 + 1e-12))).all()


@pytest.mark.parametrize("degree", [3, 4, 5, 7])
def test_fold_and_maxwell_are_the_derived_ones(degree):
    for numeric, (x, Gamma) in (
        (mode.fold(degree), derivations.fold()),
        (mode.maxwell(degree), derivations.maxwell()),
    ):
        assert numeric[0] == pytest.approx(float(x.subs(derivations.D, degree)), rel=1e-15)
        assert numeric[1] ** degree == pytest.approx(float(Gamma.subs(derivations.D, degree)), rel=1e-13)
    cost = derivations.mode_cost().subs(derivations.D, degree)
    x = derivations.x
    assert sp.expand(cost - degree * x * (1 - x) + x * (2 - x)) == 0
    assert float(cost.subs(x, mode.maxwell(degree)[0])) == pytest.approx(0, abs=1e-15)


@given(st.integers(1, 8), st.floats(1e-3, 3.0), st.floats(0.1, 5.0), st.floats(0.1, 5.0), st.floats(0.1, 2.0))
def test_upper_root_minimises_the_modes_loss(degree, decay, scale, target, gram):
    gamma = mode.tension(degree, decay, scale, target, gram)
    x = float(mode.roots(degree, gamma)[0])
    if not x > mode.fold(degree)[0] + 0.05:
        return
    loss = lambda z: scale / 2 * (gram * z**2 - 2 * target * z) + degree / 2 * decay * z ** (2 / degree)  # noqa: E731
    z = target / gram * x
    found = minimize_scalar(loss, bounds=(z * 0.9, z * 1.1), method="bounded", options=dict(xatol=1e-12)).x
    assert found == pytest.approx(z, rel=1e-6)


def test_nothing_pulls_a_mode_without_target():
    assert np.isinf(mode.tension(3, 1e-3, 1.0, 0.0)) and np.isnan(mode.roots(3, np.inf)).all()
