"""The settings that experiments are asked at, by preset: what is equal over the conditions of a group.

The cheap settings show the phenomenon: NC1 passes 0.01 in minutes on one core. Their fn and T_NC are not the paper's, so what
the paper says of an order, a regime or a sameness can be tested on them, what it says of a value only at full scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments.paper.experiment import Condition
from realnets import TwoPhase, preset

SEEDS = (0, 1, 2)
#: group of the stated protocol on MNIST; only there can a value be compared with the paper's.
FULL = "MNIST, 60,000 images"


@dataclass(frozen=True)
class Setting:
    """One group of conditions: `base` with what all of them share, and the values that vary, by experiment.

    Attributes:
        decays: of the decay sweep, ascending; `widths` of the width sweep; `depths` of the depth sweep.
        full: whether it is the paper's own scale.
    """

    group: str
    base: TwoPhase
    decays: tuple[float, ...]
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    full: bool = False


_TINY = TwoPhase(
    dataset="digits",
    subset=500,
    depth=3,
    width=16,
    batch_size=20,
    lr=3e-3,
    epochs_ce=4,
    epochs_mse=10,
    seeds=(0, 1),
    decays=(1e-4,),
    measure_every=1,
)
_DIGITS = preset("digits", decays=(1e-4,), seeds=SEEDS)
_MNIST = preset("mnist-10k", decays=(1e-4,), seeds=SEEDS, measure_every=5)

SETTINGS: dict[str, tuple[Setting, ...]] = {
    "smoke": (Setting("digits, 500 images", _TINY, (1e-4, 1e-2), (16, 32), (2, 3)),),
    "laptop": (
        Setting("MNIST, 10,000 images", _MNIST, (1e-5, 5e-5, 1e-4, 5e-4), (32, 64, 128, 256), (2, 3, 5, 7)),
        Setting("digits", _DIGITS, (1e-5, 1e-4, 3e-4, 1e-3), (32, 64, 128, 256), (2, 3, 5, 7)),
    ),
    "paper": (Setting(FULL, preset("paper-mlp-sweep", seeds=SEEDS), (1e-5, 5e-5, 1e-4, 5e-4), (128, 256, 512, 1024), (2, 3, 5, 7),
                      full=True),),
}  # fmt: skip


def settings(name: str) -> tuple[Setting, ...]:
    """Of a preset; none where it has no perceptrons."""
    return SETTINGS.get(name, ())


def condition(setting: Setting, label: str, threshold: float = 0.01, *, of: str | None = None,
              seeds: Sequence[int] | None = None, **changes: Any) -> Condition:  # fmt: skip
    """The setting with `changes`, which also are the condition's parameters.

    Args:
        of: name of the authors' preset at full scale, where settings differ between sweeps.
        seeds: in place of the setting's.
    """
    base = preset(of, seeds=setting.base.seeds) if of is not None and setting.full else setting.base
    single = {"decay": "decays", "alpha": "alphas"}
    fields = {single.get(k, k): (v,) if k in single else v for k, v in changes.items()}
    if seeds is not None:
        fields["seeds"] = tuple(seeds)
    return Condition(label=label, setting=replace(base, **fields), group=setting.group, parameters=changes, threshold=threshold)


def relaxed(depth: int, activation: str = "relu") -> float:
    """The NC1 below which the paper counts a condition as collapsed."""
    return 0.05 if depth <= 3 or activation in ("gelu", "tanh") else 0.01
