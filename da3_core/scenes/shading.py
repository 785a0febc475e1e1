"""From a hit to a colour: surface coordinates, texture, two lights with shadows, ambient light, gloss, haze; and the sky behind it all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from da3_core.scenes.materials import Materials
from da3_core.scenes.primitives import Frames, pick, surface_normal
from da3_core.scenes.textures import albedo, fractal_noise
from da3_core.scenes.tree import map_tensors
from da3_core.scenes.vec import Vec, blend, root, step, vec
from da3_core.scenes.worlds import Light, Sky, Worlds

OPEN_M = 0.35
LIFT_M = 2e-3


@dataclass(frozen=True)
class Hit:
    """Where rays meet surfaces, (B, N, R) each; of no meaning where they meet nothing."""

    distance: Tensor  # in units of the ray's direction
    point: Vec
    normal: Vec  # unit, outward, world
    u_m: Tensor  # surface coordinates
    v_m: Tensor


@dataclass(frozen=True)
class Occlusion:
    """What a world's solids hide from its surfaces, (B, N, R) each."""

    openness: Tensor
    visibility: tuple[Tensor, ...]  # of every light


def hit_surface(frames: Frames, solid: Tensor, origin: Vec, direction: Vec) -> Hit:
    """frames (B, P), solid (B, N, R), rays in the world. Surface coordinates follow the side that the normal is closest to."""
    frame = frames.of(solid)
    start, along = frame.point(origin), frame.direction(direction)
    distance, n = surface_normal(frame, start, along)
    at = start.along(along, distance)
    x_m, y_m, z_m = at.x * frame.half.x, at.y * frame.half.y, at.z * frame.half.z
    ax, ay, az = (c.abs() for c in n.components())
    off_x, off_z = step(torch.maximum(ay, az) - ax), step(az - ay)
    side = blend(17.3 * n.x.sign(), blend(41.7 * n.y.sign(), 5.1 * n.z.sign(), off_z), off_x)
    normal = frame.matrix.transposed_times(Vec(n.x * frame.half.x, n.y * frame.half.y, n.z * frame.half.z))
    u_m, v_m = blend(y_m, x_m, off_x) + side, blend(z_m, y_m, off_x * off_z)
    return Hit(distance, origin.along(direction, distance), normal, u_m, v_m)


def light_position(light: Light, index: int) -> Vec:
    """(B, 1, 1)"""
    return _per_ray(light.position[:, index])


def lifted(hit: Hit) -> Vec:
    """Just off the surface, from where lights are looked for."""
    return hit.point.along(hit.normal, LIFT_M + 1e-4 * hit.distance)


def aloft(hit: Hit) -> Vec:
    """A hand's breadth or two off the surface, from where openness is measured: in the open, OPEN_M from anything."""
    return hit.point + hit.normal.scaled(OPEN_M)


def shade(worlds: Worlds, solid: Tensor, hit: Hit, direction: Vec, pixel: Tensor, occlusion: Occlusion) -> Vec:
    """Linear radiance (B, N, R) of surfaces. pixel: the angle of one, 1 / f (B, N, 1)."""
    material = map_tensors(lambda column: pick(column, solid), worlds.materials)
    view = direction.normalised()
    facing = (-view.dot(hit.normal)).clamp(0.05, 1.0)
    colour = albedo(material, hit.u_m, hit.v_m, hit.distance * pixel * torch.rsqrt(facing))
    diffuse, gloss = _lit(worlds.light, material, hit, view, occlusion)
    light = _ambient(worlds.light, hit.normal).scaled(0.45 + 0.55 * occlusion.openness) + diffuse
    radiance = Vec(*(c * (l + material.emission) for c, l in zip(colour.components(), light.components(), strict=True))) + gloss
    return _hazed(worlds.sky, radiance, hit.distance * direction.norm())


def background(sky: Sky, light: Light, direction: Vec) -> Vec:
    """Linear radiance (B, N, R) of rays that meet nothing: gradient, clouds, the sun's glow; a plain gradient where there is no sky."""
    d = direction.normalised()
    height = d.z.clamp_min(0.0)
    zenith, horizon, cloud, sun = (_per_ray(c) for c in (sky.zenith, sky.horizon, sky.cloud, light.position[:, 1]))
    scale = _column(sky.cloud_scale) / (height + 0.12)
    seed = _column(sky.seed).expand(d.x.shape)
    noise = fractal_noise(d.x * scale, d.y * scale, seed, torch.full_like(height, 0.55), torch.full_like(height, 0.02))
    cover, is_sky = _column(sky.cover), _column(sky.is_sky.float())
    cloudy = ((noise + 2.2 * cover - 1.2) * 1.4).clamp(0.0, 1.0) * (3.0 * height).clamp_max(1.0) * is_sky
    glow = torch.exp(40.0 * d.dot(sun.normalised()) - 40.0) * (1.0 - cover) * is_sky
    colour = horizon.towards(zenith, root(height)).towards(cloud.scaled(1.0 + 0.25 * noise), cloudy)
    return colour.along(_per_ray(light.colour[:, 1]), 0.5 * glow).scaled(1.0 - 0.4 * step(-d.z))


def _lit(light: Light, material: Materials, hit: Hit, view: Vec, occlusion: Occlusion) -> tuple[Vec, Vec]:
    """(irradiance, glossy reflection) of all lights."""
    zero = torch.zeros_like(hit.distance)
    diffuse, gloss = Vec(zero, zero, zero), Vec(zero, zero, zero)
    mirrored = view.along(hit.normal, -2.0 * view.dot(hit.normal))
    for i, seen in enumerate(occlusion.visibility):
        colour = _per_ray(light.colour[:, i])
        towards = light_position(light, i) - hit.point
        nearness = torch.rsqrt(towards.dot(towards))
        falloff = 1.0 / (nearness * _column(light.reach_m[:, i]))
        facing = (towards.dot(hit.normal) * nearness).clamp_min(0.0)
        arriving = seen / (1.0 + falloff * falloff)
        highlight = torch.exp(material.gloss * (towards.dot(mirrored) * nearness - 1.0)) * (10.0 * facing).clamp_max(1.0)
        diffuse = diffuse.along(colour, arriving * facing)
        gloss = gloss.along(colour, arriving * highlight * material.specular)
    return diffuse, gloss


def _ambient(light: Light, normal: Vec) -> Vec:
    return _per_ray(light.ambient_down).towards(_per_ray(light.ambient_up), 0.5 + 0.5 * normal.z)


def _hazed(sky: Sky, radiance: Vec, distance_m: Tensor) -> Vec:
    return _per_ray(sky.horizon).towards(radiance, torch.exp(-distance_m / _column(sky.haze_m)))


def _per_ray(v: Tensor) -> Vec:
    """(B, 3) -> components (B, 1, 1)"""
    return vec(v[:, None, None])


def _column(v: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1)"""
    return v[:, None, None]
