"""Tables 5 and 6 from the logged seeds: which runs the pooled values are of; and whether summary files say what the logs say."""

from __future__ import annotations

import numpy as np

from experiments import statistics
from experiments.audit.check import Check, Verdict, compare, interval, statement
from experiments.audit.logs.witness import Part, column, exact, known, listed, runs, spread
from experiments.published import Printed, published
from experiments.published.logs import Log, Logs


def parts() -> dict[str, Part]:
    """Name -> the checks of that name."""
    return {"Table 5": table_5, "Table 6": table_6, "summary files": summaries}


def table_5(logs: Logs) -> list[Check]:
    """Which runs the pooled values are of."""
    decay = [r.fn_at() for d in (1e-5, 5e-5) for r in runs(logs, "weight_decay", decay=d)]
    default = [r.fn_at() for r in runs(logs, "depth", depth=5)]
    deep = [r.fn_at() for r in runs(logs, "depth", depth=7)]
    widths = {w: column(logs, "sweep_width.csv", "fn", width=w) for w in (128, 256, 512, 1024)}
    width = [x for each in widths.values() for x in each]
    table, claim = published().table(5), published().claim("weight_decay.invariance").values
    nine = decay + widths[512]
    found = statistics.bootstrap_interval(nine)
    t = statistics.t_interval(nine)
    outside = sum(abs(v - np.mean(nine)) > np.std(nine, ddof=1) for v in nine)
    cifar = column(logs, "cifar10_summary.csv", "fn")
    f = statistics.anova([width, cifar])
    welch, ranks = statistics.welch_anova([width, cifar]), statistics.kruskal([width, cifar])
    shallow = [r.fn_at(0.05) for d in (2, 3) for r in runs(logs, "depth_rerun", depth=d)]
    return [
        spread(
            "Table 5",
            "depth sweep, from the runs of all four depths",
            table.row("depth sweep")["fn"],
            shallow + default + deep,
            "Table 2's twelve runs",
        ),
        spread(
            "Table 5",
            "depth sweep, from decays 1e-5, 5e-5, 1e-4 and depth 7",
            table.row("depth sweep")["fn"],
            decay + default + deep,
            "12 runs",
        ),
        spread("Table 5", "decay sweep, from the runs of Table 4", table.row("decay sweep")["fn"], decay + default, "9 runs"),
        spread(
            "Table 5", "decay sweep, with width 512 of Table 7 for decay 1e-4", table.row("decay sweep")["fn"], nine, "9 runs"
        ),
        spread("Table 5", "width sweep", table.row("width sweep")["fn"], width, "12 runs"),
        spread(
            "Table 5",
            "all ReLU runs: decays 1e-5 and 5e-5, depth 7, four widths",
            table.row("all ReLU runs")["fn"],
            decay + deep + width,
            "21 runs",
        ),
        interval(
            "Section 5.4",
            "95% CI of those nine runs",
            claim["interval"],
            (known(found.low), known(found.high)),
            found.method,
            f"Student's: [{t.low:.3f}, {t.high:.3f}]",
        ),
        statement(
            "Figure 5",
            "all nine lie within one std of the mean",
            "9 of 9",
            outside == 0,
            f"{len(nine) - outside} of 9",
            listed(nine),
            f"std {np.std(nine, ddof=1):.3f}",
        ),
        exact(
            "Table 6",
            "ANOVA F, from the width sweep and ResNet-20/CIFAR-10",
            published().claim("grid.anova").values["f"],
            f.statistic,
            f"12 and 3 runs, F({f.df:.0f}, {f.df2:.0f}), p = {f.p:.0e}",
            f"two groups, not four pairs; Welch F {welch.statistic:.0f}, p = {welch.p:.0e}; Kruskal-Wallis p = {ranks.p:.3f}",
        ),
    ]


