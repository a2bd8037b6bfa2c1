"""Equal decays: a conservation law that makes the within-class scatter a function of the rest of the state.

For lambda_1 = theta lambda_H the difference W_1^T W_1 - H H^T / theta decays as e^(-2 lambda_1 t) exactly,
whatever the other layers, the class sizes and the bias do: the data term drops out of its derivative. With
the features' class means B and scatter C (see `factored`), H H^T = B B^T + C, so

    C = theta (W_1^T W_1 - e^(-2 lambda_1 t) G) - B B^T,   G = W_1^T W_1 - H H^T / theta at t = 0,

and neither the scatter nor a propagator is integrated. C is a difference of squares: NC1 is accurate in
absolute terms, to about rtol/50 (measured: 1e-10 at rtol 1e-8), so that one below 1e-12 is lost at any rtol.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ncflow.flows.factored import Factored
from ncflow.flows.linear import products_above
from ncflow.flows.reduced import ReducedFlow
from ncflow.model import UFM

#: Relative difference of lambda_1 and theta lambda_H that still counts as equal: rounding.
TOLERANCE = 1e-13


def holds(decay: Tensor, feature_decay: Tensor) -> Tensor:
    """Whether lambda_1 equals theta lambda_H (both (lanes,)), up to rounding."""
    return (decay - feature_decay).abs() <= TOLERANCE * decay


class EqualDecaysFlow(ReducedFlow):
    """`ReducedFlow` of moments with B (d_0 x K) and the scalar g = e^(-2 lambda_1 t) in place of Z.

    K d_0^2 + K sum_l d_l d_{l-1} multiplications per lane, and d_0 r numbers less in the state.
    """

    def __init__(
        self, model: UFM, lane: Tensor, states: Factored, row: Tensor, notes: dict[str, Any] | None = None
    ):  # fmt: skip
        accuracy = {"nc1_accuracy": "absolute, better than rtol: the scatter is a difference of squares"}
        super().__init__(model, lane, states, row, (notes or {}) | accuracy)
        self.name = "equal_decays"
        gram = torch.bmm(states.B, states.B.mT) + torch.bmm(states.F, states.F.mT)
        weights = torch.bmm(states.W[0].mT, states.W[0])
        self.lanes["G"] = weights[row] - gram[row] / self.lanes["mobility"][:, None, None]

    def shapes(self, model: UFM) -> dict[str, tuple[int, ...]]:
        return {"B": (self.states.dimensions[0], self.classes), "g": (1,)} | self.other_shapes(model)

    def initial(self) -> dict[str, Tensor]:
        B = self.states.B
        return super().initial() | {"B": B, "g": B.new_ones(len(B), 1)}

    def expand(self, y: Tensor) -> dict[str, Tensor]:
        return self.layout.unpack(y)

    def field(self, y: Tensor) -> Tensor:
        blocks, lanes = self.layout.unpack(y), self.lanes
        B, W, theta = blocks["B"], self.weights(blocks), lanes["mobility"][:, None, None]
        above = products_above(W)
        A = above[0]
        error, AG = self.error(blocks, A, B), torch.bmm(A, lanes["G"])
        AC = torch.bmm(torch.bmm(A, W[0].mT), W[0]).addcmul_(blocks["g"][:, :, None], AG, value=-1)
        AC.mul_(theta)  # A (C + B B^T)
        pull = torch.bmm(error + self.scale * torch.bmm(A, B), B.mT).sub_(AC, alpha=self.scale)
        gains = self.descend(W, above, pull, error)
        gains["B"] = (self.pull(A), error)
        return self.velocity(y, gains)

    def scatter(self, blocks: dict[str, Tensor], T: Tensor | None) -> Tensor:
        W, B, G = blocks["W_1"], blocks["B"], self.lanes["G"]
        if T is None:
            rest = G.diagonal(dim1=1, dim2=2).sum(1)
        else:
            rest = (torch.bmm(T, G) * T).sum((1, 2))
            W, B = torch.bmm(W, T.mT), torch.bmm(T, B)
        gram = self.lanes["mobility"] * (W.square().sum((1, 2)) - blocks["g"][:, 0] * rest)
        return (gram - B.square().sum((1, 2))).clamp(min=0.0)

    def covariance(self, blocks: dict[str, Tensor]) -> Tensor:
        W, B = blocks["W_1"], blocks["B"]
        G = blocks["g"][:, :, None] * self.lanes["G"]
        return self.lanes["mobility"][:, None, None] * (torch.bmm(W.mT, W) - G) - torch.bmm(B, B.mT)

    def scaled(self, blocks: dict[str, Tensor], block: str) -> list[Tensor]:
        raise NotImplementedError("an intervention breaks the conservation law")
