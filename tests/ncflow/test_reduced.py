"""The exact reductions against the full flow, in the vector field and over whole runs, and when they are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from ncflow import UFM, BadInput, Crossing, Decay, DeepLinear, Rescale, Trajectory, simulate
from ncflow.flows import FullFlow, Horizon, plan
from ncflow.initial import draw, given

TIMES = (0.5, 5.0, 30.0)
TIGHT = dict(rtol=1e-11, atol=1e-14, events=())
CPU = torch.device("cpu")


def model(**fields) -> UFM:
    fields = dict(classes=3, samples_per_class=[3, 5, 8], width=6, decay=Decay(5e-3, 1e-2)) | fields
    return UFM(**fields)


MODELS = {
    "unbalanced": model(),
    "free bias, mobility": model(bias="free", mobility=3.0),
    "decayed bias": model(
        samples_per_class=6, bias="decayed", decay=Decay(2e-3, 5e-3, 1e-2), loss_scale=1 / 3
    ),
    "two layers": model(
        layers=2, width=(6, 5), bias="decayed", decay=Decay((5e-3, 2e-3), 1e-2, 1e-2), mobility=0.5
    ),
    "three layers": model(layers=3, width=(7, 5, 4), bias="free", decay=Decay((5e-3, 2e-3, 1e-3), 1e-2)),
    "wide": model(samples_per_class=[3, 2, 2], width=20),
    "wide, three layers": model(samples_per_class=[3, 2, 2], width=(20, 20, 12), layers=3, bias="free"),
}


def isotropic(ufm: UFM, seed: int = 0, size: float = 1.3) -> dict:
    """An initial state with E E^T = size^2 I and semi-orthogonal hidden layers."""
    rng = np.random.default_rng(seed)
    p, K = ufm.widths[0], ufm.classes
    Y = np.eye(K)[:, ufm.labels] / np.sqrt(ufm.class_counts)[:, None]
    E = rng.normal(size=(p, ufm.samples))
    U, _, V = np.linalg.svd(E - E @ Y.T @ Y, full_matrices=False)
    M, E = rng.normal(size=(p, K)) / p**0.5, size * U @ V
    hidden = [ortho_group.rvs(max(s), random_state=rng)[: s[0], : s[1]] for s in ufm.weight_shapes[:-1]]
    W = [*hidden, 0.4 * rng.normal(size=ufm.weight_shapes[-1])]
    return {"H": M[:, ufm.labels] + E, "W": W, "M": M, "E": E}


def samples(start: dict) -> dict:
    return {"H": start["H"], "W": start["W"]}


def flows(name: str, ufm: UFM, initial: dict | None = None):
    """The flow, its initial state and that of the full flow."""
    if initial is None:
        blocks = {k: v[None] for k, v in draw(ufm, 0).items()}
    else:
        blocks, _ = given(ufm, initial)
    zero = torch.zeros(1, dtype=torch.int64)
    ((flow, _),) = plan(name, ufm, zero, blocks, zero, Horizon())
    return flow, flow.begin(blocks, zero), blocks


def assert_same(a: Trajectory, b: Trajectory, rtol: float = 1e-9, skip: tuple[str, ...] = ()) -> None:
    """Records and last states agree, up to what is below the resolution of a sum over samples."""
    assert set(a.data) == set(b.data)
    for name in set(a.data) - {"status", "steps", "rejected", "stabilised_steps", "evaluations", *skip}:
        np.testing.assert_allclose(b.data[name], a.data[name], rtol=rtol, atol=1e-13, err_msg=name)
    assert set(a.final) == set(b.final)
    for name in a.final:
        np.testing.assert_allclose(b.final[name], a.final[name], rtol=rtol, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_velocities_are_those_of_the_full_flow(name):
    """`state` is linear in the state: it takes the reduced velocity to the full one, at any reduced state."""
    ufm = MODELS[name]
    full = FullFlow(ufm, torch.zeros(1, dtype=torch.int64), CPU)
    kinds = ["reduced", "subspace"] if "wide" in name else ["reduced"]
    for kind in kinds:
        flow, y, blocks = flows(kind, ufm)
        for key, value in flow.state(y).items():
            torch.testing.assert_close(value, blocks[key], rtol=0, atol=1e-13)
        noise = torch.randn(3, y.shape[1], dtype=y.dtype, generator=torch.manual_seed(1))
        y = torch.cat([y, y * (1 + 0.5 * noise)])
        index = torch.zeros(4, dtype=torch.int64)
        flow, every = flow.select(index), full.select(index)
        expected = every.state(every.field(every.layout.pack(flow.state(y))))
        for key, value in flow.state(flow.field(y)).items():
            torch.testing.assert_close(
                value, expected[key], rtol=1e-12, atol=1e-13, msg=lambda m, k=key: f"{k}: {m}"
            )
        torch.testing.assert_close(
            flow.observe(y).energy, every.observe(every.layout.pack(flow.state(y))).energy
        )


@pytest.mark.parametrize("name", MODELS)
def test_runs_are_those_of_the_full_flow(name):
    """Every sample's features, the weights, and every metric (fn as the mean of norms) to long times."""
    ufm = MODELS[name]
    shared = dict(seeds=[0, 1], save_at=(*TIMES, 400.0) if name == "free bias, mobility" else TIMES, **TIGHT)
    full, reduced = simulate(ufm, flow="full", **shared), simulate(ufm, **shared)
    assert reduced.data.attrs["flow"] == ("subspace" if "wide" in name else "reduced")
    assert_same(full, reduced)


