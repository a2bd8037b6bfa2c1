"""H-M4: is fn at rest a fixed point of squared error with decay, in closed form, and what brings fn back to it? (Section 6.3.)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from experiments import statistics
from experiments.figures import STYLES, _colour
from experiments.paper import figures
from experiments.paper.evidence import Evidence, Row
from experiments.paper.experiment import Condition, Experiment, Statement, Verdict
from experiments.paper.settings import Setting, condition
from experiments.paper.verdicts import SAME, C, P, R, graded, missing, untestable, worst
from experiments.show import short
from experiments.why.flows import column
from experiments.why.linear_depths import LinearDepths
from experiments.why.rescaled_flow import RescaledFlow
from experiments.why.rest import agreed, final, finals, norm_product, percent, resting, simulated, told
from experiments.why.settings import SETTINGS
from realnets import TwoPhase

SOURCE, SECTION = "H-M4", "6.3"
STATEMENTS = (
    Statement(
        "h_m4.head",
        "fn at rest is what stationarity of the trained head implies, given the class means' Gram matrix.",
        "theory",
        "6.2b",
    ),
    Statement(
        "h_m4.data", "fn at rest follows from data, depth and decay alone, by the linear network's closed form.", SOURCE, SECTION
    ),
    Statement("h_m4.at_collapse", "fn at T_NC is the value at rest.", SOURCE, SECTION),
    Statement("h_m4.tighter", "Over seeds fn at rest is more concentrated than fn at T_NC.", "the published logs"),
    Statement("h_m4.attractor", "Rescaled from 0.03 to 30 times, features come back to the same fn at rest.", SOURCE, SECTION),
    Statement("h_m4.rate", "They come back at the rate 2 lambda, whichever layer was rescaled.", "theory", "6.6"),
    Statement("h_m4.product", "The product of fn and the head's norm varies less over settings than fn does.", "theory", "6.2"),
    Statement("h_m4.single", "One setting has one fn at rest, whatever the seed.", SOURCE, SECTION),
)
IDS = tuple(s.id for s in STATEMENTS)
#: Rescaled layers besides the last hidden one, of a network with five.
LAYERS = {-6: "first layer", -1: "head"}
ALPHAS = (0.03, 0.1, 0.3, 3.0, 10.0, 30.0)
MANY = tuple(range(10))
#: Two values of fn at rest this far apart, relative, are two minima; the third stage tells 0.3% from none.
GAP = 0.03
THEORY = "decay restores the balance between layers at 2 lambda; zero attracts, too, from three factors on"


def conditions(preset: str) -> tuple[Condition, ...]:
    if preset not in SETTINGS:
        return ()
    s = SETTINGS[preset]
    small = preset == "smoke"
    made = [_one(s, "reference", seeds=s.base.seeds if small else MANY)]
    for decay in s.decays:
        if decay != s.base.decays[0]:
            made.append(_one(s, f"decay {short(decay)}", decay=decay))
    varied: list[tuple[str, dict]] = [(f"depth {d}", {"depth": d}) for d in ((3,) if small else (3, 7))]
    if not small:
        varied += [(f"width {w}", {"width": w}) for w in s.widths if w != s.base.width]
        varied += [("inputs in [0, 1]", {"scaling": "unit"}), ("inputs times 3", {"scaling": "tripled"})]
        varied += [("SGD, decay 1e-3", {"optimiser": "sgd", "lr": 0.03, "decay": 1e-3}), ("AdamW", {"optimiser": "adamw"})]
        full = {"batch_size": 1797, "epochs_ce": 200, "epochs_mse": 1800, "settle_epochs": 2000, "measure_every": 20}
        varied += [("full batch", full)]
    made += [_one(s, label, **changes) for label, changes in varied]
    for alpha in ALPHAS[:1] if small else ALPHAS:
        made.append(_one(s, f"rescaled by {alpha:g}", alpha=alpha))
    for layer, alpha in () if small else product(LAYERS, (0.3, 3.0)):
        made.append(_one(s, f"{LAYERS[layer]} by {alpha:g}", alpha=alpha, rescaled_layer=layer))
    made += _studies(s, [c.setting for c in made if isinstance(c.setting, TwoPhase)], small)
    return tuple(made)


def _one(s: Setting, label: str, *, seeds: Sequence[int] | None = None, **changes) -> Condition:
    """A condition whose parameters are what differs from the reference."""
    c = condition(s, label, seeds=seeds, **changes)
    return replace(c, parameters=changes)


def _studies(s: Setting, settings: list[TwoPhase], small: bool) -> list[Condition]:
    base, made = s.base, []
    for scaling in dict.fromkeys(t.scaling for t in settings):
        lanes = tuple(dict.fromkeys((t.depth, t.decays[0]) for t in settings if t.scaling == scaling))
        data = {"dataset": base.dataset, "subset": base.subset, "scaling": scaling, "data_seed": base.data_seed}
        study = LinearDepths(**data, lanes=lanes, edges=False)
        made.append(
            Condition(label=f"linear network, {scaling}", setting=study, group=s.group, parameters={"simulated": study.kind})
        )
    flow = RescaledFlow(alphas=(0.3, 1.0, 3.0), layers=2, decay=2e-2, classes=3, samples=2, width=3) if small else RescaledFlow()
    return [*made, Condition(label="layered model, rescaled", setting=flow, group=s.group, parameters={"simulated": flow.kind})]


def arms(evidence: Evidence) -> list[Row]:
    return [r for r in evidence.present if "alpha" in r.condition.parameters]


def _arm(row: Row) -> str:
    """ "0.3", "head by 0.3": factor, and the layer where it is not the last hidden one."""
    p = row.condition.parameters
    return row.condition.label if "rescaled_layer" in p else f"{p['alpha']:g}"


def settings_of(evidence: Evidence) -> list[Row]:
    """One per setting, without the rescaled arms."""
    return [r for r in evidence.present if "alpha" not in r.condition.parameters]


def reference(evidence: Evidence) -> Row | None:
    return next((r for r in evidence.present if not r.condition.parameters), None)


def from_data(evidence: Evidence, row: Row) -> float:
    """fn of the linear network on the inputs of a condition, NaN if it is not there."""
    setting = row.condition.setting
    for study in evidence.studies:
        s = study.condition.setting
        if (
            isinstance(s, LinearDepths)
            and study.record is not None
            and isinstance(setting, TwoPhase)
            and s.scaling == setting.scaling
        ):
            depth, decay = column(study.record, "depth"), column(study.record, "decay")
            use = np.flatnonzero((depth == setting.depth) & np.isclose(decay, setting.decays[0], rtol=1e-12, atol=0))
            if len(use):
                return float(column(study.record, "theory_fn")[use[0]])
    return np.nan


def judge(evidence: Evidence) -> list[Verdict]:
    rows, home, flows = settings_of(evidence), reference(evidence), simulated(evidence, RescaledFlow)
    if not rows and not flows:
        return missing(IDS, evidence)
    rest = resting(evidence.present)
    return [
        _head(rows, rest),
        _data(evidence, rows, rest),
        _at_collapse(evidence, rows),
        _tighter(evidence, home),
        _attractor(evidence, home, flows),
        _rate(flows),
        _product(rows),
        _single(home),
    ]


def _errors(claim: str, pairs: list[tuple[str, np.ndarray]], reason: str, theory: str = "") -> Verdict:
    """Of relative errors by condition."""
    pairs = [(name, e[np.isfinite(e)]) for name, e in pairs]
    pairs = [(name, e) for name, e in pairs if len(e)]
    if not pairs:
        return untestable(claim, "nothing at rest to compare", theory=theory)
    parts = [graded(float(e.mean())) for _, e in pairs]
    every = np.concatenate([e for _, e in pairs])
    text = f"median {100 * np.median(np.abs(every)):.1f}% off, {100 * np.abs(every).max():.0f}% at most; "
    text += ", ".join(f"{name} {percent(e)}" for name, e in pairs)
    return Verdict(
        claim,
        worst(parts),
        text,
        f"held is read as a mean error within {100 * SAME:.0f}% in every setting, in part as within "
        f"twice that or in some; it is in {parts.count(R)} of {len(parts)}; {reason}",
        theory,
    )


def _head(rows: list[Row], rest: str) -> Verdict:
    pairs = [(r.condition.label, np.array([n.fn_from_head / final(n) - 1 for n in r.networks])) for r in rows]
    return _errors(
        "h_m4.head",
        pairs,
        f"decoupled decay has other rest points and is left out; {rest}",
        "exact at a collapsed stationary point: what is left is scatter, or not yet rest",
    )


def _data(evidence: Evidence, rows: list[Row], rest: str) -> Verdict:
    pairs = [(r.condition.label, from_data(evidence, r) / finals(r) - 1) for r in rows]
    return _errors(
        "h_m4.data", pairs, rest, "exact for linear networks; a ReLU network also removes scatter before the balance is struck"
    )


def _at_collapse(evidence: Evidence, rows: list[Row]) -> Verdict:
    words, parts = [], []
    for row in rows:
        star = row.times(every=evidence.cadence).fn
        rest = np.array([final(n) for n in row.networks])
        both = np.isfinite(star) & np.isfinite(rest)
        if not both.any():
            continue
        words.append(f"{row.condition.label} {percent(star[both] / rest[both] - 1)}")
        if both.sum() > 1:
            found = statistics.difference(star[both], rest[both], "paired")
            bound = SAME * float(rest[both].mean())
            if statistics.equivalence(found, bound).equivalent:
                parts.append(R)
            else:
                parts.append(C if abs(found.difference) > bound and found.p < 0.05 else P)
    judgement = agreed(parts)
    if judgement is None:
        return untestable("h_m4.at_collapse", "fewer than two networks of a setting collapsed", "; ".join(words) or "–")
    return Verdict(
        "h_m4.at_collapse",
        judgement,
        f"fn at T_NC over fn at rest: {', '.join(words)}",
        f"the same is read as shown to be within {100 * SAME:.0f}%, in pairs of one network; it is in {parts.count(R)} of "
        f"{len(parts)} settings",
    )


def _tighter(evidence: Evidence, home: Row | None) -> Verdict:
    star = home.times(every=evidence.cadence).fn_star if home is not None else np.array([])
    rest = finals(home)
    if min(len(star), len(rest)) < 5:
        return untestable(
            "h_m4.tighter", f"{len(star)} networks of the reference collapsed, {len(rest)} have an end; 5 are needed"
        )
    test = statistics.spread_ratio(rest, star)
    judgement = P if test.p >= 0.05 else R if test.ratio < 1 else C
    return Verdict(
        "h_m4.tighter",
        judgement,
        f"CV over {len(rest)} seeds {100 * statistics.summary(rest).cv:.1f}% at rest, "
        f"{100 * statistics.summary(star).cv:.1f}% at T_NC ({len(star)}); ratio of variances of log fn {test.ratio:.2f} "
        f"[{test.low:.2f}, {test.high:.2f}], Brown-Forsythe p {test.p:.2g}",
        "tighter is read as p < 0.05",
    )


def _attractor(evidence: Evidence, home: Row | None, flows: list) -> Verdict:
    words, parts = [], []
    goal = finals(home)
    seeds = {n.seed: final(n) for n in home.networks} if home is not None else {}
    for row in arms(evidence):
        pairs = np.array(
            [(final(n), seeds[n.seed]) for n in row.networks if np.isfinite(seeds.get(n.seed, np.nan)) and np.isfinite(final(n))]
        )
        if len(pairs):
            words.append(f"{_arm(row)}: {percent(pairs[:, 0] / pairs[:, 1] - 1)}")
            parts.append(_paired(pairs))
    for run in flows:
        off = np.abs(column(run, "end") - 1)
        lost = [
            f"{p} x {a:g}"
            for p, a, e in zip(column(run, "place"), column(run, "alpha"), column(run, "end"), strict=True)
            if e < 0.01
        ]
        low = column(run, "start").min()
        words.append(
            f"simulated, started at {low:.2g} to {column(run, 'start').max():.3g} times fn at rest: {int((off < SAME).sum())} of "
            f"{len(off)} come back" + (f", to zero from {', '.join(lost)}" if lost else "")
        )
        parts += [R if v < SAME else C for v in off]
    judgement = agreed(parts)
    start = f"control {told(goal)}; rescaled (the last hidden layer if not said), off the control of the seed: "
    text = (start if len(goal) else "") + "; ".join(words)
    if judgement is None:
        return untestable("h_m4.attractor", "no rescaled arm with two pairs of seeds", text, THEORY)
    return Verdict(
        "h_m4.attractor",
        judgement,
        text,
        f"back is read as within {100 * SAME:.0f}%: shown by two one-sided tests for networks, "
        f"{sum(p is R for p in parts)} of {len(parts)} arms are",
        THEORY,
    )


def _paired(pairs: np.ndarray):
    """`rest.same` in pairs of one seed."""
    if len(pairs) < 2:
        return None
    found = statistics.difference(pairs[:, 0], pairs[:, 1], "paired")
    bound = SAME * float(pairs[:, 1].mean())
    if statistics.equivalence(found, bound).equivalent:
        return R
    return C if min(abs(found.low), abs(found.high)) > bound and found.low * found.high > 0 else P


def _rate(flows: list) -> Verdict:
    if not flows:
        return untestable("h_m4.rate", "not simulated yet", theory=THEORY)
    run = flows[0]
    rate, place, error = column(run, "rate"), column(run, "place"), column(run, "error")
    seen = np.isfinite(rate)
    if not seen.any():
        return untestable("h_m4.rate", "no arm comes near rest slowly enough to read a rate", theory=THEORY)
    words = [f"{p} {told(rate[seen & (place == p)])}" for p in dict.fromkeys(place[seen].tolist())]
    good = np.abs(rate[seen] - 1) <= SAME
    known = error[np.isfinite(error)]
    far = (
        f"; fn on the way off theory's by {100 * np.median(known):.2g}% at the median arm, {100 * known.max():.2g}% at most"
        if len(known)
        else ""
    )
    judgement = R if good.all() else P if good.any() else C
    return Verdict(
        "h_m4.rate",
        judgement,
        f"rate over 2 lambda by layer: {', '.join(words)}{far}",
        f"held is read as within {100 * SAME:.0f}%; it is in {int(good.sum())} of {len(good)} arms",
        THEORY,
    )


def _product(rows: list[Row]) -> Verdict:
    values = [(finals(r), np.array([norm_product(n) for n in r.networks])) for r in rows]
    values = [(f, p[np.isfinite(p)]) for f, p in values if len(f) and np.isfinite(p).any()]
    if len(values) < 4:
        return untestable("h_m4.product", f"{len(values)} settings at rest; 4 are needed")
    fn, product = (np.array([v[i].mean() for v in values]) for i in (0, 1))

    def cv(x: np.ndarray) -> np.ndarray:
        return x.std(-1, ddof=1) / np.abs(x.mean(-1))

    both = np.stack([fn, product], 1)
    rng = np.random.default_rng(0)
    drawn = both[rng.integers(0, len(both), (2000, len(both)))]
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.nanquantile(cv(drawn[..., 1]) / cv(drawn[..., 0]), [0.025, 0.975])
    if not cv(fn):
        return untestable("h_m4.product", "fn at rest is the same in every setting")
    ratio = float(cv(product) / cv(fn))
    judgement = R if high < 1 else C if low > 1 else P
    return Verdict(
        "h_m4.product",
        judgement,
        f"CV over {len(values)} settings {100 * cv(product):.1f}% of the product ({product.min():.2f} to "
        f"{product.max():.2f}), {100 * cv(fn):.1f}% of fn ({fn.min():.2f} to {fn.max():.2f}); ratio {ratio:.2f} "
        f"[{low:.2f}, {high:.2f}]",
        "varies less is read by the 95% bootstrap interval over settings",
        "x sqrt((K-1)/(1-rho)), 3 for orthogonal non-negative class means",
    )


def clusters(values: np.ndarray, gap: float = GAP) -> list[np.ndarray]:
    """Values in ascending order, parted where the next is `gap` or more above."""
    x = np.sort(values)
    return np.split(x, np.flatnonzero(np.diff(x) > gap * x[:-1]) + 1) if len(x) else []


def _single(home: Row | None) -> Verdict:
    rest = np.array([n.fn_inf for n in home.networks] if home is not None else [])
    rest = rest[np.isfinite(rest)]
    if len(rest) < 5:
        return untestable("h_m4.single", f"{len(rest)} seeds of the reference at rest; 5 are needed")
    found = clusters(rest)
    text = "; ".join(f"{g.mean():.3f} ({len(g)} seed{'s' * (len(g) > 1)})" for g in found)
    apart = float(rest.max() / rest.min() - 1)
    judgement = R if len(found) == 1 and apart <= SAME else C if len(found) > 1 else P
    return Verdict(
        "h_m4.single",
        judgement,
        f"fn at rest over {len(rest)} seeds: {text}; {100 * apart:.1f}% from least to greatest",
        f"{len(found)} value{'s' * (len(found) > 1)} parted by gaps above {100 * GAP:g}%, where rest is known to 0.3%",
        "several minima: ranks of hidden layers differ (low-rank solutions)",
    )


def figure(evidence: Evidence, logs: Evidence | None) -> Figure:
    made, axes = figures.grid(4)
    rows, home, flows = settings_of(evidence), reference(evidence), simulated(evidence, RescaledFlow)
    if rows:
        series = [
            ("at T_NC", [r.times(every=evidence.cadence).fn_star for r in rows]),
            ("at rest", [finals(r) for r in rows]),
            ("from head", [np.array([n.fn_from_head for n in r.networks]) for r in rows]),
            ("from data", [np.array([from_data(evidence, r)]) for r in rows]),
        ]
        figures.against(axes[0, 0], range(len(rows)), series, "fn", "", names=[r.condition.label for r in rows], lines=False)
        axes[0, 0].tick_params(axis="x", labelsize=6, rotation=70)
    turned = [r for r in arms(evidence) if "rescaled_layer" not in r.condition.parameters]
    turned += [home] if home is not None else []
    turned.sort(key=lambda r: r.condition.parameters.get("alpha", 1.0))
    if turned:
        at = [r.condition.parameters.get("alpha", 1.0) for r in turned]
        figures.against(
            axes[0, 1],
            at,
            [("at T_NC", [r.times(every=evidence.cadence).fn_star for r in turned]), ("at rest", [finals(r) for r in turned])],
            "fn",
            "alpha",
            logx=True,
        )
    for run in flows:
        time, place, alpha = run.data["time"].values, column(run, "place"), column(run, "alpha")
        decay = float(run.provenance["config"]["decay"])
        for k, name in enumerate(dict.fromkeys(place.tolist())):
            for i in np.flatnonzero((place == name) & (alpha != 1)):
                axes[0, 2].plot(
                    time[1:] * decay,
                    run.data["fn"].values[i, 1:],
                    color=_colour(k, 4),
                    linestyle=STYLES[k % len(STYLES)],
                    linewidth=0.9,
                    label=name if alpha[i] == alpha[alpha != 1][0] else None,
                )
        axes[0, 2].set_yscale("log")
        axes[0, 2].set_xlabel("time since the rescaling, 1/lambda", fontsize=8)
        axes[0, 2].set_ylabel("fn over fn at rest", fontsize=8)
        axes[0, 2].legend(fontsize=7, frameon=False)
    seeds = np.sort(finals(home))
    if len(seeds):
        star = np.sort(home.times(every=evidence.cadence).fn_star) if home is not None else seeds
        axes[0, 3].plot(range(len(seeds)), seeds, "o", color="black", markersize=4, label="at rest")
        axes[0, 3].plot(range(len(star)), star, "x", color="0.5", markersize=4, label="at T_NC")
        axes[0, 3].legend(fontsize=7, frameon=False)
        axes[0, 3].set_xlabel("seed, in order", fontsize=8)
        axes[0, 3].set_ylabel("fn", fontsize=8)
    for ax, there in zip(axes.flat, (rows, turned, flows, len(seeds)), strict=True):
        if not there:
            figures.nothing(ax)
    figures.titles(axes, "fn by setting", "fn after rescaling", "the way back, simulated", "fn over seeds")
    return made


EXPERIMENT = Experiment(
    name="h_m4",
    title="H-M4: the fixed point",
    question="Is fn at rest a fixed point of squared error with decay, in closed form, and an attractor?",
    measures="fn at T_NC, at rest, from the trained head and from data alone over decay, depth, width, inputs and optimiser; "
    "the way back after rescaling; spread and minima over seeds.",
    statements=STATEMENTS,
    conditions=conditions,
    judge=judge,
    figure=figure,
)
