"""What the models accept, what they refuse and how they say it, and what their fields mean over lanes and layers."""

from dataclasses import replace

import numpy as np
import pytest

from ncflow import UFM, BadInput, Decay, DeepLinear, Isotropic, Rescale
from ncflow.events import Crossing

X = np.arange(24.0).reshape(4, 6)


def ufm(**change):
    return UFM(**({"classes": 3, "samples_per_class": 4, "width": 5} | change))


def deep(**change):
    return DeepLinear(**({"inputs": X, "classes": 3, "samples_per_class": 2, "layers": 2, "width": 5} | change))


REFUSED = [
    (lambda: ufm(classes=1), "classes", "1", "at least 2"),
    (lambda: ufm(classes=2.0), "classes", "2.0", "whole number"),
    (lambda: ufm(classes=True), "classes", "True", "whole number"),
    (lambda: ufm(samples_per_class=0), "samples_per_class", "0", "at least 1"),
    (lambda: ufm(samples_per_class=[1, 2]), "samples_per_class", "[1, 2]", "3 (one per class)"),
    (lambda: ufm(samples_per_class=[1, 2, 0]), "samples_per_class", "0", "at least 1"),
    (lambda: ufm(samples_per_class=None), "samples_per_class", "None", "whole number"),
    (lambda: ufm(width=2), "width", "2", "at least 3, the number of classes"),
    (lambda: ufm(width=1, bias="free"), "width", "1", "at least 2, the number of classes less one"),
    (lambda: ufm(width=1, classifier="etf"), "width", "1", "at least 2"),
    (lambda: ufm(width=2, bias="decayed"), "width", "2", "at least 3"),
    (lambda: ufm(width=2, bias="free", nonnegative=True), "width", "2", "at least 3"),
    (lambda: ufm(width=2, bias="free", normalization="batch"), "width", "2", "at least 3"),
    (lambda: ufm(width=2, layers=2, loss="cross_entropy", activation="relu"), "width", "2", "at least 3"),
    (lambda: ufm(width=2, layers=2, classifier="etf", activation="relu"), "width", "2", "at least 3"),
    (lambda: ufm(width=5.0), "width", "5.0", "whole number"),
    (lambda: ufm(layers=2, width=[5, 2]), "width", "[5, 2]", "at least 3"),
    (lambda: ufm(layers=2, width=[5, 5, 5]), "width", "[5, 5, 5]", "sequence of 2"),
    (lambda: ufm(layers=0), "layers", "0", "at least 1"),
    (lambda: ufm(loss="hinge"), "loss", "'hinge'", "mse"),
    (lambda: ufm(bias="yes"), "bias", "'yes'", "none, free, decayed"),
    (lambda: ufm(activation="step"), "activation", "'step'", "linear"),
    (lambda: ufm(loss_scale=0), "loss_scale", "0", "greater than 0"),
    (lambda: ufm(loss_scale=[1, 2]), "loss_scale", "[1, 2]", "one number"),
    (lambda: ufm(loss_scale=float("nan")), "loss_scale", "nan", "finite"),
    (lambda: ufm(mobility=0), "mobility", "0", "greater than 0"),
    (lambda: ufm(mobility=[[1.0]]), "mobility", "[[1.0]]", "at most 1 dimension"),
    (lambda: ufm(mobility="fast"), "mobility", "'fast'", "a number"),
    (lambda: ufm(decay=-1), "decay", "-1", "not negative"),
    (lambda: ufm(decay=[1e-3, float("inf")]), "decay", "inf", "finite"),
    (lambda: ufm(decay=np.zeros(0)), "decay", "array", "finite"),
    (lambda: Decay(weights=[[1, 2], [3]]), "decay.weights", "[[1, 2], [3]]", "a number"),
    (lambda: Decay(weights=[[[1.0]]]), "decay.weights", "[[[1.0]]]", "at most 2 dimension"),
    (lambda: Decay(features=-1e-3), "decay.features", "-0.001", "not negative"),
    (lambda: Decay(bias=None), "decay.bias", "None", "a number"),
    (lambda: Decay(features="1e-3"), "decay.features", "'1e-3'", "a number"),
    (lambda: Decay(features=True), "decay.features", "True", "a number"),
    (lambda: ufm(layers=2, decay=Decay(weights=[[1, 2, 3]])), "decay.weights", "((1.0, 2.0, 3.0),)", "1 or 2 (layers)"),
    (lambda: ufm(decay=Decay(weights=[1, 2], features=[1, 2, 3])), "decay", "[2, 3]", "one common length"),
    (lambda: ufm(decay=Decay(weights=[1, 2]), mobility=[1, 2, 3]), "decay", "[2, 3]", "one common length"),
    (lambda: ufm(bias="free", decay=Decay(bias=1e-3)), "decay.bias", "0.001", 'bias = "decayed"'),
    (lambda: deep(inputs=X[:, :5]), "inputs", "(4, 5)", "N = 6"),
    (lambda: deep(inputs=X[0]), "inputs", "(6,)", "(d, N)"),
    (lambda: deep(inputs=np.where(X == 3, np.nan, X)), "inputs", "NaN", "finite entries"),
    (lambda: deep(inputs="digits"), "inputs", "str", "Isotropic"),
    (lambda: deep(width=2), "width", "2", "at least 3"),
    (lambda: deep(width=(5, 5)), "width", "(5, 5)", "sequence of 1"),
    (lambda: deep(decay=[[1e-3]]), "decay", "[[0.001]]", "at most 1 dimension"),
    (lambda: deep(inputs=Isotropic(1.0), samples_per_class=[1, 2, 3]), "samples_per_class", "(1, 2, 3)", "equal classes"),
    (lambda: Isotropic(0.0), "inputs.amplitude", "0.0", "greater than 0"),
    (lambda: Isotropic(1.0, noise=-1), "inputs.noise", "-1", "not negative"),
    (lambda: Rescale(layer=1.5, alpha=2.0), "intervention.layer", "1.5", '"features"'),
    (lambda: Rescale(layer=True, alpha=2.0), "intervention.layer", "True", '"features"'),
    (lambda: Rescale(layer=-1, alpha=0.0), "intervention.alpha", "0.0", "greater than 0"),
    (lambda: Rescale(layer=-1, alpha=2.0, at=-1.0), "intervention.at", "-1.0", "not negative"),
    (lambda: Crossing("nc9"), "event.metric", "'nc9'", "nc1_trace_ratio"),
    (lambda: Crossing(level=0.0), "event.level", "0.0", "greater than 0"),
    (lambda: Crossing(level=float("nan")), "event.level", "nan", "finite"),
]


