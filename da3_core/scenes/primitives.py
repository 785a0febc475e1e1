"""The one solid that every world is made of: a box, cut by a quadric.

In the solid's own frame, scaled so that its half sizes are one, a point belongs to it when |x|, |y|, |z| <= 1 and
x^2 + y^2 + bulge * (z - shift)^2 <= limit. (bulge, shift, limit) = (0, 0, 4) is a box, (0, 0, 1) a cylinder along z, (1, 0, 1) an
ellipsoid, (1/4, -1, 1) a dome; in between lie boxes with rounded edges. The solid is convex, so a ray meets it in one interval: the
intersection of three slabs' and the quadric's, without a branch. That is what makes one fused kernel of all primitives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from da3_core.scenes.vec import Matrix, Vec, blend, matrix, root, step, vec

BOX = (0.0, 0.0, 4.0)
CYLINDER = (0.0, 0.0, 1.0)
ELLIPSOID = (1.0, 0.0, 1.0)
DOME = (0.25, -1.0, 1.0)
COLUMN = (0.0, 0.0, 1.4)
CUSHION = (1.0, 0.0, 2.0)

NEAR_M = 1e-3
NOWHERE = 1e19  # no surface is as far


@dataclass(frozen=True)
class Solids:
    """B worlds of P solids. Absent ones lie far below the world and are never met."""

    centre: Tensor  # (B, P, 3) metres
    rotation: Tensor  # (B, P, 3, 3) R_world_solid
    half: Tensor  # (B, P, 3) half sizes, metres
    quadric: Tensor  # (B, P, 3) bulge, shift, limit

    def frames(self) -> Frames:
        """(B, P) from the world, in metres, to each solid's own scaled frame."""
        to_local = self.rotation.transpose(-1, -2) / self.half[..., None]
        offset = -(to_local @ self.centre[..., None])[..., 0]
        return Frames(matrix(to_local), vec(offset), vec(self.half), vec(self.quadric))


@dataclass(frozen=True)
class Frames:
    """World to scaled solid frame, u = matrix p + offset, with the solid's shape; component tensors (B, P) or as mapped."""

    matrix: Matrix
    offset: Vec
    half: Vec
    quadric: Vec

    def point(self, p: Vec) -> Vec:
        """World points, metres, in the scaled frame; shapes broadcast."""
        return self.matrix.times_and_plus(p, self.offset)

    def direction(self, d: Vec) -> Vec:
        """World directions in the scaled frame, not normalised: distances along a ray stay what they were."""
        return self.matrix.times(d)

    def map(self, function: Callable[[Tensor], Tensor]) -> Frames:
        """Every component tensor by `function`: indexed, or shaped to broadcast against rays."""
        return Frames(self.matrix.map(function), self.offset.map(function), self.half.map(function), self.quadric.map(function))

    def of(self, solid: Tensor) -> Frames:
        """The frame of one solid per ray: (B, P) and solid (B, ...) int64, an index into the flattened B * P -> (B, ...)."""
        return self.map(lambda column: pick(column, solid))


def pick(column: Tensor, solid: Tensor) -> Tensor:
    """column (B, P) at solid, an index into the flattened B * P."""
    return column.flatten().index_select(0, solid.flatten()).view(solid.shape)


def ray_interval(frame: Frames, origin: Vec, direction: Vec) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays in the scaled solid frame are inside: (entry into the slabs, entry into the quadric, exit), in units of `direction`.

    The ray misses when the larger entry is not below the exit. The quadric is solved about the point closest to its axis, which
    keeps float32 exact for thin parts far away; a quadric that is missed gives an entry above its exit.
    """
    slab_in, slab_out = _slabs(origin, direction)
    bulge, shift, limit = frame.quadric.components()
    start, bulging = Vec(origin.x, origin.y, origin.z - shift), bulge * direction.z
    inverse = (_flat_dot(direction, direction) + bulging * direction.z + 1e-20).reciprocal()
    closest = -(_flat_dot(start, direction) + bulging * start.z) * inverse
    nearest = start.along(direction, closest)
    reach = root((limit - _flat_dot(nearest, nearest) - bulge * nearest.z * nearest.z) * inverse)
    return slab_in, closest - reach, torch.minimum(slab_out, closest + reach)


def _slabs(origin: Vec, direction: Vec) -> tuple[Tensor, Tensor]:
    enter, leave = zip(*(_slab(o, d) for o, d in zip(origin.components(), direction.components(), strict=True)), strict=True)
    return -torch.minimum(torch.minimum(enter[0], enter[1]), enter[2]), torch.minimum(torch.minimum(leave[0], leave[1]), leave[2])


def _slab(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """(minus entry, exit)"""
    inverse = (d + 1e-20).reciprocal()
    middle, reach = o * inverse, inverse.abs()
    return reach + middle, reach - middle


def _flat_dot(a: Vec, b: Vec) -> Tensor:
    return torch.addcmul(a.x * b.x, a.y, b.y)


def hit_distance(frame: Frames, origin: Vec, direction: Vec) -> Tensor:
    """Distance along `direction` (scaled solid frame) to the first surface; above NOWHERE when missed or when the ray starts inside."""
    slab_in, quadric_in, leave = ray_interval(frame, origin, direction)
    enter = torch.maximum(slab_in, quadric_in)
    missed_by = torch.maximum(enter - leave, NEAR_M - enter)
    return enter.clamp_min(0.0) + (missed_by * 1e35).clamp(0.0, 2 * NOWHERE)


def surface_normal(frame: Frames, origin: Vec, direction: Vec) -> tuple[Tensor, Vec]:
    """(distance, outward unit normal in the unscaled solid frame) of the surface that a ray is known to meet."""
    slab_in, quadric_in, _ = ray_interval(frame, origin, direction)
    distance = torch.maximum(slab_in, quadric_in)
    u = origin.along(direction, distance)
    ax, ay, az = (c.abs() for c in u.components())
    off_x, off_z = step(torch.maximum(ay, az) - ax), step(az - ay)
    on_x, on_y, on_z = 1.0 - off_x, off_x * (1.0 - off_z), off_x * off_z
    face = Vec(on_x * u.x.sign(), on_y * u.y.sign(), on_z * u.z.sign())
    bulge, shift, _ = frame.quadric.components()
    half = frame.half
    curved = Vec(u.x / half.x, u.y / half.y, bulge * (u.z - shift) / half.z).normalised()
    is_curved = step(quadric_in - slab_in)
    return distance, Vec(*(blend(a, b, is_curved) for a, b in zip(face.components(), curved.components(), strict=True)))


def distance_below(frame: Frames, p: Vec) -> Tensor:
    """A lower bound of the distance in metres from world points to the solids, exact outside a box's faces, negative inside."""
    u, half = frame.point(p), frame.half
    box = torch.maximum(torch.maximum((u.x.abs() - 1) * half.x, (u.y.abs() - 1) * half.y), (u.z.abs() - 1) * half.z)
    bulge, shift, limit = frame.quadric.components()
    z = u.z - shift
    radius = root((_flat_dot(u, u) + bulge * z * z) / limit)
    thinnest = torch.minimum(torch.minimum(half.x, half.y), half.z)
    return torch.maximum(box, (radius - 1) * thinnest)
