"""What surfaces look like: families of materials as ranges, sampled per world.

The ranges are wide on purpose: looks must not give sizes away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from da3_core.scenes.rng import Draws
from da3_core.scenes.vec import Vec, vec

Range = tuple[float, float]


@dataclass(frozen=True)
class Family:
    """Closed ranges of one family's parameters; colours as hue, saturation, value in display space."""

    hue: Range = (0.0, 1.0)
    saturation: Range = (0.0, 0.7)
    value: Range = (0.1, 0.95)
    variation: Range = (0.05, 0.6)  # how far the noise's other colour departs
    accent: Range = (0.2, 1.0)  # how far the pattern's colours depart
    noise_per_m: Range = (0.7, 14.0)
    stretch: Range = (0.7, 1.4)  # of the noise along one axis
    roughness: Range = (0.45, 0.75)  # amplitude ratio of successive octaves; 0.5 is 1/f
    contrast: Range = (0.1, 1.0)
    turned: Range = (0.0, 0.2)  # probability of an arbitrary direction
    patterned: Range = (0.5, 0.5)  # probability of any pattern
    cell_m: Range = (0.08, 0.8)
    aspect: Range = (0.25, 4.0)
    stagger: Range = (0.0, 0.5)
    joint_m: Range = (0.001, 0.012)
    jointed: Range = (0.4, 0.4)  # probability
    tint: Range = (0.0, 0.6)
    checkered: Range = (0.1, 0.1)  # probability
    inset: Range = (0.3, 0.95)  # size of rectangles within cells
    inset_chance: Range = (0.0, 0.8)
    marks: Range = (4.0, 24.0)  # glyph cells across an inset
    marked: Range = (0.15, 0.15)  # probability of glyphs
    specular: Range = (0.0, 0.3)
    gloss: Range = (8.0, 120.0)
    emission: Range = (0.0, 0.0)


