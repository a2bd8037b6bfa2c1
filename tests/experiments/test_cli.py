"""The command line as a user meets it: one line and exit code 2 for bad input, valid JSON, files written whole."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.cli import main
from ncflow import Trajectory

SMALL = ["--depth", "2", "--width", "16", "--epochs-ce", "1", "--epochs-mse", "2", "--decays", "1e-3", "3e-3",
         "--seeds", "0", "1", "--batch-size", "64", "--subset", "200"]


@pytest.mark.parametrize(("args", "names"), [
    (["compare", "--dataset", "nope"], ["dataset", "'nope'", "digits"]),
    (["compare", "--activation", "nope"], ["activation", "'nope'", "relu"]),
    (["compare", "--decays", "-1"], ["decays", "-1"]),
    (["compare", "--decays", "0"], ["decays", "greater than 0"]),
    (["compare", "--depth", "0"], ["depth", "0", "at least 1"]),
    (["compare", "--depth", "x"], ["--depth", "'x'", "INT"]),
    (["compare", "--width", "9"], ["width", "9", "10"]),
    (["compare", "--threshold", "1.5"], ["threshold", "1.5"]),
    (["compare", "--threshold", "0"], ["threshold", "0"]),
    (["compare", "--subset", "5000"], ["subset", "5000"]),
    (["compare", "--subset", "10"], ["subset", "10"]),
    (["compare", "--batch-size", "2000"], ["batch_size", "2000"]),
    (["compare", "--device", "nope"], ["device", "'nope'"]),
    (["compare", "--frobnicate"], ["--frobnicate"]),
    (["nope"], ["nope"]),
    ([], ["compare"]),
])
def test_bad_input_is_one_line(args, names, tmp_path, capsys):
    out = tmp_path / "out"
    code = main([*args, "--out", str(out)] if args and args[0] == "compare" else args)
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1 and "Traceback" not in printed.err
    for name in names:
        assert name in printed.err
    assert not out.exists()


def test_out_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["compare", "--out", str(tmp_path / "file")]) == 2
    assert "out" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["truncated", "shapes", "labels"])
def test_bad_npz(content, tmp_path, capsys):
    x, y = np.zeros((40, 28, 28), np.uint8), np.arange(40) % 10
    if content == "shapes":
        x = x[:, :20]
    if content == "labels":
        y = y + 5
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    if content == "truncated":
        whole = (tmp_path / "mnist.npz").read_bytes()
        (tmp_path / "mnist.npz").write_bytes(whole[: len(whole) // 2])
    code = main(["compare", "--dataset", "mnist", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().err
    assert code == 2 and printed.count("\n") == 1 and "mnist" in printed
    assert not (tmp_path / "out").exists()


def test_help_has_an_example(capsys):
    assert main(["compare", "--help"]) == 0
    assert "ncflow compare --dataset mnist" in capsys.readouterr().out


def test_json_and_files(tmp_path, capsys):
    assert main(["compare", *SMALL, "--out", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    report = json.loads(printed.out)
    assert [row["decay"] for row in report["rows"]] == [1e-3, 3e-3]
    for row in report["rows"]:
        assert set(row["theory"]) >= {"feature_norm_head", "feature_norm_data"}
        assert set(row["simulation"]) >= {"fn_inf", "nc1_floor", "rate"}
        assert set(row["real"]) >= {"t_nc", "fn_star", "fn_end", "nc1_end", "phase", "status"}
        for key in ("t_nc", "fn_star", "fn_end", "nc1_end"):
            assert set(row["real"][key]) == {"mean", "std", "per_seed"} and len(row["real"][key]["per_seed"]) == 2
        assert row["real"]["fn_end"]["mean"] == pytest.approx(np.mean(row["real"]["fn_end"]["per_seed"]), rel=1e-14)
        # The simulator must find the fixed point that the closed form states.
        assert row["simulation"]["fn_inf"] == pytest.approx(row["theory"]["feature_norm_data"], rel=2e-5)
        assert row["simulation"]["nc1_floor"] == pytest.approx(row["theory"]["nc1_floor_data"], rel=2e-4)
    for path in report["files"].values():
        assert (tmp_path / "compare-digits" / path.rsplit("/", 1)[-1]).stat().st_size > 0
    assert not list(tmp_path.rglob("*partial*"))
    network = Trajectory.load(report["files"]["network"])
    assert network.data["fn"].dims == ("lane", "time") and network.provenance["config"]["depth"] == 2


def test_terminal_output_fits_and_repeats(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    texts = []
    for _ in range(2):
        assert main(["compare", *SMALL, "--out", str(tmp_path)]) == 0
        texts.append(capsys.readouterr().out)
    tables = [text.split("\ntraining")[0] for text in texts]
    assert tables[0] == tables[1]
    assert all(len(line) <= 80 for line in tables[0].splitlines())
    assert "…" not in tables[0]
