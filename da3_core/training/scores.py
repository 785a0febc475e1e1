"""What validations say: a few numbers, cheap enough to be computed while training."""

from __future__ import annotations

import torch
from torch import Tensor

from da3_core.geometry.rigid import invert_rigid, matrix_product, rotation_angle

Scores = dict[str, Tensor]


@torch.no_grad()
def depth_scores(depth: Tensor, truth: Tensor, valid: Tensor) -> Scores:
    """AbsRel and delta1 of depth (B, N, H, W) in the truth's units."""
    ratio = torch.where(valid, depth / truth, 1)
    count = valid.sum().clamp(min=1)
    near = valid & (ratio > 1 / 1.25) & (ratio < 1.25)
    return {"absrel": (ratio - 1).abs().sum() / count, "delta1": near.sum() / count}


@torch.no_grad()
def median_aligned(depth: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Depth (B, N, H, W) times one factor per scene, see `median_factor`."""
    return depth * median_factor(depth, truth, valid)[:, None, None, None]


@torch.no_grad()
def median_factor(depth: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """(B,): the median of truth over depth (B, N, H, W) on every other row and column, 1 where nothing is valid."""
    ratio = torch.where(valid, truth / depth, torch.nan)[..., ::2, ::2].flatten(1)
    return ratio.nanmedian(1).values.nan_to_num(1)


@torch.no_grad()
def rotation_scores(T_cam_world: Tensor, T_world_cam_true: Tensor) -> Scores:
    """Mean angle between predicted and true rotations (B, N, 4, 4) to view 0, and the share below 15 degrees."""
    predicted, true = T_cam_world[..., :3, :3], invert_rigid(T_world_cam_true)[..., :3, :3]
    relative, true_relative = (matrix_product(R[:, 1:], R[:, :1].mT) for R in (predicted, true))
    angle_deg = rotation_angle(matrix_product(relative, true_relative.mT)).rad2deg()
    return {"rotation_deg": angle_deg.mean(), "rotation_below_15_deg": (angle_deg < 15).float().mean()}


@torch.no_grad()
def sky_scores(sky: Tensor, truth: Tensor, known: Tensor, threshold: float) -> Scores:
    """Intersection over union of the predicted sky (B, N, H, W) in views (B, N) where it is known, none where it is in no view.

    1 where there is no sky and none is predicted.
    """
    if not known.any():
        return {}
    found, truth = sky[known] >= threshold, truth[known]
    union = (found | truth).sum()
    return {"sky_iou": torch.where(union > 0, (found & truth).sum() / union, 1.0)}
