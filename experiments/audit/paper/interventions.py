"""Section 6.4: where the arms of the intervention start, and whether their ends are shown to be the same."""

from __future__ import annotations

from experiments.audit.check import Check, over, statement
from experiments.audit.paper.orders import difference, same
from experiments.published import published
from experiments.statistics import difference_from, equivalence


def checks() -> list[Check]:
    """Where the arms start, and whether their ends are shown to be the same."""
    p = published()
    table, claim = p.table(8), p.claim("intervention.attractor").values
    control, down, up = (table.row(label) for label in ("control", "scale-down", "scale-up"))
    means = [r["fn"].mean for r in (control, down, up)]
    start = down["fn_after"]
    above = start.low > control["fn"].mean.high
    made = [
        statement(
            "Section 6.4",
            "the scaled-down arm starts well below fn* and rebounds upward",
            f"fn {start} below fn*",
            not above,
            f"{start.value / control['fn'].mean.value:.1f} times fn* = {control['fn'].mean}",
            f"{start} / {control['fn'].mean}",
            "no arm starts below fn*: recovery from below is not tested" if above else "",
        )
    ]
    for end, mean in ((0, min(means, key=float)), (1, max(means, key=float))):
        made.append(same("Section 6.4", f"{('least', 'greatest')[end]} fn* of the three arms", claim["fn"][end], mean, "Table 8"))
    least = claim["p_above"].value
    for r in (down, up):
        found = difference(r, control, "fn")
        ways = over(
            lambda a, b, c, d: difference_from((a, b, 3), (c, d, 3), "student").p,
            r["fn"].mean,
            r["fn"].std,
            control["fn"].mean,
            control["fn"].std,
        )
        made.append(
            statement(
                "Abstract",
                f"fn* of {r.label} equals the control's, p > 0.2",
                f"p > {least:g}",
                ways.high > least,
                f"p = {ways.shown(2)}",
                f"{r['fn']} against {control['fn']}, Student's t, n = 3",
                "the p of 0.22 and 0.42 are of T_NC",
            )
        )
        test = equivalence(found, 0.08 * control["fn"].mean.value)
        made.append(
            statement(
                "Section 6.4",
                f"fn* of {r.label} is shown to be the control's within 8%",
                "the same value",
                test.equivalent,
                f"within {100 * test.least_margin / control['fn'].mean.value:.0f}%",
                f"two one-sided tests, alpha 0.05: {abs(found.difference):.3f} + t x {found.se:.3f} = {test.least_margin:.3f}",
                "8% is the paper's own bound on CV",
            )
        )
    runs = p.claim("intervention.budget").values
    late = max(r["t_nc"].mean.value for r in table.rows) - p.protocol["epochs_ce"]
    made.append(
        statement(
            "Section 6.4",
            "all collapse within 400 epochs of phase 2",
            f"{runs['runs']} runs",
            late < runs["epochs"].value,
            f"means at most {late:.0f}",
            f"Table 8, less {p.protocol['epochs_ce']}",
        )
    )
    return made
