"""One thing or a heap of things in the middle: on a table, on the ground, in a studio or in the void."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from da3_core.scenes.illumination import draw_sky, lamp_and_sun
from da3_core.scenes.materials import FAMILY_ID
from da3_core.scenes.pieces import Pieces, boxes, draw_instances, pieces_from_instances, random_solids
from da3_core.scenes.rng import Draws
from da3_core.scenes.templates import ids
from da3_core.scenes.vec import xyz
from da3_core.scenes.worlds import Stay, Worlds, assemble

THINGS = ids(
    "chair", "office_chair", "stool", "sofa", "armchair", "table", "round_table", "desk", "plant", "bookshelf", "low_cabinet",
    "floor_lamp", "person", "ladder", "rack", "box_pile", "bed", "car", "van", "bench", "stairs", "rock", "bush", "tree", "shelter",
    "laptop", "vase", "bottle", "desk_lamp", "book_stack", "cup",
)  # fmt: skip


def make_objects(seeds: Tensor, kind: int) -> Worlds:
    """Worlds of `seeds` (B,) int64, each with one thing or a heap over the origin, z up; the thing's solids are their objects.

    kind: index into `KINDS`.
    """
    draws = Draws(seeds, "objects", 2048)
    named = draw_instances(draws, THINGS, 1)
    is_heap = draws.chance(0.5)
    heap_m = draws.log_uniform(low=0.15, high=2.5)
    zero = torch.zeros_like(heap_m)
    thing = pieces_from_instances(
        draws, named.at(torch.zeros_like(named.position), draws.uniform(1, high=2 * math.pi), ~is_heap[:, None]), is_object=True
    )
    size = torch.where(is_heap, heap_m, named.size[:, 0].amax(-1))
    tall = torch.where(is_heap, 0.8 * heap_m, named.size[:, 0, 2])
    daylight, lamplight = draws.log_uniform(low=0.3, high=3.0), draws.log_uniform(low=0.3, high=2.0)
    aside = draws.normal(2)
    lamp = torch.cat((2.0 * aside * size[:, None], (1.5 + draws.uniform(high=2.5))[:, None] * size[:, None]), -1)
    light = lamp_and_sun(draws, lamp, 2.0 * size, daylight * draws.chance(0.7), lamplight)
    scenery, is_open = _scenery(draws, size)
    sky = replace(draw_sky(draws, daylight, zero + 1000.0), is_sky=is_open)
    return assemble(seeds, kind, [scenery, thing, _heap(draws, heap_m, is_heap)], light, sky, _stay(draws, size, tall))


def _heap(draws: Draws, heap_m: Tensor, present: Tensor) -> Pieces:
    """Up to sixteen solids that lean into each other."""
    count = 16
    solids = random_solids(draws, count, (0.25, 0.8), 0.5)
    scale = heap_m[:, None, None]
    half = solids.half * scale
    xy = draws.normal(count, 2, std=0.28).clamp(-0.6, 0.6) * scale
    reach = (solids.rotation[..., 2, :].abs() * half).sum(-1)
    z = reach + heap_m[:, None] * draws.uniform(count, low=-0.05, high=0.6) * draws.chance(0.6, count)
    chosen = present[:, None] & draws.chance(draws.uniform(1, low=0.3, high=1.0), count)
    order = torch.where(chosen, solids.order, torch.inf)
    return replace(solids, centre=torch.cat((xy, z[..., None]), -1), half=half.clamp_min(3e-3), order=order, is_object=chosen)


def _scenery(draws: Draws, size: Tensor) -> tuple[Pieces, Tensor]:
    """(ground, table top with legs, two backdrops; whether rays that miss see a sky)."""
    zero, one = torch.zeros_like(size), torch.ones_like(size)
    setting = draws.integers(4)  # ground, table, studio, void
    wide = size * draws.uniform(low=0.8, high=2.0)
    below = -draws.uniform(low=0.4, high=0.8) * torch.where(setting == 1, 1.0, 0.0)
    wall = size * draws.uniform(low=1.5, high=4.0)
    far = torch.where(setting == 2, 6.0 * size, draws.log_uniform(low=4.0, high=80.0) * size.clamp_min(0.5))
    tall = size * draws.uniform(low=2.0, high=5.0)
    turn = draws.uniform(high=2 * math.pi)
    c, s = torch.cos(turn), torch.sin(turn)
    thick = 0.05 * size
    centre = torch.stack((
        xyz(zero, zero, below - thick), xyz(zero, zero, -0.5 * thick),
        xyz(-s * (wall + thick), c * (wall + thick), 0.5 * tall), xyz(c * (wall + thick), s * (wall + thick), 0.5 * tall),
        xyz(zero, zero, 0.5 * below - thick),
    ), 1)  # fmt: skip
    half = torch.stack((
        xyz(far, far, thick), xyz(wide, 0.8 * wide, 0.5 * thick), xyz(3 * wall, thick, 0.5 * tall),
        xyz(thick, 3 * wall, 0.5 * tall), xyz(0.1 * wide, 0.1 * wide, -0.5 * below + 1e-3),
    ), 1)  # fmt: skip
    present = torch.stack((setting != 3, setting == 1, setting == 2, (setting == 2) & draws.chance(0.6), setting == 1), 1)
    families = torch.cat(
        (
            draws.choice([FAMILY_ID[f] for f in ("ground", "floor", "wood", "any")], 1),
            draws.choice([FAMILY_ID[f] for f in ("wood", "any", "plain")], 4),
        ),
        1,
    )
    index = torch.arange(5, device=draws.device).expand(len(size), 5)
    yaw = torch.stack((turn, turn, turn, turn, turn * one), 1)
    return boxes(centre, half, yaw, present, index, families), setting < 2


def _stay(draws: Draws, size: Tensor, tall: Tensor) -> Stay:
    half = (3.2 * size)[:, None].expand(-1, 2)
    low = torch.cat((-half, (0.1 * size)[:, None]), -1)
    middle = xyz(torch.zeros_like(size), torch.zeros_like(size), 0.5 * tall)
    focus = middle[:, None] + draws.normal(8, 3, std=0.15) * xyz(size, size, tall)[:, None]
    high = torch.cat((half, (tall + 1.5 * size)[:, None]), -1)
    return Stay(low, high, torch.zeros_like(half), focus, 1.8 * size, torch.ones_like(size) > 0)
