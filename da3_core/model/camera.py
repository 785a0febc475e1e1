"""Cameras to tokens and tokens to cameras (paper sections 3.1, 3.2). Nine numbers a camera: T_world_cam's translation, its quaternion
x y z w, vertical and horizontal field of view in radians."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da3_core.geometry.pinhole import K_from_fov, fov_from_K
from da3_core.geometry.rigid import invert_rigid, matrix_product, quaternion_from_rotation, rigid_from_rt, rotation_from_quaternion
from da3_core.model.layers import Block, Mlp, linear

MIN_CAMERA_DISTANCE = 0.1  # of given cameras, below which their translations are not blown up any further


class CameraEncoder(nn.Module):
    """Given cameras to the tokens that replace the learned ones."""

    def __init__(self, dim: int, heads: int, depth: int, layer_scale: float) -> None:
        super().__init__()
        self.pose_branch = Mlp(9, dim // 2, dim)
        self.token_norm = nn.LayerNorm(dim)
        self.trunk = nn.ModuleList(Block(dim, heads, Mlp(dim, 4 * dim, dim), norm_eps=1e-5, layer_scale=layer_scale) for _ in range(depth))
        self.trunk_norm = nn.LayerNorm(dim)

    def forward(self, T_cam_world: Tensor, K: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, D) from T_cam_world (B, N, 4, 4), normalised, and K (B, N, 3, 3) of the (H, W) image."""
        encoding = encoding_from_cameras(T_cam_world.float(), K.float(), size)
        x = self.token_norm(self.pose_branch(encoding.to(self.token_norm.weight.dtype)))
        for block in self.trunk:
            x = block(x)
        tokens: Tensor = self.trunk_norm(x)
        return tokens


class CameraDecoder(nn.Module):
    """The camera feature of the last out layer to nine numbers a view."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = linear(dim, dim)
        self.fc2 = linear(dim, dim)
        self.translation = linear(dim, 3)
        self.quaternion = linear(dim, 4)
        self.fov = linear(dim, 2)
        # Start from a plausible camera: a quaternion of length zero has no direction, a field of view below zero no gradient.
        nn.init.constant_(self.quaternion.bias[3:], 1.0)
        nn.init.constant_(self.fov.bias, 1.0)

    def forward(self, feature: Tensor) -> Tensor:
        """Camera encodings (B, N, 9), float32, from (B, N, C)."""
        x = F.relu(self.fc2(F.relu(self.fc1(feature.to(self.fc1.weight.dtype)))))
        return torch.cat([self.translation(x), self.quaternion(x), F.relu(self.fov(x))], -1).float()


def cameras_from_encoding(encoding: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """T_cam_world (..., 4, 4) and K (..., 3, 3) of the (H, W) image from encodings (..., 9)."""
    t, q_xyzw, fov = encoding.split((3, 4, 2), -1)
    T_world_cam = rigid_from_rt(rotation_from_quaternion(q_xyzw), t)
    return invert_rigid(T_world_cam), K_from_fov(fov, *size)


def encoding_from_cameras(T_cam_world: Tensor, K: Tensor, size: tuple[int, int]) -> Tensor:
    """Encodings (..., 9) from T_cam_world (..., 4, 4) and K (..., 3, 3) of the (H, W) image, whose principal point is taken as centred."""
    T_world_cam = invert_rigid(T_cam_world)
    q_xyzw = quaternion_from_rotation(T_world_cam[..., :3, :3])
    return torch.cat([T_world_cam[..., :3, 3], q_xyzw, fov_from_K(K, *size)], -1)


def normalise_cameras(T_cam_world: Tensor) -> Tensor:
    """Given cameras (..., N, 4, 4) as the camera encoder was trained to see them.

    The first view's frame becomes the world's, and the (lower) median distance of the cameras from it becomes one; cameras closer than
    0.1 together are only scaled by 10.
    """
    T_cam_first, unit = relative_cameras(T_cam_world)
    return rigid_from_rt(T_cam_first[..., :3, :3], T_cam_first[..., :3, 3] / unit[..., None, None])


def relative_cameras(T_cam_world: Tensor) -> tuple[Tensor, Tensor]:
    """Given cameras (..., N, 4, 4) in the first view's frame, and the distance (...,) that `normalise_cameras` makes one."""
    T_cam_first = matrix_product(T_cam_world, invert_rigid(T_cam_world[..., :1, :, :]))
    distance = torch.linalg.vector_norm(T_cam_first[..., :3, 3], dim=-1).median(-1).values
    return T_cam_first, distance.clamp(min=MIN_CAMERA_DISTANCE)
