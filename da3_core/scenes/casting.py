"""Rays against the solids of their world: first hits, shadows and openness, in two ways that give the same numbers.

The functions are one expression each over (B, N, R, P), reduced over the P solids at once: a compiler makes one loop of it and nothing of
that size is ever stored. `Culled` asks only the solids that a bundle of neighbouring rays may meet: many times less work, for where
nothing is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from da3_core.scenes.primitives import Frames, Solids, distance_below, hit_distance, ray_interval
from da3_core.scenes.vec import Vec

PENUMBRA = 0.15  # of a solid's half size
PAIRS = 1 << 17  # rays times solids at a time, so that intermediates stay in the cache


def first_solid(frames: Frames, origin: Vec, direction: Vec) -> tuple[Tensor, Tensor]:
    """(distance in units of `direction`, above NOWHERE where missed; solid, an index into B * P), both (B, N, R).

    frames (B, P), origin (B, N, 1), direction (B, N, R).
    """
    distance, solid = _nearest(_against_rays(frames), origin.map(_one_solid), direction.map(_one_solid), -1)
    worlds, count = frames.offset.x.shape
    return distance, solid + count * torch.arange(worlds, device=solid.device)[:, None, None]


def visibility(frames: Frames, point: Vec, light: Vec) -> Tensor:
    """(B, N, R) how much of a light at (B, 1, 1) is seen from points (B, N, R); edges of shadows are soft."""
    return _unshadowed(_against_rays(frames), point.map(_one_solid), light.map(_one_solid), -1)


def openness(frames: Frames, point: Vec, reach_m: float) -> Tensor:
    """(B, N, R) distance from points to the nearest solid in units of `reach_m`, in 0..1: corners are dark."""
    return _room_around(_against_rays(frames), point.map(_one_solid), reach_m, -1)


def _nearest(frames: Frames, origin: Vec, direction: Vec, solids: int) -> tuple[Tensor, Tensor]:
    """(distance, index along the solids), reduced over their dimension."""
    distance = hit_distance(frames, frames.point(origin), frames.direction(direction)).min(solids)
    return distance.values, distance.indices


def _unshadowed(frames: Frames, point: Vec, light: Vec, solids: int) -> Tensor:
    """One minus the longest stretch of the way to the light that lies within a solid, in units of PENUMBRA."""
    start = frames.point(point)
    direction = frames.point(light) - start
    slab_in, quadric_in, leave = ray_interval(frames, start, direction)
    enter = torch.maximum(slab_in, quadric_in).clamp_min(0.0)
    chord = (leave.clamp_max(1.0) - enter).clamp_min(0.0) * direction.norm()
    return 1.0 - (chord * (1.0 / PENUMBRA)).clamp_max(1.0).amax(solids)


def _room_around(frames: Frames, point: Vec, reach_m: float, solids: int) -> Tensor:
    return (distance_below(frames, point).amin(solids) * (1.0 / reach_m)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Culled:
    """One world (B = 1) whose rays come in N bundles of R neighbours: the module's functions, with the same numbers."""

    solids: Solids
    frames: Frames

    def first_solid(self, origin: Vec, direction: Vec) -> tuple[Tensor, Tensor]:
        """(distance in units of `direction`, solid, an index into P), both (1, N, R), of rays from one origin (1, 1, 1)."""
        distance, first = torch.empty_like(direction.x), torch.empty_like(direction.x, dtype=torch.int64)
        for bundle, solid, frames in self._batches(in_cone(self.solids, origin, direction, None), direction):
            distance[:, bundle], which = _nearest(frames, origin.map(_before_rays), _each(direction, bundle), -2)
            first[:, bundle] = torch.gather(solid, 1, which[0])
        return distance, first

    def visibility(self, point: Vec, light: Vec) -> Tensor:
        """(1, N, R) how much of a light at (1, 1, 1) is seen from points (1, N, R), metres in the world."""
        seen, towards = torch.empty_like(point.x), point - light
        for bundle, _, frames in self._batches(in_cone(self.solids, light, towards, towards), point):
            seen[:, bundle] = _unshadowed(frames, _each(point, bundle), light.map(_before_rays), -2)
        return seen

    def openness(self, point: Vec, reach_m: float) -> Tensor:
        """(1, N, R) distance from points (1, N, R) to the nearest solid in units of `reach_m`, in 0..1."""
        middle = point.map(lambda c: c.mean(-1, keepdim=True))
        radius = (point - middle).norm().amax(-1, keepdim=True)
        away = distance_below(self.frames.map(lambda c: c[:, None, :]), middle)
        around = torch.empty_like(point.x)
        for bundle, _, frames in self._batches(away < radius + reach_m, point):
            around[:, bundle] = _room_around(frames, _each(point, bundle), reach_m, -2)
        return around

    def _batches(self, may_meet: Tensor, rays: Vec) -> Iterator[tuple[Tensor, Tensor, Frames]]:
        """Bundles that have about equally many candidates, with these, (Q,), (Q, C) and frames (1, Q, C, 1). may_meet (1, N, P)."""
        for bundle, solid in batches(may_meet[0], rays.x.shape[-1]):
            yield bundle, solid, self._frames_of(solid)

    def _frames_of(self, solid: Tensor) -> Frames:
        """(Q, C) -> (1, Q, C, 1)"""
        return self.frames.map(lambda c: c[0][solid][None, :, :, None])


