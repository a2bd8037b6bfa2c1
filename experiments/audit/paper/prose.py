"""Statements of the text against the tables and against each other: counts, orders, phases, sameness."""

from __future__ import annotations

import math

from experiments import statistics
from experiments.audit.check import Check, number, over, statement
from experiments.audit.paper.epochs import STEP
from experiments.published import published
from experiments.statistics import difference_from


def checks() -> list[Check]:
    """Every statement, in the order of the sections that make it."""
    return [*thresholds(), *baseline(), *protocol(), *figures(), *lead(), *cross_entropy()]


def thresholds() -> list[Check]:
    """What Table 1 says of its own range, and of a norm that falls monotonically."""
    p = published()
    claim, rows = p.claim("threshold.insensitive").values, [r for r in p.table(1).rows if r.condition]
    far = max(rows, key=lambda r: abs(r["ratio"].value - 1))
    away = over(lambda x: 100 * abs(x - 1), far["ratio"])
    relu, tanh = p.table(3).row("ReLU")["fn"].mean, p.table(3).row("tanh")["fn"].mean
    gap = over(lambda a, b: 100 * (b / a - 1), relu, tanh)
    risen = [r for r in rows if r["fn_002"].high < r["fn_001"].low]
    return [
        number(
            "Section 2.2",
            "variation between the two thresholds",
            claim["percent"],
            away,
            f"{far['ratio']} - 1, {far.label}",
            "10% is the mean ratio's distance from 1",
            "%",
        ),
        statement(
            "Section 2.2",
            "that variation is smaller than the gap between activations",
            "smaller",
            away.high < gap.low,
            f"{away.value:.0f}% against {gap.value:.0f}%",
            f"{far['ratio']} - 1 against {tanh} / {relu} - 1, tanh over ReLU",
        ),
        statement(
            "Figure 9",
            "fn falls monotonically to fn* in phase 2",
            "falls",
            not risen,
            "rises" if risen else "falls",
            "; ".join(f"{r.label}: {r['fn_002']} when NC1 passes 0.02, {r['fn_001']} when it later passes 0.01" for r in risen),
        ),
    ]


def baseline() -> list[Check]:
    """Compression, gaps, the interval of three seeds, and one nominal condition told four ways."""
    p = published()
    claim, resnet = p.claim("baseline.compression").values, p.claim("baseline.resnet").values
    seeds = p.claim("grid.small_samples").values["fn_resnet_cifar10"]
    extremes = (min(s.value for s in seeds), max(s.value for s in seeds))
    same = (resnet["interval"][0].value, resnet["interval"][1].value) == extremes
    found = statistics.bootstrap_interval([s.value for s in seeds])
    t = statistics.t_interval([s.value for s in seeds])
    one = {"Table 2": p.table(2).row(depth=5), "Table 7": p.table(7).row(width=512), "Table 8": p.table(8).row("control")}
    first, control = one["Table 2"], one["Table 8"]
    a, b = first["fn"], control["fn"]
    test = difference_from((b.mean.value, b.std.value, 3), (a.mean.value, a.std.value, 3))
    return [
        number(
            "Section 5.1",
            "compression of fn",
            claim["compression"],
            over(lambda x, y: x / y, claim["fn_epoch_10"], claim["fn"]),
            f"{claim['fn_epoch_10']} / {claim['fn']}",
            unit="x",
        ),
        statement(
            "Section 5.1",
            "95% CI of ResNet-20/CIFAR-10",
            f"[{resnet['interval'][0]}, {resnet['interval'][1]}]",
            math.isclose(found.low, resnet["interval"][0].value) and math.isclose(found.high, resnet["interval"][1].value),
            f"[{found.low:.3f}, {found.high:.3f}]",
            f"bootstrap of {', '.join(map(str, seeds))}",
            f"of three values a bootstrap interval is their range, whatever they are; Student's is [{t.low:.3f}, {t.high:.3f}]"
            if same
            else "",
        ),
        statement(
            "Tables 2, 7, 8",
            "MLP-5, ReLU, width 512, decay 1e-4 has one result",
            "one fn* and T_NC",
            all(r["fn"] == a and r["t_nc"] == first["t_nc"] for r in one.values()),
            "three sets of three seeds",
            "; ".join(f"{where}: fn {r['fn']} at {r['t_nc']}" for where, r in one.items()),
            f"fn* of Tables 2 and 8 differ by {test.difference:.3f}, p = {test.p:.2f}: what chance may do to three seeds",
        ),
    ]


