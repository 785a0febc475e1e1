"""What is remembered of a view once it has its place in the world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from da3_core.streaming.log_scale import LogScale

SAMPLES_PER_SIDE = 32


@dataclass(frozen=True)
class DepthSamples:
    """A view's depth on a coarse grid that depends on the image's size alone."""

    depth: Tensor  # (S,) float64
    weight: Tensor  # (S,) float64

    def scaled(self, scale: float) -> DepthSamples:
        return DepthSamples(self.depth * scale, self.weight)


@dataclass(frozen=True)
class PlacedView:
    """A view's pose and depth in the world's units: metres, once they are known."""

    T_world_cam: Tensor  # (4, 4) float64
    samples: DepthSamples | None  # None while its depth is not in the pose's units
    scale: LogScale  # that the depth was multiplied with
    is_metric: bool


PlacedViews = Mapping[int, PlacedView]  # by the view's id


def depth_samples(depth: Tensor, confidence: Tensor | None) -> DepthSamples:
    """Of depth (H, W), weighted by its confidence (H, W) where there is one; some 32 x 32 samples."""
    rows, columns = (max(1, side // SAMPLES_PER_SIDE) for side in depth.shape)
    grid = (slice(rows // 2, None, rows), slice(columns // 2, None, columns))
    sampled = depth[grid].flatten().double()
    return DepthSamples(sampled, torch.ones_like(sampled) if confidence is None else confidence[grid].flatten().double())
