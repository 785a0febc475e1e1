"""The pinhole camera and the one pixel convention of this package.

Pixel centres are at +0.5 and the image spans [0, W] x [0, H]: a centred principal point is (W/2, H/2), and resizing is multiplication.
ROS and OpenCV put the first pixel's centre at (0, 0): `K_from_ros` and `ros_from_K` are the border.
K is upper triangular with K[2, 2] = 1. Nothing here waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_centres(h: int, w: int, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """(h, w, 2): x, y of every pixel's centre."""
    x = torch.arange(w, device=device, dtype=dtype) + 0.5
    y = torch.arange(h, device=device, dtype=dtype) + 0.5
    return torch.stack([x.expand(h, w), y.unsqueeze(-1).expand(h, w)], -1)


def directions_from_pixels(pixels: Tensor, K: Tensor) -> Tensor:
    """K^-1 p, with z = 1, in the camera's frame.

    pixels: (..., *, 2), any number of dimensions * after those of K. K: (..., 3, 3). Returns (..., *, 3).
    """
    K = _match(K, pixels)
    y = (pixels[..., 1] - K[..., 1, 2]) / K[..., 1, 1]
    x = (pixels[..., 0] - K[..., 0, 2] - K[..., 0, 1] * y) / K[..., 0, 0]
    return torch.stack([x, y, torch.ones_like(x)], -1)


def unproject(depth: Tensor, K: Tensor) -> Tensor:
    """Points (..., H, W, 3) in the camera's frame from z-depth (..., H, W) and K (..., 3, 3) of that very map."""
    h, w = depth.shape[-2:]
    pixels = pixel_centres(h, w, depth.device, depth.dtype).expand(*K.shape[:-2], h, w, 2)
    return directions_from_pixels(pixels, K) * depth.unsqueeze(-1)


def project(points: Tensor, K: Tensor) -> Tensor:
    """Pixels (..., *, 2) of points (..., *, 3) in the camera's frame, K (..., 3, 3). Only points with z > 0 have a meaningful pixel."""
    K = _match(K, points)
    x, y = points[..., 0] / points[..., 2], points[..., 1] / points[..., 2]
    u = K[..., 0, 0] * x + K[..., 0, 1] * y + K[..., 0, 2]
    v = K[..., 1, 1] * y + K[..., 1, 2]
    return torch.stack([u, v], -1)


def _match(K: Tensor, vectors: Tensor) -> Tensor:
    """K with dimensions of size one for those that `vectors` has more."""
    missing = vectors.ndim - 1 - (K.ndim - 2)
    return K.reshape(*K.shape[:-2], *(1,) * missing, 3, 3)


def K_from_parameters(fx: Tensor, fy: Tensor, cx: Tensor, cy: Tensor) -> Tensor:
    """(..., 3, 3) from focal lengths and principal point, each (...), in pixels."""
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = ((fx, zero, cx), (zero, fy, cy), (zero, zero, one))
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def fov_from_K(K: Tensor, h: int, w: int) -> Tensor:
    """(..., 2): vertical, then horizontal field of view in radians of an h x w image, its principal point taken as centred."""
    return torch.stack([2 * torch.atan((h / 2) / K[..., 1, 1]), 2 * torch.atan((w / 2) / K[..., 0, 0])], -1)


def K_from_fov(fov: Tensor, h: int, w: int) -> Tensor:
    """(..., 3, 3) of an h x w image with a centred principal point from (vertical, horizontal) fields of view (..., 2) in radians."""
    fy, fx = torch.tan(fov / 2).clamp(min=1e-6).reciprocal().unbind(-1)
    return K_from_parameters(w / 2 * fx, h / 2 * fy, torch.full_like(fx, w / 2), torch.full_like(fy, h / 2))


def scale_K(K: Tensor, sx: float, sy: float) -> Tensor:
    """K (..., 3, 3) of the image after its width was multiplied by sx and its height by sy."""
    return torch.cat([K[..., :1, :] * sx, K[..., 1:2, :] * sy, K[..., 2:, :]], -2)


def K_from_ros(K_ros: Tensor) -> Tensor:
    """K (..., 3, 3) in this package's convention from one that counts from the first pixel's centre."""
    return K_ros + _half_pixel(K_ros)


def ros_from_K(K: Tensor) -> Tensor:
    """K (..., 3, 3) that counts from the first pixel's centre, as ROS and OpenCV have it."""
    return K - _half_pixel(K)


def _half_pixel(K: Tensor) -> Tensor:
    offset = torch.zeros_like(K)
    offset[..., :2, 2] = 0.5
    return offset
