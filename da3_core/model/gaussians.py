"""3D Gaussians, one per pixel (paper section 5): a head for what depth and cameras do not say, and the way from there into the world."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da3_core.geometry.pinhole import directions_from_pixels, pixel_centres
from da3_core.geometry.rigid import invert_rigid, matrix_product, quaternion_from_rotation, rotate, rotation_from_quaternion
from da3_core.model.dpt import Fusion, OutputStack, Pyramid, Resample, Size, add_uv_embedding
from da3_core.model.presets import DPTConfig
from da3_core.types import Gaussians

RAW_CHANNELS = (2, 3, 4, 27, 1, 1)  # pixel offset, scale, quaternion, harmonics, depth offset, opacity
MIN_SCALE, MAX_SCALE = 1e-5, 30.0  # of a Gaussian, in tenths of its pixel's footprint
MAX_RESCALING = 3.0  # towards given cameras, either way
STANDSTILL = 1e-10  # squared motion over squared distance from the origin, below which motion is rounding


class GaussianDPT(nn.Module):
    """Features (B, N, P, C) and images to the 38 raw numbers of every pixel."""

    def __init__(self, dim_in: int, config: DPTConfig) -> None:
        super().__init__()
        width = config.features
        self.pyramid = Pyramid(dim_in, config, uv_embedding=True)
        self.fusion = Fusion(width)
        self.neck = nn.Conv2d(width, width // 2, 3, padding=1)
        self.resample = Resample()
        widths = (3, width // 8, width // 4, width // 2)
        self.image_convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.output = OutputStack(width // 2, sum(RAW_CHANNELS))

    def forward(self, features: Sequence[Tensor], images: Tensor, grid: Size) -> Tensor:
        """(B, N, H, W, 38) from four features and the images (B, N, 3, H, W) as the network saw them."""
        views, size = images.shape[:2], (images.shape[-2], images.shape[-1])
        fused = self.fusion(self.pyramid([f.flatten(0, 1).to(self.neck.weight.dtype) for f in features], grid))
        x = self.resample(self.neck(fused), size) + self._detail(images.flatten(0, 1))
        raw = self.output(add_uv_embedding(x, aspect=size[1] / size[0])).permute(0, 2, 3, 1).float()
        per_view: Tensor = raw.unflatten(0, views)
        return per_view

    def _detail(self, images: Tensor) -> Tensor:
        x = images.to(self.neck.weight.dtype)
        for conv in self.image_convs:
            x = F.gelu(conv(x))
        return x


def gaussians_from_raw(raw: Tensor, depth: Tensor, T_cam_world: Tensor, K: Tensor, T_cam_world_given: Tensor | None = None) -> Gaussians:
    """World Gaussians (B, N * H * W) from the raw numbers (B, N, H, W, 38) and the predicted depth (B, N, H, W) and cameras (B, N, ., .).

    They are in the network's scale, or in that of the given cameras (B, N, 4, 4), whose scale alone is taken.
    """
    offset_px, raw_scale, raw_quaternion, harmonics, depth_offset, raw_opacity = raw.split(RAW_CHANNELS, -1)
    T_world_cam = invert_rigid(T_cam_world)
    R_world_cam, centre = T_world_cam[..., None, None, :3, :3], T_world_cam[..., :3, 3]
    depth = depth.unsqueeze(-1) + depth_offset  # (B, N, H, W, 1)
    if T_cam_world_given is not None:
        rescaling = _scale_between(invert_rigid(T_cam_world_given)[..., :3, 3], centre)[:, None, None]
        centre, depth = centre * rescaling, depth * rescaling[..., None, None]

    h, w = raw.shape[2:4]
    pixels = pixel_centres(h, w, raw.device).expand_as(offset_px) + offset_px
    rays = F.normalize(rotate(R_world_cam, directions_from_pixels(pixels, K)), dim=-1)
    footprint = 0.1 * (1 / K[..., 0, 0] + 1 / K[..., 1, 1])[..., None, None, None]
    scale = (MIN_SCALE + (MAX_SCALE - MIN_SCALE) * raw_scale.sigmoid()) * depth * footprint
    return Gaussians(
        mean=(centre[..., None, None, :] + rays * depth).flatten(1, 3),
        scale=scale.flatten(1, 3),
        quaternion=_published_quaternion(raw_quaternion, R_world_cam).flatten(1, 3),
        sh=_harmonics_in_world(harmonics.unflatten(-1, (3, 9)), T_world_cam[..., :3, :3]).flatten(1, 3),
        opacity=raw_opacity.sigmoid().squeeze(-1).flatten(1, 3),
    )


def _published_quaternion(raw: Tensor, R_world_cam: Tensor) -> Tensor:
    """Checkpoints were trained with a mix-up, kept here and nowhere else: channels (r0, r1, r2, r3) are the local (y, z, w, x), and the
    world quaternion, stored as x, y, z, w, goes to a renderer that reads w, x, y, z."""
    local_xyzw = raw.roll(1, -1)
    return quaternion_from_rotation(matrix_product(R_world_cam, rotation_from_quaternion(local_xyzw)))


def _harmonics_in_world(coefficients: Tensor, R_world_cam: Tensor) -> Tensor:
    """Spherical harmonics (B, N, H, W, 3, 9) of degree 2, damped by degree and turned into the world's frame."""
    degree0, degree1, degree2 = coefficients.split((1, 3, 5), -1)
    basis1, basis2 = _linear_forms(coefficients), _quadratic_forms(coefficients)
    R = R_world_cam[..., None, :, :]
    turn1 = matrix_product(basis1, matrix_product(R_world_cam, basis1.mT))  # (B, N, 3, 3)
    turned_forms = matrix_product(R, matrix_product(basis2, R.mT))  # (B, N, 5, 3, 3)
    turn2 = (basis2.unsqueeze(1) * turned_forms.unsqueeze(-4)).sum((-2, -1))  # (B, N, 5, 5)
    degree1 = matrix_product(degree1, turn1.mT[:, :, None, None])
    degree2 = matrix_product(degree2, turn2.mT[:, :, None, None])
    return torch.cat([degree0, 0.025 * degree1, 0.00625 * degree2], -1)


