"""`ncflow train` as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import main
from ncflow import Trajectory

SMALL = ["train", "--depth", "2", "--width", "16", "--epochs-ce", "2", "--epochs-mse", "4", "--decays", "1e-3", "3e-3", "--seeds",
         "0", "1", "--batch-size", "50", "--subset", "200", "--measure-every", "1"]  # fmt: skip
ROOT = Path(__file__).parents[2]


def folder_of(out: Path) -> Path:
    (found,) = out.iterdir()
    return found


@pytest.mark.parametrize(("args", "names"), [
    (["--preset", "nope"], ["preset", "'nope'", "paper-mlp-intervention"]),
    (["--architecture", "vit"], ["architecture", "'vit'", "resnet20"]),
    (["--alphas", "0"], ["alphas", "0", "greater than 0"]),
    (["--alphas", "0.3", "--epochs-mse", "0"], ["alphas", "phase 2"]),
    (["--stop", "never"], ["stop", "'never'", "t_nc"]),
    (["--every", "0"], ["every", "0", "at least 1"]),
    (["--dtype", "float16"], ["dtype", "'float16'", "float64"]),
    (["--device", "tpu"], ["device", "'tpu'"]),
    (["--batch-size", "5000"], ["batch_size", "5000", "1797"]),
    (["--image-size", "7"], ["image_size", "7", "divisor of 8"]),
    (["--subset", "5000"], ["subset", "5000"]),
    (["--lr", "x"], ["--lr", "x"]),
])  # fmt: skip
def test_bad_input_is_one_line(args, names, tmp_path, capsys):
    code = main(["train", *args, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr()
    assert code == 2 and printed.out == ""
    assert printed.err.count("\n") == 1 and "Traceback" not in printed.err
    for name in names:
        assert name in printed.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("labels", "text"), [
    (np.zeros(40, int), "labels [0]"), (np.arange(40) % 10 + 5, "label outside 0..9"), (np.arange(39) % 10, "y_train"),
    (np.arange(40) % 3 + 3 * (np.arange(40) == 0), "class 3 with 1 training image"),
])  # fmt: skip
def test_data_that_cannot_be_used_are_one_line(labels, text, tmp_path, capsys):
    x = np.zeros((40, 28, 28), np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=labels, x_test=x[:0], y_test=np.arange(0))
    assert main(["train", "--dataset", "mnist", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and text in printed and not (tmp_path / "out").exists()


def test_help_has_an_example_and_the_presets(capsys):
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "ncflow train --preset mnist-10k" in text and "paper-resnet-cifar" in text


def test_json_and_files(tmp_path, capsys):
    args = [*SMALL, "--alphas", "0.5", "1", "--out", str(tmp_path)]
    assert main([*args, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    report = json.loads(printed.out)
    lanes = report["lanes"]
    assert [(row["decay"], row["alpha"], row["seed"]) for row in lanes] == [
        (d, a, s) for d in (1e-3, 3e-3) for a in (0.5, 1.0) for s in (0, 1)]  # fmt: skip
    folder = folder_of(tmp_path)
    assert report["run"].startswith(folder.name.rsplit("-", 1)[1])
    assert report["setting"]["epochs_mse"] == 4 and set(report["seconds"]) == {"training", "measuring"}
    for path in report["files"].values():
        assert Path(path).parent == folder and Path(path).stat().st_size > 0
    record = Trajectory.load(report["files"]["record"])
    for i, row in enumerate(lanes):
        assert row["outcome"] in ("collapsed", "not collapsed", "diverged")
        assert row["fn_end"] == float(record.data["fn"][i, -1]) and row["nc1_end"] == float(record.data["nc1_trace_ratio"][i, -1])
        assert row["norm_product_end"] == pytest.approx(row["fn_end"] * row["weight_norm_sq_end"][-1] ** 0.5)
        assert row["t_nc"] is None and row["epoch_end"] == 6
    with np.load(report["files"]["weights"]) as file:
        assert file["W_3"].shape == (8, 10, 16)
    assert not list(tmp_path.rglob("*partial*"))
    # The same command reads the record; the table is the same.
    times = {p: p.stat().st_mtime_ns for p in folder.glob("*.pt")}
    assert main([*args, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lanes"] == lanes
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*.pt")} == times
    assert main(args) == 0
    table = capsys.readouterr().out
    assert "T_NC" in table and "measuring" in table and str(folder / "train.png") in table


def test_a_preset_is_changed_by_what_is_given(tmp_path, capsys):
    changes = ["--subset", "100", "--batch-size", "50", "--epochs-ce", "1", "--epochs-mse", "1", "--seed", "3", "--width", "12"]
    assert main(["train", "--preset", "digits", *changes, "--decays", "1e-4", "--out", str(tmp_path), "--json"]) == 0
    setting = json.loads(capsys.readouterr().out)["setting"]
    assert setting["seeds"] == [3] and setting["lr"] == 3e-3 and setting["width"] == 12 and setting["depth"] == 5


def test_a_lane_that_fails_is_named_and_the_code_is_1(tmp_path, capsys):
    changes = ["--decays", "1e-3", "1e30", "--optimiser", "sgd", "--seed", "0", "--out", str(tmp_path)]
    assert main([*SMALL, *changes]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and "decay 1e+30" in printed.err and "seed 0" in printed.err
    assert "non finite" in printed.out


def test_settling_is_reported(tmp_path, capsys):
    assert main([*SMALL, "--settle", "--settle-epochs", "6", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "fn_inf" in text and "largest drift" in text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_run_that_goes_on(tmp_path, number, code):
    command = [sys.executable, "-m", "experiments.cli", *SMALL, "--epochs-mse", "3000", "--out", str(tmp_path), "--every", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while child.poll() is None and not list(tmp_path.glob("*/epoch-*.json")):
        time.sleep(0.01)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == code and out == "", err
    assert err.count("\n") == 1 and "of 3002; the same command goes on from there" in err
    assert list(tmp_path.glob("*/epoch-*.json")) and not list(tmp_path.rglob("*partial*"))