def table_6(logs: Logs) -> list[Check]:
    """The three pairs of one sweep each, and all four compared."""
    table, made, groups = published().table(6), [], []
    for label, file in (
        ("ResNet-20 on MNIST", "resnet20_mnist"),
        ("MLP-5 on CIFAR-10", "mlp5_cifar10"),
        ("ResNet-20 on CIFAR-10", "cifar10"),
    ):
        row, values = table.row(label), column(logs, f"{file}_summary.csv", "fn")
        groups.append(values)
        made.append(spread("Table 6", f"fn*, {label}", row["fn"], values, listed(values)))
        t = statistics.t_interval(values)
        made.append(
            interval("Table 6", f"95% t-interval, {label}", row["interval"], [known(t.low), known(t.high)], listed(values))
        )
    kinds = {c.numbers["ddof"] for c in made if c.numbers.get("ddof") is not None}
    made.append(
        statement(
            "Table 6",
            "standard deviations are of one kind",
            "mean ± std",
            len(kinds) < 2,
            f"ddof {' and '.join(map(str, sorted(kinds)))}",
            "the three rows above",
            "the intervals are of ddof 1 throughout",
        )
    )
    groups.append(
        [r.fn_at() for d in (1e-5, 5e-5, 1e-4) for r in runs(logs, "weight_decay", decay=d)]
        + [r.fn_at() for r in runs(logs, "depth", depth=7)]
    )
    f, ranks = statistics.anova(groups), statistics.kruskal(groups)
    made.append(
        exact(
            "Table 6",
            "ANOVA F between the four pairs",
            published().claim("grid.anova").values["f"],
            f.statistic,
            f"runs of the four rows, F({f.df:.0f}, {f.df2:.0f}), p = {f.p:.0e}",
            f"Kruskal-Wallis p = {ranks.p:.4f}; the means differ by more than any of these tests can express",
        )
    )
    return made


def summaries(logs: Logs) -> list[Check]:
    """Do summary files say what the logs say?"""
    pairs: list[tuple[str, str, dict[str, object], Log, float, int | None]] = []
    for r in logs.runs:
        c = r.condition
        table: dict[str, tuple[str, str, dict[str, object], float, int | None]] = {
            "width": ("sweep_width.csv", "fn", {"width": c.get("width")}, 0.01, None),
            "intervention": ("intervention_summary.csv", "fn_at_TNC", {"alpha": c.get("alpha")}, 0.01, None),
        }
        names = {
            "cifar10_s": ("cifar10_summary.csv", "fn", {}, 0.01, None),
            "mlp5": ("mlp5_cifar10_summary.csv", "fn", {}, 0.05, None),
            "resnet20": ("resnet20_mnist_summary.csv", "fn", {}, 0.01, None),
            "actGELU": ("gelu_summary.csv", "fn", {}, 0.05, None),
            "gelu_s": ("gelu_summary.csv", "fn", {}, 0.05, None),
            "wd1e": ("sweep_wd.csv", "fn", {"wd": c.get("decay")}, 0.01, None),
            "wd5e": ("sweep_wd.csv", "fn", {"wd": c.get("decay")}, 0.01, None),
            "depth7": ("sweep_depth.csv", "feat_norm", {"depth": 7}, 0.01, None),
        }
        chosen = [table[e] for e in r.spec.experiments if e in table] + [v for k, v in names.items() if r.name.startswith(k)]
        pairs += [(f, col, cond, r, level, phase) for f, col, cond, level, phase in chosen if f in logs.summaries]
    wrong, counted = [], 0
    for file, name, condition, r, level, phase in pairs:
        for row in logs.rows(file, seed=r.seed, **condition):
            counted += 1
            t, fn = r.t_nc(level, phase), r.fn_at(level, phase)
            if float(row["T_NC"]) != t or compare(Printed(row[name]), known(fn)) is not Verdict.AGREES:
                wrong.append(f"{file}: {r.name} {row['T_NC']}, {row[name]}, log {t:.0f}, {fn:.4f}")
    return [
        statement(
            "summary files",
            "T_NC and fn of the summaries are those of the logs",
            f"{counted} rows",
            not wrong,
            f"{counted - len(wrong)} of {counted}",
            "; ".join(wrong) or "first logged epoch below the threshold",
        )
    ]