def test_choice_prefers_what_is_smaller():
    assert flows("auto", model())[0].name == "reduced"
    assert flows("auto", MODELS["wide"])[0].name == "subspace"  # N + K < p
    assert (
        flows("auto", model(samples_per_class=3, width=7))[0].name == "full"
    )  # N is about p: nothing to gain
    run = simulate(model(), until=1.0)
    assert run.data.attrs["flow_dimension"] == 6 and run.data.attrs["flow_size"] == 6 * (3 + 6) + 3 * 6
    assert "subspace: " in run.data.attrs["flow_refused"] and "spectral: " in run.data.attrs["flow_refused"]


@pytest.mark.parametrize("layers, bias", [(1, "none"), (1, "free"), (3, "decayed")])
def test_isotropic_scatter_needs_2k_dimensions(layers, bias):
    ufm = model(samples_per_class=[9, 10, 12], width=14, layers=layers, bias=bias, mobility=2.0)
    start = samples(isotropic(ufm))
    reduced, small = (
        simulate(ufm, initial=start, save_at=TIMES, flow=flow, **TIGHT) for flow in ("reduced", "auto")
    )
    assert small.data.attrs["flow"] == "subspace" and small.data.attrs["flow_dimension"] == 2 * ufm.classes
    assert_same(reduced, small, rtol=1e-10)
    if layers > 1:
        assert_same(simulate(ufm, initial=start, save_at=TIMES, flow="full", **TIGHT), small)


def test_nearly_isotropic_scatter_is_not_taken_for_isotropic():
    ufm = model(samples_per_class=20, width=14)
    start = isotropic(ufm)
    E = np.linspace(1, 1 + 1e-9, 14)[:, None] * start["E"]
    flow, *_ = flows("auto", ufm, {"H": start["M"][:, ufm.labels] + E, "W": start["W"]})
    assert flow.name == "reduced"


def test_features_without_scatter():
    ufm = model(width=10)
    M, W = np.random.default_rng(0).normal(size=(2, 10, 3))
    run = simulate(ufm, initial={"H": M[:, ufm.labels], "W": [W.T]}, save_at=[1.0, 30.0], events=())
    assert run.data.attrs["flow"] == "subspace" and run.data.attrs["flow_size"] == 6 * 3 + 3 * 6 + 1
    assert (run.data["nc1_trace_ratio"] < 1e-28).all()


# Moments


