"""Networks whose gradient autograd takes: parameters of L lanes as named views into one tensor.

`theta` (L, P) and `grad` (L, P) are what an optimiser sees; layers read views of the one and the gradient is
written into views of the other, so a lane is one row, as in `realnets.mlp`. BatchNorm is PyTorch's: the
running statistics are state outside `theta`, updated by `gradient` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from ncflow.errors import require
from realnets.mlp import LOSSES

NORMALIZATIONS = ("batch", "none")
STATISTICS = ("running", "batch")
MOMENTUM, EPSILON = 0.1, 1e-5  # of torch.nn.BatchNorm
_ROW = 64  # rows are multiples of this, so that vector kernels treat a lane alike wherever it stands


class AutogradNet:
    """What networks on autograd share; a subclass says what it computes in `_run` and how it is drawn in `_draw`.

    Names: layer l has a weight "W_l" and, if it is normalised, "gamma_l" and "beta_l" with running statistics
    "mean_l" and "var_l"; the head is the last weight, with bias "b_l".

    Args:
        shapes: of one lane's parameters by name, in the order of `theta`.
        seeds: one per lane. A lane's draw depends on its seed and the shapes only.
        together: whether `_run` takes all lanes at once (L, ...), or one at a time without the lane dimension.

    Attributes:
        theta, grad: (L, P) parameters and gradient, zeros after the first `parameters` of a row.
        lanes, classes, parameters: L, K, and the number of parameters of one lane.
        weight_layers: names of the weights in order, the head last.
        normalised: labels l of the BatchNorms, in order.
        widest: most activations that one sample has in one layer.
        streams: labels of the BatchNorms that write into each residual stream, the last stream last; without skip
            each BatchNorm is a stream. Empty without normalization.
        degrees: groups of parameters by name -> degree: scaling a group by s > 0 scales the features by s^degree (degree 0
            up to BatchNorm's epsilon). Other groups have none, as paths through a block and around it differ.
        cancelling: pairs of weights of which one may grow as the other shrinks, and the features stay.
    """

    widest: int
    streams: list[list[str]]
    degrees: dict[tuple[str, ...], int]
    cancelling: list[tuple[str, str]]

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seeds: Sequence[int], *, together: bool,
                 dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"):
        require(len(seeds) >= 1, "seeds", seeds, "one per lane, at least one")
        self.shapes, self.lanes = dict(shapes), len(seeds)
        self.weight_layers = [name for name in shapes if name.startswith("W_")]
        self.normalised = [name.removeprefix("gamma_") for name in shapes if name.startswith("gamma_")]
        self.classes = shapes[self.weight_layers[-1]][0]
        self.parameters = sum(map(prod, shapes.values()))
        self.theta = torch.zeros(self.lanes, -(-self.parameters // _ROW) * _ROW, dtype=dtype, device=device)
        self.grad = torch.zeros_like(self.theta)
        self._named, grads = self._views(self.theta), self._views(self.grad)
        self._state: dict[str, Tensor] = {}
        for label in self.normalised:
            width = shapes[f"gamma_{label}"]
            self._state[f"mean_{label}"] = torch.zeros(self.lanes, *width, dtype=dtype, device=device)
            self._state[f"var_{label}"] = torch.ones(self.lanes, *width, dtype=dtype, device=device)
        picks: list[slice | int] = [slice(None)] if together else list(range(self.lanes))
        self._groups = [
            ({n: v[i].detach().requires_grad_() for n, v in self._named.items()}, {n: v[i] for n, v in grads.items()},
             {n: v[i] for n, v in self._state.items()}, i) for i in picks]
        for lane, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            for name, view in self._named.items():
                view[lane] = self._draw(name, torch.zeros(shapes[name]), generator)

    def _draw(self, name: str, zero: Tensor, generator: torch.Generator) -> Tensor:
        """One lane's initial value of a parameter; may overwrite `zero`, which has its shape."""
        raise NotImplementedError

    def _positions(self, name: str) -> int:
        """How often a sample meets each number of a weight."""
        return 1

    def _run(self, p: Mapping[str, Tensor], x: Tensor, state: Mapping[str, Tensor], statistics: str,
             kept: dict[str, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Logits (.., B, K) and features (.., B, p); `statistics` as in `batch_norm`.

        Fills `kept`, unless None: "h_1", "h_2", .. what `hidden` lists, "y_l" what BatchNorm l puts out.
        """
        raise NotImplementedError

    @property
    def head(self) -> tuple[Tensor, Tensor | None]:
        """W (L, K, p) and b (L, K) of the last layer."""
        last = self.weight_layers[-1]
        return self._named[last], self._named.get("b" + last[1:])

    def named(self) -> dict[str, Tensor]:
        """Views (L, ...) into `theta` by name."""
        return dict(self._named)

    def buffers(self) -> dict[str, Tensor]:
        """Running means and variances (L, channels) by name; writing to them changes the network."""
        return dict(self._state)

    def work(self, batch: int) -> float:
        """Floating-point operations of one layer's product over all lanes at this batch size, mean over the layers."""
        products = [self._named[name][0].numel() * self._positions(name) for name in self.weight_layers]
        return 2 * self.lanes * batch * sum(products) / len(products)

    def balance(self) -> Tensor:
        """(L, n) float64: what vanishes at any stationary point where all parameters are decayed alike, over the mean |W_l|^2.

        Scaling a group of degree 1 up and the head down changes nothing but the decay, so |group|^2 - |W_head|^2, group by
        group; then |W|^2 - |W'|^2 of the `cancelling` pairs.
        """
        squares = {name: view.double().square().flatten(1).sum(1) for name, view in self._named.items()}
        groups = [sum(squares[name] for name in group) for group, degree in self.degrees.items() if degree == 1]
        gaps = [group - squares[self.weight_layers[-1]] for group in groups]
        gaps += [squares[first] - squares[second] for first, second in self.cancelling]
        return torch.stack(gaps, 1) / torch.stack([squares[name] for name in self.weight_layers], 1).mean(1, keepdim=True)

    def rescale(self, alpha: Tensor) -> None:
        """Multiply the features of each lane by alpha (L,) > 0, through the last group of degree 1: the scales of the last
        stream, or the last weight below the head."""
        for name in [group for group, degree in self.degrees.items() if degree == 1][-1]:
            view = self._named[name]
            view.mul_(alpha.to(view).view(-1, *(1,) * (view.ndim - 1)))

    @torch.no_grad()
    def forward(self, x: Tensor, statistics: str = "running") -> tuple[Tensor, Tensor]:
        """Logits (L, B, K) and features (L, B, p) of inputs (L, B, ...), or (B, ...) for all lanes.

        Args:
            x: samples, each flat or in its own shape.
            statistics: BatchNorm with "running" statistics, frozen, or those of the "batch", which are then
                not recorded.
        """
        require(statistics in STATISTICS, "statistics", statistics, f"one of {', '.join(STATISTICS)}")
        x = self._laned(x)
        logits, features = self._gather([self._run(p, x[i], s, statistics, None) for p, _, s, i in self._groups])
        return logits, features

    def gradient(self, x: Tensor, targets: Tensor, loss: str) -> Tensor:
        """Set `grad` to the gradient of each lane's mean loss over its batch, without decay, and return it.

        BatchNorm takes the batch's statistics and updates the running ones (momentum 0.1, unbiased variance).

        Args:
            x: (L, B, ...) or (B, ...); B > 1 if the network has BatchNorm.
            targets: (L, B, K) or (B, K), one-hot.
            loss: "cross_entropy", mean over B; or "mse", mean over B K.
        """
        require(loss in LOSSES, "loss", loss, f"one of {', '.join(LOSSES)}")
        x = self._laned(x)
        enough = not self.normalised or x.shape[1] > 1
        require(enough, "batch", x.shape[1], "two samples or more: BatchNorm has no variance of one")
        targets = targets.expand(self.lanes, *targets.shape[-2:])
        for leaves, grads, state, i in self._groups:
            with torch.enable_grad():
                logits, _ = self._run(leaves, x[i], state, "train", None)
            whole = logits.detach().clone().view(-1, *logits.shape[-2:])
            delta = LOSSES[loss](whole, targets[i].view_as(whole)).view_as(logits)
            for out, found in zip(grads.values(), torch.autograd.grad(logits, list(leaves.values()), delta), strict=True):
                out.copy_(found)
        return self.grad

    def hidden(self, x: Tensor) -> list[Tensor]:
        """Features (L, B, p_l) layer by layer, ending with those that enter the head; running statistics."""
        return [value for name, value in self.trace(x).items() if name.startswith("h_")]

    @torch.no_grad()
    def trace(self, x: Tensor, statistics: str = "running") -> dict[str, Tensor]:
        """(L, ...) by name: "h_1", "h_2", .. as `hidden` lists them, "y_l" the output of BatchNorm l, "s" what
        enters the last ReLU."""
        x, kept = self._laned(x), []
        for p, _, state, i in self._groups:
            kept.append({})
            self._run(p, x[i], state, statistics, kept[-1])
        return dict(zip(kept[0], self._gather([tuple(k.values()) for k in kept]), strict=True))

    def _laned(self, x: Tensor) -> Tensor:
        return x.expand(self.lanes, *x.shape) if x.ndim in (2, 4) else x

    def _gather(self, found: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
        """Of what each group gave, (L, ...)."""
        together = isinstance(self._groups[0][3], slice)
        return list(found[0]) if together else [torch.stack(values) for values in zip(*found, strict=True)]

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        parts = flat[:, : self.parameters].split([prod(shape) for shape in self.shapes.values()], dim=1)
        return {n: part.view(-1, *shape) for (n, shape), part in zip(self.shapes.items(), parts, strict=True)}


def batch_norm(z: Tensor, label: str, p: Mapping[str, Tensor], state: Mapping[str, Tensor], statistics: str) -> Tensor:
    """gamma (z - mean)/sqrt(var + eps) + beta per channel, dimension 1 of z (Ioffe & Szegedy 2015).

    `statistics` is "running", "batch", or "train": those of the batch, and the running ones move a tenth of the
    way to them.
    """
    gamma, beta = (p[f"{name}_{label}"].reshape(-1) for name in ("gamma", "beta"))
    mean, var = (state[f"{name}_{label}"].view(-1) for name in ("mean", "var"))
    if statistics == "batch":
        return F.batch_norm(z, None, None, gamma, beta, True, MOMENTUM, EPSILON)
    return F.batch_norm(z, mean, var, gamma, beta, statistics == "train", MOMENTUM, EPSILON)


def linear_head(fan_in: int, zero: Tensor, generator: torch.Generator) -> Tensor:
    """Weight or bias of the head as `torch.nn.Linear` draws it: uniform within +-1/sqrt(fan_in)."""
    return zero.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)


def looks_linear(zero: Tensor, first: bool, generator: torch.Generator) -> Tensor:
    """[[M, -M], [-M, M]] with M orthogonal, [M; -M] in the first layer (Balduzzi et al. 2017): (outputs, inputs, ...).

    Units come in pairs relu(u), relu(-u) and the next layer sees their difference u, so the network begins as a linear one
    of orthogonal maps, whatever its depth. A kernel has the matrix in its middle (delta-orthogonal, Xiao et al. 2018).
    """
    outputs, inputs = zero.shape[:2]
    M = torch.empty(outputs // 2, inputs if first else inputs // 2)
    torch.nn.init.orthogonal_(M, generator=generator)
    paired = torch.cat([M, -M])
    middle = (..., *(side // 2 for side in zero.shape[2:]))
    zero[middle] = paired if first else torch.cat([paired, -paired], 1)
    return zero
