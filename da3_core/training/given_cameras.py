"""Teaching tokens what given cameras mean: every patch its ray, and how far along it its point is in the cameras' own unit.

Depth follows from parallax where a token knows its own ray and that of the patch it attends to. From random weights given cameras take
long to reach the patches: single-image cues explain most of depth, and rays are asked for at the network's end only. So the tokens that
enter the taught blocks (see `matching`) are told their rays, and those that leave them the depth, in the unit of the given translations:
no single image tells that. Linear maps read both, and are thrown away after the training. Not a part of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from da3_core.geometry.rays import rays_from_cameras
from da3_core.geometry.rigid import invert_rigid, rigid_from_rt
from da3_core.model.backbone import Backbone
from da3_core.model.camera import relative_cameras
from da3_core.model.layers import linear
from da3_core.scenes.sample import Samples
from da3_core.training.losses import masked_mean, sample_depth
from da3_core.training.matching import taught_blocks

PARALLAX = 0.02  # share of the mean depth that cameras must be apart: with less, nothing tells depth in their unit


class GivenCameras(nn.Module):
    """The linear maps, and their loss."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.taught, self.patch = taught_blocks(backbone), backbone.config.patch_size
        self.rays = nn.ModuleList(_readout(backbone.config.embed_dim, 6) for _ in self.taught)
        self.log_depth = nn.ModuleList(_readout(backbone.config.embed_dim, 1) for _ in self.taught)

    @property
    def features_needed(self) -> list[int]:
        """The blocks whose outputs `forward` takes."""
        return [j for i in self.taught for j in (i - 1, i)]

    def forward(self, features: Mapping[str, Tensor], samples: Samples) -> Tensor:
        """(B,) the mean l1 error of rays and of log-depth; features: tokens (B, N, 1 + P, D) after the blocks that are needed."""
        T_cam_first, unit = relative_cameras(invert_rigid(samples.T_world_cam))
        T_first_cam = invert_rigid(T_cam_first)
        T_first_cam = rigid_from_rt(T_first_cam[..., :3, :3], T_first_cam[..., :3, 3] / unit[:, None, None])
        size = (samples.depth_m.shape[-2], samples.depth_m.shape[-1])
        grid = (size[0] // self.patch, size[1] // self.patch)
        rays = shortened(rays_from_cameras(T_first_cam, samples.K, size, grid)).flatten(2, 3)  # (B, N, P, 6)
        depth = sample_depth(samples.depth_m / unit[:, None, None, None], grid).flatten(2)  # (B, N, P)
        known = depth > 0
        reach = T_first_cam[..., :3, 3].norm(dim=-1).amax(1)  # (B,)
        known = known & (reach > PARALLAX * masked_mean(depth, known))[:, None, None]
        log_depth = torch.where(known, depth, 1.0).log()
        error = torch.zeros_like(unit)
        for i, to_rays, to_log_depth in zip(self.taught, self.rays, self.log_depth, strict=True):
            before, after = features[f"block_{i - 1:02d}"][:, :, 1:].float(), features[f"block_{i:02d}"][:, :, 1:].float()
            error = error + (to_rays(before) - rays).abs().sum(-1).mean((1, 2))
            error = error + masked_mean((to_log_depth(after).squeeze(-1) - log_depth).abs(), known)
        return error / len(self.taught)


def shortened(rays: Tensor) -> Tensor:
    """Ray maps (..., 6) with origins at the logarithm of one plus their distance: some cameras are a hundred units away."""
    directions, origins = rays.split(3, -1)
    distance = origins.norm(dim=-1, keepdim=True)
    return torch.cat([directions, origins * (distance.log1p() / distance.clamp(min=1e-6))], -1)


def _readout(dim: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim), linear(dim, channels))
