"""`summarise` on simulated runs whose answer is known and on records made by hand."""

import json

import numpy as np
import pytest
import xarray as xr

from ncflow import UFM, BadInput, Crossing, Decay, DeepLinear, Isotropic, Regime, Status, Trajectory, simulate, summarise

NAN = float("nan")


def record(time, nc1, fn, status=Status.FINISHED, phase=None, kind="epochs", **more):
    """A record of one lane (or of several: nc1 and fn then have a leading axis)."""
    nc1, fn = np.atleast_2d(np.asarray(nc1, float)), np.atleast_2d(np.asarray(fn, float))
    lanes = len(nc1)
    data = {
        "nc1_trace_ratio": (("lane", "time"), nc1),
        "fn": (("lane", "time"), fn),
        "status": ("lane", np.broadcast_to(np.asarray(status, int), lanes)),
    } | more
    if phase is not None:
        data["phase"] = ("time", np.asarray(phase))
    coords = {"time": np.asarray(time, float), "seed": ("lane", np.arange(lanes)), "decay": ("lane", np.full(lanes, 1e-4))}
    return Trajectory(xr.Dataset(data, coords, {"time_kind": kind, "provenance": "{}", "source": "network"}))


# Networks


def test_a_network_collapses_at_the_first_measured_epoch_below_the_threshold():
    run = record([0, 10, 20, 30, 40], [5, 1, 0.02, 0.009, 0.012], [8, 4, 1.5, 1.2, 1.1], phase=[1, 1, 1, 2, 2])
    (c,) = summarise(run)
    assert (c.t_nc, c.t_nc_in_phase, c.phase, c.fn_star, c.regime) == (30, 10, 2, 1.2, Regime.COLLAPSED)
    assert c.time_kind == "epochs" and c.nc1 == "nc1_trace_ratio" and c.threshold == 0.01
    assert c.fn_end == 1.1 and c.nc1_end == 0.012 and np.isnan(c.fn_inf)
    (c,) = summarise(run, threshold=0.5)
    assert (c.t_nc, c.t_nc_in_phase, c.phase, c.fn_star) == (20, 20, 1, 1.5)


def test_without_phases_the_phase_is_0_and_times_agree():
    (c,) = summarise(record([0, 5, 10], [1, 0.1, 0.001], [3, 2, 1]))
    assert (c.t_nc, c.t_nc_in_phase, c.phase) == (10, 10, 0)


def test_collapsed_from_the_start():
    (c,) = summarise(record([0, 5], [0.001, 0.001], [2, 2], phase=[1, 1]))
    assert (c.t_nc, c.t_nc_in_phase, c.phase, c.fn_star) == (0, 0, 1, 2)


def test_a_network_that_does_not_collapse():
    (c,) = summarise(record([0, 5, 10], [1, 0.1, 0.03], [3, 2, 1], phase=[1, 2, 2]))
    assert np.isnan([c.t_nc, c.t_nc_in_phase, c.fn_star]).all() and c.phase == 0 and c.regime is Regime.NOT_COLLAPSED


def test_lanes_that_fail_do_not_disturb_the_others():
    run = record(
        [0, 5, 10],
        [[NAN] * 3, [1, 0.1, NAN], [1, 0.1, 0.001], [1, 0.001, NAN]],
        [[NAN] * 3, [3, 2, NAN], [3, 2, 1], [3, 2, NAN]],
        [4, 4, 0, 3],
    )
    nothing, stopped, fine, late = summarise(run)
    assert nothing.regime is Regime.FAILED and np.isnan(nothing.fn_end) and np.isnan(nothing.fn_inf)
    assert stopped.regime is Regime.FAILED and stopped.fn_end == 2 and stopped.nc1_end == 0.1
    assert fine.regime is Regime.COLLAPSED and fine.t_nc == 10
    assert late.regime is Regime.COLLAPSED and late.t_nc == 5 and late.status is Status.DIVERGED
    assert [c.seed for c in summarise(run)] == [0, 1, 2, 3]
    json.dumps([c.as_dict() for c in summarise(run)], allow_nan=False)


def test_nothing_measured_is_a_failure_whatever_the_status_says():
    assert summarise(record([0, 5], [NAN, NAN], [NAN, NAN]))[0].regime is Regime.FAILED


