"""Which depth is not worth publishing."""

from __future__ import annotations

import cv2
import numpy as np

from da3_core.config import FilterConfig
from da3_core.types import SKY_THRESHOLD, BoolArray, Float32Array

NEIGHBOURHOOD = np.ones((3, 3), np.uint8)


def without_untrusted(depth: Float32Array, confidence: Float32Array | None, sky: Float32Array | None, config: FilterConfig) -> Float32Array:
    """Depth (H, W) with NaN for low confidence, sky, flying pixels at edges, and what is too far, each as far as its setting asks."""
    keep: BoolArray = np.isfinite(depth) & (depth > 0)
    if confidence is not None:
        keep &= confidence >= config.min_confidence
    if sky is not None and config.drop_sky:
        keep &= sky < SKY_THRESHOLD
    if config.edge_ratio > 0:
        known = cv2.patchNaNs(depth.copy(), np.inf)  # NaN compares as it pleases; what it is beside is an edge
        keep &= cv2.dilate(known, NEIGHBOURHOOD) <= (1 + config.edge_ratio) * cv2.erode(known, NEIGHBOURHOOD)
    if config.max_depth_m > 0:
        keep &= depth <= config.max_depth_m
    return np.asarray(cv2.copyTo(depth, keep.view(np.uint8), np.full_like(depth, np.nan)), np.float32)
