"""What the numbers of each table make of each other: ratios, coefficients of variation, intervals, p."""

from __future__ import annotations

import math
from collections.abc import Callable

from experiments import statistics
from experiments.audit.check import Check, Range, Verdict, either, interval, noted, number, over, statement
from experiments.audit.paper.pooling import of_nine
from experiments.published import Printed, Row, published
from experiments.statistics import difference_from, t_interval_from


def checks() -> list[Check]:
    """Every check of Tables 1, 4, 6 and 8 by themselves; Tables 2 and 3 hold nothing but means."""
    return [*table_1(), *table_4(), *table_6(), *table_8()]


def table_1() -> list[Check]:
    """Ratios, their mean, and the columns that other tables repeat."""
    table = published().table(1)
    rows = [r for r in table.rows if r.condition]
    made = [
        number(
            "Table 1",
            f"ratio, {r.label}",
            r["ratio"],
            over(lambda a, b: b / a, r["fn_001"], r["fn_002"]),
            f"{r['fn_002']} / {r['fn_001']}",
        )
        for r in rows
    ]
    printed = [r["ratio"] for r in rows]
    stated = table.row("mean ratio")["ratio"]
    how = f"of {', '.join(map(str, printed))}"
    made.append(number("Table 1", "mean ratio", stated.mean, over(lambda *x: sum(x) / len(x), *printed), f"mean {how}"))
    ways = {f"ddof {d}": over(_std(d), *printed) for d in (0, 1)}
    made.append(either("Table 1", "std of the ratios", stated.std, ways, f"std {how}"))
    others = {"depth": 2, "width": 7, "decay": 4}
    for r in rows:
        where = others[next(iter(r.condition))]
        same = published().table(where).row(**r.condition)["fn"].mean
        made.append(
            statement(
                "Table 1",
                f"fn* at NC1 < 0.01, {r.label}",
                str(r["fn_001"]),
                same == r["fn_001"],
                str(same),
                f"Table {where}, {r.label}",
            )
        )
    return made


def table_4() -> list[Check]:
    """Range of T_NC and of decay."""
    rows = [r for r in published().table(4).rows if r["fn"] is not None]
    least, most = min(rows, key=_t_nc), max(rows, key=_t_nc)
    claim = published().claim("weight_decay.window").values
    window = over(lambda a, b: b - a, least["t_nc"].mean, most["t_nc"].mean)
    decays = [r.condition["decay"] for r in rows]
    spread = statement(
        "Section 5.4",
        "range of decays that collapse",
        f"{claim['factor']}x",
        max(decays) / min(decays) == 10,
        f"{max(decays) / min(decays):.0f}x",
        f"{max(decays):g} / {min(decays):g}".replace("e-0", "e-"),
    )
    how = f"{_t_nc(most):.0f} - {_t_nc(least):.0f}"
    return [number("Section 5.4", "window of T_NC over decays", claim["window"], window, how), spread]


def table_6() -> list[Check]:
    """CV and t-interval of each pair, from its mean and standard deviation and from quoted seeds."""
    made = []
    for r in published().table(6).rows:
        if r.n is None:
            continue
        fn, n = r["fn"], r.n
        made.append(number("Table 6", f"CV, {r.label}", r["cv_percent"], _cv(r), f"{fn.std} / {fn.mean}", unit="%"))
        made.append(_t_check(r, n))
        low, high = r["interval"]
        claim = published().claim("grid.small_samples").values
        key = "percent_" + {
            "ResNet-20 on MNIST": "resnet_mnist",
            "ResNet-20 on CIFAR-10": "resnet_cifar10",
            "MLP-5 on CIFAR-10": "mlp_cifar10",
        }.get(r.label, "")
        if key in claim:
            width = over(lambda a, b, m: 100 * (b - a) / m, low, high, fn.mean)
            made.append(
                number(
                    "Section 6.6",
                    f"width of the interval, {r.label}",
                    claim[key],
                    width,
                    f"({high} - {low}) / {fn.mean}",
                    unit="%",
                )
            )
    claim = published().claim("grid.small_samples").values
    for key, label in (("resnet_mnist", "ResNet-20 on MNIST"), ("resnet_cifar10", "ResNet-20 on CIFAR-10")):
        seeds, row = claim[f"fn_{key}"], published().table(6).row(label)
        how = f"of {', '.join(map(str, seeds))}"
        made.append(number("Section 6.6", f"mean of the seeds, {label}", row["fn"].mean, over(_mean, *seeds), f"mean {how}"))
        made.append(
            either(
                "Section 6.6",
                f"std of the seeds, {label}",
                row["fn"].std,
                {f"ddof {d}": over(_std(d), *seeds) for d in (0, 1)},
                f"std {how}",
            )
        )
        ends = [over(lambda *x, end=end: getattr(statistics.t_interval(x), end), *seeds) for end in ("low", "high")]
        made.append(interval("Section 6.6", f"95% t-interval of the seeds, {label}", row["interval"], ends, f"t interval {how}"))
    elsewhere = published().claim("grid.mlp_cifar").values["cv_percent_elsewhere"]
    row = published().table(6).row("MLP-5 on CIFAR-10")
    made.append(
        either(
            "Section 6.6",
            "CV, MLP-5 on CIFAR-10 (5.9% in Table 6)",
            elsewhere,
            {"std of ddof 0 as it is": _cv(row), "turned into ddof 1": _cv(row, math.sqrt(3 / 2))},
            f"{row['fn'].std} / {row['fn'].mean}, x sqrt(3/2) for ddof 1",
            unit="%",
        )
    )
    return made


