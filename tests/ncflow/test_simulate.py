"""`simulate` against SciPy's DOP853 on the autograd field, against closed forms, and against itself in another batch."""

import json
import os
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from ncflow import (
    UFM,
    BadInput,
    Crossing,
    Decay,
    DeepLinear,
    Isotropic,
    Rescale,
    Status,
    Trajectory,
    metrics,
    simulate,
    summarise,
)
from ncflow.errors import RunFailed
from ncflow.flows import choose
from ncflow.optimisers import GradientDescent, Phase

BIASES = ("none", "free", "decayed")
COUNTS = (2, 5, 3)
X = np.random.default_rng(7).normal(size=(4, 10))


def ufm(layers=1, bias="none", **more):
    decay = Decay(weights=[[3e-2 / (i + 1) for i in range(layers)]], features=2e-2, bias=4e-2 if bias == "decayed" else 0.0)
    return UFM(
        **(
            {
                "classes": 3,
                "samples_per_class": COUNTS,
                "width": tuple(range(4, 4 + layers)),
                "layers": layers,
                "bias": bias,
                "decay": decay,
                "mobility": 3.0,
            }
            | more
        )
    )


def deep(layers=2, bias="none", **more):
    return DeepLinear(
        **(
            {
                "inputs": X,
                "classes": 3,
                "samples_per_class": COUNTS,
                "width": tuple(range(4, 3 + layers)),
                "layers": layers,
                "bias": bias,
                "decay": 2e-2,
            }
            | more
        )
    )


small = partial(UFM, classes=3, samples_per_class=4, width=6, decay=0.02)


def blocks(run, lane=0):
    return {name: value[lane] for name, value in run.final.items()}


# Trajectories

RUNS = [pytest.param(ufm(layers, bias), "full", "dopri5", id=f"ufm-{layers}-{bias}") for layers in (1, 2, 3) for bias in BIASES]
RUNS += [
    pytest.param(deep(layers, bias), flow, "auto", id=f"deep-{layers}-{bias}-{flow}")
    for layers in (1, 2, 3)
    for bias in BIASES
    for flow in ("full", "gram")
]


@pytest.mark.parametrize("model, flow, method", RUNS)
def test_trajectories_are_those_of_dop853(model, flow, method, brute):
    initial, times = brute.initial(model, 1), [0.5, 2.0, 7.0]
    run = simulate(model, initial=initial, save_at=times, rtol=1e-10, atol=1e-13, flow=flow, method=method)
    assert run.data["time"].values.tolist() == times and run.data.attrs["flow"] == flow
    states = brute.reference(model, initial, times)
    for i, state in enumerate(states):
        at = run.data.isel(lane=0, time=i)
        assert float(at["fn"]) == pytest.approx(brute.fn(model, state), rel=1e-8)
        assert float(at["nc1_trace_ratio"]) == pytest.approx(brute.nc1(model, state), rel=1e-8)
        energy = brute.loss(model)([torch.tensor(state[n]) for n in brute.names(model)])
        assert float(at["energy"]) == pytest.approx(float(energy), rel=1e-8)
    for name, value in states[-1].items():
        np.testing.assert_allclose(run.final[name][0], value, rtol=0, atol=1e-8)


def test_the_stabilised_method_follows_the_same_trajectory(brute):
    """Its order is two, so that steps held to 1e-9 leave an error of about (1e-9)^(2/3)."""
    for model in (ufm(2, "free"), deep(2)):
        initial = brute.initial(model, 1)
        run = simulate(model, initial=initial, save_at=[0.4, 1.0], rtol=1e-9, method="rkc2")
        state = brute.reference(model, initial, [1.0])[-1]
        for name, value in state.items():
            np.testing.assert_allclose(run.final[name][0], value, rtol=0, atol=2e-6)


def test_gram_and_full_flows_agree_in_everything_recorded(brute):
    for inputs in (X, np.random.default_rng(8).normal(size=(14, 10)), X[:2] - 1):
        model = deep(3, "free", inputs=inputs, decay=[1e-2, 3e-2])
        options = {
            "save_at": [0.0, 1.0, 10.0, 50.0],
            "rtol": 1e-10,
            "method": "dopri5",
            "events": [Crossing("fn", 0.9), Crossing("cdnv", 1.0)],
        }
        full, gram = (simulate(model, initial=brute.initial(model, 2), flow=f, **options) for f in ("full", "gram"))
        assert set(full.data) == set(gram.data)
        for name in set(full.data.data_vars) - {"steps", "evaluations", "rejected", "stabilised_steps", "nc4_mismatch"}:
            np.testing.assert_allclose(gram.data[name], full.data[name], rtol=1e-7, atol=1e-9, err_msg=name)
        for name, value in full.final.items():
            np.testing.assert_allclose(gram.final[name], value, rtol=0, atol=1e-9)


def test_mobility_is_the_speed_of_the_features(brute):
    """theta = 2 from (H, W) is theta = 1 in the coordinates H / sqrt(2), whose decay and coupling change accordingly."""
    model = ufm(mobility=[1.0, 2.0])
    initial = brute.initial(model, 3)
    run = simulate(model, initial=initial, save_at=[3.0], rtol=1e-10)
    for lane in (0, 1):
        expected = brute.reference(model, initial, [3.0], lane)[-1]
        np.testing.assert_allclose(run.final["H"][lane], expected["H"], atol=1e-8)
    assert np.abs(run.final["H"][0] - run.final["H"][1]).max() > 1e-3


