"""The empty room: floor, ceiling, walls with windows and doorways, and what is built into it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from da3_core.scenes.materials import FAMILY_ID
from da3_core.scenes.pieces import Pieces, boxes, join
from da3_core.scenes.rng import Draws
from da3_core.scenes.vec import xyz

WALLS = 5  # four and a partition
BAR_M = 0.02


@dataclass(frozen=True)
class Shell:
    """[-length/2, length/2] x [-width/2, width/2] x [0, height], metres, (B,) each."""

    length: Tensor  # along x
    width: Tensor
    height: Tensor
    partition_x: Tensor  # of the partition's middle
    has_partition: Tensor  # bool
    is_closed: Tensor  # bool: no windows, no doorways


@dataclass(frozen=True)
class Openings:
    """Up to two in each wall, (B, WALLS, 2) each, metres in the wall's frame; absent ones are zero wide."""

    start: Tensor
    end: Tensor
    sill: Tensor
    lintel: Tensor
    barred: Tensor  # bool


def draw_shell(draws: Draws, is_corridor: bool) -> Shell:
    """Sizes of B rooms, their length at least their width, and whether a partition stands in them; none is closed."""
    if is_corridor:
        length, width = draws.log_uniform(low=5.0, high=28.0), draws.log_uniform(low=1.3, high=3.2)
    else:
        hall = torch.where(draws.chance(0.1), 2.2, 1.0)
        length, width = draws.log_uniform(low=2.8, high=10.0) * hall, draws.log_uniform(low=2.5, high=8.0) * hall
        length = torch.maximum(length, width)
    low = draws.uniform(low=2.2, high=3.0)
    high = draws.uniform(low=2.6, high=5.0) + 0.12 * (length - 10.0).clamp_min(0.0)
    height = torch.where(draws.chance(0.65), low, high)
    has_partition = draws.chance(0.3 if is_corridor else 0.2) & (length > 4.0)
    return Shell(length, width, height, draws.uniform(low=-0.25, high=0.25) * length, has_partition, torch.zeros_like(has_partition))


def wall_frames(shell: Shell) -> tuple[Tensor, Tensor, Tensor]:
    """(middles (B, 5, 2), yaws (B, 5) with local +y outward, lengths (B, 5)): four walls and the partition."""
    zero = torch.zeros_like(shell.length)
    half_l, half_w = 0.5 * shell.length, 0.5 * shell.width
    middles = torch.stack((
        torch.stack((zero, half_w), -1), torch.stack((-half_l, zero), -1), torch.stack((zero, -half_w), -1),
        torch.stack((half_l, zero), -1), torch.stack((shell.partition_x, zero), -1),
    ), 1)  # fmt: skip
    yaws = 0.5 * math.pi * zero.new_tensor([0.0, 1.0, 2.0, 3.0, 1.0]).expand(len(zero), WALLS)
    return middles, yaws, torch.stack((shell.length, shell.width, shell.length, shell.width, shell.width), 1)


def shell_pieces(draws: Draws, shell: Shell) -> Pieces:
    """Everything that is built: it stays before furniture."""
    return join([_slabs(draws, shell), _walls(draws, shell)])


def _one_of(draws: Draws, *names: str) -> Tensor:
    return draws.choice([FAMILY_ID[name] for name in names], 1)


def _slabs(draws: Draws, shell: Shell) -> Pieces:
    """Floor, ceiling, the ground outside, and a block that fills a corner."""
    zero, one = torch.zeros_like(shell.length), torch.ones_like(shell.length)
    ground = -draws.log_uniform(low=0.1, high=12.0)
    half_l, half_w = 0.5 * shell.length, 0.5 * shell.width
    block_l, block_w = draws.uniform(low=0.1, high=0.35) * shell.length, draws.uniform(low=0.1, high=0.3) * shell.width
    centre = torch.stack((
        xyz(zero, zero, zero - 0.1), xyz(zero, zero, shell.height + 0.1),
        xyz(zero, zero, ground - 0.5), xyz(draws.sign() * half_l, draws.sign() * half_w, 0.5 * shell.height),
    ), 1)  # fmt: skip
    half = torch.stack((
        xyz(half_l + 0.3, half_w + 0.3, 0.1 * one), xyz(half_l + 0.3, half_w + 0.3, 0.1 * one),
        xyz(120 * one, 120 * one, 0.5 * one), xyz(block_l, block_w, 0.5 * shell.height),
    ), 1)  # fmt: skip
    turned = torch.where(draws.chance(0.4), draws.uniform(high=math.pi), 0.0)
    yaw = torch.stack((zero, zero, draws.uniform(high=math.pi), turned), 1)
    always = one > 0
    present = torch.stack((always, always, always, draws.chance(0.25)), 1)
    families = (
        _one_of(draws, "floor", "floor", "wood", "fabric", "ground"), _one_of(draws, "plain", "wall"), _one_of(draws, "ground"),
        _one_of(draws, "wall", "masonry", "plain"),
    )  # fmt: skip
    return boxes(centre, half, yaw, present, torch.arange(4, device=draws.device).expand_as(yaw), torch.cat(families, 1))