@pytest.mark.parametrize("layers, bias, mobility", [(1, "none", 2.0), (2, "free", 1.0), (3, "decayed", 0.5)])
def test_moments_and_equal_decays(layers, bias, mobility):
    """The same means, weights and rms from samples, from moments, and with the conservation law."""
    decay = Decay([[5e-3, 8e-3, 2e-3][:layers]], 5e-3 / mobility, 1e-2 if bias == "decayed" else 0.0)
    ufm = model(
        samples_per_class=[9, 10, 12], width=14, layers=layers, bias=bias, decay=decay, mobility=mobility
    )
    start = isotropic(ufm)
    M, E, W = start["M"], start["E"] * np.linspace(0.5, 1.5, 14)[:, None], start["W"]
    shared = dict(save_at=TIMES, **TIGHT)
    exact = simulate(ufm, initial={"H": M[:, ufm.labels] + E, "W": W}, **shared)
    root = simulate(ufm, initial={"M": M, "scatter_root": E, "W": W}, flow="reduced", **shared)
    equal = simulate(ufm, initial={"M": M, "scatter": E @ E.T, "W": W}, flow="equal_decays", **shared)
    assert_same(root, equal)
    H = exact.final["H"][0]
    means = np.stack([H[:, ufm.labels == k].mean(1) for k in range(3)], 1)
    np.testing.assert_allclose(root.final["M"][0], means, atol=1e-11)
    within = H - means[:, ufm.labels]
    np.testing.assert_allclose(root.final["scatter"][0], within @ within.T, atol=1e-11)
    if layers == 1:
        np.testing.assert_allclose(root.data["fn"][0, -1], np.sqrt((H**2).sum(0).mean()), rtol=1e-11)
    for name in ("nc1_trace_ratio", "energy", "weight_norm", "nc2_equiangular_l1"):
        np.testing.assert_allclose(root.data[name], exact.data[name], rtol=1e-9, err_msg=name)
    assert "root mean square" in root.data.attrs["feature_norm"] and "feature_norm" not in exact.data.attrs
    assert "nc1_pinv" not in root.data and "nc4_mismatch" not in root.data


def test_isotropic_moments_as_a_number():
    ufm = model(samples_per_class=[9, 10, 12], width=14)
    start = isotropic(ufm, size=1.3)
    one = {"M": start["M"], "scatter": 1.69, "W": start["W"]}
    several = simulate(ufm, initial=one | {"scatter": [1.69, 0.5]}, save_at=TIMES, **TIGHT)
    whole = simulate(ufm, initial=one, save_at=TIMES, flow="reduced", **TIGHT)
    assert several.data.attrs["flow"] == "subspace" and several.data.attrs["flow_dimension"] == 6
    for name in ("nc1_trace_ratio", "fn", "energy", "cdnv"):
        np.testing.assert_allclose(several.data[name][0], whole.data[name][0], rtol=1e-10, err_msg=name)
    np.testing.assert_allclose(several.final["scatter"][0], whole.final["scatter"][0], atol=1e-12)


def test_equal_decays_conserve_under_the_full_flow():
    """W_1^T W_1 - H H^T/theta of a full run decays as e^(-2 lambda t), whatever the other layer, n_k and bias do."""
    ufm = model(layers=2, bias="free", mobility=4.0, decay=Decay((8e-3, 3e-3), 2e-3))
    start = draw(ufm, 3)
    run = simulate(ufm, seeds=[3], save_at=[60.0], flow="full", **TIGHT)

    def gap(W, H):
        return W.T @ W - H @ H.T / 4

    before = gap(start["W_1"].numpy(), start["H"].numpy())
    after = gap(run.final["W_1"][0], run.final["H"][0])
    np.testing.assert_allclose(after, np.exp(-2 * 8e-3 * 60) * before, atol=1e-10)


def test_equal_decays_are_chosen_only_where_accurate():
    ufm = model(width=14, decay=1e-2)
    rng = np.random.default_rng(0)
    start = {
        "M": rng.normal(size=(14, 3)),
        "scatter": np.diag(rng.random(14)),
        "W": [rng.normal(size=(3, 14))],
    }
    short, long = simulate(ufm, initial=start, until=100.0), simulate(ufm, initial=start, until=200.0)
    assert short.data.attrs["flow"] == "equal_decays" and "absolute" in short.data.attrs["nc1_accuracy"]
    assert long.data.attrs["flow"] == "reduced" and "difference of squares" in long.data.attrs["flow_refused"]


def test_cost_is_flat_in_the_number_of_samples():
    start = {"M": np.eye(16, 10), "scatter": 2.0, "W": [np.eye(10, 16)[::-1].copy()]}
    sizes = []
    for n in (60, 6_000_000):
        ufm = UFM(classes=10, samples_per_class=n, width=16, decay=1e-3)
        run = simulate(ufm, initial=start, until=1.0)
        sizes.append((run.data.attrs["flow_size"], {name: a.shape for name, a in run.final.items()}))
        assert "labels" not in vars(ufm)  # never written out
    assert sizes[0] == sizes[1]


# Lanes, events, interventions


