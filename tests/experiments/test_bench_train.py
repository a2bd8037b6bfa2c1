"""`ncflow bench train` at tiny sizes, and the parts of it that decide what a number means."""

from __future__ import annotations

import json
from time import sleep

import numpy as np
import pytest
import torch

from experiments import bench_rivals as rivals
from experiments import bench_train as job
from experiments import usual_script as usual
from experiments.cli import main
from experiments.timing import Ratio, Target, Times, alternate, machine
from realnets.resnet import ResNet


@pytest.fixture
def data(tmp_path):
    """A folder with a small MNIST of noise, whose images differ by class."""
    rng = np.random.default_rng(0)
    y = np.arange(240) % 10
    x = rng.integers(0, 100, (240, 28, 28)) + (np.arange(28) // 3 == y[:, None, None]) * 150
    x = x.astype(np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return str(tmp_path)


def test_quick_run(data, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["bench", "train", "--quick", "--data", data, "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    report = json.loads(printed.out)
    assert report == json.loads((out / "bench-train" / "bench-train-cpu.json").read_text())
    assert report["gpu"] == "unmeasured" and report["quick"] is True and report["machine"]["torch"] == torch.__version__
    assert [entry["batch"] for entry in report["mlp"]] == [16, 32] and [entry["lanes"] for entry in report["lanes"]] == [2, 3]
    for entry in report["mlp"]:
        s = {who: times["rounds"][0] for who, times in entry["seconds_per_epoch"].items()}
        assert all(value > 0 for value in s.values())
        for who in ("ours", "script", "limit"):
            assert s[f"{who}_whole"] == pytest.approx(s[who] + s[f"{who}_metrics"])
        assert entry["ratios"]["script"]["median"] == pytest.approx(s["script_whole"] / s["ours_whole"])
        assert entry["ratios"]["limit"]["median"] == pytest.approx(s["ours_whole"] / s["limit_whole"])
        assert sum(entry["where"].values()) == pytest.approx(s["ours_whole"])  # the table is of the whole epoch
    for entry in report["resnet"]:
        assert set(entry["ratios"]) == {"contiguous", "channels_last", "default against plain contiguous"}
    assert len(report["targets"]) == 2 * 2 + 2 + 2 and all(t["met"] in (True, False) for t in report["targets"])


def test_table_fits(data, tmp_path, capsys):
    assert main(["bench", "train", "--quick", "--parts", "lanes", "resnet", "--data", data, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "GPU: unmeasured" in printed and "Targets" in printed and "the numbers mean nothing" in printed
    assert all(len(line) <= 100 for line in printed.splitlines()[:-1]) and "…" not in printed


@pytest.mark.parametrize(("args", "name"), [
    (["--parts", "nope"], "parts = 'nope'"), (["--rounds", "0"], "rounds = 0"), (["--device", "nope"], "device = 'nope'"),
    (["--data", "/nowhere/at/all"], "mnist"),
])  # fmt: skip
def test_bad_input_is_one_line(args, name, data, tmp_path, capsys):
    out = tmp_path / "out"
    where = [] if "--data" in args else ["--data", data]
    assert main(["bench", "train", "--quick", *args, *where, "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and name in printed.err and not out.exists()


def test_rivals_take_turns():
    seen = []
    times = alternate({"a": lambda: seen.append("a"), "b": lambda: seen.append("b") or 3.0}, 3)
    assert "".join(seen) == "abbaab"
    assert times["b"].seconds == (3.0, 3.0, 3.0) and all(s < 1 for s in times["a"].seconds)


def test_ratios_are_of_each_round():
    a, b = Times((2.0, 3.0, 12.0)), Times((1.0, 3.0, 3.0))
    assert a.over(b) == Ratio((2.0, 1.0, 4.0)) and a.over(b).median == 2 and a.least == 2 and a.median == 3
    assert a.plus(b).scaled(2).seconds == (6.0, 12.0, 30.0)
    assert Target("x", 2.9, least=3).met is False and Target("x", 1.5, most=1.5).met is True
    assert Target("x", float("nan"), least=3).met is False
    assert machine()["cores"] >= 1


def test_window_times_what_it_says():
    """The batches after the skipped ones, with the work that is done on them."""
    window = rivals.Window([0] * 10, 4, 5, "cpu")
    slept = []
    for _ in window:
        slept.append(0.05 if len(slept) < 4 else 0.01)
        sleep(slept[-1])
    assert len(slept) == 9 and 0.05 <= window.seconds < 0.2


def test_torchvision_reads_what_the_npz_holds(data):
    with rivals.idx_files(data) as folder:
        source = usual.mnist(folder)
        arrays = np.load(f"{data}/mnist.npz")
        assert len(source) == 240
        x, y = source[7]
        assert y == arrays["y_train"][7]
        torch.testing.assert_close(x[0], torch.tensor((arrays["x_train"][7] / 255 - 0.1307) / 0.3081, dtype=torch.float32))


def test_the_usual_script_is_the_same_job(data):
    """Its networks have the sizes of ours, its metrics are the paper's, and it learns."""
    with rivals.idx_files(data) as folder:
        batches = usual.loader(usual.mnist(folder), 40, 0)
        model = usual.mlp(width=32)
        optimiser = torch.optim.Adam(model.parameters())
        before = usual.metrics(model, batches)
        for loss in ("cross_entropy", "mse", "mse"):
            usual.train_epoch(model, batches, optimiser, loss)
        after = usual.metrics(model, batches)
        x, y = (torch.cat(part) for part in zip(*batches, strict=True))
    assert after["accuracy"] > before["accuracy"]
    from ncflow import metrics

    features = model[:-1](x).detach()
    expected = metrics.compute(features, y, W=model[-1].weight.detach())
    assert after["nc1"] == pytest.approx(float(expected["nc1_trace_ratio"]), rel=1e-4)
    assert after["fn"] == pytest.approx(float(expected["fn"]), rel=1e-5)
    assert sum(p.numel() for p in usual.mlp().parameters()) == 1_457_674  # the paper's baseline: 1.46M
    count = sum(p.numel() for p in usual.resnet20().parameters())
    assert count == ResNet((3, 32, 32), 10, (0,)).parameters == 272_474


def test_products_and_convolutions_are_those_of_the_networks():
    for fast in (False, True):
        alone = rivals.Products([(6, 8), (6, 6), (3, 6)], 5, "cpu", lanes=2, fast=fast)
        alone.step()
        for i, W in enumerate(alone.weights):
            torch.testing.assert_close(alone.outputs[i], alone.inputs[i] @ W.mT)
            torch.testing.assert_close(alone.pulls[0][i], alone.outputs[i].mT @ alone.inputs[i])
        torch.testing.assert_close(alone.pulls[1][2], alone.outputs[2] @ alone.weights[2])
    from torch.utils.flop_counter import FlopCounterMode

    step = rivals.convolutions(14, 4, "cpu", True)
    with FlopCounterMode(display=False) as alone:
        step()
    net = ResNet((3, 14, 14), 10, (0,))
    with FlopCounterMode(display=False) as whole:
        net.gradient(torch.randn(4, 3, 14, 14), torch.eye(10)[:4], "mse")
    head = 3 * 2 * 4 * 64 * 10
    assert alone.get_total_flops() == whole.get_total_flops() - head


def test_agreement_with_another_device():
    """On the processor itself both sides are the same bits; a real device is checked when there is one."""
    found = job.agreement("cuda" if torch.cuda.is_available() else "cpu")
    assert found["agrees"] and set(found["largest_relative_difference"]) == {"mlp", "residual_mlp", "resnet20"}
