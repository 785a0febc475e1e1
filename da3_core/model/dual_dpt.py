"""The Dual-DPT head (paper section 3.2): one pyramid, fused twice, once for depth and once for rays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from da3_core.model.dpt import Fusion, OutputStack, Pyramid, Resample, Size, add_uv_embedding, output_layer
from da3_core.model.presets import DPTConfig


class DenseMaps(NamedTuple):
    """What was asked for; None for the rest."""

    depth: Tensor | None = None  # (B, N, H, W)
    confidence: Tensor | None = None  # (B, N, H, W), at least 1
    rays: Tensor | None = None  # (B, N, 8h, 8w, 6), direction then origin
    ray_confidence: Tensor | None = None  # (B, N, 8h, 8w), at least 1


class DualDPT(nn.Module):
    """Depth, rays and a confidence of each from four features."""

    def __init__(self, dim_in: int, config: DPTConfig) -> None:
        super().__init__()
        width, half = config.features, config.features // 2
        self.norm = nn.LayerNorm(dim_in)
        self.pyramid = Pyramid(dim_in, config, uv_embedding=True)
        self.depth_fusion = Fusion(width)
        self.depth_neck = nn.Conv2d(width, half, 3, padding=1)
        self.resample = Resample()
        self.depth_output = OutputStack(half, 2)
        self.ray_fusion = Fusion(width)
        # Checkpoints have a ray output for every fusion level, with one normalisation between them. Only the finest is ever read.
        self.ray_necks = nn.ModuleList(_ray_neck(width, half) for _ in range(4))
        shared_norm = nn.LayerNorm(32)
        self.ray_outputs = nn.ModuleList(RayOutput(half, shared_norm) for _ in range(4))

    def forward(self, features: Sequence[Tensor], grid: Size, size: Size, depth: bool = True, rays: bool = False) -> DenseMaps:
        """features: four of (B, N, P, C) on a patch grid of h rows and w columns; size: of the image, (H, W)."""
        if not (depth or rays):
            return DenseMaps()
        views = features[0].shape[:2]
        maps = self.pyramid([self.norm(f.flatten(0, 1).to(self.norm.weight.dtype)) for f in features], grid)
        depth_maps = self._depth(maps, size) if depth else (None, None)
        ray_maps = self._rays(maps, size) if rays else (None, None)
        return DenseMaps(*(m if m is None else m.unflatten(0, views) for m in depth_maps + ray_maps))

    def _depth(self, maps: Sequence[Tensor], size: Size) -> tuple[Tensor, Tensor]:
        x = self.resample(self.depth_neck(self.depth_fusion(maps)), size)
        logits = self.depth_output(add_uv_embedding(x, aspect=size[1] / size[0])).float()  # (B * N, 2, H, W)
        return logits[:, 0].exp(), 1 + logits[:, 1].exp()

    def _rays(self, maps: Sequence[Tensor], size: Size) -> tuple[Tensor, Tensor]:
        neck = self.ray_necks[3]
        x = neck(self.ray_fusion(maps).to(next(neck.parameters()).dtype))
        out = self.ray_outputs[3](add_uv_embedding(x, aspect=size[1] / size[0])).float()  # (B * N, 7, 8h, 8w)
        return out[:, :6].permute(0, 2, 3, 1), 1 + out[:, 6].exp()


class RayOutput(nn.Module):
    """3x3 convolution, normalisation over channels, ReLU, 1x1 convolution."""

    def __init__(self, features: int, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(features, 32, 3, padding=1)
        self.norm = norm
        self.out = output_layer(32, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y: Tensor = self.out(F.relu(x))
        return y


def _ray_neck(width: int, half: int) -> nn.Sequential:
    """Five 3x3 convolutions with nothing between them."""
    widths = (width, half, width, half, width, half)
    return nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)))
