"""Three ways to give networks of different depth the same decay."""

from __future__ import annotations

from ncflow.errors import require

#: name -> what is equal over depths. The paper's hypothesis speaks of a total budget, and of lambda/depth.
SCALINGS = {
    "fixed": "lambda",
    "budget": "lambda times depth",
    "ratio": "lambda over depth",
}


def decay_at(scaling: str, depth: int, reference: int, decay: float) -> float:
    """lambda at `depth` where that of `reference` is `decay`."""
    require(scaling in SCALINGS, "scaling", scaling, f"one of {', '.join(SCALINGS)}")
    return decay * {"fixed": 1.0, "budget": reference / depth, "ratio": depth / reference}[scaling]
