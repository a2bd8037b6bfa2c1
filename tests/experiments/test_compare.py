"""The comparison's own arithmetic, on records made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr

from experiments.compare import _imbalance, _spread, compare, linear_model
from experiments.output import clean
from experiments.show import short
from ncflow import BadInput, simulate
from realnets import TwoPhase
from theory import fixed_point


def test_spread_counts_only_what_happened():
    entry = _spread([1.0, math.nan, 3.0])
    assert entry == {"mean": 2.0, "std": pytest.approx(math.sqrt(2)), "per_seed": [1.0, None, 3.0]}
    assert _spread([math.nan]) == {"mean": None, "std": None, "per_seed": [None]}
    assert _spread([2.0])["std"] is None


def test_imbalance_is_zero_exactly_where_the_identity_holds():
    weights, biases = np.array([[4.0, 5.0, 7.0]]), np.array([[1.0, 2.0, 9.0]])
    end = xr.Dataset({"weight_norm_sq": (("lane", "layer"), weights), "bias_norm_sq": (("lane", "layer"), biases)})
    assert _imbalance(end) == [0.0]
    end["bias_norm_sq"][0, 0] = 2.0
    assert _imbalance(end) == [pytest.approx(1 / np.mean(weights))]


def test_without_decay_there_is_nothing_to_compare():
    with pytest.raises(BadInput, match="decays"):
        compare(TwoPhase(dataset="digits", decays=(0.0, 1e-3)))


def test_linear_model_has_the_network_inputs():
    protocol = TwoPhase(dataset="digits", subset=100, decays=(1e-2,))
    model = linear_model(protocol)
    assert model.layers == protocol.depth + 1 and model.loss_scale == 0.1 and model.samples == 100
    run = simulate(model, seeds=[0], until=1e4, save_at=[1e4], rest=1e-10, rtol=1e-6)
    assert float(run.data["fn"][0, -1]) == pytest.approx(fixed_point(model).feature_norm, rel=1e-6)


@pytest.mark.parametrize(("value", "text"), [(1e-5, "1e-5"), (3e-4, "3e-4"), (1.5e-4, "1.5e-4"), (0.05, "0.05"), (0.0, "0")])
def test_short(value, text):
    assert short(value) == text


def test_clean_makes_valid_json():
    assert clean({"a": [math.nan, 1.0, (math.inf,)]}) == {"a": [None, 1.0, [None]]}
