"""Three-vectors as three tensors: every component has one shape, so a compiler fuses whole expressions into one loop."""

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

    def __mul__(self, scale: Tensor | float) -> Vec:
        return Vec(self.x * scale, self.y * scale, self.z * scale)

    def dot(self, other: Vec) -> Tensor:
        return self.x * other.x + self.y * other.y + self.z * other.z

    def norm(self) -> Tensor:
        return torch.sqrt(self.dot(self))

    def normalised(self) -> Vec:
        return self * torch.rsqrt(self.dot(self).clamp_min(1e-20))

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.x, self.y, self.z

    def map(self, function: Callable[[Tensor], Tensor]) -> Vec:
        return Vec(function(self.x), function(self.y), function(self.z))

    def stack(self) -> Tensor:
        """(..., 3)"""
        return torch.stack(torch.broadcast_tensors(self.x, self.y, self.z), -1)


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

    def transposed_times(self, v: Vec) -> Vec:
        return self.x * v.x + self.y * v.y + self.z * v.z

    def map(self, function: Callable[[Tensor], Tensor]) -> Matrix:
        return Matrix(self.x.map(function), self.y.map(function), self.z.map(function))


def matrix(m: Tensor) -> Matrix:
    """(..., 3, 3) -> its components."""
    return Matrix(vec(m[..., 0, :]), vec(m[..., 1, :]), vec(m[..., 2, :]))


def rotation_z(angle: Tensor) -> Tensor:
    """(...,) radians -> (..., 3, 3)"""
    c, s, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return torch.stack((c, -s, zero, s, c, zero, zero, zero, zero + 1), -1).unflatten(-1, (3, 3))


def rotation_x(angle: Tensor) -> Tensor:
    """(...,) radians -> (..., 3, 3)"""
    c, s, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return torch.stack((zero + 1, zero, zero, zero, c, -s, zero, s, c), -1).unflatten(-1, (3, 3))


def look_rotation(forward: Tensor, roll: Tensor) -> Tensor:
    """R_world_cam of an optical camera (x right, y down, z forward) that looks along `forward` (..., 3), world z up, rolled about its axis."""
    z = torch.nn.functional.normalize(forward, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0], device=z.device).expand_as(z)
    x = torch.nn.functional.normalize(torch.linalg.cross(z, up), dim=-1)
    level = torch.stack((x, torch.linalg.cross(z, x), z), -1)
    return level @ rotation_z(roll)
