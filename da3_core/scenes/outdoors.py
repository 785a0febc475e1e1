"""Streets, yards and parks: ground, perhaps sloping, buildings at the sides, trees, cars, street furniture."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from da3_core.scenes.illumination import draw_sky, lamp_and_sun
from da3_core.scenes.materials import FAMILY_ID
from da3_core.scenes.pieces import Instances, Pieces, boxes, draw_instances, join_instances, pieces_from_instances, random_solids
from da3_core.scenes.primitives import ELLIPSOID
from da3_core.scenes.rng import Draws
from da3_core.scenes.templates import ids
from da3_core.scenes.vec import rotation_x, rotation_z, xyz
from da3_core.scenes.worlds import Stay, Worlds, assemble

BUILDINGS = ids("block", "house", "house", "shed", "block", "wall", "container")
STREET = ids(
    "car", "car", "van", "lamppost", "sign", "bench", "fence", "person", "bollard", "hedge", "container", "shelter", "rock", "bin",
    "wall", "box_pile",
)  # fmt: skip
PLANTS = ids("tree", "tree", "conifer", "bush", "hedge", "rock")


def make_outdoors(seeds: Tensor, kind: int) -> Worlds:
    """Worlds of `seeds` (B,) int64 around an open yard at the origin, z up; the ground passes through it and may slope.

    kind: index into `KINDS`.
    """
    draws = Draws(seeds, "outdoors", 4096)
    slope = draws.normal(2, std=0.05) * draws.chance(0.5, 1)
    yard_m = draws.log_uniform(low=4.0, high=18.0)  # half width of the open space
    things = join_instances(
        [_buildings(draws, yard_m, slope), _strewn(draws, yard_m, slope, STREET, 11), _strewn(draws, 1.5 * yard_m, slope, PLANTS, 7)]
    )
    daylight = draws.log_uniform(low=0.4, high=4.0)
    lamp = torch.cat((draws.uniform(2, low=-1.0, high=1.0) * yard_m[:, None], draws.uniform(1, low=3.0, high=8.0)), -1)
    lamplight = draws.log_uniform(low=0.2, high=2.0) * draws.chance(0.2)
    light = lamp_and_sun(draws, lamp, draws.log_uniform(low=4.0, high=12.0), daylight, lamplight)
    sky = draw_sky(draws, daylight, draws.log_uniform(low=40.0, high=2000.0))
    parts = [_ground(draws, slope, yard_m), _hills(draws, yard_m), pieces_from_instances(draws, things), _rubble(draws, yard_m, slope)]
    return assemble(seeds, kind, parts, light, sky, _stay(draws, yard_m, slope, things))


def ground_height(slope: Tensor, xy: Tensor) -> Tensor:
    """slope (B, 2), xy (B, M, 2) -> (B, M)"""
    return (slope[:, None] * xy).sum(-1)


def _ground(draws: Draws, slope: Tensor, yard_m: Tensor) -> Pieces:
    """The ground, a road with pavements on it, and low mounds far out."""
    steep = slope.norm(dim=-1)
    downhill = torch.atan2(slope[:, 1], slope[:, 0])
    tilt = rotation_z(downhill - 0.5 * math.pi) @ rotation_x(torch.atan(steep)) @ rotation_z(draws.uniform(high=2 * math.pi) - downhill)
    thick = 1.0
    road = draws.uniform(low=2.0, high=6.0)
    aside = draws.uniform(low=-0.3, high=0.3) * yard_m
    has_road = draws.chance(0.6)
    zero = torch.zeros_like(road)
    local = torch.stack(
        (
            xyz(zero, zero, zero - thick),
            xyz(zero, aside, zero + 0.005),
            xyz(zero, aside + 1.4 * road, zero),
        ),
        1,
    )
    half = torch.stack((
        xyz(zero + 200, zero + 200, zero + thick), xyz(zero + 150, road, zero + 0.01), xyz(zero + 150, 0.4 * road, zero + 0.12)
    ), 1)  # fmt: skip
    families = torch.cat(
        (
            draws.choice([FAMILY_ID["ground"]] * 3 + [FAMILY_ID["floor"], FAMILY_ID["masonry"]], 1),
            draws.choice([FAMILY_ID["ground"], FAMILY_ID["plain"]], 2),
        ),
        1,
    )
    present = torch.stack((has_road | True, has_road, has_road & draws.chance(0.6)), 1)
    flat = boxes(local, half, zero[:, None].expand(-1, 3), present, torch.arange(3, device=draws.device).expand(len(zero), 3), families)
    tilted = tilt[:, None].expand(-1, 3, -1, -1)
    return replace(flat, centre=(tilted @ local[..., None])[..., 0], rotation=tilted)


def _hills(draws: Draws, yard_m: Tensor) -> Pieces:
    """Up to three, mostly buried."""
    hills = random_solids(draws, 3, (1.0, 1.0), 0.0)
    angle = draws.uniform(3, high=2 * math.pi)
    away = yard_m[:, None] * draws.uniform(3, low=0.5, high=3.0)
    half = torch.cat((draws.log_uniform(3, 2, low=4.0, high=40.0), draws.log_uniform(3, 1, low=0.3, high=6.0)), -1)
    centre = xyz(away * torch.cos(angle), away * torch.sin(angle), -0.2 * half[..., 2])
    families = draws.choice([FAMILY_ID["ground"], FAMILY_ID["foliage"]], 3)
    present = draws.chance(0.2, 3) & (away - half[..., :2].amax(-1) > 0.2 * yard_m[:, None])
    return replace(
        hills, centre=centre, half=half, quadric=half.new_tensor(ELLIPSOID).expand_as(half), families=families,
        order=torch.where(present, -1.0, torch.inf),
    )  # fmt: skip


def _buildings(draws: Draws, yard_m: Tensor, slope: Tensor) -> Instances:
    """In two rows along a street, or all around; fronts inward."""
    count = 7
    items = draw_instances(draws, BUILDINGS, count)
    angle = (torch.arange(count, device=draws.device) + draws.uniform(count)) * (2 * math.pi / count)
    apart = yard_m[:, None] + 0.5 * items.size[..., 1] + draws.uniform(count, high=6.0)
    ring = apart[..., None] * torch.stack((torch.cos(angle), torch.sin(angle)), -1)
    side = torch.where(torch.arange(count, device=draws.device) % 2 == 0, 1.0, -1.0)
    along = (torch.arange(count, device=draws.device) // 2 + draws.uniform(count, low=0.2, high=0.8) - 1.5) * 18.0
    row = torch.stack((along, side * apart), -1)
    in_rows = draws.chance(0.6, 1)
    xy = torch.where(in_rows[..., None], row, ring)
    yaw = torch.where(in_rows, torch.where(side > 0, 0.0, math.pi), angle - 0.5 * math.pi) + draws.normal(count, std=0.05)
    z = ground_height(slope, xy) - 0.2
    present = draws.chance(draws.uniform(1, low=0.1, high=1.0), count)
    return items.at(torch.cat((xy, z[..., None]), -1), yaw, present)


def _strewn(draws: Draws, yard_m: Tensor, slope: Tensor, options: list[int], count: int) -> Instances:
    items = draw_instances(draws, options, count)
    xy = draws.uniform(count, 2, low=-1.0, high=1.0) * yard_m[:, None, None]
    z = ground_height(slope, xy) - 0.01
    aligned = 0.5 * math.pi * draws.integers(4, count) + draws.normal(count, std=0.06)
    yaw = torch.where(draws.chance(0.6, count), aligned, draws.uniform(count, high=2 * math.pi))
    return items.at(torch.cat((xy, z[..., None]), -1), yaw, draws.chance(draws.uniform(1, low=0.3, high=1.0), count))


def _rubble(draws: Draws, yard_m: Tensor, slope: Tensor) -> Pieces:
    """Boxes, stones and mounds of any size."""
    solids = random_solids(draws, 8, (0.2, 3.0), 0.3)
    xy = draws.uniform(8, 2, low=-1.0, high=1.0) * yard_m[:, None, None]
    reach = (solids.rotation[..., 2, :].abs() * solids.half).sum(-1)
    z = ground_height(slope, xy) + reach * draws.uniform(8, low=0.2, high=1.0)
    present = draws.chance(draws.uniform(1, low=0.0, high=0.8), 8)
    return replace(solids, centre=torch.cat((xy, z[..., None]), -1), order=torch.where(present, solids.order, torch.inf))


def _stay(draws: Draws, yard_m: Tensor, slope: Tensor, things: Instances) -> Stay:
    half = (0.8 * yard_m)[:, None].expand(-1, 2)
    ceiling = torch.where(draws.chance(0.85), 2.5, draws.uniform(low=3.0, high=9.0))[:, None]
    pick = draws.integers(things.yaw.shape[1], 8)
    rows = torch.arange(len(pick), device=draws.device)[:, None]
    position, size = things.position[rows, pick], things.size[rows, pick]
    focus = position + torch.tensor([0.0, 0.0, 0.4], device=draws.device) * size.clamp_max(8.0)
    anywhere = torch.cat((draws.uniform(8, 2, low=-1.0, high=1.0) * yard_m[:, None, None], draws.uniform(8, 1, low=0.5, high=2.0)), -1)
    focus = torch.where(things.present[rows, pick][..., None], focus, anywhere)
    low = torch.cat((-half, torch.full_like(ceiling, 0.3)), -1)
    return Stay(low, torch.cat((half, ceiling), -1), slope, focus, 0.7 * yard_m, torch.zeros_like(yard_m) > 0)
