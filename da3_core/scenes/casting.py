"""Rays against every solid of their world: first hits, shadows and openness.

Each is one expression over (B, N, P, R) that is reduced over the P solids at once, so that a compiler makes one loop of it and nothing of
that size is ever stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from da3_core.scenes.primitives import Frames, distance_below, hit_distance, ray_interval
from da3_core.scenes.vec import Vec

PENUMBRA = 0.15  # of a solid's half size


def first_solid(frames: Frames, origin: Vec, direction: Vec) -> tuple[Tensor, Tensor]:
    """(distance in units of `direction`, inf where missed; index of the solid), both (B, N, R).

    frames: (B, P). origin (B, N, 1), direction (B, N, R), world frame.
    """
    local = frames.against_rays()
    distance = hit_distance(local, local.point(origin.map(_before_solids)), local.direction(direction.map(_before_solids)))
    nearest = distance.min(-2)
    return nearest.values, nearest.indices


def light_visibility(frames: Frames, point: Vec, light: Vec) -> Tensor:
    """(B, N, R) how much of a light at `light` (B, 1, 1) is seen from `point` (B, N, R); edges of shadows are soft."""
    local = frames.against_rays()
    start = local.point(point.map(_before_solids))
    direction = local.point(light.map(_before_solids)) - start
    slab_in, quadric_in, leave = ray_interval(local, start, direction)
    enter = torch.maximum(torch.maximum(slab_in, quadric_in), torch.zeros_like(leave))
    chord = (torch.minimum(leave, torch.ones_like(leave)) - enter).clamp_min(0.0) * direction.norm()
    return 1.0 - (chord * (1.0 / PENUMBRA)).clamp_max(1.0).amax(-2)


def openness(frames: Frames, point: Vec, reach_m: float) -> Tensor:
    """(B, N, R) distance from `point` to the nearest solid in units of `reach_m`, in 0..1: corners are dark."""
    local = frames.against_rays()
    return (distance_below(local, point.map(_before_solids)).amin(-2) / reach_m).clamp(0.0, 1.0)


def _before_solids(component: Tensor) -> Tensor:
    return component[:, :, None, :]
