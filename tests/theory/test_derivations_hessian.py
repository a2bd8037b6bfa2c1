"""The symbolic Hessian: what is left after subtracting the stated blocks vanishes."""

import pytest
import sympy as sp

from theory import derivations_hessian as d
from theory.derivations import lam, lam_H, lam_W, sigma


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_pairs_of_modes_split_into_symmetric_and_rotation(degree):
    assert all(matrix == sp.zeros(degree, degree) for matrix in d.pair_hessian(degree))


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_entries_between_two_unequal_modes(degree):
    assert all(matrix == sp.zeros(degree, degree) for matrix in d.exchange_hessian(degree))


def test_dead_modes():
    assert d.dead_hessian() == sp.zeros(2, 2)


@pytest.mark.parametrize("degree", [2, 3])
def test_bias_block(degree):
    assert d.bias_hessian(degree) == sp.zeros(3, 3)


@pytest.mark.parametrize("degree,k", [(2, 0), (3, 0), (3, 1), (5, 2)])
def test_spare_directions_turn_freely(degree, k):
    assert d.spare_hessian(degree, k) == sp.zeros(2, 2)


def test_within_class_curvature():
    assert all(d.within_curvature(degree) == 0 for degree in (2, 3, 5))


def test_slow_mode():
    assert sp.simplify(d.slow_mode() - 4 * sigma * lam_W * lam_H / (lam_W + lam_H)) == 0
    low, high = (v.subs({lam_H: lam, lam_W: lam}) for v in d.two_factor_symmetric())
    assert {sp.simplify((v - 2 * lam).subs(sigma, sp.Rational(3, 4))) for v in (low, high)} >= {0}


def test_which_settles_first():
    assert d.lead_condition() == 0
