"""Integrators: one step method per file, and the driver that gives every lane its own steps."""

from ncflow.integrators.adaptive import METHODS, integrate
from ncflow.integrators.batch import Batch, Control, Inside, Watch
from ncflow.integrators.chebyshev import Chebyshev
from ncflow.integrators.dormand_prince import DormandPrince
from ncflow.integrators.extrapolated_chebyshev import ExtrapolatedChebyshev
from ncflow.integrators.runge_kutta4 import RungeKutta4
from ncflow.integrators.step import Step

__all__ = ["METHODS", "Batch", "Chebyshev", "Control", "DormandPrince", "ExtrapolatedChebyshev", "Inside", "RungeKutta4", "Step",
           "Watch", "integrate"]
