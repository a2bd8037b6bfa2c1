"""The readings a, b and d to j: phases, plateaus and where fn goes after T_NC."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from experiments import statistics
from experiments.audit.check import Check, Range, interval, statement
from experiments.audit.logs.witness import column, exact, known, listed, run, runs
from experiments.published import published
from experiments.published.logs import Logs


def phase_of_resnet(logs: Logs) -> list[Check]:
    """ResNet-20/MNIST collapses in phase 1."""
    v, mnist = published().claim("a").values, runs(logs, "grid", architecture="resnet20", dataset="mnist")
    cifar = runs(logs, "grid", architecture="resnet20", dataset="cifar10")
    made = []
    for r in mnist:
        at = r.index(0.01)
        assert at is not None  # the runs stop there
        drop = max(m for m in r.protocol.milestones_ce if m < r.epoch[at])
        made += [
            exact("a", f"phase at T_NC, seed {r.seed}", v["phase"], float(r.phase[at]), f"{r.name}, lr {r.learning_rate[at]:g}"),
            exact("a", f"T_NC, seed {r.seed}", v["t_nc"], r.t_nc(), r.name),
            exact(
                "a",
                f"epochs after the rate fell, seed {r.seed}",
                v["epochs_after_drop"],
                r.t_nc() - drop,
                f"{r.t_nc():.0f} - {drop}",
            ),
        ]
    first = np.concatenate([r.fn[(r.phase == 1) & np.isfinite(r.fn)] for r in cifar])
    nc1 = np.concatenate([r.nc1[(r.phase == 1) & np.isfinite(r.nc1)] for r in cifar])
    least, most = float(nc1.min()), float(nc1.max())
    star = published().table(6).row("ResNet-20 on MNIST")["fn"].mean.value
    made += [
        interval(
            "a",
            "fn of ResNet-20/CIFAR-10 in phase 1",
            v["fn_cifar10_phase_1"],
            (known(first.min()), known(first.max())),
            f"{len(first)} logged epochs of {len(cifar)} seeds",
        ),
        exact(
            "a",
            "its mean",
            v["fn_cifar10_phase_1_mean"],
            float(first.mean()),
            "the same",
            f"{100 * (first.mean() / star - 1):+.1f}% from {star} on MNIST, where Table 6 has -74%; NC1 there is "
            f"{least:.2f} to {most:.2f}, not yet collapsed",
        ),
    ]
    made += [exact("a", f"fn at epoch 210, seed {r.seed}", v["fn_cifar10_after_switch"], r.at(210), r.name) for r in cifar]
    return made


def schedule(logs: Logs) -> list[Check]:
    """T_NC of ResNet-20/CIFAR-10 follows the schedule."""
    v, some = published().claim("b").values, runs(logs, "grid", architecture="resnet20", dataset="cifar10")
    p = some[0].protocol
    falls = p.epochs_ce + max(p.milestones_mse)
    made = [exact("b", "epoch at which the rate falls last", v["drop_epoch"], falls, f"{p.epochs_ce} + {max(p.milestones_mse)}")]
    for r in some:
        made += [
            exact("b", f"NC1 at 650, seed {r.seed}", v["nc1_650"], r.at(650, "nc1"), r.name),
            exact("b", f"NC1 at 660, seed {r.seed}", v["nc1_660"], r.at(660, "nc1"), r.name),
        ]
    return made


def shallow(logs: Logs) -> list[Check]:
    """fn at depths 2 and 3 does not settle to one value."""
    v = published().claim("d").values
    ends = {depth: [float(r.fn[-1]) for r in runs(logs, "depth", depth=depth)] for depth in (2, 3)}
    made = [
        exact("d", f"fn at epoch 600, depth 3 seed {n}", v["fn_end_depth_3"][n], x, f"depth3_s{n}.csv")
        for n, x in enumerate(ends[3])
    ]
    made.append(interval("d", "fn at epoch 600, depth 2", v["fn_end_depth_2"], _extremes(ends[2]), listed(ends[2])))
    star = published().table(6).row("MLP-5 on MNIST")["fn"]
    near = [x for x in ends[2] + ends[3] if abs(x - star.mean.value) <= star.std.value]
    made.append(statement("d", "none is near 1.05", "none", not near, f"{len(near)} within {star}", listed(ends[2] + ends[3])))
    return made


def after_collapse(logs: Logs) -> list[Check]:
    """fn moves after T_NC, and the end is tighter."""
    v, five = published().claim("e").values, runs(logs, "early_warning")
    on = [r for r in (*five, *runs(logs, "intervention")) if r.last > r.t_nc()]
    change = [100 * (float(r.fn[-1]) / r.fn_at() - 1) for r in on]
    down = runs(logs, "intervention", alpha=0.3)
    end, at = [float(r.fn[-1]) for r in five], [r.fn_at() for r in five]
    made = [
        interval(
            "e",
            "change of fn after T_NC, percent",
            v["change_percent"],
            _extremes(change),
            f"{len(on)} runs that go on",
        ),
        exact("e", "CV of fn at the end", v["cv_percent_end"], 100 * statistics.summary(end).cv, listed(end), "ddof 1", "%"),
        exact("e", "CV of fn at T_NC", v["cv_percent_t_nc"], 100 * statistics.summary(at).cv, listed(at), "ddof 1", "%"),
    ]
    for epoch, key in ((230, "fn_down_230"), (600, "fn_down_600")):
        values = [r.at(epoch) for r in down]
        made.append(interval("e", f"scaled-down arms at epoch {epoch}", v[key], _extremes(values), listed(values)))
    arms = {alpha: [float(r.fn[-1]) for r in runs(logs, "intervention", alpha=alpha)] for alpha in (0.3, 1.0, 3.0)}
    every, stars = [x for arm in arms.values() for x in arm], [r.fn_at() for r in runs(logs, "intervention")]
    tight = statistics.summary(every).cv < statistics.summary(stars).cv
    made.append(
        statement(
            "e",
            "over the nine runs of the intervention, too, the end is tighter",
            "tighter",
            tight,
            f"CV {100 * statistics.summary(every).cv:.1f}% against {100 * statistics.summary(stars).cv:.1f}%",
            "; ".join(f"alpha {x:g}: {listed(y)}" for x, y in arms.items()),
        )
    )
    return made


def stalled(logs: Logs) -> list[Check]:
    """Decay 5e-4 stalls."""
    v, some = published().claim("f").values, runs(logs, "weight_decay", decay=5e-4)
    made = []
    for key, values in (("nc1_end", [float(r.nc1[-1]) for r in some]), ("fn_end", [float(r.fn[-1]) for r in some])):
        what = f"{'NC1' if key == 'nc1_end' else 'fn'} at the end"
        made.append(interval("f", what, v[key], _extremes(values), listed(values, ".4f")))
    return made


def mlp_on_cifar(logs: Logs) -> list[Check]:
    """MLP-5/CIFAR-10 stays above 0.01."""
    v, some = published().claim("g").values, runs(logs, "grid", architecture="mlp", dataset="cifar10")
    made = [exact("g", f"NC1 at epoch 800, seed {r.seed}", v["nc1_end"], float(r.nc1[-1]), f"epoch {r.last}") for r in some]
    least = [float(np.nanmin(r.nc1)) for r in some]
    made.append(
        statement("g", "still above 0.01", "> 0.01", min(least) > 0.01, f"least {listed(least, '.4f')}", "all logged epochs")
    )
    return made


def norm_product(logs: Logs) -> list[Check]:
    """The norm product of balanced layers."""
    v, some = published().claim("h").values, runs(logs, "early_warning")
    values = [float(r.fn[-1] * r.series["weight_norm"][-1] / math.sqrt(6)) for r in some]
    at = [float(r.fn_at() * r.series["weight_norm"][r.index(0.01)] / math.sqrt(6)) for r in some]
    cv = 100 * statistics.summary(values).cv
    return [
        interval("h", "fn |W| / sqrt(6) at the end", v["product"], _extremes(values), listed(values)),
        statement(
            "h",
            "spread under 1%",
            f"< {v['cv_percent_below']}%",
            cv < v["cv_percent_below"].value,
            f"CV {cv:.2f}%",
            "ddof 1",
            f"at T_NC {listed(at, '.2f')}",
        ),
    ]


def scaled_down(logs: Logs) -> list[Check]:
    """No arm of the intervention starts below fn*."""
    v, arms = published().claim("i").values, runs(logs, "intervention")
    after = column(logs, "intervention_summary.csv", "fn_after_rescale", alpha=0.3)
    every = column(logs, "intervention_summary.csv", "fn_after_rescale")
    star = max(r.fn_at() for r in arms)
    low = min(float(r.fn.min()) for r in arms if r.condition["alpha"] == 0.3)
    return [
        exact("i", "fn of the scaled-down arm after rescaling", v["fn_after"], float(np.mean(after)), f"mean of {listed(after)}"),
        statement(
            "i",
            "no arm starts below fn*",
            "none",
            min(every) > star,
            f"least {min(every):.2f}, greatest fn* {star:.3f}",
            f"{len(every)} runs, {min(every) / star:.1f} times fn*",
            f"scaled down, fn itself falls on to {low:.2f} before it returns",
        ),
    ]


def excluded(logs: Logs) -> list[Check]:
    """GELU seed 0 did collapse."""
    v, log = published().claim("j").values, run(logs, "actGELU_s0")
    after = log.nc1[log.epoch > published().protocol["diverged_after"]]
    return [
        exact("j", "NC1 at epoch 240", v["nc1_240"], log.at(240, "nc1"), "actGELU_s0.csv"),
        exact("j", "NC1 at epoch 600", v["nc1_600"], log.at(600, "nc1"), "actGELU_s0.csv"),
        statement(
            "j",
            "the criterion of divergence is not met",
            "NC1 <= 0.5",
            bool((after <= 0.5).all()),
            f"greatest {after.max():.3f} after epoch 300",
            "actGELU_s0.csv",
        ),
    ]


def _extremes(values: Sequence[float]) -> tuple[Range, Range]:
    return known(min(values)), known(max(values))
