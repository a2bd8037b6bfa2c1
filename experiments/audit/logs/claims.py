"""What the text and the figures state about single runs, recomputed from the authors' own logs."""

from __future__ import annotations

import numpy as np

from experiments import statistics
from experiments.audit.check import Check, interval, statement
from experiments.audit.logs.witness import Part, column, exact, known, listed, run, runs, spread
from experiments.published import published
from experiments.published.logs import Logs


def parts() -> dict[str, Part]:
    """Name -> the checks of that name."""
    return {
        "baseline": baseline,
        "cross-entropy alone": cross_entropy,
        "decay 5e-4": stalled,
        "plateaus": plateaus,
        "lead time": lead,
    }


def baseline(logs: Logs) -> list[Check]:
    """Figure 1 and Section 5.1."""
    log, p = run(logs, "mnist_twophase"), published()
    t, c, plateau = (p.claim(f"baseline.{k}").values for k in ("t_nc", "compression", "plateau"))
    first = log.phase == 1
    low, high = float(log.nc1[first].min()), float(log.nc1[first].max())
    early = log.at(10, "train_accuracy")
    full = log.epoch[log.series["train_accuracy"] >= 0.99995]
    least = int(np.argmin(log.fn))
    return [
        exact("Figure 1", "T_NC", t["t_nc"], log.t_nc(), "mnist_twophase.csv"),
        exact("Section 5.1", "NC1 at T_NC", t["nc1"], log.at(int(log.t_nc()), "nc1"), f"epoch {log.t_nc():.0f}"),
        exact("Figure 1", "fn at T_NC", c["fn"], log.fn_at(), f"epoch {log.t_nc():.0f}"),
        exact("Figure 1", "fn at epoch 10", c["fn_epoch_10"], log.at(10), "epoch 10"),
        exact(
            "Section 5.1",
            "compression of fn",
            c["compression"],
            log.at(10) / log.fn_at(),
            f"{log.at(10):.2f} / {log.fn_at():.3f}",
            unit="x",
        ),
        statement(
            "Section 5.1",
            "NC1 stays near 0.5 throughout phase 1",
            str(plateau["nc1"]),
            low >= plateau["nc1"].low and high <= plateau["nc1"].high,
            f"{low:.2f} to {high:.2f}",
            "phase 1 of mnist_twophase.csv",
            f"{log.at(200, 'nc1'):.2f} at its end",
        ),
        statement(
            "Section 5.1",
            "training accuracy is 100% from epoch 10",
            "100%",
            early >= 0.995,
            f"{100 * early:.1f}% at epoch 10",
            f"100.0% first at epoch {full[0] if len(full) else '-'}",
            f"in phase 2 it falls to {100 * log.series['train_accuracy'][~first].min():.1f}%",
        ),
        statement(
            "Figure 9",
            "fn falls monotonically to fn* in phase 2",
            "falls",
            bool((np.diff(log.fn[~first]) <= 0).all()),
            f"{log.fn[least]:.2f} at epoch {log.epoch[least]}, then back to {log.fn_at():.2f}",
            "phase 2 of mnist_twophase.csv",
        ),
    ]


def cross_entropy(logs: Logs) -> list[Check]:
    """Section 5.7 and Section 2.3."""
    log, p = run(logs, "ce_only_ablation"), published()
    nc1, norm, accuracy = (p.claim(f"ce_only.{k}").values for k in ("nc1", "norm", "accuracy"))
    lowest = int(np.argmin(log.nc1))
    reached = log.epoch[log.series["train_accuracy"] >= 0.99]
    low, high = float(log.fn.min()), float(log.fn.max())
    whole = log.epoch[log.series["train_accuracy"] >= 0.99995]
    return [
        exact("Section 5.7", "least NC1", nc1["nc1_min"], log.nc1[lowest], f"epoch {log.epoch[lowest]} of ce_only_ablation.csv"),
        exact("Section 5.7", "NC1 at the end", nc1["nc1_end"], log.nc1[-1], f"epoch {log.last}"),
        interval(
            "Section 5.7",
            "range of NC1",
            nc1["nc1_range"],
            (known(log.nc1.min()), known(log.nc1[1:].max())),
            "from the second logged epoch on",
        ),
        interval("Section 5.7", "range of fn", norm["fn"], (known(low), known(high)), "all logged epochs"),
        interval("Section 2.3", "range of fn", norm["fn_elsewhere"], (known(low), known(high)), "all logged epochs"),
        exact("Section 5.7", "epoch from which accuracy is 99%", accuracy["epoch"], float(reached[0]), "logged every 20 epochs"),
        statement(
            "Section 2.3",
            "training accuracy is 100% from epoch 10",
            "100%",
            bool(len(whole)) and whole[0] <= 20,
            f"first at epoch {whole[0] if len(whole) else '-'}",
            f"{100 * log.series['train_accuracy'][0]:.1f}% at epoch {log.epoch[0]}",
        ),
    ]


