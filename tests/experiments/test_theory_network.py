"""`ncflow theory network`: the numbers are those of `theory`, bad input is one line, and every entry says what it rests on."""

from __future__ import annotations

import json

import numpy as np
import pytest

import theory
from experiments.commands import theory_network as command
from experiments.options import parse
from experiments.theory_network import Network, implied
from ncflow.errors import BadInput
from theory import batchnorm, closure, strength


def said(capsys, *args):
    assert command.run(parse(command.Options, "ncflow theory network", [*args, "--json"])) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return json.loads(printed.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_head(capsys, tmp_path):
    found = said(capsys, "--weight-norm", "3.07", "--cosine", "0.3", "--bias", "free", "--decay", "3e-4")["head"]
    fn = float(theory.feature_norm_estimate(3.07, 10, 3e-4, 0.1, "free", cosine=0.3))
    assert found["feature_norm"] == pytest.approx(fn, rel=1e-9) and found["status"] == "exact"
    x = fn * 3.07 / np.sqrt(9 / 0.7)
    assert found["signal"] == pytest.approx(x, rel=1e-9)
    G = 0.7 * np.eye(10) + 0.3
    for path in (tmp_path / "gram.npy", tmp_path / "gram.csv"):
        np.save(path, 5 * G) if path.suffix == ".npy" else np.savetxt(path, 5 * G, delimiter=",")
        again = said(capsys, "--weight-norm", "3.07", "--gram", str(path), "--bias", "free", "--decay", "3e-4")["head"]
        assert again["feature_norm"] == pytest.approx(fn, rel=1e-9)
    plain = implied(Network(weight_norm=3.0))["head"]
    assert "orthogonal frame" in plain["assumptions"][-1]
    assert plain["feature_norm"] == pytest.approx(float(theory.feature_norm_estimate(3.0, 10, 1e-4, 0.1)), rel=1e-9)


def test_kernel_at_the_end_and_from_phase_1(capsys):
    here = said(capsys, "--theta", "1000", "--hidden", "5", "--samples-per-class", "180", "--decay", "1e-4")["kernel"]
    one = closure.tangent_kernel(1000, 5, 1e-4, strength.Square(10, 0.1), 180)
    assert here["feature_norm"] == one.feature_norm and here["law"] == "tangent_kernel"
    args = ["--theta", "9e3", "--hidden", "5", "--samples-per-class", "180", "--phase1-feature-norm", "4.1"]
    ahead = said(capsys, *args)["kernel"]
    two = closure.forecast(9e3, 4.1, 5, 1e-4, strength.Square(10, 0.1), 180)
    assert ahead["feature_norm"] == two.feature_norm and ahead["status"] == "empirical" and "theta_{1}" in ahead["latex"]
    soft = said(capsys, "--theta", "1e4", "--hidden", "5", "--loss", "cross_entropy", "--bias", "free")["kernel"]
    assert soft["feature_norm"] == closure.tangent_kernel(1e4, 5, 1e-4, strength.Softmax(10), 100, "free").feature_norm


def test_streams_adam_and_activation(capsys):
    found = said(capsys, "--streams", "1.33", "--cosine", "0.2", "--bias", "free", "--decay", "1e-3", "--lr", "1e-3", "--noise",
                 "1e-3", "2e-3", "3e-3", "--activation", "gelu", "--knob", "2", "--scale", "0.5", "1")
    fn, x = batchnorm.feature_norm(strength.Square(10, 0.1), 1.33, 1e-3, cosine=0.2)
    assert found["streams"]["feature_norm"] == float(fn) and found["streams"]["signal"] == float(x)
    np.testing.assert_allclose(found["adam"]["balance_rates"], theory.balance_rates(1e-3, 1e-3, [1e-3, 2e-3, 3e-3]).rate)
    np.testing.assert_allclose(found["adam"]["decay_rate"], theory.effective_rate(1e-3, 1e-3, [1e-3, 2e-3, 3e-3]).rate)
    np.testing.assert_allclose(found["activation"]["degree"], theory.local_degree("gelu", [0.5, 1.0], 2.0))
    assert found["activation"]["limits"] == ["relu(x)", "x/2"]
    for part in ("streams", "adam", "activation"):
        assert found[part]["status"] and found[part]["assumptions"] and found[part]["source"] and found[part]["latex"]
    single = implied(Network(lr=1e-3, noise=(1e-3,)))["adam"]
    assert single["balance_rates"] == pytest.approx([2e-4], rel=1e-4)


def test_terminal(capsys):
    args = ["--weight-norm", "3", "--lr", "1e-3", "--noise", "1e-3", "--activation", "relu", "--streams", "2", "--bias", "free",
            "--theta", "1e3", "--hidden", "5"]
    assert command.run(parse(command.Options, "ncflow theory network", args)) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and "nan" not in printed.out and max(map(len, printed.out.splitlines())) <= 80
    for title in ("From the head", "From the tangent kernel", "Adam", "homogeneity"):
        assert title in printed.out


@pytest.mark.parametrize(("fields", "argument"), [
    ({}, "weight_norm"), ({"weight_norm": 0.0}, "weight_norm"), ({"weight_norm": 1e3}, "weight_norm"),
    ({"weight_norm": 3.0, "loss": "cross_entropy"}, "loss"), ({"weight_norm": 3.0, "loss": "hinge"}, "loss"),
    ({"weight_norm": 3.0, "cosine": 1.0}, "cosine"), ({"weight_norm": 3.0, "cosine": -0.5}, "cosine"),
    ({"weight_norm": 3.0, "gram": "nowhere.npy"}, "gram"), ({"weight_norm": 3.0, "gram": "a.npy", "cosine": 0.1}, "gram"),
    ({"theta": 1.0}, "hidden"), ({"hidden": 3, "weight_norm": 1.0}, "hidden"), ({"theta": 1.0, "hidden": 0}, "hidden"),
    ({"phase1_feature_norm": 2.0, "weight_norm": 1.0}, "phase1_feature_norm"), ({"theta": float("nan"), "hidden": 2}, "theta"),
    ({"theta": 1.0, "hidden": 2, "phase1_feature_norm": 2.0, "loss": "cross_entropy"}, "loss"),
    ({"theta": 1e-30, "hidden": 2, "cosine": 0.2}, "theta"),
    ({"streams": 1.0}, "bias"), ({"streams": 1.0, "bias": "free", "decay": 10.0}, "decay"), ({"streams": -1.0}, "streams"),
    ({"lr": 1e-3}, "noise"), ({"noise": (1.0,), "weight_norm": 1.0}, "noise"), ({"lr": 1e-3, "noise": (0.0,)}, "noise"),
    ({"activation": "nope"}, "activation"), ({"activation": "gelu", "scale": (0.0,)}, "scale"),
    ({"activation": "gelu", "knob": 0.0}, "knob"), ({"classes": 1, "weight_norm": 1.0}, "classes"),
    ({"decay": 0.0, "weight_norm": 1.0}, "decay"), ({"bias": "x", "weight_norm": 1.0}, "bias"),
])
def test_what_is_refused(fields, argument):
    with pytest.raises(BadInput) as caught:
        implied(Network(**fields))
    assert caught.value.argument == argument and "\n" not in str(caught.value)


def test_a_gram_that_is_none(tmp_path):
    for name, values in (("square", np.eye(3)), ("skew", np.triu(np.ones((10, 10)))), ("holes", np.full((10, 10), np.nan))):
        path = tmp_path / f"{name}.npy"
        np.save(path, values)
        with pytest.raises(BadInput, match="gram"):
            implied(Network(weight_norm=3.0, gram=str(path)))
