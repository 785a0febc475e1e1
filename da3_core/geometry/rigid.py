"""Rigid transforms and rotations, batched over leading dimensions.

Nothing here is a matrix multiplication for the GPU: autocast and TF32 would round those to 8 or 11 bits. No function waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor


def matrix_product(A: Tensor, B: Tensor) -> Tensor:
    """A @ B for small matrices (..., n, k), (..., k, m), in the full precision of their type whatever autocast and TF32 are set to."""
    return (A.unsqueeze(-1) * B.unsqueeze(-3)).sum(-2)


def rotate(R: Tensor, p: Tensor) -> Tensor:
    """R @ p for vectors p (..., 3), R (..., 3, 3), in full precision."""
    return R[..., 0] * p[..., 0:1] + R[..., 1] * p[..., 1:2] + R[..., 2] * p[..., 2:3]


def rigid_from_rt(R: Tensor, t: Tensor) -> Tensor:
    """T_a_b (..., 4, 4) from its rotation (..., 3, 3) and translation (..., 3)."""
    top = torch.cat([R, t.unsqueeze(-1)], -1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([top, bottom], -2)


def invert_rigid(T: Tensor) -> Tensor:
    """T_b_a from T_a_b (..., 4, 4)."""
    R_b_a = T[..., :3, :3].mT
    return rigid_from_rt(R_b_a, -rotate(R_b_a, T[..., :3, 3]))


def rotation_from_quaternion(q_xyzw: Tensor) -> Tensor:
    """(..., 3, 3) from quaternions (..., 4) of any non-zero length."""
    x, y, z, w = q_xyzw.unbind(-1)
    s = 2 / (q_xyzw * q_xyzw).sum(-1)
    rows = (
        (1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)),
        (s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)),
        (s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def quaternion_from_rotation(R: Tensor) -> Tensor:
    """Unit quaternions (..., 4), x y z w with w >= 0, from rotations (..., 3, 3).

    Every column of the matrix 4 q qᵀ, which is linear in R, is a multiple of q. The longest one is normalised: smooth and stable
    at every angle.
    """
    (r00, r01, r02), (r10, r11, r12), (r20, r21, r22) = (row.unbind(-1) for row in R.unbind(-2))
    outer = (
        (1 + r00 - r11 - r22, r01 + r10, r02 + r20, r21 - r12),
        (r01 + r10, 1 - r00 + r11 - r22, r12 + r21, r02 - r20),
        (r02 + r20, r12 + r21, 1 - r00 - r11 + r22, r10 - r01),
        (r21 - r12, r02 - r20, r10 - r01, 1 + r00 + r11 + r22),
    )
    columns = torch.stack([torch.stack(row, -1) for row in outer], -2)  # (..., 4, 4), symmetric
    longest = columns.diagonal(dim1=-2, dim2=-1).argmax(-1, keepdim=True)  # (..., 1)
    q = torch.take_along_dim(columns, longest.unsqueeze(-1), -2).squeeze(-2)
    q = q / torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    return torch.where(q[..., 3:] < 0, -q, q)


def rotation_angle(R: Tensor) -> Tensor:
    """Angle in [0, pi] radians of rotations (..., 3, 3), accurate at both ends."""
    twice_sine = torch.stack([R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], -1)
    twice_cosine = R.diagonal(dim1=-2, dim2=-1).sum(-1) - 1
    return torch.atan2(torch.linalg.vector_norm(twice_sine, dim=-1), twice_cosine)


def interpolate_rigid(T_a: Tensor, T_b: Tensor, alpha: float | Tensor) -> Tensor:
    """The pose a share alpha (...) of the way from T_a to T_b (..., 4, 4): straight translation, shortest rotation at constant speed."""
    alpha = alpha.unsqueeze(-1) if isinstance(alpha, Tensor) else alpha
    t = torch.lerp(T_a[..., :3, 3], T_b[..., :3, 3], alpha)
    R_a = T_a[..., :3, :3]
    q = quaternion_from_rotation(matrix_product(R_a.mT, T_b[..., :3, :3]))
    sine = torch.linalg.vector_norm(q[..., :3], dim=-1, keepdim=True)
    half_angle = torch.atan2(sine, q[..., 3:])
    share = torch.where(sine > 0, torch.sin(alpha * half_angle) / sine, alpha)
    q_part = torch.cat([q[..., :3] * share, torch.cos(alpha * half_angle)], -1)
    return rigid_from_rt(matrix_product(R_a, rotation_from_quaternion(q_part)), t)
