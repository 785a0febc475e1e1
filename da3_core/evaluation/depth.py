"""Depth accuracy with the field's three ways of aligning: not at all, by the ratio of medians, by least squares in scale and shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from da3_core.geometry.scale_shift import least_squares_scale_shift, median_scale

Alignment = Literal["none", "median", "scale_shift"]
MIN_DEPTH = 1e-6  # what a shift may push a depth down to


@dataclass(frozen=True)
class DepthMetrics:
    """Means over the valid pixels; each (...,)."""

    abs_rel: Tensor  # |d - d*| / d*
    sq_rel: Tensor  # (d - d*)^2 / d*, in metres
    delta1: Tensor  # share with max(d / d*, d* / d) < 1.25
    delta2: Tensor  # ... < 1.25^2
    delta3: Tensor  # ... < 1.25^3


def depth_metrics(depth: Tensor, truth: Tensor, valid: Tensor, align: Alignment = "none") -> DepthMetrics:
    """Compares depths (..., P) with true ones, over `valid` (..., P, bool) pixels. What shares one alignment is flattened into P:
    a scene's views together, or a view alone.

    Raises ValueError where no pixel is valid or no alignment exists.
    """
    depth, truth = depth.double(), torch.where(valid, truth.double(), 1.0)
    if align == "median":
        depth = depth * median_scale(depth, truth, valid).unsqueeze(-1)
    elif align == "scale_shift":
        scale, shift = least_squares_scale_shift(depth, truth, valid)
        depth = depth * scale.unsqueeze(-1) + shift.unsqueeze(-1)
    depth = depth.clamp(min=MIN_DEPTH)

    count = valid.sum(-1)
    if not bool((count > 0).all()):
        raise ValueError("no pixel is valid: leave such views out")

    def mean(x: Tensor) -> Tensor:
        return torch.where(valid, x, 0.0).sum(-1) / count

    error, ratio = (depth - truth).abs(), torch.maximum(depth / truth, truth / depth)
    deltas = [mean((ratio < 1.25**k).double()) for k in (1, 2, 3)]
    return DepthMetrics(mean(error / truth), mean(error.square() / truth), *deltas)


def sky_overlap(sky: Tensor, truth: Tensor) -> tuple[int, int]:
    """Pixels in the intersection and in the union of two sky masks (bool): their sums over many images give an IoU that images without
    sky take part in."""
    return int((sky & truth).sum()), int((sky | truth).sum())
