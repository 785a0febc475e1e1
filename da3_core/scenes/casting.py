"""Rays against the solids of their world: first hits, shadows and openness, in two ways that give the same numbers.

`Everything` is one expression over (B, N, P, R) for each question, reduced over the P solids at once: a compiler makes one loop of it and
nothing of that size is ever stored. `Culled` asks only the solids that a bundle of neighbouring rays may meet: several times less work,
for where nothing is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from da3_core.scenes.primitives import Frames, Solids, distance_below, hit_distance, ray_interval
from da3_core.scenes.vec import Vec

PENUMBRA = 0.15  # of a solid's half size
PAIRS = 1 << 17  # rays times solids at a time, so that intermediates stay in the cache


class Caster(Protocol):
    """What rendering asks of B worlds: N bundles of R rays each; origins (B, N, 1), directions and points (B, N, R), lights (B, 1, 1)."""

    @property
    def frames(self) -> Frames: ...

    def first_solid(self, origin: Vec, direction: Vec) -> tuple[Tensor, Tensor]:
        """(distance in units of `direction`, above NOWHERE where missed; solid, an index into B * P), both (B, N, R)."""

    def visibility(self, point: Vec, light: Vec) -> Tensor:
        """(B, N, R) how much of a light is seen from points; edges of shadows are soft."""

    def openness(self, point: Vec, reach_m: float) -> Tensor:
        """(B, N, R) distance to the nearest solid in units of `reach_m`, in 0..1: corners are dark."""


def nearest(frames: Frames, origin: Vec, direction: Vec) -> tuple[Tensor, Tensor]:
    """(distance, index along the solids), reduced over dimension -2: frames (..., P, 1) against rays (..., 1, R)."""
    distance = hit_distance(frames, frames.point(origin), frames.direction(direction)).min(-2)
    return distance.values, distance.indices


def unshadowed(frames: Frames, point: Vec, light: Vec) -> Tensor:
    """One minus the longest stretch of the way to the light that lies within a solid, in units of PENUMBRA."""
    start = frames.point(point)
    direction = frames.point(light) - start
    slab_in, quadric_in, leave = ray_interval(frames, start, direction)
    enter = torch.maximum(slab_in, quadric_in).clamp_min(0.0)
    chord = (leave.clamp_max(1.0) - enter).clamp_min(0.0) * direction.norm()
    return 1.0 - (chord * (1.0 / PENUMBRA)).clamp_max(1.0).amax(-2)


def room_around(frames: Frames, point: Vec, reach_m: float) -> Tensor:
    return (distance_below(frames, point).amin(-2) * (1.0 / reach_m)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Everything:
    """Every ray against every solid."""

    frames: Frames  # (B, P)

    def first_solid(self, origin: Vec, direction: Vec) -> tuple[Tensor, Tensor]:
        distance, solid = nearest(self.frames.against_rays(), origin.map(_one_solid), direction.map(_one_solid))
        worlds, count = self.frames.offset.x.shape
        return distance, solid + count * torch.arange(worlds, device=solid.device)[:, None, None]

    def visibility(self, point: Vec, light: Vec) -> Tensor:
        return unshadowed(self.frames.against_rays(), point.map(_one_solid), light.map(_one_solid))

    def openness(self, point: Vec, reach_m: float) -> Tensor:
        return room_around(self.frames.against_rays(), point.map(_one_solid), reach_m)


@dataclass(frozen=True)
class Culled:
    """One world (B = 1) whose rays come in bundles of neighbours."""

    solids: Solids
    frames: Frames

    def first_solid(self, origin: Vec, direction: Vec) -> tuple[Tensor, Tensor]:
        def ask(frames: Frames, solid: Tensor, bundle: Tensor) -> tuple[Tensor, Tensor]:
            distance, which = nearest(frames, origin.map(_one_solid), direction.map(lambda c: c[:, bundle, None]))
            return distance, torch.gather(solid, 1, which[0])[None]

        like = direction.x
        answers = (like.new_empty(like.shape), torch.empty_like(like, dtype=torch.int64))
        return self._per_bundle(in_cone(self.solids, origin, direction, None), like.shape[-1], ask, answers)

    def visibility(self, point: Vec, light: Vec) -> Tensor:
        def ask(frames: Frames, solid: Tensor, bundle: Tensor) -> tuple[Tensor]:
            return (unshadowed(frames, point.map(lambda c: c[:, bundle, None]), light.map(_one_solid)),)

        towards = point - light
        may_meet = in_cone(self.solids, light, towards, towards)
        return self._per_bundle(may_meet, point.x.shape[-1], ask, (torch.empty_like(point.x),))[0]

    def openness(self, point: Vec, reach_m: float) -> Tensor:
        def ask(frames: Frames, solid: Tensor, bundle: Tensor) -> tuple[Tensor]:
            return (room_around(frames, point.map(lambda c: c[:, bundle, None]), reach_m),)

        middle = point.map(lambda c: c.mean(-1, keepdim=True))
        radius = (point - middle).norm().amax(-1)
        away = distance_below(self.frames.map(lambda c: c[:, None, :]), middle)
        return self._per_bundle(away < radius[..., None] + reach_m, point.x.shape[-1], ask, (torch.empty_like(point.x),))[0]

    def _per_bundle(
        self, may_meet: Tensor, rays: int, ask: Callable[[Frames, Tensor, Tensor], tuple[Tensor, ...]], answers: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Asks batches of bundles that have about equally many candidates. may_meet (1, N, P)."""
        for bundle, solid in batches(may_meet[0], rays):
            frames = self.frames.map(lambda c, at=solid: c[0][at][None, :, :, None])
            for whole, part in zip(answers, ask(frames, solid, bundle), strict=True):
                whole[:, bundle] = part
        return answers


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
    side = (side - axis * side.dot(axis)).normalised()
    other = Vec(axis.y * side.z - axis.z * side.y, axis.z * side.x - axis.x * side.z, axis.x * side.y - axis.y * side.x)
    depth = ray.dot(axis)
    right, up = ray.dot(side) / depth, ray.dot(other) / depth
    is_narrow = (depth / ray.norm()).amin(-1, True) > 0.05
    planes = (
        side - axis * right.amax(-1, True), axis * right.amin(-1, True) - side, other - axis * up.amax(-1, True), axis * up.amin(-1, True) - other,
        axis * -1.0, axis,
    )  # fmt: skip
    nearer = _least(solids, torch.stack([plane.stack()[0, :, 0] for plane in planes]), apex.stack()[0, 0])  # (6, N, P)
    beyond = torch.zeros_like(depth[0, :, :1]) + torch.inf if end is None else end.dot(axis).amax(-1, True)[0]
    apart = (nearer[:5].amax(0) > 0) | (nearer[5] > beyond)
    return ~apart[None] | ~is_narrow


def _least(solids: Solids, normals: Tensor, apex: Tensor) -> Tensor:
    """The least of normal . (p - apex) over each solid's box: normals (6, N, 3), apex (1, 3) -> (6, N, P)."""
    axes = (solids.rotation[0] * solids.half[0][:, None, :]).permute(1, 0, 2).flatten(1)  # (3, P * 3)
    reach = (normals @ axes).abs().unflatten(-1, (-1, 3)).sum(-1)
    return normals @ (solids.centre[0] - apex).T - reach


def _one_solid(component: Tensor) -> Tensor:
    return component[:, :, None, :]
