r"""Fixed points with batch normalisation: L normalised blocks summed on one residual stream, a ReLU, a head.

h = relu(s), s = sum_l (gamma_l BN(Z_l) + beta_l), with gamma, beta and the head decayed by lambda and Z free
or the output of scale-invariant weights. BN outputs have mean 0 and variance 1, so a channel of stream values
s costs at least lambda/(2L) E s^2, reached when the L blocks share it equally: a `nonnegative` model with

    lambda_H = lambda/(N L),

exactly, and units that are off sit at s = 0, that is beta = gamma/sqrt(K-1). Data, width, depth and the
decay of Z drop out:

    squared loss, free bias     fn = sqrt(x) ((K-1) L)^{1/4},   x = 1 - (lambda/2c) K / sqrt((K-1) L)
    squared loss, no bias       fn = sqrt(x) (K L)^{1/4},       x = 1 - (lambda/2c) sqrt(K/L)
    cross-entropy               fn = sqrt(x) ((K-1) L)^{1/4},   x = ln(sqrt((K-1) L)/lambda - K + 1)

**Average pooling** over S positions, statistics over the N S of them, changes nothing at the optimum: for a
given mean of relu(s) the cost E s^2 is least when the image is uniform. **ReLUs on the stream** (a residual
stage) change nothing either: |relu(a)| <= |a|, so by the triangle inequality |h| <= sum_l |y_l| in mean
square, y_l the outputs of the L BatchNorms, while equal non-negative shares attain it. A stage of a
projection shortcut and three blocks has L = 4.

**A trained stage** has an *effective* L <= L instead, E|h|^2 / sum_l (|gamma_l|^2 + |beta_l|^2), which
factors exactly into what `stage` measures. With it, and the raw cosine rho of the class means,

    g(x) = lambda / sqrt((K-1) L (1-rho)),    fn = sqrt(x) ((K-1) L/(1-rho))^{1/4}

holds at any collapsed point where head and scales balance, |W|^2 = sum_l (|gamma_l|^2 + |beta_l|^2), which
decay enforces at rate 2 lambda (lr/(1-momentum) per step of SGD) whatever the data. At rest y_l = (N/lambda)
P_l G, G the pull on the stream and P_l the projection on the block's normalised channels and 1, whence
L >= sum_l |P_l G|^2/|G|^2: blocks count by how much of the collapsed code they can produce.

**ResNet-20**, K = 10, lambda 1e-3. L = 4 bounds fn of an orthogonal frame at rest by 2.44 (squared loss, c =
1/K) and 7.22 (cross-entropy; 8.12 at 1e-4). The published fn, read as rest points, imply L/(1-rho) = 0.6
(CIFAR-10) and 0.9 (Fashion-MNIST) under squared loss, 1.9 under cross-entropy, 2.9 with Adam at 1e-4. Trained
here (1,000 MNIST images at 14 x 14, SGD to 300 epochs, one seed each) it is 1.7 and 2.5:

    loss           fn    from x, L, rho  from L, rho   L = blocks  alignment  relu  pooling  epsilon
    squared        2.01  2.00            1.95 (-2.9%)  1.33 = 2.92  0.63      0.98  0.96     0.77
    cross-entropy  6.69  6.63            6.22 (-7.0%)  1.93 = 3.46  0.63      0.99  0.91     0.99

with rho 0.20 and 0.22: the factor 3 between losses is theirs, L is low because early blocks fade (scales 0.05,
0.20, 1.09, 1.69 under squared loss) and blocks disagree, hardly because of pooling, and cross-entropy's signal
exceeds the collapsed one because hard samples carry the pull. Not explained: a-priori values of L and rho, and
T_NC as a rest point. Adam is far from balance there: sum_l (|gamma_l|^2 + |beta_l|^2) was 123 against |W|^2 =
12 after 4,800 steps at 1e-4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncflow.errors import require
from theory import nonnegative, strength
from theory.point import FixedPoint

Array = NDArray[np.float64]
SOURCE = "Derived here; balance of BatchNorm scales and head: van Laarhoven 2017, Li and Arora 2020 (scale)"
POOLING = ("Uniform images and blocks that share the stream equally; a trained stage is below: see `stage`.")


def fixed_point(model: Any, lane: int = 0) -> FixedPoint:
    """The collapsed fixed point of one lane of a `UFM` with normalization = "batch".

    gamma, beta and the head share `decay.weights`. The loss is without the decay of Z, whose infimum is 0.

    Raises:
        BadInput: naming the assumption that fails: `normalization`, `layers`, `activation`, `decay.weights`,
            `samples_per_class`, `bias`, `classes`.
    """
    require(getattr(model, "normalization", "none") == "batch", "normalization",
            getattr(model, "normalization", "none"), '"batch"')
    require(model.layers == 1, "layers", model.layers, "1: a head on the normalised features")
    lam = float(model.weight_decays[lane][0])
    require(lam > 0, "decay.weights", lam, "greater than 0: without decay no fixed point is isolated")
    counts = np.asarray(model.class_counts, dtype=float)
    decays = np.array([lam / (counts.sum() * model.streams), lam])
    return nonnegative.point(strength.of(model), counts, decays, model.bias, float(model.bias_decays[lane]),
                             assumptions=(nonnegative.FRAME, nonnegative.GLOBAL, POOLING), source=SOURCE)


def feature_norm(loss: strength.Loss, streams: ArrayLike, decay: ArrayLike, *, cosine: ArrayLike = 0.0,
                 ) -> tuple[Array, Array]:
    """(fn, x) of a network whose effective number of streams was measured. Broadcasts; nan below existence.

    Exact at a collapsed, balanced rest point with class means of equal norm and one raw cosine, free bias.

    Args:
        loss: of `theory.strength`.
        streams: L, from `stage`, or E|h|^2/|W|^2 where head and scales are not balanced yet.
        decay: lambda of head, gamma and beta.
        cosine: rho < 1, mean raw cosine of the class means.
    """
    L, lam, rho = (np.asarray(v, dtype=float) for v in (streams, decay, cosine))
    require(bool((L > 0).all()), "streams", streams, "greater than 0")
    require(bool((lam > 0).all()), "decay", decay, "greater than 0")
    require(bool((rho < 1).all()), "cosine", cosine, "below 1")
    modes = (loss.classes - 1) * L
    x = strength.roots(loss, 2, lam / np.sqrt(modes * (1 - rho)))[0]
    return np.sqrt(x) * (modes / (1 - rho)) ** 0.25, x


def implied_streams(fn: float, loss: strength.Loss, decay: float) -> float:
    """L/(1 - rho) at which `feature_norm` is fn, to leading order in rho; exact for rho = 0."""
    require(fn > 0, "fn", fn, "greater than 0")
    low, high = 1e-12, 1e12
    for _ in range(200):
        middle = np.sqrt(low * high)
        below = not float(feature_norm(loss, middle, decay)[0]) > fn
        low, high = (middle, high) if below else (low, middle)
    return float(np.sqrt(low * high))


@dataclass(frozen=True)
class Stage:
    """Where the streams of a residual stage go; `streams` is the product of the factors.

    Attributes:
        blocks: (sum_l |y_l|)^2 / sum_l |y_l|^2, from 1 (one block does all) to L (equal shares).
        alignment: |s|^2 / (sum_l |y_l|)^2 <= 1, lost where blocks disagree or an inner ReLU cuts.
        relu: |relu(s)|^2 / |s|^2 <= 1, lost to negative pre-activations.
        pooling: |h|^2 / |relu(s)|^2 <= 1, lost to variation within images.
        epsilon: sum_l |y_l|^2 / sum_l (|gamma_l|^2 + |beta_l|^2) <= 1, lost to BatchNorm's epsilon; 1 when
            the scales are not given.
    """

    blocks: float
    alignment: float
    relu: float
    pooling: float
    epsilon: float

    @property
    def streams(self) -> float:
        """E|h|^2 / sum_l (|gamma_l|^2 + |beta_l|^2)."""
        return self.blocks * self.alignment * self.relu * self.pooling * self.epsilon


def stage(outputs: Sequence[ArrayLike], stream: ArrayLike, scales: float | None = None) -> Stage:
    """The factors of the effective L, an identity; |.| is the root mean square over samples and positions.

    Args:
        outputs: the L BatchNorm outputs y_l on the last residual stream, (N, S, p) each, S positions.
        stream: (N, S, p) s, what enters the last ReLU.
        scales: sum_l (|gamma_l|^2 + |beta_l|^2).
    """
    y, s = [np.asarray(v, dtype=float) for v in outputs], np.asarray(stream, dtype=float)
    require(s.ndim == 3, "stream", f"array of shape {s.shape}", "shape (N, S, p)")
    require(len(y) > 0 and all(v.shape == s.shape for v in y), "outputs", [v.shape for v in y],
            f"one or more arrays of shape {s.shape}")

    def square(v: Array) -> float:
        return float(np.sum(v**2, axis=-1).mean())

    size, energy = sum(np.sqrt(square(v)) for v in y) ** 2, sum(square(v) for v in y)
    on = np.maximum(s, 0)
    return Stage(blocks=size / energy, alignment=square(s) / size, relu=square(on) / square(s),
                 pooling=square(on.mean(axis=1)) / square(on),
                 epsilon=1.0 if scales is None else energy / scales)
