"""The symbolic Hessian, flow and recovery: what is left after subtracting the stated forms vanishes."""

import pytest
import sympy as sp

from theory import derivations_dynamics as d


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_pairs_of_modes_split_into_symmetric_and_rotation(degree):
    assert all(matrix == sp.zeros(degree, degree) for matrix in d.pair_hessian(degree))


@pytest.mark.parametrize("degree", [2, 3])
def test_bias_block(degree):
    assert d.bias_hessian(degree) == sp.zeros(3, 3)


@pytest.mark.parametrize("degree,k", [(2, 0), (3, 0), (3, 1), (5, 2)])
def test_spare_directions_turn_freely(degree, k):
    assert d.spare_hessian(degree, k) == sp.zeros(2, 2)


def test_within_class_curvature():
    assert all(d.within_curvature(degree) == 0 for degree in (2, 3, 5))


def test_slow_mode():
    assert sp.simplify(d.slow_mode() - 4 * d.sigma * d.lam_W * d.lam_H / (d.lam_W + d.lam_H)) == 0
    low, high = (v.subs({d.lam_H: d.lam, d.lam_W: d.lam}) for v in d.two_factor_symmetric())
    assert {sp.simplify((v - 2 * d.lam).subs(d.sigma, sp.Rational(3, 4))) for v in (low, high)} >= {0}


def test_aligned_flow_is_logistic():
    assert d.aligned_flow() == {"flow": 0, "start": 0, "ratio": 0}


@pytest.mark.parametrize("degree", [2, 4])
def test_balance_and_quasi_rest(degree):
    assert d.recovery(degree) == (0, 0)


def test_every_law_prints():
    for law in d.LAWS:
        text = d.latex(law)
        assert text.count("{") == text.count("}") and d.latex(law) is text
    assert r"\sqrt{\lambda_{H}}" in d.latex("mean_mode_threshold") and r"\Gamma" in d.latex("fold")
