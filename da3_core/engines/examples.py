"""What programs are built, warmed up and checked with: images that are not all the same, and cameras along a path."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from da3_core.model.dpt import Size

COARSE = (6, 8)  # spots of colour in an image


def example_images(views: int, size: Size) -> Tensor:
    """(V, 3, H, W) uint8: soft spots under a little noise, others in every view, the same every time."""
    generator = torch.Generator().manual_seed(0)
    spots = F.interpolate(torch.rand(views, 3, *COARSE, generator=generator), size, mode="bilinear")
    noise = torch.rand(views, 3, *size, generator=generator)
    return (255 * (0.9 * spots + 0.1 * noise)).to(torch.uint8)


def example_cameras(views: int, size: Size) -> tuple[Tensor, Tensor]:
    """T_cam_world (V, 4, 4), normalised, and K (V, 3, 3): a sideways path that turns."""
    H, W = size
    steps = torch.arange(views)
    T_cam_world = torch.eye(4).repeat(views, 1, 1)
    angle, zero = 0.05 * steps, torch.zeros(views)
    rows = (torch.stack([angle.cos(), zero, angle.sin()], -1), torch.stack([-angle.sin(), zero, angle.cos()], -1))
    T_cam_world[:, 0, :3], T_cam_world[:, 2, :3] = rows
    T_cam_world[:, 0, 3] = -2 * steps / max(1, views - 1)
    K = torch.tensor([[0.9 * W, 0, W / 2], [0, 0.9 * W, H / 2], [0, 0, 1]])
    return T_cam_world, K.repeat(views, 1, 1)
