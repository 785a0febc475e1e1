"""From furniture to solids: instances of templates, and the list of parts that a world is packed from."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from da3_core.scenes.materials import FAMILY_ID, USUAL
from da3_core.scenes.parts import SHAPES
from da3_core.scenes.primitives import BOX, COLUMN, CUSHION, CYLINDER, DOME, ELLIPSOID, Solids
from da3_core.scenes.rng import Draws
from da3_core.scenes.templates import template_table
from da3_core.scenes.vec import rotation_x, rotation_z


@dataclass(frozen=True)
class Pieces:
    """M solids per world with the family of material of each; `order` decides who stays when there are too many, absent ones are inf."""

    centre: Tensor  # (B, M, 3)
    rotation: Tensor  # (B, M, 3, 3)
    half: Tensor  # (B, M, 3)
    quadric: Tensor  # (B, M, 3)
    order: Tensor  # (B, M)
    surface: Tensor  # (B, M) int64 index into `families`
    families: Tensor  # (B, F) int64
    is_object: Tensor  # (B, M) bool


@dataclass(frozen=True)
class Instances:
    """S templates placed per world; `position` is the middle of the base, `yaw` turns about z, the back looks along local +y."""

    template: Tensor  # (B, S) int64
    size: Tensor  # (B, S, 3)
    thickness: Tensor  # (B, S)
    position: Tensor  # (B, S, 3)
    yaw: Tensor  # (B, S)
    present: Tensor  # (B, S) bool

    def at(self, position: Tensor, yaw: Tensor, present: Tensor) -> Instances:
        """The same things elsewhere: positions (B, S, 3) metres in the world, yaws (B, S) radians, present (B, S) bool."""
        return replace(self, position=position, yaw=yaw, present=present)

    def top_m(self) -> Tensor:
        """(B, S) height of the surface that things stand on, 0 without one."""
        return template_table(self.template.device).top[self.template] * self.size[..., 2]


def draw_instances(draws: Draws, options: list[int], count: int) -> Instances:
    """Templates and sizes; places are the caller's."""
    table = template_table(draws.device)
    template = draws.choice(options, count)
    grow = draws.uniform(count, 3)
    size = torch.lerp(table.size_low[template], table.size_high[template], grow)
    thickness = torch.lerp(table.thickness_low[template], table.thickness_high[template], draws.uniform(count))
    zero = torch.zeros_like(thickness)
    return Instances(template, size, thickness, torch.zeros_like(size), zero, zero > 0)


def join_instances(groups: list[Instances]) -> Instances:
    """Of the same B worlds: (B, S1 + S2 + ...), in that order."""
    return Instances(**{f.name: torch.cat([getattr(g, f.name) for g in groups], 1) for f in fields(Instances)})


def pieces_from_instances(draws: Draws, instances: Instances, is_object: bool = False, wild: float = 0.25) -> Pieces:
    """Every part of every instance. With probability `wild` an instance's material is of the family "any"."""
    table = template_table(draws.device)
    kind = instances.template
    bounds = table.bounds[kind]  # (B, S, K, 3, 2, 2)
    size, thickness = instances.size[:, :, None, :, None], instances.thickness[:, :, None, None, None]
    low, high = (bounds[..., 0] * size + bounds[..., 1] * thickness).unbind(-1)  # (B, S, K, 3)
    middle = 0.5 * (low + high) - 0.5 * instances.size[:, :, None] * torch.tensor([1.0, 1.0, 0.0], device=draws.device)
    turn = rotation_z(instances.yaw)[:, :, None]
    quadrics, axes = _shape_tables(draws.device)
    permute = axes[table.shape[kind]]  # (B, S, K, 3)
    rotation = turn @ rotation_x(table.tilt[kind])
    count, parts = kind.shape[1], bounds.shape[2]
    present = instances.present[..., None] & draws.chance(table.chance[kind], count, parts)
    order = torch.where(present, draws.uniform(count)[..., None], torch.inf)
    families = torch.where(draws.chance(wild, count, 3), FAMILY_ID["any"], table.family[kind])
    surface = 3 * torch.arange(count, device=draws.device)[:, None] + table.material[kind]
    return Pieces(
        centre=((turn @ middle[..., None])[..., 0] + instances.position[:, :, None]).flatten(1, 2),
        rotation=torch.gather(rotation, -1, permute[..., None, :].expand_as(rotation)).flatten(1, 2),
        half=torch.gather(0.5 * (high - low).abs().clamp_min(2e-3), -1, permute).flatten(1, 2),
        quadric=quadrics[table.shape[kind]].flatten(1, 2), order=order.flatten(1), surface=surface.flatten(1),
        families=families.flatten(1), is_object=torch.full_like(order, is_object, dtype=torch.bool).flatten(1),
    )  # fmt: skip