ANY = Family()
PLAIN = Family(saturation=(0.0, 0.5), value=(0.25, 0.97), variation=(0.02, 0.3), contrast=(0.05, 0.6), patterned=(0.12, 0.12))
WALL = Family(
    saturation=(0.0, 0.5), value=(0.35, 0.97), variation=(0.05, 0.4), contrast=(0.15, 0.9), noise_per_m=(0.3, 6.0), turned=(0.0, 0.0),
    patterned=(0.4, 0.4), cell_m=(0.1, 1.2), specular=(0.0, 0.1), inset_chance=(0.0, 0.5), marked=(0.1, 0.1),
)  # fmt: skip
FLOOR = Family(
    saturation=(0.0, 0.6), value=(0.12, 0.85), contrast=(0.2, 1.0), patterned=(0.75, 0.75), cell_m=(0.08, 1.0), jointed=(0.85, 0.85),
    checkered=(0.2, 0.2), inset_chance=(0.0, 0.25), marked=(0.0, 0.0), specular=(0.0, 0.5),
)  # fmt: skip
WOOD = Family(
    hue=(0.03, 0.12), saturation=(0.25, 0.75), value=(0.2, 0.85), variation=(0.15, 0.6), noise_per_m=(2.0, 12.0), stretch=(6.0, 20.0),
    contrast=(0.3, 1.2), turned=(0.0, 0.0), patterned=(0.25, 0.25), cell_m=(0.08, 0.4), aspect=(3.0, 10.0), jointed=(0.8, 0.8),
    inset_chance=(0.0, 0.1), marked=(0.0, 0.0), specular=(0.0, 0.4),
)  # fmt: skip
METAL = Family(
    saturation=(0.0, 0.25), value=(0.15, 0.9), noise_per_m=(3.0, 20.0), stretch=(1.0, 20.0), contrast=(0.05, 0.6), patterned=(0.1, 0.1),
    specular=(0.3, 1.0), gloss=(20.0, 300.0),
)  # fmt: skip
FABRIC = Family(
    saturation=(0.1, 0.9), value=(0.1, 0.9), noise_per_m=(3.0, 25.0), contrast=(0.2, 1.0), patterned=(0.4, 0.4), cell_m=(0.02, 0.3),
    aspect=(0.1, 10.0), checkered=(0.3, 0.3), specular=(0.0, 0.05),
)  # fmt: skip
PAINTED = Family(
    saturation=(0.3, 1.0), value=(0.2, 0.95), variation=(0.02, 0.25), contrast=(0.05, 0.5), patterned=(0.2, 0.2), specular=(0.1, 0.8),
)  # fmt: skip
POSTER = Family(
    saturation=(0.2, 1.0), variation=(0.4, 1.0), contrast=(0.4, 1.6), noise_per_m=(1.5, 8.0), patterned=(0.8, 0.8), cell_m=(0.08, 0.6),
    accent=(0.5, 1.0), tint=(0.3, 1.0), inset_chance=(0.3, 1.0), marked=(0.5, 0.5),
)  # fmt: skip
BOOKS = Family(
    saturation=(0.2, 0.9), patterned=(1.0, 1.0), cell_m=(0.02, 0.05), aspect=(8.0, 14.0), turned=(0.0, 0.0), stagger=(0.0, 0.0),
    jointed=(1.0, 1.0), joint_m=(0.001, 0.003), tint=(0.7, 1.0), inset=(0.4, 0.8), inset_chance=(0.3, 0.7), marks=(2.0, 6.0),
    marked=(0.5, 0.5), checkered=(0.0, 0.0), accent=(0.6, 1.0),
)  # fmt: skip
MASONRY = Family(
    saturation=(0.05, 0.65), value=(0.25, 0.85), contrast=(0.2, 1.0), turned=(0.0, 0.0), patterned=(0.85, 0.85), cell_m=(0.2, 0.6),
    aspect=(0.25, 0.6), stagger=(0.3, 0.5), jointed=(1.0, 1.0), joint_m=(0.004, 0.02), tint=(0.1, 0.7), checkered=(0.0, 0.0),
    inset_chance=(0.0, 0.0), specular=(0.0, 0.05),
)  # fmt: skip
FACADE = Family(
    saturation=(0.0, 0.6), value=(0.25, 0.92), variation=(0.05, 0.4), contrast=(0.15, 0.9), noise_per_m=(0.15, 2.0), turned=(0.0, 0.0),
    patterned=(0.95, 0.95), cell_m=(1.4, 4.0), aspect=(0.7, 2.2), stagger=(0.0, 0.0), joint_m=(0.01, 0.08), jointed=(0.3, 0.3),
    tint=(0.0, 0.2), checkered=(0.0, 0.0), inset=(0.3, 0.75), inset_chance=(0.8, 1.0), marks=(2.0, 4.0), marked=(0.4, 0.4),
    accent=(0.6, 1.0),
)  # fmt: skip
FOLIAGE = Family(
    hue=(0.15, 0.4), saturation=(0.3, 0.9), value=(0.12, 0.65), variation=(0.2, 0.7), contrast=(0.8, 2.0), noise_per_m=(1.5, 10.0),
    roughness=(0.6, 0.85), patterned=(0.0, 0.0), specular=(0.0, 0.1),
)  # fmt: skip
GROUND = Family(
    hue=(0.05, 0.4), saturation=(0.05, 0.6), value=(0.15, 0.7), variation=(0.1, 0.6), contrast=(0.3, 1.6), noise_per_m=(0.15, 4.0),
    roughness=(0.55, 0.85), patterned=(0.3, 0.3), cell_m=(0.2, 3.0), jointed=(0.8, 0.8), inset_chance=(0.0, 0.1), marked=(0.0, 0.0),
    specular=(0.0, 0.1),
)  # fmt: skip
DARK = Family(
    saturation=(0.0, 0.3), value=(0.02, 0.2), variation=(0.02, 0.3), patterned=(0.1, 0.1), specular=(0.1, 0.9), gloss=(30.0, 300.0),
)  # fmt: skip
LIT = Family(saturation=(0.0, 0.3), value=(0.7, 1.0), variation=(0.02, 0.1), contrast=(0.0, 0.3), patterned=(0.1, 0.1), emission=(0.3, 3.0))
WILD = Family(
    saturation=(0.0, 1.0), value=(0.02, 1.0), variation=(0.2, 1.0), accent=(0.6, 1.0), noise_per_m=(0.2, 40.0), stretch=(0.2, 20.0),
    roughness=(0.3, 0.95), contrast=(0.0, 3.0), turned=(0.3, 0.3), patterned=(0.75, 0.75), cell_m=(0.05, 2.0), aspect=(0.02, 50.0),
    stagger=(0.0, 1.0), joint_m=(0.001, 0.1), tint=(0.0, 1.0), checkered=(0.4, 0.4), inset=(0.1, 0.95), inset_chance=(0.0, 1.0),
    marks=(2.0, 40.0), marked=(0.25, 0.25), specular=(0.0, 0.6),
)  # fmt: skip
LOUD = Family(
    saturation=(0.0, 1.0), value=(0.02, 1.0), variation=(0.0, 0.3), accent=(1.0, 1.0), contrast=(0.0, 0.3), patterned=(1.0, 1.0),
    cell_m=(0.06, 1.0), aspect=(0.02, 50.0), stagger=(0.0, 0.0), tint=(0.0, 1.0), checkered=(0.8, 0.8), inset_chance=(0.0, 0.3),
    specular=(0.0, 0.3),
)  # fmt: skip
FLAT = Family(saturation=(0.0, 1.0), value=(0.03, 1.0), variation=(0.0, 0.02), contrast=(0.0, 0.02), patterned=(0.0, 0.0))

