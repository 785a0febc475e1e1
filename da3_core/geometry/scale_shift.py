"""Bringing one depth map to another's units: by the ratio of medians, by scale and shift, or by the latter robustly.

Depths are (..., P): flatten what is to share one scale. Solved in float64, given back in the type of `depth`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from da3_core.geometry.ransac import draw_subsets

DRAWS = 100


def median_scale(depth: Tensor, reference: Tensor, valid: Tensor) -> Tensor:
    """(...,): median(reference) / median(depth) over the valid (..., P, bool) entries. Raises ValueError where none is valid."""
    nan = torch.full_like(depth, torch.nan)
    scale: Tensor = torch.where(valid, reference, nan).nanmedian(-1).values / torch.where(valid, depth, nan).nanmedian(-1).values
    _check(scale.isfinite() & (scale > 0))
    return scale


def least_squares_scale_shift(depth: Tensor, reference: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(s, t), each (...,), minimising sum w (s depth + t - reference)^2. Raises ValueError where depth has one value only."""
    d, r, w = depth.double(), reference.double(), weights.double()
    scale, shift = _fit(d, r, w)
    _check(scale.isfinite())
    return scale.to(depth.dtype), shift.to(depth.dtype)


def ransac_scale_shift(
    depth: Tensor, reference: Tensor, valid: Tensor, generator: torch.Generator | None = None, draws: int = DRAWS
) -> tuple[Tensor, Tensor]:
    """(s, t), each (...,), with s > 0, of equation 8: least squares over the largest set of inliers.

    An inlier's residual is at most the mean absolute deviation of the residuals from their median, those residuals being of the
    least-squares fit to all valid (..., P, bool) pairs. generator: of the draws, on the CPU.
    Raises ValueError where fewer than two pairs are valid or none of the draws has a positive scale.
    """
    *batch, P = depth.shape
    maps = zip(*(x.reshape(-1, P) for x in (depth.double(), reference.double().expand_as(depth), valid.expand_as(depth))), strict=True)
    solved = [_ransac(d[v], r[v], generator, draws) for d, r, v in maps]
    scale, shift = (torch.stack(x).to(depth.dtype).reshape(batch) for x in zip(*solved, strict=True))
    return scale, shift


def _ransac(depth: Tensor, reference: Tensor, generator: torch.Generator | None, draws: int) -> tuple[Tensor, Tensor]:
    scale, shift = _fit(depth, reference, torch.ones_like(depth))
    residual = scale * depth + shift - reference
    threshold = (residual - residual.median()).abs().mean()

    pairs = draw_subsets(len(depth), 2, draws, generator).to(depth.device)
    scales, shifts = _fit(depth[pairs], reference[pairs], torch.ones_like(depth[pairs]))  # (draws,)
    inliers = (torch.addcmul(shifts[:, None], scales[:, None], depth) - reference).abs() <= threshold
    support = torch.where(scales > 0, inliers.sum(-1), 0)
    best = support.argmax()
    _check(support[best] > 0)
    # the refit can lose its positive slope when the inliers are a blob
    scale, shift = _fit(depth, reference, inliers[best].double())
    _check(scale > 0)
    return scale, shift


def _fit(depth: Tensor, reference: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted line through (depth, reference), each (..., P); not finite where the depths are all one."""
    w = weights / weights.sum(-1, keepdim=True)
    mean_d, mean_r = (w * depth).sum(-1), (w * reference).sum(-1)
    d, r = depth - mean_d.unsqueeze(-1), reference - mean_r.unsqueeze(-1)
    scale = (w * d * r).sum(-1) / (w * d * d).sum(-1)
    return scale, mean_r - scale * mean_d


def _check(determined: Tensor) -> None:
    if not bool(determined.all()):
        raise ValueError("no scale follows from these depths: too few are valid, they are all the same, or they disagree in sign")
