"""What is trained for the hypotheses: perceptrons on digits with a third stage, which brings them to rest."""

from __future__ import annotations

from dataclasses import replace

from experiments.paper.settings import Setting
from realnets import TwoPhase, preset

SEEDS = (0, 1, 2)
#: Epochs of the third stage, at most.
SETTLE = 200
GROUP = "digits"
_TINY = TwoPhase(
    dataset="digits",
    subset=200,
    depth=2,
    width=12,
    batch_size=20,
    lr=3e-3,
    epochs_ce=2,
    epochs_mse=4,
    seeds=(0, 1),
    decays=(1e-3,),
    measure_every=2,
    settle=True,
    settle_epochs=4,
)
_DIGITS = preset("digits", decays=(1e-4,), seeds=SEEDS, settle=True, settle_epochs=SETTLE)
SETTINGS: dict[str, Setting] = {
    "smoke": Setting("digits, 200 images", _TINY, (1e-3, 3e-3), (12, 16), (2, 3)),
    "laptop": Setting(GROUP, _DIGITS, (3e-5, 1e-4, 3e-4, 1e-3), (32, 64, 128), (2, 3, 4, 5, 7, 9)),
}


def with_base(setting: Setting, **changes) -> Setting:
    """The setting with fields of its protocol replaced."""
    return replace(setting, base=replace(setting.base, **changes))
