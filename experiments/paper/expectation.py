"""What theory expects of a condition: from the trained head, from the data alone, from batch normalisation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from experiments.paper.evidence import Evidence, Row
from experiments.paper.linear_flow import LinearFlow
from realnets import TwoPhase
from theory import batchnorm, strength

#: BatchNorms that add into the last stage's stream: the projection and three blocks. fn at rest is at most that of as many.
STREAMS = 4


def expected(row: Row, evidence: Evidence) -> Mapping[str, float]:
    """By the names of `evidence.EXPECTED`, those that are known."""
    found: dict[str, float] = {}
    heads = [n.fn_from_head for n in row.networks]
    if np.isfinite(heads).any():
        found["from_head"] = float(np.nanmean(heads))
    setting = row.condition.setting
    if not isinstance(setting, TwoPhase):
        return found
    if setting.architecture != "mlp" and setting.normalization == "batch":
        loss = setting.losses[2 if setting.epochs_mse else 1]
        streams = 1 if not setting.skip else STREAMS if setting.architecture == "resnet20" else setting.depth
        found["batchnorm"] = batchnorm_bound(loss, setting.decays[0], streams=streams)
    for study in evidence.studies:
        flow = study.condition.setting
        if not isinstance(flow, LinearFlow) or study.record is None or setting.architecture != "mlp":
            continue
        same = all(
            getattr(flow, name) == getattr(setting, name) for name in ("dataset", "subset", "scaling", "data_seed", "depth")
        )
        if same and setting.decays[0] == flow.decay and setting.image_size is None:
            lane = study.record.data.isel(lane=0)
            names = {"from_data": "theory_fn", "floor": "theory_nc1", "flow": "flow_fn", "flow_floor": "flow_nc1"}
            found |= {ours: float(lane[theirs]) for ours, theirs in names.items()}
    return found


def batchnorm_bound(loss: str, decay: float, classes: int = 10, streams: int = STREAMS) -> float:
    """The most that fn can be at rest with class means in an orthogonal frame and so many normalised streams."""
    kind = strength.Square(classes, 1 / classes) if loss == "mse" else strength.Softmax(classes)
    return float(batchnorm.feature_norm(kind, streams, decay)[0])
