"""How a verdict is reached: the rules that experiments share, stated once and fixed before the numbers were seen.

- A value replicates within 8% of the published one, which is the spread that the paper itself claims for fn*; within twice that
  it replicates in part; beyond that it is contradicted. Only networks trained as stated, ours or the authors' logged ones, can
  test a value.
- An order, a regime or a sameness can be tested at any scale, and at the smaller scales counts for that scale.
- Means are called the same only if two one-sided tests show it (|difference| below 8% of the control, alpha 0.05); a large p of
  a test of difference does not say so.
- A collapse time that never came counts as later than every time that came.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from experiments import statistics
from experiments.paper.evidence import Evidence, Row, Times
from experiments.paper.experiment import Judgement, Verdict

SAME = 0.08
R, P, C, U = Judgement.REPLICATES, Judgement.IN_PART, Judgement.CONTRADICTED, Judgement.UNTESTABLE

#: How the report tells them.
RULES = tuple(" ".join(line.split()) for line in (__doc__ or "").split("\n\n", 1)[1].split("\n- "))


def untestable(claim: str, reason: str, found: str = "–", theory: str = "") -> Verdict:
    return Verdict(claim, U, found, reason, theory)


def missing(claims: Iterable[str], evidence: Evidence) -> list[Verdict]:
    """Verdicts where there are no runs, or too few."""
    there = len(evidence.present)
    why = f"only {there} of {len(evidence.rows)} conditions have runs" if there else "no finished runs"
    return [untestable(claim, why) for claim in claims]


def graded(error: float) -> Judgement:
    """Of a relative deviation from a published value."""
    return R if abs(error) <= SAME else P if abs(error) <= 2 * SAME else C


def value(
    claim: str, evidence: Evidence, ours: float, theirs: float, what: str, *, form: str = ".3f", theory: str = ""
) -> Verdict:
    """Of one published value."""
    if not evidence.full:
        shown = f"{what} {ours:{form}}" if np.isfinite(ours) else f"{what}: did not happen in every seed"
        return untestable(claim, "a value of the full protocol; this group is trained on less", shown, theory)
    if not np.isfinite(ours):
        return Verdict(claim, C, f"{what}: did not happen", f"published {theirs:{form}}", theory)
    error = ours / theirs - 1
    return Verdict(claim, graded(error), f"{what} {ours:{form}}, published {theirs:{form}}", f"{100 * error:+.1f}%", theory)


def worst(judgements: Sequence[Judgement]) -> Judgement:
    """Of several parts of one claim: all replicate, none does, or in part."""
    kinds = set(judgements) - {U}
    if not kinds:
        return U
    return kinds.pop() if len(kinds) == 1 else P


def cv_text(rows: Iterable[Row]) -> str:
    """CV of fn at the end over all networks that were trained on after T_NC."""
    ends = np.concatenate([r.fn_end for r in rows])
    return f"CV {100 * statistics.summary(ends).cv:.1f}%" if len(ends) > 1 else "not known"


def concentration(evidence: Evidence, rows: Sequence[Row], over: str) -> Verdict:
    """CV of fn at T_NC over all networks of a sweep below 8%? By the paper's thresholds and by one for all."""
    cvs: dict[str, float] = {}
    for name, threshold in (("thresholds of the paper", None), ("NC1 < 0.01 for all", 0.01)):
        fn = np.concatenate([r.times(threshold, every=evidence.cadence).fn_star for r in rows])
        if len(fn) > 2:
            cvs[name] = statistics.summary(fn).cv
    if not cvs:
        return untestable("concentration.cv", "fewer than three networks collapsed")
    below = [v < SAME for v in cvs.values()]
    words = ", ".join(f"{100 * v:.1f}% ({name})" for name, v in cvs.items())
    return Verdict("concentration.cv", R if all(below) else P if any(below) else C, f"CV over {over} and seeds: {words}",
                   "below 8% is the claim")  # fmt: skip


def times_text(names: Sequence[str], times: Sequence[Times]) -> str:
    """ "depth 2: 273, depth 3: > 600 (1 of 3)": what decides an order."""
    return ", ".join(f"{name} {_typical(t)}" for name, t in zip(names, times, strict=True))


def _typical(t: Times) -> str:
    if not t.n:
        return "–"
    if t.crossed == t.n:
        return f"{t.t_nc.mean():.0f}"
    late = f"> {t.horizon[~np.isfinite(t.t_nc)].min():.0f}"
    return (
        late
        if not t.crossed
        else f"{t.typical:.0f} ({t.crossed} of {t.n})"
        if np.isfinite(t.typical)
        else f"{late} ({t.crossed} of {t.n})"
    )


def monotone(values: Sequence[float], *, ties: float = 0.0) -> int:
    """+1 if values never fall (by more than `ties`) and rise overall, -1 if they never rise and fall, 0 otherwise. Infinities
    count as latest."""
    x = np.asarray(values, float)
    with np.errstate(invalid="ignore"):
        steps = np.diff(x)
    steps = np.where(np.isnan(steps), 0.0, steps)  # both never came
    if (steps >= -ties).all() and (steps > ties).any():
        return 1
    if (steps <= ties).all() and (steps < -ties).any():
        return -1
    return 0
