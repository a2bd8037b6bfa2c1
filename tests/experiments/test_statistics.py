"""`experiments.statistics` against SciPy's functions, examples worked by hand, and simulation of what an interval promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments import statistics as s
from ncflow.errors import BadInput

finite = st.floats(-100, 100, allow_nan=False).map(lambda v: round(v, 3))
samples = st.lists(finite, min_size=3, max_size=8)


def test_summary_states_its_ddof():
    assert s.summary([1.0, 2.0, 3.0]).std == 1.0
    assert s.summary([1.0, 2.0, 3.0], ddof=0).std == pytest.approx(math.sqrt(2 / 3), rel=1e-15)
    assert s.summary([2.0]).mean == 2.0 and math.isnan(s.summary([2.0]).std)
    assert s.summary([-2.0, -4.0]).cv == pytest.approx(math.sqrt(2) / 3, rel=1e-15)


def test_t_interval_is_students_and_equals_that_from_quoted_numbers():
    x = [5.858, 5.905, 5.837]
    found = s.t_interval(x)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(x), scale=stats.sem(x))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-13)
    quoted = s.t_interval_from(float(np.mean(x)), float(np.std(x)), 3, ddof=0)
    assert (quoted.low, quoted.high) == pytest.approx((low, high), rel=1e-13)


def test_t_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [(i := s.t_interval(rng.normal(3.0, 2.0, 5), level=0.8)).low < 3.0 < i.high for _ in range(2000)]
    assert np.mean(covered) == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 2000))


def test_bootstrap_is_seeded_and_of_three_values_their_range():
    x = np.random.default_rng(1).normal(size=40)
    assert s.bootstrap_interval(x) == s.bootstrap_interval(x)
    assert s.bootstrap_interval(x) != s.bootstrap_interval(x, seed=1)
    found = s.bootstrap_interval(x)
    half = stats.norm.ppf(0.975) * x.std() / math.sqrt(len(x))  # what the percentiles tend to
    assert (found.low, found.high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.1 * half)
    three = s.bootstrap_interval([1.521, 1.517, 1.506])
    assert (three.low, three.high) == pytest.approx((1.506, 1.521), rel=1e-12)


@given(st.lists(samples, min_size=2, max_size=4))
@settings(max_examples=40, deadline=None)
def test_anova_is_scipys_also_from_quoted_numbers(groups):
    if all(np.ptp(g) == 0 for g in groups):
        return
    f, p = stats.f_oneway(*groups)
    found = s.anova(groups)
    assert found.statistic == pytest.approx(f, rel=1e-6, abs=1e-9)
    assert found.p == pytest.approx(p, rel=1e-6, abs=1e-12)
    quoted = s.anova_from([np.mean(g) for g in groups], [np.std(g, ddof=1) for g in groups], [len(g) for g in groups])
    assert quoted.statistic == pytest.approx(found.statistic, rel=1e-9, abs=1e-12)


def test_welch_anova_of_two_groups_is_welchs_t_squared():
    a, b = [1.0, 2.0, 4.0, 4.5], [3.0, 9.0, 5.0]
    t = stats.ttest_ind(a, b, equal_var=False)
    found = s.welch_anova([a, b])
    assert found.statistic == pytest.approx(t.statistic**2, rel=1e-12) and found.p == pytest.approx(t.pvalue, rel=1e-12)


def test_kruskal_is_scipys_and_knows_ties():
    groups = [[1.0, 2.0, 3.0], [4.0, 5.0, 5.0], [1.0, 9.0]]
    assert s.kruskal(groups).p == pytest.approx(stats.kruskal(*groups).pvalue, rel=1e-14)
    assert s.kruskal([[1.0, 1.0], [1.0]]).p == 1.0


@pytest.mark.parametrize("method", ["welch", "student", "paired"])
def test_difference_is_scipys(method):
    a, b = np.array([3.1, 2.9, 3.6, 3.3]), np.array([2.0, 2.6, 2.5, 2.1])
    reference = stats.ttest_rel(a, b) if method == "paired" else stats.ttest_ind(a, b, equal_var=method == "student")
    found, interval = s.difference(a, b, method), reference.confidence_interval(0.95)
    assert (found.t, found.df, found.p) == pytest.approx((reference.statistic, reference.df, reference.pvalue), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    if method != "paired":
        quoted = s.difference_from((a.mean(), a.std(), 4), (b.mean(), b.std(ddof=1), 4), method, ddof=(0, 1))
        assert quoted.p == pytest.approx(found.p, rel=1e-12)


def test_equivalence_is_the_interval_within_the_margins():
    found = s.difference([1.00, 1.02, 0.99, 1.01], [1.00, 1.01, 1.03, 0.99])
    wide, narrow = s.equivalence(found, 0.05), s.equivalence(found, 0.015)
    assert wide.equivalent and not narrow.equivalent
    assert s.equivalence(found, wide.least_margin * 1.001).equivalent
    assert not s.equivalence(found, wide.least_margin * 0.999).equivalent
    interval = s.difference([1.00, 1.02, 0.99, 1.01], [1.00, 1.01, 1.03, 0.99], level=0.9)
    assert (wide.low, wide.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert wide.least_margin == pytest.approx(max(-wide.low, wide.high), rel=1e-12)


def test_a_large_p_is_not_sameness():
    found = s.difference([320.0, 290.0, 250.0], [320.0, 320.0, 310.0], "student")
    assert found.p > 0.2 and not s.equivalence(found, 30.0).equivalent


def test_regression_finds_the_law_and_its_interval():
    width = np.array([128.0, 256.0, 512.0, 1024.0])
    exact = s.power_law(width, 3 * width**-0.25)
    assert exact.slope == pytest.approx(-0.25, rel=1e-12) and exact.r2 == pytest.approx(1.0, rel=1e-12)
    y = np.array([1.241, 1.125, 1.096, 1.080])
    found, reference = s.power_law(width, y), stats.linregress(np.log(width), np.log(y))
    assert (found.slope, found.p, found.r2) == pytest.approx((reference.slope, reference.pvalue, reference.rvalue**2), rel=1e-12)
    assert found.high - found.slope == pytest.approx(stats.t.ppf(0.975, 2) * reference.stderr, rel=1e-12)


def test_ranks():
    assert s.spearman([1, 2, 3, 4], [1, 4, 9, 16]).statistic == 1.0
    assert math.isnan(s.spearman([1, 1, 1], [1, 2, 3]).statistic)
    assert s.order_accuracy([1, 2, 3], [10, 30, 20]) == pytest.approx(2 / 3)
    assert s.order_accuracy([1, 1, 3], [10, 30, math.inf]) == pytest.approx(2.5 / 3)
    assert math.isnan(s.order_accuracy([1, 2], [5, 5]))


def test_left_out_errors_leave_out():
    assert s.left_out_errors([1.0, 2.0, 6.0]).tolist() == [1 - 4, 2 - 3.5, 6 - 1.5]
    assert s.left_out_errors([1.0, 3.0, 8.0], groups=["a", "a", "b"]).tolist() == [1 - 8, 3 - 8, 8 - 2]


def test_censored_times_are_counted_not_dropped():
    all_came = s.censored([100, 120, 150], 400)
    assert (all_came.median, all_came.crossed, all_came.n) == (120, 3, 3)
    assert all_came.restricted_mean == pytest.approx(np.mean([100, 120, 150]))
    one_missing = s.censored([100, 120, math.nan], 400)
    assert one_missing.median == 120 and one_missing.restricted_mean == pytest.approx((100 + 120 + 400) / 3)
    assert str(one_missing) == "2 of 3 crossed, median 120"
    most_missing = s.censored([100, math.nan, math.nan], 400)
    assert math.isnan(most_missing.median) and str(most_missing) == "1 of 3 crossed, median not reached"
    none = s.censored([math.nan, math.nan], 400)
    assert (none.crossed, none.restricted_mean) == (0, 400)


def test_censored_is_kaplan_and_meiers_worked_example():
    # Kaplan and Meier 1958, section 1: deaths at 0.8, 3.1, 5.4, 9.2 and losses at 1.0, 2.7, 7.0, 12.1 months.
    times = [0.8, 3.1, 5.4, 9.2, math.nan, math.nan, math.nan, math.nan]
    watched = [0.8, 3.1, 5.4, 9.2, 1.0, 2.7, 7.0, 12.1]
    curve = s._survival(*s._times(times, watched))
    assert curve.evaluate([0.8, 3.1, 5.4, 9.2]) == pytest.approx([7 / 8, 7 / 8 * 4 / 5, 7 / 8 * 3 / 5, 7 / 8 * 3 / 10], rel=1e-12)
    assert s.censored(times, watched).median == 9.2


def test_log_rank_tells_groups_apart():
    early, late = ([100, 110, 120, 130, 140], 400), ([300, 320, math.nan, math.nan, math.nan], 400)
    assert s.log_rank(early, late).p < 0.01
    assert s.log_rank(early, early).p == pytest.approx(1.0)
    assert math.isnan(s.log_rank(([math.nan], 5), ([math.nan], 5)).p)


@pytest.mark.parametrize(("call", "names"), [
    (lambda: s.summary([]), ["values", "1 or more"]),
    (lambda: s.summary([1.0, math.nan]), ["values", "censored"]),
    (lambda: s.t_interval([1.0]), ["values", "2 or more"]),
    (lambda: s.t_interval([1.0, 2.0], level=95), ["level", "95"]),
    (lambda: s.summary([1.0, 2.0], ddof=2), ["ddof", "2"]),
    (lambda: s.anova([[1.0], [2.0]]), ["groups", "more values"]),
    (lambda: s.difference([1.0, 2.0], [1.0, 2.0, 3.0], "paired"), ["b", "3"]),
    (lambda: s.difference([1.0, 2.0], [1.0, 2.0], "z"), ["method", "'z'", "welch"]),
    (lambda: s.power_law([1.0, 2.0, 3.0], [1.0, 0.0, 1.0]), ["y", "greater than 0"]),
    (lambda: s.censored([100, 500], 400), ["watched"]),
    (lambda: s.censored([math.inf], 400), ["times", "NaN"]),
    (lambda: s.equivalence(s.difference([1.0, 2.0], [1.0, 2.0]), 0.0), ["margin", "0.0"]),
])  # fmt: skip
def test_bad_input_is_named(call, names):
    with pytest.raises(BadInput) as told:
        call()
    for name in names:
        assert name in str(told.value)
