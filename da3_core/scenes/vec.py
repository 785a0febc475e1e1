"""Three-vectors as three tensors: every component has one shape, so a compiler fuses whole expressions into one loop.

`step` and `blend` stand for comparisons, `torch.where` and `torch.lerp`: the first two cost ten times an addition where nothing is
compiled, and the last, nested, makes a compiler unroll its arguments three times per level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Vec:
    """Component tensors that broadcast against each other."""

    x: Tensor
    y: Tensor
    z: Tensor

    def __add__(self, other: Vec) -> Vec:
        return Vec(self.x + other.x, self.y + other.y, self.z + other.z)

    def __sub__(self, other: Vec) -> Vec:
        return Vec(self.x - other.x, self.y - other.y, self.z - other.z)

    def scaled(self, scale: Tensor | float) -> Vec:
        return Vec(self.x * scale, self.y * scale, self.z * scale)

    def towards(self, other: Vec, share: Tensor) -> Vec:
        """self where `share` is 0, other where it is 1."""
        return Vec(*(blend(a, b, share) for a, b in zip(self.components(), other.components(), strict=True)))

    def along(self, direction: Vec, distance: Tensor) -> Vec:
        """self + distance * direction"""
        return Vec(*(torch.addcmul(a, b, distance) for a, b in zip(self.components(), direction.components(), strict=True)))

    def dot(self, other: Vec) -> Tensor:
        return torch.addcmul(torch.addcmul(self.x * other.x, self.y, other.y), self.z, other.z)

    def norm(self) -> Tensor:
        return root(self.dot(self))

    def normalised(self) -> Vec:
        return self.scaled(torch.rsqrt(self.dot(self).clamp_min(1e-20)))

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.x, self.y, self.z

    def map(self, function: Callable[[Tensor], Tensor]) -> Vec:
        return Vec(function(self.x), function(self.y), function(self.z))

    def stack(self) -> Tensor:
        """(..., 3)"""
        return torch.stack(torch.broadcast_tensors(self.x, self.y, self.z), -1)


def step(x: Tensor) -> Tensor:
    """1 where x > 0, else 0."""
    return (x * 1e30).clamp(0.0, 1.0)


def blend(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """a where `share` is 0, b where it is 1."""
    return torch.addcmul(a, b - a, share)


def root(x: Tensor) -> Tensor:
    """The square root of |x| with the sign of x."""
    return x * torch.rsqrt(x.abs() + 1e-30)


def vec(v: Tensor) -> Vec:
    """(..., 3) -> its components."""
    return Vec(v[..., 0], v[..., 1], v[..., 2])


@dataclass(frozen=True)
class Matrix:
    """A 3x3 matrix of component tensors, by rows."""

    x: Vec
    y: Vec
    z: Vec

    def times(self, v: Vec) -> Vec:
        return Vec(self.x.dot(v), self.y.dot(v), self.z.dot(v))

    def times_and_plus(self, v: Vec, offset: Vec) -> Vec:
        parts = zip((self.x, self.y, self.z), offset.components(), strict=True)
        return Vec(*(torch.addcmul(torch.addcmul(torch.addcmul(o, r.x, v.x), r.y, v.y), r.z, v.z) for r, o in parts))

    def transposed_times(self, v: Vec) -> Vec:
        return self.x.scaled(v.x).along(self.y, v.y).along(self.z, v.z)

    def map(self, function: Callable[[Tensor], Tensor]) -> Matrix:
        return Matrix(self.x.map(function), self.y.map(function), self.z.map(function))


def matrix(m: Tensor) -> Matrix:
    """(..., 3, 3) -> its components."""
    return Matrix(vec(m[..., 0, :]), vec(m[..., 1, :]), vec(m[..., 2, :]))


def xyz(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Three of shape (...,) -> (..., 3)"""
    return torch.stack((x, y, z), -1)


def rotation_z(angle: Tensor) -> Tensor:
    """(...,) radians -> (..., 3, 3)"""
    c, s, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return torch.stack((xyz(c, -s, zero), xyz(s, c, zero), xyz(zero, zero, zero + 1)), -2)


def rotation_x(angle: Tensor) -> Tensor:
    """(...,) radians -> (..., 3, 3)"""
    c, s, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return torch.stack((xyz(zero + 1, zero, zero), xyz(zero, c, -s), xyz(zero, s, c)), -2)


def rotation_y(angle: Tensor) -> Tensor:
    """(...,) radians -> (..., 3, 3)"""
    c, s, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return torch.stack((xyz(c, zero, s), xyz(zero, zero + 1, zero), xyz(-s, zero, c)), -2)


def look_rotation(forward: Tensor, roll: Tensor) -> Tensor:
    """(..., 3, 3) R_world_cam of an optical camera (x right, y down, z forward) that looks along `forward` (..., 3) in a world with z up.

    roll (...,) radians about the optical axis.
    """
    z = torch.nn.functional.normalize(forward, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0], device=z.device).expand_as(z)
    x = torch.nn.functional.normalize(torch.linalg.cross(z, up), dim=-1)
    level = torch.stack((x, torch.linalg.cross(z, x), z), -1)
    return level @ rotation_z(roll)
