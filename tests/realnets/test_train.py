"""Training end to end on the embedded digits: the record, its numbers, its repeatability."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ncflow import metrics
from ncflow.errors import BadInput
from ncflow.trajectory import Status, Trajectory
from realnets import LaneMLP, TwoPhase, load, preset, train
from realnets.measure import accuracy, measure

SMALL = TwoPhase(
    subset=200, depth=2, width=32, batch_size=9, lr=3e-3, epochs_ce=9, epochs_mse=20, measure_every=4,
    decays=(1e-4, 1e-2), seeds=(0, 1, 7),
)  # fmt: skip


@pytest.fixture(scope="module")
def run():
    return train(SMALL)


def test_structure_of_the_record(run):
    d = run.data
    assert dict(d.sizes) == {"lane": 6, "time": 10, "layer": 3, "class": 10, "class2": 10}
    assert d["time"].values.tolist() == [0, 4, 8, 9, 12, 16, 20, 24, 28, 29]
    assert d["phase"].values.tolist() == [1] * 4 + [2] * 6
    assert (
        d["decay"].values.tolist() == [1e-4] * 3 + [1e-2] * 3 and d["seed"].values.tolist() == [0, 1, 7] * 2
    )
    for name in ("fn", "nc1_trace_ratio", "nc4_mismatch", "train_accuracy", "cross_entropy", "mse", "energy"):
        assert d[name].dims == ("lane", "time") and d[name].dtype == np.float64, name
        assert np.isfinite(d[name].values).all() and {"units", "long_name"} <= set(d[name].attrs), name
    for name in ("weight_norm", "weight_norm_sq", "bias_norm_sq"):
        assert d[name].dims == ("lane", "time", "layer")
    assert set(metrics.NAMES) - set(d.data_vars) == {"nc2_gof_M", "nc2_gof_W"}  # need feature decays
    assert "test_accuracy" not in d
    assert d.attrs["time_kind"] == "epochs" and d.attrs["source"] == "network"
    assert d.attrs["threshold"] == 0.01 and d.attrs["nc1"] == "nc1_trace_ratio"
    assert run.status == [Status.FINISHED] * 6
    assert run.provenance["config"]["seeds"] == [0, 1, 7] and run.provenance["config"]["lr"] == 3e-3
    assert run.provenance["data"]["samples"] == 200 and len(run.provenance["data"]["sha256"]) == 64
    rates = d["learning_rate"].values
    assert rates[0] == 3e-3 and rates[3] == pytest.approx(1.5e-3 * (1 + np.cos(np.pi * 8 / 9)))
    assert rates[-1] == pytest.approx(1.5e-3 * (1 + np.cos(np.pi * 19 / 20)))


def test_training_fits(run):
    d = run.data
    assert (d["cross_entropy"].sel(time=9) < 0.3 * d["cross_entropy"].sel(time=0)).all()
    assert (d["mse"].sel(time=29) < 0.06).all()
    assert (d["train_accuracy"].sel(time=9) > 0.85).all() and (d["train_accuracy"].sel(time=29) > 0.7).all()


def test_numbers_belong_to_the_final_weights(run):
    data = load("digits", 200)
    net = LaneMLP((64, 32, 32, 10), [0] * 6)
    for name, view in net.named().items():
        view.copy_(torch.as_tensor(run.final[name]))
        assert run.final[name].dtype == np.float32
    x, y = torch.as_tensor(data.x_train), torch.as_tensor(data.y_train)
    logits, features = (v.double() for v in net.forward(x))
    last = run.data.isel(time=-1)
    expected = metrics.compute(features, y, net.weights[-1], net.biases[-1])
    for name, value in expected.items():
        np.testing.assert_allclose(last[name].values, value, rtol=1e-9, err_msg=name)
    one_hot = torch.eye(10, dtype=torch.float64)[y]
    mse = (logits - one_hot).square().mean((1, 2))
    np.testing.assert_allclose(last["mse"].values, mse, rtol=1e-12)
    cross_entropy = [torch.nn.functional.cross_entropy(z, y) for z in logits]
    np.testing.assert_allclose(last["cross_entropy"].values, cross_entropy, rtol=1e-12)
    np.testing.assert_allclose(last["train_accuracy"].values, (logits.argmax(-1) == y).double().mean(-1))
    norms = [[float(W[lane].double().norm()) for W in net.weights] for lane in range(6)]
    np.testing.assert_allclose(last["weight_norm"].values, norms, rtol=1e-12)
    np.testing.assert_allclose(last["weight_norm_sq"].values, np.square(norms), rtol=1e-12)
    biases = [[float(b[lane].double().norm()) ** 2 for b in net.biases] for lane in range(6)]
    np.testing.assert_allclose(last["bias_norm_sq"].values, biases, rtol=1e-12)
    energy = mse + torch.as_tensor(last["decay"].values) / 2 * net.theta.double().square().sum(1)
    np.testing.assert_allclose(last["energy"].values, energy, rtol=1e-12)
    means = torch.stack([features[:, y == k].mean(1) for k in range(10)], 1)
    np.testing.assert_allclose(run.final["class_mean_gram"], means @ means.mT, rtol=1e-9)
    np.testing.assert_array_equal(run.final["class_mean_gram"], run.data["class_mean_gram"].values)


def test_it_is_a_plain_training_loop_of_torch():
    """One lane in float64 by PyTorch's layers, optimisers and schedulers, new ones in each phase."""
    from torch.nn import Linear, ReLU, Sequential
    from torch.nn.functional import cross_entropy, mse_loss

    from realnets.optimise import order

    p = replace(SMALL, seeds=(7,), decays=(1e-2,), epochs_ce=2, epochs_mse=3)
    data = load("digits", 200)
    x, y = torch.as_tensor(data.x_train).double(), torch.as_tensor(data.y_train)
    one_hot = torch.eye(10).double()[y]
    model = Sequential(Linear(64, 32), ReLU(), Linear(32, 32), ReLU(), Linear(32, 10)).double()
    start = LaneMLP((64, 32, 32, 10), (7,), dtype=torch.float64)
    with torch.no_grad():
        for layer, W in zip(model[::2], start.weights, strict=True):
            layer.weight.copy_(W[0])
            layer.bias.zero_()
    for phase, _, epochs in p.phases:
        step = torch.optim.Adam(model.parameters(), lr=p.lr, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(step, T_max=epochs)
        for epoch in range(epochs):
            for rows in torch.as_tensor(order(7, phase, epoch, 200)).split(9):
                step.zero_grad()
                z = model(x[rows])
                loss = cross_entropy(z, y[rows]) if phase == 1 else mse_loss(z, one_hot[rows])
                loss.backward()
                step.step()
            schedule.step()
    final = train(p, dtype="float64").final
    for i, layer in enumerate(model[::2], 1):
        np.testing.assert_allclose(final[f"W_{i}"][0], layer.weight.detach(), rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(final[f"b_{i}"][0], layer.bias.detach(), rtol=1e-7, atol=1e-10)


def test_the_same_bits_again_and_alone(run):
    again = train(SMALL)
    for name, value in run.final.items():
        np.testing.assert_array_equal(again.final[name], value)
    for name in run.data.data_vars:
        np.testing.assert_array_equal(again.data[name], run.data[name])
    alone = train(replace(SMALL, seeds=(7,), decays=(1e-2,)))
    for name in ("W_1", "W_3", "b_2"):
        np.testing.assert_array_equal(alone.final[name][0], run.final[name][5])
    for name in ("fn", "nc1_trace_ratio", "energy"):
        np.testing.assert_allclose(alone.data[name][0], run.data[name][5], rtol=1e-12)


def test_a_record_goes_to_disk_and_back(run, tmp_path):
    back = Trajectory.load(run.save(tmp_path / "run.nc"))
    assert back.data.identical(run.data)


def test_lanes_that_blow_up_are_marked_and_leave_the_others_alone():
    sound = replace(SMALL, decays=(1e-4,), epochs_ce=2, epochs_mse=2, optimiser="sgd", lr=0.05, momentum=0.0)
    mixed = train(replace(sound, decays=(1e-4, 1e30)))
    assert mixed.status == [Status.FINISHED] * 3 + [Status.NON_FINITE] * 3
    np.testing.assert_array_equal(mixed.data["fn"][:3], train(sound).data["fn"])
    assert np.isfinite(mixed.data["fn"][3:, 0]).all() and np.isnan(mixed.data["fn"][3:, 1:]).all()
    assert all(np.isfinite(v).all() for v in mixed.final.values())
    start = LaneMLP((64, 32, 32, 10), (0,))
    np.testing.assert_array_equal(mixed.final["W_1"][3], start.weights[0][0])
    lost = train(replace(sound, decays=(1e30,)))
    assert lost.status == [Status.NON_FINITE] * 3 and lost.data.sizes["time"] < 4


@pytest.mark.parametrize("how", [
    {"optimiser": "sgd", "lr": 0.01, "schedule": "constant"},
    {"activation": "gelu", "biases": False},
    {"optimiser": "sgd", "lr": 0.05, "momentum": 0.0, "activation": "tanh", "scaling": "unit"},
])  # fmt: skip
def test_other_settings_train(how):
    d = train(replace(SMALL, seeds=(0,), **how)).data
    assert (d["mse"][:, -1] < 0.08).all() and ("bias_norm_sq" in d) == how.get("biases", True)
    if how.get("schedule") == "constant":
        assert (d["learning_rate"] == 0.01).all()


def test_data_from_a_file_with_a_test_set(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.integers(0, 60, (60, 28, 28), dtype=np.uint8)
    x[np.arange(60), 9 * y] += 190  # one bright row, by class
    np.savez(tmp_path / "mnist.npz", x_train=x[:45], y_train=y[:45], x_test=x[45:], y_test=y[45:])
    p = TwoPhase(
        dataset="mnist", depth=1, width=12, batch_size=45, epochs_ce=60, epochs_mse=10, seeds=0, decays=0
    )
    run = train(p, root=tmp_path)
    assert run.data.sizes["class"] == 3 and run.data.attrs["loss_scale"] == pytest.approx(1 / 3)
    assert run.data["test_accuracy"].dims == ("lane", "time")
    assert run.data["test_accuracy"][0, -1] > 0.9
    with pytest.raises(BadInput, match="batch_size = 46: at most 45"):
        train(replace(p, batch_size=46), root=tmp_path)


def test_measuring_in_blocks_changes_nothing(monkeypatch):
    import realnets.measure as module

    data = load("digits", 200)
    net = LaneMLP((64, 32, 32, 10), (0, 1), dtype=torch.float64)
    x, y = torch.as_tensor(data.x_train).double(), torch.as_tensor(data.y_train)
    whole, share = measure(net, x, y), accuracy(net, x, y)
    assert torch.equal(share, whole["train_accuracy"])
    monkeypatch.setattr(module, "_BLOCK", 16 * 30)
    for keep in (module._KEEP, 0):
        monkeypatch.setattr(module, "_KEEP", keep)
        for name, value in measure(net, x, y).items():
            torch.testing.assert_close(value, whole[name], rtol=1e-9, atol=1e-12)
    assert torch.equal(accuracy(net, x, y), share)


def test_progress_is_the_fraction_of_epochs():
    seen = []
    train(replace(SMALL, seeds=(0,), decays=(0.0,), epochs_ce=1, epochs_mse=3), progress=seen.append)
    assert seen == [0.25, 0.5, 0.75, 1.0]


def test_refusals():
    with pytest.raises(BadInput, match="device = 'tpu'"):
        train(SMALL, device="tpu")
    with pytest.raises(BadInput, match="device = 'meta'"):
        train(SMALL, device="meta")
    if not torch.cuda.is_available():
        with pytest.raises(BadInput, match="device = 'cuda': cpu; this machine has no CUDA device"):
            train(SMALL, device="cuda")
    with pytest.raises(BadInput, match="dtype = 'float16': one of float32, float64"):
        train(SMALL, dtype="float16")
    with pytest.raises(BadInput, match="protocol"):
        train("digits")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="subset = 2000: a multiple of 10 from 20 to 1740"):
        train(preset("digits", subset=2000))