# Closed forms


def aligned(K, n, p, a, scatter, seed=0):
    """W = a I, class means of the same norm on the same axes, all within-class scatter outside the span of W."""
    E = np.zeros((p, K, n))
    E[K:] = np.random.default_rng(seed).normal(size=(p - K, K, n))
    E -= E.mean(2, keepdims=True)
    E *= np.sqrt(scatter / (E**2).sum())
    M = np.eye(p, K) * a / np.sqrt(n)
    return {"W": [a * np.eye(K, p)], "H": (M[:, :, None] + E).reshape(p, K * n)}


@pytest.mark.parametrize("decay", [0.003, 0.05, 0.3])
def test_aligned_flow_is_the_closed_form(decay):
    """Signal: logistic, s = s_inf/(1 + (s_inf/s_0 - 1) e^{-2(q - l)t}); NC1 = A [e^{-2lt}/s_inf + (1/s_0 - 1/s_inf) e^{-2qt}],
    A = S/((K - 1) sqrt n), also beyond the critical decay q, where the features vanish."""
    K, n, p, a, S = 3, 4, 7, 0.5, 2.0
    q = 2 * 0.5 / (K * np.sqrt(n))
    s0, s_inf = a**2 / np.sqrt(n), 1 - decay / q
    times = np.array([0.1, 1.0, 5.0, 20.0, 60.0])
    run = simulate(
        UFM(classes=K, samples_per_class=n, width=p, decay=decay),
        initial=aligned(K, n, p, a, S),
        save_at=times,
        rtol=1e-10,
        atol=1e-16,
    )
    s = run.data["weight_norm"].values[0, :, 0] ** 2 / K / np.sqrt(n)
    np.testing.assert_allclose(s, s_inf / (1 + (s_inf / s0 - 1) * np.exp(-2 * (q - decay) * times)), rtol=1e-8)
    A = S / ((K - 1) * np.sqrt(n))
    nc1 = A * (np.exp(-2 * decay * times) / s_inf + (1 / s0 - 1 / s_inf) * np.exp(-2 * q * times))
    np.testing.assert_allclose(run.data["nc1_trace_ratio"].values[0], nc1, rtol=1e-7)


def test_time_to_collapse_is_the_root_of_the_closed_form():
    K, n, p, a, S, decay = 3, 4, 7, 0.5, 2.0, 0.02
    q = 2 * 0.5 / (K * np.sqrt(n))
    s0, s_inf, A = a**2 / np.sqrt(n), 1 - decay / q, S / ((K - 1) * np.sqrt(n))
    nc1 = lambda t: A * (np.exp(-2 * decay * t) / s_inf + (1 / s0 - 1 / s_inf) * np.exp(-2 * q * t))  # noqa: E731
    exact = brentq(lambda t: nc1(t) - 0.01, 1, 1e3, xtol=1e-12)
    run = simulate(
        UFM(classes=K, samples_per_class=n, width=p, decay=decay), initial=aligned(K, n, p, a, S), until=200.0, rtol=1e-9
    )
    assert float(run.data["event_time"][0, 0]) == pytest.approx(exact, rel=1e-8)


# Conservation


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_differences_of_neighbouring_grams_decay_at_twice_the_common_decay(layers, brute):
    """W_1^T W_1 - H H^T and W_{l+1}^T W_{l+1} - W_l W_l^T are e^{-2 lambda t} times their start, exactly."""
    model = UFM(classes=3, samples_per_class=COUNTS, width=5, layers=layers, decay=0.05, bias="free")
    initial = brute.initial(model, 4)

    def differences(H, W):
        gaps = [W[0].T @ W[0] - H @ H.T]
        return gaps + [W[i + 1].T @ W[i + 1] - W[i] @ W[i].T for i in range(layers - 1)]

    start = differences(initial["H"], initial["W"])
    for until in (1.0, 10.0, 40.0):
        run = simulate(model, initial=initial, save_at=[until], rtol=1e-10)
        end = differences(run.final["H"][0], [run.final[f"W_{i + 1}"][0] for i in range(layers)])
        for before, after in zip(start, end, strict=True):
            np.testing.assert_allclose(after, before * np.exp(-2 * 0.05 * until), rtol=0, atol=1e-9)


