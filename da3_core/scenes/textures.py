"""Colours of surfaces, evaluated where rays hit: octaves of noise and one engine of cells, insets and glyphs.

Everything finer than the pixel's footprint fades to its mean, so that images are antialiased without extra rays.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from da3_core.scenes.materials import Materials
from da3_core.scenes.vec import Vec, blend, step

OCTAVES = 5
LACUNARITY, TURN_RAD = 2.05, 0.668
PRIME_I, PRIME_J = 73856093, 19349663


def lattice(i: Tensor, j: Tensor, seed: Tensor) -> Tensor:
    """int32 cell coordinates and seed -> int32 hash."""
    return _scramble((i * PRIME_I) ^ (j * PRIME_J) ^ seed)


def _scramble(h: Tensor) -> Tensor:
    h = (h ^ (h >> 15)) * 0x2C1B3C6D
    return h ^ (h >> 13)


def unit(h: Tensor, shift: int) -> Tensor:
    """Eight bits of a hash -> float32 in [0, 1)."""
    return ((h >> shift) & 0xFF).float() * (1.0 / 256.0)


def value_noise(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    """Smooth noise in about [-1, 1], one cycle per two units."""
    fu, fv = torch.floor(u), torch.floor(v)
    i, j = fu.int() * PRIME_I, (fv.int() * PRIME_J) ^ seed
    i_next, j_next = i + PRIME_I, ((fv.int() + 1) * PRIME_J) ^ seed
    a, b = _fade(u - fu), _fade(v - fv)
    low = blend(_corner(i ^ j), _corner(i_next ^ j), a)
    high = blend(_corner(i ^ j_next), _corner(i_next ^ j_next), a)
    return blend(low, high, b) * (2.0 / 65535.0) - 1.0


def fractal_noise(u: Tensor, v: Tensor, seed: Tensor, roughness: Tensor, cells_per_pixel: Tensor) -> Tensor:
    """Octaves of value noise with amplitude ratio `roughness`, of about unit peak; octaves finer than half a pixel's footprint fade away.

    u, v: in cells of the first octave. cells_per_pixel: the footprint in these cells.
    """
    total, energy, amplitude = torch.zeros_like(u), torch.zeros_like(u), torch.ones_like(u)
    for octave in range(OCTAVES):
        along, across = _octave_axes(octave)  # each octave finer and turned, from the first: a chain would be unrolled twice per octave
        noise = value_noise(along * u - across * v + 0.37 * octave, across * u + along * v + 0.71 * octave, seed + 7919 * octave)
        seen = (1.6 - 1.6 * LACUNARITY**octave * cells_per_pixel).clamp(0.0, 1.0)
        total = torch.addcmul(total, amplitude * seen, noise)
        energy = torch.addcmul(energy, amplitude, amplitude)
        amplitude = amplitude * roughness
    return total * torch.rsqrt(energy) * 1.4


def _octave_axes(octave: int) -> tuple[float, float]:
    return LACUNARITY**octave * math.cos(TURN_RAD * octave), LACUNARITY**octave * math.sin(TURN_RAD * octave)


def _fade(t: Tensor) -> Tensor:
    return t * t * (3.0 - 2.0 * t)


def _corner(h: Tensor) -> Tensor:
    return (_scramble(h) & 0xFFFF).float()


def _coverage(inside_m: Tensor, footprint_m: Tensor) -> Tensor:
    """How much of a pixel lies inside an edge that is `inside_m` away."""
    return (0.5 + inside_m / footprint_m).clamp(0.0, 1.0)


def albedo(m: Materials, u_m: Tensor, v_m: Tensor, footprint_m: Tensor) -> Vec:
    """Linear RGB reflectance at surface coordinates (u_m, v_m); every tensor has the rays' shape."""
    c, s = torch.cos(m.angle), torch.sin(m.angle)
    u_m, v_m = c * u_m - s * v_m, s * u_m + c * v_m
    seed = m.seed
    noise = fractal_noise(
        u_m * m.noise_per_m, v_m * m.noise_per_m * m.stretch, seed, m.roughness,
        footprint_m * m.noise_per_m * torch.sqrt(m.stretch.clamp_min(1.0)),
    )  # fmt: skip
    swing = m.contrast * noise
    ground = m.base.towards(m.vein, (0.5 + swing).clamp(0.0, 1.0))
    tinted, marked = _cells(m, u_m, v_m, footprint_m, seed)
    return ground.towards(m.accent, tinted).towards(m.mark, marked).scaled((1.0 + 0.35 * swing).clamp(0.3, 1.7))


def _cells(m: Materials, u_m: Tensor, v_m: Tensor, footprint_m: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """(how much of the accent colour, how much of the mark colour): tinted or checkered cells, their joints, insets and glyphs."""
    row = torch.floor(v_m / m.cell_v_m)
    across = u_m / m.cell_u_m + m.stagger * row
    column = torch.floor(across)
    fu, fv = across - column - 0.5, v_m / m.cell_v_m - row - 0.5
    h = lattice(column.int(), row.int(), seed)
    smaller = torch.minimum(m.cell_u_m, m.cell_v_m)
    seen = (2.0 - 3.0 * footprint_m / smaller).clamp(0.0, 1.0)
    parity = ((column.int() + row.int()) & 1).float()
    tint = torch.maximum(m.tint * unit(h, 0), m.checker * parity)
    mean = torch.maximum(0.5 * m.tint, 0.5 * m.checker)
    border_m = torch.minimum((0.5 - fu.abs()) * m.cell_u_m, (0.5 - fv.abs()) * m.cell_v_m)
    joint = _coverage(m.joint_m - border_m, footprint_m) * step(m.joint_m)
    inset = _inset(m, fu, fv, h, footprint_m)
    glyphs = _glyphs(m, fu, fv, h, footprint_m)
    return mean + (tint - mean) * seen, (torch.maximum(joint, inset * glyphs) * seen)


def _inset(m: Materials, fu: Tensor, fv: Tensor, h: Tensor, footprint_m: Tensor) -> Tensor:
    present = step(m.inset_chance - unit(h, 8))
    edge_m = torch.minimum((0.5 * m.inset_u - fu.abs()) * m.cell_u_m, (0.5 * m.inset_v - fv.abs()) * m.cell_v_m)
    return _coverage(edge_m, footprint_m) * present


def _glyphs(m: Materials, fu: Tensor, fv: Tensor, h: Tensor, footprint_m: Tensor) -> Tensor:
    """One where there are none; otherwise lines of on and off cells, like writing from a distance."""
    pitch_m = m.inset_u * m.cell_u_m / m.marks.clamp_min(1.0)
    column, row = torch.floor((fu + 0.5) * m.cell_u_m / pitch_m), torch.floor((fv + 0.5) * m.cell_v_m / (1.5 * pitch_m))
    lines = row.int()
    on = step(0.6 - unit(lattice(column.int(), lines, h), 4)) * (1 - (lines & 1))
    seen = (1.5 - 1.5 * footprint_m / pitch_m).clamp(0.0, 1.0)
    return 1.0 - m.marks.clamp_max(1.0) * (0.7 - (on - 0.3) * seen)
