"""H-M1: does positive homogeneity set where fn of a ReLU network rests? (The paper's section 6.3.)

The test that the paper proposes, alpha ReLU(x/alpha), changes nothing; families a phi(x/a) that leave homogeneity as their knob
turns do, beside activations that stay homogeneous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sympy as sp
import torch
from matplotlib.figure import Figure

from experiments import statistics
from experiments.figures import MARKERS, _colour, _plain
from experiments.paper import figures
from experiments.paper.evidence import Evidence
from experiments.paper.experiment import Condition, Experiment, Statement, Verdict
from experiments.paper.settings import condition
from experiments.paper.verdicts import SAME, C, P, R, missing, untestable
from experiments.why.activation_flow import ActivationFlow
from experiments.why.flows import column
from experiments.why.rest import agreed, finals, resting, same, simulated, told
from experiments.why.settings import SETTINGS, with_base
from ncflow.activations import scaled as engine
from realnets import TwoPhase
from realnets.activations import scaled as network
from theory import activation as theory_of

SOURCE, SECTION = "H-M1", "6.3"
STATEMENTS = (
    Statement("h_m1.proposed", "The proposed test, ReLU replaced by alpha ReLU(x/alpha), shifts fn at rest.", SOURCE, SECTION),
    Statement(
        "h_m1.knob",
        "fn at rest leaves ReLU's as the local degree of homogeneity leaves one, in every family of activations.",
        SOURCE,
        SECTION,
    ),
    Statement("h_m1.limit", "Where its knob takes a family to ReLU, fn at rest is ReLU's.", SOURCE, SECTION),
    Statement("h_m1.homogeneous", "An activation that stays positively homogeneous has ReLU's fn at rest.", SOURCE, SECTION),
    Statement("h_m1.lowest", "Homogeneity gives ReLU a lower fn at rest than activations without it.", SOURCE, SECTION),
)
JUDGED = tuple(s.id for s in STATEMENTS[1:])
#: Families with their knobs, from the end at which they are ReLU.
FAMILIES = {
    "gelu": (0.03, 0.1, 0.3, 1.0, 3.0),
    "silu": (0.03, 0.1, 0.3, 1.0, 3.0),
    "softplus": (0.003, 0.01, 0.03, 0.1, 0.3),
    "tanh_relu": (10.0, 3.0, 1.0, 0.3, 0.1),
}
#: Homogeneous whatever the knob; relu^1.5 is simulated alone, and higher powers blow up.
HOMOGENEOUS = ("leaky_relu", "relu^2", "relu^1.5")
NAMES = {
    "relu": "ReLU",
    "gelu": "GELU",
    "silu": "SiLU",
    "softplus": "softplus",
    "tanh_relu": "tanh ReLU",
    "leaky_relu": "leaky ReLU",
    "relu^2": "ReLU²",
    "relu^1.5": "ReLU to the 1.5",
}
#: Rank correlation in a family that counts as following.
FOLLOWS = 0.7


@dataclass(frozen=True)
class Point:
    """fn at rest (n,) of one activation at one knob, and its local degree there; `body` "networks" or "simulation"."""

    activation: str
    knob: float
    degree: float
    fn: np.ndarray
    body: str


def conditions(preset: str) -> tuple[Condition, ...]:
    if preset not in SETTINGS:
        return ()
    s = with_base(SETTINGS[preset], depth=2 if preset == "smoke" else 3)
    made = [condition(s, "ReLU", activation="relu", activation_scale=1.0)]
    for name, knobs in FAMILIES.items():
        for a in knobs if preset != "smoke" else knobs[-1:]:
            made.append(condition(s, f"{NAMES[name]}, a = {a:g}", activation=name, activation_scale=a))
    for name in HOMOGENEOUS[:2] if preset != "smoke" else ():
        made.append(condition(s, NAMES[name], activation=name, activation_scale=1.0))
    base = s.base
    for name in ("relu", *HOMOGENEOUS, *FAMILIES) if preset != "smoke" else ("relu", "gelu"):
        few = {"seeds": (0,), "steps": 60, "width": 12} if preset == "smoke" else {}
        study = ActivationFlow(
            dataset=base.dataset,
            subset=base.subset,
            scaling=base.scaling,
            data_seed=base.data_seed,
            activation=name,
            knobs=_knobs(name, preset),
            **few,
        )
        made.append(Condition(label=f"simulated, {NAMES[name]}", setting=study, group=s.group, parameters={"simulated": name}))
    return tuple(made)


def _knobs(name: str, preset: str) -> tuple[float, ...]:
    """For the simulation, three to a knob of the networks."""
    if name not in FAMILIES:
        return (1.0,)
    low, high = min(FAMILIES[name]), max(FAMILIES[name])
    return tuple(float(f"{v:.3g}") for v in np.geomspace(low, high, 2 if preset == "smoke" else 13))


def points(evidence: Evidence) -> list[Point]:
    """Of the networks, with the degree for Gaussian pre-activations of ReLU's size; of the simulation, with the measured one."""
    made = []
    reference = evidence.row(activation="relu")
    fn = finals(reference)
    if reference is not None and len(fn):
        setting = reference.condition.setting
        assert isinstance(setting, TwoPhase)
        size = float(fn.mean()) * np.sqrt(2 / setting.width)  # of z, if h = relu(z)
        for row in evidence.present:
            name, a = row.condition.parameters["activation"], row.condition.parameters["activation_scale"]
            if len(values := finals(row)):
                made.append(Point(name, a, float(theory_of.mean_degree(name, size, a)), values, "networks"))
    for run in simulated(evidence, ActivationFlow):
        names, knobs = column(run, "activation"), column(run, "knob")
        rests, degrees = column(run, "fn_end"), column(run, "degree")
        for a in dict.fromkeys(knobs.tolist()):
            use = (knobs == a) & np.isfinite(rests)
            if use.any():
                made.append(Point(str(names[0]), a, float(np.mean(degrees[use])), rests[use], "simulation"))
    return made


