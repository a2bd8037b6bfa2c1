"""The symbolic identities of networks: what is left of each claim vanishes."""

import pytest

from theory import derivations_networks as d


@pytest.mark.parametrize("degree", [1, 2])
def test_balance(degree):
    assert d.balance(degree) == (0, 0)


def test_head_energy():
    assert d.head_energy() == 0


@pytest.mark.parametrize("degree", [1, 2])
def test_euler(degree):
    assert set(d.euler(degree)) == {0}


def test_homogeneity_that_the_forecast_uses():
    assert d.homogeneity() == (0, 0, 0)


def test_tangent_kernel_closure_of_frames():
    assert d.tangent_kernel() == (0, 0)
