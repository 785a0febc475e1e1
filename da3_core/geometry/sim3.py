"""Similarity transforms: p_a = scale * R_a_b p_b + t_a_b."""

from __future__ import annotations

import torch
from torch import Tensor

from da3_core.geometry.rigid import matrix_product, rigid_from_rt, rotate
from da3_core.types import Sim3

MIN_SPREAD = 1e-3  # of a point set: its second largest extent over its largest; below, the rotation about the line is noise


def apply(S_a_b: Sim3, p_b: Tensor) -> Tensor:
    """p_a (..., 3) of points p_b (..., 3); a batch of transforms (...) needs points (..., *, 3) with the same leading dimensions."""
    extra = (1,) * (p_b.ndim - 1 - S_a_b.scale.ndim)
    scale = S_a_b.scale.reshape(*S_a_b.scale.shape, *extra, 1)
    R = S_a_b.R.reshape(*S_a_b.R.shape[:-2], *extra, 3, 3)
    t = S_a_b.t.reshape(*S_a_b.t.shape[:-1], *extra, 3)
    return scale * rotate(R, p_b) + t


def compose(S_a_b: Sim3, S_b_c: Sim3) -> Sim3:
    """S_a_c."""
    return Sim3(S_a_b.scale * S_b_c.scale, matrix_product(S_a_b.R, S_b_c.R), apply(S_a_b, S_b_c.t))


def invert(S_a_b: Sim3) -> Sim3:
    """S_b_a."""
    scale, R = 1 / S_a_b.scale, S_a_b.R.mT
    return Sim3(scale, R, -scale.unsqueeze(-1) * rotate(R, S_a_b.t))


def transform_cameras(S_a_b: Sim3, T_b_cam: Tensor) -> Tensor:
    """T_a_cam (..., *, 4, 4): camera poses moved from frame b into frame a. Depths seen by them must be multiplied by the scale."""
    extra = (1,) * (T_b_cam.ndim - 2 - S_a_b.scale.ndim)
    R_a_b = S_a_b.R.reshape(*S_a_b.R.shape[:-2], *extra, 3, 3)
    return rigid_from_rt(matrix_product(R_a_b, T_b_cam[..., :3, :3]), apply(S_a_b, T_b_cam[..., :3, 3]))


def umeyama(p_a: Tensor, p_b: Tensor, weights: Tensor | None = None) -> Sim3:
    """S_a_b minimising sum w |p_a - S_a_b p_b|^2 (Umeyama 1991), computed in float64.

    p_a, p_b: (..., P, 3) corresponding points; weights: (..., P), not negative. Waits for the device.
    Raises ValueError when one of the sets is a point or a line: then the rotation is not determined.
    """
    a, b = p_a.double(), p_b.double()
    w = torch.ones_like(a[..., 0]) if weights is None else weights.double().expand_as(a[..., 0])
    _refuse_lines(a, w)
    _refuse_lines(b, w)
    return _cast(_solve(a, b, w), p_a.dtype)


def _solve(a: Tensor, b: Tensor, w: Tensor) -> Sim3:
    """Umeyama's solution of float64 points, determined or not."""
    w = (w / w.sum(-1, keepdim=True)).unsqueeze(-1)
    mean_a, mean_b = (w * a).sum(-2), (w * b).sum(-2)
    a, b = a - mean_a.unsqueeze(-2), b - mean_b.unsqueeze(-2)
    U, sigma, Vh = torch.linalg.svd((w * a).mT @ b)
    sign = torch.ones_like(sigma)
    sign[..., 2] = torch.sign(torch.linalg.det(U) * torch.linalg.det(Vh))
    R = (U * sign.unsqueeze(-2)) @ Vh
    scale = (sigma * sign).sum(-1) / (w * b * b).sum((-2, -1))
    return Sim3(scale, R, mean_a - scale.unsqueeze(-1) * rotate(R, mean_b))


def _refuse_lines(points: Tensor, w: Tensor) -> None:
    w = (w / w.sum(-1, keepdim=True)).unsqueeze(-1)
    centred = points - (w * points).sum(-2, keepdim=True)
    variance = torch.linalg.eigvalsh(((w * centred).mT @ centred).nan_to_num(0.0))  # (..., 3) along its axes, ascending
    if not bool((variance[..., 1] > MIN_SPREAD**2 * variance[..., 2]).all()):
        raise ValueError(
            "a similarity needs points that span a plane: these are too few, coincide, lie on a line or are not finite; "
            "estimate the scale alone from baselines, or take more points"
        )


def _cast(S_a_b: Sim3, dtype: torch.dtype) -> Sim3:
    return Sim3(S_a_b.scale.to(dtype), S_a_b.R.to(dtype), S_a_b.t.to(dtype))
