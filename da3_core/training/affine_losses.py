"""The teacher's objective (paper section 4.1): depth up to scale and shift, normals, masks. One value per scene, as in `losses`.

Depth maps are (B, N, H, W): B scenes of N views, every view with a scale and shift of its own.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from da3_core.geometry.pinhole import unproject
from da3_core.training.losses import masked_mean

TILES = (4, 16)  # per side of the image, where a tile has MIN_TILE_PX
MIN_TILE_PX = 6
MIN_SCALE = 1e-3
GLOBAL_POINTS, LOCAL_POINTS = 1024, 64  # at most, that a scale and shift are found with
GLOBAL_ANCHORS, LOCAL_ANCHORS = 32, 8


@torch.no_grad()
def align_robustly(depth: Tensor, truth: Tensor, weights: Tensor, anchors: int) -> tuple[Tensor, Tensor]:
    """(s, t), each (M,), of the weighted l1 fit sum w |s depth + t - truth| over points (M, P), with s > 0: MoGe's ROE solver.

    The best line passes through a point. So for each of some anchor points, lines through it are left with one unknown, whose optimum
    is a weighted median of slopes; the anchor with the smallest sum wins. Weights of 0 exclude; without any, (1, 0).
    """
    anchor = _spread_anchors(weights > 0, anchors)  # (M, A)
    d0, r0 = depth.gather(1, anchor), truth.gather(1, anchor)
    run, rise = depth.unsqueeze(1) - d0.unsqueeze(2), truth.unsqueeze(1) - r0.unsqueeze(2)  # (M, A, P)
    leverage = weights.unsqueeze(1) * run.abs()
    slope = torch.where(leverage > 0, rise / run, 0)
    s = weighted_median(slope, leverage).clamp(min=MIN_SCALE)  # (M, A)
    cost = (weights.unsqueeze(1) * (s.unsqueeze(2) * run - rise).abs()).sum(2)
    cost = torch.where(weights.gather(1, anchor) > 0, cost, torch.inf)
    best = cost.argmin(1, keepdim=True)
    s = s.gather(1, best).squeeze(1)
    t = r0.gather(1, best).squeeze(1) - s * d0.gather(1, best).squeeze(1)
    found = (weights > 0).any(1)
    return torch.where(found, s, 1), torch.where(found, t, 0)


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """(...): the smallest value (..., P) with at least half of the weight at or below it."""
    ordered, order = values.sort(-1)
    below = weights.gather(-1, order).cumsum(-1)
    index = (below >= 0.5 * below[..., -1:]).int().argmax(-1, keepdim=True)
    return ordered.gather(-1, index).squeeze(-1)


def _spread_anchors(valid: Tensor, count: int) -> Tensor:
    """(M, A) indices of valid points (M, P), evenly spread over them; any where there is none."""
    rank = valid.cumsum(1)
    wanted = (torch.arange(count, device=valid.device) + 0.5) / count * rank[:, -1:]
    found: Tensor = torch.searchsorted(rank, wanted.floor().long() + 1)
    return found.clamp(max=valid.shape[1] - 1)


def align_views(depth: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """depth (B, N, H, W) brought to the truth's units by one robust scale and shift per view, points weighted by 1 / truth."""
    s, t = _fit_maps(depth.flatten(0, 1), truth.flatten(0, 1), valid.flatten(0, 1), GLOBAL_POINTS, GLOBAL_ANCHORS)
    s, t = (x.unflatten(0, depth.shape[:2])[..., None, None] for x in (s, t))
    aligned: Tensor = s * depth + t
    return aligned


def global_local_loss(aligned: Tensor, truth: Tensor, valid: Tensor, K: Tensor) -> Tensor:
    """L_gl: relative l1 error of depth that `align_views` aligned, plus that after another alignment per tile, tiles being a quarter and
    a sixteenth of the image wide.

    MoGe's local sets are balls of a share of the image's extent at their depth; here each is a tile's points within that reach of the
    depth of its middle.
    """
    loss = masked_mean(_relative_error(aligned, truth, valid), valid)
    for count in TILES:
        if min(aligned.shape[-2:]) // count >= MIN_TILE_PX:
            loss = loss + _local_loss(aligned, truth, valid, K, count)
    return loss


