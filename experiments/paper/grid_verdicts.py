"""What evidence says of the paper's grid of architectures and data sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from experiments import statistics
from experiments.paper.evidence import Evidence
from experiments.paper.experiment import Verdict
from experiments.paper.pairs import MC, MM, RC, RM, Pairs
from experiments.paper.resnets import TITLES, resnet
from experiments.paper.verdicts import C, P, R, U, missing, untestable, value
from experiments.published import published
from realnets.outcome import ZERO

CLAIMS = (
    "grid.resnet_mnist",
    "grid.speed",
    "grid.mlp_cifar",
    "grid.architecture_mnist",
    "grid.architecture_cifar",
    "grid.dataset",
    "grid.multiplicative",
    "grid.anova",
    "grid.small_samples",
    "grid.parameters",
    "baseline.gap",
    "ce_only.necessary",
    "concentration.cv",
    "later.fashion_mlp",
    "later.fashion_resnet",
    "later.deconfound_resnet",
    "later.deconfound_mlp",
    "later.vit",
    "later.cifar100",
)
THEORY = (
    "batch normalisation removes the amplitude of the data and the depth from fn; cross-entropy rests at about three times "
    "the fn of squared error"
)


def judge(evidence: Evidence) -> list[Verdict]:
    if not evidence.present:
        return missing(CLAIMS, evidence)
    pairs = Pairs(evidence)
    claim = published().claim
    found: list[Verdict] = []
    if RM in pairs.rows:
        found.append(_resnet_mnist(evidence, pairs))
        found.append(_speed(evidence, pairs))
        found.append(_small_samples(evidence, pairs))
        found.append(_necessary(pairs))
    if MC in pairs.rows:
        mc = pairs.times[MC]
        row, least = pairs.rows[MC], min(np.nanmin(n.nc1) for n in pairs.rows[MC].networks)
        text = f"NC1 < {row.condition.threshold:g} in {mc.crossed} of {mc.n}, least NC1 {least:.3f}"
        graded = value("grid.mlp_cifar", evidence, pairs.star(MC), claim("grid.mlp_cifar").values["fn"].mean.value, "fn at T_NC")
        found.append(replace(graded, found=f"{graded.found}; {text}"))
    if RM in pairs.rows and MM in pairs.rows:
        found += [
            _effect("grid.architecture_mnist", evidence, pairs, MM, RM, claim("grid.architecture_mnist").values["percent"].value)
        ]
    if RC in pairs.rows and MC in pairs.rows:
        found += [
            _effect("grid.architecture_cifar", evidence, pairs, MC, RC, claim("grid.architecture_cifar").values["percent"].value)
        ]
    if all(p in pairs.rows for p in (MM, MC, RM, RC)):
        found += [_dataset(evidence, pairs), _multiplicative(evidence, pairs)]
    if RC in pairs.rows and MM in pairs.rows:
        gap = 100 * (pairs.star(RC) / pairs.star(MM) - 1)
        found.append(
            value("baseline.gap", evidence, gap, claim("baseline.gap").values["percent"].value, "gap in percent", form=".0f")
        )
    for pair, name in ((("mlp", "fashion_mnist"), "later.fashion_mlp"), (("resnet20", "fashion_mnist"), "later.fashion_resnet")):
        if pair in pairs.rows:
            theirs = claim(name).values["fn"]
            found.append(value(name, evidence, pairs.star(pair), getattr(theirs, "mean", theirs).value, "fn at T_NC"))
    return [*found, *_optimisers(evidence, pairs), _anova(pairs), _concentration(pairs)]


def _optimisers(evidence: Evidence, pairs: Pairs) -> list[Verdict]:
    """ResNet-20 with Adam: another fn, also in the cross-entropy phase. MLP with SGD: features that vanish."""
    found = []
    if RM in pairs.others:
        times = pairs.others[RM].times(every=evidence.cadence)
        low, high = (v.value for v in published().claim("later.deconfound_resnet").values["fn"])
        fn = float(times.fn_star.mean()) if times.crossed else np.nan
        found.append(value("later.deconfound_resnet", evidence, fn, (low + high) / 2, "fn at T_NC", theory=THEORY))
    if MM in pairs.others:
        nets = pairs.others[MM].networks
        gone = sum(n.last("fn") < ZERO for n in nets)
        ends = ", ".join(f"{n.last('fn'):.2g}" for n in nets)
        text = f"features vanish (fn < {ZERO:g}) in {gone} of {len(nets)}; fn at the end {ends}"
        found.append(
            Verdict(
                "later.deconfound_mlp",
                R if gone == len(nets) else P if gone else C,
                text,
                "the trivial solution is the claim",
                "zero is a minimum of a deep network with decay; a large step can reach it",
            )
        )
    return found


def _text(pairs: Pairs, *which: tuple[str, str]) -> str:
    def one(pair: tuple[str, str]) -> str:
        phases = "/".join("CE" if k == 1 else "MSE" for k in sorted(pairs.phases(pair))) or "no T_NC"
        return f"{'MLP' if pair[0] == 'mlp' else 'ResNet'} on {TITLES[pair[1]]} {pairs.star(pair):.2f} ({phases})"

    return ", ".join(one(p) for p in which)


def _resnet_mnist(evidence: Evidence, pairs: Pairs) -> Verdict:
    theirs = published().claim("grid.resnet_mnist").values["fn"].mean.value
    graded = value("grid.resnet_mnist", evidence, pairs.star(RM), theirs, "fn at T_NC", theory=THEORY)
    losses = {1: "cross-entropy", 2: "squared error"}
    where = " and ".join(losses[k] for k in sorted(pairs.phases(RM))) or "no phase"
    entropy, squares = (
        f"{v:.2f}" if np.isfinite(v := pairs.under(RM, loss)) else "not known" for loss in ("cross_entropy", "mse")
    )
    text = f"{graded.found}; T_NC in the phase of {where}; fn under cross-entropy {entropy}, under squared error {squares}"
    return replace(graded, found=text)


def _speed(evidence: Evidence, pairs: Pairs) -> Verdict:
    """ResNet-20 on MNIST the fastest of all pairs."""
    typical = {pair: t.typical for pair, t in pairs.times.items()}
    text = ", ".join(
        f"{'MLP' if a == 'mlp' else 'ResNet'} on {TITLES[d]} {t:.0f}"
        if np.isfinite(t)
        else f"{'MLP' if a == 'mlp' else 'ResNet'} on {TITLES[d]} never"
        for (a, d), t in typical.items()
    )
    lr = pairs.times[RM].lr
    drop = f"; learning rate there {np.nanmean(lr):.0e}" if np.isfinite(lr).any() else ""
    first = typical[RM] <= min(typical.values()) and np.isfinite(typical[RM])
    if evidence.full:
        when = value(
            "grid.speed", evidence, typical[RM], published().claim("grid.speed").values["t_nc"].value, "T_NC", form=".0f"
        )
        return replace(when, found=f"{when.found}; {text}{drop}")
    return Verdict(
        "grid.speed", R if first else C, f"T_NC: {text}{drop}", "ResNet-20 on MNIST the fastest is the claim at this scale"
    )


def _small_samples(evidence: Evidence, pairs: Pairs) -> Verdict:
    """Width of the t-interval over the mean, of both ResNet pairs."""
    words, good = [], []
    for pair in (RM, RC):
        fn = pairs.times[pair].fn_star if pair in pairs.times else np.array([])
        if len(fn) > 1:
            interval = statistics.t_interval(fn)
            share = (interval.high - interval.low) / float(fn.mean())
            words.append(f"ResNet on {TITLES[pair[1]]}: {len(fn)} seeds, {100 * share:.1f}% of the mean")
            good.append(share < 0.03)
    if not good:
        return untestable("grid.small_samples", "fewer than two ResNets collapsed", "; ".join(words))
    return Verdict("grid.small_samples", R if all(good) else P if any(good) else C, "95% t-intervals: " + "; ".join(words),
                   "below 3% is the claim; it says nothing about other losses, schedules or data")  # fmt: skip


def _necessary(pairs: Pairs) -> Verdict:
    """Does the ResNet collapse under cross-entropy alone, or in phase 1?"""
    counts = []
    for pair in (RM, RC):
        for kept, phase in ((pairs.alone, None), (pairs.rows, 1)):
            if pair in kept:
                times = kept[pair].times(0.01, phase=phase)
                counts.append((f"ResNet on {TITLES[pair[1]]}" + ("" if phase else ", CE alone"), times.crossed, times.n))
    text = "collapse under cross-entropy: " + ", ".join(f"{name} {k} of {n}" for name, k, n in counts)
    any_, every = any(k for _, k, _ in counts), all(k == 0 for _, k, _ in counts)
    return Verdict(
        "ce_only.necessary",
        R if every else C if any_ else P,
        text,
        "one network that collapses without the second phase refutes it",
        "with batch normalisation cross-entropy is not slow: the amplitude that has to grow is free",
    )


def _effect(claim: str, evidence: Evidence, pairs: Pairs, low: tuple[str, str], high: tuple[str, str], theirs: float) -> Verdict:
    """Percent by which fn of `high` exceeds that of `low`: as the paper takes it, and at equal loss."""
    ours = 100 * (pairs.star(high) / pairs.star(low) - 1)
    equal = {loss: 100 * (pairs.under(high, loss) / pairs.under(low, loss) - 1) for loss in ("mse", "cross_entropy")}
    text = f"{ours:+.0f}% at T_NC ({_text(pairs, low, high)}); at equal loss: " + ", ".join(
        f"{loss.replace('_', '-').replace('mse', 'squared error')} {e:+.0f}%"
        if np.isfinite(e)
        else f"{loss.replace('_', '-')} not measured"
        for loss, e in equal.items()
    )
    mixed = pairs.phases(low) != pairs.phases(high)
    if not np.isfinite(ours):
        return untestable(claim, "a pair did not collapse", text, THEORY)
    if not evidence.full:
        return untestable(
            claim, "a value of the full protocol" + ("; T_NC falls under different losses" if mixed else ""), text, THEORY
        )
    graded = value(claim, evidence, 1 + ours / 100, 1 + theirs / 100, "ratio", form=".2f")
    judgement = P if mixed and graded.judgement is R else graded.judgement
    why = f"{graded.reason} of the published ratio" + (
        "; the two values belong to different losses, so the effect is not the architecture's" if mixed else ""
    )
    return Verdict(claim, judgement, text, why, THEORY)


def _dataset(evidence: Evidence, pairs: Pairs) -> Verdict:
    """From MNIST to CIFAR-10, for both networks; at equal loss for the ResNet."""
    mlp, res = (100 * (pairs.star(b) / pairs.star(a) - 1) for a, b in ((MM, MC), (RM, RC)))
    equal = {loss: 100 * (pairs.under(RC, loss) / pairs.under(RM, loss) - 1) for loss in ("cross_entropy", "mse")}
    text = f"MLP {mlp:+.0f}%, ResNet {res:+.0f}%; ResNet at equal loss: " + ", ".join(
        f"{loss.replace('_', '-').replace('mse', 'squared error')} {e:+.0f}%"
        if np.isfinite(e)
        else f"{loss.replace('_', '-')} not measured"
        for loss, e in equal.items()
    )
    known = [abs(e) for e in equal.values() if np.isfinite(e)]
    theirs = published().claim("grid.dataset").values
    if not np.isfinite([mlp, res]).all():
        return untestable("grid.dataset", "a pair did not collapse", text, THEORY)
    mixed = pairs.phases(RM) != pairs.phases(RC)
    gone = bool(known) and max(known) < abs(theirs["percent_resnet"].value) / 2
    why = (
        ("at equal loss less than half of the ResNet's effect is left" if gone else "it stays at equal loss")
        if known
        else "equal loss was not measured"
    )
    if not evidence.full:
        return Verdict("grid.dataset", C if gone and mixed else U, text, f"{why}; sizes belong to the full protocol", THEORY)
    near = abs((1 + res / 100) / (1 + theirs["percent_resnet"].value / 100) - 1) <= 0.08
    return Verdict("grid.dataset", P if near and gone else R if near else C, text, why, THEORY)


def _multiplicative(evidence: Evidence, pairs: Pairs) -> Verdict:
    """fn of ResNet on MNIST over what the other three predict, in percent; and at equal loss."""
    excess = 100 * (pairs.star(RM) * pairs.star(MC) / (pairs.star(MM) * pairs.star(RC)) - 1)
    equal = 100 * (pairs.under(RM, "mse") * pairs.under(MC, "mse") / (pairs.under(MM, "mse") * pairs.under(RC, "mse")) - 1)
    text = (
        f"{excess:+.0f}% at T_NC; all under squared error {equal:+.0f}%"
        if np.isfinite(equal)
        else f"{excess:+.0f}% at T_NC; equal loss not measured"
    )
    theirs = published().claim("grid.multiplicative").values["percent"].value
    mixed = len({frozenset(pairs.phases(p)) for p in (MM, MC, RM, RC)}) > 1
    if not np.isfinite(excess):
        return untestable("grid.multiplicative", "a pair did not collapse", text, THEORY)
    if not evidence.full:
        judgement = U if not np.isfinite(equal) else C if mixed and abs(equal) < abs(excess) / 2 else P
        return Verdict(
            "grid.multiplicative",
            judgement,
            text,
            "sizes belong to the full protocol; the interaction is tested at equal loss",
            THEORY,
        )
    near = abs((1 + excess / 100) / (1 + theirs / 100) - 1) <= 0.08
    why = f"published {theirs:+.0f}%" + ("; the four values belong to two losses" if mixed else "")
    return Verdict("grid.multiplicative", P if near and mixed else R if near else C, text, why, THEORY)


def _anova(pairs: Pairs) -> Verdict:
    groups = [t.fn_star for t in pairs.times.values() if t.crossed > 1]
    if len(groups) < 2:
        return untestable("grid.anova", "fewer than two pairs with two networks that collapsed")
    test, ranks = statistics.anova(groups), statistics.kruskal(groups)
    theirs = published().claim("grid.anova").values["p_below"].value
    text = f"F = {test.statistic:.1f}, p {test.p:.1g}; Kruskal-Wallis p {ranks.p:.1g}; {len(groups)} pairs"
    return Verdict(
        "grid.anova",
        R if test.p < theirs else P if test.p < 0.05 else C,
        text,
        "that pairs differ is the claim; F depends on the numbers of runs",
    )


def _concentration(pairs: Pairs) -> Verdict:
    """CV over seeds within each pair."""
    cvs = {pair: statistics.summary(t.fn_star).cv for pair, t in pairs.times.items() if t.crossed > 1}
    if not cvs:
        return untestable("concentration.cv", "fewer than two networks of a pair collapsed")
    text = ", ".join(f"{'MLP' if a == 'mlp' else 'ResNet'} on {TITLES[d]} {100 * v:.1f}%" for (a, d), v in cvs.items())
    below = [v < 0.08 for v in cvs.values()]
    return Verdict(
        "concentration.cv",
        R if all(below) else P if any(below) else C,
        f"CV over seeds: {text}",
        "below 8% in every pair is the claim",
    )


def count() -> list[Verdict]:
    """Parameters of the network itself, which need no training."""
    import torch

    from realnets.architectures import ARCHITECTURES

    protocol = resnet("paper", "cifar10")
    net = ARCHITECTURES["resnet20"](protocol, (3, 32, 32), 10, [0], torch.float32, torch.device("cpu"))
    held = int(net.theta.numel())
    theirs = published().claim("grid.parameters").values["parameters_thousands"].value
    near = abs(held / 1000 / theirs - 1) < 0.05
    here = [
        untestable("later.vit", "no vision transformer is trained here"),
        untestable("later.cifar100", "CIFAR-100 is not read here"),
    ]
    return [*here, Verdict("grid.parameters", R if near else C, f"{held:,} parameters", f"published about {theirs:.0f} thousand")]
