"""Training end to end on the embedded digits: the record, its numbers, its repeatability."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ncflow import metrics, summarise
from ncflow.errors import BadInput
from ncflow.trajectory import Status, Trajectory
from realnets import DataSet, LaneMLP, Network, Outcome, TwoPhase, load, preset, train
from realnets.measure import accuracy, measure
from realnets.outcome import outcomes

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
    assert d["learning_rate"].dims == ("lane", "time") and (d["learning_rate"] == d["learning_rate"][0]).all()
    rates = d["learning_rate"].values[0]
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


TINY = replace(SMALL, seeds=(0, 3), decays=(1e-3,), epochs_ce=3, epochs_mse=4, measure_every=1)


def test_lanes_of_an_intervention_share_phase_1_and_are_rescaled_at_phase_2(monkeypatch):
    from realnets.run import Run

    counted, real = [], Run.epoch

    def count(self, phase, *rest):
        counted.append((phase, len(self.lanes)))
        real(self, phase, *rest)

    monkeypatch.setattr(Run, "epoch", count)
    arms = train(replace(TINY, alphas=(0.5, 1.0, 2.0)))
    assert counted == [(1, 2)] * 3 + [(2, 6)] * 4
    monkeypatch.undo()
    assert arms.data["alpha"].values.tolist() == [0.5] * 2 + [1.0] * 2 + [2.0] * 2
    assert arms.data["seed"].values.tolist() == [0, 3] * 3
    for name in ("fn", "nc1_trace_ratio", "weight_norm"):
        early = arms.data[name].sel(time=slice(0, 3)).values
        np.testing.assert_array_equal(early[:2], early[2:4])
        np.testing.assert_array_equal(early[:2], early[4:])
    plain = train(TINY)
    for name in plain.final:
        np.testing.assert_array_equal(plain.final[name], arms.final[name][2:4])
    # The arms are what rescaling by hand gives.
    run = Run(replace(TINY, alphas=(0.5,)), load("digits", 200), torch.device("cpu"), torch.float32)
    run.times.append((0, 1))
    for epoch in range(3):
        if run.phase != 1:
            run.begin(1)
        run.epoch(1, "cross_entropy", epoch, run._lane_rates(1, epoch))
    before = {name: view.clone() for name, view in run.net.named().items()}
    run.begin(2)
    for name, view in run.net.named().items():
        assert torch.equal(view, before[name] * (0.5 if name in ("W_2", "b_2") else 1.0)), name
    for epoch in range(4):
        run.epoch(2, "mse", epoch, run._lane_rates(2, epoch))
    np.testing.assert_array_equal(run.net.named()["W_1"], arms.final["W_1"][:2])


@pytest.mark.parametrize("layer", [0, -1])
def test_any_layer_of_a_perceptron_can_be_rescaled(layer):
    from realnets.run import Run

    p = replace(TINY, alphas=(0.5, 3.0), rescaled_layer=layer)
    run = Run(p, load("digits", 200), torch.device("cpu"), torch.float32)
    run.begin(1)
    before = {name: view.clone() for name, view in run.net.named().items()}
    run.begin(2)
    own = p.depth + 1 if layer < 0 else 1
    for name, view in run.net.named().items():
        for k, alpha in enumerate((0.5, 0.5, 3.0, 3.0)):
            assert torch.equal(view[k], before[name][k % 2] * (alpha if name in (f"W_{own}", f"b_{own}") else 1.0)), name
    assert p.config()["rescaled_layer"] == own - 2 - p.depth and "rescaled_layer" not in TINY.config()


def test_learning_rates_are_lanes():
    both = train(replace(TINY, lr=(1e-3, 3e-3)))
    assert both.data["lr"].values.tolist() == [1e-3, 1e-3, 3e-3, 3e-3]
    assert both.data["learning_rate"][:, 0].values.tolist() == [1e-3, 1e-3, 3e-3, 3e-3]
    for rows, lr in ((slice(0, 2), 1e-3), (slice(2, 4), 3e-3)):
        np.testing.assert_array_equal(train(replace(TINY, lr=lr)).final["W_2"], both.final["W_2"][rows])


def test_where_a_lane_collapsed_is_recorded_and_it_can_stop_there():
    easy = replace(TINY, threshold=0.35, epochs_mse=20, seeds=(0, 1, 7), decays=(1e-4,), lr=(1e-2, 3e-3, 1e-5))
    d = train(easy).data
    first = [next((k for k, v in enumerate(row) if v < 0.35), None) for row in d["nc1_trace_ratio"].values]
    assert None in first and len(set(first)) > 2
    for i, k in enumerate(first):
        lane = d.isel(lane=i)
        if k is None:
            assert np.isnan([lane["t_nc"], lane["fn_at_t_nc"], lane["learning_rate_at_t_nc"]]).all()
            assert lane["phase_at_t_nc"] == 0 and lane["outcome"] == Outcome.DIVERGED
            continue
        assert lane["t_nc"] == d["time"][k] and lane["phase_at_t_nc"] == d["phase"][k] and lane["outcome"] == Outcome.COLLAPSED
        assert lane["fn_at_t_nc"] == lane["fn"][k] and lane["learning_rate_at_t_nc"] == lane["learning_rate"][k]
    stopped = train(replace(easy, stop="t_nc"))
    for i, k in enumerate(first):
        fn = stopped.data["fn"].values[i]
        np.testing.assert_array_equal(fn[: None if k is None else k + 1], d["fn"].values[i][: None if k is None else k + 1])
        assert k is None or np.isnan(fn[k + 1 :]).all()
    assert stopped.status == [Status.FINISHED] * 9
    at_once = train(replace(easy, stop="t_nc", lr=1e-2, seeds=(0, 1)))
    assert at_once.data.sizes["time"] < d.sizes["time"]
    net = LaneMLP((64, 32, 32, 10), [0] * 2)  # the weights kept are those of T_NC
    for name, view in net.named().items():
        view.copy_(torch.as_tensor(at_once.final[name]))
    data = load("digits", 200)
    found = measure(net, torch.as_tensor(data.x_train), torch.as_tensor(data.y_train))
    np.testing.assert_allclose(found["fn"], at_once.data["fn_at_t_nc"], rtol=1e-6)


def test_cross_entropy_alone_or_continued():
    alone = train(replace(TINY, epochs_mse=0, epochs_ce=5))
    assert set(alone.data["phase"].values) == {1} and alone.data["time"][-1] == 5
    longer = train(replace(TINY, second_loss="cross_entropy", epochs_mse=30))
    assert longer.data["phase"].values[-1] == 2 and "2 cross_entropy" in longer.data["phase"].attrs["long_name"]
    squared = train(replace(TINY, epochs_mse=30))
    assert (longer.data["cross_entropy"][:, -1] < 0.5 * squared.data["cross_entropy"][:, -1]).all()
    assert (longer.data["mse"][:, -1] > 2 * squared.data["mse"][:, -1]).all()


@pytest.mark.parametrize("how", [{"optimiser": "adamw"}, {"decay_biases": False}, {"optimiser": "adamw", "decay_biases": False}])
def test_kinds_of_decay(how):
    strong = replace(TINY, decays=(0.0, 3e-1), lr=1e-2, epochs_ce=10, **how)
    d = train(strong).data
    assert (d["weight_norm"][2:, -1, 0] < 0.9 * d["weight_norm"][:2, -1, 0]).all()
    last = d.isel(time=-1)
    counted = last["weight_norm_sq"].sum("layer") + (0 if how.get("decay_biases") is False else last["bias_norm_sq"].sum("layer"))
    np.testing.assert_allclose(last["energy"], last["mse"] + last["decay"] / 2 * counted, rtol=1e-9)


def test_layers_are_measured(run):
    from realnets.measure import layers

    net = LaneMLP((64, 32, 32, 10), (0, 1), dtype=torch.float64)
    for b in net.biases:
        b.uniform_(-0.1, 0.1)
    found = layers(net)
    for i, W in enumerate(net.weights):
        s = torch.linalg.svdvals(W)
        share = s / s.sum(-1, keepdim=True)
        torch.testing.assert_close(found["effective_rank"][:, i], (-(share * share.log()).sum(-1)).exp(), rtol=1e-6, atol=0)
    squares, below = found["weight_norm_sq"], found["weight_norm_sq"][:, :-1] + found["bias_norm_sq"][:, :-1]
    expected = (squares[:, 1:] - below).abs().amax(1) / squares.mean(1)
    torch.testing.assert_close(found["balance"], expected)
    net.theta[1] = torch.nan
    assert layers(net)["effective_rank"].isnan().tolist() == [[False] * 3, [True] * 3]
    last = run.data.isel(time=-1)
    np.testing.assert_allclose(last["norm_product"], last["fn"] * last["weight_norm"][:, -1], rtol=1e-12)
    assert {"effective_rank", "balance"} <= set(run.data) and json.loads(run.data.attrs["layers"]) == ["W_1", "W_2", "W_3"]


def test_nc1_after_every_layer():
    r = train(replace(TINY, layerwise=True))
    d = r.data
    assert d["nc1_hidden"].dims == ("lane", "time", "hidden") and d.sizes["hidden"] == 2
    np.testing.assert_allclose(d["nc1_hidden"][..., -1], d["nc1_trace_ratio"], rtol=1e-9)
    data = load("digits", 200)
    for lane in range(2):
        h = np.maximum(data.x_train @ r.final["W_1"][lane].T + r.final["b_1"][lane], 0)
        expected = metrics.compute(h, data.y_train, names=["nc1_trace_ratio"])["nc1_trace_ratio"]
        assert float(r.data["nc1_hidden"][lane, -1, 0]) == pytest.approx(float(expected), rel=1e-5)


def test_batch_statistics_are_measured_apart():
    p = replace(TINY, architecture="residual_mlp", batch_size=50)
    d = train(p).data
    for name in ("nc1_trace_ratio", "fn", "mse"):
        both = d[name].values[:, 1:], d[f"{name}_batch"].values[:, 1:]
        assert np.isfinite(both).all() and not np.allclose(*both, rtol=1e-6), name
        np.testing.assert_allclose(*(v[:, -1] for v in both), rtol=0.5)
    with pytest.raises(BadInput, match=r"batch_size = 199: .*leave a last batch of 1 of 200"):
        train(replace(p, batch_size=199))


def test_settling_brings_a_small_network_to_rest():
    p = replace(TINY, seeds=0, decays=(1e-2,), epochs_ce=5, epochs_mse=35, settle=True, measure_every=5, batch_size=200, lr=3e-3,
                settle_epochs=2000)  # fmt: skip
    r = train(p)
    assert r.status == [Status.AT_REST] and r.data["phase"].values[-1] == 3 and r.data.sizes["time"] < 400
    for name in ("fn", "energy", "balance"):
        assert r.data[f"drift_{name}"] < 3e-3
    (lane,) = summarise(r)
    assert lane.fn_inf == float(r.data["fn_inf"][0]) == float(r.data["fn"][0, -1])
    short = train(replace(p, settle_epochs=2))
    assert short.status == [Status.FINISHED] and np.isnan(short.data["fn_inf"]).all()
    rates = r.data["learning_rate"].values[0][r.data["phase"].values == 3]
    assert rates[0] == pytest.approx(3e-4) and (np.diff(rates) <= 0).all() and rates[-1] < rates[0]


def test_what_became_of_lanes():
    nan = np.nan
    nc1 = np.array([[1, 0.1, 0.005], [1, 0.1, 0.02], [1, 0.1, 0.6], [0.6, nan, nan], [1, nan, nan], [1, 0.6, 0.001]])
    fn = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, nan, nan], [1, 1e-5, 0], [1, 1, 1]])
    found = outcomes(np.array([0, 5, 10]), nc1, fn, np.array([True, True, True, False, True, True]), 0.01, 5)
    assert [Outcome(v) for v in found] == [Outcome.COLLAPSED, Outcome.NOT_COLLAPSED, Outcome.DIVERGED, Outcome.NON_FINITE,
                                           Outcome.ZERO_FEATURES, Outcome.COLLAPSED]  # fmt: skip
    assert all(o.sentence and o.words for o in Outcome)


def test_a_network_that_decay_extinguishes_is_said_to_have_no_features():
    d = train(replace(TINY, decays=(10.0,), optimiser="sgd", lr=0.02, epochs_mse=60, momentum=0.0)).data
    assert (d["fn"][:, -1] < 1e-3).all() and (d["outcome"] == Outcome.ZERO_FEATURES).all()


def test_time_of_measuring_is_recorded(run):
    seconds = run.provenance["seconds"]
    assert seconds["training"] > 0 and seconds["measuring"] > 0


def test_data_of_ones_own():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    data = DataSet("mine", (rng.normal(size=(40, 6)) + 3 * y[:, None]).astype(np.float32), y, None, None, 2, (1, 2, 3), (0.0,),
                   (1.0,), "")  # fmt: skip
    p = replace(TINY, batch_size=10, epochs_ce=30, lr=1e-2)
    assert (train(p, data=data).data["train_accuracy"][:, -1] > 0.9).all()


def test_a_network_that_cannot_be_rescaled_says_so(monkeypatch):
    monkeypatch.delattr(LaneMLP, "rescale")
    with pytest.raises(BadInput, match=r"alphas = \(0.5,\): 1 for mlp"):
        train(replace(TINY, alphas=(0.5,)))


def test_the_interface_is_what_networks_offer():
    from realnets import ARCHITECTURES

    for name, build in ARCHITECTURES.items():
        net = build(TwoPhase(architecture=name), (1, 8, 8), 10, (0, 1), torch.float32, torch.device("cpu"))
        assert isinstance(net, Network) and net.lanes == 2 and net.classes == 10, name
        W, _ = net.head
        x = torch.randn(5, 64)
        logits, features = net.forward(x)
        assert logits.shape == (2, 5, 10) and W.shape == (2, 10, features.shape[-1]), name
        torch.testing.assert_close(net.hidden(x)[-1], features)
        assert set(net.weight_layers) <= set(net.named()) and net.theta.shape == net.grad.shape


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
