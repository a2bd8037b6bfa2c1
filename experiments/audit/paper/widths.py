"""Table 7: variation, parameters, and the regressions on width."""

from __future__ import annotations

import math

from experiments import statistics
from experiments.audit.check import Check, Range, either, noted, number, over
from experiments.published import published


def checks() -> list[Check]:
    """Every check of Table 7."""
    return [*table_7(), *regressions()]


def table_7() -> list[Check]:
    """CV and parameters of each width; shift of fn and T_NC."""
    rows = published().table(7).rows
    made = []
    for r in rows:
        made.append(
            number(
                "Table 7",
                f"CV, {r.label}",
                r["cv_percent"],
                over(lambda m, s: 100 * s / m, r["fn"].mean, r["fn"].std),
                f"{r['fn'].std} / {r['fn'].mean}",
                unit="%",
            )
        )
    for r in rows:
        width, stated = r.condition["width"], r["parameters_millions"]
        exact, eight = mlp_parameters(width) / 1e6, 8 * width**2 / 1e6
        note = f"8 x {width}^2 = {eight:.2f}M" if abs(eight - stated.value) <= stated.half else ""
        how = f"784 x {width} + 4 x {width}^2 + 10 x {width} + 5 x {width} + 10 = {mlp_parameters(width):,}"
        made.append(number("Table 7", f"parameters, {r.label}", stated, Range(exact, exact, exact), how, note, "M"))
    first, last = rows[0], rows[-1]
    growth = mlp_parameters(last.condition["width"]) / mlp_parameters(first.condition["width"])
    claim = published().claim("width.parameters").values["parameter_factor"]
    made.append(
        number(
            "Section 6.5",
            "range of parameters over the widths",
            claim,
            Range(growth, growth, growth),
            f"{mlp_parameters(last.condition['width']):,} / {mlp_parameters(first.condition['width']):,}",
            "eightfold is the range of widths",
            "x",
        )
    )
    a, b = first["fn"].mean, last["fn"].mean
    made.append(
        number(
            "Section 5.6",
            "shift of fn over the widths",
            published().claim("width.shift").values["percent"],
            over(lambda x, y: 100 * (1 - y / x), a, b),
            f"1 - {b} / {a}",
            unit="%",
        )
    )
    a, b = first["t_nc"].mean, last["t_nc"].mean
    speed = published().claim("width.speed").values
    fall = over(lambda x, y: 100 * (1 - y / x), a, b)
    made.append(number("Section 5.6", "fall of T_NC over the widths", speed["percent"], fall, f"1 - {b} / {a}", unit="%"))
    gained = over(lambda x, y: x - y, a, b)
    made.append(number("Figure 8", "epochs gained over the widths", speed["faster"], gained, f"{a} - {b}"))
    counts, stated = resnet20_parameters(), published().claim("grid.parameters").values["parameters_thousands"]
    ways = {f"shortcut {name}": Range(v / 1e3, v / 1e3, v / 1e3) for name, v in counts.items()}
    made.append(
        either("Section 6.2", "parameters of ResNet-20", stated, ways, " or ".join(f"{v:,}" for v in counts.values()), unit="k")
    )
    return made


def regressions() -> list[Check]:
    """The power law of fn, and the correlation of T_NC with width."""
    rows = published().table(7).rows
    widths = [float(r.condition["width"]) for r in rows]
    fn, t = [r["fn"].mean for r in rows], [r["t_nc"].mean for r in rows]
    law, speed, made = published().claim("width.exponent").values, published().claim("width.speed").values, []
    for what, key, field in (("exponent of width", "exponent", "slope"), ("R2", "r2", "r2"), ("p", "p", "p")):
        made.append(
            number(
                "Section 5.6",
                f"{what} of fn* against width",
                law[key],
                over(lambda *y, field=field: getattr(statistics.power_law(widths, y), field), *fn),
                "least squares of log fn on log width, Table 7",
            )
        )
    exact = statistics.power_law(widths, [f.value for f in fn])
    made[0] = noted(made[0], f"95% interval of the exponent [{exact.low:.3f}, {exact.high:.3f}]")
    for what, key, field in (("Pearson r", "r", "r"), ("p", "p", "p")):
        ways = {
            name: over(lambda *y, x=x, field=field: getattr(statistics.regression(x, y), field), *t)
            for name, x in (("width", widths), ("log width", [math.log(w) for w in widths]))
        }
        made.append(either("Section 5.6", f"{what} of T_NC and width", speed[key], ways, "four means of Table 7"))
    return made


def mlp_parameters(width: int, depth: int = 5, inputs: int = 784, classes: int = 10) -> int:
    """Weights and biases of an MLP with `depth` hidden layers."""
    return inputs * width + width + (depth - 1) * (width**2 + width) + classes * width + classes


def resnet20_parameters(classes: int = 10, channels: int = 3) -> dict[str, int]:
    """Parameters of ResNet-20 by the shortcut where the size changes: A (none) or B (a 1x1 convolution with BatchNorm)."""
    widths = (16, 32, 64)
    total = 9 * channels * 16 + 2 * 16 + 64 * classes + classes
    for k, w in enumerate(widths):
        first = widths[max(0, k - 1)]
        total += 9 * first * w + 2 * w + 5 * (9 * w * w + 2 * w)
    return {"A": total, "B": total + sum(a * b + 2 * b for a, b in ((16, 32), (32, 64)))}
