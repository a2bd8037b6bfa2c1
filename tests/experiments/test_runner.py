"""Sweeps: what is needed is made once, what is there is found whoever made it, what dies can go on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import realnets.checkpoint as checkpoint
from experiments.cli import main
from experiments.sweeps import Catalogue, Held, Job, Study, plan
from experiments.sweeps.catalogue import key
from experiments.sweeps.cost import Costs, kind, time_kind
from experiments.sweeps.processes import processes
from experiments.sweeps.sweep import inline, sweep
from ncflow import Trajectory
from ncflow.errors import BadInput
from realnets import Lane, TwoPhase, train

ROOT = Path(__file__).parents[2]
SMALL = TwoPhase(
    subset=100, depth=2, width=12, batch_size=25, epochs_ce=2, epochs_mse=3, measure_every=1, decays=(1e-3,), seeds=(0,)
)


@dataclass(frozen=True, kw_only=True)
class Double(Study):
    """A study that is over at once."""

    kind: ClassVar[str] = "double"
    value: float

    def run(self, *, root, progress):
        progress(1.0)
        data = xr.Dataset({"twice": ("lane", [2 * self.value])}, attrs={"provenance": json.dumps({"config": self.config()})})
        return Trajectory(data)


def needs(lanes, **changes):
    """One setting per lane, as experiments ask for them."""
    return [replace(SMALL, decays=(x.decay,), lr=x.lr, alphas=(x.alpha,), seeds=(x.seed,), **changes) for x in lanes]


def inside(out, jobs, executor=inline, **how):
    return sweep(jobs, out, executor, **{"device": "cpu", "root": None, "every": 1} | how)


lanes = st.builds(Lane, st.sampled_from([1e-4, 1e-3, 1e-2]), st.sampled_from([1e-3, 3e-3]), st.sampled_from([0.3, 1.0]),
                  st.integers(0, 3))  # fmt: skip


@given(st.lists(lanes, min_size=1, max_size=20), st.sets(lanes), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_jobs_hold_every_lane_that_is_not_there_exactly_once(wanted, there, most):
    held = Catalogue(tuple(Held(str(i), Path(), s, True) for i, s in enumerate(needs(there))))
    todo = plan(needs(wanted), held, most=lambda setting: most)
    made = [lane for job in todo.jobs for lane in job.setting.lanes]
    assert sorted(made) == sorted(set(wanted) - there)
    assert todo.needed == len(set(wanted)) and todo.finished == len(set(wanted) & there)
    for job in todo.jobs:
        assert key(job.setting) == key(SMALL)
        assert job.lanes <= most or len(job.setting.lanes) == len(job.setting.alphas), "only arms that share phase 1 exceed it"


def test_what_differs_beside_lanes_and_looks_is_another_run():
    for changes in ({"width": 13}, {"epochs_mse": 4}, {"activation": "gelu"}, {"second_loss": "cross_entropy"}, {"stop": "t_nc"},
                    {"optimiser": "sgd"}):  # fmt: skip
        assert len(plan([SMALL, replace(SMALL, **changes)], Catalogue()).jobs) == 2, changes
    for changes in ({"measure_every": 2}, {"threshold": 0.05}, {"nc1": "cdnv"}, {"layerwise": True}):
        (job,) = plan([SMALL, replace(SMALL, **changes)], Catalogue()).jobs
        assert job.setting.measure_every == 1 and job.setting.layerwise == changes.get("layerwise", False)


@pytest.mark.parametrize(("here", "need", "serves"), [
    ({}, {}, True),
    ({"measure_every": 1}, {"measure_every": 2}, True),
    ({"measure_every": 2}, {"measure_every": 1}, False),
    ({"measure_every": 2}, {"measure_every": 3}, False),
    ({"layerwise": True}, {}, True),
    ({}, {"layerwise": True}, False),
    ({"settle": True}, {}, True),
    ({}, {"settle": True}, False),
    ({"decays": (1e-3, 1e-4)}, {"decays": (1e-4,)}, True),
    ({"stop": "t_nc"}, {}, False),
    ({"stop": "t_nc"}, {"stop": "t_nc", "threshold": 0.05}, False),
    ({"subset": 200}, {}, False),
])  # fmt: skip
def test_a_record_serves_what_it_holds(here, need, serves):
    assert Held("", Path(), replace(SMALL, **here), True).serves(replace(SMALL, **need)) is serves


def test_a_run_that_training_made_is_found_lane_by_lane(tmp_path):
    both = replace(SMALL, decays=(1e-3, 1e-2), seeds=(0, 1))
    train(both, checkpoint=tmp_path / "deep" / "anywhere")
    held = Catalogue.scan([tmp_path])
    todo = plan(needs([Lane(1e-2, SMALL.lrs[0], 1.0, 1), Lane(1e-2, SMALL.lrs[0], 1.0, 2)]), held)
    (job,) = todo.jobs
    assert todo.finished == 1 and job.setting.seeds == (2,)
    run = held.find(replace(SMALL, decays=(1e-2,)), Lane(1e-2, SMALL.lrs[0], 1.0, 0))
    assert run is not None and run.record().lanes == 4


def test_studies_are_made_once(tmp_path):
    jobs = plan([Double(value=1.0), Double(value=1.0), Double(value=2.0)], Catalogue()).jobs
    assert len(jobs) == 2 and all(not r.error for r in inside(tmp_path, jobs))
    held = Catalogue.scan([tmp_path])
    assert plan([Double(value=1.0), Double(value=3.0)], held).jobs == (Job(Double(value=3.0)),)
    assert float(held.find(Double(value=2.0)).record().data["twice"][0]) == 4.0


@pytest.mark.parametrize("spoil", ["version", "unknown", "record", "manifest", "missing"])
def test_what_cannot_be_used_is_said_in_a_line_and_made_again(tmp_path, spoil):
    train(SMALL, checkpoint=tmp_path / "run")
    manifest = tmp_path / "run" / "finished.json"
    content = json.loads(manifest.read_text())
    if spoil == "version":
        manifest.write_text(json.dumps({**content, "version": 99}))
    elif spoil == "unknown":
        manifest.write_text(json.dumps({**content, "config": {**content["config"], "warp": 9}}))
    elif spoil == "record":
        path = tmp_path / "run" / "record.nc"
        path.write_bytes(path.read_bytes()[:-10])
    elif spoil == "manifest":
        manifest.write_text("{")
    else:
        (tmp_path / "run" / "record.nc").unlink()
    held = Catalogue.scan([tmp_path])
    assert held.held == () and len(held.notes) == 1
    words = {"version": "version 99", "unknown": "warp", "record": "truncated", "manifest": "manifest", "missing": "record.nc"}
    assert words[spoil] in held.notes[0] and "run" in held.notes[0] and "\n" not in held.notes[0]
    assert len(plan([SMALL], held).jobs) == 1


def test_a_run_that_fails_is_reported_and_the_others_go_on(tmp_path):
    bad = replace(SMALL, decays=(1e30,), optimiser="sgd")
    lost = replace(SMALL, dataset="mnist", subset=None)
    told = []
    results = inside(tmp_path, [Job(bad), Job(lost), Job(SMALL)], root=str(tmp_path / "nowhere"), note=told.append)
    assert [bool(r.error) for r in results] == [True, True, False]
    assert "decay 1e+30" in results[0].error and "mnist" in results[1].error
    assert len([line for line in told if line.startswith("failed")]) == 2
    assert len(Catalogue.scan([tmp_path]).finished) == 2, "what left the finite numbers has a record of that"


def test_a_full_disk_fails_the_run_and_keeps_what_was_kept(tmp_path, monkeypatch):
    write = checkpoint.Store._write

    def full(self, name, content):
        if name.startswith("epoch-000003"):
            raise checkpoint.DiskTrouble(errno.ENOSPC, "No space left on device")
        write(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Store, "_write", full)
        (result,) = inside(tmp_path, [Job(SMALL)])
    assert "No space" in result.error
    (part,) = Catalogue.scan([tmp_path]).partial
    assert (part.done, part.epochs) == (2, 5)
    (job,) = plan([SMALL], Catalogue.scan([tmp_path])).jobs
    assert job.resumes == 2 and not inside(tmp_path, [job])[0].error
    assert Catalogue.scan([tmp_path]).finished[0].record().provenance["resumed"] == [2]


def test_processes_make_the_same_bits_and_one_that_is_killed_takes_no_other(tmp_path):
    long = replace(SMALL, epochs_mse=4000, seeds=(1,))
    jobs = [Job(long), *(Job(replace(SMALL, seeds=(k,))) for k in (2, 3))]
    told = processes(jobs, tmp_path, device="cpu", root=None, every=1, workers=2)
    ended, killed = {}, False
    for event in told:
        if event.ended:
            ended[event.job] = event.error
        if not killed and event.job == 0 and event.share:
            folder = next((p.folder for p in Catalogue.scan([tmp_path]).partial if p.epochs > 9), None)
            if folder is not None:
                os.kill(owner(folder / "lock"), signal.SIGKILL)
                killed = True
    assert killed and "SIGKILL" in ended[0] and ended[1] == ended[2] == ""
    held = Catalogue.scan([tmp_path])
    assert len(held.finished) == 2 and len(held.partial) == 1 and held.partial[0].done >= 1
    for k in (2, 3):
        mine = replace(SMALL, seeds=(k,))
        one = held.find(mine, mine.lanes[0])
        assert one is not None
        xr.testing.assert_identical(one.record().data.drop_attrs(), train(mine).data.drop_attrs())


def owner(path: Path) -> int:
    """The process that holds `path` open."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (
                any(os.path.realpath(f) == str(path.resolve()) for f in (folder / "fd").iterdir())
                and int(folder.name) != os.getpid()
            ):
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError(f"nobody holds {path}")


