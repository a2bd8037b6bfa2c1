"""BatchNorm fixed points against direct minimisation of the model, also pooled and with ReLUs inside."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from ncflow.errors import BadInput
from ncflow.losses import Loss
from ncflow.model import UFM, Decay
from theory import derivations, strength
from theory.batchnorm import feature_norm, fixed_point, implied_streams, stage


def model(loss="mse", bias="free", K=3, n=1, streams=1, lam=0.02, lb=0.0, c=0.5, **more):
    return UFM(
        classes=K,
        samples_per_class=n,
        width=K,
        loss=loss,
        bias=bias,
        loss_scale=c,
        normalization="batch",
        streams=streams,
        decay=Decay(weights=lam, features=1e-3, bias=lb),
        **more,
    )


class Network:
    """L blocks of Z (L, p, N, S), ReLUs between them if `inner`, average pooling over the S positions.

    relu is smoothed to (s + sqrt(s^2 + 4 tau^2))/2; a term that normalises Z itself removes the directions in
    which nothing changes.
    """

    def __init__(self, m, positions, inner):
        self.m, self.inner, K, N = m, inner, m.classes, m.samples
        self.shapes = [(m.streams, K, N, positions), (m.streams, K), (m.streams, K), (K, K)]
        self.shapes += [(K,)] * (m.bias != "none")
        self.data = Loss.of(
            m.loss,
            torch.as_tensor(m.labels),
            K,
            scale=m.loss_scale,
            smoothing=m.smoothing,
            gamma=m.focal_gamma,
        )

    def split(self, v):
        sizes = [int(np.prod(s)) for s in self.shapes]
        return [b.reshape(s) for b, s in zip(torch.split(v, sizes), self.shapes, strict=True)]

    def forward(self, v, tau):
        """BatchNorm outputs (L, p, N, S), the stream before its last ReLU, features (p, N), penalty."""
        Z, gamma, beta = self.split(v)[:3]
        mean = Z.mean((2, 3), keepdim=True)
        var = ((Z - mean) ** 2).mean((2, 3), keepdim=True)
        y = gamma[:, :, None, None] * (Z - mean) / var.sqrt() + beta[:, :, None, None]
        s = y[0]
        for i in range(1, len(y)):  # shortcut and first block meet, then a ReLU before every further block
            s = (self.relu(s, tau) if self.inner and i > 1 else s) + y[i]
        return y, s, self.relu(s, tau).mean(2), ((mean**2).sum() + ((var - 1) ** 2).sum()) / 2

    @staticmethod
    def relu(s, tau):
        return (s + (s * s + 4 * tau * tau).sqrt()) / 2

    def loss(self, v, tau):
        _, _, h, penalty = self.forward(v, tau)
        blocks = self.split(v)
        z = blocks[3] @ h + (blocks[4][:, None] if self.m.bias != "none" else 0.0)
        decay = self.m.weight_decays[0, 0] / 2 * sum((b**2).sum() for b in blocks[1:4])
        decay = decay + self.m.bias_decays[0] / 2 * sum((b**2).sum() for b in blocks[4:])
        return self.data.value(z[None])[0] + decay + penalty

    def descend(self, rng):
        """L-BFGS at tau = 0.1, then damped Newton steps while tau tends to 1e-8."""
        K, L = self.m.classes, self.m.streams
        code = np.eye(K)[:, self.m.labels][None, :, :, None] + 0.15 * rng.standard_normal(self.shapes[0])
        head = np.eye(K) + 0.1 * rng.standard_normal((K, K))
        v = np.concatenate(
            [
                code.ravel(),
                rng.uniform(0.5, 1, L * K),
                rng.uniform(0.3, 0.6, L * K),
                head.ravel(),
                np.full(K if self.m.bias != "none" else 0, 1 / K),
            ]
        )
        for tau in np.geomspace(0.1, 1e-8, 8):

            def value(v, tau=tau):
                t = torch.tensor(v, requires_grad=True)
                out = self.loss(t, tau)
                return float(out.detach()), torch.autograd.grad(out, t)[0].numpy()

            if tau == 0.1:
                v = minimize(
                    value, v, jac=True, method="L-BFGS-B", options=dict(maxiter=3000, ftol=0, gtol=1e-7)
                ).x
            for _ in range(40):
                at, gradient = value(v)
                if np.abs(gradient).max() < 1e-11:
                    break
                H = torch.autograd.functional.hessian(
                    lambda t, tau=tau: self.loss(t, tau), torch.tensor(v), vectorize=True
                )
                w, Q = np.linalg.eigh(H.numpy())
                step, size = -Q @ ((Q.T @ gradient) / np.maximum(np.abs(w), 1e-8)), 1.0
                while size > 1e-6 and value(v + size * step)[0] > at + 1e-16:
                    size /= 2
                v = v + size * step
        return torch.tensor(v)


CASES = [
    ("mse", "free", 3, 1, 1, 1, False),
    ("mse", "none", 3, 2, 2, 1, False),
    ("mse", "decayed", 3, 1, 2, 2, False),
    ("mse", "free", 3, 1, 4, 2, True),
    ("cross_entropy", "none", 4, 1, 2, 2, False),
    ("cross_entropy", "none", 3, 1, 3, 2, True),
    ("label_smoothing", "none", 3, 1, 2, 2, True),
]


@pytest.mark.parametrize("loss,bias,K,n,streams,positions,inner", CASES)
def test_against_direct_minimisation(loss, bias, K, n, streams, positions, inner):
    """fn, head, loss, scales: the same with pooling and with ReLUs on the stream, to 1e-8."""
    more = dict(smoothing=0.1) if loss == "label_smoothing" else {}
    m = model(loss, bias, K, n, streams, 0.02 if K == 3 else 0.01, 0.1 if bias == "decayed" else 0.0, **more)
    net, rng, point = Network(m, positions, inner), np.random.default_rng(1), fixed_point(m)
    ends = [net.descend(rng) for _ in range(2 if bias == "free" else 1)]
    values = [float(net.loss(v, 0.0)) for v in ends]
    v = ends[int(np.argmin(values))]
    y, s, h, _ = net.forward(v, 0.0)
    _, gamma, beta, W, *b = net.split(v)
    assert min(values) == pytest.approx(point.loss, rel=1e-9)
    assert h.norm(dim=0).numpy() == pytest.approx(np.full(m.samples, point.feature_norm), rel=1e-8)
    assert float(W.norm()) == pytest.approx(point.weight_norms[0], rel=1e-8)
    assert float((gamma**2 + beta**2).sum()) == pytest.approx(float((W**2).sum()), rel=1e-8)
    assert (beta / gamma.abs()).numpy() == pytest.approx(
        np.full(gamma.shape, (K - 1) ** -0.5), rel=1e-4
    )  # off units sit at a kink
    if b:
        assert b[0].numpy() == pytest.approx(point.bias, abs=1e-8)
    outputs = [out.permute(1, 2, 0).numpy() for out in y]
    found = stage(outputs, s.permute(1, 2, 0).numpy(), float((gamma**2 + beta**2).sum()))
    assert found.streams == pytest.approx(streams, rel=1e-7) and found.pooling == pytest.approx(1, rel=1e-7)


def test_published_forms():
    """The three closed forms of the docstring, squared loss with c = 1/K as in PyTorch."""
    K, L, lam = 10, 3, 1e-3
    free = fixed_point(model(K=K, n=5, streams=L, lam=lam, c=1 / K))
    x = 1 - lam * np.sqrt(K / L) * np.sqrt(K / (K - 1)) * K / 2
    assert free.signal == pytest.approx(x, rel=1e-13)
    assert free.feature_norm == pytest.approx(np.sqrt(x) * (27) ** 0.25, rel=1e-13)
    none = fixed_point(model("mse", "none", K, 5, L, lam, c=1 / K))
    assert none.feature_norm == pytest.approx(np.sqrt(1 - lam * np.sqrt(K / L) * K / 2) * 30**0.25, rel=1e-13)
    ce = fixed_point(model("cross_entropy", "free", K, 5, L, lam))
    gap = np.log(np.sqrt(27) / lam - 9)
    assert ce.feature_norm == pytest.approx(np.sqrt(gap) * 27**0.25, rel=1e-13) and ce.class_mean_cosine == 0
    assert "lambda" in ce.formula and derivations.latex("batchnorm").count("rho") == 1


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["mse", "cross_entropy"]), st.floats(0.3, 6), st.floats(1e-5, 3e-3), st.integers(3, 20)
)
def test_effective_streams_invert(loss, streams, lam, K):
    curve = strength.Square(K, 0.5) if loss == "mse" else strength.Softmax(K)
    fn, x = feature_norm(curve, streams, lam)
    assert implied_streams(float(fn), curve, lam) == pytest.approx(streams, rel=1e-9)
    if float(streams).is_integer():
        m = model(loss, "free", K, 2, int(streams), lam)
        assert float(fn) == pytest.approx(fixed_point(m).feature_norm, rel=1e-12)
    # a head on means of raw cosine rho: lambda w^2 = g x with w^2 = |W|^2/(K-1), |W| = m/sqrt L
    rho = 0.3
    fn, x = feature_norm(curve, streams, lam, cosine=rho)
    w2 = float(fn) ** 2 / streams / (K - 1)
    assert lam * w2 == pytest.approx(float(x) * np.exp(float(curve.log_strength(x))), rel=1e-9)
    assert float(x) == pytest.approx(np.sqrt(w2 * (1 - rho)) * float(fn), rel=1e-9)  # x = w m sqrt(1 - rho)


def test_no_stage_exceeds_its_blocks():
    """E|h|^2 <= L sum E|y_l|^2 with ReLUs inside and pooling, for random outputs; factors multiply to it."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        L, shape = int(rng.integers(1, 6)), tuple(rng.integers(1, 5, 3))
        y = [rng.standard_normal(shape) + rng.uniform(0, 2) for _ in range(L)]
        s = y[0]
        for i in range(1, L):
            s = np.maximum(s, 0) + y[i] if i > 1 else s + y[i]
        if not (s > 0).any():
            continue
        h = np.maximum(s, 0).mean(axis=1)
        scales = 1.1 * sum((v**2).sum(axis=2).mean() for v in y)
        found = stage(y, s, scales)
        assert found.streams == pytest.approx((h**2).sum(axis=1).mean() / scales, rel=1e-12)
        assert 1 - 1e-12 <= found.blocks <= L + 1e-12
        assert max(found.alignment, found.relu, found.pooling, found.epsilon) <= 1 + 1e-12