def _linear_forms(like: Tensor) -> Tensor:
    """The basis -y, z, -x of degree 1 as rows (3, 3)."""
    return like.new_tensor([[0, -1, 0], [0, 0, 1], [-1, 0, 0]])


def _quadratic_forms(like: Tensor) -> Tensor:
    """The basis xy, -yz, 2z²-x²-y², -xz, x²-y² of degree 2 as symmetric matrices (5, 3, 3) of unit norm."""
    forms = like.new_tensor(
        [
            [[0, 1, 0], [1, 0, 0], [0, 0, 0]],
            [[0, 0, 0], [0, 0, -1], [0, -1, 0]],
            [[-1, 0, 0], [0, -1, 0], [0, 0, 2]],
            [[0, 0, -1], [0, 0, 0], [-1, 0, 0]],
            [[1, 0, 0], [0, -1, 0], [0, 0, 0]],
        ]
    )
    return forms / forms.square().sum((1, 2), keepdim=True).sqrt()


def _scale_between(p_a: Tensor, p_b: Tensor) -> Tensor:
    """(B,): the scale of Umeyama's similarity from p_b to p_a (B, N, 3), within [1/3, 3]; one where either stands still.

    The scale is determined for two points or a line too, where the similarity is not.
    """
    a, b = (p - p.mean(1, keepdim=True) for p in (p_a.double(), p_b.double()))
    covariance = a.mT @ b
    sigma = torch.linalg.svdvals(covariance)
    sign = torch.linalg.det(covariance).sign()
    scale = (sigma[:, 0] + sigma[:, 1] + sign * sigma[:, 2]) / _square(b)
    moves = (_square(a) > STANDSTILL * _square(p_a)) & (_square(b) > STANDSTILL * _square(p_b))
    return torch.where(moves, scale, 1.0).clamp(1 / MAX_RESCALING, MAX_RESCALING).to(p_a.dtype)


def _square(p: Tensor) -> Tensor:
    return p.square().sum((1, 2))
