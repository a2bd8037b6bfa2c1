"""Products by either library: the same numbers, chosen by the shapes of one lane alone."""

import pytest
import torch

from realnets import products

HERE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
needs_onednn = pytest.mark.skipif(not HERE, reason="PyTorch without oneDNN")


@pytest.fixture(params=[False, pytest.param(True, marks=needs_onednn)])
def taken(request, monkeypatch):
    """Whether oneDNN is taken, and how often it was."""
    calls = []
    original = products._product
    monkeypatch.setattr(products, "onednn", lambda: request.param)
    monkeypatch.setattr(products, "_product", lambda *args: calls.append(1) or original(*args))
    monkeypatch.setattr(products, "LEAST", 1e4)
    yield request.param, calls


def close(found, expected):
    """To single precision, relative to the largest element."""
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=float(3e-6 * expected.abs().max()))


@pytest.mark.parametrize("lanes", [1, 3])
def test_equal_to_double_precision(taken, lanes):
    torch.manual_seed(0)
    a, W, b, delta = (torch.randn(lanes, *shape) for shape in ((33, 40), (50, 40), (1, 50), (33, 50)))
    A, V, B, D = (x.double() for x in (a, W, b, delta))
    out = torch.full((lanes, 50, 40), torch.nan)
    close(products.affine(a, W, b), A @ V.mT + B)
    close(products.affine(a, W, None), A @ V.mT)
    close(products.product(delta, W), D @ V)
    assert products.product(delta.mT, a, out) is out
    close(out, D.mT @ A)
    assert len(taken[1]) == (4 * lanes if taken[0] else 0)


def test_views_of_a_row_are_written_in_place(taken):
    """As the gradient of `realnets.mlp` is: a view of one row of many."""
    flat = torch.zeros(2, 3000)
    view = flat[:, 500:2500].view(2, 50, 40)
    a, b = torch.randn(2, 33, 50), torch.randn(2, 33, 40)
    products.product(a.mT, b, view)
    close(view, a.mT.double() @ b.double())
    assert not flat[:, :500].any() and not flat[:, 2500:].any()


def test_a_lane_has_the_same_bits_in_any_batch(taken):
    a, W, b = torch.randn(4, 33, 40), torch.randn(4, 50, 40), torch.randn(4, 1, 50)
    whole, alone = products.affine(a, W, b), products.affine(a[2:3], W[2:3], b[2:3])
    if taken[0]:
        assert torch.equal(whole[2:3], alone)
    else:
        torch.testing.assert_close(whole[2:3], alone)


@needs_onednn
def test_small_and_double_stay_where_they_are(monkeypatch):
    monkeypatch.setattr(products, "onednn", lambda: True)
    monkeypatch.setattr(products, "_product", lambda *args: pytest.fail("oneDNN was called"))
    a, W = torch.randn(9, 16, 128), torch.randn(9, 128, 128)
    assert torch.equal(products.affine(a, W, None), torch.bmm(a, W.mT))
    large = torch.randn(1, 512, 512, dtype=torch.float64)
    assert torch.equal(products.product(large, large), torch.bmm(large, large))


def test_the_machine_is_asked_once():
    assert products.onednn() in (True, False) and products.onednn.cache_info().currsize == 1
