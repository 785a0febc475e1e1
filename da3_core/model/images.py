"""How the networks want their images: as DINOv2 was trained on."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def normalise_images(images: Tensor) -> Tensor:
    """RGB (..., 3, H, W) in 0..1 as the network takes it."""
    mean, std = _mean_and_std(images.device)
    return (images - mean) / std


@lru_cache(maxsize=8)
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """(3, 1, 1) each, made once: a copy from the host would keep a step from being recorded."""
    mean, std = (torch.tensor(values, device=device).reshape(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return mean, std
