"""Views as networks are fed with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from da3_core.geometry.rigid import invert_rigid
from da3_core.model.camera import normalise_cameras
from da3_core.types import View

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalised_images(images: Tensor) -> Tensor:
    """(..., 3, H, W) float32 as DINOv2 was trained to see them, from uint8 RGB."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).reshape(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images.device).reshape(3, 1, 1)
    return (images.float() / 255 - mean) / std


def given_cameras(views: Sequence[View]) -> tuple[Tensor, Tensor]:
    """T_cam_world (N, 4, 4), normalised, and K (N, 3, 3) of posed views, float32. Raises ValueError naming the view without camera."""
    T_world_cam, K = [], []
    for view in views:
        if view.T_world_cam is None or view.K is None:
            raise ValueError(f"view {view.id} of camera {view.camera!r} has no pose or no K: infer with posed=False")
        T_world_cam.append(view.T_world_cam.double())
        K.append(view.K.float())
    return normalise_cameras(invert_rigid(torch.stack(T_world_cam))).float(), torch.stack(K)
