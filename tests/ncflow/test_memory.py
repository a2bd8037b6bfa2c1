"""What does not fit is refused before it begins, with an estimate that is near the truth."""

import json
import subprocess
import sys

import pytest
import torch

from ncflow import UFM, memory, simulate
from ncflow.errors import BadInput

SMALL = UFM(classes=3, samples_per_class=4, width=5)


def test_there_is_memory_on_this_machine():
    there = memory.free(torch.device("cpu"))
    assert there is None or 2**20 < there < 2**50


@pytest.mark.parametrize(("there", "lanes", "times"), [(2000, 4, 20), (2000, 1, 100)])
def test_a_run_that_does_not_fit_is_refused(monkeypatch, there, lanes, times):
    monkeypatch.setattr(memory, "free", lambda device: there)
    with pytest.raises(BadInput, match=rf"^lanes = {lanes}: fewer.* {times} recorded times: the run needs about .* are free$"):
        simulate(SMALL, seeds=range(lanes), save_at=[float(i) for i in range(1, times + 1)])


def test_a_draw_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    """4e12 numbers: nothing of them may be allocated."""
    monkeypatch.setattr(memory, "free", lambda device: 2**40)
    with pytest.raises(BadInput, match=r"GiB, 1\.02e"):
        simulate(UFM(classes=4, samples_per_class=10**9, width=1000), until=1.0)


def test_what_the_system_does_not_say_refuses_nothing(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda device: None)
    assert simulate(SMALL, until=1.0).lanes == 1


CODE = """
import json, re
from ncflow import UFM, memory, simulate
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
told, check = [], memory.check
memory.check = lambda needed, *rest: told.append(needed) or check(needed, *rest)
run = lambda n: simulate(UFM(classes=4, samples_per_class=n, width=64), until=0.5, save_at=[0.5], flow="full")
run(10)
told.clear()
before = peak()
run(4000)
print(json.dumps([max(told), peak() - before]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_estimate_is_within_a_factor_of_two():
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    told, measured = json.loads(done.stdout)
    assert 0.5 < told / measured < 2, (told, measured)
