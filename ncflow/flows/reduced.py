"""The reduced flow: a linear MSE model with free features, exact, at a cost that does not depend on N."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ncflow import metrics
from ncflow.flows.factored import Factored
from ncflow.flows.flow import Flow, Observation, float64, one_layer
from ncflow.flows.layout import Layout
from ncflow.flows.linear import chain, products_above
from ncflow.model import UFM

#: States of more numbers than this go one by one (`job._GROUP` has room for one) and move in place. Smaller ones do not: the
#: product rounds differently in place, and a lane must not depend on whether it has neighbours.
_ALONE = 2**15


class ReducedFlow(Flow):
    """The flow of K + r pseudo-samples Z = [B, F] (see `factored`); any n_k, number of layers and bias:

        dZ = -theta [A^T G + lambda_H Z],   db = -[G u + lambda_b b],
        dW_l = -[(W_M .. W_{l+1})^T G Z^T (W_{l-1} .. W_1)^T + lambda_l W_l],
        A = W_M .. W_1,   G = (2c/N) (A Z + b u^T - [D^(1/2), 0]),   u = (sqrt(n_1) .. sqrt(n_K), 0 .. 0).

    In a `Frame` (flow "subspace") the same holds for the coordinates inside, and `out` are the norms
    of H and W_1 .. W_{M-1} outside, which decay exponentially. Cost per evaluation and lane
    O(K d_0 (K + r) + K sum_l d_l d_{l-1}).

    The features of every sample are recovered whenever they are measured; a state known by its moments only
    has none, its norms are root mean squares and its scatter is shared out to the classes by their sizes.
    """

    name = "reduced"

    def __init__(
        self, model: UFM, lane: Tensor, states: Factored, row: Tensor, notes: dict[str, Any] | None = None
    ):  # fmt: skip
        """`lane` (lanes,): which of the model's own lanes each lane is; `row`: its start among `states`."""
        device, K = row.device, model.classes
        lanes = {"decay_W": float64(model.weight_decays, device)[lane], "row": row,
                 "decay_H": float64(model.feature_decays, device)[lane],
                 "decay_b": float64(model.bias_decays, device)[lane],
                 "mobility": float64(model.mobilities, device)[lane]}
        fading = (lanes["mobility"] * lanes["decay_H"])[:, None]
        lanes["fading"] = torch.cat([fading, lanes["decay_W"][:, :-1]], 1)  # rates outside the frame
        self.classes, self.samples, self.states = K, model.samples, states
        labels = torch.as_tensor(model.labels if states.V is not None else [], device=device)
        super().__init__(Layout(self.shapes(model)), lanes, model.layers, labels)
        if self.layout.size > _ALONE:
            fades = [self.rate(name).expand(-1, *shape).flatten(1) for name, shape in self.layout.shapes.items()]
            self.lanes["fade"] = -torch.cat(fades, 1)
        # Pseudo-samples are as large as the root of the samples that they stand for.
        size = (self.samples / K) ** 0.5
        self.unit = torch.cat([lane.new_full((numbers,), size if name in ("Z", "B", "z", "f") else 1.0, dtype=torch.float64)
                               for name, numbers in zip(self.layout.shapes, self.layout.sizes, strict=True)])
        self.counts = float64(model.class_counts, device)
        self.root = self.counts.sqrt()
        self.scale = 2 * model.loss_scale / model.samples
        self.loss_scale = model.loss_scale if one_layer(model) else None
        self.targets = torch.nn.functional.pad(self.root.diag(), (0, states.rank))
        if states.frame is not None:
            self.name = "subspace"
        self.notes = {"flow_dimension": states.dimensions[0], "flow_size": self.layout.size} | (notes or {})
        if states.V is None:
            self.notes["feature_norm"] = "root mean square: the features are known by their moments only"

    def shapes(self, model: UFM) -> dict[str, tuple[int, ...]]:
        """Blocks of the state."""
        Z: tuple[int, ...] = (self.states.dimensions[0], self.classes + self.states.rank)
        return {"Z": Z} | self.other_shapes(model)

    def other_shapes(self, model: UFM) -> dict[str, tuple[int, ...]]:
        """Blocks of the state besides the features."""
        dims = self.states.dimensions
        shapes: dict[str, tuple[int, ...]] = {
            f"W_{i + 1}": (rows, dims[i]) for i, rows in enumerate((*dims[1:], self.classes))}
        if model.bias != "none":
            shapes["b"] = (self.classes,)
        if self.states.frame is not None:
            shapes["out"] = (model.layers,)
        return shapes

    @property
    def names(self) -> tuple[str, ...]:
        features = ("M", "scatter") if self.states.V is None else ("H",)
        weights = (f"W_{i}" for i in range(1, self.layers + 1))
        return (*features, *weights, *(("b",) if self.states.b is not None else ()))

    @property
    def numbers(self) -> int:
        frame = self.states.frame
        widths = self.states.dimensions if frame is None else tuple(q.shape[1] for q in frame.bases)
        columns = self.samples if self.states.V is not None else max(widths)
        return max(self.layout.size, max(widths) * columns)

    def initial(self) -> dict[str, Tensor]:
        """Blocks of the initial states."""
        s = self.states
        blocks = {"Z": torch.cat([s.B, s.F], 2)} | {f"W_{i}": w for i, w in enumerate(s.W, 1)}
        blocks |= {} if s.frame is None else {"out": s.frame.sizes}
        return blocks | ({} if s.b is None else {"b": s.b})

    def begin(self, blocks: dict[str, Tensor], row: Tensor) -> Tensor:
        return self.layout.pack(self.initial())[self.lanes["row"]]

    def scaled(self, blocks: dict[str, Tensor], block: str) -> list[Tensor]:
        layer = 0 if block == "H" else int(block[2:])
        inside = [blocks["Z" if layer == 0 else block]]
        return [*inside, blocks["out"][:, layer]] if "out" in blocks and layer < self.layers else inside

    # The vector field

    def rate(self, name: str) -> Tensor:
        """(lanes, ...) what a block decays at by itself, as far as its numbers differ in it."""
        lanes = self.lanes
        if name in ("w", "out"):
            return lanes["decay_W"][:, :, None] if name == "w" else lanes["fading"]
        if name == "g":
            return 2 * lanes["decay_W"][:, :1]
        if name in ("b", "beta"):
            return lanes["decay_b"][:, None]
        own = lanes["decay_W"][:, int(name[2:]) - 1] if name.startswith("W_") else lanes["fading"][:, 0]
        return own.reshape(-1, *[1] * len(self.layout.shapes[name]))

    def field(self, y: Tensor) -> Tensor:
        blocks = self.layout.unpack(y)
        Z, W = blocks["Z"], self.weights(blocks)
        above = products_above(W)
        error = self.error(blocks, above[0], Z)
        gains = self.descend(W, above, torch.bmm(error, Z.mT), error)
        gains["Z"] = (self.pull(above[0]), error)
        return self.velocity(y, gains)

    def velocity(self, y: Tensor, gains: dict[str, Tensor | tuple[Tensor, Tensor]]) -> Tensor:
        """What decays by itself, and what blocks gain besides: numbers, or two factors of a product."""
        if len(y) == 1 and "fade" in self.lanes:  # without copies, as blocks have no gaps
            out = self.lanes["fade"] * y
            for name, block in self.layout.unpack(out).items():
                gain = gains.get(name)
                if isinstance(gain, tuple):
                    block.baddbmm_(*gain)
                elif gain is not None:
                    block += gain
            return out
        whole = {}
        for name, block in self.layout.unpack(y).items():
            gain = gains.get(name)
            gain = torch.bmm(*gain) if isinstance(gain, tuple) else torch.zeros_like(block) if gain is None else gain
            whole[name] = gain.addcmul_(self.rate(name), block, value=-1)
        return self.layout.pack(whole)

    def pull(self, A: Tensor) -> Tensor:
        """theta A^T (lanes, d_0, K), by which the features feel the error."""
        return (A * self.lanes["mobility"][:, None, None]).mT

    def error(self, blocks: dict[str, Tensor], A: Tensor, Z: Tensor) -> Tensor:
        """-G (lanes, K, columns of Z)."""
        error = torch.baddbmm(self.targets[:, : Z.shape[2]], A, Z, beta=self.scale, alpha=-self.scale)
        if "b" in blocks:
            error[:, :, : self.classes] -= self.scale * blocks["b"][:, :, None] * self.root
        return error

    def descend(
        self, W: list[Tensor], above: list[Tensor], gradient: Tensor, error: Tensor
    ) -> dict[str, Tensor | tuple[Tensor, Tensor]]:  # fmt: skip
        """What weights and bias gain by the data term; `gradient` is minus its derivative by A."""
        gains: dict[str, Tensor | tuple[Tensor, Tensor]] = {}
        for i, (w, top) in enumerate(zip(W[:-1], above[1:], strict=True), 1):
            gains[f"W_{i}"] = (top.mT, gradient)
            gradient = torch.bmm(gradient, w.mT)
        gains[f"W_{len(W)}"] = gradient
        if "b" in self.layout.shapes:
            gains["b"] = error[:, :, : self.classes] @ self.root
        return gains

    # What is measured

    def expand(self, y: Tensor) -> dict[str, Tensor]:
        """Blocks "B", "F", "W_1" .. "W_M", "b", "out" of the states y, in the coordinates of the frame."""
        blocks = self.layout.unpack(y)
        Z = blocks.pop("Z")
        return blocks | {"B": Z[:, :, : self.classes], "F": Z[:, :, self.classes :]}

    def scatter(self, blocks: dict[str, Tensor], T: Tensor | None) -> Tensor:
        """(lanes,) tr(T C T^T) inside, T = None for the identity."""
        return _apply(T, blocks["F"]).square().sum((1, 2))

    def covariance(self, blocks: dict[str, Tensor]) -> Tensor:
        """(lanes, d_0, d_0) C inside."""
        return torch.bmm(blocks["F"], blocks["F"].mT)

    def own(self, x: Tensor) -> Tensor:
        """The entry of x (states, ...) for the start of each lane; no copies if there is one only."""
        row = self.lanes["row"]
        return x.expand(len(row), *x.shape[1:]) if len(x) == 1 else x[row]

    def outward(self, x: Tensor, layer: int) -> Tensor:
        """(lanes, d_l, k) inside the frame to (lanes, p_l, k) in the user's coordinates."""
        frame = self.states.frame
        return x if frame is None else torch.bmm(self.own(frame.bases[layer]), x)

    def outside(self, blocks: dict[str, Tensor], layer: int) -> Tensor | None:
        """(lanes, p_l, r) what multiplies V outside the frame in the features of a layer (0: H)."""
        frame = self.states.frame
        if frame is None:
            return None
        return blocks["out"][:, : layer + 1].prod(1)[:, None, None] * self.own(frame.deviations[layer])

    def features(self, blocks: dict[str, Tensor], T: Tensor | None, layer: int) -> Tensor:
        """(lanes, p_l, N) features of a layer, T being the product of the W below."""
        assert self.states.V is not None
        F, outside = self.outward(_apply(T, blocks["F"]), layer), self.outside(blocks, layer)
        if outside is not None:
            F = outside + torch.nn.functional.pad(F, (0, outside.shape[2] - F.shape[2]))
        means = self.outward(_apply(T, blocks["B"]) / self.root, layer)
        # Transposed twice, so that samples are rows in memory, as the metrics want them.
        return torch.baddbmm(means.mT.index_select(1, self.labels), self.own(self.states.V).mT, F.mT).mT

    def totals(self, blocks: dict[str, Tensor], T: Tensor | None, layer: int) -> metrics.Moments:
        """Class means and total scatter of a layer; the norm is the rms, each class has its share of both."""
        means = self.outward(_apply(T, blocks["B"]) / self.root, layer)
        within, outside = self.scatter(blocks, T), self.outside(blocks, layer)
        if outside is not None:
            within = within + outside.square().sum((1, 2))
        square = (means.square().sum(1) * self.counts).sum(1) + within
        share = self.counts / self.samples
        return metrics.Moments(self.counts, means.mT, within[:, None] * share, (square * self.samples).sqrt())

    def moments(self, y: Tensor, detailed: bool = False) -> metrics.Moments:
        blocks = self.expand(y)
        W = self.weights(blocks)
        T = chain(W[:-1]) if len(W) > 1 else None
        if self.states.V is None or not detailed:
            return self.totals(blocks, T, len(W) - 1)
        return metrics.Moments.of(self.features(blocks, T, len(W) - 1).mT, self.labels, self.classes)

    def head(self, y: Tensor) -> Tensor:
        return self.outward(self.expand(y)[f"W_{self.layers}"].mT, self.layers - 1).mT

    def user_weights(self, blocks: dict[str, Tensor]) -> list[Tensor]:
        """W_1 .. W_M in the user's coordinates."""
        W, frame = self.weights(blocks), self.states.frame
        if frame is None:
            return W
        W = [self.outward(w.mT, i).mT for i, w in enumerate(W)]
        for i, outside in enumerate(frame.weights):
            W[i] = self.outward(W[i], i + 1) + blocks["out"][:, i + 1, None, None] * self.own(outside)
        return W

    def energy(self, blocks: dict[str, Tensor]) -> Tensor:
        """(lanes,) the loss with its decay terms."""
        W, B, lanes = self.weights(blocks), blocks["B"], self.lanes
        A = products_above(W)[0]
        fit = self.error(blocks, A, B).square().sum((1, 2)) / self.scale**2 + self.scatter(blocks, A)
        squares = [B.square().sum((1, 2)) + self.scatter(blocks, None), *(w.square().sum((1, 2)) for w in W)]
        if "out" in blocks:
            squares[:-1] = [s + o for s, o in zip(squares[:-1], blocks["out"].square().unbind(1), strict=True)]
        decays = torch.cat([lanes["decay_H"][:, None], lanes["decay_W"]], 1)
        energy = self.scale / 2 * fit + (decays / 2 * torch.stack(squares, 1)).sum(1)
        return energy + lanes["decay_b"] / 2 * blocks["b"].square().sum(1) if "b" in blocks else energy

    def observe(self, y: Tensor) -> Observation:
        blocks = self.expand(y)
        W, T = self.weights(blocks), None
        features = moments = None
        norms = []
        for layer in range(self.layers):
            T = _apply(W[layer - 1], T) if T is not None else W[0] if layer else None
            if self.states.V is None:
                moments = self.totals(blocks, T, layer)
                norms.append(moments.norm_sum / self.samples)
            else:
                features = self.features(blocks, T, layer).mT
                norms.append(features.norm(dim=2).mean(1))
        weights, energy = self.user_weights(blocks), self.energy(blocks)
        return Observation(features, weights, blocks.get("b"), energy, torch.stack(norms, 1), moments)

    def state(self, y: Tensor) -> dict[str, Tensor]:
        """As `Flow.state`; of moments "M" (lanes, p, K) and "scatter" (lanes, p, p) in place of "H"."""
        blocks = self.expand(y)
        rest = {f"W_{i}": w for i, w in enumerate(self.user_weights(blocks), 1)}
        rest |= {"b": blocks["b"]} if "b" in blocks else {}
        if self.states.V is not None:
            return {"H": self.features(blocks, None, 0)} | rest
        C, outside = self.outward(self.outward(self.covariance(blocks), 0).mT, 0), self.outside(blocks, 0)
        C = C if outside is None else torch.baddbmm(C, outside, outside.mT)
        return {"M": self.outward(blocks["B"] / self.root, 0), "scatter": C} | rest


def _apply(T: Tensor | None, x: Tensor) -> Tensor:
    return x if T is None else torch.bmm(T, x)
