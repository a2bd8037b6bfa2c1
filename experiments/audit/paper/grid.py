"""Effects in the grid of architectures and data sets, their ratios, and what a multiplicative model predicts."""

from __future__ import annotations

from experiments.audit.check import Check, number, over
from experiments.published import published


def checks() -> list[Check]:
    """Effects in the grid, their ratios, and what a multiplicative model predicts."""
    table, claim = published().table(6), published().claim
    mm, rm, mc, rc = (
        table.row(label)["fn"].mean
        for label in ("MLP-5 on MNIST", "ResNet-20 on MNIST", "MLP-5 on CIFAR-10", "ResNet-20 on CIFAR-10")
    )
    made = []
    pairs = {
        "architecture effect on MNIST": (mm, rm),
        "architecture effect on CIFAR-10": (mc, rc),
        "dataset effect for MLP-5": (mm, mc),
        "dataset effect for ResNet-20": (rm, rc),
    }
    for label, (a, b) in pairs.items():
        row = table.row(label)
        made.append(number("Table 6", label, row["difference"], over(lambda x, y: y - x, a, b), f"{b} - {a}"))
        relative = over(lambda x, y: 100 * (y / x - 1), a, b)
        made.append(number("Table 6", f"{label}, relative", row["percent"], relative, f"{b} / {a} - 1", unit="%"))
    for what, key, (a, b), (c, d) in (
        ("ratio of the architecture effects", "grid.architecture_cifar", (mm, rm), (mc, rc)),
        ("ratio of the dataset effects", "grid.dataset", (rm, rc), (mm, mc)),
    ):
        found = over(lambda p, q, r, s: (q / p - 1) / (s / r - 1), a, b, c, d)
        made.append(
            number(
                "Section 5.5",
                what,
                claim(key).values["factor"],
                found,
                f"({b}/{a} - 1) / ({d}/{c} - 1)",
                "5.3 is 74 / 14, a ratio of rounded percentages" if key == "grid.dataset" else "",
                "x",
            )
        )
    for where, key, base, name in (
        ("Section 5.1", "percent", published().claim("baseline.compression").values["fn"], "Figure 1"),
        ("Section 2.2", "percent_elsewhere", mm, "Table 6"),
    ):
        made.append(
            number(
                where,
                f"ResNet-20/CIFAR-10 above MLP-5/MNIST of {name}",
                claim("baseline.gap").values[key],
                over(lambda x, y: 100 * (y / x - 1), base, rc),
                f"{rc} / {base} - 1",
                unit="%",
            )
        )
    stated = claim("grid.multiplicative").values["percent"]
    above = over(lambda a, b, c, d: 100 * (d / (a * b / c) - 1), mm, rc, mc, rm)
    below = over(lambda a, b, c, d: 100 * (1 - (a * b / c) / d), mm, rc, mc, rm)
    predicted = f"{mm.value * rc.value / mc.value:.3f}"
    how = f"predicted {mm} x {rc} / {mc} = {predicted}"
    made.append(
        number(
            "Section 5.5",
            "ResNet-20/MNIST above the multiplicative prediction",
            stated,
            above,
            f"{how}; {rm} / {predicted} - 1",
            unit="%",
        )
    )
    made.append(
        number(
            "Section 5.5",
            "the multiplicative prediction under ResNet-20/MNIST",
            stated,
            below,
            f"{how}; 1 - {predicted} / {rm}",
            "232% is relative to the prediction; under by more than 100% nothing can be",
            "%",
        )
    )
    return made
