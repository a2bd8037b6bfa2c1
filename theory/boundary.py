r"""Where the collapsed fixed point ends: fold, Maxwell point, vanishing classes, the mean mode's threshold.

In units of the data every mode knows its decays through its tension gamma alone (`theory.mode`), which is
proportional to the decays, so that

    fold        x = (D-2)/(2D-2)    beyond it the mode has no root but zero
    Maxwell     x = (D-2)/(D-1)     beyond it zero is cheaper
    D = 2       both at x = 0       the mode vanishes continuously; lambda_W lambda_H = 4c^2/(KN)
    D = 1       never

hold for free features and data alike; only gamma differs. Free features: common decay (2c/K) (Gamma/n)^{1/D};
`Isotropic` data: (2c/K) r s_0^{1-2/M} (1 - u) u^{1-2/M}, s_0 = r/(r^2 + v2), u = (M-2)/(2M-2). On data that
are not aligned the modes mix and the branch is followed numerically. Folds of deep networks: Dang et al.
(2023); derived in `theory.derivations.fold` and `maxwell`.
Other losses and non-negative features: `theory.existence`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ncflow.errors import require
from ncflow.model import UFM, DeepLinear, Isotropic
from theory import deep_linear, mode, schatten
from theory.point import Standing, compact
from theory.rest import Array, linear_square, require_linear

SOURCE = "Dang et al. 2023; Tirer and Bruna 2022; minority collapse: Fang et al. 2021, Dang et al. 2023"
STEP = 1e-6  # relative width at which a numerical boundary is called located
GONE = 1e-8  # a mode below this share of the largest is on its way to zero


@dataclass(frozen=True, eq=False, kw_only=True)
class Boundary:
    """A value of the decay at which the fixed point changes.

    Scalars for one lane; `factor`, `product` and, where they differ, `decay` are (lanes,) for several.

    Attributes:
        decay: common value of all decays, features and bias included, at which it happens to the first mode;
            inf where it never does.
        factor: multiple of the model's own decays at which it does.
        product: product of the D decays at which it does (D = 2: lambda_W lambda_H).
        signal: signal there, as in `FixedPoint.signal`.
        modes: (R,) the common decay for each mode, ascending; equal modes are repeated.
        last: the largest of them, at which nothing is left.
        law, status, assumptions, source: as in `FixedPoint`.
    """

    decay: Any
    factor: Any
    product: Any
    signal: Any
    modes: Array
    law: str
    status: Standing = "exact"
    assumptions: tuple[str, ...] = ()
    source: str = SOURCE

    @property
    def last(self) -> float:
        return float(self.modes[-1])

    @property
    def formula(self) -> str:
        """The law in LaTeX, printed from its sympy derivation."""
        from theory.derivations_dynamics import latex

        return latex(self.law)


@dataclass(frozen=True, eq=False, kw_only=True)
class Threshold:
    """A value of a parameter at which the fixed point changes: a number, or (lanes,); float() of it works for one lane.

    Attributes:
        value: the value.
        law, status, assumptions, source: as in `FixedPoint`.
    """

    value: Any
    law: str
    status: Standing = "exact"
    assumptions: tuple[str, ...] = ()
    source: str = SOURCE

    def __float__(self) -> float:
        return float(self.value)

    @property
    def formula(self) -> str:
        """The law in LaTeX."""
        from theory.derivations_dynamics import latex

        return latex(self.law)


def fold(model: UFM | DeepLinear, *, first: bool = False) -> Boundary:
    """Where the collapsed fixed point of `model` disappears as its decays grow.

    Args:
        first: on given data, follow the branch to its first mode's end only; the others cost a descent or forty each.

    Raises:
        BadInput: a model without a known fixed point (as `fixed_point`); unequal classes with a decayed bias.
    """
    require(isinstance(model, UFM | DeepLinear), "model", type(model), "a UFM or a DeepLinear")
    if isinstance(model, UFM) and not linear_square(model):
        from theory.existence import fold_of_any_loss

        return fold_of_any_loss(model)
    require_linear(model, "the fold")
    if isinstance(model, DeepLinear) and not isinstance(model.inputs, Isotropic):
        return _followed(model, first)
    return _boundary(model, "fold")


def maxwell(model: UFM | DeepLinear) -> Boundary:
    """Where the collapsed fixed point stops being the global minimum, for equal classes; arguments and errors
    as `fold`, and data have to be `Isotropic`."""
    require_linear(model, "the Maxwell point")
    require(isinstance(model, UFM) or isinstance(model.inputs, Isotropic), "inputs", "an array",
            "Isotropic: modes that mix have no Maxwell point of their own")
    return _boundary(model, "maxwell")


def minority_threshold(model: UFM) -> Threshold:
    """Number of samples up to which a class vanishes from the features of a bias-free `UFM`, at its decays.

    n_k <= [prod lambda_i (N/2c)^D / Gamma_fold]^{1/(D-1)}; D = 2: N^2 lambda_W lambda_H / 4c^2 (minority
    collapse, Fang et al. 2021). Exact. N is held fixed.

    Raises:
        BadInput: a bias, which mixes classes: a mode that vanishes is then no single class's.
    """
    require_linear(model, "the threshold")
    require(isinstance(model, UFM), "model", type(model), "a UFM")
    require(model.bias == "none", "bias", model.bias, '"none": with a bias no mode belongs to one class')
    D = model.layers + 1
    own = np.concatenate([model.feature_decays[:, None], model.weight_decays], axis=1)
    gamma = np.prod(own ** (1 / D), axis=1) * model.samples / (2 * model.loss_scale)
    with np.errstate(over="ignore"):
        least = (gamma / mode.fold(D)[1]) ** (D / (D - 1))
    return Threshold(value=_one(least), law="minority",
                     assumptions=("Linear layers, no bias; the number of all samples is held fixed.",))


def mean_mode_threshold(model: UFM) -> Threshold:
    """lambda_b above which the mean mode of equal classes is active at the cheapest fixed point.

    2c rho/(1 - rho), rho the tension of the centred modes over Maxwell's; for one layer that is 2c (1 -
    sigma)/sigma = K lambda_W/m^2 and the transition is continuous, for more it is the tie of two minima.
    Exact; inf where the centred modes are beyond their own Maxwell point.

    Raises:
        BadInput: unequal classes.
    """
    require_linear(model, "the threshold")
    require(isinstance(model, UFM), "model", type(model), "a UFM")
    require(model.balanced, "samples_per_class", model.samples_per_class, "equal classes")
    own = np.concatenate([model.feature_decays[:, None], model.weight_decays], axis=1)
    D, two_c = model.layers + 1, 2 * model.loss_scale
    mean = np.prod(own ** (1 / D), axis=1)
    rho = mode.tension(D, mean, two_c / model.samples, np.sqrt(model.class_counts[0])) / mode.maxwell(D)[1]
    with np.errstate(divide="ignore"):
        value = _one(np.where(rho < 1, two_c * rho / np.maximum(1 - rho, 0), np.inf))
    tie = " The mean mode grows continuously from there." if D == 2 else " Two minima tie there."
    return Threshold(value=value, law="mean_mode_threshold", assumptions=("Linear layers, equal classes." + tie,))


def _degree(model: UFM | DeepLinear) -> int:
    return model.layers + isinstance(model, UFM)


def targets(model: UFM | DeepLinear) -> tuple[Array, Array]:
    """(b, g) of every mode that the data call for, as in `theory.mode`, mean mode of a decayed bias left
    out: it is weaker than the others at any decay."""
    n, K = np.asarray(model.class_counts, dtype=float), model.classes
    if isinstance(model, UFM):
        require(model.balanced or model.bias != "decayed", "samples_per_class", model.samples_per_class,
                'equal classes when bias = "decayed", which mixes the modes of unequal ones')
        if model.bias == "none":
            return np.sqrt(n), np.ones(K)
        root = np.sqrt(n)
        s = np.linalg.svd(np.diag(root) - np.outer(n, root) / n.sum(), compute_uv=False)[:-1]
        return s.astype(float), np.ones(K - 1)
    assert isinstance(model.inputs, Isotropic)
    r, R = model.inputs.amplitude, K - (model.bias != "none")
    return n[0] * r * np.ones(R), n[0] * (r**2 + model.inputs.noise) * np.ones(R)


def _boundary(model: UFM | DeepLinear, law: str) -> Boundary:
    D, scale = _degree(model), 2 * model.loss_scale / model.samples
    x, gamma = (mode.fold if law == "fold" else mode.maxwell)(D)
    b, g = targets(model)
    modes = np.sort(gamma / mode.tension(D, 1.0, scale, b, g))
    own = model.weight_decays
    if isinstance(model, UFM):
        own = np.concatenate([model.feature_decays[:, None], own], axis=1)
    with np.errstate(divide="ignore"):
        mean = np.exp(np.mean(np.log(own), axis=1))
        factor = modes[0] / mean
    weakest = int(np.argmin(b))
    unit = b[weakest] / g[weakest] if isinstance(model, DeepLinear) else 1.0
    said = ["Linear layers, every width at least K (K - 1 with a free bias)."]
    if D == 1:
        said.append("One factor: ridge regression, which never vanishes.")
    if not model.balanced:
        said.append("decay, factor and signal are those of the weakest mode; `last` of the strongest.")
    if model.bias == "decayed":
        said.append("The centred modes; the mean mode that competes with the bias vanishes before them.")
    return Boundary(decay=float(modes[0]), factor=_one(factor), product=float(modes[0] ** D),
                    signal=float(x * unit), modes=modes, law=law, assumptions=tuple(said))


def _one(values: Array) -> Any:
    return float(values[0]) if len(values) == 1 else values


def _followed(model: DeepLinear, first: bool) -> Boundary:
    """The fold on given data: the branch that starts at least squares, followed in the decay to where its
    modes die, one after the other."""
    data = deep_linear.moments(model)
    assert isinstance(data, deep_linear.Samples)
    M, c, said = model.layers, model.loss_scale, "One layer: ridge regression never vanishes."
    if M == 1:
        none = np.array([np.inf])
        return Boundary(decay=np.inf, factor=_one(np.full(model.lanes, np.inf)), product=np.inf, signal=0.0,
                        modes=none, law="fold", assumptions=(said,))

    def solve(lam: float, start: Array | None) -> tuple[Array, Array]:
        theta = 0.0 if model.bias == "none" else 2 * c / (2 * c + lam * (model.bias == "decayed"))
        g, E = data.eigen(theta)
        found = schatten.minimise(g, data.cross(theta) @ E, lam * model.samples / (2 * c), M,
                                  None if start is None else start @ E, most=20000)
        return found.s[found.s > GONE * found.s.max(initial=0)], (found.U * found.s) @ (E @ found.V).T

    s, A = solve(0.0, None)
    rank, lam, edges, signals = len(s), 1e-3 * float(s[-1]) ** 2, [], []
    while rank:
        lam, s, A = _edge(solve, rank, lam, A)
        edges.append(lam)
        signals.append(compact(s))
        if first:
            break
        left = min(rank - 1, len(solve(lam * (1 + 2 * STEP), A)[0]))
        edges += [lam] * (rank - 1 - left)
        rank, lam = left, lam * (1 + 2 * STEP)
    with np.errstate(divide="ignore"):
        factor = edges[0] / model.decays
    return Boundary(
        decay=float(edges[0]), factor=_one(factor), product=float(edges[0] ** M), signal=signals[0],
        modes=np.array(edges), law="fold_followed", status="numerical",
        assumptions=(f"The branch from least squares, followed in the decay in steps down to {STEP:g} of it.",
                     "decay, factor and signal are those at which the first mode dies."))


def _edge(solve: Any, rank: int, low: float, start: Array) -> tuple[float, Array, Array]:
    """(decay, signal, map) at the largest decay above `low` up to which `rank` modes live."""
    s, high = np.zeros(0), np.inf
    while high > low * (1 + STEP):
        trial = 1.5 * low if np.isinf(high) else np.sqrt(low * high)
        found, A = solve(trial, start)
        if len(found) >= rank:
            low, s, start = trial, found, A
        else:
            high = trial
    return low, s, start
