"""The scalar equation of every loss: curves against the losses themselves, roots against the equation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ncflow.errors import BadInput
from ncflow.losses import Loss
from ncflow.model import UFM
from theory import mode, strength

KINDS = {
    "mse": lambda K: strength.Square(K, 0.3),
    "cross_entropy": strength.Softmax,
    "label_smoothing": lambda K: strength.Softmax(K, smoothing=0.1),
    "focal": lambda K: strength.Softmax(K, focal_gamma=2.5),
}


def sample_loss(kind, K):
    """The engine's loss of one sample of class 0 as a function of logits (K,)."""
    labels = torch.zeros(1, dtype=torch.long)
    loss = Loss.of(kind, labels, K, scale=0.3, smoothing=0.1, gamma=2.5)
    return lambda z: loss.value(z[None, :, None])[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("K", [3, 6])
def test_curves_are_those_of_the_engine(kind, K):
    """Value, strength and both curvatures by automatic differentiation of the engine's loss."""
    curve, loss = KINDS[kind](K), sample_loss(kind, K)
    own = torch.full((K,), -1 / K, dtype=torch.float64)
    own[0] += 1
    across = torch.zeros(K, dtype=torch.float64)
    across[1], across[2] = 1, -1
    for x in (0.02, 0.4, 0.9) if kind == "mse" else (0.02, 1.3, 3.1):
        z = x * own + (1 / K if kind == "mse" else 0.7)
        pull = torch.autograd.functional.jacobian(loss, z)
        g = float(np.exp(curve.log_strength(x)))
        assert float(loss(z)) == pytest.approx(float(curve.value(x)), rel=1e-12)
        assert -float(pull @ own) == pytest.approx((K - 1) * g, rel=1e-11)
        hessian = torch.autograd.functional.hessian(loss, z)
        for direction, claimed in ((own, K * g * curve.slope(x)), (across, g * curve.spread(x))):
            assert hessian @ direction == pytest.approx(float(claimed) * direction, abs=1e-11)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(list(KINDS)), st.integers(3, 30), st.integers(2, 7), st.floats(0.01, 0.99))
def test_roots_solve_the_equation(kind, K, degree, share):
    """Both roots meet at the fold, straddle it and solve the equation; none above."""
    curve = KINDS[kind](K)
    top, limit = strength.fold(curve, degree)
    gamma = limit * np.array([1e-6, share, 1.01])
    upper, lower = strength.roots(curve, degree, gamma)
    assert np.isnan(upper[2]) and np.isnan(lower[2])
    gamma, upper, lower = gamma[:2], upper[:2], lower[:2]
    assert (upper >= top).all()
    left = upper ** (1 - 2 / degree) * np.exp(curve.log_strength(upper))
    unit = 1e-12 if kind != "mse" and kind != "label_smoothing" else 1e-8  # 1 - x, reach - x lose digits
    assert left == pytest.approx(gamma, rel=unit)
    if degree > 2:
        left = lower ** (1 - 2 / degree) * np.exp(curve.log_strength(lower))
        assert (lower <= top).all() and left == pytest.approx(gamma, rel=1e-11)


@pytest.mark.parametrize("degree", [2, 3, 5])
def test_squared_loss_is_the_mode_equation(degree):
    """strength with Square is `theory.mode` with s = sqrt n, in other units."""
    K, n, c, lam = 4, 7, 0.3, 2e-3
    mine = strength.roots(strength.Square(K, c), degree, (n * lam**degree) ** (1 / degree))
    theirs = mode.roots(degree, mode.tension(degree, lam, 2 * c / (K * n), np.sqrt(n)))
    assert np.asarray(mine) == pytest.approx(np.asarray(theirs), rel=1e-12, nan_ok=True)


def test_focal_loss_can_have_two_roots_with_two_factors():
    """Many classes: the strength rises before it falls, and rest points coexist with zero."""
    curve = strength.Softmax(100, focal_gamma=3.0)
    top, limit = strength.fold(curve, 2)
    x = np.linspace(0, 20, 20001)
    g = np.exp(curve.log_strength(x))
    assert top == pytest.approx(x[np.argmax(g)], abs=1e-3) and limit == pytest.approx(g.max(), rel=1e-7)
    middle = (g[0] + limit) / 2
    upper, lower = strength.roots(curve, 2, middle)
    assert 0 < lower < top < upper and np.isnan(strength.roots(curve, 2, g[0] / 2)[1])


def test_of_reads_the_model():
    assert strength.of(UFM(classes=3, loss_scale=0.2)) == strength.Square(3, 0.2)
    assert strength.of(UFM(classes=3, loss="focal", focal_gamma=2.0)) == strength.Softmax(3, focal_gamma=2.0)
    smooth = UFM(classes=3, loss="label_smoothing", smoothing=0.2)
    assert strength.of(smooth) == strength.Softmax(3, smoothing=0.2)


@pytest.mark.parametrize(
    "argument,call",
    [
        ("smoothing", lambda: strength.Softmax(3, smoothing=1.0)),
        ("focal_gamma", lambda: strength.Softmax(3, focal_gamma=-1.0)),
        ("focal_gamma", lambda: strength.Softmax(3, smoothing=0.1, focal_gamma=1.0)),
        ("classes", lambda: strength.Softmax(1)),
        ("degree", lambda: strength.fold(strength.Softmax(3), 1)),
    ],
)
def test_what_is_refused(argument, call):
    with pytest.raises(BadInput) as caught:
        call()
    assert caught.value.argument == argument
