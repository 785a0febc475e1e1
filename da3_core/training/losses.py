"""The any-view objective (paper section 3.3): pure functions of predictions and truth, one value per scene.

Every loss takes tensors with a leading scene dimension and returns (B,): the mean over a scene's valid entries. A batch's loss is
the mean over its scenes, so it does not depend on how a batch is spread over processes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SHORT_BASELINE = 0.05  # of the scene's scale: errors of shorter ones are compared with this


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` (B, ...) where `mask` (B, ...), per scene -> (B,); 0 where nothing is valid."""
    total = torch.where(mask, values, 0).flatten(1).sum(1)
    return total / mask.flatten(1).sum(1).clamp(min=1)


def confidence_weighted(error: Tensor, confidence: Tensor, mask: Tensor, lambda_c: float) -> Tensor:
    """1/Z sum m (c * error - lambda_c * log c) -> (B,): the paper's L_D for any error (B, ...) >= 0 with confidence (B, ...) >= 1."""
    error = torch.where(mask, error, 0)  # before the product: 0 * inf would reach the confidence's gradient
    return masked_mean(confidence * error - lambda_c * confidence.log(), mask)


def depth_loss(depth: Tensor, truth: Tensor, confidence: Tensor, mask: Tensor, lambda_c: float) -> Tensor:
    """L_D: depth, truth, confidence, mask (B, N, H, W) -> (B,)."""
    return confidence_weighted((depth - truth).abs(), confidence, mask, lambda_c)


def gradient_loss(depth: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """L_grad (eq. 3): |dx(depth - truth)| + |dy(depth - truth)| over neighbours that are both valid; (B, ..., H, W) -> (B,)."""
    error = depth - torch.where(mask, truth, 0)  # the truth may be infinite where it is not valid
    horizontal = masked_mean(error.diff(dim=-1).abs(), mask[..., 1:] & mask[..., :-1])
    vertical = masked_mean(error.diff(dim=-2).abs(), mask[..., 1:, :] & mask[..., :-1, :])
    return horizontal + vertical


def ray_loss(rays: Tensor, truth: Tensor, confidence: Tensor, lambda_c: float) -> Tensor:
    """L_M: rays, truth (B, N, h, w, 6), confidence (B, N, h, w) -> (B,).

    The l1 distance of six channels, weighted by the ray confidence as L_D is by the depth confidence: the paper writes a plain l1, but
    the published head has a ray confidence and `camera_from_rays` relies on it, so something must have trained it.
    """
    error = (rays - truth).abs().sum(-1)
    return confidence_weighted(error, confidence, torch.ones_like(error, dtype=torch.bool), lambda_c)


def point_loss(points: Tensor, truth: Tensor, mask: Tensor, weight: Tensor | None = None) -> Tensor:
    """L_P: l1 distance of world points, points and truth (B, N, h, w, 3), mask and optional weight (B, N, h, w) -> (B,)."""
    error = (points - truth).abs().sum(-1)
    return masked_mean(error if weight is None else error * weight, mask)


def camera_loss(encoding: Tensor, truth: Tensor) -> Tensor:
    """L_C: l1 of (t, q_xyzw, fov) (B, N, 9) -> (B,). q and -q are the same rotation, so the truth takes the prediction's sign."""
    q = truth[..., 3:7]
    sign = torch.where((encoding[..., 3:7] * q).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    aligned = torch.cat([truth[..., :3], sign * q, truth[..., 7:]], dim=-1)
    return (encoding - aligned).abs().sum(-1).mean(-1)


def baseline_loss(centres: Tensor, truth: Tensor) -> Tensor:
    """l1 error of the vector between every two cameras, over its length; camera centres (B, N, 3) -> (B,), 0 for a single view.

    Not in the paper. L_C compares lengths, so that short baselines, whose directions count as much, teach it little.
    """
    n = centres.shape[1]
    found, true = (c.unsqueeze(2) - c.unsqueeze(1) for c in (centres, truth))  # (B, N, N, 3)
    lengths: Tensor = true.norm(dim=-1)
    error = (found - true).abs().sum(-1) / lengths.clamp(min=SHORT_BASELINE)
    return error.sum((1, 2)) / max(1, n * (n - 1))


def limited(loss: Tensor, limit: float) -> Tensor:
    """Losses of scenes (B,) that beyond `limit` > 0 grow with their logarithm only, and without a jump in their gradient."""
    return torch.where(loss > limit, limit * (1 + (loss / limit).clamp(min=1).log()), loss)


def scene_scale(points: Tensor, mask: Tensor) -> Tensor:
    """Mean l2 norm of the valid points (B, N, H, W, 3) in the reference camera's frame -> (B,), what ground truth is divided by.

    1 for a scene without a single valid point: it has nothing to supervise depth with.
    """
    mean = masked_mean(points.norm(dim=-1), mask)
    return torch.where(mean > 0, mean, 1.0)


def sample_depth(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Depth (B, N, H, W) at the pixels nearest to a coarser map's: no mixing across edges."""
    return F.interpolate(depth, size, mode="nearest-exact")
