"""The symbolic flow and recovery: what is left after subtracting the stated forms vanishes."""

import pytest

from theory import derivations_dynamics as d


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
