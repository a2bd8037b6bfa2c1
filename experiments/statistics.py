"""Statistics for a handful of seeds: spreads that state their ddof, intervals, tests of difference and of sameness, regressions,
and collapse times of which some never came.

Every test works on the values, or, where a function ends in `_from`, on quoted means and standard deviations. What SciPy has is
SciPy's; all sums are float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ncflow.errors import require

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A confidence interval: `level` of it, and the `method` that made it."""

    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True)
class Summary:
    """mean, standard deviation (its `ddof`, NaN where n <= ddof), and cv = std / |mean|, of `n` values."""

    n: int
    mean: float
    std: float
    ddof: int
    cv: float


@dataclass(frozen=True)
class Significance:
    """A test of difference: statistic, degrees of freedom (`df2` NaN where there is one), p."""

    name: str
    statistic: float
    df: float
    df2: float
    p: float


@dataclass(frozen=True)
class Difference:
    """A difference of two means: a - b, its standard error and degrees of freedom, t, two-sided p, and confidence interval."""

    method: str
    difference: float
    se: float
    df: float
    t: float
    p: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests (Schuirmann 1987).

    Attributes:
        difference: a - b; `p` the larger of the two one-sided p: below alpha, |a - b| < margin is shown.
        margin: what was asked; `least_margin` the smallest that the data would show at alpha.
        low, high: the interval of level 1 - 2 alpha that must lie within the margins.
    """

    difference: float
    margin: float
    p: float
    equivalent: bool
    least_margin: float
    low: float
    high: float
    alpha: float


@dataclass(frozen=True)
class Spreads:
    """Two relative spreads: `ratio` of the variances of log a and log b, its F interval of `level`, and the two-sided p of Brown
    and Forsythe's test (1974), which does not mind tails as F does."""

    ratio: float
    low: float
    high: float
    level: float
    p: float


@dataclass(frozen=True)
class Regression:
    """Least squares y = intercept + slope x: standard error and interval of the slope, Pearson r, R2, p of slope 0, points."""

    slope: float
    intercept: float
    se: float
    low: float
    high: float
    level: float
    r: float
    r2: float
    p: float
    n: int


@dataclass(frozen=True)
class Censored:
    """Times of which some never came (Kaplan and Meier 1958).

    Attributes:
        n, crossed: runs, and those in which it happened.
        median: first time at which half of the runs or more have crossed, by the Kaplan-Meier estimate; NaN if not reached.
        restricted_mean: area under the survival curve up to `horizon`, the shortest time that a run which never crossed was
            watched, else the last crossing: a mean in which such a run counts as the horizon.
    """

    n: int
    crossed: int
    median: float
    restricted_mean: float
    horizon: float

    def __str__(self) -> str:
        median = "median not reached" if math.isnan(self.median) else f"median {self.median:g}"
        return f"{self.crossed} of {self.n} crossed, {median}"



def summary(values: ArrayLike, ddof: int = 1) -> Summary:
    """`Summary` of values (n,), n >= 1, all finite: times that never came belong to `censored`.

    Raises:
        BadInput: no values, or not finite.
    """
    x = _sample("values", values)
    require(ddof in (0, 1), "ddof", ddof, "0 or 1")
    mean = float(x.mean())
    std = float(x.std(ddof=ddof)) if len(x) > ddof else math.nan
    return Summary(len(x), mean, std, ddof, std / abs(mean) if mean else math.nan)


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's interval of the mean of values (n,), n >= 2: mean ± t std(ddof 1) / sqrt(n)."""
    x = _sample("values", values, 2)
    return t_interval_from(float(x.mean()), float(x.std(ddof=1)), len(x), level=level)


def t_interval_from(mean: float, std: float, n: int, ddof: int = 1, level: float = 0.95) -> Interval:
    """The same from a quoted mean and standard deviation of `ddof`."""
    _level(level)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * _unbiased(std, n, ddof) / math.sqrt(n)
    return Interval(mean - half, mean + half, level, "t")


