"""Results with known content."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from da3_core import FrameResult, ScaleEstimate

H, W = 6, 8
K = np.array([[10.0, 0, 3.25], [0, 12.0, 2.75], [0, 0, 1]])
T_WORLD_CAM = np.array([[0.0, 0, 1, 1.5], [-1, 0, 0, -2.0], [0, -1, 0, 0.25], [0, 0, 0, 1]])


def make_result(**changed: Any) -> FrameResult:
    random = np.random.default_rng(0)
    depth = random.uniform(0.5, 9.0, (H, W)).astype(np.float32)
    depth[0, 0] = depth[3, 5] = np.nan
    result = FrameResult(
        camera="front",
        frame_id="front_optical",
        stamp_ns=1_700_000_000_123_456_789,
        depth_m=depth,
        confidence=random.uniform(1, 5, (H, W)).astype(np.float32),
        image=random.integers(0, 256, (H, W, 3), np.uint8),
        K=K,
        T_world_cam=T_WORLD_CAM,
        mode="posed",
        mode_reason="as set",
        scale=ScaleEstimate(2.5, 0.01, "baselines"),
        window_views=3,
        timings_s={"engine": 0.25, "anchor": 0.5},
    )
    return dataclasses.replace(result, **changed)
