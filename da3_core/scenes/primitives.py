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

from da3_core.scenes.vec import Matrix, Vec, matrix, vec

BOX = (0.0, 0.0, 4.0)
CYLINDER = (0.0, 0.0, 1.0)
ELLIPSOID = (1.0, 0.0, 1.0)
DOME = (0.25, -1.0, 1.0)
COLUMN = (0.0, 0.0, 1.4)
CUSHION = (1.0, 0.0, 2.0)

NEAR_M = 1e-3


@dataclass(frozen=True)
class Solids:
    """B worlds of P solids. Absent ones lie far below the world and are never met."""

    centre: Tensor  # (B, P, 3) metres
    rotation: Tensor  # (B, P, 3, 3) R_world_solid
    half: Tensor  # (B, P, 3) half sizes, metres
    quadric: Tensor  # (B, P, 3) bulge, shift, limit

    def frames(self) -> Frames:
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
        return self.matrix.times(p) + self.offset

    def direction(self, d: Vec) -> Vec:
        return self.matrix.times(d)

    def map(self, function: Callable[[Tensor], Tensor]) -> Frames:
        return Frames(self.matrix.map(function), self.offset.map(function), self.half.map(function), self.quadric.map(function))

    def against_rays(self) -> Frames:
        """(B, P) -> (B, 1, P, 1), to broadcast with rays (B, N, 1, R)."""
        return self.map(lambda column: column[:, None, :, None])

    def of(self, solid: Tensor) -> Frames:
        """The frame of one solid per ray: (B, P) and solid (B, ...) int64 -> (B, ...)."""
        return self.map(lambda column: pick(column, solid))


def pick(column: Tensor, solid: Tensor) -> Tensor:
    """column (B, P) at solid (B, ...) -> (B, ...)"""
    return torch.gather(column, 1, solid.flatten(1)).view(solid.shape)


def ray_interval(frame: Frames, origin: Vec, direction: Vec) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays in the scaled solid frame are inside: (entry into the slabs, entry into the quadric, exit), in units of `direction`.

    The ray misses when the larger entry is not below the exit. The quadric is solved about the point closest to its axis, which
    keeps float32 exact for thin parts far away.
    """
    slab_in, slab_out = _slabs(origin, direction)
    bulge, shift, limit = frame.quadric.x, frame.quadric.y, frame.quadric.z
    oz = origin.z - shift
    a = direction.x * direction.x + direction.y * direction.y + bulge * direction.z * direction.z + 1e-20
    inverse = 1.0 / a
    closest = -(origin.x * direction.x + origin.y * direction.y + bulge * oz * direction.z) * inverse
    x, y, z = origin.x + closest * direction.x, origin.y + closest * direction.y, oz + closest * direction.z
    inside = (limit - (x * x + y * y + bulge * z * z)) * inverse
    reach = torch.sqrt(inside.clamp_min(0.0))
    quadric_in = torch.where(inside > 0, closest - reach, torch.inf)
    return slab_in, quadric_in, torch.minimum(slab_out, closest + reach)


def _slabs(origin: Vec, direction: Vec) -> tuple[Tensor, Tensor]:
    x_in, x_out = _slab(origin.x, direction.x)
    y_in, y_out = _slab(origin.y, direction.y)
    z_in, z_out = _slab(origin.z, direction.z)
    return torch.maximum(torch.maximum(x_in, y_in), z_in), torch.minimum(torch.minimum(x_out, y_out), z_out)


def _slab(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    inverse = 1.0 / torch.where(d.abs() < 1e-12, 1e-12, d)
    middle, reach = -o * inverse, inverse.abs()
    return middle - reach, middle + reach


def hit_distance(frame: Frames, origin: Vec, direction: Vec) -> Tensor:
    """Distance along `direction` (scaled solid frame) to the first surface; inf when missed or when the ray starts inside."""
    slab_in, quadric_in, leave = ray_interval(frame, origin, direction)
    enter = torch.maximum(slab_in, quadric_in)
    return torch.where((enter < leave) & (enter > NEAR_M), enter, torch.inf)


def surface_normal(frame: Frames, origin: Vec, direction: Vec) -> tuple[Tensor, Vec]:
    """(distance, outward unit normal in the unscaled solid frame) of the surface that a ray is known to meet."""
    slab_in, quadric_in, _ = ray_interval(frame, origin, direction)
    distance = torch.maximum(slab_in, quadric_in)
    u = origin + direction * distance
    ax, ay, az = u.x.abs(), u.y.abs(), u.z.abs()
    on_x, on_y = (ax >= ay) & (ax >= az), (ay > ax) & (ay >= az)
    on_z = ~(on_x | on_y)
    face = Vec(*(torch.where(on, torch.sign(c), 0.0) for on, c in ((on_x, u.x), (on_y, u.y), (on_z, u.z))))
    bulge, shift = frame.quadric.x, frame.quadric.y
    half = frame.half
    curved = Vec(u.x / half.x, u.y / half.y, bulge * (u.z - shift) / half.z).normalised()
    flat = slab_in >= quadric_in
    return distance, Vec(torch.where(flat, face.x, curved.x), torch.where(flat, face.y, curved.y), torch.where(flat, face.z, curved.z))


def distance_below(frame: Frames, p: Vec) -> Tensor:
    """A lower bound of the distance in metres from world points to the solids, exact outside a box's faces, negative inside."""
    u, half = frame.point(p), frame.half
    box = torch.maximum(torch.maximum((u.x.abs() - 1) * half.x, (u.y.abs() - 1) * half.y), (u.z.abs() - 1) * half.z)
    bulge, shift, limit = frame.quadric.x, frame.quadric.y, frame.quadric.z
    z = u.z - shift
    radius = torch.sqrt((u.x * u.x + u.y * u.y + bulge * z * z) / limit)
    thinnest = torch.minimum(torch.minimum(half.x, half.y), half.z)
    return torch.maximum(box, (radius - 1) * thinnest)