def bootstrap_interval(values: ArrayLike, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of the mean of values (n,), n >= 2 (Efron 1979), seeded.

    Of three values it is [least, greatest] at 95%, whatever they are: each extreme has probability 1/27 > 2.5%.
    """
    x = _sample("values", values, 2)
    _level(level)
    require(resamples >= 1, "resamples", resamples, "at least 1")
    means = x[np.random.default_rng(seed).integers(0, len(x), (resamples, len(x)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, f"bootstrap, {resamples} resamples, seed {seed}")



def anova(groups: Sequence[ArrayLike]) -> Significance:
    """One-way analysis of variance (Fisher) of groups (n_i,), which it takes to have one variance."""
    samples = [_sample("groups", g) for g in groups]
    return anova_from([x.mean() for x in samples], [x.std() for x in samples], [len(x) for x in samples], ddof=0)


def anova_from(means: Sequence[float], stds: Sequence[float], ns: Sequence[int], ddof: int | Sequence[int] = 1) -> Significance:
    """The same from quoted means, standard deviations (of one `ddof`, or one each) and numbers:
    F = [sum n_i (m_i - m)^2 / (k - 1)] / [sum (n_i - ddof) s_i^2 / (n - k)]."""
    m, s, n = np.asarray(means, float), np.asarray(stds, float), np.asarray(ns, float)
    k, total = len(m), n.sum()
    require(k >= 2 and m.shape == s.shape == n.shape, "groups", k, "two or more, each with mean, std and number")
    require(total > k, "groups", list(ns), "more values than groups")
    between = float((n * (m - (n * m).sum() / total) ** 2).sum()) / (k - 1)
    within = float(((n - np.asarray(ddof)) * s**2).sum()) / float(total - k)
    f = between / within if within else math.inf if between else math.nan
    return Significance("one-way ANOVA", f, k - 1, float(total - k), float(stats.f.sf(f, k - 1, total - k)))


def welch_anova(groups: Sequence[ArrayLike]) -> Significance:
    """One-way analysis of variance that lets variances differ (Welch 1951); groups of two or more values, not all equal."""
    samples = [_sample("groups", g, 2) for g in groups]
    n, m = np.array([len(x) for x in samples], float), np.array([x.mean() for x in samples])
    v = np.array([x.var(ddof=1) for x in samples])
    good = bool((v > 0).all()) and len(samples) >= 2
    require(good, "groups", [len(x) for x in samples], "two or more, each with values that vary")
    k, w = len(n), n / v
    centre = (w * m).sum() / w.sum()
    lack = float(((1 - w / w.sum()) ** 2 / (n - 1)).sum())
    f = float((w * (m - centre) ** 2).sum()) / (k - 1) / (1 + 2 * (k - 2) / (k**2 - 1) * lack)
    df2 = (k**2 - 1) / (3 * lack)
    return Significance("Welch's ANOVA", f, k - 1, df2, float(stats.f.sf(f, k - 1, df2)))


def kruskal(groups: Sequence[ArrayLike]) -> Significance:
    """Kruskal and Wallis's test of ranks; all values equal gives statistic 0 and p 1."""
    samples = [_sample("groups", g) for g in groups]
    require(len(samples) >= 2, "groups", len(samples), "two or more")
    if np.ptp(np.concatenate(samples)) == 0:
        return Significance("Kruskal-Wallis", 0.0, len(samples) - 1, math.nan, 1.0)
    found = stats.kruskal(*samples)
    return Significance("Kruskal-Wallis", float(found.statistic), len(samples) - 1, math.nan, float(found.pvalue))



def difference(a: ArrayLike, b: ArrayLike, method: str = "welch", level: float = 0.95) -> Difference:
    """a - b of the means of two samples.

    Args:
        method: "welch" (variances may differ), "student" (one variance), "paired" (a and b of the same length, in pairs).
    """
    x, y = _sample("a", a, 2), _sample("b", b, 2)
    require(method in ("welch", "student", "paired"), "method", method, "welch, student or paired")
    if method != "paired":
        return difference_from((x.mean(), x.std(ddof=1), len(x)), (y.mean(), y.std(ddof=1), len(y)), method, level=level)
    require(len(x) == len(y), "b", len(y), f"as many values as a, {len(x)}")
    d = x - y
    return _difference(method, float(d.mean()), float(d.std(ddof=1)) / math.sqrt(len(d)), len(d) - 1, level)


def difference_from(
    a: tuple[float, float, int],
    b: tuple[float, float, int],
    method: str = "welch",
    ddof: int | tuple[int, int] = 1,
    level: float = 0.95,
) -> Difference:
    """The same, not paired, from quoted (mean, standard deviation, number)."""
    require(method in ("welch", "student"), "method", method, "welch or student")
    da, db = (ddof, ddof) if isinstance(ddof, int) else ddof
    (ma, sa, na), (mb, sb, nb) = a, b
    va, vb = _unbiased(sa, na, da) ** 2, _unbiased(sb, nb, db) ** 2
    if method == "student":
        df, se2 = float(na + nb - 2), ((na - 1) * va + (nb - 1) * vb) / (na + nb - 2) * (1 / na + 1 / nb)
    else:
        se2 = va / na + vb / nb
        df = se2**2 / ((va / na) ** 2 / (na - 1) + (vb / nb) ** 2 / (nb - 1)) if se2 else float(na + nb - 2)
    return _difference(method, float(ma - mb), math.sqrt(se2), df, level)


def spread_ratio(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Spreads:
    """`Spreads` of two samples of positive values, two or more each, that of b not all equal."""
    x, y = _sample("a", a, 2), _sample("b", b, 2)
    require(bool((x > 0).all() and (y > 0).all()), "a", list(x[:4]), "greater than 0, as b")
    require(bool(np.ptp(y) > 0), "b", list(y[:4]), "values that differ")
    _level(level)
    u, v = np.log(x), np.log(y)
    ratio = float(u.var(ddof=1) / v.var(ddof=1))
    edges = stats.f.ppf([(1 - level) / 2, (1 + level) / 2], len(x) - 1, len(y) - 1)
    found: Any = stats.levene(u, v, center="median")
    return Spreads(ratio, ratio / float(edges[1]), ratio / float(edges[0]), level, float(found.pvalue))


def equivalence(found: Difference, margin: float, alpha: float = 0.05) -> Equivalence:
    """Two one-sided tests of |a - b| < margin on a `difference` of any method.

    That a test of difference has a large p does not say that two means are the same: this does.
    """
    require(margin > 0 and math.isfinite(margin), "margin", margin, "a finite number, greater than 0")
    require(0 < alpha < 0.5, "alpha", alpha, "between 0 and 0.5")
    d, se = found.difference, found.se
    half = float(stats.t.ppf(1 - alpha, found.df)) * se
    worst = (margin - abs(d)) / se if se else math.inf if abs(d) < margin else -math.inf
    p = float(stats.t.sf(worst, found.df))
    return Equivalence(d, margin, p, p < alpha, abs(d) + half, d - half, d + half, alpha)



def regression(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Regression:
    """Straight line through (x, y), both (n,), n >= 3."""
    a, b = _sample("x", x, 3), _sample("y", y, 3)
    require(len(a) == len(b), "y", len(b), f"as many values as x, {len(a)}")
    require(float(np.ptp(a)) > 0, "x", list(a[:4]), "values that differ")
    _level(level)
    found: Any = stats.linregress(a, b)
    half = float(stats.t.ppf((1 + level) / 2, len(a) - 2)) * float(found.stderr)
    slope = float(found.slope)
    return Regression(slope, float(found.intercept), float(found.stderr), slope - half, slope + half, level, float(found.rvalue),
                      float(found.rvalue) ** 2, float(found.pvalue), len(a))  # fmt: skip


def power_law(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Regression:
    """`regression` of log y on log x, both positive: the slope is the exponent."""
    a, b = _sample("x", x, 3), _sample("y", y, 3)
    require(bool((a > 0).all()), "x", list(a[:4]), "greater than 0")
    require(bool((b > 0).all()), "y", list(b[:4]), "greater than 0")
    return regression(np.log(a), np.log(b), level)


def spearman(x: ArrayLike, y: ArrayLike) -> Significance:
    """Spearman's rank correlation of (x, y), both (n,), n >= 3; NaN where one of them does not vary."""
    a, b = _sample("x", x, 3), _sample("y", y, 3)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return Significance("Spearman", math.nan, len(a) - 2, math.nan, math.nan)
    found: Any = stats.spearmanr(a, b)
    return Significance("Spearman", float(found.statistic), len(a) - 2, math.nan, float(found.pvalue))


def order_accuracy(predicted: ArrayLike, observed: ArrayLike) -> float:
    """Share of the pairs that differ in `observed` which `predicted` orders the same way.

    A tie in `predicted` counts half; a time that never came may be given as infinity; NaN where no pair differs.
    """
    p, o = np.asarray(predicted, float), np.asarray(observed, float)
    require(p.shape == o.shape and p.ndim == 1, "predicted", p.shape, f"as many values as observed, {o.shape}")
    require(not (np.isnan(p).any() or np.isnan(o).any()), "predicted", "NaN", "numbers, or infinity for a time that never came")
    pairs = [(i, j) for i, j in combinations(range(len(o)), 2) if o[i] != o[j]]
    right = [0.5 if p[i] == p[j] else float((p[i] < p[j]) == (o[i] < o[j])) for i, j in pairs]
    return float(np.mean(right)) if right else math.nan


def left_out_errors(values: ArrayLike, groups: Sequence[Any] | None = None) -> np.ndarray:
    """value - mean of the values outside its group, (n,): the error of predicting each by what the others show.

    Args:
        groups: what is left out together, such as a condition; None leaves out one value at a time.
    """
    x = _sample("values", values, 2)
    labels = np.arange(len(x)) if groups is None else np.unique(np.asarray([str(g) for g in groups]), return_inverse=True)[1]
    good = len(labels) == len(x) and len(set(labels.tolist())) > 1
    require(good, "groups", len(labels), f"{len(x)} labels, of two groups or more")
    return np.array([x[i] - x[labels != labels[i]].mean() for i in range(len(x))])



def censored(times: ArrayLike, watched: ArrayLike) -> Censored:
    """`Censored` of collapse times (n,), NaN where a run never crossed.

    Args:
        watched: until when each run was watched, one number or (n,); a run that crossed was watched at least until then.
    """
    t, end = _times(times, watched)
    curve = _survival(t, end)
    below = np.flatnonzero(np.asarray(curve.probabilities) <= 0.5)
    median = float(curve.quantiles[below[0]]) if len(below) else math.nan
    horizon = float(end[np.isnan(t)].min()) if np.isnan(t).any() else float(t.max())
    at, alive = np.append(0.0, curve.quantiles), np.append(1.0, curve.probabilities)
    keep = at < horizon
    mean = float((alive[keep] * np.diff(np.append(at[keep], horizon))).sum())
    return Censored(len(t), int(np.isfinite(t).sum()), median, mean, horizon)


def log_rank(a: tuple[ArrayLike, ArrayLike], b: tuple[ArrayLike, ArrayLike]) -> Significance:
    """Do two groups of (times, watched), as in `censored`, cross at the same rate? (Mantel 1966.) NaN where nothing crossed."""
    one, other = _times(*a), _times(*b)
    if not (np.isfinite(one[0]).any() or np.isfinite(other[0]).any()):
        return Significance("log-rank", math.nan, 1, math.nan, math.nan)
    found: Any = stats.logrank(_censoring(*one), _censoring(*other))
    return Significance("log-rank", float(found.statistic), 1, math.nan, float(found.pvalue))


def _times(times: ArrayLike, watched: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    t = np.atleast_1d(np.asarray(times, float))
    require(t.ndim == 1 and len(t) > 0, "times", t.shape, "one time per run, at least one run")
    end = np.broadcast_to(np.asarray(watched, float), t.shape)
    require(bool(np.isfinite(end).all()), "watched", watched, "finite numbers")
    good = bool(((t > 0) | np.isnan(t)).all() and not np.isinf(t).any())
    require(good, "times", list(t[:4]), "greater than 0, NaN where it never came")
    require(bool((np.isnan(t) | (t <= end)).all()), "watched", list(end[:4]), "at least the time of each run that crossed")
    return t, end


def _censoring(t: np.ndarray, end: np.ndarray) -> stats.CensoredData:
    came = np.isfinite(t)
    return stats.CensoredData(uncensored=t[came], right=end[~came])


def _survival(t: np.ndarray, end: np.ndarray) -> Any:
    return stats.ecdf(_censoring(t, end)).sf


def _difference(method: str, d: float, se: float, df: float, level: float) -> Difference:
    _level(level)
    t = d / se if se else math.copysign(math.inf, d) if d else 0.0
    half = float(stats.t.ppf((1 + level) / 2, df)) * se
    return Difference(method, d, se, df, t, float(2 * stats.t.sf(abs(t), df)), d - half, d + half, level)


def _unbiased(std: float, n: int, ddof: int) -> float:
    """The standard deviation of ddof 1 from one of `ddof`."""
    require(n >= 2, "n", n, "at least 2")
    require(ddof in (0, 1), "ddof", ddof, "0 or 1")
    return std * math.sqrt((n - ddof) / (n - 1))


def _level(level: float) -> None:
    require(0 < level < 1, "level", level, "between 0 and 1")


def _sample(name: str, values: ArrayLike, least: int = 1) -> np.ndarray:
    x = np.asarray(values, float)
    require(x.ndim == 1 and len(x) >= least, name, np.shape(values), f"a sequence of {least} or more numbers")
    require(bool(np.isfinite(x).all()), name, list(x[:4]), "finite numbers; times that never came belong to `censored`")
    return x