def boxes(centre: Tensor, half: Tensor, yaw: Tensor, present: Tensor, surface: Tensor, families: Tensor, order: float = -1.0) -> Pieces:
    """Upright boxes (B, M): walls, floors, frames. They stay before furniture."""
    return Pieces(
        centre=centre, rotation=rotation_z(yaw), half=half.clamp_min(1e-3), quadric=half.new_tensor(BOX).expand_as(half),
        order=torch.where(present, order, torch.inf), surface=surface, families=families, is_object=torch.zeros_like(present),
    )  # fmt: skip


def random_solids(draws: Draws, count: int, size_m: tuple[float, float], tumbled: float) -> Pieces:
    """Solids of any shape at the origin, their sizes within a factor of three of each other's; `tumbled` of them arbitrarily oriented."""
    shapes = torch.tensor([BOX, BOX, BOX, CYLINDER, CYLINDER, ELLIPSOID, DOME, CUSHION, COLUMN], device=draws.device)
    half = 0.5 * draws.log_uniform(count, 1, low=size_m[0], high=size_m[1]) * draws.log_uniform(count, 3, low=0.3, high=1.0)
    tilt = draws.uniform(count, low=-math.pi, high=math.pi) * draws.chance(tumbled, count)
    rotation = rotation_z(draws.uniform(count, high=2 * math.pi)) @ rotation_x(tilt)
    index = torch.arange(count, device=draws.device).expand(half.shape[:2])
    families = draws.choice([FAMILY_ID[name] for name in USUAL], count)
    return Pieces(
        torch.zeros_like(half), rotation, half, shapes[draws.integers(len(shapes), count)], draws.uniform(count), index, families, index < 0
    )


def join(parts: list[Pieces]) -> Pieces:
    """Of the same B worlds: (B, M1 + M2 + ...), in that order; surfaces are renumbered to the joined families."""
    offsets = [0]
    for p in parts:
        offsets.append(offsets[-1] + p.families.shape[1])
    columns = {f.name: torch.cat([getattr(p, f.name) for p in parts], 1) for f in fields(Pieces) if f.name != "surface"}
    return Pieces(surface=torch.cat([p.surface + o for p, o in zip(parts, offsets[:-1], strict=True)], 1), **columns)


def pack(pieces: Pieces, count: int) -> Pieces:
    """Exactly `count`: the first by `order`; absent ones far below the world."""
    listed = pieces.order.shape[1]
    kept = torch.argsort(pieces.order, dim=1, stable=True)[:, :count]
    kept = torch.nn.functional.pad(kept, (0, max(count - listed, 0)))
    rows = torch.arange(len(kept), device=kept.device)[:, None]
    columns = {f.name: getattr(pieces, f.name)[rows, kept] for f in fields(Pieces) if f.name != "families"}
    packed = Pieces(families=pieces.families, **columns)
    absent = torch.isinf(packed.order) | (torch.arange(count, device=kept.device) >= listed)
    nowhere = packed.centre.new_tensor([0.0, 0.0, -1e4])
    return replace(
        packed, centre=torch.where(absent[..., None], nowhere, packed.centre), half=torch.where(absent[..., None], 1e-2, packed.half),
        order=torch.where(absent, torch.inf, packed.order),
    )  # fmt: skip


def solids(pieces: Pieces) -> Solids:
    """Their shapes (B, M), without looks and order."""
    return Solids(pieces.centre, pieces.rotation, pieces.half, pieces.quadric)


def _shape_tables(device: torch.device) -> tuple[Tensor, Tensor]:
    quadrics, axes = zip(*SHAPES.values(), strict=True)
    return torch.tensor(quadrics, device=device), torch.tensor(axes, device=device)