def test_streams_count_by_what_they_can_say():
    """y_l = P_l G: L_eff >= sum |P_l G|^2/|G|^2, with equality for orthogonal shares of a whole."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        N, G = 12, rng.standard_normal(12)
        shares = [np.linalg.qr(rng.standard_normal((N, int(rng.integers(1, 5)))))[0] for _ in range(3)]
        y = [Q @ (Q.T @ G) for Q in shares]
        effective = np.sum(sum(y) ** 2) / sum(np.sum(v**2) for v in y)
        assert effective >= sum(np.sum(v**2) for v in y) / np.sum(G**2) - 1e-12


def test_published_numbers_need_fewer_than_four_streams():
    """ResNet-20 (K = 10): L/(1 - rho) that the published fn imply, if read as rest points. All under 4."""
    ce, mse = strength.Softmax(10), strength.Square(10, 0.1)
    for fn, loss, lam, expected in (
        (5.867, ce, 1e-3, 1.90),
        (7.468, ce, 1e-4, 2.94),
        (5.86, ce, 1e-3, 1.89),
        (1.515, mse, 1e-3, 0.61),
        (1.678, mse, 1e-3, 0.91),
    ):
        assert implied_streams(fn, loss, lam) == pytest.approx(expected, abs=0.006)
    assert float(feature_norm(ce, 4, 1e-3)[0]) == pytest.approx(7.224, abs=1e-3)
    assert float(feature_norm(mse, 4, 1e-3)[0]) == pytest.approx(2.439, abs=1e-3)


@pytest.mark.parametrize(
    "argument,call",
    [
        ("normalization", lambda: fixed_point(UFM(classes=3))),
        ("layers", lambda: fixed_point(SimpleNamespace(normalization="batch", layers=2))),
        ("decay.weights", lambda: fixed_point(model(lam=0.0))),
        (
            "samples_per_class",
            lambda: fixed_point(replace(model("cross_entropy"), samples_per_class=(1, 2, 3))),
        ),
        ("classes", lambda: fixed_point(model(K=2))),
        ("streams", lambda: feature_norm(strength.Softmax(3), 0.0, 1e-3)),
        ("decay", lambda: feature_norm(strength.Softmax(3), 1.0, 0.0)),
        ("cosine", lambda: feature_norm(strength.Softmax(3), 1.0, 1e-3, cosine=1.0)),
        ("fn", lambda: implied_streams(-1.0, strength.Softmax(3), 1e-3)),
        ("stream", lambda: stage([np.ones((2, 3))], np.ones((2, 3)))),
        ("outputs", lambda: stage([np.ones((2, 3, 1))], np.ones((2, 3, 2)))),
    ],
)
def test_what_is_refused(argument, call):
    with pytest.raises(BadInput) as caught:
        call()
    assert caught.value.argument == argument
