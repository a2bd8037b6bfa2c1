"""Metrics of neural collapse: every published definition under a name of its own.

The literature calls several quantities "NC1" (and "NC2", "NC3") that disagree by up to 3x on balanced and
1.7x on unbalanced data, so here a name is one formula, listed in `METRICS`. Notation: K classes, n_c samples
in class c, N in all; class means mu_c, global mean mu_G, m_c = mu_c - mu_G, M = [m_c] (K x p); classifier W
(K x p), bias b (K); E = (I - 11^T/K)/sqrt(K-1). What papers leave unstated is in `Choices`.

Three layers, one set of formulas:

- `compute(features, labels, W, b)`: features in memory;
- `Moments` and `from_moments`: one pass, mergeable, no sample needed again: for what is measured often;
- `compute_streamed(batches, classes, W, b)`: features that come in batches.

`nc4_mismatch` and the pseudo-inverse forms (`NEEDS_SAMPLES`) take a second pass, once the class means are
final: nc4_mismatch classifies the samples by these means, and Tr(Sigma_W Sigma_B^+) sees Sigma_W in the K - 1
directions that they span. The pass projects the residuals on these directions; no p x p matrix is formed.

All is accumulated in float64 on the device of the features. Leading dimensions are lanes; a lane whose
features are not finite is NaN throughout and leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.linalg import matrix_norm, vector_norm

from ncflow.errors import BadInput, require

Weights = Literal["samples", "classes"]


@dataclass(frozen=True)
class Choices:
    """What a definition leaves open. The first three do not matter on balanced data; their defaults are the
    paper's (from its authors' code).

    - `sigma_w`: with r_i = h_i - mu_{y_i}, Sigma_W is (1/N) sum_i r_i r_i^T ("samples") or
      (1/K) sum_c (1/n_c) sum_{i in c} r_i r_i^T ("classes")
    - `global_mean`: mu_G is the mean of the samples ("samples") or of the class means ("classes")
    - `sigma_b`: Sigma_B is sum_c (n_c/N) m_c m_c^T ("samples") or (1/K) sum_c m_c m_c^T ("classes")
    - `decay_weights`, `decay_features`, `loss_scale`: lW, lH and c of the loss (c/N)|WH - Y|^2 + (lW/2)|W|^2
      + (lH/2)|H|^2, from which `nc2_gof_*` predicts norms; each a number or one per lane, all three or none
    """

    sigma_w: Weights = "samples"
    global_mean: Weights = "samples"
    sigma_b: Weights = "classes"
    decay_weights: Any = None
    decay_features: Any = None
    loss_scale: Any = None

    def __post_init__(self):
        for name in ("sigma_w", "global_mean", "sigma_b"):
            value = getattr(self, name)
            require(value in ("samples", "classes"), name, value, "samples or classes is accepted")
        given = [value is not None for value in self.loss.values()]
        values = tuple(self.loss.values())
        require(all(given) or not any(given), ", ".join(self.loss), values, "all or none is accepted")

    @property
    def loss(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("decay_weights", "decay_features", "loss_scale")}


@dataclass(frozen=True, eq=False)
class Moments:
    """What one pass over the samples keeps; float64, `...` are the lanes.

    - `counts` (K,): samples per class, n_c
    - `means` (..., K, p): class means mu_c (zero for a class not seen yet)
    - `within` (..., K): sum over the class of |h - mu_c|^2
    - `norm_sum` (...): sum over all samples of |h|; NaN where unknown, and then only `fn` is NaN
    """

    counts: Tensor
    means: Tensor
    within: Tensor
    norm_sum: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, features: Any, labels: Any, classes: int) -> Moments:
        """Moments of `features` (..., N, p) with `labels` (N,) in 0..classes-1; classes may be missing.

        The scatter is that of the residuals from the means just found, where an error of the means enters
        squared; E|h|^2 - |mu|^2 would cancel. float32 is converted before anything is subtracted. Raises
        BadInput (a ValueError) for shapes that do not match and for labels out of range.
        """
        return reduce(Moments.merge, (cls._of(h, y, classes) for h, y in _blocks(features, labels, classes)))

    @classmethod
    def _of(cls, h: Tensor, y: Tensor, classes: int) -> Moments:
        counts = torch.bincount(y, minlength=classes).to(h.dtype)
        means = _class_sum(h, y, classes) / counts.clamp(min=1)[:, None]
        scatter = vector_norm(_residuals(h, y, means), dim=-1, keepdim=True).square()
        within = _class_sum(scatter, y, classes).squeeze(-1)
        return cls(counts, means, within, vector_norm(h, dim=-1).sum(-1))

    def merge(self, other: Moments) -> Moments:
        """Moments of the samples of both; exact (Chan, Golub & LeVeque 1983, pairwise update)."""
        shape, given = tuple(self.means.shape), tuple(other.means.shape)
        require(given == shape, "means.shape", given, f"{shape} is accepted, as in the samples before")
        counts = self.counts + other.counts
        share = other.counts / counts.clamp(min=1)
        delta = other.means - self.means
        return Moments(
            counts,
            self.means + share[:, None] * delta,
            self.within + other.within + self.counts * share * delta.square().sum(-1),
            self.norm_sum + other.norm_sum,
        )


class _Geometry:
    """Moments, classifier and choices, with what several metrics share; evaluated when first asked for."""

    pinv: Tensor  # Tr(Sigma_W Sigma_B^+)
    mismatch: Tensor  # the value of nc4_mismatch; both are set by `second_pass`

    def __init__(self, moments: Moments, W: Any, b: Any, choices: Choices):
        self.moments, self.counts, self.mu = moments, moments.counts, moments.means
        self.lanes, (self.K, p) = self.mu.shape[:-2], self.mu.shape[-2:]
        require(self.K >= 2, "classes", self.K, "at least 2")
        self.N = self.counts.sum()
        weights = {"samples": self.counts / self.N, "classes": torch.full_like(self.counts, 1 / self.K)}
        self.w_within = weights[choices.sigma_w]  # (K,), each sums to one
        self.w_global = weights[choices.global_mean]
        self.w_between = weights[choices.sigma_b]
        self.mu_G = (self.w_global[:, None] * self.mu).sum(-2, keepdim=True)
        self.M = self.mu - self.mu_G
        self.norms = vector_norm(self.M, dim=-1)
        self.W = self._per_lane("W", W, (self.K, p))
        self.b = self._per_lane("b", b, (self.K,))
        self.loss = [self._per_lane(name, value, ()) for name, value in choices.loss.items()]

    def _per_lane(self, name: str, value: Any, shape: tuple[int, ...]) -> Any:
        """`value` of shape (*lanes, *shape), or (*shape) for all lanes."""
        if value is None:
            return None
        value, full = _float64(value, self.counts.device), (*self.lanes, *shape)
        accepted = f"{shape}" if full == shape else f"{shape} or {full}"
        given = tuple(value.shape)
        require(given in (shape, full), f"{name}.shape", given, f"{accepted} is accepted")
        return value.expand(full)

    @cached_property
    def valid(self) -> Tensor:
        """(...): lanes with finite moments and a sample of every class."""
        finite = self.mu.isfinite().all(-1) & self.moments.within.isfinite() & (self.counts > 0)
        return finite.all(-1)

    @cached_property
    def M_hat(self) -> Tensor:
        return self.M / self.norms[..., None]

    @cached_property
    def cosines(self) -> Tensor:
        return self.M_hat @ self.M_hat.mT

    @cached_property
    def identity(self) -> Tensor:
        return torch.eye(self.K, dtype=self.counts.dtype, device=self.counts.device)

    @cached_property
    def simplex(self) -> Tensor:
        """Cosines of a simplex ETF; E is this over its Frobenius norm."""
        return (self.identity - 1 / self.K) * (self.K / (self.K - 1))

    def mean_of_pairs(self, x: Tensor) -> Tensor:
        """Mean of (..., K, K) off the diagonal."""
        return x.masked_fill(self.identity.bool(), 0).sum((-2, -1)) / (self.K * (self.K - 1))

    @cached_property
    def variances(self) -> Tensor:
        """(..., K): mean squared distance of the samples of a class from their mean."""
        return self.moments.within / self.counts

    @cached_property
    def trace_w(self) -> Tensor:
        return (self.w_within * self.variances).sum(-1)

    @cached_property
    def trace_b(self) -> Tensor:
        return (self.w_between * self.norms.square()).sum(-1)

    @cached_property
    def cdnv(self) -> Tensor:
        # From differences of the means: a Gram matrix would cancel where two of them nearly coincide.
        distances = torch.cdist(self.mu, self.mu, compute_mode="donot_use_mm_for_euclid_dist").square()
        variances = self.variances[..., :, None] + self.variances[..., None, :]
        return self.mean_of_pairs(variances / (2 * distances))

    @cached_property
    def gof(self) -> tuple[Tensor, Tensor]:
        """diag(m_k^2), diag(w_k^2) of the general orthogonal frame; zero for a class below its threshold."""
        lw, lh, c = (value[..., None] for value in self.loss)
        signal = (1 - self.N * (lw * lh).sqrt() / (2 * c * self.counts.sqrt())).clamp(min=0)
        m2, w2 = (lw / (lh * self.counts)).sqrt(), (lh * self.counts / lw).sqrt()
        return torch.diag_embed(signal * m2), torch.diag_embed(signal * w2)

    @cached_property
    def whitener(self) -> Tensor:
        """T (..., p, R), R = min(K - 1, p): columns v_k/sqrt(l_k) of Sigma_B = sum l_k v_k v_k^T, whose
        pseudo-inverse is T T^T.

        Sigma_B = A^T A with A = diag(sqrt(w_c)) M. As sum_c g_c m_c = 0 (g: weights of the global mean),
        g/sqrt(w) is a left null vector of A; a reflection that takes it to the last axis leaves K - 1 rows
        with the same A^T A, so the structural zero is gone exactly and is no eigenvalue of rounding error to
        invert. The singular values of these rows are the roots of their Gram matrix's eigenvalues, the small
        ones more accurate. Directions with l_k <= max(K, p) eps l_1, the customary cutoff of a
        pseudo-inverse, count as zero.
        """
        root = self.w_between.sqrt()
        null = self.w_global / root
        u = null / vector_norm(null)
        u = torch.cat([u[:-1], u[-1:] + 1])
        A = root[:, None] * self.M
        A = (A - u[:, None] * (u @ A)[..., None, :] * (2 / (u @ u)))[..., :-1, :]
        A = torch.where(self.valid[..., None, None], A, 0.0)  # LAPACK refuses NaN for all lanes at once
        _, s, Vh = torch.linalg.svd(A, full_matrices=False)
        cutoff = (max(self.K, A.shape[-1]) * torch.finfo(s.dtype).eps) ** 0.5
        return Vh.mT * torch.where(s > cutoff * s[..., :1], 1 / s, 0.0)[..., None, :]

    def second_pass(self, batches: Iterable, pinv: bool, mismatch: bool) -> int:
        """Set `pinv` and `mismatch` from the samples; return how many were seen."""
        seen, trace, differ = 0, self.counts.new_zeros(self.lanes), self.counts.new_zeros(self.lanes)
        # argmin_c |h - mu_c| = argmax_c h.m_c - mu_G.m_c - |m_c|^2/2, as |h - mu_G|^2 is common to all c.
        threshold = ((self.M * self.mu_G).sum(-1) + self.norms.square() / 2)[..., None, :]
        for h, y in (block for features, labels in batches for block in _blocks(features, labels, self.K)):
            seen += y.numel()
            if pinv:
                scores = _residuals(h, y, self.mu) @ self.whitener
                trace += vector_norm(scores, dim=-1).square() @ (self.w_within / self.counts)[y]
            if mismatch:
                logits = h @ self.W.mT
                if self.b is not None:
                    logits += self.b[..., None, :]
                nearest = (h @ self.M.mT).sub_(threshold)
                differ += (logits.argmax(-1) != nearest.argmax(-1)).sum(-1)
        # The pseudo-inverse of zero is zero, which would call features without any class structure collapsed.
        self.pinv = torch.where(self.trace_b > 0, trace, self.trace_w / self.trace_b)
        if mismatch:  # argmax hides a classifier that is not finite
            finite = self.W.isfinite().all(-1) & (True if self.b is None else self.b.isfinite())
            self.mismatch = torch.where(finite.all(-1), differ / self.N, torch.nan)
        return seen


def _gram_distance(A: Tensor, B: Tensor, target: Tensor) -> Tensor:
    """|A B^T/|A B^T|_F - target/|target|_F|_F."""
    return matrix_norm(_unit(A @ B.mT) - _unit(target))


def _unit(A: Tensor) -> Tensor:
    return A / matrix_norm(A, keepdim=True)


def _centred(A: Tensor) -> Tensor:
    return A - A.mean(-2, keepdim=True)


@dataclass(frozen=True)
class Metric:
    """One definition: `formula`, `source` (who defines or uses it), `unit` ("1": none), and what it `needs`
    beyond moments: of "W", "samples" (a second pass) and "loss" (decays and loss scale)."""

    name: str
    formula: str
    source: str
    value: Callable[[_Geometry], Tensor]
    needs: tuple[str, ...] = ()
    unit: str = "1"

    def __str__(self) -> str:
        return f"{self.name} = {self.formula} [{self.source}]"


_PAPYAN, _ZHU, _DANG = "Papyan, Han & Donoho 2020", "Zhu et al. 2021", "Dang et al. 2023"
_TABLE = (
    # NC1: scatter within the classes against the distances between them
    Metric("nc1_trace_ratio", "Tr Sigma_W / Tr Sigma_B", "the paper (its T_NC)",
           lambda g: g.trace_w / g.trace_b),
    Metric("nc1_pinv_over_k", "Tr(Sigma_W Sigma_B^+) / K, rank K-1", f"{_ZHU}; Zhou et al. 2022; {_DANG}",
           lambda g: g.pinv / g.K, ("samples",)),
    Metric("nc1_pinv", "Tr(Sigma_W Sigma_B^+), rank K-1", f"{_PAPYAN}, notebook",
           lambda g: g.pinv, ("samples",)),
    Metric("cdnv", "mean over c != c' of (s2_c + s2_c')/(2 |mu_c - mu_c'|^2), s2_c = mean |h - mu_c|^2 in c",
           "Galanti et al. 2022", lambda g: g.cdnv),
    # NC2: the frame of the class means, or of the classifier
    Metric("nc2_equiangular_l1", "mean over i != j of |cos(m_i, m_j) + 1/(K-1)|", f"the paper; {_PAPYAN}",
           lambda g: g.mean_of_pairs((g.cosines - g.simplex).abs())),
    Metric("nc2_gram_fro_over_K", "|cos(M) - (K/(K-1)) (I - 11^T/K)|_F / K", "the paper's ResNet notebook",
           lambda g: matrix_norm(g.cosines - g.simplex) / g.K),
    Metric("nc2_equinorm_cov", "std_c |m_c| / mean_c |m_c|, std with divisor K", _PAPYAN,
           lambda g: g.norms.std(-1, correction=0) / g.norms.mean(-1)),
    Metric("nc2_etf_fro_W", "|W W^T/|W W^T|_F - E|_F", f"{_ZHU} (tding1)",
           lambda g: _gram_distance(g.W, g.W, g.simplex), ("W",)),
    Metric("nc2_etf_fro_Wc", "nc2_etf_fro_W of W less the mean of its rows", "Zhou et al. 2022 (jinxinzhou)",
           lambda g: _gram_distance(_centred(g.W), _centred(g.W), g.simplex), ("W",)),
    Metric("nc2_etf_fro_M", "|M M^T/|M M^T|_F - E|_F", "Kothapalli 2023 (rhubarbwu)",
           lambda g: _gram_distance(g.M, g.M, g.simplex)),
    Metric("nc2_of_fro_M", "|G/|G|_F - I/sqrt(K)|_F, G the Gram matrix of the uncentred mu_c", _DANG,
           lambda g: _gram_distance(g.mu, g.mu, g.identity)),
    Metric("nc2_gof_M", "|G/|G|_F - D/|D|_F|_F, G as in nc2_of_fro_M, D = diag(s_k sqrt(lW/(lH n_k))), "
           "s_k = max(0, 1 - N sqrt(lW lH)/(2 c sqrt(n_k)))", _DANG,
           lambda g: _gram_distance(g.mu, g.mu, g.gof[0]), ("loss",)),
    Metric("nc2_gof_W", "|W W^T/|W W^T|_F - D/|D|_F|_F, D = diag(s_k sqrt(lH n_k/lW)), s_k as in nc2_gof_M",
           _DANG, lambda g: _gram_distance(g.W, g.W, g.gof[1]), ("W", "loss")),
    # NC3: the classifier against the class means; NC4: its decisions against theirs
    Metric("nc3_one_minus_cos", "1 - mean_c cos(w_c, m_c)", "the paper",
           lambda g: 1 - ((g.W * g.M_hat).sum(-1) / vector_norm(g.W, dim=-1)).mean(-1), ("W",)),
    Metric("nc3_dual_sq", "|W/|W|_F - M/|M|_F|_F^2", f"{_PAPYAN}, notebook",
           lambda g: matrix_norm(_unit(g.W) - _unit(g.M)).square(), ("W",)),
    Metric("nc3_etf_fro", "|W M^T/|W M^T|_F - E|_F", f"{_ZHU} (tding1); {_DANG} (Fsoft); Kothapalli 2023",
           lambda g: _gram_distance(g.W, g.M, g.simplex), ("W",)),
    Metric("nc4_mismatch", "share of samples with argmax_c (W h + b)_c != argmin_c |h - mu_c|", _PAPYAN,
           lambda g: g.mismatch, ("W", "samples")),
    # Sizes
    Metric("nc0", "|sum_c w_c|", "arXiv 2602.16642",
           lambda g: vector_norm(g.W.sum(-2), dim=-1), ("W",), "weight"),
    Metric("fn", "(1/N) sum_i |h_i|", "the paper", lambda g: g.moments.norm_sum / g.N, unit="feature"),
    Metric("class_mean_norm", "mean_c |mu_c|", "beside fn, which it does not exceed on balanced data",
           lambda g: vector_norm(g.mu, dim=-1).mean(-1), unit="feature"),
)

#: Every metric by its name; `str(METRICS[name])` is a line for a report.
METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _TABLE})
NAMES: tuple[str, ...] = tuple(METRICS)
NEEDS_W: tuple[str, ...] = tuple(name for name in NAMES if "W" in METRICS[name].needs)
NEEDS_SAMPLES: tuple[str, ...] = tuple(name for name in NAMES if "samples" in METRICS[name].needs)


def compute(
    features: Any, labels: Any, W: Any = None, b: Any = None,
    *, names: Iterable[str] | None = None, **choices: Any,
) -> dict[str, Tensor]:  # fmt: skip
    """Every metric that the arguments determine.

    - `features` (..., N, p), tensor or array of any float type; leading dimensions are lanes
    - `labels` (N,), integers 0..K-1, each at least once; K is the rows of W, else the largest label + 1
    - `W` (..., K, p) or (K, p), `b` (..., K) or (K,); without W the metrics of `NEEDS_W` are absent
    - `names`: only these, and only the work that they need
    - `sigma_w`, `global_mean`, `sigma_b`, `decay_weights`, `decay_features`, `loss_scale`: see `Choices`;
      without the last three `nc2_gof_*` are absent

    Returns name -> float64 tensor (...) on the device of the features. Where Tr Sigma_B = 0 every nc1 is inf,
    or NaN if Tr Sigma_W = 0 too: features that are all zero have not collapsed. Raises BadInput (a ValueError
    of one line) for shapes, labels, choices, unknown names, and names that lack what they need.
    """
    features = _tensor(features)
    if W is None:
        labels = _labels(labels, features, None)
        classes = int(labels.max()) + 1
    else:
        require(np.ndim(W) >= 2, "W.shape", tuple(np.shape(W)), "(..., K, p) is accepted")
        classes = np.shape(W)[-2]
    return compute_streamed(lambda: [(features, labels)], classes, W, b, names=names, **choices)


@torch.no_grad()
def compute_streamed(
    batches: Callable[[], Iterable[tuple[Any, Any]]], classes: int, W: Any = None, b: Any = None,
    *, names: Iterable[str] | None = None, **choices: Any,
) -> dict[str, Tensor]:  # fmt: skip
    """`compute` for samples in batches: `batches()` starts a pass over (features (..., n, p), labels (n,)).

    It is called once, and once more if a metric of `NEEDS_SAMPLES` is wanted. Order does not matter, but both
    passes must see the same samples (no augmentation). A batch may lack classes. Raises as `compute`, and
    when the passes differ in their number of samples.
    """
    require(callable(batches), "batches", type(batches).__name__, "a function that starts a pass is accepted")
    made = Choices(**choices)
    metrics = _select(names, W, b, made, samples=True)
    moments, samples = None, 0
    for features, labels in batches():
        part = Moments.of(features, labels, classes)
        moments = part if moments is None else moments.merge(part)
        samples += len(labels)
    if moments is None:
        raise BadInput("batches", "no batch", "at least one is accepted")
    for label, count in enumerate(moments.counts.tolist()):
        require(count > 0, "labels", f"no sample of class {label}", f"each of 0..{classes - 1} must occur")
    g = _Geometry(moments, W, b, made)
    wanted = {metric.name for metric in metrics if "samples" in metric.needs}
    if wanted:
        seen = g.second_pass(batches(), pinv=wanted != {"nc4_mismatch"}, mismatch="nc4_mismatch" in wanted)
        accepted = f"{samples}, as in the first, is accepted: batches() must start anew"
        require(seen == samples, "samples in the second pass over batches", seen, accepted)
    return _evaluate(g, metrics)


@torch.no_grad()
def from_moments(
    moments: Moments, W: Any = None, b: Any = None, *, names: Iterable[str] | None = None, **choices: Any
) -> dict[str, Tensor]:
    """Every metric that moments determine: all but `NEEDS_SAMPLES`. Otherwise as `compute`.

    Nothing is read back from the device, so a class without samples is not an error here: all metrics are
    NaN.
    """
    made = Choices(**choices)
    return _evaluate(_Geometry(moments, W, b, made), _select(names, W, b, made, samples=False))


def _evaluate(g: _Geometry, metrics: list[Metric]) -> dict[str, Tensor]:
    return {metric.name: metric.value(g).masked_fill(~g.valid, torch.nan) for metric in metrics}


def _select(names: Iterable[str] | None, W: Any, b: Any, choices: Choices, *, samples: bool) -> list[Metric]:
    """The metrics asked for, or all that what is given determines."""
    require(b is None or W is not None, "b", "given without W", "W and b, or W alone, is accepted")
    given = {"W": W is not None, "samples": samples, "loss": choices.loss_scale is not None}
    if names is None:
        return [metric for metric in METRICS.values() if all(given[need] for need in metric.needs)]
    names = [names] if isinstance(names, str) else list(names)
    how = {"W": "W", "samples": "the samples (compute, compute_streamed)", "loss": ", ".join(choices.loss)}
    for name in names:
        require(name in METRICS, "names", name, f"accepted are {', '.join(NAMES)}")
        lacking = [how[need] for need in METRICS[name].needs if not given[need]]
        require(not lacking, "names", name, f"accepted only with {' and '.join(lacking)}")
    return [METRICS[name] for name in names]


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value, dtype=np.float64))


def _float64(value: Any, device: torch.device | None = None) -> Tensor:
    return _tensor(value).to(device=device, dtype=torch.float64)


def _labels(labels: Any, features: Tensor, classes: int | None) -> Tensor:
    """`labels` as int64 beside `features`, both checked."""
    require(features.ndim >= 2, "features.shape", tuple(features.shape), "(..., N, p) is accepted")
    y = labels if isinstance(labels, Tensor) else torch.from_numpy(np.array(labels))
    N, shape = features.shape[-2], tuple(y.shape)
    require(shape == (N,) and N > 0, "labels.shape", shape, f"({N},) is accepted, one per sample, N >= 1")
    whole = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    require(whole, "labels.dtype", y.dtype, "integers are accepted")
    y = y.to(device=features.device, dtype=torch.int64)
    low, high = (int(bound) for bound in y.aminmax())
    inside = low >= 0 and (classes is None or high < classes)
    require(inside, "labels", f"{low}..{high}", f"0..{'K-1' if classes is None else classes - 1} is accepted")
    return y


def _blocks(features: Any, labels: Any, classes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Checked samples, some at a time, as rows in float64: less memory, and faster where they stay in cache."""
    features = _tensor(features)
    y = _labels(labels, features, classes)
    size = max(1, 2 ** (18 if features.is_cpu else 26) * y.numel() // max(1, features.numel()))
    for part, some in zip(features.split(size, -2), y.split(size), strict=True):
        yield _float64(part).contiguous(), some  # norms of strided rows take ten times as long


def _class_sum(x: Tensor, y: Tensor, classes: int) -> Tensor:
    """(..., N, p) -> (..., classes, p): sums over the samples of each class."""
    if x.is_cpu:
        return x.new_zeros(*x.shape[:-2], classes, x.shape[-1]).index_add_(-2, y, x)
    return torch.nn.functional.one_hot(y, classes).to(x.dtype).mT @ x  # atomic sums do not repeat to the bit


def _residuals(h: Tensor, y: Tensor, means: Tensor) -> Tensor:
    """mu_{y_i} - h_i (..., N, p); in place, as a second array of this size costs more than the arithmetic."""
    return means.index_select(-2, y).sub_(h)
