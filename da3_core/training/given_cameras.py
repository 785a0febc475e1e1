"""Teaching tokens what given cameras mean: every patch its ray, and how far along it its point is in the cameras' own unit.

Depth follows from parallax where a token knows its own ray and that of the patch it attends to. From random weights given cameras take
long to reach the patches: single-image cues explain most of depth, and rays are asked for at the network's end only. So the tokens that
enter the taught blocks (see `matching`) are told their rays, and those that leave them the depth, in the unit of the given translations:
single images do not tell that (but of two views, whose unit is a decimetre, as `relative_cameras` has it, they tell as much as of metres).
Linear maps read both, and are thrown away after the training. Not a part of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from da3_core.geometry.rays import rays_from_cameras
from da3_core.geometry.rigid import invert_rigid
from da3_core.model.backbone import Backbone
from da3_core.model.camera import normalise_cameras, relative_cameras
from da3_core.model.layers import linear
from da3_core.scenes.sample import Samples
from da3_core.training.losses import masked_mean, sample_depth
from da3_core.training.matching import taught_blocks

PARALLAX = 0.02  # share of the mean depth that cameras must be apart: with less, nothing tells depth in their unit


class GivenCameras(nn.Module):
    """The linear maps, and their loss."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.patch, dim = backbone.config.patch_size, backbone.config.embed_dim
        self.after = taught_blocks(backbone)
        self.before = [i - 1 for i in self.after if i > backbone.first_window_block]  # where cameras have entered
        self.rays = nn.ModuleList(_readout(dim, 6) for _ in self.before)
        self.log_depth = nn.ModuleList(_readout(dim, 1) for _ in self.after)

    @property
    def features_needed(self) -> list[int]:
        """The blocks whose outputs `forward` takes."""
        return sorted({*self.before, *self.after})

    def forward(self, features: Mapping[str, Tensor], samples: Samples) -> Tensor:
        """(B,) the mean l1 error of rays and of log-depth; features: tokens (B, N, 1 + P, D) after the blocks that are needed."""
        T_cam_world = invert_rigid(samples.T_world_cam)
        T_first_cam, (_, unit) = invert_rigid(normalise_cameras(T_cam_world)), relative_cameras(T_cam_world)
        size = (samples.depth_m.shape[-2], samples.depth_m.shape[-1])
        grid = (size[0] // self.patch, size[1] // self.patch)
        rays = shortened(rays_from_cameras(T_first_cam, samples.K, size, grid)).flatten(2, 3)  # (B, N, P, 6)
        depth = sample_depth(samples.depth_m / unit[:, None, None, None], grid).flatten(2)  # (B, N, P)
        known = depth > 0
        reach = T_first_cam[..., :3, 3].norm(dim=-1).amax(1)  # (B,)
        known = known & (reach > PARALLAX * masked_mean(depth, known))[:, None, None]
        log_depth = torch.where(known, depth, 1.0).log()
        told_rays = _read(self.rays, features, self.before)
        told_log_depth = _read(self.log_depth, features, self.after).squeeze(-1)
        ray_error = (told_rays - rays).abs().sum(-1).mean((0, 2, 3))
        return ray_error + masked_mean((told_log_depth - log_depth).abs().mean(0), known)


def shortened(rays: Tensor) -> Tensor:
    """Ray maps (..., 6) with origins at the logarithm of one plus their distance: some cameras are a hundred units away."""
    directions, origins = rays.split(3, -1)
    distance = origins.norm(dim=-1, keepdim=True)
    return torch.cat([directions, origins * (distance.log1p() / distance.clamp(min=1e-6))], -1)


def _read(readouts: nn.ModuleList, features: Mapping[str, Tensor], blocks: Sequence[int]) -> Tensor:
    """(len(blocks), B, N, P, channels)"""
    patches = [features[f"block_{i:02d}"][:, :, 1:].float() for i in blocks]
    return torch.stack([readout(x) for readout, x in zip(readouts, patches, strict=True)])


def _readout(dim: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim), linear(dim, channels))