USUAL: dict[str, Family] = {
    "any": ANY, "plain": PLAIN, "wall": WALL, "floor": FLOOR, "wood": WOOD, "metal": METAL, "fabric": FABRIC, "painted": PAINTED,
    "poster": POSTER, "books": BOOKS, "masonry": MASONRY, "facade": FACADE, "foliage": FOLIAGE, "ground": GROUND, "dark": DARK, "lit": LIT,
}  # fmt: skip
FAMILIES = USUAL | {"wild": WILD, "loud": LOUD, "flat": FLAT}  # these are of abstract rooms alone
FAMILY_ID = {name: i for i, name in enumerate(FAMILIES)}
LOGARITHMIC = ("noise_per_m", "stretch", "cell_m", "aspect", "joint_m", "marks", "gloss")


@dataclass(frozen=True)
class Materials:
    """One tensor per parameter, all of one shape; what `textures.albedo` reads. Colours are linear RGB."""

    base: Vec  # between this and `vein` the noise moves
    vein: Vec
    accent: Vec  # cells are tinted towards it
    mark: Vec  # insets, glyphs and joints
    noise_per_m: Tensor
    stretch: Tensor
    roughness: Tensor
    contrast: Tensor
    angle: Tensor
    cell_u_m: Tensor
    cell_v_m: Tensor
    stagger: Tensor
    joint_m: Tensor
    tint: Tensor
    checker: Tensor
    inset_u: Tensor
    inset_v: Tensor
    inset_chance: Tensor
    marks: Tensor  # glyph cells across an inset, 0 for none
    specular: Tensor
    gloss: Tensor
    emission: Tensor
    seed: Tensor  # int32


def sample_materials(draws: Draws, family: Tensor) -> Materials:
    """family (B, M) int64 of `FAMILY_ID` -> materials (B, M)."""
    shape = family.shape[1:]
    low, high = _range_table(family.device)
    names = [f.name for f in fields(Family)]
    u = draws.uniform(*shape, len(names))
    u = torch.where(_table_mask(names, ("saturation",), u.device), u * u, u)  # strong colours are rare
    values = low[family] + u * (high[family] - low[family])  # (B, M, F)
    v = {name: values[..., i].exp() if name in LOGARITHMIC else values[..., i] for i, name in enumerate(names)}
    coin = draws.uniform(*shape, 8)
    patterned = coin[..., 0] < v["patterned"]
    marked = patterned & (coin[..., 1] < v["marked"])
    base = hsv_to_rgb(v["hue"], v["saturation"], v["value"])
    hue, saturation, value = draws.uniform(*shape, 3, 3).unbind(-1)
    others = hsv_to_rgb(hue, saturation * saturation, value)  # (B, M, 3 colours, 3)
    turn = torch.where(coin[..., 2] < v["turned"], coin[..., 3] * math.pi, (coin[..., 3] < 0.5) * (math.pi / 2) * (v["turned"] > 0))
    size = torch.sqrt(v["aspect"])
    inset = v["inset"][..., None] + (1 - v["inset"][..., None]) * 0.5 * coin[..., 4:6]
    return Materials(
        base=_linear(base), vein=_linear(base.lerp(others[..., 0, :], v["variation"][..., None])),
        accent=_linear(base.lerp(others[..., 1, :], v["accent"][..., None])),
        mark=_linear(base.lerp(others[..., 2, :], v["accent"][..., None])),
        noise_per_m=v["noise_per_m"], stretch=v["stretch"], roughness=v["roughness"], contrast=v["contrast"], angle=turn,
        cell_u_m=v["cell_m"] / size, cell_v_m=v["cell_m"] * size, stagger=v["stagger"],
        joint_m=v["joint_m"] * (patterned & (coin[..., 6] < v["jointed"])), tint=v["tint"] * patterned,
        checker=(patterned & (coin[..., 7] < v["checkered"])).float(), inset_u=inset[..., 0], inset_v=inset[..., 1],
        inset_chance=v["inset_chance"] * patterned, marks=v["marks"].round() * marked,
        specular=v["specular"], gloss=v["gloss"], emission=v["emission"], seed=draws.integers(1 << 24, *shape).int(),
    )  # fmt: skip


def hsv_to_rgb(h: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """(...,) each in [0, 1] -> (..., 3)"""
    k = (h[..., None] * 6 + torch.tensor([5.0, 3.0, 1.0], device=h.device)) % 6
    return v[..., None] * (1 - s[..., None] * torch.minimum(k, 4 - k).clamp(0, 1))


def _linear(display: Tensor) -> Vec:
    return vec(0.02 + 0.9 * display**2.2)


def _table_mask(names: list[str], chosen: tuple[str, ...], device: torch.device) -> Tensor:
    return torch.tensor([name in chosen for name in names], device=device)


def _range_table(device: torch.device) -> tuple[Tensor, Tensor]:
    names = [f.name for f in fields(Family)]
    rows = [[getattr(family, n) for n in names] for family in FAMILIES.values()]
    logs = [[(math.log(a), math.log(b)) if n in LOGARITHMIC else (a, b) for n, (a, b) in zip(names, row, strict=True)] for row in rows]
    table = torch.tensor(logs, device=device)  # (families, F, 2)
    return table[..., 0], table[..., 1]
