"""Rooms, corridors and halls: a shell of walls, furnished along the walls, in the middle, on walls and on tops.

And abstract rooms of the same sizes, in which nothing looks as it should: what is learnt of one generator's furniture and wallpaper does
not hold elsewhere, layout and parallax do.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from da3_core.scenes.illumination import draw_sky, lamp_and_sun
from da3_core.scenes.materials import FAMILY_ID
from da3_core.scenes.pieces import Instances, Pieces, draw_instances, join_instances, pieces_from_instances, random_solids
from da3_core.scenes.rng import Draws
from da3_core.scenes.shell import Shell, draw_shell, shell_pieces, wall_frames
from da3_core.scenes.templates import ids
from da3_core.scenes.vec import xyz
from da3_core.scenes.worlds import Light, Sky, Stay, Worlds, assemble

ALONG_WALLS = ids(
    "wardrobe", "bookshelf", "bookshelf", "low_cabinet", "tv_bench", "sofa", "desk", "desk", "bed", "counter", "fridge", "rack", "plant",
    "armchair", "floor_lamp", "stairs", "ladder", "box_pile", "bin", "table", "chair", "radiator", "pillar",
)  # fmt: skip
CENTRES = ids("table", "table", "round_table", "coffee_table", "desk", "bed", "sofa", "stairs", "pillar", "counter")
SEATS = ids("chair", "chair", "stool", "office_chair", "armchair")
FREE = ids(
    "chair", "office_chair", "stool", "armchair", "plant", "floor_lamp", "bin", "box_pile", "person", "ladder", "rack", "coffee_table",
    "pillar", "ball", "carton", "ramp",
)  # fmt: skip
MOUNTED = ids("picture", "picture", "picture", "mirror", "wall_shelf", "radiator", "curtain", "vent", "door", "door", "slant")
HANGING = ids("pendant", "panel", "panel", "beam", "pipe")
SMALL = ids("cup", "bottle", "book_stack", "laptop", "bowl", "ball", "carton", "vase", "desk_lamp", "frame", "plant")
OUTSIDE = ids("block", "house", "tree", "conifer", "bush", "wall", "hedge", "van")
LOOKS = [FAMILY_ID[name] for name in ("wild", "wild", "loud", "loud", "flat", "any")]  # of anything in an abstract room


def make_rooms(seeds: Tensor, kind: int, is_corridor: bool) -> Worlds:
    """Indoor worlds; corridors are long, narrow and lined with doors."""
    draws = Draws(seeds, "room", 4096)
    shell = draw_shell(draws, is_corridor)
    furniture = furnish(draws, shell, is_corridor)
    clutter = _scatter(draws, shell, random_solids(draws, 8, (0.05, 0.6), 0.3))
    light, sky = _light(draws, shell)
    parts = [shell_pieces(draws, shell), pieces_from_instances(draws, furniture), clutter]
    focus = furniture.position + 0.5 * furniture.size * torch.tensor([0.0, 0.0, 1.0], device=draws.device)
    return assemble(seeds, kind, parts, light, sky, _stay(draws, shell, focus, furniture.present))


def make_abstract(seeds: Tensor, kind: int) -> Worlds:
    """Rooms with solids for furniture and any texture on any surface."""
    draws = Draws(seeds, "abstract", 4096)
    shell = draw_shell(draws, is_corridor=False)
    is_closed = draws.chance(0.6)
    shell = replace(shell, is_closed=is_closed, has_partition=shell.has_partition & ~is_closed)
    large = _scatter(draws, shell, random_solids(draws, 28, (0.5, 3.0), 0.15), aloft=0.3)
    small = _scatter(draws, shell, random_solids(draws, 12, (0.05, 0.6), 0.4), aloft=0.3)
    light, sky = _light(draws, shell)
    parts = [_dressed_up(draws, part) for part in (shell_pieces(draws, shell), large, small)]
    return assemble(seeds, kind, parts, light, sky, _stay(draws, shell, large.centre, torch.isfinite(large.order)))


def _dressed_up(draws: Draws, part: Pieces) -> Pieces:
    return replace(part, families=draws.choice(LOOKS, part.families.shape[1]))


def _light(draws: Draws, shell: Shell) -> tuple[Light, Sky]:
    daylight, lamplight = draws.log_uniform(low=0.3, high=6.0), draws.log_uniform(low=0.4, high=3.0)
    x, y = draws.uniform(low=-0.4, high=0.4) * shell.length, draws.uniform(low=-0.4, high=0.4) * shell.width
    lamp = xyz(x, y, shell.height - draws.uniform(low=0.15, high=0.5))
    light = lamp_and_sun(draws, lamp, draws.log_uniform(low=1.5, high=6.0), daylight, lamplight)
    return light, draw_sky(draws, daylight, torch.full_like(daylight, 300.0))


def furnish(draws: Draws, shell: Shell, is_corridor: bool) -> Instances:
    """What stands, hangs and lies in rooms (B,), and what is seen through their windows: (B, S) in the shell's frame, many not present."""
    fullness = draws.uniform(1, low=0.25, high=1.0)
    along = _along_walls(draws, shell, draw_instances(draws, ALONG_WALLS, 8), fullness * (0.35 if is_corridor else 0.9), lifted=False)
    mounted = _along_walls(
        draws, shell, draw_instances(draws, ids("door") * 6 + MOUNTED if is_corridor else MOUNTED, 6), fullness, lifted=True
    )
    groups = [along, mounted, _hanging(draws, shell, fullness)]
    tops = along
    if not is_corridor:
        table = _in_middle(draws, shell, draw_instances(draws, CENTRES, 2), 0.3 + 0.5 * fullness)
        groups += [table, _seats(draws, shell, table, fullness)]
        tops = join_instances([table, along])
    free = _in_middle(draws, shell, draw_instances(draws, FREE, 4), 0.7 * fullness * (0.5 if is_corridor else 1.0))
    rug = _in_middle(draws, shell, draw_instances(draws, ids("rug"), 1), torch.full_like(fullness, 0.3))
    return join_instances([*groups, free, rug, _on_tops(draws, tops, fullness), _outside(draws, shell)])