def batches(may_meet: Tensor, rays: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(bundles (Q,), solids (Q, C)) such that Q * C * rays is about PAIRS; rows are filled up with solids that are not met."""
    counts, order = may_meet.sum(-1).sort(descending=True)
    listed = torch.argsort(may_meet[order].byte(), dim=1, descending=True, stable=True)
    sizes, at = counts.tolist(), 0
    while at < len(sizes):
        width = max(sizes[at], 1)
        end = at + max(1, PAIRS // (width * rays))
        yield order[at:end], listed[at:end, :width]
        at = end


def in_cone(solids: Solids, apex: Vec, ray: Vec, end: Vec | None) -> Tensor:
    """(1, N, P) whether bundles of rays from a common apex may meet the solids' boxes: separated neither by the four planes around the
    bundle, nor by lying behind the apex, nor beyond the farthest `end` (relative to the apex)."""
    axis = ray.map(lambda c: c.mean(-1, keepdim=True)).normalised()
    side = ray.map(lambda c: c[..., 1:2] - c[..., :1])
    side = side.along(axis, -side.dot(axis)).normalised()
    other = Vec(axis.y * side.z - axis.z * side.y, axis.z * side.x - axis.x * side.z, axis.x * side.y - axis.y * side.x)
    depth = ray.dot(axis)
    right, up = ray.dot(side) / depth, ray.dot(other) / depth
    is_narrow = (depth / ray.norm()).amin(-1, True) > 0.05
    planes = (
        side.along(axis, -right.amax(-1, True)), axis.scaled(right.amin(-1, True)) - side,
        other.along(axis, -up.amax(-1, True)), axis.scaled(up.amin(-1, True)) - other, axis.scaled(-1.0), axis,
    )  # fmt: skip
    nearer = _least(solids, torch.stack([plane.stack()[0, :, 0] for plane in planes]), apex.stack()[0, 0])  # (6, N, P)
    beyond = torch.zeros_like(depth[0, :, :1]) + torch.inf if end is None else end.dot(axis).amax(-1, True)[0]
    apart = (nearer[:5].amax(0) > 0) | (nearer[5] > beyond)
    return ~apart[None] | ~is_narrow


def _least(solids: Solids, normals: Tensor, apex: Tensor) -> Tensor:
    """The least of normal . (p - apex) over each solid's box: normals (6, N, 3), apex (1, 3) -> (6, N, P)."""
    axes = (solids.rotation[0] * solids.half[0][:, None, :]).permute(1, 0, 2).flatten(1)  # (3, P * 3)
    reach: Tensor = (normals @ axes).abs().unflatten(-1, (-1, 3)).sum(-1)
    return normals @ (solids.centre[0] - apex).T - reach


def _against_rays(frames: Frames) -> Frames:
    """(B, P) -> (B, 1, 1, P)"""
    return frames.map(lambda c: c[:, None, None])


def _one_solid(component: Tensor) -> Tensor:
    """(B, N, R) -> (B, N, R, 1)"""
    return component[..., None]


def _before_rays(component: Tensor) -> Tensor:
    """(1, 1, 1) -> (1, 1, 1, 1)"""
    return component[:, :, None]


def _each(rays: Vec, bundle: Tensor) -> Vec:
    """(1, N, R) -> (1, Q, 1, R)"""
    return rays.map(lambda c: c[:, bundle, None])
