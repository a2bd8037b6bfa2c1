"""Identities of networks at rest, the tangent-kernel closure and the a-priori formula, on small ReLU networks
trained to rest in float64."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.autograd.functional import jvp

from ncflow.errors import BadInput
from theory import closure, nonnegative, strength

K, LAM, C, SIZE, WIDTH, EACH = 4, 1e-2, 0.5, 12, 10, 3
LABELS = np.repeat(np.arange(K), EACH)
Y = torch.eye(K, dtype=torch.float64)[:, LABELS]
SHAPES = [(WIDTH, SIZE), (WIDTH, WIDTH), (K, WIDTH), (WIDTH, 1), (WIDTH, 1), (K, 1)]
COUNT = sum(a * b for a, b in SHAPES)
HEAD = sum(a * b for a, b in SHAPES[:3])


def inputs(noise, orthogonal=True, amplitude=2.0):
    rng = np.random.default_rng(0)
    means = rng.standard_normal((SIZE, K))
    means = np.linalg.qr(means)[0] if orthogonal else means / np.linalg.norm(means, axis=0)
    return amplitude * means[:, LABELS] + noise * rng.standard_normal((SIZE, K * EACH))


def split(v):
    """W_1, W_2, W_3 and b_1, b_2, b_3 of flat vectors (..., COUNT)."""
    parts = torch.split(v, [a * b for a, b in SHAPES], dim=-1)
    parts = [part.reshape(*v.shape[:-1], *shape) for part, shape in zip(parts, SHAPES, strict=True)]
    return parts[:3], parts[3:]


def forward(v, X, degree=1):
    """Penultimate features and outputs of a network with two hidden layers of relu^degree."""
    W, b = split(v)
    h = X
    for Wi, bi in zip(W[:2], b[:2], strict=True):
        h = (Wi @ h + bi).clamp(min=0) ** degree
    return h, W[2] @ h + b[2]


def loss(v, X, decays, degree=1):
    """`decays` (..., COUNT): per parameter."""
    misfit = (forward(v, X, degree)[1] - Y) ** 2
    return C / len(LABELS) * misfit.sum((-2, -1)) + (decays * v**2).sum(-1) / 2


#: noise, orthogonal means, biases
CASES = {
    "clean": (0.0, True, None),
    "quiet": (0.05, True, None),
    "noisy": (0.2, True, None),
    "random": (0.05, False, None),
    "decayed": (0.05, True, "decayed"),
    "free": (0.05, True, "free"),
}


@cache
def population(starts=4, steps=((0.1, 2500), (0.02, 1500), (0.002, 1500))):
    """Every case from a few starts, side by side: heavy ball, (step, how many). The cheapest ends.

    Minimisers sit on kinks: the last, small steps take out what a step leaves of the balance.
    """
    X = torch.tensor(np.stack([inputs(*case[:2]) for case in CASES.values()])).repeat_interleave(starts, 0)
    decays, moving = torch.full((len(CASES), COUNT), LAM, dtype=torch.float64), torch.ones(len(CASES), COUNT)
    for i, (_, _, biases) in enumerate(CASES.values()):
        decays[i, HEAD:] = LAM if biases == "decayed" else 0.0
        moving[i, HEAD:] = 1.0 if biases else 0.0
    decays, moving = decays.repeat_interleave(starts, 0), moving.repeat_interleave(starts, 0).double()
    rng = np.random.default_rng(0)
    v = np.concatenate([rng.standard_normal((len(X), a * b)) * np.sqrt(2 / b) for a, b in SHAPES[:3]], axis=1)
    v = torch.tensor(np.pad(v, ((0, 0), (0, COUNT - HEAD))), requires_grad=True)
    speed = torch.zeros_like(v)
    for size, count in steps:
        for _ in range(count):
            gradient = torch.autograd.grad(loss(v, X, decays).sum(), v)[0] * moving
            with torch.no_grad():
                speed.mul_(0.9).sub_(gradient, alpha=size)
                v += speed
    ends = loss(v, X, decays).detach().reshape(len(CASES), starts).argmin(1) + starts * torch.arange(
        len(CASES)
    )
    return {
        name: (v.detach()[i], X[i], loss(v, X, decays)[i].item()) for name, i in zip(CASES, ends, strict=True)
    }


def pull(v, X, degree=1):
    """-dL/dF of the data term, the pull on the features, features and outputs."""
    h, F = forward(v, X, degree)
    G = 2 * C / len(LABELS) * (Y - F)
    return G, split(v)[0][2].T @ G, h, F


@pytest.mark.parametrize("name", ["quiet", "noisy", "decayed", "free"])
def test_balance_and_head_energy(name):
    """To what is left of the kinks; and the other statements about biases are false."""
    v, X, _ = population()[name]
    W, b = split(v)
    decayed = name == "decayed"
    assert np.abs(closure.balance(W, b if decayed else None)).max() < 5e-4
    G, _, _, F = pull(v, X)
    energy = float((W[2] ** 2).sum() + decayed * (b[2] ** 2).sum())
    assert closure.head_energy(G, F, LAM) == pytest.approx(energy, rel=5e-4)
    if name in ("decayed", "free"):
        assert np.abs(closure.balance(W, None if decayed else b)).max() > 1e-2


def test_balance_of_another_degree():
    """relu^2: |W_l|^2 = 2 |W_{l+1}|^2 at rest, to rounding because it is smooth."""
    X, decays, rng = torch.tensor(inputs(0.05)), torch.full((COUNT,), 1e-3), np.random.default_rng(3)

    def value(v):
        t = torch.tensor(v, requires_grad=True)
        out = loss(t, X, decays, 2)
        return float(out.detach()), torch.autograd.grad(out, t)[0].numpy()

    start = np.concatenate([rng.standard_normal(a * b) * 0.7 / np.sqrt(b) for a, b in SHAPES])
    end = minimize(
        value,
        start,
        jac=True,
        method="L-BFGS-B",
        options=dict(maxiter=8000, maxfun=16000, ftol=0, gtol=1e-10, maxcor=40),
    )
    W, b = split(torch.tensor(end.x))
    G, _, h, F = pull(torch.tensor(end.x), X, 2)
    assert float(h.norm()) > 0.5 and np.abs(closure.balance(W, b, degree=2)).max() < 1e-6
    assert closure.head_energy(G, F, 1e-3) == pytest.approx(
        float((W[2] ** 2).sum() + (b[2] ** 2).sum()), rel=1e-6
    )
    assert np.abs(closure.balance(W, b)).max() > 0.5


def some(seed, scale=0.3):
    return torch.tensor(np.random.default_rng(seed).standard_normal(COUNT) * scale)


def test_balance_along_the_flow():
    """|W_{l+1}|^2 - |W_l|^2 decays as e^{-2 lambda t} from the first step on."""
    X, decays = torch.tensor(inputs(0.1)), torch.full((COUNT,), 0.1, dtype=torch.float64)
    v = some(5, 0.4)
    v[HEAD:] = 0

    def gaps(v):
        return np.diff([float((w**2).sum()) for w in split(v)[0]])

    def field(v):
        t = v.clone().requires_grad_()
        out = -torch.autograd.grad(loss(t, X, decays), t)[0]
        out[HEAD:] = 0
        return out

    start, dt = gaps(v), 2e-3
    for _ in range(500):
        k1 = field(v)
        k2 = field(v + dt / 2 * k1)
        k3 = field(v + dt / 2 * k2)
        v = v + dt / 6 * (k1 + 2 * k2 + 2 * k3 + field(v + dt * k3))
    assert gaps(v) == pytest.approx(start * np.exp(-2 * 0.1), rel=1e-4)


@pytest.mark.parametrize("degree", [1, 2])
def test_euler_identity(degree):
    """J theta = (t + t^2) h anywhere without biases; with them b_l counts l times (degree 1)."""
    X, v = torch.tensor(inputs(0.3)), some(0)
    bare = torch.cat([v[:HEAD], torch.zeros(COUNT - HEAD)])
    h, radial = jvp(lambda t: forward(t, X, degree)[0], bare, bare)
    assert closure.euler_degree(h, radial) == pytest.approx(closure.expected_degree(2, degree), rel=1e-12)
    assert torch.allclose(radial, closure.expected_degree(2, degree) * h, rtol=1e-11)
    if degree == 1:
        W, b = split(v)
        weighted = torch.cat([w.ravel() for w in W] + [(i + 1) * bi.ravel() for i, bi in enumerate(b)])
        h, radial = jvp(lambda t: forward(t, X)[0], v, weighted)
        assert torch.allclose(radial, 2 * h, rtol=1e-11)
        assert closure.euler_degree(h, jvp(lambda t: forward(t, X)[0], v, v)[1]) < 1.99


def kernel(name):
    """fn and what `tangent_kernel` needs: theta and degree on the class-mean part of the pull, theta on all
    of it, the Gram of the class means; and the kernel applied to the pull, features."""
    v, X, _ = population()[name]
    _, G, h, _ = pull(v, X)
    decayed = (torch.arange(COUNT) < HEAD) | (name == "decayed")
    t, found, back = v.clone().requires_grad_(), [], v
    mean = torch.tensor(closure.class_mean_part(G, LABELS))
    for V in (mean, G):
        back = torch.autograd.grad((forward(t, X)[0] * V).sum(), t)[0] * decayed
        found.append(closure.rayleigh([back[: HEAD // 2], back[HEAD // 2 :]], V))
    degree = closure.euler_degree(h, jvp(lambda t: forward(t, X)[0], v, v * decayed)[1], mean)
    centres = np.stack([h[:, k == LABELS].mean(1).numpy() for k in range(K)], axis=1)
    applied = jvp(lambda t: forward(t, X)[0], v, back)[1]
    return float(h.norm(dim=0).mean()), found[0], degree, found[1], centres.T @ centres, applied, h


def test_kernel_at_rest():
    """Theta G = lambda d h, sample by sample (to the kinks)."""
    *_, applied, h = kernel("quiet")
    assert float((applied - LAM * 2 * h).norm() / (LAM * 2 * h).norm()) < 5e-3


#: error of the frame, and with shape and degree along the pull
ERRORS = {
    "clean": (1e-4, 1e-4),
    "quiet": (2e-3, 2e-3),
    "noisy": (0.02, 0.02),
    "random": (0.15, 0.04),
    "decayed": (0.03, 0.01),
    "free": (0.25, 0.01),
}


@pytest.mark.parametrize("name", ERRORS)
def test_tangent_kernel_closure(name):
    """fn from theta on the class-mean part of the pull, within the stated errors; not from all of it."""
    fn, theta, degree, full, gram, _, _ = kernel(name)
    loss, bias = strength.Square(K, C), CASES[name][2] or "none"
    frame = closure.tangent_kernel(theta, 2, LAM, loss, EACH, bias)
    shaped = closure.tangent_kernel(theta, degree, LAM, loss, EACH, bias, shape=7 * gram)
    for found, error in zip((frame, shaped), ERRORS[name], strict=True):
        assert found.feature_norm == pytest.approx(fn, rel=error) and found.status == "empirical"
    assert degree == pytest.approx(2, rel=1e-9) if bias == "none" else 1.8 < degree < 1.99
    if bias == "none":
        assert frame.signal == pytest.approx(1 - K * np.sqrt(EACH * LAM**2 * 2 / theta) / (2 * C), rel=1e-12)
    if name == "noisy":
        wrong = closure.tangent_kernel(full, 2, LAM, loss, EACH)
        assert abs(wrong.feature_norm / fn - 1) > 0.1
    assert r"\theta" in frame.formula


def test_frames_are_those_of_free_features():
    """Without a bias it is the orthogonal frame with lambda_H = lambda d/theta; with a centred head the
    pull misses the supports by (K-1)/K, under squared loss and cross-entropy alike."""
    K, n, theta, lam = 5, 4, 3.0, 1e-3
    for loss, bias in (
        (strength.Square(K, 0.3), "none"),
        (strength.Square(K, 0.3), "free"),
        (strength.Softmax(K), "free"),
    ):
        share = 1 if bias == "none" else (K - 1) / K
        found = closure.tangent_kernel(theta, 2, lam, loss, n, bias)
        frame = nonnegative.point(loss, np.full(K, n), np.array([lam * 2 / theta * share, lam]), bias)
        assert found.feature_norm == pytest.approx(frame.feature_norm, rel=1e-9)
        assert found.signal == pytest.approx(frame.signal, rel=1e-9)


def theta_of(v, X, G):
    """Rayleigh quotient of the kernel on the class-mean part of the pull G (K, N) on the outputs, weights alone."""
    V = torch.tensor(closure.class_mean_part(split(v)[0][2].T @ G, LABELS))
    t = v.clone().requires_grad_()
    back = torch.autograd.grad((forward(t, X)[0] * V).sum(), t)[0][:HEAD]
    return closure.rayleigh(back, V)


def test_kernel_is_homogeneous():
    """Hidden layers times s: features times s^d, the kernel times s^{2(d-1)}, exactly."""
    X, v = torch.tensor(inputs(0.3)), some(2)
    v[HEAD:] = 0
    hidden = sum(a * b for a, b in SHAPES[:2])
    scaled = torch.cat([1.7 * v[:hidden], v[hidden:]])
    G = torch.tensor(np.random.default_rng(0).standard_normal((K, len(LABELS))))
    assert torch.allclose(forward(scaled, X)[0], 1.7**2 * forward(v, X)[0], rtol=1e-12)
    assert theta_of(scaled, X, G) == pytest.approx(1.7**2 * theta_of(v, X, G), rel=1e-12)


@cache
def two_phases(first=1500, starts=3):
    """`first` steps of cross-entropy, then squared loss to rest: (theta, fn, Gram) after phase 1 and fn at rest, by case;
    the cheapest end of a few starts."""
    names = ("clean", "noisy", "random")
    X = torch.tensor(np.stack([inputs(*CASES[name][:2]) for name in names])).repeat_interleave(starts, 0)
    rng, decays = np.random.default_rng(0), torch.full((COUNT,), LAM, dtype=torch.float64)
    v = np.concatenate([rng.standard_normal((len(X), a * b)) * np.sqrt(2 / b) for a, b in SHAPES[:3]], axis=1)
    v = torch.tensor(np.pad(v, ((0, 0), (0, COUNT - HEAD))), requires_grad=True)
    labels = torch.tensor(LABELS).expand(len(X), -1)

    def softmax(v):
        data = torch.nn.functional.cross_entropy(forward(v, X)[1], labels, reduction="none").mean(1)
        return data + (decays * v**2).sum(-1) / 2

    def run(value, steps):
        speed = torch.zeros_like(v)
        for size, count in steps:
            for _ in range(count):
                gradient = torch.autograd.grad(value(v).sum(), v)[0]
                gradient[:, HEAD:] = 0
                with torch.no_grad():
                    v.add_(speed.mul_(0.9).sub_(gradient, alpha=size))

    run(softmax, ((0.1, first),))
    before = []
    for vi, Xi in zip(v.detach(), X, strict=True):
        h, F = forward(vi, Xi)
        M = np.stack([h[:, k == LABELS].mean(1).numpy() for k in range(K)], axis=1)
        pulled = (Y - torch.softmax(F, 0)) / len(LABELS)
        before.append((theta_of(vi, Xi, pulled), float(h.norm(dim=0).mean()), M.T @ M))
    run(lambda v: loss(v, X, decays), ((0.003, 300), (0.02, 400), (0.06, 1200), (0.02, 400), (0.002, 400)))
    after = [float(forward(vi, Xi)[0].norm(dim=0).mean()) for vi, Xi in zip(v.detach(), X, strict=True)]
    ends = loss(v, X, decays).detach().reshape(len(names), starts).argmin(1) + starts * torch.arange(len(names))
    return {name: (*before[i], after[i]) for name, i in zip(names, ends.tolist(), strict=True)}


@pytest.mark.parametrize(("name", "frame", "shaped"), [("clean", 3e-3, 3e-3), ("noisy", 3e-3, 6e-3), ("random", 0.13, 0.03)])
def test_forecast_from_the_cross_entropy_phase(name, frame, shaped):
    """fn at rest under squared loss, a third of what phase 1 ends with, from phase 1 alone."""
    theta, before, gram, fn = two_phases()[name]
    assert before > 2.5 * fn
    for shape, error in ((None, frame), (gram, shaped)):
        found = closure.forecast(theta, before, 2, LAM, strength.Square(K, C), EACH, shape=shape)
        assert found.feature_norm == pytest.approx(fn, rel=error) and found.status == "empirical"
        assert found.theta == pytest.approx(theta * K / (K - 1) * (found.feature_norm / before), rel=1e-9)  # fn^{2 - 2/d}
    assert "theta_{1}" in found.formula and found.source
    uncarried = closure.tangent_kernel(theta, 2, LAM, strength.Square(K, C), EACH)
    assert abs(uncarried.feature_norm / fn - 1) > 0.1  # theta of phase 1 as it is says nothing of phase 2


def test_forecast_solves_its_equation():
    """Frames at small decay: fn^{2 + 2/d} = x^2 theta K/(K-1)/(n d fn_1^{2 - 2/d}); the linear network's own numbers come
    back from a phase 1 of any size."""
    d, n, lam, r = 3, 5, 1e-5, 2.0
    point = closure.relu_mlp(d, 6, r, lam)
    for size in (0.5, 4.0):
        theta = n * d * size ** (2 - 2 / d) * r ** (2 / d) * 5 / 6
        found = closure.forecast(theta, size, d, lam, strength.Square(6, 0.5), n)
        assert found.feature_norm == pytest.approx(point.feature_norm, rel=1e-9)
        large = closure.forecast(theta, size, d, 1e-4, strength.Square(10, 0.1), 180)
        assert large.feature_norm**(2 + 2 / d) == pytest.approx(
            large.signal**2 * theta * 10 / 9 / (180 * d * size ** (2 - 2 / d)), rel=1e-9)
        free = closure.forecast(theta, size, d, lam, strength.Square(6, 0.5), n, "free")
        assert free.signal < 1 and np.isfinite(free.feature_norm)


def test_a_priori():
    """Bias-free ReLU network on orthogonal means: exact without noise, within its stated error with it."""
    for name, noise, unit in (("clean", 0.0, 2e-5), ("quiet", 0.05, 3e-3)):
        v, X, value = population()[name]
        point = closure.relu_mlp(2, K, 2.0, LAM, noise=noise, samples_per_class=EACH)
        assert float(forward(v, X)[0].norm(dim=0).mean()) == pytest.approx(point.feature_norm, rel=unit)
        assert [float(w.norm()) for w in split(v)[0]] == pytest.approx(list(point.weight_norms), rel=unit)
        assert value == pytest.approx(point.loss, rel=1e-5 if not noise else 0.05)
        assert point.status == ("empirical" if noise else "exact") and "noise" in point.assumptions[-1]


@pytest.mark.parametrize(
    "argument,call",
    [
        ("weights", lambda: closure.balance([np.eye(2)])),
        ("biases", lambda: closure.balance([np.eye(2)] * 3, [np.ones(2)])),
        ("decay", lambda: closure.head_energy(np.eye(2), np.eye(2), 0.0)),
        ("theta", lambda: closure.tangent_kernel(0.0, 2, 1e-3, strength.Square(3), 2)),
        ("degree", lambda: closure.tangent_kernel(1.0, 0, 1e-3, strength.Square(3), 2)),
        ("classes", lambda: closure.tangent_kernel(1.0, 2, 1e-3, strength.Softmax(2), 2, "free")),
        ("shape", lambda: closure.tangent_kernel(1.0, 2, 1e-3, strength.Softmax(3), 2, shape=np.eye(3))),
        ("shape", lambda: closure.tangent_kernel(1.0, 2, 1e-3, strength.Square(3), 2, shape=np.eye(2))),
        ("feature_norm", lambda: closure.forecast(1.0, 0.0, 2, 1e-3, strength.Square(3), 2)),
        ("hidden", lambda: closure.forecast(1.0, 1.0, 0, 1e-3, strength.Square(3), 2)),
        ("loss", lambda: closure.forecast(1.0, 1.0, 2, 1e-3, strength.Softmax(3), 2)),
        ("bias", lambda: closure.forecast(1.0, 1.0, 2, 1e-3, strength.Square(3), 2, "decayed")),
        ("inputs.amplitude", lambda: closure.relu_mlp(2, 3, -1.0, 1e-3)),
    ],
)
def test_what_is_refused(argument, call):
    with pytest.raises(BadInput) as caught:
        call()
    assert caught.value.argument == argument
