"""The symbolic steps for losses, frames and BatchNorm, and that every law prints."""

import pytest
import sympy as sp

from theory import derivations
from theory import derivations_nonlinear as d
from theory.strength import Softmax, Square

VALUES = {d.K: 7, d.a: sp.Rational(1, 9), d.f: sp.Rational(5, 2), d.c: sp.Rational(2, 5)}
CURVES = {
    "mse": Square(7, 0.4),
    "cross_entropy": Softmax(7),
    "label_smoothing": Softmax(7, smoothing=1 / 9),
    "focal": Softmax(7, focal_gamma=2.5),
}


@pytest.mark.parametrize("name", CURVES)
def test_strength_from_the_loss(name):
    """Symbolic in K, x and the loss's parameter, focal in high precision; and what numpy evaluates."""
    left = d.strength(name) - d.claim(name)
    if name != "focal":
        assert sp.simplify(left) == 0
    for x in (sp.Rational(1, 5), sp.Rational(7, 8)):
        values = VALUES | {d.x: x}
        assert abs(sp.N(left.subs(values), 40)) < 1e-30
        assert float(sp.exp(sp.Float(float(CURVES[name].log_strength(float(x)))))) == pytest.approx(
            float(d.claim(name).subs(values)), rel=1e-13
        )
        assert float(CURVES[name].value(float(x))) == pytest.approx(
            float(d.loss_curve(name).subs(values)), rel=1e-13
        )


@pytest.mark.parametrize("degree", [2, 3, 5])
def test_equation_of_the_signal(degree):
    imbalance, equation = d.rest(degree)
    assert all(term == 0 for term in imbalance)
    assert sp.simplify(equation.lhs - d.x ** (degree - 2) * d.g**degree) == 0


@pytest.mark.parametrize("name", ["cross_entropy", "label_smoothing", "mse"])
def test_elementary_roots(name):
    root = d.root(name)
    assert sp.simplify(d.claim(name).subs(d.x, root) - d.gamma) == 0
    at = VALUES | {d.gamma: sp.Rational(1, 50)}
    assert float(root.subs(at)) == pytest.approx(float(CURVES[name].inverse(0.02)), rel=1e-14)


@pytest.mark.parametrize("degree", [3, 4, 6])
def test_lambert_root(degree):
    assert d.lambert(degree) == 0


@pytest.mark.parametrize("name", ["cross_entropy", "label_smoothing", "focal"])
def test_within_class_curvatures(name):
    """Hessian of one sample's loss: -K g' towards its class; in the others g, g + a/K with smoothing."""
    own, across = d.within_class(name, 4)
    g, values = d.claim(name), VALUES | {d.K: 4, d.x: sp.Rational(17, 10)}
    assert abs(sp.N((own + 4 * sp.diff(g, d.x)).subs(values), 30)) < 1e-25
    shift = d.a / d.K if name == "label_smoothing" else 0
    assert abs(sp.N((across - g - shift).subs(values), 30)) < 1e-25


def test_frames():
    assert d.frame() == (0, 0) and d.frame_decayed() == (0, 0, 0, 0)


@pytest.mark.parametrize(("layers", "units"), [(3, 4)])
def test_pairs(layers, units):
    assert d.pairs(layers, units) == (0, 0)


def test_shares_of_a_stream():
    """Cost lambda E s^2/(2L), and beta = gamma/sqrt(K-1) puts idle units at zero."""
    cost, ratio = d.shares()
    assert cost == 1 / d.L and sp.simplify(ratio - 1 / sp.sqrt(d.K - 1)) == 0


def test_laws_print():
    assert set(d.LAWS) == set(derivations.NONLINEAR)
    for law in d.LAWS:
        assert " = " in derivations.latex(law)
