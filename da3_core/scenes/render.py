"""Images with exact truth: one ray through every pixel's centre, colours filtered at the pixel's footprint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from da3_core.scenes.casting import first_solid, light_visibility, openness
from da3_core.scenes.primitives import Frames, pick
from da3_core.scenes.shading import OPEN_M, Occlusion, background, hit_surface, shade
from da3_core.scenes.tree import map_tensors
from da3_core.scenes.vec import Vec, matrix, vec
from da3_core.scenes.worlds import Worlds

CHUNK = 1 << 20  # ray-solid pairs at a time when nothing is fused


@dataclass(frozen=True)
class Rendering:
    """What cameras see and what is there."""

    radiance: Tensor  # (B, N, 3, H, W) linear, not yet exposed: `effects` makes photographs of it
    depth: Tensor  # (B, N, H, W) metres along the optical axis, inf where rays meet nothing
    normal: Tensor  # (B, N, 3, H, W) unit, world frame, towards the camera's side; 0 where there is nothing
    sky: Tensor  # (B, N, H, W) bool
    object: Tensor  # (B, N, H, W) bool, the thing in the middle of object worlds

    @property
    def image(self) -> Tensor:
        """(B, N, 3, H, W) in 0..1 for display: every view exposed to its own mean, no camera effects."""
        mean = self.radiance.mean((-3, -2, -1), keepdim=True)
        return (0.35 * self.radiance / mean.clamp_min(1e-4)).clamp(0.0, 1.0) ** (1 / 2.2)


def render(worlds: Worlds, T_world_cam: Tensor, K: Tensor, size: tuple[int, int], compiled: bool = False) -> Rendering:
    """B worlds from N pinhole cameras each.

    T_world_cam (B, N, 4, 4) float32 metres; K (B, N, 3, 3) in pixels of the image, which spans [0, W] x [0, H]; size (H, W).
    compiled: one fused program per shape (torch.compile, static shapes) instead of chunks of rays; the same numbers up to rounding.
    """
    return render_rays(worlds, T_world_cam, pinhole_directions(K, size), K[..., 0, 0], compiled)


def pinhole_directions(K: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, N, 3, 3) -> (B, N, 3, H, W) camera-frame rays with z = 1 through pixel centres."""
    h, w = size
    u = torch.arange(w, device=K.device) + 0.5
    v = torch.arange(h, device=K.device) + 0.5
    x = (u - K[..., 0, 2, None]) / K[..., 0, 0, None]
    y = (v - K[..., 1, 2, None]) / K[..., 1, 1, None]
    shape = (*K.shape[:-2], h, w)
    x, y = x[..., None, :].expand(shape), y[..., :, None].expand(shape)
    return torch.stack((x, y, torch.ones_like(x)), -3)


def render_rays(worlds: Worlds, T_world_cam: Tensor, directions_cam: Tensor, focal_px: Tensor, compiled: bool = False) -> Rendering:
    """The same for any lens: directions_cam (B, N, 3, H, W) with z = 1; focal_px (B, N) sets the pixels' footprint."""
    b, n, _, h, w = directions_cam.shape
    flat = directions_cam.flatten(-2)
    pixel = 1.0 / focal_px
    program = _compiled() if compiled else _chunked
    radiance, depth, normal, solid = program(worlds, worlds.solids.frames(), T_world_cam, flat, pixel)
    met = torch.isfinite(depth)
    return Rendering(
        radiance=radiance.view(b, n, 3, h, w), depth=depth.view(b, n, h, w), normal=normal.view(b, n, 3, h, w),
        sky=(~met & worlds.sky.is_sky[:, None, None]).view(b, n, h, w), object=(met & pick(worlds.is_object, solid)).view(b, n, h, w),
    )  # fmt: skip


def _trace(worlds: Worlds, frames: Frames, T_world_cam: Tensor, directions_cam: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(radiance (B, N, 3, R), depth (B, N, R), normal (B, N, 3, R), solid (B, N, R)) of rays (B, N, 3, R)."""
    origin = vec(T_world_cam[..., None, :3, 3])
    direction = matrix(T_world_cam[..., None, :3, :3]).times(Vec(*directions_cam.unbind(2)))
    distance, solid = first_solid(frames, origin, direction)
    met = torch.isfinite(distance)
    hit = hit_surface(frames, solid, origin, direction)
    occlusion = Occlusion(partial(light_visibility, frames), partial(openness, frames, reach_m=OPEN_M))
    surface = shade(worlds, solid, hit, direction, pixel[..., None], occlusion)
    behind = background(worlds.sky, worlds.light, direction)
    radiance = torch.stack([torch.where(met, a, b) for a, b in zip((surface.x, surface.y, surface.z), (behind.x, behind.y, behind.z), strict=True)], 2)
    normal = torch.stack([torch.where(met, c, 0.0) for c in (hit.normal.x, hit.normal.y, hit.normal.z)], 2)
    return radiance, torch.where(met, hit.distance, torch.inf), normal, solid


def _chunked(worlds: Worlds, frames: Frames, T_world_cam: Tensor, directions_cam: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    b, n, _, r = directions_cam.shape
    step = max(1, CHUNK // (b * n * frames.offset.x.shape[1]))
    parts = [_trace(worlds, frames, T_world_cam, chunk, pixel) for chunk in directions_cam.split(step, -1)]
    radiance, depth, normal, solid = (torch.cat(column, -1) for column in zip(*parts, strict=True))
    return radiance, depth, normal, solid


@cache
def _compiled() -> object:
    return torch.compile(_trace, dynamic=False)