def _along_walls(draws: Draws, shell: Shell, items: Instances, chance: Tensor, lifted: bool) -> Instances:
    """Backs to the walls, one after the other around the room; lifted ones hang at their own heights."""
    count = items.yaw.shape[1]
    middles, yaws, lengths = wall_frames(shell)
    around = torch.cumsum(lengths[:, :4], 1)
    at = (torch.arange(count, device=draws.device) + draws.uniform(count, low=0.1, high=0.9)) / count * around[:, 3:]
    wall = (at[..., None] > around[:, None, :3]).sum(-1)
    rows = torch.arange(len(wall), device=draws.device)[:, None]
    length, yaw = lengths[rows, wall], yaws[rows, wall]
    spare = (0.5 * (length - items.size[..., 0]) - 0.05).clamp_min(0.0)
    x = torch.minimum(torch.maximum(at - (around - lengths[:, :4])[rows, wall] - 0.5 * length, -spare), spare)
    y = -0.5 * items.size[..., 1] - torch.where(draws.chance(0.6, count), 0.01, 0.15) * (not lifted)
    c, s = torch.cos(yaw), torch.sin(yaw)
    height = shell.height[:, None]
    z = draws.uniform(count, low=0.9, high=1.6) * lifted
    is_door = _is_one_of(items.template, ids("door", "radiator", "curtain"))
    z = torch.where(_is_one_of(items.template, ids("slant")), height - items.size[..., 2], z)
    z = torch.where(is_door, 0.0, torch.minimum(z, height - items.size[..., 2]))
    position = xyz(middles[rows, wall, 0] + c * x - s * y, middles[rows, wall, 1] + s * x + c * y, z)
    fits = (items.size[..., 0] < length) & (z + items.size[..., 2] <= height) & (z >= 0)
    jitter = torch.where(draws.chance(0.15, count), draws.normal(count, std=0.15), 0.0) * (not lifted)
    return items.at(position, yaw + jitter, fits & draws.chance(chance, count))


def _in_middle(draws: Draws, shell: Shell, items: Instances, chance: Tensor) -> Instances:
    count = items.yaw.shape[1]
    size = torch.stack((shell.length, shell.width), -1)[:, None]
    margin = 0.5 * items.size[..., :2].amax(-1, keepdim=True) + 0.1
    xy = draws.uniform(count, 2, low=-1.0, high=1.0) * (0.5 * size - margin).clamp_min(0.0)
    aligned = 0.5 * math.pi * draws.integers(4, count) + draws.normal(count, std=0.05)
    yaw = torch.where(draws.chance(0.5, count), aligned, draws.uniform(count, high=2 * math.pi))
    fits = (items.size[..., 2] < shell.height[:, None]) & (items.size[..., :2].amax(-1) < shell.width[:, None])
    return items.at(torch.cat((xy, torch.zeros_like(xy[..., :1])), -1), yaw, fits & draws.chance(chance, count))