def judge(evidence: Evidence) -> list[Verdict]:
    every = points(evidence)
    bodies = [b for b in ("networks", "simulation") if any(p.body == b and p.activation == "relu" for p in every)]
    if not bodies:
        return missing(JUDGED, evidence)
    relu = {b: next(p for p in every if p.body == b and p.activation == "relu") for b in bodies}
    rest = resting(evidence.present)
    return [_knob(every, relu, rest), _limit(every, relu), _homogeneous(every, relu), _lowest(every, relu)]


def _of(every: Sequence[Point], body: str, name: str) -> list[Point]:
    """From the end at which the family is ReLU."""
    found = [p for p in every if p.body == body and p.activation == name]
    return sorted(found, key=lambda p: p.knob, reverse=name == "tanh_relu")


def _knob(every: Sequence[Point], relu: dict[str, Point], rest: str) -> Verdict:
    words, follows = [], []
    for body, home in relu.items():
        for name in FAMILIES:
            family = _of(every, body, name)
            if len(family) < 4:
                continue
            off = [abs(p.degree - 1) for p in family]
            moved = [abs(np.log(p.fn.mean() / home.fn.mean())) for p in family]
            rho = statistics.spearman(off, moved)
            follows.append(bool(rho.statistic >= FOLLOWS and rho.p < 0.05))
            ends = f"{family[0].fn.mean():.2f} to {family[-1].fn.mean():.2f} at degree {family[-1].degree:.2f}"
            words.append(f"{NAMES[name]} ({body}) {ends}, rho {rho.statistic:+.2f} (p {rho.p:.2g})")
    if not words:
        return untestable("h_m1.knob", "no family has four knobs at rest")
    first = "; ".join(f"ReLU ({b}) {told(p.fn)}" for b, p in relu.items())
    judgement = R if all(follows) else P if any(follows) else C
    return Verdict(
        "h_m1.knob",
        judgement,
        f"fn at rest: {first}; {'; '.join(words)}",
        f"follows is read as a rank correlation of |degree - 1| and |log fn/fn of ReLU| of {FOLLOWS} or more with p < 0.05, "
        f"in each family; {sum(follows)} of {len(follows)} do; {rest}",
        "phi_a(s x) = s phi_{a/s}(x): the knob is the scale of what enters; homogeneity is what makes layers balance",
    )


def _compared(claim: str, pairs: Sequence[tuple[str, Point, Point]], reason: str, theory: str = "") -> Verdict:
    """Of points (named) and what each is compared with."""
    words, parts = [], []
    for name, p, home in pairs:
        parts.append(same(p.fn, home.fn))
        words.append(f"{name} {told(p.fn)} ({100 * (p.fn.mean() / home.fn.mean() - 1):+.1f}%)")
    judgement = agreed(parts)
    if judgement is None:
        return untestable(claim, "fewer than two seeds at rest", "; ".join(words) or "–", theory)
    return Verdict(claim, judgement, "; ".join(words), reason, theory)


def _limit(every: Sequence[Point], relu: dict[str, Point]) -> Verdict:
    pairs = [
        (f"{NAMES[name]}, a = {family[0].knob:g} ({body})", family[0], home)
        for body, home in relu.items()
        for name in FAMILIES
        if (family := _of(every, body, name))
    ]
    return _compared(
        "h_m1.limit",
        pairs,
        f"ReLU's is read as shown to be within {100 * SAME:.0f}%",
        "gelu, silu, softplus for a to 0, a tanh(relu(x)/a) for a to infinity",
    )


def _homogeneous(every: Sequence[Point], relu: dict[str, Point]) -> Verdict:
    pairs = [
        (f"{NAMES[name]} ({body})", p, home)
        for body, home in relu.items()
        for name in HOMOGENEOUS
        for p in _of(every, body, name)
    ]
    return _compared(
        "h_m1.homogeneous",
        pairs,
        f"ReLU's is read as shown to be within {100 * SAME:.0f}%",
        "any degree t balances the layers, but |W_l|^2 + |b_l|^2 = t |W_(l+1)|^2: the degree sets where",
    )


