"""Experiments: what they declare, and verdicts that follow the numbers, both ways."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from experiments.compare import linear_model
from experiments.paper import MODULES, PRESETS, Condition, Judgement, find
from experiments.paper.evidence import LOGS, Evidence, Gap, Row, collapse_text, gather
from experiments.paper.expectation import batchnorm_bound
from experiments.paper.experiment import PAPER, chosen
from experiments.paper.grokking_parallel import transitions
from experiments.paper.lead_time import leads
from experiments.paper.linear_flow import LinearFlow
from experiments.paper.modular_addition import ModularAddition
from experiments.paper.networks import Network
from experiments.paper.pairs import fn_under
from experiments.paper.published_logs import gather_logs, network
from experiments.paper.verdicts import graded, monotone, worst
from experiments.paper.width import parameters
from experiments.published import published
from experiments.published.logs import read_logs
from experiments.sweeps import Catalogue, Study, plan
from ncflow import Trajectory
from ncflow.errors import BadInput
from realnets import TwoPhase, train
from theory import fixed_point

R, P, C, U = Judgement.REPLICATES, Judgement.IN_PART, Judgement.CONTRADICTED, Judgement.UNTESTABLE
END, SWITCH = 600, 200


def net(t_nc=None, fn=1.1, end=None, *, seed=0, early=27.0, floor=0.005, ce=0.12, at=0.0095, span=END, alpha=None, **more):
    """A network looked at every 10 epochs: NC1 at `ce` in phase 1, then falling to pass 0.01 at `t_nc` with fn there."""
    time = np.arange(10.0, span + 1, 10)
    phase = np.where(time <= SWITCH, 1, 2)
    x = np.clip((time - SWITCH) / ((t_nc or span) - SWITCH), 0, None)
    nc1 = np.where(phase == 1, ce, np.maximum(ce * (at / ce) ** x, floor))
    if t_nc is None:
        nc1 = np.maximum(nc1, floor)
    last = fn if end is None else end
    after = np.where(x <= 1, fn * 3 ** (1 - x), fn + (last - fn) * np.clip(x - 1, 0, 1))
    values = {
        "fn": np.where(phase == 1, early, after), "nc1_trace_ratio": nc1, "nc2_equiangular_l1": nc1, "nc3_one_minus_cos": nc1,
        "train_accuracy": np.ones(len(time)), "mse": nc1, "learning_rate": np.full(len(time), 1e-3),
    }  # fmt: skip
    return Network("run", seed, time, phase, values | more, {1: "cross_entropy", 2: "mse"}, "folder")


def evidence(name, nets, preset="paper", experiment_preset=None):
    """Evidence of an experiment from networks per condition (in its order), or a function of the condition."""
    conditions = [c for c in find(name).conditions(experiment_preset or "paper") if isinstance(c.setting, TwoPhase)]
    group = conditions[0].group
    rows = []
    for i, c in enumerate(c for c in conditions if c.group == group):
        made = nets(c) if callable(nets) else nets[i] if i < len(nets) else ()
        rows.append(Row(c, tuple(made), () if made else (Gap(0, "missing"),)))
    return Evidence(name, preset, group, tuple(rows))


def verdict(name, claim, found):
    return {v.claim: v for v in find(name).judge(found)}[claim]


def three(*t_nc, fn=(1.09, 1.10, 1.11), **how):
    return tuple(net(t, f, seed=k, **how) for k, (t, f) in enumerate(zip(t_nc, fn, strict=True)))


# Declarations


def test_every_claim_of_the_paper_has_an_experiment_and_no_experiment_invents_one():
    claims = {c for name in MODULES for c in find(name).claims}
    assert claims == {c.id for c in (*published().claims, *published().later)}


@pytest.mark.parametrize("name", MODULES)
def test_conditions_are_one_lane_per_seed_and_differ(name):
    experiment = find(name)
    assert experiment.name == name and experiment.question.endswith("?")
    for preset in PRESETS:
        conditions = experiment.conditions(preset)
        labels = [(c.group, c.label) for c in conditions]
        assert len(set(labels)) == len(labels), preset
        for c in conditions:
            assert isinstance(c.setting, Study) or len(c.lanes) == len(c.setting.seeds)
            assert 0 < c.threshold < 1
    assert experiment.conditions("smoke"), "continuous integration runs every experiment"
    todo = plan((c.setting for c in experiment.conditions("smoke")), Catalogue())
    assert all(job.setting.epochs <= 20 for job in todo.jobs if isinstance(job.setting, TwoPhase))


def test_the_paper_preset_is_the_stated_protocol():
    stated = published().protocol
    for name in ("baseline", "depth", "activation", "weight_decay", "width", "intervention"):
        for c in find(name).conditions("paper"):
            s = c.setting
            if isinstance(s, TwoPhase) and s.architecture == "mlp":
                assert (s.dataset, s.subset, s.epochs_ce, s.optimiser, s.lr, s.schedule) == (
                    "mnist",
                    None,
                    200,
                    "adam",
                    1e-3,
                    "cosine",
                )
                assert len(s.seeds) == (stated["seeds_gelu"] if s.activation == "gelu" else stated["seeds"])
    tables = {2: ("depth", "depth"), 3: ("activation", "activation"), 4: ("weight_decay", "decay"), 7: ("width", "width"),
              8: ("intervention", "alpha")}  # fmt: skip
    for number, (name, parameter) in tables.items():
        asked = {
            c.parameters[parameter]
            for c in find(name).conditions("paper")
            if parameter in c.parameters and "linear" not in c.parameters
        }
        assert {row.condition[parameter] for row in published().table(number).rows if parameter in row.condition} <= asked


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(BadInput, match="did you mean weight_decay"):
        find("weight-decay")
    assert next(e.name for e in chosen(("width", "all"))) == "width" and len(chosen(("width", "all"))) == len(PAPER)


def test_a_condition_has_one_lane_per_seed():
    with pytest.raises(BadInput, match="one decay"):
        Condition(label="", setting=TwoPhase(), group="")


# Networks and times


def test_onset_is_the_first_look_below_and_a_time_that_never_came_is_censored():
    one = net(310)
    found = one.onset(0.01)
    assert (found.t_nc, found.phase, found.lr) == (310.0, 2, 1e-3) and found.fn == pytest.approx(1.1)
    assert not (never := net(None, floor=0.03).onset(0.01)).happened and never.horizon == END
    assert one.onset(0.2).phase == 1 and one.onset(0.2, phase=2).t_nc == 210
    row = Row(find("depth").conditions("paper")[2], (one, net(None, floor=0.03)))
    times = row.times()
    assert times.crossed == 1 and times.typical == 310 and times.censored.n == 2
    assert collapse_text(times) == "310, > 600 (1 of 2)"
    assert collapse_text(Row(row.condition, (net(None, floor=0.03),)).times()) == "> 600 (0 of 1)"


def test_cadence_looks_where_the_authors_look():
    time = np.arange(0.0, 31, 2)
    fine = Network("", 0, time, np.ones(16, int), {"fn": time, "nc1_trace_ratio": np.where(time >= 12, 0.001, 1.0)}, {1: "mse"})
    assert fine.onset().t_nc == 12 and fine.at_cadence(10).onset().t_nc == 20 and fine.at_cadence(10).onset().fn == 20


def test_fn_under_a_loss():
    early = net(None, ce=0.005)
    assert fn_under(early, "cross_entropy", 0.01) == 27.0 and fn_under(early, "mse", 0.01) == pytest.approx(early.fn[-1])
    late = net(300, 1.2, 1.4)
    assert fn_under(late, "cross_entropy", 0.01) == 27.0 and fn_under(late, "mse", 0.01) == pytest.approx(1.2)
    assert np.isnan(fn_under(replace(late, losses={1: "cross_entropy", 2: "cross_entropy"}), "mse", 0.01))


def test_our_networks_hold_what_their_record_holds(tmp_path):
    protocol = TwoPhase(subset=100, depth=2, width=12, batch_size=25, epochs_ce=2, epochs_mse=4, measure_every=1,
                        decays=(1e-3, 1e-2), seeds=(0, 1), settle=True, settle_epochs=4)  # fmt: skip
    record = train(protocol, checkpoint=tmp_path / "run")
    (held,) = Catalogue.scan([tmp_path]).finished
    lane = protocol.lanes[2]
    one = Network.of(held, lane)
    assert (one.lane, one.seed, one.time[-1], one.device) == (lane, 0, 6, "cpu")
    np.testing.assert_array_equal(one.fn, record.data["fn"].values[2][record.data["phase"].values <= 2])
    assert np.isfinite(one.fn_from_head) or np.isnan(one.fn_from_head)
    need = replace(protocol, decays=(1e-2,), seeds=(0, 7), settle=False)
    condition = Condition(label="x", setting=need, group="g")
    experiment = SimpleNamespace(name="x", conditions=lambda preset: (condition,))
    (found,) = gather(experiment, "smoke", Catalogue.scan([tmp_path]))
    assert [n.seed for n in found.rows[0].networks] == [0] and found.rows[0].gaps == (Gap(7, "missing"),) and not found.complete


# Verdicts


def test_grades():
    assert [graded(e) for e in (0.0, -0.08, 0.09, -0.16, 0.17)] == [R, R, P, P, C]
    assert worst([R, R]) is R and worst([R, C]) is P and worst([C, U]) is C and worst([]) is U
    assert (
        monotone([3, 2, 1]) == -1 and monotone([1, 2, np.inf, np.inf]) == 1 and monotone([1, 3, 2]) == 0 and monotone([2, 2]) == 0
    )


@pytest.mark.parametrize(("by_depth", "judgement"), [
    ({2: 300, 3: 250, 5: 290, 7: 340}, R),
    ({2: 400, 3: 300, 5: 260, 7: 230}, C),
    ({2: 250, 3: 260, 5: 270, 7: 280}, C),
])  # fmt: skip
def test_depth_order(by_depth, judgement):
    found = evidence("depth", lambda c: three(*(by_depth[c.parameters["depth"]] + k for k in (-10, 0, 10)), at=0.009))
    # The same curve passes both thresholds, so mixed and common ones order alike only if the networks do.
    same = replace(found, rows=tuple(replace(r, condition=replace(r.condition, threshold=0.01)) for r in found.rows))
    assert verdict("depth", "depth.non_monotonic", same).judgement is judgement


def test_depth_order_that_comes_from_two_thresholds_is_in_part():
    by_depth = {2: 400, 3: 380, 5: 350, 7: 340}
    found = evidence("depth", lambda c: three(*(by_depth[c.parameters["depth"]] + k for k in (-10, 0, 10))))
    text = verdict("depth", "depth.non_monotonic", found)
    assert text.judgement is P and "deeper is faster at every common threshold" in text.reason


def decays(t_nc, star, **last):
    def made(c):
        k = {1e-5: 0, 5e-5: 1, 1e-4: 2, 5e-4: 3}[c.parameters["decay"]]
        if k == 3 and last:
            return three(*([None] * 3), **last)
        return three(*(t_nc[k] + d for d in (-10, 0, 10)), fn=[star[k] * f for f in (0.99, 1.0, 1.01)])

    return made


def test_weight_decay_as_published_replicates_and_the_opposite_does_not():
    good = evidence("weight_decay", decays([380, 290, 300], [1.03, 1.03, 1.04], floor=0.03, fn=(1.4, 1.4, 1.4)))
    found = {v.claim: v.judgement for v in find("weight_decay").judge(good)}
    assert set(found.values()) == {R}, found
    bad = evidence("weight_decay", decays([250, 300, 350, 400], [1.6, 1.3, 1.1, 0.9]))
    found = {v.claim: v.judgement for v in find("weight_decay").judge(bad)}
    assert found["weight_decay.optimum"] is found["weight_decay.prevents"] is found["weight_decay.invariance"] is C
    assert found["concentration.cv"] is found["weight_decay.regimes"] is C


def test_a_missing_condition_is_not_judged_over():
    part = evidence("weight_decay", lambda c: () if c.parameters["decay"] == 5e-4 else three(280, 290, 300))
    found = find("weight_decay").judge(part)
    assert {v.judgement for v in found} == {U} and "3 of 4" in found[0].reason


def test_width():
    by = {128: 380, 256: 330, 512: 310, 1024: 260}
    fn = {w: 1.24 * (w / 128) ** -0.064 for w in by}
    good = evidence("width", lambda c: three(*(by[c.parameters["width"]] + d for d in (-10, 0, 10)),
                                             fn=[fn[c.parameters["width"]] * f for f in (0.995, 1.0, 1.005)]))  # fmt: skip
    found = {v.claim: v for v in find("width").judge(good)}
    assert found["width.speed"].judgement is found["width.exponent"].judgement is found["width.shift"].judgement is R
    assert "-0.064" in found["width.exponent"].found
    flat = evidence("width", lambda c: three(300, 310, 290, fn=(1.0, 1.3, 0.8)))
    found = {v.claim: v.judgement for v in find("width").judge(flat)}
    assert found["width.speed"] is C
    (counted,) = find("width").count()
    assert counted.judgement is C and parameters(512) == 784 * 512 + 512 + 4 * (512 * 512 + 512) + 5130


def test_baseline():
    good = evidence("baseline", [[net(310, 1.063, early=26.6, ce=0.4)]])
    found = {v.claim: v.judgement for v in find("baseline").judge(good)}
    assert {found[c] for c in ("baseline.t_nc", "baseline.compression", "baseline.plateau", "baseline.together")} == {R}
    bad = evidence("baseline", [[net(450, 1.063, early=5.0, ce=0.4)]])
    found = {v.claim: v.judgement for v in find("baseline").judge(bad)}
    assert found["baseline.t_nc"] is found["baseline.compression"] is C
    small = evidence("baseline", [[net(310, 1.063, early=26.6)]], preset="laptop", experiment_preset="laptop")
    assert verdict("baseline", "baseline.t_nc", small).judgement is U, "a value is of the full protocol"


def activations(t_nc, fn, at=None):
    at = at or {"tanh": 0.049, "gelu": 0.049, "relu": 0.0095}

    def made(c):
        a = c.parameters["activation"]
        if a not in t_nc:
            return ()
        times, norms = (t_nc[a] + d for d in (-10, 0, 10)), [fn[a] * f for f in (0.995, 1.0, 1.005)]
        return three(*times, fn=norms, at=at[a], floor=at[a] * 0.9)

    return made


def test_activation():
    good = evidence(
        "activation", activations({"tanh": 220, "gelu": 265, "relu": 300}, {"tanh": 1.33, "gelu": 2.13, "relu": 1.06})
    )
    found = {v.claim: v for v in find("activation").judge(good)}
    assert found["activation.value"].judgement is R and found["activation.speed"].judgement is P
    assert found["activation.sensitivity"].judgement is C, "GELU seeds that agree"
    bad = evidence("activation", activations({"tanh": 400, "gelu": 350, "relu": 250}, {"tanh": 0.8, "gelu": 0.7, "relu": 1.9}))
    found = {v.claim: v.judgement for v in find("activation").judge(bad)}
    assert found["activation.speed"] is C and found["activation.value"] is C


def test_a_collapse_under_cross_entropy_lends_the_activations_no_value():
    usual = activations({"tanh": 220, "gelu": 265, "relu": 300}, {"tanh": 1.33, "gelu": 2.13, "relu": 1.06})

    def early(c):
        return three(220, 230, 240, ce=0.04, at=0.04) if c.parameters["activation"] == "tanh" else usual(c)

    found = verdict("activation", "activation.value", evidence("activation", early))
    assert found.judgement is U and "3 of tanh collapse under cross-entropy" in found.found + found.reason


def arms(ends, stars, t_nc=(290, 290, 290), jitter=0.002):
    order = {1.0: 0, 0.3: 1, 3.0: 2}

    def made(c):
        k = order[c.parameters["alpha"]]
        return tuple(net(t_nc[k] + 10 * d, stars[k] * (1 + jitter * d), ends[k] * (1 + jitter * d), seed=d) for d in range(3))

    return made


def test_intervention_needs_sameness_to_be_shown():
    same = evidence("intervention", arms((1.1, 1.1, 1.1), (1.1, 1.1, 1.1)))
    found = {v.claim: v.judgement for v in find("intervention").judge(same)}
    assert found["intervention.attractor"] is found["intervention.timing"] is found["intervention.not_cause"] is R
    assert found["intervention.budget"] is R and found["intervention.rebound"] is C, (
        "0.3 x 27 is far above 1.1, and fn never rises"
    )
    back = evidence("intervention", arms((1.1, 1.1, 1.1), (1.0, 1.0, 1.0)))
    assert verdict("intervention", "intervention.rebound", back).judgement is P, "it starts above, undershoots, and comes back"
    apart = evidence("intervention", arms((1.1, 1.4, 0.8), (1.05, 1.5, 0.7), (290, 400, 230)))
    found = {v.claim: v.judgement for v in find("intervention").judge(apart)}
    assert found["intervention.attractor"] is found["intervention.timing"] is found["intervention.not_cause"] is C
    noisy = {1.0: (1.0, 1.1, 1.2), 0.3: (1.2, 1.0, 1.1), 3.0: (1.1, 1.2, 1.0)}
    unclear = evidence("intervention", lambda c: three(280, 290, 300, fn=noisy[c.parameters["alpha"]]))
    assert verdict("intervention", "intervention.attractor", unclear).judgement is P, "p is large, but sameness is not shown"


def test_cross_entropy_alone():
    alone = net(None, ce=0.09)
    never = replace(alone, losses={1: "cross_entropy", 2: "cross_entropy"})
    never.values["nc1_trace_ratio"][:] = 0.08
    both = three(290, 300, 310)
    found = {v.claim: v.judgement for v in find("ce_only").judge(evidence("ce_only", [[never], both]))}
    assert found["ce_only.necessary"] is found["ce_only.accuracy"] is found["ce_only.nc1"] is R and found["ce_only.norm"] is P
    fell = replace(never, values={**never.values, "nc1_trace_ratio": np.full(60, 0.005)})
    found = {v.claim: v.judgement for v in find("ce_only").judge(evidence("ce_only", [[fell], both]))}
    assert found["ce_only.necessary"] is found["ce_only.nc1"] is C


def grid(star, phase_one=()):
    def made(c):
        about = c.parameters
        pair = (about["architecture"], about["dataset"])
        if "optimiser" in about or pair not in star:
            return ()
        if pair in phase_one:
            return tuple(net(None, early=star[pair] * f, ce=0.005, fn=1.7, seed=k) for k, f in enumerate((0.995, 1.0, 1.005)))
        norms = [star[pair] * f for f in (0.995, 1.0, 1.005)]
        return three(300, 310, 320, fn=norms, at=0.95 * c.threshold, floor=0.5 * c.threshold, early=star[pair] * 4)

    return made


STAR = {("mlp", "mnist"): 1.052, ("mlp", "cifar10"): 0.901, ("resnet20", "mnist"): 5.867, ("resnet20", "cifar10"): 1.515}


def test_a_grid_at_one_loss_replicates_and_one_of_two_losses_only_in_part():
    one = {v.claim: v for v in find("grid").judge(evidence("grid", grid(STAR)))}
    assert one["grid.architecture_mnist"].judgement is one["grid.multiplicative"].judgement is R
    assert "+458%" in one["grid.architecture_mnist"].found and "+232%" in one["grid.multiplicative"].found
    two = {v.claim: v for v in find("grid").judge(evidence("grid", grid(STAR, phase_one=[("resnet20", "mnist")])))}
    assert two["grid.architecture_mnist"].judgement is two["grid.multiplicative"].judgement is P
    assert (
        "different losses" in two["grid.architecture_mnist"].reason and "squared error +" in two["grid.architecture_mnist"].found
    )
    assert two["ce_only.necessary"].judgement is C and one["ce_only.necessary"].judgement is R
    other = {**STAR, ("resnet20", "mnist"): 2.0}
    assert {v.claim: v.judgement for v in find("grid").judge(evidence("grid", grid(other)))}["grid.resnet_mnist"] is C


def test_thresholds():
    good = evidence("threshold_robustness", lambda c: three(290, 300, 310))
    found = {v.claim: v for v in find("threshold_robustness").judge(good)}
    assert found["threshold.insensitive"].judgement in (R, P) and found["concentration.combined"].judgement is R
    jump = evidence("threshold_robustness", lambda c: tuple(
        replace(n, values={**n.values, "fn": np.where(n.nc1 < 0.01, 1.1, 9.0)}) for n in three(290, 300, 310)))  # fmt: skip
    found = {v.claim: v.judgement for v in find("threshold_robustness").judge(jump)}
    assert found["threshold.ratio"] is found["threshold.insensitive"] is C


def test_lead_counts_runs_that_cross_late_or_never():
    def early(c):
        return tuple(crossing(t, t - 50, k) for k, t in enumerate((300, 320, 340)))

    def crossing(t_nc, cross, seed):
        made = net(t_nc, 1.0, seed=seed)
        fn = np.where(made.time < cross, 2.0, np.where(made.time < t_nc, 0.99, 1.0))
        return replace(made, values={**made.values, "fn": fn})

    found = leads(evidence("width", early))
    assert found is not None
    for each in found:
        assert each.first == 12 and np.allclose(each.lead, 50) and np.abs(each.error).max() < 1e-9
    assert verdict("lead_time", "lead.order", replace(evidence("lead_time", early))).judgement is R

    def late(c):  # fn is above what the others show at T_NC until long after
        return tuple(crossing(t, t - 50 if k else 900, k) for k, t in enumerate((300, 320, 340)))

    found = leads(evidence("width", late))
    assert found is not None and found[1].first == 8
    never = ~np.isfinite(found[1].cross)
    assert never.sum() == 4 and np.allclose(found[1].error[never], END - 300), "a run that never crosses has an error too"
    assert verdict("lead_time", "lead.order", evidence("lead_time", late)).judgement is P


def grokking(norm, general, decays=(0.3, 1.0, 3.0), rho=-1):
    time = np.arange(0.0, 1001, 10)
    lanes = [(d, s) for d in decays for s in (0, 1)]
    test = np.stack([np.where(time >= general[i // 2], 1.0, np.linspace(0, 0.5, 101)) for i in range(6)])
    weight = np.stack([norm[i // 2] * (1 + rho * -0.3 * (1 - np.clip(time / general[i // 2], 0, 1))) for i in range(6)])
    data = xr.Dataset({"train_accuracy": (("lane", "time"), np.where(time >= 50, 1.0, 0.2) + 0 * test),
                       "test_accuracy": (("lane", "time"), test), "weight_norm": (("lane", "time"), weight)},
                      {"time": time, "decay": ("lane", [d for d, _ in lanes]), "seed": ("lane", [s for _, s in lanes])},
                      {"provenance": "{}"})  # fmt: skip
    condition = find("grokking_parallel").conditions("smoke")[0]
    return Evidence("grokking_parallel", "laptop", "g", (), (Row(condition, record=Trajectory(data), run="r"),))


def test_grokking():
    good = grokking((30.0, 30.3, 30.1), (600, 300, 2000))
    t = transitions(good.studies[0].record)
    assert t["general"][:4].tolist() == [600, 600, 300, 300] and np.isnan(t["general"][4:]).all() and t["known"][0] == 50
    five = verdict("grokking_parallel", "grokking.five", good)
    assert five.judgement is P and five.reason.count("yes") == 3 and "not asked" in five.reason
    assert verdict("grokking_parallel", "grokking.progress", good).judgement is R
    bad = grokking((30.0, 60.0, 10.0), (300, 300, 300))
    assert verdict("grokking_parallel", "grokking.five", bad).judgement is C


def test_modular_addition_repeats_and_memorises():
    study = ModularAddition(modulus=5, width=16, decays=(0.1,), seeds=(0, 1), steps=200, look=50)
    a, b = (study.run(root=None, progress=lambda x: None).data for _ in range(2))
    np.testing.assert_array_equal(a["weight_norm"], b["weight_norm"])
    assert a.sizes == {"lane": 2, "time": 5} and float(a["train_accuracy"][:, -1].min()) == 1.0


def test_linear_flow_comes_to_rest_where_the_closed_form_says():
    study = LinearFlow(dataset="digits", subset=100, scaling="standardised", data_seed=0, depth=1, decay=1e-1)
    record = study.run(root=None, progress=lambda x: None).data
    model = linear_model(TwoPhase(subset=100, depth=1, decays=(1e-1,), seeds=(0,)))
    assert float(record["theory_fn"][0]) == pytest.approx(float(fixed_point(model).feature_norm), rel=1e-12)
    assert float(record["flow_fn"][0]) == pytest.approx(float(record["theory_fn"][0]), rel=1e-4)


def test_batchnorm_bound_is_that_of_the_theory():
    assert batchnorm_bound("mse", 1e-3) == pytest.approx(2.44, abs=0.005)
    assert batchnorm_bound("cross_entropy", 1e-3) == pytest.approx(7.22, abs=0.005)


@pytest.mark.parametrize("name", MODULES)
def test_figures_draw_with_all_some_or_no_runs(name):
    experiment = find(name)
    for preset in ("smoke", "paper"):
        for found in gather(experiment, preset, Catalogue()):
            assert len(experiment.figure(found, None).axes) >= 3
            full = replace(found, rows=tuple(replace(r, networks=three(300, 310, None)) for r in found.rows))
            experiment.figure(full, full)
            assert experiment.judge(found) and {v.judgement for v in experiment.judge(found)} == {U}


# The authors' logs


HEAD = "epoch,phase,train,test,nc1,nc2,nc3,feat_norm\n"


def test_logs_are_judged_by_the_same_rules(tmp_path):
    for depth, t in ((2, 400), (3, 380), (7, 240)):
        for seed in range(3):
            one = net(t, 1.2, seed=seed)
            rows = [
                f"{int(e)},{p},1.0,0.98,{v:.6g},0.1,0.1,{f:.6g}"
                for e, p, v, f in zip(one.time, one.phase, one.nc1, one.fn, strict=True)
            ]
            (tmp_path / f"depth{depth}_s{seed}.csv").write_text(HEAD + "\n".join(rows) + "\n")
    logs = read_logs(tmp_path)
    (found,) = gather_logs(find("depth"), logs)
    assert found.preset == LOGS and found.full and [len(r.networks) for r in found.rows] == [3, 3, 0, 3]
    assert found.rows[2].gaps[0].why.startswith("no log")
    assert found.row(depth=7).times().t_nc.tolist() == [240.0] * 3
    log = logs.run("depth7_s0")
    assert network(log).onset().lr == pytest.approx(log.learning_rate[log.index(0.01)])
    assert {v.judgement for v in find("depth").judge(found)} == {U}, "depth 5 is missing"
    assert gather_logs(find("depth"), None) == []
