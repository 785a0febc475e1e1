"""The gradient of bilinear resampling as two small matrix products.

The usual one scatters every pixel's gradient with atomic additions, which took a fifth of a training step on an H200.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def resample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corners onto corners: (V, C, h, w) to (V, C, H, W), with a fast gradient."""
    resampled: Tensor = _Resample.apply(x, size)  # type: ignore[no-untyped-call]
    return resampled


class _Resample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.sizes = tuple(x.shape[-2:]), size
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        (h, w), (H, W) = ctx.sizes
        down = resampling_matrix(h, H, gradient.device).to(gradient.dtype)  # (H, h)
        across = resampling_matrix(w, W, gradient.device).to(gradient.dtype)  # (W, w)
        return down.mT @ (gradient @ across), None


def resampling_matrix(count: int, new_count: int, device: torch.device) -> Tensor:
    """(new_count, count) float64: what linear resampling, ends onto ends, multiplies a row of numbers with."""
    step = (count - 1) / (new_count - 1) if new_count > 1 else 0.0
    positions = torch.arange(new_count, device=device, dtype=torch.float64) * step
    return (1 - (positions.unsqueeze(1) - torch.arange(count, device=device)).abs()).clamp(min=0)
