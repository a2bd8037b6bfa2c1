"""The published numbers: whole, readable, and stated where they are said to stand."""

from __future__ import annotations

import pytest

from experiments.published import EXPERIMENTS, Printed, Row, Spread, published
from experiments.published.printed import read
from ncflow.errors import BadInput


@pytest.mark.parametrize(("text", "value", "half"), [
    ("1.077", 1.077, 0.0005), ("297", 297.0, 0.5), ("-0.064", -0.064, 0.0005), ("380", 380.0, 0.5), ("~130", 130.0, 5.0),
    ("~16.2", 16.2, 0.05), ("0.0000", 0.0, 0.00005), ("0", 0.0, 0.5),
])  # fmt: skip
def test_a_printed_number_knows_its_precision(text, value, half):
    number = Printed(text)
    assert number.value == value and number.half == pytest.approx(half, rel=1e-12)
    assert number.low < number.value < number.high


def test_values_are_read_by_their_form():
    assert read("297 ± 9") == Spread(Printed("297"), Printed("9"))
    assert read(["0.998", "1.078"]) == (Printed("0.998"), Printed("1.078"))
    assert read("stalls") == "stalls" and read(None) is None
    with pytest.raises(BadInput, match="a list of numbers"):
        read(1.0)
    with pytest.raises(BadInput, match="number"):
        Printed("1e-3")


def test_tables_are_whole():
    tables = published().tables
    assert [t.number for t in tables] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [len(t.rows) for t in tables] == [7, 4, 3, 4, 5, 8, 4, 3]
    for table in tables:
        for row in table.rows:
            assert isinstance(row, Row) and row.cells and row.label and 1 <= table.page <= 20
    assert published().table(4).row(decay=5e-5)["fn"].std.value == 0.006
    assert published().table(4).row(decay=5e-4)["t_nc"] is None
    assert [row.n for row in published().table(7).rows] == [3] * 4
    assert [f.number for f in published().figures] == list(range(1, 10))


def test_claims_are_many_named_once_and_bear_on_every_experiment():
    claims = published().claims
    assert len(claims) >= 40 and [c.number for c in claims] == list(range(1, len(claims) + 1))
    ids = [c.id for c in (*claims, *published().later, *published().readings)]
    assert len(ids) == len(set(ids))
    for claim in claims:
        assert claim.experiments and set(claim.experiments) <= set(EXPERIMENTS)
        assert claim.wording and claim.section and 1 <= claim.page <= 20
    for experiment in EXPERIMENTS:
        assert published().bearing_on(experiment)
    assert [r.id for r in published().readings] == list("abcdefghijk")


def test_a_claim_and_its_table_say_the_same():
    p = published()
    for width in (128, 1024):
        assert p.claim("width.speed").values[f"t_nc_{width}"] == p.table(7).row(width=width)["t_nc"].mean
    for depth in (2, 3, 5, 7):
        row = p.table(2).row(depth=depth)
        assert p.claim("depth.non_monotonic").values[f"t_nc_depth_{depth}"] == row["t_nc"].mean
        assert p.claim("depth.value").values[f"fn_depth_{depth}"] == row["fn"].mean
    for arm, label in (("control", "control"), ("down", "scale-down"), ("up", "scale-up")):
        assert p.claim("intervention.attractor").values[f"fn_{arm}"] == p.table(8).row(label)["fn"]
    assert p.claim("grid.resnet_mnist").values["fn"] == p.table(6).row("ResNet-20 on MNIST")["fn"]


@pytest.mark.parametrize(("call", "names"), [
    (lambda: published().table(9), ["table", "9", "8"]),
    (lambda: published().claim("depth.non_monotone"), ["claim", "depth.non_monotonic"]),
    (lambda: published().bearing_on("depths"), ["experiment", "'depths'", "depth"]),
    (lambda: published().table(2).row(depth=4), ["row", "4", "depth 5"]),
    (lambda: published().table(2).row(depth=5)["nc1"], ["column", "'nc1'", "fn"]),
])  # fmt: skip
def test_bad_names_are_told(call, names):
    with pytest.raises(BadInput) as told:
        call()
    for name in names:
        assert name in str(told.value)
