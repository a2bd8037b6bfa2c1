"""The symbolic derivations against what the numerical code uses, and the LaTeX that comes from them."""

import subprocess
import sys

import numpy as np
import pytest
import sympy as sp

from theory import derivations as d
from theory import mode


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
def test_mode_equation(degree):
    """Balance holds identically, and the tension of the loss is the one that `theory.mode` computes."""
    derived = d.mode(degree)
    assert all(term == 0 for term in derived.imbalance)
    assert sp.simplify(derived.energy.rhs - 2 * d.c / d.N * d.z * (d.b - d.g * d.z)) == 0
    values = {d.c: 0.3, d.N: 12, d.b: 1.7, d.g: 0.6, sp.Symbol("P", positive=True): 0.02**degree}
    assert float(derived.tension.rhs.subs(values)) == pytest.approx(
        float(mode.tension(degree, 0.02, 2 * 0.3 / 12, 1.7, 0.6)) ** degree, rel=1e-13)
    x, _ = mode.roots(degree, mode.tension(degree, 0.02, 2 * 0.3 / 12, 1.7, 0.6))
    assert float(derived.equation.lhs.subs(d.x, float(x))) == pytest.approx(
        float(derived.tension.rhs.subs(values)), rel=1e-12
    )


def test_mode_law_of_any_degree_agrees_with_the_derived_ones():
    law, i, s = d.LAWS["mode"](), sp.Symbol("i", integer=True), sp.Symbol("s", positive=True)
    for degree in (2, 3, 5):
        product = sp.Product(sp.IndexedBase("lambda", positive=True)[i], (i, 0, d.D - 1))
        Gamma = law.rhs.subs(product, sp.Symbol("P", positive=True)).subs(d.D, degree)
        derived = d.mode(degree).tension.rhs.subs({d.g: 1, d.b: s})
        assert sp.simplify(Gamma / derived) == 1


def test_fold_is_stationary_and_known():
    x, Gamma = d.fold()
    assert sp.simplify(x - (d.D - 2) / (2 * d.D - 2)) == 0
    known = (d.D - 2) ** (d.D - 2) * d.D**d.D / (2 * d.D - 2) ** (2 * d.D - 2)
    assert all(sp.simplify((Gamma / known).subs(d.D, k)) == 1 for k in range(3, 8))
    tie, level = d.maxwell()
    assert sp.simplify(tie - (d.D - 2) / (d.D - 1)) == 0
    assert all(
        sp.simplify(level.subs(d.D, k) - sp.Rational((k - 2) ** (k - 2), (k - 1) ** (2 * k - 2))) == 0
        for k in range(3, 8)
    )


def test_bias_and_its_threshold():
    bias = d.bias()
    assert sp.simplify(bias.theta.rhs - 2 * d.c / (2 * d.c + d.lam_b)) == 0
    S = next(s for s in bias.optimum.rhs.free_symbols if s.name == "S")
    assert sp.simplify(bias.optimum.rhs + bias.theta.rhs * S / d.N) == 0
    assert (
        sp.simplify(bias.optimum.rhs.subs({d.lam_b: 0, S: -d.N / d.K}) - 1 / d.K) == 0
    )  # targets alone: b = 1/K
    two = d.two_factors()
    threshold = 2 * d.c * (1 - two.signal.rhs) / two.signal.rhs
    assert sp.simplify(d.mean_mode_threshold() - threshold) == 0
    m2 = two.class_mean.rhs.subs(d.sigma, two.signal.rhs)
    assert sp.simplify(d.mean_mode_threshold() - d.K * d.lam_W / m2) == 0


def test_isotropic_modes():
    centred, mean = d.isotropic()
    assert sp.simplify(mean.lhs.subs(d.theta, 0) - centred.lhs) == 0
    named = {s.name: s for s in mean.free_symbols}
    assert sp.simplify(mean.lhs.subs(d.theta, 1) + 2 * d.c / d.K * named["s"] * named["v2"]) == 0


def test_schatten_penalty_has_the_stated_gradient():
    """d/dA of (D/2) sum s^{2/D} is (A A^T)^{1/D - 1} A, by finite differences."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((3, 4))
    for D in (1, 2, 3, 6):
        penalty = lambda A, D=D: D / 2 * np.sum(np.linalg.svd(A, compute_uv=False) ** (2 / D))  # noqa: E731
        U, s, Vt = np.linalg.svd(A, full_matrices=False)
        stated = (U * s ** (2 / D - 1)) @ Vt
        step = 1e-6
        for i, j in np.ndindex(A.shape):
            E = np.zeros_like(A)
            E[i, j] = step
            assert (penalty(A + E) - penalty(A - E)) / (2 * step) == pytest.approx(stated[i, j], abs=1e-8)


def test_laws_print():
    for law in d.LAWS:
        assert d.latex(law).count("=") >= 1 and d.latex(law) is d.latex(law)
    assert r"\sqrt{\lambda_{H}}" in d.latex("soft_threshold")


def test_importing_theory_leaves_sympy_alone():
    code = "import sys, theory; sys.exit('theory.derivations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
