"""`ncflow simulate`: what it says is what the engine did, beside the closed form; bad input is one line and leaves nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments.cli import COMMANDS, main
from ncflow import UFM, Adam, Cosine, Decay, Phase, Rescale, Trajectory, simulate
from theory import fixed_point

SMALL = ["--samples-per-class", "5", "--width", "6", "--decay", "5e-3"]


def call(capsys, *args):
    assert main(["simulate", *args, "--json"]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out)


def test_every_command_is_found_by_its_name(capsys):
    for name in COMMANDS:
        assert main([*name.split(), "--help"]) == 0, name
        assert f"usage: ncflow {name}" in capsys.readouterr().out


def test_lanes_are_decays_by_seeds_and_stand_beside_the_closed_form(tmp_path, capsys):
    found = call(capsys, *SMALL, "--decays", "5e-3", "1e-2", "--seeds", "3", "4", "--layers", "2", "--until", "6e3",
                 "--out", str(tmp_path))  # fmt: skip
    lanes = found["lanes"]
    assert [(lane["decay"], lane["seed"]) for lane in lanes] == [(5e-3, 3), (5e-3, 4), (1e-2, 3), (1e-2, 4)]
    for lane in lanes:
        model = UFM(classes=4, samples_per_class=5, width=6, layers=2, decay=Decay(weights=lane["decay"], features=lane["decay"]))
        assert lane["theory_fn"] == pytest.approx(fixed_point(model).feature_norm, rel=1e-14)
        assert lane["fn_inf"] == pytest.approx(lane["theory_fn"], rel=1e-6) and abs(lane["error"]) < 1e-6
    record = Trajectory.load(found["files"]["record"])
    assert record.data["fn"].shape == (4, 256) and (tmp_path / found["files"]["figure"]).stat().st_size > 10_000
    assert record.data["fn"].values[:, -1] == pytest.approx([lane["fn_end"] for lane in lanes], rel=1e-15)


def test_events_and_interventions_are_those_of_the_engine(tmp_path, capsys):
    found = call(capsys, *SMALL, "--until", "400", "--rescale", "50:-1=3", "100:features=0.5", "--events", "fn=0.5:rising",
                 "--out", str(tmp_path))  # fmt: skip
    model = UFM(classes=4, samples_per_class=5, width=6, decay=Decay(weights=5e-3, features=5e-3))
    run = simulate(model, until=400.0, interventions=[Rescale(-1, 3.0, 50.0), Rescale("features", 0.5, 100.0)])
    assert found["lanes"][0]["fn_end"] == pytest.approx(float(run.data["fn"][0, -1]), rel=1e-9)
    assert set(found["lanes"][0]["events"]) == {"nc1_trace_ratio < 0.01", "fn > 0.5"}


def test_an_optimiser_takes_the_place_of_the_flow(tmp_path, capsys):
    how = ["--optimiser", "adam", "--lr", "1e-2", "--schedule", "cosine", "--steps-ce", "20", "--steps", "50"]
    found = call(capsys, *SMALL, "--bias", "free", *how, "--out", str(tmp_path))
    model = UFM(classes=4, samples_per_class=5, width=6, bias="free", decay=Decay(weights=5e-3, features=5e-3))
    adam = Adam(lr=1e-2, schedule=Cosine())
    run = simulate(model, phases=[Phase(steps=20, loss="cross_entropy", optimiser=adam), Phase(steps=50, optimiser=adam)])
    assert found["lanes"][0]["fn_end"] == float(run.data["fn"][0, -1])
    assert Trajectory.load(found["files"]["record"]).data.attrs["time_kind"] == "steps"


def test_without_a_closed_form_the_reason_is_said(tmp_path, capsys):
    assert main(["simulate", *SMALL, "--layers", "2", "--activation", "gelu", "--until", "5", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "No closed form here: activation = 'gelu'" in printed and all(len(line) <= 100 for line in printed.splitlines()[:6])


def test_a_lane_that_stops_early_is_said_and_kept(tmp_path, capsys):
    assert main(["simulate", *SMALL, "--max-steps", "5", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "stopped at the maximum number of steps" in printed.err and "Traceback" not in printed.err
    (record,) = tmp_path.rglob("record.nc")
    assert np.isfinite(Trajectory.load(record).data["fn"].values[0, 0])


@pytest.mark.parametrize(("args", "names"), [
    (["--events", "foo=1"], ["event.metric", "'foo'"]),
    (["--events", "fn"], ["event", "'fn'", "METRIC=LEVEL"]),
    (["--events", "fn=0.5:up"], ["event", "'fn=0.5:up'"]),
    (["--rescale", "1:x=2"], ["rescale", "'1:x=2'", "TIME:LAYER=FACTOR"]),
    (["--rescale", "1:0.5=2"], ["rescale", "'1:0.5=2'"]),
    (["--rescale", "1e9:-1=2"], ["intervention.at"]),
    (["--optimiser", "rmsprop", "--steps", "3"], ["optimiser", "'rmsprop'", "adam"]),
    (["--optimiser", "adam"], ["steps", "--optimiser"]),
    (["--optimiser", "adam", "--steps", "3", "--momentum", "0.5"], ["momentum", "sgd"]),
    (["--optimiser", "adam", "--steps", "3", "--schedule", "linear"], ["schedule", "'linear'", "cosine"]),
    (["--optimiser", "adam", "--steps", "3", "--until", "3"], ["until", "--steps"]),
    (["--lr", "3"], ["lr", "--optimiser"]),
    (["--until", "nan"], ["until", "nan"]),
    (["--decay", "0"], ["until", "nothing decays"]),
    (["--points", "1"], ["points", "at least 2"]),
    (["--threshold", "2"], ["threshold", "between 0 and 1"]),
    (["--seeds", "-1"], ["seeds", "-1"]),
    (["--flow", "nope"], ["flow", "'nope'"]),
    (["--noise", "1"], ["noise", "deep_linear"]),
])  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(args, names, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["simulate", *SMALL, *args, "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and all(name in printed.err for name in names), printed.err
    assert not out.exists()