def test_lanes_choose_for_themselves():
    """Lanes for which different reductions hold: each is what it is alone, in its place in the record."""
    ufm = model(samples_per_class=12, width=9)
    some, other = isotropic(ufm, 0), isotropic(ufm, 1)
    skewed = some["M"][:, ufm.labels] + np.linspace(0.5, 1.5, 9)[:, None] * some["E"]
    H = np.stack([skewed, some["H"], other["H"], skewed + 0.1])
    W = np.stack([some["W"][0], some["W"][0], other["W"][0], other["W"][0]])
    shared = dict(save_at=TIMES, events=[Crossing(level=0.3)])
    run = simulate(ufm, initial={"H": H, "W": [W]}, **shared)
    assert run.data["flow"].values.tolist() == ["reduced", "subspace", "subspace", "reduced"]
    for i in range(4):
        alone = simulate(ufm, initial={"H": H[i], "W": [W[i]]}, **shared)
        for name in ("fn", "nc1_trace_ratio", "event_time", "energy"):
            np.testing.assert_allclose(run.data[name][i], alone.data[name][0], rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(run.final["H"][i], alone.final["H"][0], atol=1e-12)


def test_lanes_of_different_flows_are_one_record(tmp_path):
    ufm = model(samples_per_class=12, width=9, decay=Decay([1e-3, 1e-2], [1e-3, 5e-3]))
    some = isotropic(ufm)
    start = {"M": some["M"], "scatter": np.diag(np.linspace(1, 2, 9)), "W": some["W"]}
    run = simulate(ufm, initial=start, until=50.0)
    assert run.data["flow"].values.tolist() == ["equal_decays", "reduced"]
    assert run.data["decay"].values.tolist() == [1e-3, 1e-2]
    again = Trajectory.load(run.save(tmp_path / "run.nc"))
    np.testing.assert_array_equal(again.data["fn"], run.data["fn"])
    assert (
        list(run.final) == ["M", "scatter", "W_1"]
        and run.final["M"].shape == (2, 9, 3)
        and "H" not in run.final
    )
    with pytest.raises(KeyError):
        run.final["H"]


def test_sweeps_share_what_their_starts_have_in_common():
    ufm = model(samples_per_class=30, decay=Decay([1e-3, 2e-3, 3e-3], 1e-3))
    run = simulate(ufm, seeds=[5], save_at=[20.0], **TIGHT)
    for i, decay in enumerate((1e-3, 2e-3, 3e-3)):
        alone = simulate(
            model(samples_per_class=30, decay=Decay(decay, 1e-3)), seeds=[5], save_at=[20.0], **TIGHT
        )
        np.testing.assert_allclose(run.final["H"][i], alone.final["H"][0], atol=1e-12)
    zero = torch.zeros(3, dtype=torch.int64)
    blocks = {k: v[None] for k, v in draw(ufm, 5).items()}
    ((flow, _),) = plan("reduced", ufm, torch.arange(3), blocks, zero, Horizon())
    assert len(flow.states.V) == 1


@pytest.mark.parametrize("event", ["fn", "cdnv", "nc1_trace_ratio"])
def test_events_see_the_samples(event):
    ufm = model(samples_per_class=[12, 9, 15])
    first, last = simulate(ufm, save_at=[0.0, 60.0], events=()).data[event].values[0]
    shared = TIGHT | dict(until=60.0, events=[Crossing(event, float(first * last) ** 0.5, falling=bool(last < first))])
    full, reduced = (simulate(ufm, flow=flow, **shared) for flow in ("full", "reduced"))
    assert np.isfinite(full.data["event_time"]).all()
    for name in ("event_time", "event_fn"):
        np.testing.assert_allclose(reduced.data[name], full.data[name], rtol=1e-9)


@pytest.mark.parametrize("layer", ["features", 0, -1])
def test_interventions(layer):
    ufm = model(samples_per_class=12, width=9, layers=2, bias="free", decay=Decay(5e-3, 5e-3))
    change = [Rescale(layer, 0.5), Rescale(layer, 3.0, at=10.0)]
    shared = dict(initial=samples(isotropic(ufm)), save_at=TIMES, interventions=change, **TIGHT)
    full, reduced, subspace = (simulate(ufm, flow=flow, **shared) for flow in ("full", "reduced", "subspace"))
    assert_same(full, reduced)
    assert_same(full, subspace)


# Refusals


@pytest.mark.parametrize(
    "flow, fields, words",
    [
        ("subspace", {}, "the scatter of the initial features is not isotropic"),
        ("equal_decays", {}, "given as samples"),
        ("spectral", {}, "not aligned"),
        ("spectral", {"bias": "free"}, "different sizes"),
        ("reduced", {"loss": "cross_entropy"}, "the loss is cross_entropy"),
        ("subspace", {"nonnegative": True}, "non-negative"),
        ("nonsense", {}, "one of auto, full, gram, reduced, subspace, equal_decays, spectral"),
    ],
)
def test_refusals_say_why(flow, fields, words):
    with pytest.raises(BadInput, match=r"^flow = ") as error:
        simulate(model(**fields), until=1.0, flow=flow)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_refusals_of_moments():
    start = {"M": np.eye(6, 3), "scatter": 1.0, "W": [np.eye(3, 6)]}
    for flow, ufm, words in (
        ("full", model(), "samples"), ("equal_decays", model(), "mobility * decay.features"),
        ("auto", model(loss="cross_entropy"), "the loss is cross_entropy"),
    ):  # fmt: skip
        with pytest.raises(BadInput) as error:
            simulate(ufm, initial=start, until=1.0, flow=flow)
        assert words in str(error.value)
    with pytest.raises(BadInput, match="breaks the conservation law"):
        simulate(
            model(decay=1e-3), initial=start, until=1.0, flow="equal_decays", interventions=[Rescale(0, 2.0)]
        )
    with pytest.raises(BadInput, match="features are not free"):
        simulate(
            DeepLinear(classes=3, samples_per_class=2, inputs=np.eye(6), decay=1e-3),
            until=1.0,
            flow="reduced",
        )


@pytest.mark.parametrize(
    "entry, words",
    [
        ({"scatter": -1.0}, "not negative"),
        ({"scatter": np.ones((5, 5))}, "shape"),
        ({"scatter": np.triu(np.ones((6, 6)))}, "symmetric"),
        ({"scatter": -np.eye(6)}, "positive semidefinite"),
        ({"scatter": np.full((6, 6), np.nan)}, "finite"),
        ({"scatter_root": np.ones((5, 2)), "scatter": None}, "shape"),
        ({"M": np.eye(3)}, "shape"),
        ({"M": np.zeros((2, 6, 3)), "scatter": [1.0, 2.0, 3.0]}, "lanes"),
        ({"scatter": None}, "entries"),
    ],
)
def test_moments_are_checked(entry, words):
    start = {"M": np.eye(6, 3), "scatter": 1.0, "W": [np.eye(3, 6)]} | entry
    with pytest.raises(BadInput) as error:
        simulate(model(), initial={k: v for k, v in start.items() if v is not None}, until=1.0)
    assert words in str(error.value) and str(error.value).startswith("initial")


def test_moments_cost_the_same_whatever_the_number_of_samples():
    """With n lambda_H and theta / n fixed, n only scales the pseudo-samples: the same steps."""
    runs = []
    for n in (60, 6_000_000):
        model = UFM(classes=4, samples_per_class=n, width=12, decay=Decay(weights=5e-3, features=5e-3 / n), mobility=float(n))
        g = np.random.default_rng(0)
        state = {"M": 0.1 * g.normal(size=(12, 4)), "scatter": 0.01 * 4 * n, "W": [0.3 * g.normal(size=(4, 12))]}
        runs.append(simulate(model, initial=state, until=1000.0))
    few, many = (run.data for run in runs)
    np.testing.assert_allclose(many["fn"], few["fn"], rtol=1e-6)
    assert many["evaluations"].item() == pytest.approx(few["evaluations"].item(), rel=0.2)


@pytest.mark.parametrize("bias", ["none", "free"])
def test_a_large_state_moves_in_place_as_it_does_beside_another(bias):
    model = UFM(classes=4, samples_per_class=20, width=64, layers=9, bias=bias)
    blocks, lanes = {name: x[None] for name, x in draw(model, 0).items()}, torch.zeros(2, dtype=torch.int64)
    (flow, _), = plan("reduced", model, lanes, blocks, lanes, Horizon())
    y = flow.begin(blocks, lanes)
    assert flow.layout.size > 2**15
    alone = flow.select(lanes[:1]).field(y[:1])
    torch.testing.assert_close(alone, flow.field(y)[:1], rtol=1e-12, atol=1e-15)
