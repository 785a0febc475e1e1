"""Images with exact truth: one ray through every pixel's centre, colours filtered at the pixel's footprint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from da3_core.scenes.casting import Caster, Culled, Everything
from da3_core.scenes.primitives import NOWHERE, pick
from da3_core.scenes.shading import background, hit_surface, shade
from da3_core.scenes.vec import Vec, matrix, vec
from da3_core.scenes.worlds import Worlds, select

RAYS = 1 << 15  # at a time when nothing is fused, so that intermediates stay in the cache
Behind = Callable[[Worlds, Vec, Tensor], Vec]
Traced = tuple[Tensor, Tensor, Tensor, Tensor]  # radiance (B, N, 3, R), depth (B, N, R), normal (B, N, 3, R), solid (B, N, R)


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
    program = _compiled() if compiled else _by_view
    radiance, depth, normal, solid = program(worlds, T_world_cam, directions_cam, 1.0 / focal_px)
    met = torch.isfinite(depth)
    return Rendering(
        radiance=radiance, depth=depth, normal=normal, sky=~met & worlds.sky.is_sky[:, None, None, None],
        object=met & pick(worlds.is_object, solid),
    )  # fmt: skip


def _trace(worlds: Worlds, caster: Caster, T_world_cam: Tensor, directions_cam: Vec, pixel: Tensor, behind: Behind) -> Traced:
    """Bundles of rays (B, N, R); T_world_cam (B, N or 1, 4, 4), pixel (B, N or 1)."""
    origin = vec(T_world_cam[..., None, :3, 3])
    direction = matrix(T_world_cam[..., None, :3, :3]).times(directions_cam)
    distance, solid = caster.first_solid(origin, direction)
    met = distance < NOWHERE
    hit = hit_surface(caster.frames, solid, origin, direction)
    surface = shade(worlds, solid, hit, direction, pixel[..., None], caster)
    sky = behind(worlds, direction, met)
    radiance = torch.stack([torch.where(met, a, b) for a, b in zip(surface.components(), sky.components(), strict=True)], 2)
    normal = torch.stack([torch.where(met, c, 0.0) for c in hit.normal.components()], 2)
    return radiance, torch.where(met, hit.distance, torch.inf), normal, solid


def _behind_all(worlds: Worlds, direction: Vec, met: Tensor) -> Vec:
    return background(worlds.sky, worlds.light, direction)


def _behind_missed(worlds: Worlds, direction: Vec, met: Tensor) -> Vec:
    """The background of those bundles of one world that miss with any of their rays."""
    missing = torch.nonzero(~met.all(-1)[0])[:, 0]
    sky = background(worlds.sky, worlds.light, direction.map(lambda c: c[:, missing]))
    return sky.map(lambda c: torch.zeros_like(direction.x).index_copy(1, missing, c))


def _at_once(worlds: Worlds, T_world_cam: Tensor, directions_cam: Tensor, pixel: Tensor) -> Traced:
    """All rays against all solids: what is worth compiling."""
    size = directions_cam.shape[-2:]
    rays = Vec(*directions_cam.flatten(-2).unbind(2))
    traced = _trace(worlds, Everything(worlds.solids.frames()), T_world_cam, rays, pixel, _behind_all)
    radiance, depth, normal, solid = (part.unflatten(-1, size) for part in traced)
    return radiance, depth, normal, solid


def _by_view(worlds: Worlds, T_world_cam: Tensor, directions_cam: Tensor, pixel: Tensor) -> Traced:
    """View after view, in tiles that ask only the solids they may meet."""
    b, n, _, h, w = directions_cam.shape
    tile = (_divisor(h), _divisor(w))
    parts = []
    for i in range(b):
        world = select(worlds, torch.tensor([i], device=worlds.seed.device))
        caster = Culled(world.solids, world.solids.frames())
        parts += [_tiled(world, caster, T_world_cam[i, j], _tiles(directions_cam[i, j], tile), pixel[i, j]) for j in range(n)]
    radiance, depth, normal, solid = (_untiled(torch.cat(column), tile, (h, w)).unflatten(0, (b, n)) for column in zip(*parts, strict=True))
    count = worlds.is_object.shape[1]
    return radiance, depth, normal, solid + count * torch.arange(b, device=solid.device)[:, None, None, None]


def _tiled(world: Worlds, caster: Culled, T_world_cam: Tensor, tiles: Tensor, pixel: Tensor) -> Traced:
    """tiles (3, G, S) -> what `_trace` says of each, (1, ..., G, S)."""
    step = max(1, RAYS // tiles.shape[-1])
    T, angle = T_world_cam[None, None], pixel[None, None]
    parts = [_trace(world, caster, T, Vec(*(c[None] for c in chunk)), angle, _behind_missed) for chunk in tiles.split(step, 1)]
    radiance, depth, normal, solid = zip(*parts, strict=True)
    return torch.cat(radiance, 1).movedim(2, 1), torch.cat(depth, 1), torch.cat(normal, 1).movedim(2, 1), torch.cat(solid, 1)


def _divisor(length: int) -> int:
    """The largest divisor up to 16."""
    return max(k for k in range(1, 17) if length % k == 0)


def _tiles(image: Tensor, tile: tuple[int, int]) -> Tensor:
    """(..., H, W) -> (..., G, S)"""
    return image.unflatten(-1, (-1, tile[1])).unflatten(-3, (-1, tile[0])).transpose(-3, -2).flatten(-4, -3).flatten(-2)


def _untiled(tiles: Tensor, tile: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(..., G, S) -> (..., H, W)"""
    grid = (size[0] // tile[0], size[1] // tile[1])
    return tiles.unflatten(-1, tile).unflatten(-3, grid).transpose(-3, -2).flatten(-2).flatten(-3, -2)


@cache
def _compiled() -> Callable[..., Traced]:
    return torch.compile(_at_once, dynamic=False)
