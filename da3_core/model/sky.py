"""Sky has no depth: it is put behind everything that has."""

from __future__ import annotations

import torch
from torch import Tensor

from da3_core.types import SKY_THRESHOLD

MIN_PIXELS = 10  # of sky, and of the rest, that there must be more than
FAR_QUANTILE = 0.99


def fill_sky(depth: Tensor, sky: Tensor) -> Tensor:
    """Depth (B, N, H, W) with the sky at the 0.99 quantile of the rest, over all views of a scene.

    A scene with 10 or fewer pixels of sky, or of anything else, stays as it is. The quantile is exact: the reference implementation
    draws 100,000 samples to estimate it.
    """
    is_sky = sky >= SKY_THRESHOLD
    count = is_sky.sum((1, 2, 3), keepdim=True)
    far = quantile(depth, ~is_sky, FAR_QUANTILE)
    enough = (count > MIN_PIXELS) & (is_sky[0].numel() - count > MIN_PIXELS)
    return torch.where(is_sky & enough, far, depth)


def quantile(values: Tensor, mask: Tensor, q: float) -> Tensor:
    """The q-quantile (B, 1, 1, 1), linearly interpolated, of the values (B, N, H, W) where mask holds; infinite where it never does."""
    ordered = torch.where(mask, values, torch.inf).flatten(1).sort().values
    position = (mask.flatten(1).sum(1, keepdim=True) - 1).clamp(min=0).double() * q
    below = position.floor()
    low, high = ordered.gather(1, below.long()), ordered.gather(1, position.ceil().long())
    interpolated = torch.where(low == high, low, torch.lerp(low, high, (position - below).to(low.dtype)))
    return interpolated[:, :, None, None]
