"""The matched model against the network that it is made from, and against training where the two are one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ncflow import SGD, Adam, metrics, simulate
from ncflow.errors import BadInput
from realnets import TwoPhase, train
from realnets.at_epoch import read, train_to
from realnets.bridge import bridge, bridges, intervals, stand_ins
from realnets.data import DataSet

N, K, K_DIGITS = 12, 3, 10


def orthogonal(scale=2.0, *, axes=False):
    """N orthogonal inputs of one length: a layer on them has free features. `axes`: the unit vectors themselves."""
    Q = np.eye(N) if axes else np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]
    y = np.array([0, 1, 2, 1, 0, 2] * (N // 6))
    return DataSet(name="digits", x_train=(scale * Q).astype(np.float32), y_train=y, x_test=None, y_test=None, classes=K,
                   shape=(1, 1, N), mean=(0.0,), std=(1.0,), sha256="0" * 64)  # fmt: skip


def free(**changes):
    """One linear layer and a head: what an unconstrained-features model is. Full batches."""
    fields = {"depth": 1, "width": 10, "activation": "linear", "biases": False, "batch_size": N, "epochs_ce": 3, "epochs_mse": 40,
              "seeds": (0,), "decays": (5e-3,), "lr": 0.05, "measure_every": 1}  # fmt: skip
    return TwoPhase(**{**fields, **changes})


TINY = TwoPhase(subset=200, depth=2, width=12, batch_size=20, epochs_ce=3, epochs_mse=6, seeds=(0, 1), decays=(1e-3,),
                measure_every=1)  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    run = train_to(TINY)
    return run, (run.net, run.x, run.y, TINY)


@pytest.mark.parametrize("samples", ["all", "moments"])
def test_state_is_that_of_the_network(tiny, samples):
    run, source = tiny
    for lane, matched in enumerate(bridges(source, samples=samples)):
        logits, h = (v[lane].double().numpy() for v in run.net.forward(run.x))
        y, W, b = run.y.numpy(), run.net.head[0][lane].double().numpy(), run.net.head[1][lane].double().numpy()
        start = simulate(matched.model, initial=matched.initial, save_at=[0.0, 1e-9]).data.isel(lane=0, time=0)
        means = np.stack([h[y == k].mean(0) for k in range(K_DIGITS)], 1)
        scatter = sum(np.cov(h[y == k].T, bias=True) * (y == k).sum() for k in range(K_DIGITS))
        np.testing.assert_allclose(matched.shown.means, means, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(matched.shown.scatter, scatter, rtol=1e-9, atol=1e-11)
        np.testing.assert_array_equal(matched.initial["W"][0], W)
        np.testing.assert_array_equal(matched.initial["b"], b)
        want = metrics.compute(h, y, W=W, b=b)
        np.testing.assert_allclose(start["nc1_trace_ratio"], want["nc1_trace_ratio"], rtol=1e-9)
        if samples == "all":  # moments know root mean squares of norms only
            np.testing.assert_allclose(start["fn"], want["fn"], rtol=1e-9)
        squares = ((logits - np.eye(K_DIGITS)[y]) ** 2).mean()
        l2 = matched.model.weight_decays[0, 0] * (W**2).sum() + 1e-3 * (b**2).sum()
        l2 += matched.model.feature_decays[0] * (h**2).sum()
        np.testing.assert_allclose(start["energy"], squares + l2 / 2, rtol=1e-5)  # float32 logits


def test_stand_ins_have_the_moments():
    rng = np.random.default_rng(0)
    means, root = rng.normal(size=(7, 3)), rng.normal(size=(7, 5))
    H, n = stand_ins(means, root @ root.T)
    assert H.shape == (7, 3 * n)
    blocks = H.reshape(7, 3, n)
    np.testing.assert_allclose(blocks.mean(2), means, atol=1e-12)
    E = (blocks - means[:, :, None]).reshape(7, -1)
    np.testing.assert_allclose(E @ E.T / E.shape[1], root @ root.T, atol=1e-12)


@pytest.mark.parametrize("how", [
    {"optimiser": "sgd", "momentum": 0.5, "nesterov": False},
    {"optimiser": "sgd", "momentum": 0.9},
    {"optimiser": "sgd", "momentum": 0.0, "schedule": "multistep", "milestones_mse": (20,)},
    {"optimiser": "adam"},
    {"optimiser": "adamw"},
    {"optimiser": "adam", "schedule": "constant", "second_loss": "cross_entropy"},
])  # fmt: skip
def test_forecast_is_what_training_does_where_features_are_free(how):
    """Adam looks at coordinates, so that its features are free along the axes alone."""
    adam = how["optimiser"] != "sgd"
    data, p = orthogonal(1.0 if adam else 2.0, axes=adam), free(**how)
    run = train_to(p, data=data)
    matched = bridge((run.net, run.x, run.y, p))
    assert matched.shown.theta == pytest.approx(1.0 if adam else 4.0, rel=1e-5)
    assert matched.shown.degree == pytest.approx(1.0, rel=1e-5)
    truth = train(p, data=data).data.isel(lane=0)
    after = truth["phase"].values == 2
    found = matched.forecast(threshold=0.3)
    assert found.clock == "steps"
    np.testing.assert_array_equal(found.time[1:], truth["time"].values[after])
    np.testing.assert_allclose(found.fn[1:], truth["fn"].values[after], rtol=1e-4)
    np.testing.assert_allclose(found.nc1[1:], truth["nc1_trace_ratio"].values[after], rtol=1e-3)


def test_flow_of_free_features_rests_where_the_network_does():
    p = free(optimiser="sgd", momentum=0.0, schedule="constant", epochs_mse=3000, decays=(0.06,))
    data = orthogonal()
    truth = train(replace(p, measure_every=1000), data=data, dtype="float64").data.isel(lane=0)
    run = train_to(p, data=data)
    found = bridge((run.net, run.x, run.y, p)).forecast(clock="flow")
    assert found.fn_end == pytest.approx(float(truth["fn"][-1]), rel=1e-3)
    assert found.fn_inf == pytest.approx(float(truth["fn"][-1]), rel=1e-3)


def test_schedule_is_that_of_the_protocol(tiny):
    _, source = tiny
    matched = bridge(source)
    (phase,) = matched.phases
    assert phase.steps == 10 * 6
    assert phase.loss == "mse"
    assert isinstance(phase.optimiser, Adam)
    rates = [phase.optimiser.lr * phase.optimiser.schedule.factor(10 * e, 60) for e in range(6)]
    assert rates == pytest.approx([TINY.rates(2, e)[0] for e in range(6)], rel=1e-12)
    s = matched.shown
    np.testing.assert_allclose(np.diff(matched.flow_time), np.array(rates) * 10 / s.noise, rtol=1e-9)
    other = bridge((*source[:3], replace(TINY, optimiser="sgd", momentum=0.8)))
    assert isinstance(other.phases[0].optimiser, SGD)
    np.testing.assert_allclose(np.diff(other.flow_time), np.array(rates) * 10 / 0.2, rtol=1e-9)


def test_noise_is_that_of_mini_batches(tiny, monkeypatch):
    """Against gradients of many other mini-batches of the network scaled to its targets, by autograd."""
    run, source = tiny
    monkeypatch.setattr("realnets.look._BATCHES", 400)
    s = bridge(source, lane=1).shown
    named = {n: v[1].double().clone().requires_grad_() for n, v in run.net.named().items()}
    scale = s.contrast ** (-1 / 3)
    rng, got = np.random.default_rng(5), []
    x, y = run.x.double(), torch.nn.functional.one_hot(run.y, 10).double()
    for _ in range(400):
        rows = torch.as_tensor(rng.integers(0, 200, 20))
        a = x[rows]
        views = {n: (v.detach() * scale ** (1 if n[0] == "W" else int(n[2:]))).requires_grad_() for n, v in named.items()}
        for i in (1, 2):
            a = torch.relu(a @ views[f"W_{i}"].T + views[f"b_{i}"])
        ((a @ views["W_3"].T + views["b_3"] - y[rows]) ** 2).mean().backward()
        got.append(views["W_2"].grad.numpy())
    assert s.noise == pytest.approx(np.sqrt(np.var(got, axis=0, ddof=1).mean()), rel=0.1)


def test_checkpoint_in_a_folder(tiny, tmp_path):
    run, source = tiny
    with pytest.raises(BadInput, match="intact checkpoint"):
        bridge(tmp_path)
    train(replace(TINY, epochs_mse=0), checkpoint=tmp_path / "run")
    held = read(tmp_path / "run")
    assert torch.equal(held.net.theta, run.net.theta)
    short = bridge(tmp_path / "run", lane=1).shown
    assert short.theta == bridge(source, lane=1).shown.theta
    payload = next((tmp_path / "run").glob("epoch-*.pt"))
    payload.write_bytes(payload.read_bytes()[:-1])
    with pytest.raises(BadInput, match="intact checkpoint"):
        bridge(tmp_path / "run")


def test_within_phase_two(tiny):
    run = train_to(TINY, 6)
    matched = bridge((run.net, run.x, run.y, TINY), epoch=6)
    assert list(matched.epochs_left) == [6, 7, 8, 9]
    assert len(matched.flow_time) == 4
    found = matched.forecast()
    assert found.clock == "noise"
    assert found.fn[0] == pytest.approx(matched.shown.fn, rel=0.05)  # mean against root mean square
    with pytest.raises(BadInput, match="at most 3"):
        _ = matched.phases


def test_intervals_are_log_normal():
    (low, high), (t_low, t_high) = intervals(2.0, 50.0, (0.1, 0.0), 0.9)
    assert np.log(high / 2) == pytest.approx(0.1 * 1.6448536, rel=1e-6)
    assert low * high == pytest.approx(4)
    assert t_low == t_high == 50
    assert np.isnan(intervals(1.0, 1.0, None, 0.9)).all()


@pytest.mark.parametrize(("call", "line"), [
    (lambda s: bridge(s, lane=2), "lane = 2: a whole number from 0 to 1"),
    (lambda s: bridge(s, epoch=99), "epoch = 99: from 0 to 9"),
    (lambda s: bridge(s, samples="some"), "samples = 'some': one of auto, all, moments"),
    (lambda s: bridge("nowhere"), "source = 'nowhere': a folder that is there"),
    (lambda s: bridge(s[:3]), "source = 'tuple': a folder with checkpoints, or"),
    (lambda s: bridge((*s[:3], replace(TINY, seeds=(0,)))), "source = '2 lanes': a network of the 1 lanes"),
    (lambda s: bridge(s).forecast(clock="flow"), "clock = 'flow': steps or noise for adam"),
    (lambda s: bridge(s).forecast(threshold=2), "threshold = 2: between 0 and 1"),
    (lambda s: bridge(s).forecast(errors=(-1.0, 0.0)), "errors = .*: two numbers, not negative"),
    (lambda s: train_to(TINY, 10), "epoch = 10: from 1 to 9"),
])  # fmt: skip
def test_bad_input_is_one_line(tiny, call, line):
    with pytest.raises(BadInput, match=line) as e:
        call(tiny[1])
    assert "\n" not in str(e.value)
