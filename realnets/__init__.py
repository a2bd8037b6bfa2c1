"""Real networks under the paper's two-phase protocol.

`train(TwoPhase(...))` trains a batch of lanes (decays x seeds) and returns the same `Trajectory` that a
simulation does, with time in epochs. `preset` names settings; `load` gives the data sets.
"""

from realnets.data import DataSet, load
from realnets.mlp import ACTIVATIONS, LaneMLP
from realnets.protocol import PRESETS, TwoPhase, preset
from realnets.train import train

__all__ = ["ACTIVATIONS", "PRESETS", "DataSet", "LaneMLP", "TwoPhase", "load", "preset", "train"]