def _openings(draws: Draws, shell: Shell, lengths: Tensor) -> Openings:
    """Windows and doorways, one in each half of a wall; a partition always has a doorway. Closed rooms have neither."""
    is_partition = _is_partition(draws.device)
    often = torch.tensor([0.55, 0.25], device=draws.device)
    wanted = (draws.chance(often, WALLS, 2) | (is_partition & (often > 0.5))) & ~shell.is_closed[:, None, None]
    door = draws.chance(0.3, WALLS, 2) | is_partition
    width = torch.where(door, draws.uniform(WALLS, 2, low=0.75, high=1.8), draws.uniform(WALLS, 2, low=0.5, high=2.6))
    width = torch.minimum(width, 0.4 * lengths[..., None])
    first = 0.5 * lengths[..., None] * torch.tensor([-1.0, 0.0], device=draws.device)
    start = first + (0.5 * lengths[..., None] - width) * draws.uniform(WALLS, 2, low=0.08, high=0.92)
    sill = torch.where(door, 0.0, draws.uniform(WALLS, 2, low=0.05, high=1.2))
    lintel = torch.where(door, draws.uniform(WALLS, 2, low=1.95, high=2.15), sill + draws.uniform(WALLS, 2, low=0.5, high=2.2))
    lintel = torch.minimum(lintel, shell.height[:, None, None] - 0.05)
    return Openings(start, start + width * wanted, sill, lintel, wanted & ~door & draws.chance(0.7, WALLS, 1))


def _walls(draws: Draws, shell: Shell) -> Pieces:
    """Three columns between each wall's openings, the parts below and above each, and two bars in each window."""
    middles, yaws, lengths = wall_frames(shell)
    low, high, present = _wall_boxes(draws, shell, lengths)  # (B, WALLS, 11, ...)
    centre = 0.5 * (low + high)
    c, s = torch.cos(yaws)[..., None], torch.sin(yaws)[..., None]
    x = middles[..., None, 0] + c * centre[..., 0] - s * centre[..., 1]
    y = middles[..., None, 1] + s * centre[..., 0] + c * centre[..., 1]
    placed = xyz(x, y, centre[..., 2]).flatten(1, 2)
    wall = torch.arange(WALLS, device=draws.device)[:, None]
    surface = torch.where(_is_bar(draws.device), WALLS, wall).expand_as(present)
    families = _one_of(draws, "wall", "wall", "plain", "masonry", "any", "wood").expand(-1, WALLS)
    families = torch.cat((families, _one_of(draws, "plain", "wood", "metal")), 1)
    yaw = yaws[..., None].expand(present.shape)
    return boxes(placed, 0.5 * (high - low).flatten(1, 2), yaw.flatten(1), present.flatten(1), surface.flatten(1), families)


def _wall_boxes(draws: Draws, shell: Shell, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(low, high (B, WALLS, 11, 3), present) in the walls' frames: x along, y outward, z up."""
    thick = draws.uniform(1, 1, low=0.08, high=0.35).expand(-1, WALLS, 1)
    opening = _openings(draws, shell, lengths)
    end = 0.5 * lengths[..., None] + thick
    a, b, sill, lintel = opening.start, opening.end, opening.sill, opening.lintel
    zero, full = torch.zeros_like(a), shell.height[:, None, None].expand_as(a)
    middle, across = 0.5 * (a + b), sill + (lintel - sill) * draws.uniform(WALLS, 1, low=0.4, high=0.8)
    left = torch.cat((-end, b, a, a, middle - BAR_M, a), -1)
    right = torch.cat((a, end, b, b, middle + BAR_M, b), -1)
    bottom = torch.cat((zero, zero[..., :1], zero, lintel, sill, across - BAR_M), -1)
    top = torch.cat((full, full[..., :1], sill, full, lintel, across + BAR_M), -1)
    is_bar, is_partition = _is_bar(draws.device), _is_partition(draws.device)
    reach, outward = torch.where(is_bar, BAR_M, 0.5 * thick), torch.where(is_partition, 0.0, 0.5 * thick)
    low, high = xyz(left, outward - reach, bottom), xyz(right, outward + reach, top)
    barred = torch.cat((torch.ones_like(left[..., :7], dtype=torch.bool), opening.barred, opening.barred), -1)
    built = ~is_partition | shell.has_partition[:, None, None]
    return low, high, built & barred & (right - left > 0.01) & (top - bottom > 0.01)


def _is_partition(device: torch.device) -> Tensor:
    """(WALLS, 1)"""
    return (torch.arange(WALLS, device=device) == WALLS - 1)[:, None]


def _is_bar(device: torch.device) -> Tensor:
    """(11,)"""
    return torch.arange(11, device=device) >= 7