def _seats(draws: Draws, shell: Shell, tables: Instances, fullness: Tensor) -> Instances:
    """Up to four around each table, facing it more or less."""
    count = tables.yaw.shape[1]
    seats = draw_instances(draws, SEATS, 4 * count)
    side = torch.arange(4, device=draws.device).repeat(count)
    table = torch.arange(count, device=draws.device).repeat_interleave(4)
    yaw = tables.yaw[:, table] + 0.5 * math.pi * side
    reach = 0.5 * torch.where(side % 2 == 0, tables.size[:, table, 1], tables.size[:, table, 0]) + draws.uniform(
        4 * count, low=0.05, high=0.5
    )
    shift = draws.normal(4 * count, std=0.15)
    xy = tables.position[:, table, :2] + torch.stack(
        (-torch.sin(yaw) * reach + torch.cos(yaw) * shift, torch.cos(yaw) * reach + torch.sin(yaw) * shift), -1
    )
    inside = (xy.abs() < 0.5 * torch.stack((shell.length, shell.width), -1)[:, None] - 0.25).all(-1)
    present = tables.present[:, table] & inside & draws.chance(fullness, 4 * count)
    return seats.at(torch.cat((xy, torch.zeros_like(xy[..., :1])), -1), yaw + draws.normal(4 * count, std=0.3), present)


def _hanging(draws: Draws, shell: Shell, fullness: Tensor) -> Instances:
    items = draw_instances(draws, HANGING, 3)
    xy = draws.uniform(3, 2, low=-0.4, high=0.4) * torch.stack((shell.length, shell.width), -1)[:, None]
    z = shell.height[:, None] - items.size[..., 2]
    yaw = 0.5 * math.pi * draws.integers(4, 3)
    return items.at(torch.cat((xy, z[..., None]), -1), yaw, (z > 1.7) & draws.chance(0.7 * fullness, 3))


def _on_tops(draws: Draws, supports: Instances, fullness: Tensor) -> Instances:
    """Small things on tables and cabinets."""
    count = 8
    items = draw_instances(draws, SMALL, count)
    rows = torch.arange(len(fullness), device=draws.device)[:, None]
    top = supports.top_m()
    usable = (top > 0) & supports.present
    preference = usable[:, None] * draws.uniform(count, usable.shape[1], low=0.1, high=1.0)
    on = preference.argmax(-1)
    yaw = supports.yaw[rows, on]
    xy = draws.uniform(count, 2, low=-0.4, high=0.4) * supports.size[rows, on, :2]
    c, s = torch.cos(yaw), torch.sin(yaw)
    position = supports.position[rows, on] + torch.stack(
        (c * xy[..., 0] - s * xy[..., 1], s * xy[..., 0] + c * xy[..., 1], top[rows, on]), -1
    )
    small = items.size[..., 2] < 0.9
    return items.at(
        position, yaw + draws.uniform(count, low=-math.pi, high=math.pi), usable[rows, on] & small & draws.chance(fullness, count)
    )


def _outside(draws: Draws, shell: Shell) -> Instances:
    """What may be seen through windows."""
    count = 2
    items = draw_instances(draws, OUTSIDE, count)
    angle, away = draws.uniform(count, high=2 * math.pi), draws.log_uniform(count, low=8.0, high=40.0) + shell.length[:, None]
    below = -draws.uniform(count, low=0.1, high=4.0)
    position = xyz(away * torch.cos(angle), away * torch.sin(angle), below)
    return items.at(position, draws.uniform(count, high=2 * math.pi), draws.chance(0.7, count))


def _scatter(draws: Draws, shell: Shell, solids: Pieces, aloft: float = 0.12) -> Pieces:
    """Things of no name: on the floor, or with probability `aloft` in the air."""
    count = solids.order.shape[1]
    xy = draws.uniform(count, 2, low=-0.46, high=0.46) * torch.stack((shell.length, shell.width), -1)[:, None]
    lowest = (solids.rotation[..., 2, :].abs() * solids.half).sum(-1)
    lift = draws.chance(aloft, count) * draws.uniform(count) * (shell.height[:, None] - 2 * lowest).clamp_min(0.0)
    present = draws.chance(draws.uniform(1, low=0.0, high=0.8), count)
    return replace(solids, centre=torch.cat((xy, (lowest + lift)[..., None]), -1), order=torch.where(present, solids.order, torch.inf))


def _stay(draws: Draws, shell: Shell, focus: Tensor, present: Tensor) -> Stay:
    """focus (B, S, 3), present (B, S) bool: what there is to look at, the first eight of it."""
    half = torch.stack((0.5 * shell.length, 0.5 * shell.width), -1) - 0.25
    low = torch.cat((-half, torch.full_like(half[:, :1], 0.15)), -1)
    high = torch.cat((half, (shell.height - 0.3).clamp_max(2.4)[:, None]), -1)
    anywhere = low[:, None] + (high - low)[:, None] * draws.uniform(8, 3)
    focus = torch.where(present[:, :8, None], focus[:, :8], anywhere)
    return Stay(
        low, high, torch.zeros_like(half), focus, 0.45 * torch.sqrt(shell.length * shell.width), torch.zeros_like(shell.has_partition)
    )


def _is_one_of(template: Tensor, options: list[int]) -> Tensor:
    return (template[..., None] == torch.tensor(options, device=template.device)).any(-1)
