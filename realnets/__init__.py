"""Real networks under the paper's two-phase protocol.

`train(TwoPhase(...))` trains a batch of lanes (decays x learning rates x interventions x seeds) and returns the same
`Trajectory` that a simulation does, with time in epochs. `preset` names settings; `load` gives the data sets; with
`checkpoint=` a run survives being killed.
"""

from realnets.activations import ACTIVATIONS
from realnets.architectures import ARCHITECTURES
from realnets.data import DataSet, load
from realnets.interrupts import Stopped
from realnets.mlp import LaneMLP
from realnets.network import Network
from realnets.outcome import Outcome
from realnets.presets import PRESETS
from realnets.protocol import Lane, TwoPhase, preset
from realnets.train import Watch, train

__all__ = [
    "ACTIVATIONS", "ARCHITECTURES", "PRESETS", "DataSet", "Lane", "LaneMLP", "Network", "Outcome", "Stopped",
    "TwoPhase", "Watch", "load", "preset", "train",
]  # fmt: skip
