"""The hypotheses: statements judged both ways on made-up evidence, simulations against closed forms, smoke runs and a page."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from experiments import statistics
from experiments.cli import main
from experiments.paper.evidence import Evidence, Row
from experiments.paper.expectation import batchnorm_bound
from experiments.paper.experiment import GROUPS, MODULES, PAPER, WHY, Judgement, chosen, find
from experiments.paper.networks import Network
from experiments.published import published
from experiments.sweeps import Catalogue, Study, plan
from experiments.why import h_m1, h_m3, h_m4
from experiments.why.activation_flow import degree
from experiments.why.batchnorm_flow import BatchNormFlow
from experiments.why.layered_flow import LayeredFlow
from experiments.why.rescaled_flow import NEAR, RescaledFlow, rate
from experiments.why.rest import bootstrap, final, same, told
from experiments.why.scalings import decay_at
from ncflow import Trajectory
from ncflow.errors import BadInput
from realnets import TwoPhase
from theory import activation as theory_of
from theory import head_from_gram

R, P, C, U = Judgement.REPLICATES, Judgement.IN_PART, Judgement.CONTRADICTED, Judgement.UNTESTABLE
NAMES = ("h_m1", "h_m2", "h_m3", "h_m4")
JITTER = (-0.006, -0.002, 0.0, 0.003, 0.005, -0.004, 0.002, 0.006, -0.005, 0.001)
END = 170


def net(rest, seed, *, t_nc=100.0, star=None, product=3.0, head=1.0, condition=None):
    """A network that passes NC1 0.01 (and 0.05) at `t_nc` with fn `star` and rests at `rest`; its head is `head` times the one
    that is stationary there."""
    time = np.arange(2.0, END + 1, 2)
    never = t_nc is None or t_nc > END
    nc1 = np.full(len(time), 0.5) if never else np.where(time >= t_nc, 0.005, 0.5)
    fn = np.full(len(time), rest if star is None else star)
    values = {"fn": fn, "nc1_trace_ratio": nc1, "norm_product": np.full(len(time), product)}
    setting = condition.setting if condition is not None else None
    gram = rest**2 * (0.7 * np.eye(10) + 0.3)
    lane = setting.lanes[seed] if setting is not None else None
    decay = lane.decay if lane is not None else 1e-4
    norm = head * float(head_from_gram(gram, decay, 0.1, "decayed").weight_norm)
    end = {"gram": gram, "fn_inf": rest, "rest": {"fn": rest, "norm_product": product, "weight_norm": np.array([norm])}}
    layers = {"weight_norm": np.full((len(time), 1), norm), "bias_norm_sq": np.zeros((len(time), 1))}
    return Network("run", seed, time, np.where(time <= 20, 1, 2), values, {1: "cross_entropy", 2: "mse"}, "folder", layers, end,
                   setting, lane)  # fmt: skip


def evidence(name, make, studies=None):
    """Of the laptop preset: make(condition, seed) -> a network, or None; studies: class -> columns of its record."""
    conditions = find(name).conditions("laptop")
    group = conditions[0].group
    rows = [Row(c, tuple(n for k in range(len(c.lanes)) if (n := make(c, k)) is not None))
            for c in conditions if isinstance(c.setting, TwoPhase)]  # fmt: skip
    sims = []
    for c in conditions:
        if isinstance(c.setting, Study):
            columns = (studies or {}).get(type(c.setting))
            columns = columns(c.setting) if callable(columns) else columns
            sims.append(Row(c, record=record(columns) if columns else None))
    return Evidence(name, "laptop", group, tuple(rows), tuple(sims))


def record(columns):
    curves = columns.pop("curves", None)
    data = {k: ("lane", np.asarray(v)) for k, v in columns.items()}
    if curves is not None:
        data["fn"] = (("lane", "time"), curves)
    time = np.linspace(0, 1, curves.shape[1]) if curves is not None else np.array([0.0])
    return Trajectory(xr.Dataset(data, {"time": time}, {"provenance": json.dumps({"config": {"decay": 1e-3}})}))


def verdicts(found):
    return {v.claim: v for v in find(found.experiment).judge(found)}


def judged(found):
    return {claim: v.judgement for claim, v in verdicts(found).items()}


# Declarations


def test_the_hypotheses_are_no_claims_of_the_paper_and_all_stays_the_paper():
    assert set(NAMES) <= set(WHY) and GROUPS["all"] == tuple(PAPER) and len(PAPER) == 11
    assert [e.name for e in chosen(("all",))] == list(PAPER)
    assert {e.name for e in chosen(("why", "h_m1"))} == set(WHY)
    known = {c.id for c in (*published().claims, *published().later)}
    for name in NAMES:
        experiment = find(name)
        ids = [s.id for s in experiment.statements]
        assert experiment.claims == () and len(set(ids)) == len(ids) and not set(ids) & known
        assert all(i.startswith(f"{name}.") for i in ids) and MODULES[name] == f"experiments.why.{name}"


def test_seeds_of_equal_settings_train_together_and_share_what_is_equal():
    conditions = [c.setting for name in NAMES for c in find(name).conditions("laptop")]
    todo = plan(conditions, Catalogue())
    lanes = [job.lanes for job in todo.jobs if isinstance(job.setting, TwoPhase)]
    assert sum(lanes) < sum(len(s.lanes) for s in conditions if isinstance(s, TwoPhase))  # depths and decays recur
    assert sum(lanes) / len(lanes) > 3
    shared = {c.setting for name in ("grid", "ce_only") for c in find(name).conditions("laptop-resnet")}
    assert {c.setting for c in find("h_m3").conditions("laptop-resnet") if len(c.lanes) == 3} <= shared


@pytest.mark.parametrize("name", NAMES)
def test_nothing_there_says_nothing_but_what_needs_no_runs(name):
    empty = evidence(name, lambda c, k: None)
    assert set(judged(empty).values()) == {U}
    counted = {v.claim for v in find(name).count()}
    assert set(judged(empty)) | counted == {s.id for s in find(name).statements}
    figure = find(name).figure(empty, None)
    assert len(figure.axes) >= 3


# H-M1


def families(fn):
    """Networks whose fn at rest is fn(degree, activation)."""
    size = 1.2 * (2 / find("h_m1").conditions("laptop")[0].setting.width) ** 0.5

    def make(c, k):
        name, a = c.parameters["activation"], c.parameters["activation_scale"]
        off = abs(float(theory_of.mean_degree(name, size, a)) - 1)
        at, noise = (1.2, 0.004 * (k - 1)) if name == "relu" else (fn(off, name), JITTER[k])
        return net(at * (1 + noise), k, condition=c)

    return make


def test_h_m1_both_ways():
    def homogeneity(off, name):
        return 1.2 if name in h_m1.HOMOGENEOUS else 1.2 * np.exp(off)

    assert set(judged(evidence("h_m1", families(homogeneity))).values()) == {R}

    def otherwise(off, name):
        return 2.0 if name in h_m1.HOMOGENEOUS else 1.2 * np.exp(off - 1.5)

    found = verdicts(evidence("h_m1", families(otherwise)))
    assert {v.judgement for v in found.values()} == {C}
    assert "0 of 4 do" in found["h_m1.knob"].reason and "ReLU²" in found["h_m1.homogeneous"].found


def test_h_m1_takes_the_simulation_too():
    knobs = h_m1.FAMILIES["gelu"]

    def flow(study):
        names = {"relu": (1.0,), "gelu": knobs}.get(study.activation)
        if names is None:
            return None
        off = np.repeat([0.0] if study.activation == "relu" else [0.01 * 4**i for i in range(5)], 2)
        rests = 0.9 * np.exp(off) * np.tile([1, 1.001], len(names))
        return {"activation": [study.activation] * len(off), "knob": np.repeat(names, 2), "fn_end": rests, "degree": 1 + off}

    found = verdicts(evidence("h_m1", lambda c, k: None, {h_m1.ActivationFlow: flow}))
    assert found["h_m1.knob"].judgement is R and "simulation" in found["h_m1.knob"].found
    assert found["h_m1.homogeneous"].judgement is U


def test_h_m1_scaled_relu_is_relu():
    (proposed,) = find("h_m1").count()
    assert proposed.claim == "h_m1.proposed" and proposed.judgement is C and "= 0, 0, 0 for x > 0" in proposed.found


@pytest.mark.parametrize(("name", "t"), [("relu", 1.0), ("leaky_relu", 1.0), ("relu^2", 2.0), ("relu^3", 3.0)])
def test_degree_of_a_homogeneous_activation_is_its_degree(name, t):
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((6, 5)), rng.standard_normal((7, 6))]
    assert degree(name, 0.7, weights, rng.standard_normal((5, 4))) == pytest.approx(t, rel=1e-12)
    assert abs(degree("gelu", 0.7, weights, rng.standard_normal((5, 4))) - 1) > 0.01


# H-M2


def depths(t_nc, rest):
    def make(c, k):
        d, scalings = c.parameters["depth"], c.parameters["scalings"]
        scaling = scalings[0] if len(scalings) == 1 else "fixed"
        return net(rest(d) * (1 + JITTER[k]), k, t_nc=t_nc(d, scaling) + 2 * k, condition=c)

    return make


def test_h_m2_both_ways():
    hypothesis = evidence("h_m2", depths(lambda d, s: 40 + 12 * d if s == "fixed" else 100, lambda d: 1.2))
    found = judged(hypothesis)
    assert found.pop("h_m2.layers") is U and set(found.values()) == {R}
    slope = {"fixed": 6, "ratio": 12, "budget": 6}
    found = verdicts(evidence("h_m2", depths(lambda d, s: 150 - slope[s] * d, lambda d: 3 / d)))
    assert {found[c].judgement for c in ("h_m2.slows", "h_m2.ratio", "h_m2.budget", "h_m2.value")} == {C}
    assert "deeper is faster" in found["h_m2.slows"].reason


def test_h_m2_counts_times_that_never_came():
    late = evidence("h_m2", depths(lambda d, s: 60 if d < 5 else END + 10, lambda d: 1.2))
    found = verdicts(late)["h_m2.slows"]
    assert found.judgement is R and "4: 64, 5: > 170" in found.found
    none = evidence("h_m2", depths(lambda d, s: END + 10, lambda d: 1.2))
    assert verdicts(none)["h_m2.slows"].judgement is U


@pytest.mark.parametrize(("power", "judgement"), [((-1, 0, -2), R), ((0.5, 0.5, 0.5), C)])
def test_h_m2_layers(power, judgement):
    at = [(d, s, p) for d in (1, 2, 3, 5) for s, p in zip(("fixed", "budget", "ratio"), power, strict=True)]
    t = np.array([300.0 * (d + 1) ** p for d, _, p in at])
    columns = {"depth": [d for d, _, _ in at], "scaling": [s for _, s, _ in at], "t_nc": t, "fn_inf": np.ones(len(at)),
               "theory_fn": np.ones(len(at)), "rate": 1 / t}  # fmt: skip
    assert verdicts(evidence("h_m2", lambda c, k: None, {LayeredFlow: columns}))["h_m2.layers"].judgement is judgement


def test_scalings_meet_at_the_reference():
    assert [decay_at(s, 10, 5, 1e-4) for s in ("fixed", "budget", "ratio")] == pytest.approx([1e-4, 5e-5, 2e-4])
    assert {decay_at(s, 5, 5, 1e-4) for s in ("fixed", "budget", "ratio")} == {1e-4}
    with pytest.raises(BadInput, match="scaling"):
        decay_at("halved", 5, 5, 1e-4)


def test_layered_flow_is_the_theory(tmp_path):
    study = LayeredFlow(depths=(1, 2), reference=2, samples=4, width=5, classes=3, seeds=(0,), decay=2e-2)
    data = study.run(root=None, progress=lambda share: None).data
    np.testing.assert_allclose(data["fn_inf"], data["theory_fn"], rtol=2e-3)
    two = data.isel(lane=data["depth"].values == 2)
    np.testing.assert_allclose(two["decay"], 2e-2)  # the reference, where all ways to share agree
    np.testing.assert_allclose(two["t_nc"], float(two["t_nc"][0]), rtol=1e-3)


# H-M3


def blocks(loss, norm, skip, interaction=1.0):
    def make(c, k):
        p = c.parameters
        fn = 1.0 * loss ** (p["loss"] == "cross_entropy") * norm ** (p["normalization"] == "batch") * skip ** p["skip"]
        return net(fn * (1 + JITTER[k]), k)

    return make


def test_h_m3_both_ways():
    found = judged(evidence("h_m3", blocks(1.05, 3.0, 2.0)))
    assert (found["h_m3.batchnorm"], found["h_m3.skip"], found["h_m3.factor"]) == (R, R, R)
    found = verdicts(evidence("h_m3", blocks(4.0, 0.8, 0.9)))
    assert {found[c].judgement for c in ("h_m3.batchnorm", "h_m3.skip", "h_m3.factor")} == {C}
    assert "largest is that of loss" in found["h_m3.factor"].reason and "loss 9" in found["h_m3.factor"].found


@pytest.mark.parametrize(("factor", "judgement"), [(1.0, R), (1.12, P), (1.5, C)])
def test_h_m3_closed_form(factor, judgement):
    def make(c, k):
        p = c.parameters
        level = batchnorm_bound(p["loss"], c.setting.decays[0], streams=3 if p["skip"] else 1)
        return net(factor * level * (1 + JITTER[k]), k)

    columns = {"streams": [1, 2], "fn_end": [factor, factor], "theory_fn": [1.0, 1.0], "loss": ["mse", "cross_entropy"]}
    assert judged(evidence("h_m3", make, {BatchNormFlow: columns}))["h_m3.closed"] is judgement


def test_shares_of_a_balanced_design():
    cells = {(loss, n, s): np.array(2.0 * (loss == "mse") + 1.0 * (n == "batch")) for loss in ("mse", "cross_entropy")
             for n in ("batch", "none") for s in (True, False)}  # fmt: skip
    found = h_m3.shares(cells)
    assert found["loss"] == pytest.approx(0.8) and found["BatchNorm"] == pytest.approx(0.2) and found["skip"] == 0
    assert sum(found.values()) == pytest.approx(1)


def test_batchnorm_flow_is_the_theory():
    study = BatchNormFlow(streams=(1, 2), samples=3, seeds=(0,), steps=1000)
    data = study.run(root=None, progress=lambda share: None).data
    found = (data["fn_end"] / data["theory_fn"]).values
    alone = data["streams"].values == 1
    np.testing.assert_allclose(found[alone], 1, rtol=0.01)
    assert (found[~alone] > 0.9).all() and (found[~alone] < 1.01).all()  # streams that share unequally stay below


# H-M4


def point(rest=lambda c, k: 1.2, star=1.0, product=lambda c: 3.0, head=1.0, t_nc=100.0):
    """Networks at rest where `rest` says, with fn at T_NC `star` (of k) times that."""

    def make(c, k):
        at = rest(c, k) * (1 + JITTER[k] / 4)
        up = star(k) if callable(star) else star
        return net(at, k, t_nc=t_nc, star=at * up, product=product(c), head=head, condition=c)

    return make


def linear(factor):
    def columns(study):
        depth, decay = zip(*study.lanes, strict=True)
        return {"depth": depth, "decay": decay, "theory_fn": np.full(len(depth), 1.2 * factor)}

    return columns


def response(end, speed):
    places, alphas = ("features", "head"), (0.1, 10.0)
    at = [(p, a) for p in places for a in alphas]
    return {"place": [p for p, _ in at], "alpha": [a for _, a in at], "start": [a for _, a in at], "end": np.full(4, end),
            "rate": np.full(4, speed), "error": np.full(4, 1e-3), "curves": np.ones((4, 5))}  # fmt: skip


def scattered(c):
    """fn that differs between settings."""
    label = "reference" if "alpha" in c.parameters else c.label
    return 1.2 + 0.1 * (sum(map(ord, label)) % 7)


def test_h_m4_both_ways():
    good = {h_m4.LinearDepths: linear(1.0), RescaledFlow: response(1.0, 1.0)}
    loose = point(star=lambda k: 1 + 8 * JITTER[k])
    found = judged(evidence("h_m4", loose, good))
    assert {found[c] for c in ("h_m4.head", "h_m4.data", "h_m4.at_collapse", "h_m4.tighter", "h_m4.attractor", "h_m4.rate",
                               "h_m4.single")} == {R}  # fmt: skip
    assert judged(evidence("h_m4", point(lambda c, k: scattered(c)), good))["h_m4.product"] is R

    def astray(c, k):
        return 1.2 * (1.5 if "alpha" in c.parameters else 1.0) * (1.3 if k % 2 and not c.parameters else 1.0)

    bad = {h_m4.LinearDepths: linear(2.0), RescaledFlow: response(0.0, 3.0)}
    found = judged(evidence("h_m4", point(astray, star=lambda k: 1.4 / (1.3 if k % 2 else 1.0), head=0.5), bad))
    assert {found[c] for c in ("h_m4.data", "h_m4.rate", "h_m4.single")} == {C}
    assert found["h_m4.head"] in (C, U)  # a head that small has no stationary features of this shape, or far larger ones
    steady = point(lambda c, k: 1.2, star=1.4, product=lambda c: 3 * scattered(c))
    found = judged(evidence("h_m4", steady, {RescaledFlow: response(0.0, 3.0)}))
    assert found["h_m4.at_collapse"] is C and found["h_m4.product"] in (C, U)
    wide = point(lambda c, k: 1.2 * (1 + 8 * JITTER[k]), star=lambda k: 1 / (1 + 8 * JITTER[k]))
    assert judged(evidence("h_m4", wide))["h_m4.tighter"] is C
    away = point(lambda c, k: 1.2 * (1.5 if "alpha" in c.parameters else 1.0))
    assert judged(evidence("h_m4", away, {RescaledFlow: response(0.0, 1.0)}))["h_m4.attractor"] is C


def test_clusters():
    parts = h_m4.clusters(np.array([1.2, 1.01, 1.0, 1.21]))
    assert [len(p) for p in parts] == [2, 2] and h_m4.clusters(np.array([])) == []


def test_rescaled_flow_comes_back_at_twice_the_decay():
    since = np.linspace(0, 3000, 400)
    assert rate(since, 1 + 0.05 * np.exp(-2 * 1e-3 * since), 1e-3) == pytest.approx(1, rel=1e-9)
    assert np.isnan(rate(since, np.full(400, 1 + NEAR / 2), 1e-3))
    study = RescaledFlow(alphas=(0.3, 1.0, 3.0), layers=2, decay=2e-2, classes=3, samples=2, width=3)
    data = study.run(root=None, progress=lambda share: None).data
    moved = data["alpha"].values != 1
    np.testing.assert_allclose(data["start"].values[moved & (data["place"].values != "head")], [0.3, 3.0] * 3, rtol=1e-4)
    np.testing.assert_allclose(data["end"], 1, rtol=1e-3)
    np.testing.assert_allclose(data["rate"].values[moved], 1, rtol=0.03)
    assert np.isnan(data["rate"].values[~moved]).all()


# What they share


def test_rest_and_its_words():
    one = net(1.3, 0)
    assert final(one) == 1.3 and final(replace(one, end={})) == one.fn[-1]
    assert final(replace(one, end={"fn_inf": np.nan, "rest": {"fn": 1.25}})) == 1.25
    assert told([1.0, 1.2], ".2f") == "1.10 [-0.17, 2.37]" and told([]) == "–" and told([1.0]) == "1.000"
    a = np.array([1.0, 1.01, 0.99])
    assert (same(a, a), same(1.5 * a, a), same(a[:1], a)) == (R, C, None)
    assert same(np.array([0.8, 1.0, 1.25]), a) is P


def test_bootstrap_holds_its_groups_apart():
    low, high = bootstrap([np.array([1.0, 1.0]), np.array([2.0, 4.0])], lambda drawn: drawn[1].mean(1) / drawn[0].mean(1))
    assert (low, high) == (2.0, 4.0)


def test_spread_ratio():
    rng = np.random.default_rng(1)
    a, b = np.exp(0.01 * rng.standard_normal(12)), np.exp(0.1 * rng.standard_normal(12))
    found = statistics.spread_ratio(a, b)
    assert found.low < found.ratio < found.high < 1 and found.p < 0.05
    assert found.ratio == pytest.approx(np.log(a).var(ddof=1) / np.log(b).var(ddof=1))
    back = statistics.spread_ratio(b, a)
    assert (back.ratio, back.low, back.p) == pytest.approx((1 / found.ratio, 1 / found.high, found.p))
    with pytest.raises(BadInput, match=r"^b = "):
        statistics.spread_ratio(a, np.ones(3))


def test_smoke_runs_of_all_four_and_their_page(tmp_path, capsys):
    out = str(tmp_path / "runs")
    assert main(["run", *NAMES, "--preset", "smoke", "--workers", "1", "--out", out, "--json"]) == 0
    capsys.readouterr()
    assert main(["report", *NAMES, "--out", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdicts"] == [] and sum(found["counts"].values()) == 0
    by = {h["claim"]: h for h in found["hypotheses"]}
    assert set(by) == {s.id for name in NAMES for s in find(name).statements}
    assert by["h_m1.proposed"]["verdict"] == C.value  # needs no run
    page = (tmp_path / "runs" / "report" / "index.html").read_text()
    for name in NAMES:
        assert f'id="{name}"' in page and find(name).title in page
    for claim in by:
        assert f'id="claim-{claim}"' in page
    assert page.count("data:image/png") >= 13 and "fn at rest" in page
