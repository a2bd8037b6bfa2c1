"""Which runs the authors logged: file, condition, and the setting each was trained with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Epochs of phase 1, in every run of two phases.
SWITCH = 200

_MLP = {"dataset": "mnist", "architecture": "mlp", "depth": 5, "width": 512, "activation": "relu", "decay": 1e-4, "alpha": 1.0}
_RESNET = {"architecture": "resnet20", "activation": "relu", "decay": 1e-3}


@dataclass(frozen=True)
class Spec:
    """A run that the authors logged.

    Attributes:
        file: path in the folder.
        experiments: those of the paper that it belongs to.
        condition, seed: what distinguishes it.
        preset, changes: the setting of `realnets.preset` that it was trained with; None where that is not known.
        phases: "column", or "epoch" where the file has no such column, or "ce" for cross-entropy alone.
    """

    file: str
    experiments: tuple[str, ...]
    condition: Mapping[str, Any]
    seed: int
    preset: str | None
    changes: Mapping[str, Any] = field(default_factory=dict)
    phases: str = "column"

    @property
    def name(self) -> str:
        return Path(self.file).stem


def _specs() -> tuple[Spec, ...]:
    made: list[Spec] = []

    def add(file: str, experiments: Iterable[str], seeds: Iterable[int], preset: str | None, *, base: Mapping[str, Any] = _MLP,
            phases: str = "column", changes: Mapping[str, Any] | None = None, **condition: Any) -> None:  # fmt: skip
        for seed in seeds:
            where = f"{file.format(seed=seed)}.csv"
            made.append(Spec(where, tuple(experiments), {**base, **condition}, seed, preset, changes or {}, phases))

    # The baseline is seed 0 of depth 5, of ReLU and of the default decay as well.
    default = ("depth", "activation", "weight_decay", "threshold_robustness")
    add("mnist_twophase", ("baseline", *default), [0], "paper-mlp-baseline")
    add("depth5_s{seed}", default, [1, 2], "paper-mlp-sweep")
    for depth in (2, 3, 7):
        robust = ("threshold_robustness",) if depth == 7 else ()
        add(f"depth{depth}_s{{seed}}", ("depth", *robust), range(3), "paper-mlp-sweep", changes={"depth": depth}, depth=depth)
    for depth in (2, 3):
        add(f"depth{depth}_s{{seed}}_ext", ("depth_rerun",), range(3), "paper-mlp-sweep", changes={"depth": depth}, depth=depth)
    for name, activation in (("GELU", "gelu"), ("Tanh", "tanh")):
        how = {"activation": activation}
        add(f"act{name}_s{{seed}}", ("activation",), range(3), "paper-mlp-sweep", changes=how, activation=activation)
    how = {"activation": "gelu"}
    add("gelu_s{seed}", ("activation",), [3, 4], "paper-mlp-sweep", changes=how, phases="epoch", activation="gelu")
    for name, decay in (("1e-05", 1e-5), ("5e-05", 5e-5), ("0p0005", 5e-4)):
        belongs = ("weight_decay", "threshold_robustness") if decay < 1e-4 else ("weight_decay",)
        add(f"wd{name}_s{{seed}}", belongs, range(3), "paper-mlp-decay", changes={"decays": (decay,)}, decay=decay)
    for width, seeds in ((128, range(3)), (256, range(3)), (512, [0])):
        belongs = ("width", "lead_time", "threshold_robustness") if width < 512 else ("width", "lead_time")
        add(f"width{width}_s{{seed}}", belongs, seeds, "paper-mlp-width", changes={"width": width}, width=width)
    for arm, alpha in (("control", 1.0), ("scale_down", 0.3), ("scale_up", 3.0)):
        add(f"intervention_{arm}_s{{seed}}", ("intervention",), range(3), "paper-mlp-intervention", changes={"alphas": (alpha,)},
            phases="epoch", alpha=alpha)  # fmt: skip
    add("ce_only_ablation", ("ce_only",), [0], "paper-mlp-baseline", phases="ce", changes={"epochs_ce": 600, "epochs_mse": 0})
    five = "early_warning/e8_mlp_mnist_adam_s{seed}"
    add(five, ("early_warning",), range(5), "paper-mlp-intervention", changes={"epochs_mse": 300})
    add("cifar10_s{seed}", ("grid", "baseline"), range(3), "paper-resnet-cifar", base={**_RESNET, "dataset": "cifar10"})
    add("resnet20_mnist_s{seed}", ("grid",), [1, 2], "paper-resnet-mnist", base={**_RESNET, "dataset": "mnist"})
    add("mlp5_cifar10_s{seed}", ("grid",), range(3), None, dataset="cifar10")
    add("vit_crossarch/vit_mnist_adam_s{seed}", ("grid",), range(3), None, base={"dataset": "mnist", "architecture": "vit"})
    return tuple(made)


SPECS = _specs()
#: Summary files -> the columns that are used.
SUMMARIES = {
    "gelu_summary.csv": ("seed", "T_NC", "fn"),
    "cifar10_summary.csv": ("seed", "T_NC", "fn"),
    "mlp5_cifar10_summary.csv": ("seed", "T_NC", "fn", "fn_final"),
    "resnet20_mnist_summary.csv": ("seed", "T_NC", "fn"),
    "intervention_summary.csv": ("condition", "alpha", "seed", "fn_before", "fn_after_rescale", "T_NC", "fn_at_TNC"),
    "prediction_analysis.csv": ("width", "seed", "ep_cross", "T_NC", "gap"),
    "sweep_depth.csv": ("depth", "seed", "T_NC", "feat_norm"),
    "sweep_remaining.csv": ("act", "seed", "T_NC", "feat_norm", "depth"),
    "sweep_wd.csv": ("wd", "seed", "T_NC", "fn"),
    "sweep_width.csv": ("width", "seed", "T_NC", "fn"),
    "deconfound/deconfound_perseed.csv": ("arch", "optimizer", "seed", "T_NC_strict", "fn_strict"),
}
