"""A batch of worlds as padded tensors, and the one way to make them from seeds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from da3_core.scenes.materials import Materials, sample_materials
from da3_core.scenes.pieces import Pieces, join, pack, solids
from da3_core.scenes.primitives import Solids
from da3_core.scenes.rng import Draws
from da3_core.scenes.tree import map_tensors

SOLIDS = 128  # per world: a power of two is what a GPU reduces over


@dataclass(frozen=True)
class Light:
    """L lights; a lamp's irradiance is colour / (1 + (distance / reach)^2), the sun is a lamp far away."""

    position: Tensor  # (B, L, 3) metres
    colour: Tensor  # (B, L, 3)
    reach_m: Tensor  # (B, L)
    ambient_up: Tensor  # (B, 3) on surfaces that look up
    ambient_down: Tensor  # (B, 3)


@dataclass(frozen=True)
class Sky:
    """What rays see that meet nothing."""

    zenith: Tensor  # (B, 3) linear RGB
    horizon: Tensor  # (B, 3)
    cloud: Tensor  # (B, 3)
    cover: Tensor  # (B,) clouds, 0..1
    cloud_scale: Tensor  # (B,)
    haze_m: Tensor  # (B,) distance over which surfaces fade into the horizon's colour
    is_sky: Tensor  # (B,) bool; false for the studio background of some object worlds
    seed: Tensor  # (B,) int32


@dataclass(frozen=True)
class Stay:
    """Where cameras may be and what is worth looking at."""

    low: Tensor  # (B, 3) metres
    high: Tensor  # (B, 3); heights are above the ground
    slope: Tensor  # (B, 2) of the ground along x and y
    focus: Tensor  # (B, 8, 3) points
    reach_m: Tensor  # (B,) typical distance to what is seen
    is_around: Tensor  # (B,) bool: everything of interest is in the middle


@dataclass(frozen=True)
class Worlds:
    """B worlds of P solids. Each depends on its own seed only."""

    seed: Tensor  # (B,) int64
    kind: Tensor  # (B,) int64 index into `KINDS`
    solids: Solids
    materials: Materials  # (B, P)
    is_object: Tensor  # (B, P) bool
    light: Light
    sky: Sky
    stay: Stay

    def __len__(self) -> int:
        return len(self.seed)


def assemble(seeds: Tensor, kind: int, parts: list[Pieces], light: Light, sky: Sky, stay: Stay) -> Worlds:
    """Packs a world's parts into its padded tensors and dresses them."""
    packed = pack(join(parts), SOLIDS)
    dressed = sample_materials(Draws(seeds, "materials", 8192), packed.families)
    rows = torch.arange(len(seeds), device=seeds.device)[:, None]
    return Worlds(
        seed=seeds, kind=torch.full_like(seeds, kind), solids=solids(packed),
        materials=map_tensors(lambda column: column[rows, packed.surface], dressed),
        is_object=packed.is_object & torch.isfinite(packed.order), light=light, sky=sky, stay=stay,
    )  # fmt: skip


def select(worlds: Worlds, index: Tensor) -> Worlds:
    """The worlds at `index` (K,) int64, in that order."""
    return map_tensors(lambda column: column[index], worlds)


def interleave(groups: list[Worlds], index: list[Tensor]) -> Worlds:
    """Groups of worlds -> one batch in which group g's worlds are at index[g]."""
    joined = map_tensors(lambda *columns: torch.cat(columns), *groups)
    return select(joined, torch.argsort(torch.cat(index)))