def protocol() -> list[Check]:
    """In which phase collapse falls; how many runs there are."""
    p = published()
    switch = p.protocol["epochs_ce"]
    t = p.claim("grid.speed").values["t_nc"]
    rest = [r["t_nc"].mean for k in (2, 3, 4, 7, 8) for r in p.table(k).rows if r["t_nc"] is not None]
    early = t.high < switch
    table, gelu = p.table(3).row("GELU"), p.protocol["seeds_gelu"]
    counted = 3 * len(p.table(7).rows)
    return [
        statement(
            "Section 5.5",
            "ResNet-20/MNIST is the fastest of all conditions",
            f"T_NC {t}",
            all(t.high < o.low for o in rest),
            f"next {min(rest, key=float)}",
            "Tables 2, 3, 4, 7, 8",
        ),
        statement(
            "Section 2.3",
            "phase 2 (squared error) drives NC1 below the threshold",
            f"after epoch {switch}",
            not early,
            f"epoch {t}, ResNet-20/MNIST",
            f"phase 1 lasts {switch} epochs of cross-entropy",
            "5.867 is fn under cross-entropy; the other three cells of the grid are under squared error" if early else "",
        ),
        statement(
            "Section 2.3",
            "cross-entropy alone does not collapse",
            "phase 2 is necessary",
            not early,
            f"NC1 < 0.01 at epoch {t} of phase 1, ResNet-20/MNIST" if early else "it does not",
            "Figure 7, Section 2.3",
        ),
        statement(
            "Table 3",
            "GELU: four seeds run, one excluded",
            f"N = {table.n}",
            table.n == gelu - 1,
            f"N = {gelu - 1}",
            f"{gelu} - 1; with N = {table.n} there must have been {(table.n or 0) + 1} seeds",
        ),
        statement(
            "Section 5.6",
            "8 confirmed runs of the width sweep",
            str(p.claim("lead.order").values["runs"]),
            p.claim("lead.order").values["runs"].value == counted,
            str(counted),
            f"{len(p.table(7).rows)} widths x 3 seeds, all collapsed in Table 7",
            "nothing is said of the other four",
        ),
    ]


def figures() -> list[Check]:
    """The grand mean is quoted the same everywhere; uncertainties against effects."""
    p = published()
    claim = p.claim("weight_decay.invariance").values
    five, six = p.figure(5).values, p.figure(6).values
    one = claim["fn"].mean == five["fn"] == six["fn"] and claim["interval"] == five["interval"]
    told, text = (
        f"{c[0]}, {' to '.join(map(str, c[1]))}" for c in ((five["fn"], five["interval"]), (claim["fn"].mean, claim["interval"]))
    )
    made = [statement("Figures 5, 6", "grand mean and interval are those of the text", told, one, text, "Section 5.4")]
    effects = {
        label: abs(p.table(6).row(label)["percent"].value)
        for label in ("architecture effect on MNIST", "architecture effect on CIFAR-10")
    }
    widths = p.claim("grid.small_samples").values
    small = max(widths["percent_resnet_mnist"].high, widths["percent_resnet_cifar10"].high)
    made.append(
        statement(
            "Section 6.6",
            "uncertainties are over ten times smaller than the effects",
            "> 10x",
            min(effects.values()) > 10 * small,
            f"{min(effects.values()) / small:.0f}x",
            f"{min(effects.values()):g}% / {small:g}%",
        )
    )
    return made


def lead() -> list[Check]:
    """The range of the rule's errors, and what it was fitted to."""
    mean, claim = published().claim("lead.mean").values, published().claim("lead.error").values
    low, high = claim["range"]
    rule = claim["rule"].value
    # Times that are multiples of the step have gaps that are, too, so that only these errors are possible.
    errors = sorted({abs(gap - rule) for gap in range(0, 400, STEP)})
    possible = any(abs(e - low.value) <= low.half for e in errors)
    fitted = rule == mean["lead"].mean.value
    return [
        statement(
            "Section 5.6",
            f"absolute errors of the rule lie between {low} and {high}",
            f"{low} to {high}",
            possible,
            "possible" if possible else f"{low} cannot be one of them",
            f"gaps are multiples of {STEP}, so errors of T_cross + {rule:g} are {', '.join(f'{e:g}' for e in errors[:5])} ...",
            f"{high} is the error of a gap of {rule + high.value:g}; {low} may be the least gap",
        ),
        statement(
            "Section 5.6",
            "the rule is tested on runs that it was not fitted to",
            f"MAE {claim['mae']}",
            not fitted,
            f"fitted to the same {mean['runs']} runs" if fitted else "fitted elsewhere",
            f"{rule:g} is the mean gap, {mean['lead']}, of those runs",
        ),
    ]


def cross_entropy() -> list[Check]:
    """Section 2.3 and Section 5.7 on one and the same run."""
    p = published()
    norm, nc1 = p.claim("ce_only.norm").values, p.claim("ce_only.nc1").values
    a, b, low = norm["fn_elsewhere"], norm["fn"], nc1["nc1_range"][0]
    return [
        statement(
            "Section 2.3",
            "range of fn under cross-entropy alone",
            f"{a[0]} to {a[1]}",
            a == b,
            f"{b[0]} to {b[1]}",
            "Section 5.7 and Figure 9, the same run",
        ),
        statement(
            "Section 5.7",
            f"NC1 oscillates from {low} up; its minimum",
            str(nc1["nc1_min"]),
            low.low <= nc1["nc1_min"].high,
            f"{low} at two digits",
            "Figure 9",
        ),
    ]
