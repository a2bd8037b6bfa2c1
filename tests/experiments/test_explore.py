"""The explorer's JavaScript, run by node, against `theory/` and the engine; the page and the command that writes it."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest

from experiments.cli import main
from experiments.commands import explore
from experiments.explore import build
from experiments.explore.reference import (
    DEFAULT,
    closed_forms,
    collapse,
    draw,
    model_of,
    path,
    simulated,
    start_scatter,
)
from theory import fixed_point, fold, time_to_collapse

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node, which runs the page's JavaScript, is not installed")
PURE = build.SCRIPTS[:-1]  # all but what needs a document


def evaluate(expression: str, data):
    """The JSON value of a JavaScript `expression` of `data` next to the page's scripts; no NaN or infinity is lost."""
    assert NODE is not None
    spell = '(k, v) => typeof v === "number" && !Number.isFinite(v) ? String(v) : v'
    script = f"{build.source(*PURE)}\nconst data = {json.dumps(data)};\nconsole.log(JSON.stringify({expression}, {spell}));"
    done = subprocess.run([NODE, "-"], input=script, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def off(name: str, here, there, setting) -> float:
    """Difference relative to the size of `there`; of what can vanish relative to 1, or to c for a squared loss."""
    if there is None or isinstance(there, bool | str | int) or here is None:
        return 0.0 if here == there else math.inf
    if isinstance(there, list):
        assert len(here) == len(there)
        return max(off(name, a, b, setting) for a, b in zip(here, there, strict=True))
    if isinstance(there, dict):
        return max(off(key, here[key], value, setting) for key, value in there.items())
    here, there = float(here), float(there)
    if not math.isfinite(there):
        return 0.0 if str(here) == str(there) else math.inf
    unit = {"cosine": 1.0, "bias": 1.0, "logNC1": 1.0}.get(name, abs(there) or 1.0)
    return abs(here - there) / (setting["c"] if name == "loss" and setting["loss"] == "mse" else unit)


def worst(settings, here, there) -> tuple[float, str]:
    return max((off(name, row[name], value, setting), f"{name} of {setting}: {row[name]} against {value}")
               for setting, row, values in zip(settings, here, there, strict=True) for name, value in values.items())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(folder, HTML text) of the command's own page."""
    out = tmp_path_factory.mktemp("explore") / "new"
    assert main(["explore", "--out", str(out), "--no-open"]) == 0
    return out, (out / "explore.html").read_text(encoding="utf-8")


def embedded(text: str):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


@needs_node
def test_closed_forms():
    settings = draw(200, seed=11)
    there = [closed_forms(s) for s in settings]
    kinds = {(s["kind"], s["loss"], s["bias"], v["exists"]) for s, v in zip(settings, there, strict=True)}
    assert len(kinds) >= 12 and {v.get("regime") for v in there} >= {"COLLAPSE", "METASTABLE", "VANISHING", "FLOOR"}
    error, where = worst(settings, evaluate("data.map(closedForms)", settings), there)
    assert error <= 1e-9, where


@needs_node
def test_collapse_times():
    settings = [s for s in draw(220, seed=12)
                if s["kind"] == "free" and s["loss"] == "mse" and build.timed(s, closed_forms(s)["edge.fold.factor"])][:40]
    scatters = [start_scatter(s) for s in settings]
    there = [collapse(s, S) | {"scatter": S} for s, S in zip(settings, scatters, strict=True)]
    assert sum(v["vanishes"] for v in there) >= 3 and sum(not v["vanishes"] for v in there) >= 10
    here = evaluate("data.map(m => ({ ...timeToCollapse(m), scatter: startOf(m).scatter }))", settings)
    error, where = worst(settings, here, there)
    assert error <= 1e-7, where


@needs_node
def test_trajectories():
    settings = [s for s in draw(60, seed=13) if s["kind"] == "free" and s["loss"] == "mse" and s["bias"] != "decayed"][:12]
    times = [[0.1 / s["lw"], 1 / s["lw"], 4 / s["lw"]] for s in settings]
    there = [path(s, t) for s, t in zip(settings, times, strict=True)]
    small = [build.SMALL | change for change in (
        dict(loss="cross_entropy", M=2, bias="free", theta=3.0), dict(loss="cross_entropy", M=1, K=4, n=6, lw=0.02),
        dict(kind="data", M=3, r=0.5), dict(kind="data", M=2, bias="free", v2=0.4), dict(M=2, theta=0.5))]
    there += [simulated(s, list(build.PROBES)) for s in small]
    settings, times = settings + small, times + [list(build.PROBES)] * len(small)
    here = evaluate("data.map(([m, t]) => sampled(m, t))", list(zip(settings, times, strict=True)))
    error, where = worst(settings, here, there)
    assert error <= 1e-7, where


def test_simulated_reference_is_the_aligned_flow():
    setting = build.SMALL | dict(M=3, theta=2.0)
    a, b = simulated(setting, list(build.PROBES)), path(setting, list(build.PROBES))
    assert np.allclose(a["fn"], b["fn"], rtol=1e-8) and np.allclose(a["logNC1"], b["logNC1"], atol=1e-8)


@needs_node
@pytest.mark.parametrize("change", [dict(kind="data", M=3, lw=0.1, r=2.0, v2=0.3), dict(M=2, lw=0.07, lh=0.07)])
def test_start_in_the_basin_of_zero(change):
    base = build.SMALL | change
    low = evaluate("(() => { const t = tensionOf(data); return modeRoots(t.D, t.gamma).low; })()", base)
    assert 1e-3 < low < 0.5
    settings = [base | dict(s0=s0) for s0 in (0.97 * low, 1.03 * low)]
    lost = evaluate("data.map(m => timeToCollapse(m).vanishes)", settings)
    ends = [simulated(s, [2000.0])["fn"][0] for s in settings]
    assert lost == [True, False]
    assert ends[0] < 1e-6 and ends[1] == pytest.approx(fixed_point(model_of(base)).feature_norm, rel=1e-6)


@needs_node
def test_cells_of_the_phase_diagram():
    base = dict(DEFAULT, lh=1e-3, bias="free", theta=2.0, s0=0.2)
    places = [(j, M) for j in (20, 40, 50, 58, 66) for M in (1, 3, 6)]
    cells = "[cellSetting(data[0], j, M), cell(data[0], j, M, 'time'), cell(data[0], j, M, 'fn')]"
    rows = evaluate(f"data[1].map(([j, M]) => {cells})", [base, places])
    states = set()
    for setting, timed, rest in rows:
        assert setting["lh"] / setting["lw"] == pytest.approx(base["lh"] / base["lw"], rel=1e-12)
        model = model_of(setting)
        gone = fold(model).factor <= 1
        assert (timed["state"] == "gone") == (rest["state"] == "gone") == gone
        states.add(timed["state"])
        if gone:
            continue
        found = time_to_collapse(model, setting["eps"], signal=setting["s0"], scatter=start_scatter(setting))
        assert (timed["state"] == "lost") == (found.regime.name == "VANISHING")
        if timed["state"] == "":
            assert timed["value"] == pytest.approx(found.time, rel=1e-3)
        assert rest["value"] == pytest.approx(fixed_point(model).feature_norm, rel=1e-9)
    assert states >= {"", "gone"}


@needs_node
def test_integrator_has_order_four():
    setting = DEFAULT | dict(M=3, lh=1e-3)
    ends = evaluate("""[0.4, 0.2, 0.1].map(dt => {
        const step = stepper(data), start = startOf(data), out = [start.h, start.w, 0];
        for (let i = 0; i < Math.round(8 / dt); i++) step(out[0], out[1], dt, out);
        return [out[0], out[1]]; })""", setting)
    exact = evaluate("""(() => { let end;
        integrate(data, startOf(data), 8, 1e-14, (t0, h0, w0, t, h, w) => { end = [h, w]; });
        return end; })()""", setting)
    errors = [np.abs(np.array(end) - exact).max() for end in ends]
    assert 3.7 < np.log2(errors[0] / errors[1]) < 4.6 and 3.7 < np.log2(errors[1] / errors[2]) < 4.6


@needs_node
def test_self_check_agrees_and_can_fail(written):
    rows = embedded(written[1])["rows"]
    good = evaluate("selfCheck(data)", rows)
    assert good["agrees"] and good["closed"]["count"] > 1000 and good["flow"]["count"] > 50
    assert good["closed"]["worst"] <= 1e-9 and good["flow"]["worst"] <= 1e-8
    timed = next(i for i, row in enumerate(rows) if "collapse" in row and isinstance(row["collapse"]["time"], float))
    missing = next(i for i, row in enumerate(rows) if row.get("closed", {}).get("saddle") is None and "closed" in row)
    for i, key, name, value in [
        (0, "closed", "fn", rows[0]["closed"]["fn"] * (1 + 1e-8)), (0, "closed", "regime", "FLOOR"),
        (0, "closed", "cosine", "NaN"), (0, "closed", "layers", []), (missing, "closed", "saddle", {"fn": 1.0}),
        (timed, "collapse", "time", rows[timed]["collapse"]["time"] * (1 + 1e-6)), (len(rows) - 1, "path", "fn", [1.0, 1.0, 1.0]),
    ]:
        bad = copy.deepcopy(rows)
        bad[i][key][name] = value
        assert not evaluate("selfCheck(data)", bad)["agrees"], (key, name)
    assert not evaluate("selfCheck(data)", [])["agrees"]


@needs_node
def test_python_call_reproduces_the_numbers():
    settings = [DEFAULT | change for change in (
        {}, dict(M=3, bias="free", lh=1e-3, theta=2.5), dict(kind="data", M=4, K=10, bias="free"),
        dict(loss="cross_entropy", M=2, c=0.1), dict(bias="decayed", lb=0.2), dict(lw=0.5, lh=0.5, M=2, kind="data"))]
    for setting, text in zip(settings, evaluate("data.map(pythonOf)", settings), strict=True):
        code, _, calls = text.partition(")\nfixed_point(model)")
        space: dict = {}
        exec(code + ")", space)
        lines = ("fixed_point(model)" + calls).splitlines()
        assert len(lines) >= (2 if setting["loss"] == "mse" else 1)
        for line in lines:
            call, said = line.split("  # ")
            assert eval(call, space) == pytest.approx(float(said), rel=1e-7, nan_ok=True), (line, setting)


@needs_node
def test_setting_in_the_address():
    states = [{}, dict(K=7, lw=3e-6, bias="free"), dict(kind="data", v2=0, r=12.5), dict(tie=False, lh=5e-4, map="fn"),
              dict(clock="linear")]
    full = [DEFAULT | dict(tie=True, map="time", clock="log") | state for state in states]
    expression = "data[1].map(s => { const a = toAddress(s, data[0]); return [a, fromAddress('#' + a, data[0])]; })"
    addresses, back = zip(*evaluate(expression, [DEFAULT, full]), strict=True)
    assert list(back) == full and addresses[0] == ""
    plain = DEFAULT | dict(tie=True, map="time", clock="log")
    for wrong in ("#K=1", "#K=2.5", "#lw=0", "#lw=x", "#bias=<b>", "#loss=hinge", "#K", "#nope=3", "#M=1e9"):
        assert evaluate("fromAddress(data[1], data[0])", [DEFAULT, wrong]) == plain, wrong


@needs_node
@pytest.mark.parametrize("key", ["K", "lw", "v2", "M"])
def test_sliders_cover_their_range(key):
    low, high, *_ = evaluate("RANGES[data]", key)
    found = evaluate("[0, 0.37, 1].map(u => ofSlider(data, u)).concat([0.37].map(u => toSlider(data, ofSlider(data, u))))", key)
    assert found[0] == (0 if key == "v2" else low) and found[2] == high
    assert low < found[1] < high and found[3] == pytest.approx(0.37, abs=0.05)
    assert evaluate("['1/0', '', '-1', 'x', '1e99', '1/2/3'].map(t => accept(data, t))", key) == [None] * 6
    assert evaluate("accept('c', '1/4')", key) == 0.25


def test_page_is_self_contained(written):
    text = written[1]
    assert "{{" not in text and len(text.encode()) < 250_000
    assert not re.findall(r"https?://|//cdn|\bsrc\s*=|\bimport\s*[({\"']|fetch\(|XMLHttpRequest|@import|url\((?!#)", text)
    assert re.findall(r'href="([^"]*)"', text) == ["data:,"]
    assert "default-src 'none'" in text and text.count("<script") == 2
    assert embedded(text)["default"] == DEFAULT


def test_command(tmp_path, capsys, monkeypatch, written):
    opened = []
    rows = embedded(written[1])["rows"]
    monkeypatch.setattr(build, "reference", lambda progress: rows)
    monkeypatch.setattr(explore.webbrowser, "open", lambda address: opened.append(address) or True)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(explore.sys, "platform", "linux")
    target = tmp_path / "explore.html"
    assert main(["explore", "--out", str(tmp_path)]) == 0
    assert "no display" in capsys.readouterr().out and not opened
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(["explore", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"page: {target}\n" and opened == [target.as_uri()]
    assert main(["explore", "--out", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert printed.err == "" and report["files"]["page"] == str(target) and len(opened) == 1
    assert report["bytes"] == target.stat().st_size and report["reference_settings"] == len(rows)
    assert [p.name for p in tmp_path.iterdir()] == ["explore.html"]


def test_bad_folder_is_one_line_and_nothing_is_computed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(build, "reference", lambda progress: pytest.fail("computed before the folder was checked"))
    (tmp_path / "file").write_text("in the way")
    assert main(["explore", "--out", str(tmp_path / "file"), "--no-open"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "out" in printed
    assert main(["explore", "--nope"]) == 2


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    target = build.write("old", tmp_path / "explore.html")

    def fail(*_):
        raise OSError("full")

    monkeypatch.setattr(build.os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        build.write("new", target)
    assert target.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
