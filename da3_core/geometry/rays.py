"""Ray maps (paper section 3.1): per pixel a direction, not normalised, and an origin, so that a point is origin + z-depth * direction."""

from __future__ import annotations

import torch
from torch import Tensor

from da3_core.geometry.pinhole import directions_from_pixels, pixel_centres, scale_K
from da3_core.geometry.rigid import rotate


def rays_from_cameras(T_world_cam: Tensor, K: Tensor, image_size: tuple[int, int], map_size: tuple[int, int]) -> Tensor:
    """Ray maps (..., h, w, 6) in the world's frame: direction R K^-1 p, then origin t.

    T_world_cam (..., 4, 4), K (..., 3, 3) in pixels of the (H, W) image, which the (h, w) map covers whole.
    """
    (H, W), (h, w) = image_size, map_size
    map_K = scale_K(K, w / W, h / H)
    pixels = pixel_centres(h, w, K.device, K.dtype).expand(*K.shape[:-2], h, w, 2)
    directions = directions_from_pixels(pixels, map_K)
    directions = rotate(T_world_cam[..., None, None, :3, :3], directions)
    origins = T_world_cam[..., None, None, :3, 3].expand_as(directions)
    return torch.cat([directions, origins], -1)


def points_from_rays(rays: Tensor, depth: Tensor) -> Tensor:
    """World points (..., h, w, 3) from rays (..., h, w, 6) and z-depth (..., h, w)."""
    return rays[..., 3:] + depth.unsqueeze(-1) * rays[..., :3]