def stalled(logs: Logs) -> list[Check]:
    """Decay 5e-4."""
    some, p = runs(logs, "weight_decay", decay=5e-4), published()
    claim, mean = p.claim("weight_decay.prevents").values, p.claim("weight_decay.invariance").values["fn"].mean
    least = [float(r.fn[r.phase == 2].min()) for r in some]
    return [
        *(
            exact("Section 5.4", f"NC1 where decay 5e-4 stalls, seed {r.seed}", claim["nc1"], float(r.nc1[-1]), f"epoch {r.last}")
            for r in some
        ),
        statement(
            "Section 5.4",
            "decay 5e-4 keeps fn above fn* throughout phase 2",
            f"> {mean}",
            min(least) > mean.value,
            f"least {listed(least)}",
            f"epoch {', '.join(str(r.epoch[r.phase == 2][np.argmin(r.fn[r.phase == 2])]) for r in some)}",
            f"it ends at {listed([float(r.fn[-1]) for r in some])}",
        ),
    ]


def plateaus(logs: Logs) -> list[Check]:
    """Section 2.2: the least NC1 of GELU, tanh and shallow networks."""
    low = published().claim("threshold.ceiling").values["nc1"][0]
    made = []
    for label, experiment, condition in (
        ("GELU", "activation", {"activation": "gelu"}),
        ("tanh", "activation", {"activation": "tanh"}),
        ("depth 2", "depth", {"depth": 2}),
        ("depth 3", "depth", {"depth": 3}),
    ):
        some = [r for r in runs(logs, experiment, **condition) if r.last >= 600]
        ends = [float(r.nc1[-1]) for r in some]
        made.append(
            statement(
                "Section 2.2",
                f"{label} settles at NC1 0.03 or more",
                f">= {low}",
                min(ends) >= low.low,
                listed(ends, ".4f"),
                f"NC1 at epoch 600 of seeds {', '.join(str(r.seed) for r in some)}",
                "below 0.05 is not the least it can reach" if min(ends) < low.low else "",
            )
        )
    return made


def lead(logs: Logs) -> list[Check]:
    """The eight gaps, the error of the rule in and out of sample, and of predicting one time for all."""
    gaps, times, width = (column(logs, "prediction_analysis.csv", name) for name in ("gap", "T_NC", "width"))
    cross = column(logs, "prediction_analysis.csv", "ep_cross")
    every = column(logs, "sweep_width.csv", "T_NC")
    mean, error = published().claim("lead.mean").values, published().claim("lead.error").values
    off = np.abs(np.array(gaps) - error["rule"].value)
    seed_out = np.abs(statistics.left_out_errors(gaps)).mean()
    width_out = np.abs(statistics.left_out_errors(gaps, width)).mean()
    constant = np.abs(np.array(times) - np.mean(times)).mean()
    constant_out = np.abs(statistics.left_out_errors(times)).mean()
    return [
        spread("Section 5.6", "lead of fn over T_NC", mean["lead"], gaps, listed(gaps, ".0f")),
        exact(
            "Section 5.6",
            "mean absolute error of the rule",
            error["mae"],
            float(off.mean()),
            f"mean of |gap - {error['rule']}|",
            f"leaving out a run {seed_out:.1f}, a width {width_out:.1f}",
        ),
        interval(
            "Section 5.6",
            "range of the absolute errors",
            error["range"],
            (known(off.min()), known(off.max())),
            listed(off, ".0f"),
            f"the least gap is {min(gaps):.0f}",
        ),
        statement(
            "Section 5.6",
            "the rule is better than one T_NC for all runs",
            "better",
            bool(off.mean() < constant),
            f"{off.mean():.1f} against {constant:.1f}",
            f"error of T_cross + {error['rule']} against that of T_NC = {np.mean(times):.0f}",
            f"by {100 * (1 - off.mean() / constant):.0f}%; leaving out a run {seed_out:.1f} against {constant_out:.1f}; order of "
            f"pairs right in {100 * statistics.order_accuracy(cross, times):.0f}%",
        ),
        exact(
            "Section 5.6",
            "runs of the width sweep in which fn crosses first",
            mean["runs"],
            float(sum(g > 0 for g in gaps)),
            f"of {len(every)} that collapsed",
            f"{len(every) - len(gaps)} of {len(every)} are left out",
        ),
    ]
