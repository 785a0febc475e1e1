"""Joining a window to the world over the views that both know, in Sim(3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from da3_core.geometry.rigid import matrix_product, rotate
from da3_core.streaming.log_scale import LogScale
from da3_core.streaming.placed import DepthSamples, PlacedView
from da3_core.types import Sim3

MIN_SAMPLES = 16
SHARED_LOG_SIGMA = 0.02  # by which the newest view's depth as a whole is off against that of the shared view, which carries the scale
INDEPENDENT_SAMPLES = 25  # of a view's depth: its errors are patches, not pixels


def scale_from_depth(placed: Sequence[PlacedView], seen: Sequence[DepthSamples]) -> LogScale | None:
    """World units per window unit from the depth of views placed before and seen again: the weighted median of the log ratios.

    A pair's weight is the product of its confidences. None when there are too few pairs. The variance is that of the median, of what
    the views of one window are off by as a whole, and of the scale that the placed depth was made with.
    """
    pairs = [(before.samples, now) for before, now in zip(placed, seen, strict=True) if before.samples is not None]
    if not pairs:
        return None
    ratios = torch.cat([before.depth / now.depth for before, now in pairs]).log()
    weights = torch.cat([before.weight * now.weight for before, now in pairs])
    usable = ratios.isfinite()
    if int(usable.sum()) < MIN_SAMPLES:
        return None
    ratios, weights = ratios[usable], weights[usable]
    value = weighted_median(ratios, weights)
    spread = 1.4826 * float(weighted_median((ratios - value).abs(), weights))
    inherited = sum(view.scale.variance for view in placed) / len(placed)
    bias_variance = sum(view.scale.bias_variance for view in placed) / len(placed)
    return LogScale(float(value), spread**2 / INDEPENDENT_SAMPLES + SHARED_LOG_SIGMA**2 + inherited, bias_variance)


def join_cameras(T_world_cam: Tensor, T_window_cam: Tensor, scale: float) -> Sim3:
    """S_world_window with a given scale from shared cameras (V, 4, 4) in both frames; one is enough.

    Every shared view says what the rotation and the translation are; the means of what they say are robust, so that a minority of views
    that are predicted badly hardly moves them.
    """
    R = matrix_product(T_world_cam[:, :3, :3], T_window_cam[:, :3, :3].mT)
    R_world_window = _nearest_rotation((_weights(R.flatten(1))[:, None, None] * R).sum(0))
    t = T_world_cam[:, :3, 3] - scale * rotate(R_world_window, T_window_cam[:, :3, 3])
    return Sim3(torch.tensor(scale, dtype=t.dtype), R_world_window, (_weights(t)[:, None] * t).sum(0))


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """The one of the values (S,) at which half the weight is reached."""
    order = values.argsort(stable=True)
    reached = weights[order].cumsum(0)
    return values[order][torch.searchsorted(reached, reached[-1:] / 2).clamp(max=len(values) - 1)][0]


def _weights(votes: Tensor) -> Tensor:
    """(V,) Huber weights of votes (V, D), summing to one: full up to the median distance from the vote that is nearest to all."""
    distance = torch.cdist(votes, votes, compute_mode="donot_use_mm_for_euclid_dist")
    to_medoid = distance[distance.sum(1).argmin()]
    usual = to_medoid.sort().values[len(votes) // 2]
    weights = 1 / to_medoid.clamp(min=float(usual) or 1.0)
    return weights / weights.sum()


def _nearest_rotation(M: Tensor) -> Tensor:
    U, _, Vh = torch.linalg.svd(M)
    x, y, z = (U @ Vh).unbind(-1)
    handedness = (torch.linalg.cross(x, y) * z).sum()
    rotation: Tensor = torch.cat([U[:, :2], handedness * U[:, 2:]], -1) @ Vh
    return rotation