def _local_loss(depth: Tensor, truth: Tensor, valid: Tensor, K: Tensor, count: int) -> Tensor:
    H, W = depth.shape[-2:]
    d, r, v = (_tiles(x, count) for x in (depth, truth, valid))  # (B, N, T, h, w)
    middle = r[..., r.shape[-2] // 2, r.shape[-1] // 2][..., None, None]
    reach = middle * ((H * H + W * W) ** 0.5 / (2 * count * K[..., 0, 0]))[..., None, None, None]
    v = v & ((r - middle).abs() <= reach)
    s, t = _fit_maps(d.flatten(0, 2), r.flatten(0, 2), v.flatten(0, 2), LOCAL_POINTS, LOCAL_ANCHORS)
    s, t = (x.unflatten(0, d.shape[:3])[..., None, None] for x in (s, t))
    return masked_mean(_relative_error(s * d + t, r, v), v)


def _tiles(x: Tensor, count: int) -> Tensor:
    """(B, N, H, W) cut into count x count tiles (B, N, T, h, w); what is left over at the right and bottom is dropped."""
    h, w = x.shape[-2] // count, x.shape[-1] // count
    cut: Tensor = x[..., : h * count, : w * count].unflatten(-1, (count, w)).unflatten(-3, (count, h))
    tiles: Tensor = cut.movedim(-2, -3).flatten(2, 3)
    return tiles


def _fit_maps(depth: Tensor, truth: Tensor, valid: Tensor, points: int, anchors: int) -> tuple[Tensor, Tensor]:
    stride = max(1, round((depth[0].numel() / points) ** 0.5))
    d, r, v = (x[..., stride // 2 :: stride, stride // 2 :: stride].flatten(1) for x in (depth.detach(), truth, valid))
    weights = torch.where(v, 1 / r.clamp(min=1e-6), 0)
    return align_robustly(d, r, weights, anchors)


def _relative_error(depth: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    safe = torch.where(valid, truth, 1)
    return (depth - safe).abs() / safe


def normal_loss(depth: Tensor, truth: Tensor, valid: Tensor, K: Tensor) -> Tensor:
    """L_N (eq. 4-6): angles in radians between the normals of two depth maps, of the mean normal and of each of its four parts."""
    parts, true_parts = (neighbour_normals(unproject(torch.where(valid, d, 1), K)) for d in (depth, truth))
    mask = valid[..., 1:-1, 1:-1] & valid[..., :-2, 1:-1] & valid[..., 2:, 1:-1] & valid[..., 1:-1, :-2] & valid[..., 1:-1, 2:]
    mean_error = angle(mean_normal(parts), mean_normal(true_parts))
    return masked_mean(mean_error + angle(parts, true_parts).sum(0), mask)


def neighbour_normals(points: Tensor) -> Tensor:
    """Unnormalised normals (4, ..., H - 2, W - 2, 3) of points (..., H, W, 3): of the triangles with two adjacent neighbours of four."""
    centre = points[..., 1:-1, 1:-1, :]
    right, down = points[..., 1:-1, 2:, :] - centre, points[..., 2:, 1:-1, :] - centre
    left, up = points[..., 1:-1, :-2, :] - centre, points[..., :-2, 1:-1, :] - centre
    around = (right, up, left, down, right)  # one way round, so that all normals point to one side
    return torch.stack([torch.linalg.cross(a, b) for a, b in pairwise(around)])


def mean_normal(parts: Tensor) -> Tensor:
    """n_m (..., 3) = sum w_i n_i / |n_i| with w_i = sum_j |n_j| - |n_i| (eq. 4, 5): the farther the neighbours, the less they say."""
    norms = _norm(parts)
    weights = norms.sum(0, keepdim=True) - norms
    return (weights * parts / norms).sum(0)


def angle(a: Tensor, b: Tensor) -> Tensor:
    """(...): angle in radians between vectors (..., 3), with a gradient everywhere."""
    a, b = a / _norm(a), b / _norm(b)
    return torch.atan2(_norm(torch.linalg.cross(a, b)).squeeze(-1), (a * b).sum(-1))


def _norm(v: Tensor) -> Tensor:
    return (v.square().sum(-1, keepdim=True) + 1e-20).sqrt()


def mask_loss(predicted: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """L_sky, L_obj: mean squared error of a mask (B, N, H, W) predicted as a number, over views (B, N) where it is known."""
    error = F.mse_loss(predicted, truth.to(predicted.dtype), reduction="none")
    return masked_mean(error.flatten(2).mean(2), known)
