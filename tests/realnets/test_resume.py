"""Runs that are killed, stopped, damaged: they go on and end with the bits of an undisturbed run."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import realnets.checkpoint as checkpoint
from ncflow.errors import BadInput
from realnets import Stopped, TwoPhase, train

#: Shared phase 1, several rates, a lane that blows up, a third stage.
SMALL = TwoPhase(
    subset=100, depth=2, width=16, batch_size=9, lr=(1e-3, 3e-3), epochs_ce=6, epochs_mse=8, measure_every=3,
    decays=(1e-4, 1e30), seeds=(0, 7), alphas=(0.5, 1.0), settle=True, settle_epochs=6,
)  # fmt: skip
BATCHNORM = TwoPhase(
    architecture="residual_mlp", subset=100, depth=2, width=16, batch_size=8, lr=0.05, optimiser="sgd", epochs_ce=3,
    epochs_mse=4, measure_every=2, decays=1e-3, seeds=(0, 1), schedule="multistep", milestones_mse=2, decay_biases=False,
)  # fmt: skip
ROOT = Path(__file__).parents[2]
CHILD = """
import json, sys
from realnets import TwoPhase, train
train(TwoPhase(**json.loads(sys.argv[1])), checkpoint=sys.argv[2], every=int(sys.argv[3]))
"""


def same(a, b):
    """Bit for bit, metrics and weights."""
    assert list(a.final) == list(b.final) and set(a.data.variables) == set(b.data.variables)
    for name in a.final:
        np.testing.assert_array_equal(a.final[name], b.final[name], err_msg=name)
    for name in a.data.variables:
        np.testing.assert_array_equal(a.data[name].values, b.data[name].values, err_msg=str(name))


@pytest.fixture(scope="module")
def undisturbed():
    return train(SMALL)


class Kill(Exception):
    """Stands for the end of the process."""


def until(epoch):
    def watch(at):
        if at.epoch == epoch:
            raise Kill

    return watch


@pytest.mark.parametrize("epoch", [1, 6, 7, 13, 14, 15, 19])
def test_from_every_place_it_goes_on_to_the_same_bits(undisturbed, tmp_path, epoch):
    said = []
    with pytest.raises(Kill):
        train(SMALL, checkpoint=tmp_path, every=1, watch=until(epoch), note=said.append)
    result = train(SMALL, checkpoint=tmp_path, every=4, note=said.append)
    same(result, undisturbed)
    assert said == ([f"going on from epoch {epoch - 1} of 20 in {tmp_path}"] if epoch > 1 else [])
    assert result.provenance["resumed"] == ([epoch - 1] if epoch > 1 else [])
    assert {p.suffix for p in tmp_path.iterdir()} == {".pt", ".json", ".nc", ".npz", ""}
    assert len(list(tmp_path.glob("*.pt"))) == 2


def test_running_statistics_and_momentum_go_on(tmp_path):
    whole = train(BATCHNORM)
    for epoch in (2, 5):
        with pytest.raises(Kill):
            train(BATCHNORM, checkpoint=tmp_path, every=1, watch=until(epoch), note=str)
    same(train(BATCHNORM, checkpoint=tmp_path, note=str), whole)
    assert any(name.startswith("mean_") for name in whole.final)


def test_killed_at_random_moments_by_the_system(tmp_path):
    """SIGKILL, again and again, in a process of its own, until it gets through."""
    protocol = replace(SMALL, epochs_mse=40, settle=False, measure_every=2, settle_epochs=None, diverged_after=None)
    rng, killed, folder = random.Random(1), 0, tmp_path / "run"
    command = [sys.executable, "-c", CHILD, json.dumps(protocol.config()), str(folder), "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    while True:
        child = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        before = len(list(folder.glob("epoch-*.json"))) and max(folder.glob("epoch-*.json"))
        if killed < 2:
            while child.poll() is None and (not folder.exists() or max(folder.glob("epoch-*.json"), default=0) == before):
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.08))
            child.send_signal(signal.SIGKILL)
        errors = child.communicate(timeout=60)[1]
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, errors
        killed += 1
    assert killed == 2 and (folder / "finished.json").exists()
    same(train(protocol, checkpoint=folder), train(protocol))


def test_a_finished_run_is_not_run_again(undisturbed, tmp_path, monkeypatch):
    first = train(SMALL, checkpoint=tmp_path)
    monkeypatch.setattr("realnets.run.Run.epoch", None)
    again = train(SMALL, checkpoint=tmp_path)
    same(again, first)
    assert again.data.identical(first.data)
    same(again, undisturbed)


@pytest.mark.parametrize("damage", ["truncated", "altered", "gone", "manifest", "renamed"])
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_used(undisturbed, tmp_path, damage):
    with pytest.raises(Kill):
        train(SMALL, checkpoint=tmp_path, every=3, watch=until(10))
    path = tmp_path / "epoch-000009.pt"
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:-100])
    elif damage == "altered":
        path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    elif damage == "gone":
        path.unlink()
    elif damage == "manifest":
        path.with_suffix(".json").write_text('{"version": 1')
    else:  # the state of epoch 9 under another name
        for suffix in (".pt", ".json"):
            text = path.with_suffix(suffix).read_bytes()
            path.with_name(f"epoch-000012{suffix}").write_bytes(text.replace(b"epoch-000009.pt", b"epoch-000012.pt"))
            path.with_suffix(suffix).unlink()
    said = []
    same(train(SMALL, checkpoint=tmp_path, note=said.append), undisturbed)
    name = "epoch-000012" if damage == "renamed" else "epoch-000009"
    assert said[0].startswith(f"checkpoint {name} in {tmp_path} is refused: ") and "going on from epoch 6" in said[1]
    assert all("\n" not in line for line in said)


def test_a_damaged_record_is_made_again(undisturbed, tmp_path):
    train(SMALL, checkpoint=tmp_path)
    (tmp_path / "final.npz").write_bytes(b"")
    said = []
    same(train(SMALL, checkpoint=tmp_path, note=said.append), undisturbed)
    assert "final.npz is truncated or altered" in said[0]
    said.clear()
    train(SMALL, checkpoint=tmp_path, note=said.append)
    assert said == []


def test_a_full_disk_leaves_a_resumable_run(undisturbed, tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def full(number):
        calls.append(number)
        if len(calls) > 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(Stopped, match=r"stopped at epoch 9 of 20: .*No space left.*; the checkpoint of epoch 6 is kept") as error:
        train(SMALL, checkpoint=tmp_path, every=3)
    assert error.value.code == 1 and not list(tmp_path.glob("*.partial"))
    monkeypatch.undo()
    same(train(SMALL, checkpoint=tmp_path, note=str), undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_finish_the_epoch_and_keep_it(undisturbed, tmp_path, number):
    before = signal.getsignal(number)

    def watch(at):
        if at.epoch == 5:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped, match="stopped at epoch 5 of 20") as error:
        train(SMALL, checkpoint=tmp_path, every=100, watch=watch)
    assert error.value.code == 128 + number and signal.getsignal(number) is before
    assert [p.name for p in tmp_path.glob("*.pt")] == ["epoch-000005.pt"]
    same(train(SMALL, checkpoint=tmp_path, note=str), undisturbed)


def test_a_second_signal_stops_at_once(tmp_path):
    def watch(at):
        if at.epoch == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="at once"):
        train(SMALL, checkpoint=tmp_path, every=2, watch=watch)
    assert sorted(p.name for p in tmp_path.glob("*.pt")) == ["epoch-000002.pt", "epoch-000004.pt"]


def test_another_configuration_or_version_or_data_is_refused(tmp_path):
    with pytest.raises(Kill):
        train(SMALL, checkpoint=tmp_path, every=2, watch=until(5))
    held = sorted(tmp_path.iterdir())
    with pytest.raises(BadInput, match=r"checkpoint = .* of this run; it holds another \(momentum 0.9 there, 0.8 here\)"):
        train(replace(SMALL, momentum=0.8), checkpoint=tmp_path)
    with pytest.raises(BadInput, match=r"it holds another \(other data, device or dtype\)"):
        train(SMALL, checkpoint=tmp_path, dtype="float64")
    for path in tmp_path.glob("*.json"):
        path.write_text(path.read_text().replace('"version": 1', '"version": 0'))
    with pytest.raises(BadInput, match="checkpoints of version 1, not 0"):
        train(SMALL, checkpoint=tmp_path)
    assert sorted(tmp_path.iterdir()) == held


def test_two_processes_do_not_share_a_folder(tmp_path):
    def watch(at):
        with pytest.raises(BadInput, match="no other process"):
            train(SMALL, checkpoint=tmp_path)
        raise Kill

    with pytest.raises(Kill):
        train(SMALL, checkpoint=tmp_path, watch=watch)


def test_refusals(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"checkpoint = .*: a folder that can be written"):
        train(SMALL, checkpoint=tmp_path / "file")
    with pytest.raises(BadInput, match="every = 0: a whole number"):
        train(SMALL, checkpoint=tmp_path, every=0)
