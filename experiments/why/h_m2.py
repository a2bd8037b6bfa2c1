"""H-M2: does depth slow collapse by adding up decay, and which sharing of decay takes the effect out? (The paper's section 6.3.)

One threshold for all depths. Three ways to share: the same lambda, the same lambda times depth (the total), the same lambda over
depth (the paper's wording), which meet at depth 5.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments import statistics
from experiments.paper import figures
from experiments.paper.evidence import Evidence, Row, Times
from experiments.paper.experiment import Condition, Experiment, Statement, Verdict
from experiments.paper.settings import condition
from experiments.paper.verdicts import SAME, C, P, R, missing, times_text, untestable
from experiments.show import short
from experiments.why.flows import column
from experiments.why.layered_flow import LayeredFlow
from experiments.why.linear_depths import LinearDepths
from experiments.why.rest import bootstrap, finals, resting, simulated, told
from experiments.why.scalings import SCALINGS, decay_at
from experiments.why.settings import SETTINGS

SOURCE, SECTION = "H-M2", "6.3"
STATEMENTS = (
    Statement("h_m2.slows", "At one lambda and one threshold, a deeper network takes longer to collapse.", SOURCE, SECTION),
    Statement("h_m2.ratio", "At the same lambda over depth, the effect of depth on T_NC is halved or more.", SOURCE, SECTION),
    Statement("h_m2.budget", "At the same lambda times depth, the effect of depth on T_NC is halved or more.", SOURCE, SECTION),
    Statement("h_m2.value", "At one lambda, fn at rest is the same at every depth.", SOURCE, SECTION),
    Statement(
        "h_m2.layers",
        "In the layered linear model the decays of the layers add up: T_NC goes as one over their sum.",
        "theory",
        "3",
    ),
)
IDS = tuple(s.id for s in STATEMENTS)
#: NC1 below which every depth counts as collapsed.
THRESHOLD = 0.05
SEEDS = (0, 1, 2, 3, 4)
REFERENCE = 5
THEORY = "rates of within-class decay add up over layers, 2 sum lambda_l: more layers collapse sooner, not later"


def conditions(preset: str) -> tuple[Condition, ...]:
    if preset not in SETTINGS:
        return ()
    s = SETTINGS[preset]
    small = preset == "smoke"
    made, lanes = [], []
    reference, seeds = (s.depths[-1], s.base.seeds) if small else (REFERENCE, SEEDS)
    for depth in s.depths:
        for scaling in SCALINGS:
            if depth == reference and scaling != "fixed":
                continue
            decay = decay_at(scaling, depth, reference, s.base.decays[0])
            lanes.append((depth, decay))
            c = condition(s, f"depth {depth}, decay {short(decay)}", THRESHOLD, seeds=seeds, depth=depth, decay=decay)
            all_ = tuple(SCALINGS) if depth == reference else (scaling,)
            made.append(
                Condition(
                    label=c.label,
                    setting=c.setting,
                    group=c.group,
                    parameters={**c.parameters, "scalings": all_},
                    threshold=THRESHOLD,
                )
            )
    base = s.base
    linear = LinearDepths(
        dataset=base.dataset,
        subset=base.subset,
        scaling=base.scaling,
        data_seed=base.data_seed,
        lanes=tuple(lanes),
        edges=not small,
    )
    flow = (
        LayeredFlow(depths=(1, 2), reference=2, samples=4, width=5, classes=3, seeds=(0,), decay=2e-2) if small else LayeredFlow()
    )
    for label, study in (("linear network, every depth", linear), ("layered model, every depth", flow)):
        made.append(Condition(label=label, setting=study, group=s.group, parameters={"simulated": study.kind}))
    return tuple(made)


def swept(evidence: Evidence, scaling: str) -> list[tuple[int, Row]]:
    """(depth, row) of one sharing, by depth."""
    found = [(int(r.condition.parameters["depth"]), r) for r in evidence.present if scaling in r.condition.parameters["scalings"]]
    return sorted(found, key=lambda pair: pair[0])


def late(times: Times) -> np.ndarray:
    """(n,) times, one that never came as the end of its run."""
    return np.where(np.isfinite(times.t_nc), times.t_nc, times.horizon)


def effect(groups: list[np.ndarray]) -> float:
    """Size of an effect of depth: standard deviation (ddof 1) over depths of log mean time."""
    return float(np.std([np.log(g.mean()) for g in groups], ddof=1))


def judge(evidence: Evidence) -> list[Verdict]:
    flows = simulated(evidence, LayeredFlow)
    model = [_layers(flows)] if flows else [untestable("h_m2.layers", "not simulated yet")]
    rows = {scaling: swept(evidence, scaling) for scaling in SCALINGS}
    wanted = {scaling: sum(scaling in r.condition.parameters["scalings"] for r in evidence.rows) for scaling in SCALINGS}
    whole = {k: v for k, v in rows.items() if len(v) == wanted[k] and len(v) > 2}
    if "fixed" not in whole:
        return [*missing(IDS[:-1], evidence), *model]
    return [
        _slows(evidence, whole["fixed"]),
        *(_shared(evidence, whole, k) for k in ("ratio", "budget")),
        _value(evidence, whole),
        *model,
    ]


def _texts(evidence: Evidence, rows: list[tuple[int, Row]]) -> str:
    return times_text([f"{d}:" for d, _ in rows], [r.times(every=evidence.cadence) for _, r in rows])


def _slows(evidence: Evidence, rows: list[tuple[int, Row]]) -> Verdict:
    times = [r.times(every=evidence.cadence) for _, r in rows]
    depths = np.concatenate([np.full(t.n, d) for (d, _), t in zip(rows, times, strict=True)])
    last = max(float(t.horizon.max()) for t in times)
    t_nc = np.concatenate([np.where(np.isfinite(t.t_nc), t.t_nc, last + 1) for t in times])
    came = sum(t.crossed for t in times)
    level = rows[0][1].condition.threshold
    text = f"T_NC (NC1 < {level:g}) by depth: {_texts(evidence, rows)}"
    if not came or np.ptp(t_nc) == 0:
        return untestable("h_m2.slows", "no network collapsed at this threshold", text, THEORY)
    rho = statistics.spearman(depths, t_nc)
    first, end = times[0], times[-1]
    test = statistics.log_rank((first.t_nc, first.horizon), (end.t_nc, end.horizon))
    judgement = P if rho.p >= 0.05 else R if rho.statistic > 0 else C
    way = {P: "no trend is shown", R: "deeper is slower", C: "deeper is faster"}[judgement]
    return Verdict(
        "h_m2.slows",
        judgement,
        f"{text}; Spearman {rho.statistic:+.2f} (p {rho.p:.1g}), shallowest against deepest: log-rank p {test.p:.1g}",
        f"{way}; a time that never came counts as later than every other",
        THEORY,
    )


def _shared(evidence: Evidence, whole: dict[str, list[tuple[int, Row]]], scaling: str) -> Verdict:
    claim = f"h_m2.{scaling}"
    if scaling not in whole:
        return untestable(claim, "not every depth has runs")
    groups = {k: [late(r.times(every=evidence.cadence)) for _, r in whole[k]] for k in ("fixed", scaling)}
    crossed = {k: sum(r.times(every=evidence.cadence).crossed for _, r in whole[k]) for k in groups}
    text = f"T_NC at the same {SCALINGS[scaling]}: {_texts(evidence, whole[scaling])}"
    if not all(crossed.values()):
        return untestable(claim, "no network collapsed at this threshold", text, THEORY)
    size = {k: effect(v) for k, v in groups.items()}
    if not size["fixed"]:
        return untestable(claim, "depth has no effect at one lambda", text, THEORY)
    count = len(groups["fixed"])

    def ratio(drawn: list[np.ndarray]) -> np.ndarray:
        logs = [np.log(g.mean(1)) for g in drawn]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.std(logs[count:], axis=0, ddof=1) / np.std(logs[:count], axis=0, ddof=1)

    low, high = bootstrap([*groups["fixed"], *groups[scaling]], ratio)
    share = size[scaling] / size["fixed"]
    judgement = R if high <= 0.5 else C if low > 0.5 else P
    return Verdict(
        claim,
        judgement,
        f"{text}; spread of log T_NC over depths {size[scaling]:.3f} against {size['fixed']:.3f} at one "
        f"lambda: {share:.2f} [{low:.2f}, {high:.2f}] of it",
        "halved is read by the 95% bootstrap interval over seeds; a time that never came counts as the end of its run",
        THEORY,
    )


def _value(evidence: Evidence, whole: dict[str, list[tuple[int, Row]]]) -> Verdict:
    words, spreads = [], {}
    for scaling, rows in whole.items():
        rests = [finals(r) for _, r in rows]
        if not all(len(v) for v in rests):
            continue
        means = np.array([v.mean() for v in rests])
        spreads[scaling] = float(means.max() / means.min() - 1)
        listed = ", ".join(f"{d}: {told(v, '.2f')}" for (d, _), v in zip(rows, rests, strict=True))
        words.append(f"same {SCALINGS[scaling]} {listed} ({100 * spreads[scaling]:.0f}% apart)")
    if "fixed" not in spreads:
        return untestable("h_m2.value", "a depth has no network at rest")
    groups = [finals(r) for _, r in whole["fixed"]]
    test = statistics.kruskal(groups)
    linear = simulated(evidence, LinearDepths)
    closed = ""
    if linear:
        run = linear[0]
        use = [
            int(
                np.flatnonzero((column(run, "depth") == d) & np.isclose(column(run, "decay"), r.condition.parameters["decay"]))[0]
            )
            for d, r in whole["fixed"]
        ]
        closed = "; linear theory: fn " + ", ".join(f"{column(run, 'theory_fn')[i]:.2f}" for i in use)
        closed += f", NC1 floor {column(run, 'floor')[use[0]]:.3f} to {column(run, 'floor')[use[-1]]:.3f}"
        closed += f", fold at lambda {column(run, 'fold')[use[0]]:.2g} to {column(run, 'fold')[use[-1]]:.2g}"
    apart = spreads["fixed"]
    judgement = R if apart <= SAME and test.p >= 0.05 else C if apart > SAME and test.p < 0.05 else P
    best = min(spreads, key=lambda k: spreads[k])
    return Verdict(
        "h_m2.value",
        judgement,
        f"fn at rest by depth: {'; '.join(words)}; Kruskal-Wallis at one lambda p {test.p:.1g}{closed}",
        f"the same is read as means within {100 * SAME:.0f}% of each other and no difference shown; most alike at the same "
        f"{SCALINGS[best]}; {resting(r for _, r in whole['fixed'])}",
        "fn goes as (amplitude of the data)^(1/layers)",
    )


def _layers(flows: list) -> Verdict:
    run = flows[0]
    kind, t_nc, depth = column(run, "scaling"), column(run, "t_nc"), column(run, "depth")
    text, spreads = [], {}
    for scaling in SCALINGS:
        use = (kind == scaling) & np.isfinite(t_nc)
        means = {int(d): float(t_nc[use & (depth == d)].mean()) for d in np.unique(depth[use])}
        if len(means) > 1:
            spreads[scaling] = float(np.std(np.log(list(means.values())), ddof=1))
            text.append(f"same {SCALINGS[scaling]} " + ", ".join(f"{d}: {v:.0f}" for d, v in means.items()))
    error = np.abs(column(run, "fn_inf") / column(run, "theory_fn") - 1)
    closed = f"; fn at rest off the closed form by {100 * np.nanmax(error):.2g}% at most" if np.isfinite(error).any() else ""
    if "budget" not in spreads or "fixed" not in spreads:
        return untestable("h_m2.layers", "too few depths collapsed", "; ".join(text) or "–")
    rate, usable = column(run, "rate"), np.isfinite(t_nc) & (depth > 1)
    if len(np.unique(rate[usable])) > 2:
        law = statistics.power_law(rate[usable], t_nc[usable])
        closed += f"; T_NC goes as (asymptotic rate)^{law.slope:.2f} [{law.low:.2f}, {law.high:.2f}] from two layers on"
    shrunk = spreads["budget"] / spreads["fixed"]
    judgement = R if shrunk < 0.2 and spreads["ratio"] > spreads["fixed"] else P if shrunk < 0.5 else C
    return Verdict(
        "h_m2.layers",
        judgement,
        f"T_NC by weight layers, {'; '.join(text)}{closed}",
        f"spread of log T_NC over depths at the same total is {shrunk:.2f} of that at one lambda; adding up is read as less than "
        "0.2, with a larger spread at the same lambda over depth",
        THEORY,
    )


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(3)
    rows = {k: swept(evidence, k) for k in SCALINGS}
    depths = sorted({d for found in rows.values() for d, _ in found})
    by = {k: dict(found) for k, found in rows.items()}
    none = Times(*(np.array([]) for _ in range(5)))
    if depths:
        times = [
            (f"same {SCALINGS[k]}", [by[k][d].times(every=evidence.cadence) if d in by[k] else none for d in depths])
            for k in SCALINGS
        ]
        figures.against(axes[0, 0], depths, times, "T_NC (open: not by then)", "depth")
        rests = [(f"same {SCALINGS[k]}", [finals(by[k].get(d)) for d in depths]) for k in SCALINGS]
        figures.against(axes[0, 1], depths, rests, "fn at rest", "depth")
    flows = simulated(evidence, LayeredFlow)
    if flows:
        run = flows[0]
        at = np.unique(column(run, "depth"))
        lines = [
            (
                f"same {SCALINGS[k]}",
                [_finite(column(run, "t_nc")[(column(run, "scaling") == k) & (column(run, "depth") == d)]) for d in at],
            )
            for k in SCALINGS
        ]
        figures.against(axes[0, 2], list(at), lines, "T_NC, flow time", "weight layers", logy=True)
    for ax, there in zip(axes.flat, (depths, depths, flows), strict=True):
        if not there:
            figures.nothing(ax)
    figures.titles(axes, f"T_NC at NC1 < {THRESHOLD:g}", "fn at rest", "T_NC, layered linear model")
    return made


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


EXPERIMENT = Experiment(
    name="h_m2",
    title="H-M2: depth as accumulated decay",
    question="Does depth slow collapse by adding up decay, and which way to share decay takes the effect out?",
    measures="T_NC at one threshold and fn at rest over depths at the same lambda, the same total and the same lambda over "
    "depth; the same in layered linear models, with closed forms.",
    statements=STATEMENTS,
    conditions=conditions,
    judge=judge,
    figure=figure,
)