@pytest.mark.parametrize(
    "nc1, fn", [([1, 0.1, 0.001], [1, 0.1, 1e-5]), ([1, 0.005, 0.001], [1, 0.5, 1e-9]), ([1, 0.3, 0.2], [1, 0.1, 1e-12])]
)
def test_vanishing_features_are_no_collapse(nc1, fn):
    c = summarise(record([0, 5, 10], nc1, fn))[0]
    assert c.regime is Regime.ZERO_FEATURES and "vanished" in c.regime.sentence
    assert summarise(record([0, 5, 10], nc1, fn), zero=1e-15)[0].regime is not Regime.ZERO_FEATURES


def test_fn_inf_needs_fn_to_have_settled():
    time = np.linspace(0, 100, 101)
    (c,) = summarise(record(time, np.exp(-time), 1 + np.exp(-0.2 * time)))
    assert c.fn_inf == c.fn_end and abs(c.fn_drift) < 1e-3
    (c,) = summarise(record(time, np.exp(-time), 1 + np.exp(-0.02 * time)))
    assert (
        np.isnan(c.fn_inf) and np.isnan(c.fn_rate) and c.fn_drift == pytest.approx((np.exp(-2) - np.exp(-1.8)) / (1 + np.exp(-2)))
    )


# Flows


@pytest.mark.parametrize("status", [Status.NON_FINITE, Status.DIVERGED, Status.STEP_TOO_SMALL])
def test_what_broke_off_has_no_fn_inf(status):
    """However still fn stood before; nor has a lane that was seen once only."""
    (c,) = summarise(record([0, 5, 10, 15], [1, 0.5, 0.5, NAN], [3, 2, 2, NAN], status))
    assert c.fn_end == 2 and np.isnan(c.fn_inf)
    (c,) = summarise(record([0, 5], [1, NAN], [62, NAN], Status.FINISHED))
    assert c.fn_end == 62 and np.isnan(c.fn_inf)


def test_between_records_of_a_flow_nc1_is_an_exponential():
    time = np.array([0.0, 1.0, 2.0, 3.0])
    run = record(time, 3 * np.exp(-2 * time), 1 + time, kind="flow")
    (c,) = summarise(run)
    exact = np.log(300) / 2
    assert c.t_nc == pytest.approx(exact, rel=1e-12) and c.fn_star == pytest.approx(1 + exact, rel=1e-12)
    (c,) = summarise(record(time, [1, 0.5, 0, 0], [1, 1, 1, 1], kind="flow"))  # to zero at once
    assert c.t_nc == 2 and c.fn_star == 1
    (c,) = summarise(record(time, [NAN, 0.001, 0, 0], [0, 1, 1, 1], kind="flow"))
    assert c.t_nc == 1


def test_rates_of_known_exponentials():
    time = np.linspace(0, 100, 400)
    nc1, fn = 2 * np.exp(-0.3 * time) + 50 * np.exp(-3 * time), 0.8 * (1 + 0.5 * np.exp(-0.15 * time))
    (c,) = summarise(record(time, nc1, fn, kind="flow"))
    assert c.rate == pytest.approx(0.3, rel=1e-6) and c.fn_rate == pytest.approx(0.15, rel=2e-2)
    # What is below 1e-13 is rounding and does not count.
    (c,) = summarise(record(time, np.maximum(nc1, 1e-15), fn, kind="flow"))
    assert c.rate == pytest.approx(0.3, rel=1e-6)
    (c,) = summarise(record(time[:2], nc1[:2], fn[:2], kind="flow"))
    assert np.isnan(c.rate)


def test_after_rest_nothing_moves_and_nothing_is_fitted():
    time = np.linspace(0, 100, 400)
    stop = 60.0
    held = np.minimum(time, stop)
    run = record(time, np.exp(-0.3 * held), 1 + 0.5 * np.exp(-0.5 * held), Status.AT_REST, kind="flow", t_end=("lane", [stop]))
    (c,) = summarise(run)
    assert c.rate == pytest.approx(0.3, rel=1e-6) and c.fn_inf == c.fn_end == pytest.approx(1 + 0.5 * np.exp(-30))
    assert c.fn_rate == pytest.approx(0.5, rel=0.05)