def _t_check(r: Row, n: int) -> Check:
    """The t-interval of a row under each reading of its standard deviation."""
    fn = r["fn"]
    found = {
        d: [
            over(lambda m, s, d=d, end=end: getattr(t_interval_from(m, s, n, ddof=d), end), fn.mean, fn.std)
            for end in ("low", "high")
        ]
        for d in (1, 0)
    }
    how = f"{fn.mean} ± t(0.975, {n - 1}) {fn.std} / sqrt({n})"
    where = "Table 6"
    tried = {d: interval(where, f"95% t-interval, {r.label}", r["interval"], ends, how) for d, ends in found.items()}
    if tried[1].verdict is tried[0].verdict:
        return noted(tried[1], "" if tried[1].verdict is Verdict.AGREES else of_nine(r["interval"]))
    best = min(tried, key=lambda d: list(type(tried[d].verdict)).index(tried[d].verdict))
    how += f" sqrt({n}/{n - 1})" if best == 0 else ""
    told = f"only if the printed std is of ddof {best}"
    return interval(where, f"95% t-interval, {r.label}", r["interval"], found[best], how, told)


def table_8() -> list[Check]:
    """Rescaled norms, differences, p, and what a test says of fn* itself."""
    table, made = published().table(8), []
    control = table.row("control")
    for r in table.rows[1:]:
        alpha = r.condition["alpha"]
        scaled = over(lambda x, a=alpha: a * x, control["fn_after"])
        made.append(
            number("Table 8", f"fn after rescaling, {r.label}", r["fn_after"], scaled, f"{alpha:g} x {control['fn_after']}")
        )
        claim = published().claim("intervention.timing").values
        longer = over(lambda x, y: y - x, control["t_nc"].mean, r["t_nc"].mean)
        made.append(
            number(
                "Section 6.4",
                f"difference of T_NC, {r.label}",
                claim["difference"],
                longer,
                f"{r['t_nc'].mean} - {control['t_nc'].mean}",
            )
        )
        ways = {f"{m.title()}'s t": over(_p(m), *_four(control, r, "t_nc")) for m in ("student", "welch")}
        one, other = ((x["t_nc"].mean.value, x["t_nc"].std.value, 3) for x in (r, control))
        test = difference_from(one, other, "student")
        made.append(
            either(
                "Table 8",
                f"p of that difference, {r.label}",
                r["p"],
                ways,
                f"{r['t_nc']} against {control['t_nc']}, n = 3",
                f"a large p is no sameness: the 95% interval is {test.low:.0f} to {test.high:.0f} epochs",
            )
        )
    return made


def _mean(*x: float) -> float:
    return sum(x) / len(x)


def _std(ddof: int) -> Callable[..., float]:
    return lambda *x: statistics.summary(x, ddof).std


def _t_nc(row: Row) -> float:
    return row["t_nc"].mean.value


def _cv(row: Row, factor: float = 1.0) -> Range:
    return over(lambda m, s: 100 * factor * s / m, row["fn"].mean, row["fn"].std)


def _four(a: Row, b: Row, column: str) -> tuple[Printed, ...]:
    return a[column].mean, a[column].std, b[column].mean, b[column].std


def _p(method: str) -> Callable[..., float]:
    return lambda ma, sa, mb, sb: difference_from((ma, sa, 3), (mb, sb, 3), method).p
