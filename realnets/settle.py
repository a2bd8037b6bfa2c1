"""The third stage: bring each lane to rest, and say how far it still moves.

A schedule that runs out leaves a network where it happened to be; fn_inf needs rest. The gradient is a poor test of it (ReLU
networks rest on kinks), so rest is judged by what is asked for: fn, the objective, and the norm identities (`balance`).

Each lane trains at a tenth of its learning rate and compares these from one span to the next. When they have stopped moving,
or after `PATIENCE` spans of which the last brought the balance no nearer to zero (what moves is then the noise of the steps),
the rate is halved and the span doubled, so that a span is always the same amount of gradient-flow time and a small step cannot
pass for rest. A lane is at rest once nothing moved over a span and nothing had moved against the end of the rate before:
neither drift nor noise shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Relative change of fn and objective, absolute change of the (relative) balance, that counts as none.
TOLERANCE = 3e-3
PATIENCE = 3
START = 0.1


class Settling:
    """The state of each of L lanes in the third stage.

    Args:
        rates: (L,) learning rates of the protocol.
        epochs: of the phases before; a look is taken every fortieth part of them, a `block`, which is the first span.
    """

    def __init__(self, rates: Tensor, epochs: int):
        self.block = max(1, epochs // 40)
        lanes = len(rates)
        self.tensors = {
            "rate": START * rates.double().cpu(),
            "span": torch.ones(lanes, dtype=torch.int64),  # in blocks
            "waited": torch.zeros(lanes, dtype=torch.int64),
            "spans": torch.zeros(lanes, dtype=torch.int64),
            "at_rest": torch.zeros(lanes, dtype=torch.bool),
            "before": torch.full((lanes, 3), torch.nan, dtype=torch.float64),  # at the last comparison
            "level": torch.full((lanes, 3), torch.nan, dtype=torch.float64),  # at the end of the rate before
            "drift": torch.full((lanes, 3), torch.nan, dtype=torch.float64),
        }

    @property
    def rates(self) -> list[float]:
        return self.tensors["rate"].tolist()

    @property
    def at_rest(self) -> Tensor:
        return self.tensors["at_rest"]

    def drift(self) -> dict[str, Tensor]:
        """(L,) change over the last span of fn (relative), the objective (relative) and the balance."""
        return dict(zip(("fn", "energy", "balance"), self.tensors["drift"].unbind(1), strict=True))

    def look(self, fn: Tensor, energy: Tensor, balance: Tensor | None) -> None:
        """Take (L,) values at the end of a block."""
        t = self.tensors
        now = torch.stack([fn, energy, torch.zeros_like(fn) if balance is None else balance], 1).double().cpu()
        scale = torch.stack([now[:, 0].abs(), now[:, 1].abs(), torch.ones(len(now), dtype=now.dtype)], 1).clamp_min(1e-300)
        first = t["before"].isnan().all(1)
        t["before"] = torch.where(first[:, None], now, t["before"])
        t["waited"] += (~first).long()
        due = (t["waited"] >= t["span"]) & ~t["at_rest"]
        change = (now - t["before"]).abs() / scale
        still = (change < TOLERANCE).all(1)
        same = ((now - t["level"]).abs() / scale < TOLERANCE).all(1)
        t["spans"] += due.long()
        t["at_rest"] |= due & still & same
        nearer = t["before"][:, 2] - now[:, 2] > TOLERANCE
        fall = due & ~t["at_rest"] & (still | ((t["spans"] >= PATIENCE) & ~nearer))
        t["drift"] = torch.where(due[:, None], change, t["drift"])
        t["before"] = torch.where(due[:, None], now, t["before"])
        t["level"] = torch.where(fall[:, None], now, t["level"])
        t["waited"] = torch.where(due, 0, t["waited"])
        t["rate"] = torch.where(fall, t["rate"] / 2, t["rate"])
        t["span"] = torch.where(fall, 2 * t["span"], t["span"])
        t["spans"] = torch.where(fall, 0, t["spans"])