def test_closing_the_executor_stops_its_processes_with_a_checkpoint(tmp_path):
    told = processes([Job(replace(SMALL, epochs_mse=4000))], tmp_path, device="cpu", root=None, every=1000, workers=2)
    for event in told:
        if event.share:
            break
    told.close()
    (part,) = Catalogue.scan([tmp_path]).partial
    assert 1 <= part.done < 4002


def test_a_fault_in_one_process_is_told_by_name(tmp_path):
    (told,) = [e for e in processes([Job(Broken(value=1.0))], tmp_path, device="cpu", root=None, every=1, workers=2) if e.ended]
    assert "ZeroDivisionError" in told.error and "\n" not in told.error


@dataclass(frozen=True, kw_only=True)
class Broken(Double):
    kind: ClassVar[str] = "broken"

    def run(self, *, root, progress):
        raise ZeroDivisionError("a fault")


def test_costs_are_of_what_is_left_and_add_up():
    costs = Costs.table_of()
    whole = TwoPhase(seeds=(0, 1, 2), decays=(1e-4,))
    assert kind(whole) in costs.table
    job = Job(whole)
    half = Job(whole, resumes=whole.epochs // 2)
    assert 0 < costs.seconds(half) < costs.seconds(job)
    assert costs.seconds(half) == pytest.approx(costs.seconds(job) / 2, rel=0.02)
    assert costs.wall([job, half], 1) == pytest.approx(costs.seconds(job) + costs.seconds(half))
    assert costs.wall([job, job], 2) == pytest.approx(costs.together * costs.seconds(job))
    costs.ratio = 3.0
    assert costs.seconds(job) == pytest.approx(3 * Costs.table_of().seconds(job))
    assert costs.seconds(Job(Double(value=1.0))) == 0 and costs.unknown == {"double"}


def test_a_kind_that_is_not_in_the_table_is_timed():
    costs = Costs.table_of()
    odd = replace(SMALL, width=17)
    assert kind(odd) not in costs.table and costs.seconds(Job(odd)) > 0 and kind(odd) in costs.measured
    pace = time_kind(odd, (1, 2), seconds=0.01)
    assert pace.at(4)[0] == pytest.approx(2 * pace.step[1])


COMMAND = ["run", "depth", "--preset", "smoke", "--workers", "1"]


@pytest.mark.parametrize(("args", "names"), [
    (["run"], ["experiment", "depth"]),
    (["run", "detph"], ["experiment", "'detph'", "did you mean depth"]),
    (["run", "depth", "--preset", "papper"], ["preset", "'papper'", "did you mean paper"]),
    (["run", "depth", "--preset", "laptop-resnet"], ["preset", "laptop-resnet", "depth"]),
    ([*COMMAND, "--workers", "0"], ["workers", "0", "1 or more"]),
    ([*COMMAND, "--budget", "soon"], ["budget", "'soon'", "45m"]),
    ([*COMMAND, "--budget", "0s"], ["budget", "needed", "fewer experiments"]),
    ([*COMMAND, "--executor", "cloud"], ["executor", "'cloud'", "ray"]),
    ([*COMMAND, "--records", "nowhere"], ["records", "'nowhere'"]),
    ([*COMMAND, "--every", "0"], ["every", "0"]),
    ([*COMMAND, "--device", "tpu"], ["device", "'tpu'"]),
])  # fmt: skip
def test_bad_input_is_one_line(args, names, tmp_path, capsys):
    assert main([*args, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and "Traceback" not in printed.err
    for name in names:
        assert name in printed.err
    assert not (tmp_path / "out").exists()


def test_run_is_done_once_and_told_as_json(tmp_path, capsys):
    args = [*COMMAND, "--out", str(tmp_path), "--json"]
    assert main([*args, "--plan"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (
        planned["finished"] == 0 and planned["lanes"] == sum(j["lanes"] for j in planned["jobs"]) and not list(tmp_path.iterdir())
    )
    assert main(args) == 0
    printed = capsys.readouterr()
    first = json.loads(printed.out)
    assert printed.err == "" and len(first["done"]) == len(first["jobs"]) == len(planned["jobs"]) and first["failed"] == []
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.nc")}
    assert len(times) == len(first["jobs"])
    assert main(args) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["jobs"] == [] and again["finished"] == again["lanes"] == first["lanes"]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.nc")} == times
    assert main(["list", "--out", str(tmp_path), "--json"]) == 0
    listed = {e["name"]: e for e in json.loads(capsys.readouterr().out)["experiments"]}
    assert listed["depth"]["presets"]["smoke"] == {"needed": first["lanes"], "finished": first["lanes"]}
    assert listed["width"]["presets"]["smoke"]["finished"] < listed["width"]["presets"]["smoke"]["needed"]


def test_tables_fit_and_help_has_an_example(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["run", "all", "--preset", "laptop", "--plan", "--out", str(tmp_path)]) == 0
    assert main(["list", "--out", str(tmp_path)]) == 0
    assert all(len(line) <= 100 for line in capsys.readouterr().out.splitlines())
    assert main(["run", "--help"]) == 0
    assert "ncflow run all --preset smoke" in capsys.readouterr().out


LONG = """
import sys
from dataclasses import replace
from experiments.cli import main
from experiments.paper import depth
conditions = tuple(replace(c, setting=replace(c.setting, epochs_mse=5000)) for c in depth.conditions("smoke"))
object.__setattr__(depth.EXPERIMENT, "conditions", lambda preset: conditions)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_everything_resumable(tmp_path, number, code):
    args = ["run", "depth", "--preset", "smoke", "--workers", "2", "--every", "1", "--out", str(tmp_path)]
    child = subprocess.Popen(
        [sys.executable, "-c", LONG, *args], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.time() + 60
    while child.poll() is None and len({p.parent for p in tmp_path.glob("*/epoch-*.json")}) < 2 and time.time() < until:
        time.sleep(0.02)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == code and "the same command goes on from there" in err and "Traceback" not in err, err
    held = Catalogue.scan([tmp_path])
    assert len(held.partial) == 2 and all(p.done >= 1 for p in held.partial) and not list(tmp_path.rglob("*partial*"))


RAY = """
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from experiments.sweeps import Job
from experiments.sweeps.cluster import ray_tasks
from experiments.sweeps.sweep import sweep
from realnets import TwoPhase
base = TwoPhase(subset=100, depth=2, width=12, batch_size=5, epochs_ce=2, epochs_mse=int(sys.argv[2]), measure_every=50,
                decays=(1e-3,))
jobs = [Job(replace(base, seeds=(k,))) for k in range(4)]
with redirect_stdout(sys.stderr):  # as the command does: Ray talks on stdout
    results = sweep(jobs, Path(sys.argv[1]), ray_tasks, device="cpu", root=None, every=1, workers=2)
for r in results:
    print(r.folder, r.error)
"""


@pytest.mark.slow
def test_a_ray_worker_that_is_killed_loses_nothing_and_nothing_is_made_twice(tmp_path):
    pytest.importorskip("ray")
    out = tmp_path / "out"
    command = [sys.executable, "-c", RAY, str(out), "800"]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.time() + 120
    killed = None
    while killed is None and child.poll() is None and time.time() < until:
        for path in out.glob("*/epoch-*.json"):
            if json.loads(path.read_text())["epoch"] >= 20:
                killed = path.parent.name
                os.kill(owner(path.parent / "lock"), signal.SIGKILL)
                break
        time.sleep(0.02)
    printed, err = child.communicate(timeout=170)
    assert killed is not None and child.returncode == 0, err
    rows = [line.split(" ", 1) for line in printed.splitlines()]
    assert len(rows) == 4 and all(error == "" for _, error in rows), printed
    records = {Path(folder).name: Trajectory.load(Path(folder) / "record.nc") for folder, _ in rows}
    resumed = {name: record.provenance["resumed"] for name, record in records.items()}
    assert len(records) == 4 and len(resumed[killed]) == 1 and resumed[killed][0] >= 20
    assert all(r == [] for name, r in resumed.items() if name != killed), "what was not lost went through in one go"
    assert all(record.data["time"][-1] == 802 and np.isfinite(record.data["fn"]).all() for record in records.values())
    assert len(list(out.iterdir())) == 4


def test_ray_without_the_extra_is_said(tmp_path, monkeypatch):
    from experiments.sweeps.cluster import ray_tasks

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match="ncflow\\[cluster\\]"):
        next(ray_tasks([Job(SMALL)], tmp_path, device="cpu", root=None, every=1))
