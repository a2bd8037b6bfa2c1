"""ncflow: the dynamics of neural collapse.

Conventions, stated once. K classes with n_k samples each, N samples in all; features H (p x N) with one column per sample;
M weight layers W_1 .. W_M above the features (in a `DeepLinear`, above the inputs), the head W_M is (K x p); head bias b.

- Loss: L = (c/N) |logits - Y|_F^2 + sum_l (lambda_l/2) |W_l|_F^2 + (lambda_H/2) |H|_F^2 + (lambda_b/2) |b|^2.
  `loss_scale` c = 1/2 is the theory convention, c = 1/K is the mean of PyTorch's `MSELoss`.
- Bias: "none" (class means form an orthogonal frame), "free" (not decayed; simplex ETF) or "decayed".
- Mobility theta: features follow dH/dt = -theta dL/dH; theta = 1 is the plain unconstrained-features model.
- Time: flow time t for simulations, epochs from the start of the run for real networks; a `Trajectory` says which.
- A lane is one member of a batch (a seed, a decay ...). Lanes never influence each other.
- fn is the mean norm of the features that enter the head. T_NC is the first time that a named NC1 is below a threshold,
  fn* = fn(T_NC) is what is measured there, fn_inf is fn at the fixed point: different numbers, reported apart.
"""

from ncflow import metrics
from ncflow.collapse import Collapse, Regime, summarise
from ncflow.errors import BadInput
from ncflow.events import Crossing
from ncflow.interventions import Rescale
from ncflow.model import UFM, Decay, DeepLinear, Isotropic
from ncflow.optimisers import SGD, Adam, AdamW, Constant, Cosine, GradientDescent, MultiStep, Phase
from ncflow.simulate import simulate
from ncflow.trajectory import Status, Trajectory

__all__ = [
    "SGD", "UFM", "Adam", "AdamW", "BadInput", "Collapse", "Constant", "Cosine", "Crossing", "Decay", "DeepLinear",
    "GradientDescent", "Isotropic", "MultiStep", "Phase", "Regime", "Rescale", "Status", "Trajectory", "metrics", "simulate",
    "summarise",
]
