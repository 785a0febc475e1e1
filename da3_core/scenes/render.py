"""Images with exact truth: one ray through every pixel's centre, colours filtered at the pixel's footprint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from da3_core.scenes.casting import Culled, first_solid, openness, visibility
from da3_core.scenes.primitives import NOWHERE, Frames, pick
from da3_core.scenes.shading import OPEN_M, Hit, Occlusion, aloft, background, hit_surface, lifted, light_position, shade
from da3_core.scenes.vec import Vec, matrix, vec
from da3_core.scenes.worlds import Worlds, select

RAYS = 1 << 15  # at a time when nothing is fused, so that intermediates stay in the cache
Rays = tuple[Vec, Vec]  # origins (B, N, 1) and directions (B, N, R)
Build = Callable[[Callable[..., Any]], Callable[..., Any]]


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
    pixel = 1.0 / focal_px
    program = partial(_at_once, build=_compiled) if compiled else _by_view
    image, solid = program(worlds, T_world_cam, directions_cam, pixel)
    depth = image[:, :, 3]
    met = torch.isfinite(depth)
    return Rendering(
        radiance=image[:, :, :3], depth=depth, normal=image[:, :, 4:], sky=~met & worlds.sky.is_sky[:, None, None, None],
        object=met & pick(worlds.is_object, solid),
    )  # fmt: skip


def _at_once(worlds: Worlds, T_world_cam: Tensor, directions_cam: Tensor, pixel: Tensor, build: Build) -> tuple[Tensor, Tensor]:
    """All rays against all solids, in four steps that are worth compiling: (B, N, 7, H, W) and solids (B, N, H, W).

    Every view gets a world of its own, so that equally many images have one shape, and one program, however they are spread over worlds.
    """
    b, n = T_world_cam.shape[:2]
    of_view = torch.arange(b, device=pixel.device).repeat_interleave(n)  # (V,) with V = B N
    views = select(worlds, of_view)
    frames = views.solids.frames()
    rays = _world_rays(T_world_cam.flatten(0, 1).unsqueeze(1), Vec(*directions_cam.flatten(0, 1).flatten(-2).unsqueeze(1).unbind(2)))
    met, solid, hit, off, above = build(_meet)(frames, rays)
    seen = tuple(build(visibility)(frames, off, light_position(views.light, i)) for i in range(views.light.reach_m.shape[1]))
    occlusion = Occlusion(build(openness)(frames, above, OPEN_M), seen)
    image = build(_picture)(views, met, solid, hit, rays[1], pixel.flatten().view(-1, 1, 1), occlusion)
    solids = worlds.is_object.shape[1]
    solid = solid % solids + solids * of_view[:, None, None]
    size = directions_cam.shape[-2:]
    return image.view(b, n, -1, *size), solid.view(b, n, *size)


def _meet(frames: Frames, rays: Rays) -> tuple[Tensor, Tensor, Hit, Vec, Vec]:
    """(whether, which solid, where, two points off the surface) of rays (B, N, R)."""
    distance, solid = first_solid(frames, *rays)
    hit = hit_surface(frames, solid, *rays)
    return distance < NOWHERE, solid, hit, lifted(hit), aloft(hit)


def _picture(worlds: Worlds, met: Tensor, solid: Tensor, hit: Hit, direction: Vec, pixel: Tensor, occlusion: Occlusion) -> Tensor:
    """(B, N, 7, R) radiance, depth and normal."""
    surface = shade(worlds, solid, hit, direction, pixel, occlusion)
    sky = background(worlds.sky, worlds.light, direction)
    pixels = [torch.where(met, a, b) for a, b in zip(surface.components(), sky.components(), strict=True)]
    pixels += [torch.where(met, hit.distance, torch.inf), *(torch.where(met, c, 0.0) for c in hit.normal.components())]
    return torch.stack(pixels, 2)


def _by_view(worlds: Worlds, T_world_cam: Tensor, directions_cam: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """View after view, in tiles that ask only the solids they may meet."""
    b, n, _, h, w = directions_cam.shape
    tile = (_divisor(h), _divisor(w))
    pixels, solids = [], []
    for i in range(b):
        world = select(worlds, torch.tensor([i], device=worlds.seed.device))
        caster = Culled(world.solids, world.solids.frames())
        for j in range(n):
            rays = _world_rays(T_world_cam[i, j][None, None], Vec(*_tiles(directions_cam[i, j], tile)[:, None]))
            for chunk in torch.arange(rays[1].x.shape[1], device=pixel.device).split(max(1, RAYS // (tile[0] * tile[1]))):
                answer, solid = _tiled(world, caster, (rays[0], _bundles(rays[1], chunk)), pixel[i, j])
                pixels.append(answer)
                solids.append(solid + i * worlds.is_object.shape[1])
    image = _untiled(torch.cat(pixels, 1).reshape(7, b, n, -1, tile[0] * tile[1]), tile, (h, w)).movedim(0, 2)
    return image, _untiled(torch.cat(solids).view(b, n, -1, tile[0] * tile[1]), tile, (h, w))


def _tiled(world: Worlds, caster: Culled, rays: Rays, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """Tiles of one view (1, G, S) -> (radiance, depth, normal (7, G, S), solid (G, S)); each is shaded, or shown the sky, as it needs."""
    distance, solid = caster.first_solid(*rays)
    met = (distance < NOWHERE)[0]
    image = distance.new_zeros(7, *met.shape)
    image[3] = torch.inf
    missing, meeting = (torch.nonzero(some.any(-1))[:, 0] for some in (~met, met))
    image[:3, missing] = torch.cat(background(world.sky, world.light, _bundles(rays[1], missing)).components())
    direction, solid_met = _bundles(rays[1], meeting), solid[:, meeting]
    hit = hit_surface(caster.frames, solid_met, rays[0], direction)
    seen = tuple(caster.visibility(lifted(hit), light_position(world.light, i)) for i in range(world.light.reach_m.shape[1]))
    radiance = shade(world, solid_met, hit, direction, pixel, Occlusion(caster.openness(aloft(hit), OPEN_M), seen))
    surface = torch.cat((*radiance.components(), hit.distance, *hit.normal.components()))
    image[:, meeting] = torch.where(met[meeting], surface, image[:, meeting])
    return image, solid[0]


def _world_rays(T_world_cam: Tensor, directions_cam: Vec) -> Rays:
    """(origins (B, N, 1), directions (B, N, R)) in the world."""
    return vec(T_world_cam[..., None, :3, 3]), matrix(T_world_cam[..., None, :3, :3]).times(directions_cam)


def _bundles(rays: Vec, index: Tensor) -> Vec:
    return rays.map(lambda c: c[:, index])


def _divisor(length: int) -> int:
    """The largest divisor up to 16."""
    return max(k for k in range(1, 17) if length % k == 0)


def _tiles(image: Tensor, tile: tuple[int, int]) -> Tensor:
    """(K, H, W) -> (K, tiles, rays of a tile)"""
    k, h, w = image.shape
    grid = image.reshape(k, h // tile[0], tile[0], w // tile[1], tile[1]).transpose(2, 3)
    return grid.reshape(k, -1, tile[0] * tile[1])


def _untiled(tiles: Tensor, tile: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(..., tiles, rays of a tile) -> (..., H, W)"""
    grid = tiles.reshape(*tiles.shape[:-2], size[0] // tile[0], size[1] // tile[1], *tile).transpose(-3, -2)
    return grid.reshape(*tiles.shape[:-2], *size)


@cache
def _compiled(step: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(step, dynamic=False, fullgraph=True)
