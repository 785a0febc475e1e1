"""Two engines' predictions, compared."""

from __future__ import annotations

import torch

from da3_core.types import Prediction

FIELDS = ("depth", "confidence", "sky", "camera_encoding", "T_cam_world", "K", "scale_factor")


def assert_same(a: Prediction, b: Prediction, tolerance: float = 2e-5) -> None:
    assert a.is_metric == b.is_metric
    for name in FIELDS:
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None), name
        if x is not None:
            assert x.shape == y.shape and x.dtype == y.dtype == torch.float32 and x.device.type == "cpu", name
            assert (x - y).norm() <= tolerance * y.norm(), name