def test_the_located_event_is_used_and_only_if_it_is_just_this_one():
    model = UFM(classes=3, samples_per_class=4, width=6, decay=0.02)
    save_at = np.linspace(0, 300, 16)
    events = [Crossing("nc1_trace_ratio", 0.01), Crossing("nc1_trace_ratio", 0.010000001), Crossing("cdnv", 0.02)]
    run = simulate(model, seeds=range(2), save_at=save_at, events=events)
    fine = simulate(model, seeds=range(2), save_at=np.linspace(0, 300, 3001), events=[])
    for nc1, threshold, e in (("nc1_trace_ratio", 0.01, 0), ("nc1_trace_ratio", 0.010000001, 1), ("cdnv", 0.02, 2)):
        for lane, (c, exact) in enumerate(
            zip(summarise(run, nc1=nc1, threshold=threshold), summarise(fine, nc1=nc1, threshold=threshold), strict=True)
        ):
            assert c.t_nc == float(run.data["event_time"][lane, e]) and c.fn_star == float(run.data["event_fn"][lane, e])
            assert c.t_nc == pytest.approx(exact.t_nc, rel=1e-4) and c.fn_star == pytest.approx(exact.fn_star, rel=1e-4)
    # Another threshold, or an NC1 that was not tracked: interpolated between records.
    for nc1, threshold in (("nc1_trace_ratio", 0.02), ("nc1_pinv", 0.01)):
        for c, exact in zip(
            summarise(run, nc1=nc1, threshold=threshold), summarise(fine, nc1=nc1, threshold=threshold), strict=True
        ):
            assert abs(c.t_nc - exact.t_nc) < save_at[1] and c.t_nc != exact.t_nc


def test_a_rising_event_is_not_a_collapse():
    model = UFM(classes=3, samples_per_class=4, width=6, decay=0.02)
    run = simulate(model, until=300.0, events=[Crossing("nc1_trace_ratio", 0.01, falling=False)])
    assert run.data["event_time"].values[0, 0] == 0 < summarise(run)[0].t_nc


def test_the_tail_of_a_ufm():
    """NC1 falls at 2 lambda_H where p > K (THEORY 1.3); fn_inf is the closed form; NC1 of a network on noisy data has a floor."""
    model = UFM(classes=3, samples_per_class=4, width=6, decay=Decay(0.02, 0.01))
    run = simulate(model, seeds=range(2), until=2000.0, save_at=np.linspace(0, 2000, 201))
    sigma = 1 - 3 * np.sqrt(4 * 0.02 * 0.01)
    for c in summarise(run):
        assert c.rate == pytest.approx(0.02, rel=3e-3) and c.regime is Regime.COLLAPSED
        assert c.fn_inf == pytest.approx(np.sqrt(sigma * np.sqrt(0.02 / (4 * 0.01))), rel=1e-6)
    model = DeepLinear(inputs=Isotropic(1.0, 0.2), classes=3, samples_per_class=5, layers=2, width=3, decay=1e-2)
    (c,) = summarise(simulate(model, until=1e5, rest=1e-9))
    assert c.regime is Regime.NOT_COLLAPSED and c.nc1_end == pytest.approx(0.2 * 3 / 2, rel=1e-6)
    (c,) = summarise(simulate(UFM(classes=3, samples_per_class=4, width=6, decay=0.4), until=1e3, rest=1e-9))
    assert c.regime is Regime.ZERO_FEATURES and c.status is Status.AT_REST


@pytest.mark.parametrize(
    "options, argument",
    [
        ({"nc1": "nc3_dual_sq"}, "nc1"),
        ({"nc1": "nc1"}, "nc1"),
        ({"threshold": 0}, "threshold"),
        ({"threshold": 1}, "threshold"),
        ({"threshold": "low"}, "threshold"),
        ({"threshold": True}, "threshold"),
        ({"zero": -1}, "zero"),
    ],
)
def test_arguments_that_are_refused(options, argument):
    with pytest.raises(BadInput) as caught:
        summarise(record([0, 1], [1, 1], [1, 1]), **options)
    assert caught.value.argument == argument


def test_every_regime_and_status_has_a_sentence():
    assert all((r.sentence and r.sentence[0].islower()) or r.sentence.startswith("NC1") for r in Regime)
    assert len({s.sentence for s in Status}) == len(Status) and len({r.sentence for r in Regime}) == len(Regime)