@pytest.mark.parametrize("build, argument, value, accepted", REFUSED)
def test_refusals_name_argument_value_and_what_is_accepted(build, argument, value, accepted):
    with pytest.raises(BadInput) as caught:
        build()
    message = str(caught.value)
    assert "\n" not in message
    name, rest = message.split(" = ", 1)
    assert name.startswith(argument) and caught.value.argument == name
    assert value in rest.split(": ")[0] and accepted in rest


def test_a_long_value_is_cut_to_one_short_line():
    with pytest.raises(BadInput) as caught:
        ufm(samples_per_class=list(range(1000)))
    assert len(str(caught.value)) < 200 and "..." in str(caught.value)


def test_decay_per_layer_or_per_lane():
    m = ufm(layers=3, decay=Decay(weights=[1, 2, 3]))  # as many as layers: one each
    assert m.lanes == 1 and m.weight_decays.tolist() == [[1, 2, 3]]
    m = ufm(layers=3, decay=Decay(weights=[1, 2]))  # any other number: one lane each, all layers alike
    assert m.lanes == 2 and m.weight_decays.tolist() == [[1, 1, 1], [2, 2, 2]]
    m = ufm(layers=2, decay=Decay(weights=[[1], [2]]))  # a column: lanes, even as many as layers
    assert m.lanes == 2 and m.weight_decays.tolist() == [[1, 1], [2, 2]]
    m = ufm(layers=2, decay=Decay(weights=[[1, 2]], features=[3, 4, 5]))  # a row: layers, the same in all lanes
    assert m.lanes == 3 and m.weight_decays.tolist() == [[1, 2]] * 3 and m.feature_decays.tolist() == [3, 4, 5]
    m = ufm(layers=2, decay=Decay(weights=[[1, 2], [3, 4], [5, 6]]))
    assert m.weight_decays.tolist() == [[1, 2], [3, 4], [5, 6]]
    m = ufm(layers=1, decay=Decay(weights=[1]))
    assert m.lanes == 1 and m.weight_decays.tolist() == [[1]]