def test_layers_on_data_balance_at_the_same_rate(brute):
    for name in ("full", "gram"):
        model = deep(3, decay=0.05)
        initial = brute.initial(model, 5)
        run = simulate(model, initial=initial, save_at=[20.0], rtol=1e-10, flow=name)
        for i in (1, 2):
            gap = lambda a, b: b.T @ b - a @ a.T  # noqa: E731
            start, end = gap(*initial["W"][i - 1 : i + 1]), gap(run.final[f"W_{i}"][0], run.final[f"W_{i + 1}"][0])
            np.testing.assert_allclose(end, start * np.exp(-2.0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("model", [ufm(1, "free"), ufm(3, "decayed"), deep(3, "free"), small(mobility=[0.1, 50.0])])
def test_the_energy_never_rises(model):
    energy = simulate(model, seeds=range(2), until=300.0).data["energy"].values
    assert np.isfinite(energy).all() and (np.diff(energy, axis=1) <= 1e-12).all() and (energy[:, 0] > energy[:, -1]).all()


# Lanes

SAME = {"save_at": [0.0, 1.0, 10.0, 50.0, 200.0], "events": [Crossing(), Crossing("fn", 0.7)]}


def assert_same(a, b, lane_a, lane_b, rtol):
    """All that was recorded of two lanes, to the bit if rtol is 0."""
    for name in a.data.data_vars:
        u, v = a.data[name].values[lane_a], b.data[name].values[lane_b]
        if rtol == 0:
            assert np.array_equal(u, v, equal_nan=np.issubdtype(np.asarray(u).dtype, np.floating)), name
        else:
            np.testing.assert_allclose(u, v, rtol=rtol, atol=rtol, err_msg=name)


@pytest.mark.parametrize(
    "model",
    [
        small(decay=[0.01, 0.03]),
        ufm(2, "decayed"),
        deep(3, "free"),
        DeepLinear(inputs=Isotropic(1.0, 0.1), classes=3, samples_per_class=4, layers=3, width=4, decay=[1e-3, 2e-2]),
    ],
)
def test_a_lane_does_not_depend_on_its_batch(model):
    together = simulate(model, seeds=range(5), **SAME)
    if isinstance(model, UFM):
        decays = zip(model.weight_decays[:, None], model.feature_decays, model.bias_decays, strict=True)
        one = [replace(model, decay=Decay(*d)) for d in decays]
    else:
        one = [replace(model, decay=d) for d in model.decays]
    for i in range(model.lanes):
        for seed in (0, 3):
            assert_same(simulate(one[i], seeds=[seed], **SAME), together, 0, 5 * i + seed, 1e-12)


@pytest.mark.parametrize("model", [small(), ufm(2, "decayed"), deep(3, "free")])
@pytest.mark.parametrize("rest", [None, 1e-6])
def test_a_lane_keeps_its_bits_when_its_neighbours_change(model, rest, brute):
    initial = brute.initial(model, 1, lanes=4)
    other = brute.initial(model, 2, scale=1.0, lanes=4)
    for name in ("H", "b"):
        if name in initial:
            other[name][2] = initial[name][2]
    for mine, given in zip(other["W"], initial["W"], strict=True):
        mine[2] = given[2]
    a, b = (simulate(model, initial=i, rest=rest, rtol=1e-6, **SAME) for i in (initial, other))
    assert_same(a, b, 2, 2, 0)
    assert np.abs(a.data["fn"].values[1] - b.data["fn"].values[1]).max() > 1e-3


def test_a_stiff_a_failing_and_a_limited_lane_leave_the_others_alone():
    until = 20.0
    alone = simulate(small(), seeds=[0], until=until)
    decays = [1e4, 0.02, 0.02]
    for options in ({}, {"method": "dopri5", "max_steps": 500}):
        run = simulate(
            small(decay=Decay(np.array(decays)[:, None], decays), mobility=[1.0, 1.0, 1.0]), seeds=[0], until=until, **options
        )
        for lane in (1, 2):
            assert_same(alone if not options else simulate(small(), seeds=[0], until=until, **options), run, 0, lane, 1e-12)
    assert run.status == [Status.MAX_STEPS, Status.FINISHED, Status.FINISHED]
    fn, end = run.data["fn"].values[0], float(run.data["t_end"][0])
    reached = run.data["time"].values <= end
    assert 0 < end < until and np.isfinite(fn[reached]).all() and np.isnan(fn[~reached]).all()
    assert int(run.data["steps"][0]) == 500 and np.isfinite(run.final["H"]).all()


def test_lanes_are_decays_times_seeds_in_order():
    run = simulate(small(decay=[0.01, 0.02, 0.03]), seeds=[5, 2], until=1.0)
    assert run.data["seed"].values.tolist() == [5, 2] * 3
    assert run.data["decay"].values.tolist() == [0.01, 0.01, 0.02, 0.02, 0.03, 0.03]
    assert run.data["decay_features"].values.tolist() == run.data["decay"].values.tolist()
    fn = run.data["fn"].values
    assert fn[0, 0] == fn[2, 0] != fn[1, 0]
    assert fn[0, -1] != fn[2, -1]


def test_the_same_seed_gives_the_same_bits_and_more_seeds_change_nothing():
    a, b = (simulate(small(), seeds=range(3), until=30.0) for _ in range(2))
    assert all(np.array_equal(a.data[n].values, b.data[n].values, equal_nan=True) for n in a.data.data_vars)
    assert_same(simulate(small(), seeds=range(7), until=30.0), a, 1, 1, 1e-12)


def test_large_states_go_through_several_groups_and_windows(monkeypatch):
    """The result does not depend on how lanes are grouped, nor (within tolerance) on how many states wait to be measured."""
    import sys

    module = sys.modules["ncflow.job"]
    whole = simulate(small(), seeds=range(5), until=100.0)
    monkeypatch.setattr(module, "_GROUP", {"cpu": 200})
    assert_same(simulate(small(), seeds=range(5), until=100.0), whole, slice(None), slice(None), 1e-12)
    monkeypatch.setattr(module, "_KEPT", {"cpu": 2000})
    windows = simulate(small(), seeds=range(5), until=100.0)
    for name in ("fn", "nc1_trace_ratio", "energy", "event_time"):
        np.testing.assert_allclose(windows.data[name], whole.data[name], rtol=2e-7, err_msg=name)


# Events


@pytest.mark.parametrize("model", [small(samples_per_class=COUNTS), small(samples_per_class=COUNTS, layers=2, width=5)])
def test_events_are_roots_of_the_dense_reference(model, brute):
    initial = brute.initial(model, 6, scale=0.7)
    sol = brute.reference(model, initial, [200.0], dense=True)
    state = lambda t: dict(zip(brute.names(model), [b.numpy() for b in brute.split(model, sol(t))], strict=True))  # noqa: E731
    grid = np.linspace(0, 200, 2001)
    fns = np.array([brute.fn(model, state(t)) for t in grid])
    up = fns[-1] > fns[0]
    level = float(np.sqrt(fns[0] * fns[-1]))
    events = [Crossing("nc1_trace_ratio", 0.01), Crossing("nc1_trace_ratio", 0.3), Crossing("fn", level, falling=not up)]
    run = simulate(model, initial=initial, until=200.0, rtol=1e-10, events=events)
    for e, (value, event) in enumerate(((brute.nc1, events[0]), (brute.nc1, events[1]), (brute.fn, events[2]))):
        gap = lambda t: (value(model, state(t)) - event.level) * (1 if event.falling else -1)  # noqa: B023, E731
        first = next(i for i in range(len(grid)) if gap(grid[i]) <= 0)
        exact = brentq(gap, grid[first - 1], grid[first], xtol=1e-13)
        assert float(run.data["event_time"][0, e]) == pytest.approx(exact, rel=1e-7)
        assert float(run.data["event_fn"][0, e]) == pytest.approx(brute.fn(model, state(exact)), rel=1e-7)
    assert run.data["event"].values.tolist() == [e.name for e in events]


@pytest.mark.parametrize("method", ["dopri5", "rkc2"])
def test_fn_at_an_event_is_fn_of_a_record_there(method):
    for model in (ufm(2), deep(2), small()):
        options = {
            "rtol": 1e-7 if method == "dopri5" else 1e-5,
            "method": method,
            "events": [Crossing("nc2_equiangular_l1", 0.2), Crossing("cdnv", 0.5)],
        }
        first = simulate(model, until=30.0, **options)
        for e in (0, 1):
            time = float(first.data["event_time"][0, e])
            if time > 0:
                again = simulate(model, save_at=[time, 30.0], **options)
                assert float(again.data["fn"][0, 0]) == pytest.approx(
                    float(first.data["event_fn"][0, e]), rel=3 * options["rtol"]
                )
                crossing = options["events"][e]
                assert float(again.data[crossing.metric][0, 0]) == pytest.approx(crossing.level, rel=30 * options["rtol"])


def test_events_at_the_start_and_events_that_never_happen(brute):
    initial = aligned(3, 4, 6, 0.5, 1e-3)
    events = [Crossing(), Crossing("nc1_trace_ratio", 1e-300), Crossing("fn", 1e9, falling=False)]
    run = simulate(small(), initial=initial, until=10.0, events=events)
    assert run.data["event_time"].values[0, 0] == 0 and np.isnan(run.data["event_time"].values[0, 1:]).all()
    assert float(run.data["event_fn"][0, 0]) == pytest.approx(np.linalg.norm(initial["H"], axis=0).mean())
    assert np.isnan(run.data["event_fn"].values[0, 1:]).all()


def test_features_that_start_at_zero_collapse_at_once():
    """NC1 is 0/0 at t = 0 and 0 from then on."""
    initial = {"H": np.zeros((6, 12)), "W": [np.eye(3, 6)]}
    run = simulate(small(), initial=initial, until=10.0)
    assert np.isnan(float(run.data["nc1_trace_ratio"][0, 0])) and 0 <= float(run.data["event_time"][0, 0]) < 1e-6


def test_no_events_at_all():
    run = simulate(small(), until=1.0, events=[])
    assert "event" not in run.data.coords and "event_time" not in run.data


# Rest


def test_a_lane_at_rest_stops_and_stays():
    model = small(decay=[0.02, 0.05])
    run = simulate(model, seeds=[1], until=1e6, rest=1e-9)
    assert run.status == [Status.AT_REST] * 2 and (run.data["t_end"].values < 5e3).all()
    long = simulate(model, seeds=[1], until=3e3, rtol=1e-10)
    np.testing.assert_allclose(run.data["fn"].values[:, -1], long.data["fn"].values[:, -1], rtol=1e-7)
    for lane in (0, 1):
        after = run.data["time"].values > float(run.data["t_end"][lane])
        for name in ("fn", "energy", "nc1_trace_ratio", "weight_norm"):
            values = run.data[name].values[lane, after]
            assert after.sum() > 5 and np.isfinite(values).all() and np.ptp(values, axis=0).max() == 0
    np.testing.assert_allclose(np.linalg.norm(run.final["H"], axis=1).mean(1), run.data["fn"].values[:, -1], rtol=1e-12)


def test_vanishing_features_come_to_rest():
    run = simulate(small(decay=0.4), until=1e6, rest=1e-9)
    assert run.status == [Status.AT_REST] and float(run.data["fn"][0, -1]) < 1e-11 and float(run.data["t_end"][0]) < 1e3


def test_a_state_that_starts_at_rest(brute):
    run = simulate(small(), initial={"H": np.zeros((6, 12)), "W": [np.zeros((3, 6))]}, until=100.0, rest=1e-9)
    assert run.status == [Status.AT_REST] and (run.data["fn"].values == 0).all()


# Interventions


def test_rescaling_at_the_start_is_rescaling_the_initial_state(brute):
    model = ufm(3)
    initial = brute.initial(model, 1)
    scaled = {"H": 0.5 * initial["H"], "W": [initial["W"][0], 0.3 * initial["W"][1], 2 * initial["W"][2]]}
    changes = [Rescale(layer=-2, alpha=0.3), Rescale(layer=2, alpha=2.0), Rescale(layer="features", alpha=0.5)]
    a = simulate(model, initial=initial, save_at=[0.0, 5.0], interventions=changes)
    assert_same(a, simulate(model, initial=scaled, save_at=[0.0, 5.0]), 0, 0, 1e-12)


@pytest.mark.parametrize("model, flow", [(ufm(2), "full"), (deep(2), "gram"), (deep(2), "full")])
def test_rescaling_in_mid_run_is_stop_change_and_go_on(model, flow, brute):
    initial = brute.initial(model, 1)
    half = simulate(model, initial=initial, save_at=[3.0], rtol=1e-10, flow=flow)
    state = blocks(half)
    changed = {"W": [0.3 * state["W_1"], state["W_2"]]} | ({"H": state["H"]} if "H" in state else {})
    rest = simulate(model, initial=changed, save_at=[0.0, 2.0], rtol=1e-10, flow=flow)
    run = simulate(
        model,
        initial=initial,
        save_at=[1.0, 3.0, 5.0],
        rtol=1e-10,
        flow=flow,
        interventions=[Rescale(layer=0, alpha=0.3, at=3.0)],
    )
    for name in ("fn", "energy", "nc1_trace_ratio", "weight_norm"):
        np.testing.assert_allclose(run.data[name].values[0, 1:], rest.data[name].values[0], rtol=1e-8, err_msg=name)
    # A record at that very time shows the state after it.
    ratio = run.data["weight_norm"].values[0, 1] / half.data["weight_norm"].values[0, 0]
    np.testing.assert_allclose(ratio, [0.3, 1.0], rtol=1e-9)


def test_alpha_per_lane_several_times_and_at_the_end():
    model = small(decay=[0.01, 0.02])
    changes = [Rescale(layer=-1, alpha=[1.0, 3.0, 1.0, 3.0], at=2.0), Rescale(layer=-1, alpha=2.0, at=4.0)]
    run = simulate(model, seeds=[0, 0], save_at=[2.0, 4.0], interventions=changes)
    w = run.data["weight_norm"].values[:, :, 0]
    plain = simulate(model, seeds=[0], save_at=[2.0, 4.0]).data["weight_norm"].values[:, :, 0]
    np.testing.assert_allclose(w[:, 0], [plain[0, 0], 3 * plain[0, 0], plain[1, 0], 3 * plain[1, 0]], rtol=1e-8)
    np.testing.assert_allclose(w[[0, 2], 1], 2 * plain[:, 1], rtol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(run.final["W_1"], axis=(1, 2)), w[:, 1], rtol=1e-12)


def test_an_intervention_wakes_a_lane_at_rest():
    model = small(layers=2, decay=0.02)
    run = simulate(model, save_at=[*np.linspace(0, 4000, 41)], rest=1e-8, interventions=[Rescale(layer=0, alpha=0.3, at=2000.0)])
    fn = run.data["fn"].values[0]
    assert run.status == [Status.AT_REST] and float(run.data["t_end"][0]) > 2000
    assert np.ptp(fn[15:20]) == 0 and fn[20] < 0.5 * fn[19] and fn[-1] == pytest.approx(fn[19], rel=1e-5)
    assert np.isfinite(fn).all()


def test_an_intervention_can_be_an_event():
    run = simulate(
        small(), until=20.0, interventions=[Rescale(layer="features", alpha=1e-3, at=7.0)], events=[Crossing("fn", 1e-2)]
    )
    assert run.data["event_time"].values[0, 0] == 7.0
    assert 0 < float(run.data["event_fn"][0, 0]) < 1e-2


@pytest.mark.parametrize(
    "change, argument",
    [
        (Rescale(layer=2, alpha=2.0), "intervention.layer"),
        (Rescale(layer=-3, alpha=2.0), "intervention.layer"),
        (Rescale(layer=0, alpha=[1.0, 2.0, 3.0]), "intervention.alpha"),
        (Rescale(layer=0, alpha=2.0, at=11.0), "intervention.at"),
    ],
)
def test_interventions_that_do_not_fit(change, argument):
    with pytest.raises(BadInput) as caught:
        simulate(ufm(2), seeds=[0, 1], until=10.0, interventions=[change])
    assert caught.value.argument == argument
    with pytest.raises(BadInput, match="features are free"):
        simulate(deep(), until=10.0, interventions=[Rescale(layer="features", alpha=2.0)])


# Initial states


def test_given_states_with_and_without_a_lane_axis(brute):
    model = ufm(2, "free", decay=Decay(1e-2, [1e-2, 2e-2, 3e-2]))
    initial = brute.initial(model, 1)
    shared = simulate(model, initial=initial, save_at=[1.0])
    stacked = {
        "H": np.stack([initial["H"]] * 3),
        "W": [torch.tensor(initial["W"][0]), np.stack([initial["W"][1]] * 3)],
        "b": initial["b"].tolist(),
    }
    assert_same(shared, simulate(model, initial=stacked, save_at=[1.0]), slice(None), slice(None), 0)
    assert shared.lanes == 3 and shared.data["seed"].values.tolist() == [-1] * 3
    without = {k: v for k, v in initial.items() if k != "b"}
    zero = simulate(model, initial=without, save_at=[0.0, 1.0])
    assert (zero.data["bias_norm"].values[:, 0] == 0).all() and (zero.data["bias_norm"].values[:, 1] > 0).all()
    assert initial["H"] is not shared.final["H"] and np.array_equal(initial["H"], brute.initial(model, 1)["H"])


BAD_INITIAL = [
    ({}, "entries H, W"),
    ({"H": 1, "W": [2], "c": 3}, "entries H, W"),
    (5, "a dict"),
    ({"H": np.zeros((6, 12)), "W": np.zeros((3, 6))}, "a list of 1"),
    ({"H": np.zeros((6, 12)), "W": [np.zeros((6, 3))]}, r"shape \(3, 6\)"),
    ({"H": np.zeros((2, 2, 6, 12)), "W": [np.zeros((3, 6))]}, r"shape \(6, 12\)"),
    ({"H": np.full((6, 12), np.nan), "W": [np.zeros((3, 6))]}, "finite"),
    ({"H": "x", "W": [np.zeros((3, 6))]}, "array of numbers"),
    ({"H": np.zeros((2, 6, 12)), "W": [np.zeros((3, 3, 6))]}, "number of lanes"),
    ({"H": np.zeros((6, 12)), "W": [np.zeros((3, 6))], "b": np.zeros(3)}, "left out where the model has bias"),
    ({"H": np.zeros((3, 6, 12)), "W": [np.zeros((3, 6))]}, "as many as"),
]


@pytest.mark.parametrize("initial, accepted", BAD_INITIAL)
def test_initial_states_that_do_not_fit(initial, accepted):
    with pytest.raises(BadInput, match=accepted) as caught:
        simulate(small(decay=[0.01, 0.02]), initial=initial, until=1.0)
    assert caught.value.argument.startswith("initial") and "\n" not in str(caught.value)


# Arguments

BAD = [
    ({"until": 0}, "until"),
    ({"until": -1.0}, "until"),
    ({"until": float("inf")}, "until"),
    ({"until": "x"}, "until"),
    ({"until": None}, "until"),
    ({"save_at": []}, "save_at"),
    ({"save_at": [0.0]}, "save_at"),
    ({"save_at": [1.0, 1.0]}, "save_at"),
    ({"save_at": [2.0, 1.0]}, "save_at"),
    ({"save_at": [-1.0, 1.0]}, "save_at"),
    ({"save_at": [1.0, np.nan]}, "save_at"),
    ({"save_at": "x"}, "save_at"),
    ({"save_at": 3.0}, "save_at"),
    ({"save_at": [1.0, 5.0], "until": 2.0}, "until"),
    ({"rtol": 0}, "rtol"),
    ({"rtol": 1.0}, "rtol"),
    ({"rtol": "small"}, "rtol"),
    ({"atol": -1e-9}, "atol"),
    ({"rest": 0}, "rest"),
    ({"rest": 2}, "rest"),
    ({"max_steps": 0}, "max_steps"),
    ({"max_steps": 1.5}, "max_steps"),
    ({"max_steps": True}, "max_steps"),
    ({"seeds": []}, "seeds"),
    ({"seeds": [-1]}, "seeds"),
    ({"seeds": [0.5]}, "seeds"),
    ({"seeds": None}, "seeds"),
    ({"seeds": "abc"}, "seeds"),
    ({"flow": "gram"}, "flow"),
    ({"flow": "fast"}, "flow"),
    ({"method": "euler"}, "method"),
    ({"method": None}, "method"),
    ({"interventions": [3]}, "interventions"),
    ({"interventions": Rescale(layer=0, alpha=2.0)}, "interventions"),
    ({"events": Crossing()}, "events"),
    ({"events": ["fn"]}, "events"),
    ({"device": "abacus"}, "device"),
    ({"device": None}, "device"),
]


@pytest.mark.parametrize("options, argument", BAD)
def test_arguments_that_are_refused(options, argument):
    with pytest.raises(BadInput) as caught:
        simulate(small(), **({"until": 1.0} | options))
    assert caught.value.argument == argument and "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_what_is_not_a_model():
    with pytest.raises(BadInput, match="UFM or a DeepLinear"):
        simulate("ufm", until=1.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_one_line():
    with pytest.raises(BadInput) as caught:
        simulate(small(), until=1.0, device="cuda")
    assert caught.value.argument == "device" and "\n" not in str(caught.value)


def test_times():
    default = simulate(small(), until=10).data["time"].values
    assert len(default) == 257 and default[0] == 0 and default[-1] == 10 and (np.diff(default) > 0).all()
    assert simulate(small(), save_at=[0, 0.1, 3], until=7).data["time"].values.tolist() == [0, 0.1, 3, 7]
    assert simulate(small(), save_at=(0.1,), until=0.1).data["time"].values.tolist() == [0.1]


def test_progress_is_told():
    told = []
    simulate(small(), seeds=range(3), until=10.0, progress=told.append)
    assert told and all(0 <= x <= 1 for x in told) and told == sorted(told) and told[-1] == 1


# The record


def test_the_record_survives_the_disk(tmp_path):
    run = simulate(
        ufm(2, "free", decay=Decay(1e-2, [1e-2, 2e-2])),
        seeds=[0, 1],
        until=10.0,
        events=[Crossing(), Crossing("fn", 0.5, falling=False)],
    )
    path = run.save(tmp_path / "deep" / "run.nc")
    again = Trajectory.load(path)
    assert again.data.identical(run.data) and again.provenance == run.provenance and again.status == run.status
    assert [p.name for p in path.parent.iterdir()] == ["run.nc"]
    for name, variable in run.data.data_vars.items():
        assert "long_name" in variable.attrs, name


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    run = simulate(small(), until=1.0)
    path = run.save(tmp_path / "run.nc")
    before = path.read_bytes()

    def fail(self, path, **options):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(type(run.data), "to_netcdf", fail)
    with pytest.raises(OSError, match="disk full"):
        run.save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["run.nc"]
    with pytest.raises(OSError):
        run.save(path / "below" / "a file")


def test_what_is_not_a_record(tmp_path):
    (tmp_path / "text.nc").write_text("hello")
    for path in (tmp_path / "none.nc", tmp_path / "text.nc", tmp_path):
        with pytest.raises(BadInput) as caught:
            Trajectory.load(path)
        assert caught.value.argument == "path" and "\n" not in str(caught.value)
    import xarray as xr

    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(BadInput, match="lane"):
        Trajectory.load(tmp_path / "other.nc")


def test_provenance_says_how_and_not_where(monkeypatch):
    import socket
    import sys

    monkeypatch.setattr(
        sys,
        "argv",
        ["/home/someone/bin/ncflow", "compare", "--out=/home/someone/runs", "--data", "/srv/x y/data/", "--lr", "1e-3"],
    )
    run = simulate(small(decay=[0.01, 0.02]), until=1.0, rtol=1e-7, interventions=[Rescale(layer=0, alpha=0.5)])
    found = run.provenance
    assert found["model"]["kind"] == "UFM" and found["model"]["classes"] == 3 and "Decay" in found["model"]["decay"]
    assert (
        found["rtol"] == 1e-7
        and found["flow"] == "reduced"
        and found["device"] == "cpu"
        and "alpha=0.5" in found["interventions"][0]
    )
    assert {"torch", "numpy", "python", "git_commit", "git_dirty", "threads", "created", "ncflow"} <= set(found)
    assert found["command"] == "ncflow compare --out=runs --data data --lr 1e-3"
    text = json.dumps(found)
    assert "/home" not in text and "/srv" not in text and "/work" not in text and socket.gethostname() not in text
    assert simulate(deep(), until=1.0).provenance["model"]["inputs"] == "array (4, 10)"


# The calls that DESIGN.md promises


def test_the_contract():
    model = UFM(
        classes=4,
        samples_per_class=100,
        width=64,
        layers=1,
        loss="mse",
        loss_scale=0.5,
        bias="none",
        activation="linear",
        decay=Decay(weights=5e-4, features=5e-4, bias=0.0),
        mobility=1.0,
    )
    run = simulate(model, seeds=range(8), until=20.0, save_at=[1.0, 20.0])
    assert run.lanes == 8 and run.data["fn"].dims == ("lane", "time") and run.data["fn"].shape == (8, 2)
    assert run.data["nc1_trace_ratio"].dims == ("lane", "time")
    assert run.data["weight_norm"].dims == ("lane", "time", "layer") and run.data["weight_norm"].shape == (8, 2, 1)
    rng = np.random.default_rng(0)
    H0, W0, b0 = rng.normal(size=(64, 400)), rng.normal(size=(4, 64)), np.zeros(4)
    run = simulate(
        replace(model, bias="free"), initial={"H": H0, "W": [W0], "b": b0}, save_at=[1.0, 10.0, 100.0], rtol=1e-9, flow="auto"
    )
    assert run.data["time"].values.tolist() == [1.0, 10.0, 100.0]
    found = metrics.compute(run.final["H"].swapaxes(1, 2), model.labels, W=run.final["W_1"], b=run.final["b"])
    for name, value in found.items():
        assert run.data[name].values[0, -1] == pytest.approx(float(value[0]), rel=1e-9, abs=1e-12), name
    collapse = summarise(run, nc1="nc1_trace_ratio", threshold=0.01)
    assert len(collapse) == 1 and {"t_nc", "fn_star", "fn_inf", "rate", "phase", "status"} <= set(collapse[0].as_dict())


# Workers


def test_workers_share_the_lanes():
    model = small(decay=Decay(weights=(1e-3, 3e-3, 1e-2), features=1e-3))
    alone = simulate(model, seeds=range(3), until=30.0)
    told = []
    shared = simulate(model, seeds=range(3), until=30.0, workers=2, progress=told.append)
    assert_same(shared, alone, slice(None), slice(None), 1e-12)
    assert shared.data["seed"].equals(alone.data["seed"]) and shared.data["decay"].equals(alone.data["decay"])
    assert told[-1] == 1 and told == sorted(told)
    assert shared.final["H"].shape == alone.final["H"].shape
    steps = [Phase(steps=20, optimiser=GradientDescent(lr=(0.1, 0.2, 0.3, 0.4)))]
    alone, shared = (simulate(small(), seeds=range(4), phases=steps, workers=w) for w in (1, 2))
    assert_same(shared, alone, slice(None), slice(None), 1e-12)


@pytest.mark.parametrize("metric", ["nc1_pinv", "nc1_pinv_over_k", "nc4_mismatch", "nc2_gof_M", "nc2_gof_W", "nc3_one_minus_cos"])
@pytest.mark.parametrize("flow", ["full", "reduced"])
def test_crossings_of_metrics_that_need_samples_or_the_decays(metric, flow):
    """Recorded just before the located time, the metric is on one side of the level, just after it on the other; jumps too."""
    tight = dict(seeds=[2], flow=flow, rtol=1e-10)
    start, end = simulate(small(), save_at=[0.0, 1.0], events=[], **tight).data[metric].values[0]
    event = Crossing(metric, float(start + end) / 2, falling=bool(end < start))
    at = float(simulate(small(), until=1.0, events=[event], **tight).data["event_time"][0, 0])
    around = simulate(small(), save_at=[at * (1 - 1e-6), at * (1 + 1e-6)], events=[], **tight).data[metric].values[0]
    assert ((around > event.level) == [event.falling, not event.falling]).all()


def test_the_goodness_of_fit_metrics_are_those_of_the_decays():
    run = simulate(small(decay=Decay([0.01, 0.03], 0.02)), seeds=[2], save_at=[3.0], events=[])
    for lane, decay in enumerate((0.01, 0.03)):
        known = metrics.compute(run.final["H"][lane].T, small().labels, run.final["W_1"][lane], decay_weights=decay,
                                decay_features=0.02, loss_scale=0.5)
        for name in ("nc2_gof_M", "nc2_gof_W"):
            assert float(run.data[name][lane, -1]) == pytest.approx(float(known[name]), rel=1e-9)
    assert "nc2_gof_M" not in simulate(small(layers=2), until=1.0).data


def test_events_that_the_model_or_its_state_cannot_have():
    moments = {"M": np.eye(6)[:, :3], "scatter": 0.1, "W": [np.eye(3, 6)]}
    for model, metric, options in ((small(layers=2), "nc2_gof_M", {}), (small(loss="cross_entropy"), "nc2_gof_W", {}),
                                   (small(), "nc1_pinv", {"initial": moments})):
        with pytest.raises(BadInput) as caught:
            simulate(model, until=1.0, events=[Crossing(metric)], **options)
        assert caught.value.argument == "event.metric" and metric in str(caught.value)


@pytest.mark.parametrize("model, flow", [(small(), "full"), (small(), "reduced"),
                                         (small(layers=2, loss="cross_entropy"), "auto")])
@pytest.mark.parametrize("metric", ["energy", "stationarity"])
def test_crossings_of_energy_and_stationarity_are_located(model, flow, metric):
    """Against the state of a run that ends at the located time, and states a little before and after it."""
    tight = dict(seeds=[2], flow=flow, rtol=1e-10)
    level = float(simulate(model, save_at=[7.0], events=[], **tight).data["energy"][0, -1]) if metric == "energy" else 0.05
    at = float(simulate(model, until=60.0, events=[Crossing(metric, level)], **tight).data["event_time"][0, 0])
    if metric == "energy":
        assert at == pytest.approx(7.0, rel=1e-7)
        return
    field = choose("full", model, torch.zeros(1, dtype=torch.int64), torch.device("cpu"))
    size = {}
    for t in (at * 0.99, at, at * 1.01):
        run = simulate(model, save_at=[t], events=[], **tight)
        y = field.start({name: torch.as_tensor(value) for name, value in run.final.items()})
        size[t] = float(field.field(y).norm() / y.norm())
    if flow != "reduced":  # which has coordinates of its own
        assert size[at] == pytest.approx(level, rel=1e-6)
    assert size[at * 0.99] > size[at] > size[at * 1.01]


class Deadly(Crossing):
    """Ends the process that receives it."""

    def __reduce__(self):
        return os._exit, (9,)


def test_an_ended_worker_is_one_line():
    with pytest.raises(RunFailed, match="2 workers"):
        simulate(small(), seeds=range(4), until=1.0, workers=2, events=(Deadly(),))


@pytest.mark.parametrize("workers", [0, 1.5, True])
def test_bad_workers(workers):
    with pytest.raises(BadInput, match=r"^workers = "):
        simulate(small(), until=1.0, workers=workers)
