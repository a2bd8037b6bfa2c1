"""Steps taken without the host's looking, as on a GPU: the same trajectory, records and events."""

import numpy as np
import pytest

from ncflow import UFM, Crossing, Decay, simulate
from ncflow.integrators import adaptive


@pytest.mark.parametrize("method", ["auto", "dopri5", "rkc2"])
@pytest.mark.parametrize("flow", ["full", "reduced"])
def test_nothing_is_lost_between_looks(monkeypatch, method, flow):
    model = UFM(classes=4, samples_per_class=6, width=8, loss_scale=0.5, decay=Decay(weights=[1e-3, 1e-2, 5e-2], features=2e-3))
    how = {"seeds": [0, 1], "save_at": np.geomspace(1, 2000, 60).tolist(), "rtol": 1e-10, "flow": flow, "method": method,
           "events": (Crossing(level=0.05), Crossing(level=1e-3))}  # fmt: skip
    seen = simulate(model, **how).data
    monkeypatch.setattr(adaptive, "_UNSEEN", {"cpu": 15})
    unseen = simulate(model, **how).data
    for name in ("fn", "nc1_trace_ratio", "energy"):
        np.testing.assert_allclose(unseen[name], seen[name], rtol=1e-6 if method == "rkc2" else 1e-7)
    np.testing.assert_allclose(unseen["event_time"], seen["event_time"], rtol=1e-6)
    assert np.isfinite(seen["event_time"]).any()
    np.testing.assert_array_equal(unseen["status"], seen["status"])
    if method != "rkc2":
        assert (unseen["steps"] <= 1.1 * seen["steps"] + 20).all()  # a step taken again is not counted
