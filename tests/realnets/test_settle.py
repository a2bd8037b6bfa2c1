"""When a lane counts as being at rest: values made by hand."""

from __future__ import annotations

import torch

from realnets.settle import PATIENCE, START, Settling


def feed(settling, *lanes):
    """Give the next values (fn, energy, balance) of each lane."""
    settling.look(*torch.tensor(lanes, dtype=torch.float64).T)


def test_what_stands_still_at_two_rates_is_at_rest_and_what_moves_is_not():
    settling = Settling(torch.tensor([1.0, 1.0]), 170)
    assert settling.block == 4 and settling.rates == [START] * 2
    rates = []
    for i in range(4):
        feed(settling, (1.0, 2.0, 0.1), (1.0 + i, 2.0, 0.1))
        rates.append(settling.rates[0] / START)
    # A first look, one span at the full rate, then a span twice as long at half of it.
    assert rates == [1.0, 0.5, 0.5, 0.5] and settling.at_rest.tolist() == [True, False]
    assert float(settling.drift()["fn"][0]) == 0 and float(settling.drift()["fn"][1]) > 0.1


def test_noise_lowers_the_rate_but_a_balance_on_its_way_to_zero_does_not():
    settling = Settling(torch.tensor([1.0, 1.0], dtype=torch.float64), 40)
    for i in range(PATIENCE + 1):
        noise = 1.0 + 0.1 * (-1) ** i
        feed(settling, (noise, 1.0, 0.1), (noise, 1.0, 1.0 - 0.1 * i))
    assert settling.rates == [START / 2, START] and not settling.at_rest.any()
    assert settling.tensors["span"].tolist() == [2, 1]


def test_a_drift_too_slow_for_a_short_span_shows_over_the_long_ones():
    """At each halving of the rate, motion halves and spans double: the drift of a span stays, and so does the verdict."""
    settling = Settling(torch.tensor([1.0], dtype=torch.float64), 40)
    fn = 1.0
    for _ in range(100):
        fn *= 1 + 0.02 * settling.rates[0] / START
        feed(settling, (fn, 1.0, 0.0))
    assert not settling.at_rest.any() and settling.rates[0] < START / 8
    assert 0.01 < float(settling.drift()["fn"]) < 0.04


def test_without_balance():
    settling = Settling(torch.tensor([1.0]), 40)
    one = torch.ones(1)
    for _ in range(4):
        settling.look(one, one, None)
    assert settling.at_rest.all()