def _lowest(every: Sequence[Point], relu: dict[str, Point]) -> Verdict:
    above, below, words = 0, 0, []
    for body, home in relu.items():
        for name in FAMILIES:
            gone = [p for p in _of(every, body, name) if abs(p.degree - 1) > 0.05 and min(len(p.fn), len(home.fn)) > 1]
            gaps = [statistics.difference(p.fn, home.fn) for p in gone]
            up, down = sum(g.low > 0 for g in gaps), sum(g.high < 0 for g in gaps)
            above, below = above + up, below + down
            if gone:
                words.append(f"{NAMES[name]} ({body}) above in {up}, below in {down} of {len(gone)}")
    if not words:
        return untestable("h_m1.lowest", "no activation off degree one with two seeds at rest")
    judgement = R if above and not below else C if below and not above else P
    return Verdict(
        "h_m1.lowest",
        judgement,
        "; ".join(words),
        "above and below are read by the 95% interval of the difference, at knobs with a degree 0.05 or more off one",
    )


def count() -> list[Verdict]:
    """What needs no network: is alpha ReLU(x/alpha) another function?"""
    alpha = sp.Symbol("alpha", positive=True)
    signs = (sp.Symbol("x", positive=True), sp.Symbol("x", negative=True), sp.Integer(0))
    gaps = [sp.simplify(alpha * sp.Max(0, x / alpha) - sp.Max(0, x)) for x in signs]
    z = torch.linspace(-3, 3, 601, dtype=torch.float64)
    worst = 0.0
    for a in (0.1, 0.3, 3.0, 10.0):
        value, slope = engine("relu", torch.tensor(a, dtype=torch.float64))
        for got, want in (
            (a * (z / a).clamp(min=0), z.clamp(min=0)),
            (value(z), z.clamp(min=0)),
            (slope(z), (z > 0).to(z.dtype)),
            (network("relu", a).forward(z.clone()), z.clamp(min=0)),
        ):
            worst = max(worst, float((got - want).abs().max()))
    nothing = not any(gaps) and worst < 1e-14
    found = f"alpha ReLU(x/alpha) - ReLU(x) = {', '.join(map(str, gaps))} for x > 0, x < 0, x = 0 (sympy)"
    found += f"; {worst:.0e} at most for alpha 0.1 to 10 in float64"
    why = "the same function cannot have another fixed point" if nothing else "they differ"
    return [
        Verdict(
            "h_m1.proposed",
            C if nothing else R,
            found,
            why,
            f"ReLU is homogeneous of degree {theory_of.homogeneous('relu'):g}, for which a phi(x/a) = phi(x)",
        )
    ]


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(3)
    every = points(evidence)
    for ax, body in zip(axes.flat, ("networks", "simulation"), strict=False):
        home = next((p for p in every if p.body == body and p.activation == "relu"), None)
        for k, name in enumerate(FAMILIES):
            family = _of(every, body, name)
            if not family:
                continue
            colour, marker = _colour(k, len(FAMILIES)), MARKERS[k % 6]
            ax.plot(
                [p.knob for p in family],
                [p.fn.mean() for p in family],
                marker,
                linestyle="-",
                color=colour,
                markersize=4,
                linewidth=0.9,
                label=NAMES[name],
            )
        if home is None:
            figures.nothing(ax)
            continue
        figures.level(ax, float(home.fn.mean()), "ReLU")
        ax.set_xscale("log")
        ax.set_yscale("log")
        _plain(ax)
        ax.legend(fontsize=7, frameon=False)
        ax.set_xlabel("knob a", fontsize=8)
        ax.set_ylabel("fn at rest", fontsize=8)
    ax = axes[0, 2]
    for body, filled in (("networks", True), ("simulation", False)):
        home = next((p for p in every if p.body == body and p.activation == "relu"), None)
        for k, name in enumerate((*FAMILIES, *HOMOGENEOUS)):
            family = _of(every, body, name) if home is not None else []
            colour, marker = _colour(k, len(FAMILIES) + len(HOMOGENEOUS)), MARKERS[k % 6]
            ax.plot(
                [p.degree for p in family],
                [p.fn.mean() / home.fn.mean() for p in family] if home is not None else [],
                marker,
                linestyle="",
                color=colour,
                markerfacecolor=colour if filled else "none",
                markersize=4,
                label=NAMES[name] if family and filled else None,
            )
    if every:
        ax.axhline(1, color="black", linewidth=0.8)
        ax.set_yscale("log")
        _plain(ax)
        ax.set_xlabel("local degree of homogeneity", fontsize=8)
        ax.set_ylabel("fn at rest over ReLU's", fontsize=8)
    else:
        figures.nothing(ax)
    figures.titles(axes, "fn at rest, networks", "fn at rest, simulated", "against degree (open: simulated)")
    return made


EXPERIMENT = Experiment(
    name="h_m1",
    title="H-M1: homogeneity",
    question="Does positive homogeneity set where fn of a ReLU network rests?",
    measures="fn at rest, brought there by a third stage, of families a phi(x/a) against the local degree of homogeneity; "
    "the same simulated on class means over a continuous knob.",
    statements=STATEMENTS,
    conditions=conditions,
    judge=judge,
    count=count,
    figure=figure,
)