def test_one_decay_for_all_is_lanes_even_when_layers_agree():
    m = ufm(layers=2, decay=[1e-3, 2e-3])
    assert m.lanes == 2 and m.weight_decays.tolist() == [[1e-3] * 2, [2e-3] * 2]
    assert m.feature_decays.tolist() == [1e-3, 2e-3] and m.bias_decays.tolist() == [0, 0]
    assert ufm(decay=1e-3, bias="decayed").bias_decays.tolist() == [1e-3]
    assert ufm(decay=1e-3, bias="free").bias_decays.tolist() == [0]


def test_mobility_spans_lanes():
    m = ufm(decay=1e-3, mobility=[1, 10])
    assert m.lanes == 2 and m.mobilities.tolist() == [1, 10] and m.feature_decays.tolist() == [1e-3, 1e-3]


def test_a_bias_decay_counts_only_where_the_bias_is_decayed():
    decay = Decay(bias=1e-3)
    assert ufm(bias="none", decay=decay).bias_decays.tolist() == [0]
    assert ufm(bias="decayed", decay=decay).bias_decays.tolist() == [1e-3]


def test_classes():
    m = ufm(samples_per_class=(1, 3, 2))
    assert m.class_counts == (1, 3, 2) and m.samples == 6 and not m.balanced
    assert m.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert ufm(samples_per_class=np.array([2, 2, 2])).balanced and ufm().class_counts == (4, 4, 4)


def test_shapes():
    assert ufm(layers=3, width=[5, 6, 7]).weight_shapes == ((6, 5), (7, 6), (3, 7))
    assert ufm(width=np.int64(4)).weight_shapes == ((3, 4),)
    assert deep(layers=3, width=[5, 6]).weight_shapes == ((5, 4), (6, 5), (3, 6))
    assert deep(layers=1).weight_shapes == ((3, 4),)
    assert deep(inputs=Isotropic(2.0), samples_per_class=10).weight_shapes == ((5, 3), (3, 5))


def test_deep_linear_decays():
    m = deep(decay=[1e-3, 1e-2], bias="decayed", layers=3)
    assert m.lanes == 2 and m.weight_decays.tolist() == [[1e-3] * 3, [1e-2] * 3] and m.bias_decays.tolist() == [1e-3, 1e-2]
    assert deep(decay=[1e-3, 1e-2], bias="free").bias_decays.tolist() == [0, 0]


def test_inputs_are_a_copy_that_cannot_be_written():
    data = X.copy()
    m = deep(inputs=data)
    data[0, 0] = 99
    assert m.inputs[0, 0] == 0
    with pytest.raises(ValueError):
        m.inputs[0, 0] = 1


@pytest.mark.parametrize(
    "model",
    [
        ufm(layers=2, width=[5, 6], samples_per_class=[1, 2, 3], decay=Decay([[1, 2]], [3, 4]), mobility=[1, 2]),
        ufm(decay=[1e-3, 2e-3]),
        deep(decay=[1e-3, 2e-3]),
        deep(inputs=Isotropic(1.0, 0.5)),
    ],
)
def test_replace_keeps_what_is_not_replaced(model):
    again = replace(model, loss_scale=0.25)
    assert again.loss_scale == 0.25 and again.lanes == model.lanes and again.weight_shapes == model.weight_shapes
    assert np.array_equal(again.weight_decays, model.weight_decays) and again.class_counts == model.class_counts


def test_models_cannot_be_changed():
    with pytest.raises(AttributeError):
        ufm().classes = 4
