"""Dense prediction: a pyramid from four features, fused coarse to fine (Ranftl et al. 2021), and the head of the mono networks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da3_core.model.layers import truncated_normal_
from da3_core.model.presets import DPTConfig

Size = tuple[int, int]  # height, width in pixels


class Pyramid(nn.Module):
    """Four features to four maps of one width, at 4, 2, 1 and 1/2 times the patch grid."""

    def __init__(self, dim_in: int, config: DPTConfig, uv_embedding: bool) -> None:
        super().__init__()
        c0, c1, _, c3 = config.channels
        self.uv_embedding = uv_embedding
        self.projects = nn.ModuleList(nn.Conv2d(dim_in, c, 1) for c in config.channels)
        self.resizes = nn.ModuleList(
            [nn.ConvTranspose2d(c0, c0, 4, 4), nn.ConvTranspose2d(c1, c1, 2, 2), nn.Identity(), nn.Conv2d(c3, c3, 3, 2, 1)]
        )
        self.laterals = nn.ModuleList(nn.Conv2d(c, config.features, 3, padding=1, bias=False) for c in config.channels)

    def forward(self, features: Sequence[Tensor], grid: Size) -> list[Tensor]:
        """features: four of (V, P, C). Returns four of (V, features, ., .), fine to coarse."""
        return [self._level(k, feature, grid) for k, feature in enumerate(features)]

    def _level(self, k: int, feature: Tensor, grid: Size) -> Tensor:
        x = self.projects[k](feature.transpose(1, 2).unflatten(2, grid))
        if self.uv_embedding:
            x = add_uv_embedding(x, aspect=grid[1] / grid[0])
        y: Tensor = self.laterals[k](self.resizes[k](x))
        return y


class Resample(nn.Module):
    """Bilinear, corners onto corners. A module, so that training can give it a faster gradient."""

    def forward(self, x: Tensor, size: Size) -> Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=True)


class ResidualUnit(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv2(F.relu(self.conv1(F.relu(x))))
        return y


class FusionLevel(nn.Module):
    """Adds a pyramid level to what came from the coarser ones, and brings the sum to the next size."""

    def __init__(self, features: int, has_coarser: bool) -> None:
        super().__init__()
        self.lateral_unit = ResidualUnit(features) if has_coarser else None
        self.unit = ResidualUnit(features)
        self.out = nn.Conv2d(features, features, 1)
        self.resample = Resample()

    def forward(self, lateral: Tensor, coarser: Tensor | None, size: Size) -> Tensor:
        fused = lateral if coarser is None or self.lateral_unit is None else coarser + self.lateral_unit(lateral)
        # A 1x1 convolution and a resampling commute: in this order the convolution sees a quarter of the pixels.
        y: Tensor = self.resample(self.out(self.unit(fused)), size)
        return y


class Fusion(nn.Module):
    """Four maps to one at twice the finest size."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(FusionLevel(features, has_coarser=k < 3) for k in range(4))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """maps: four of (V, F, ., .), fine to coarse. Returns (V, F, 2h, 2w)."""
        h, w = maps[0].shape[-2:]
        sizes = [(2 * h, 2 * w), *(m.shape[-2:] for m in maps)]
        fused: Tensor = self.levels[3](maps[3], None, sizes[3])
        for k in (2, 1, 0):
            fused = self.levels[k](maps[k], fused, sizes[k])
        return fused


class OutputStack(nn.Module):
    """3x3 convolution, ReLU, 1x1 convolution."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(features, 32, 3, padding=1)
        self.out = output_layer(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(F.relu(self.conv(x)))
        return y


class DPT(nn.Module):
    """Depth and sky of single views: features (B, N, P, C) to depth and sky (B, N, H, W), sky where >= 0.3."""

    def __init__(self, dim_in: int, config: DPTConfig) -> None:
        super().__init__()
        self.pyramid = Pyramid(dim_in, config, uv_embedding=False)
        self.fusion = Fusion(config.features)
        self.neck = nn.Conv2d(config.features, config.features // 2, 3, padding=1)
        self.depth_output = OutputStack(config.features // 2, 1)
        self.sky_output = OutputStack(config.features // 2, 1)
        self.resample = Resample()

    def forward(self, features: Sequence[Tensor], grid: Size, size: Size, more: Sequence[OutputStack] = ()) -> tuple[Tensor, ...]:
        """`more` are further outputs of one channel, read from the same map: theirs (B, N, H, W) come last, as they are."""
        views = features[0].shape[:2]
        fused = self.fusion(self.pyramid([f.flatten(0, 1).to(self.neck.weight.dtype) for f in features], grid))
        x = self.resample(self.neck(fused), size)
        depth = self.depth_output(x).float().exp()
        sky = F.relu(self.sky_output(x).float())
        maps = (depth, sky, *(output(x).float() for output in more))
        return tuple(m.squeeze(1).unflatten(0, views) for m in maps)


def output_layer(dim_in: int, channels: int) -> nn.Conv2d:
    """A last 1x1 convolution whose random weights start near zero, so that exp starts near one."""
    layer = nn.Conv2d(dim_in, channels, 1)
    truncated_normal_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def add_uv_embedding(x: Tensor, aspect: float) -> Tensor:
    """Adds a tenth of a sinusoidal embedding of where in the image a pixel is to maps (V, C, a, b). aspect: width over height."""
    channels, a, b = x.shape[-3:]
    diagonal = math.sqrt(aspect**2 + 1)
    across = _sinusoids(aspect / diagonal, b, channels // 2, x.device)  # (C / 2, b)
    down = _sinusoids(1 / diagonal, a, channels // 2, x.device)  # (C / 2, a)
    embedding = torch.cat([across.unsqueeze(1).expand(-1, a, -1), down.unsqueeze(2).expand(-1, -1, b)])
    return x + 0.1 * embedding.to(x.dtype)


def _sinusoids(extent: float, count: int, channels: int, device: torch.device) -> Tensor:
    """(channels, count): sines, then cosines, of `count` pixel centres in [-extent, extent] at frequencies from 1 down to 1/100."""
    last = extent * (count - 1) / count
    positions = torch.linspace(-last, last, count, device=device)
    frequencies = 100.0 ** -(torch.arange(channels // 2, device=device) / (channels / 2))
    angles = frequencies.unsqueeze(1) * positions
    return torch.cat([angles.sin(), angles.cos()])
