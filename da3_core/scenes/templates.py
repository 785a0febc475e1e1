"""Furniture, street furniture and small things as tables of parts, in metres: one template is drawn for many worlds at once.

A part's bounds along an axis are complex numbers a + b*t with t = 1j: a is a fraction of the template's size along that axis, b a multiple
of its thickness. x runs along the width, y from the front to the back, z up from the floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from da3_core.scenes.materials import FAMILY_ID
from da3_core.scenes.primitives import BOX, COLUMN, CUSHION, CYLINDER, DOME, ELLIPSOID

t = 1j
Bound = tuple[complex, complex]
Range = tuple[float, float]

# name: quadric, and which axes of the part are the solid's x, y, z
SHAPES: dict[str, tuple[tuple[float, float, float], tuple[int, int, int]]] = {
    "box": (BOX, (0, 1, 2)),
    "cylinder": (CYLINDER, (0, 1, 2)),
    "rod_x": (CYLINDER, (1, 2, 0)),
    "rod_y": (CYLINDER, (2, 0, 1)),
    "ellipsoid": (ELLIPSOID, (0, 1, 2)),
    "dome": (DOME, (0, 1, 2)),
    "cushion": (CUSHION, (0, 1, 2)),
    "column": (COLUMN, (0, 1, 2)),
}
SHAPE_ID = {name: i for i, name in enumerate(SHAPES)}


@dataclass(frozen=True)
class Part:
    shape: str
    x: Bound
    y: Bound
    z: Bound
    material: int = 0  # 0, 1 or 2 of the template's
    chance: float = 1.0
    tilt_deg: float = 0.0  # about x


@dataclass(frozen=True)
class Template:
    size: tuple[Range, Range, Range]  # width, depth, height in metres
    thickness: Range
    families: tuple[str, str, str]
    parts: tuple[Part, ...]
    top: float = 0.0  # height of a surface that things stand on, as a fraction of the height; 0 for none


def legs(x: Bound = (0, 1), y: Bound = (0, 1), z: Bound = (0, 1), thick: float = 1.0, shape: str = "box", material: int = 0) -> list[Part]:
    """Four of them, at the corners of a rectangle."""
    w = thick * t
    return [Part(shape, a, b, z, material) for a in ((x[0], x[0] + w), (x[1] - w, x[1])) for b in ((y[0], y[0] + w), (y[1] - w, y[1]))]


def stack(count: int, z: tuple[float, float], gap: float, x: Bound, y: Bound, material: int = 1, chance: float = 1.0) -> list[Part]:
    """Boxes above each other with gaps between: drawers, doors, slats."""
    step = (z[1] - z[0]) / count
    return [Part("box", x, y, (z[0] + i * step + gap / 2, z[0] + (i + 1) * step - gap / 2), material, chance) for i in range(count)]


ALL: Bound = (0, 1)

TEMPLATES: dict[str, Template] = {
    "table": Template(
        ((0.8, 2.2), (0.6, 1.1), (0.68, 0.8)), (0.02, 0.045), ("wood", "wood", "metal"),
        (Part("box", ALL, ALL, (1 - t, 1)), *legs((0.5 * t, 1 - 0.5 * t), (0.5 * t, 1 - 0.5 * t), (0, 1 - t), 2.0, material=1)), top=1.0),
    "round_table": Template(
        ((0.6, 1.4), (0.6, 1.4), (0.5, 0.78)), (0.02, 0.04), ("wood", "metal", "wood"),
        (Part("cylinder", ALL, ALL, (1 - t, 1)), Part("cylinder", (0.5 - 2 * t, 0.5 + 2 * t), (0.5 - 2 * t, 0.5 + 2 * t), (0, 1 - t), 1),
         Part("cylinder", (0.2, 0.8), (0.2, 0.8), (0, t), 1)), top=1.0),
    "coffee_table": Template(
        ((0.6, 1.3), (0.45, 0.8), (0.35, 0.5)), (0.02, 0.05), ("wood", "metal", "any"),
        (Part("box", ALL, ALL, (1 - t, 1)), *legs(z=(0, 1 - t), thick=1.2, material=1), Part("box", (t, 1 - t), (t, 1 - t), (0.25, 0.25 + t), 0, 0.5)),
        top=1.0),
    "desk": Template(
        ((1.0, 1.9), (0.55, 0.85), (0.7, 0.78)), (0.018, 0.035), ("wood", "plain", "dark"),
        (Part("box", ALL, ALL, (1 - t, 1)), Part("box", (0, t), ALL, (0, 1 - t)), Part("box", (0.68, 1), (0.02, 1), (0.06, 1 - t), 1),
         Part("box", ALL, (1 - t, 1), (0.35, 1 - t), 0, 0.7), *stack(3, (0.08, 0.94), 0.01, (0.69, 0.99), (0.0, 0.03)),
         Part("box", (0.25, 0.65), (0.75, 0.75 + t), (1.1, 1.75), 2, 0.7), Part("box", (0.42, 0.48), (0.78, 0.85), (1, 1.3), 2, 0.7)), top=1.0),
    "chair": Template(
        ((0.38, 0.5), (0.4, 0.52), (0.78, 1.05)), (0.025, 0.04), ("wood", "fabric", "wood"),
        (Part("box", ALL, ALL, (0.48, 0.48 + t), 1), Part("box", ALL, (1 - t, 1), (0.62, 1), 1, 1.0, -6.0), *legs(z=(0, 0.48)),
         Part("box", (0, t), (1 - t, 1), (0.48, 1)), Part("box", (1 - t, 1), (1 - t, 1), (0.48, 1)))),
    "office_chair": Template(
        ((0.45, 0.6), (0.45, 0.6), (0.85, 1.2)), (0.025, 0.035), ("dark", "fabric", "metal"),
        (Part("cushion", ALL, ALL, (0.4, 0.52), 1), Part("cushion", (0.08, 0.92), (0.85, 1), (0.52, 1), 1, 1.0, -8.0),
         Part("cylinder", (0.5 - t, 0.5 + t), (0.5 - t, 0.5 + t), (0.05, 0.4), 2), Part("box", (0, 1), (0.5 - t, 0.5 + t), (0.03, 0.08)),
         Part("box", (0.5 - t, 0.5 + t), (0, 1), (0.03, 0.08)), Part("box", (-t, t), (0.2, 0.8), (0.6, 0.64), 0, 0.6),
         Part("box", (1 - t, 1 + t), (0.2, 0.8), (0.6, 0.64), 0, 0.6))),
    "stool": Template(
        ((0.3, 0.45), (0.3, 0.45), (0.4, 0.8)), (0.025, 0.04), ("wood", "fabric", "metal"),
        (Part("cylinder", ALL, ALL, (1 - 1.5 * t, 1), 1), *legs((0.12, 0.88), (0.12, 0.88), (0, 1 - 1.5 * t), shape="cylinder"))),
    "sofa": Template(
        ((1.3, 2.6), (0.75, 1.0), (0.7, 0.95)), (0.12, 0.2), ("fabric", "fabric", "any"),
        (Part("box", ALL, ALL, (0.08, 0.42)), Part("box", ALL, (1 - t, 1), (0.1, 1), 0, 1.0, -4.0), Part("box", (0, t), ALL, (0.05, 0.72)),
         Part("box", (1 - t, 1), ALL, (0.05, 0.72)), Part("cushion", (t, 0.5), (0, 1 - t), (0.4, 0.58), 1),
         Part("cushion", (0.5, 1 - t), (0, 1 - t), (0.4, 0.58), 1), Part("cushion", (0.15, 0.4), (0.5, 0.75), (0.55, 1.0), 2, 0.5, -20.0),
         Part("cushion", (0.65, 0.85), (0.5, 0.75), (0.55, 1.0), 2, 0.4, -20.0))),
    "armchair": Template(
        ((0.7, 1.0), (0.7, 0.95), (0.75, 1.05)), (0.1, 0.16), ("fabric", "fabric", "wood"),
        (Part("box", ALL, ALL, (0.12, 0.42)), Part("cushion", ALL, (1 - t, 1), (0.12, 1), 0, 1.0, -10.0), Part("box", (0, t), ALL, (0.12, 0.66)),
         Part("box", (1 - t, 1), ALL, (0.12, 0.66)), Part("cushion", (t, 1 - t), (0, 1 - t), (0.4, 0.56), 1), *legs(z=(0, 0.14), thick=0.3, material=2))),
    "bed": Template(
        ((0.9, 1.9), (1.9, 2.15), (0.8, 1.2)), (0.04, 0.08), ("wood", "fabric", "fabric"),
        (Part("box", ALL, ALL, (0.15, 0.3)), Part("box", ALL, (1 - t, 1), (0, 1)), Part("box", (t, 1 - t), (0, 1 - t), (0.28, 0.5), 1),
         Part("cushion", (0.1, 0.45), (0.76, 0.96), (0.48, 0.64), 2), Part("cushion", (0.55, 0.9), (0.76, 0.96), (0.48, 0.64), 2),
         Part("box", (0, 1), (0, 0.65), (0.44, 0.53), 2), *legs(z=(0, 0.16)))),
    "wardrobe": Template(
        ((0.8, 2.4), (0.45, 0.65), (1.7, 2.3)), (0.015, 0.03), ("wood", "plain", "metal"),
        (Part("box", ALL, (t, 1), ALL), Part("box", (t, 0.5 - 0.2 * t), (0, t), (0.04, 0.98), 1), Part("box", (0.5 + 0.2 * t, 1 - t), (0, t), (0.04, 0.98), 1),
         Part("cylinder", (0.45, 0.45 + t), (-t, 0), (0.4, 0.52), 2), Part("cylinder", (0.55 - t, 0.55), (-t, 0), (0.4, 0.52), 2))),
    "bookshelf": Template(
        ((0.6, 1.4), (0.22, 0.4), (1.2, 2.2)), (0.015, 0.03), ("wood", "books", "any"),
        (Part("box", (0, t), ALL, ALL), Part("box", (1 - t, 1), ALL, ALL), Part("box", ALL, (1 - 0.5 * t, 1), ALL),
         *(Part("box", (t, 1 - t), ALL, (z, z + t)) for z in (0.03, 0.27, 0.51, 0.75, 0.985)),
         Part("box", (t, 0.7), (0.2, 1 - t), (0.27 + t, 0.45), 1, 0.8), Part("box", (0.3, 1 - t), (0.25, 1 - t), (0.51 + t, 0.69), 1, 0.8),
         Part("box", (t, 0.9), (0.15, 1 - t), (0.75 + t, 0.94), 1, 0.8), Part("cylinder", (0.2, 0.4), (0.3, 0.9), (0.03 + t, 0.2), 2, 0.5)), top=1.0),
    "low_cabinet": Template(
        ((0.7, 1.8), (0.35, 0.55), (0.4, 0.95)), (0.015, 0.03), ("wood", "plain", "metal"),
        (Part("box", ALL, (t, 1), (0.05, 1)), Part("box", (-t, 1 + t), (-t, 1), (1 - t, 1)), *stack(3, (0.06, 0.95), 0.015, (0.01, 0.49), (0.0, 0.06)),
         *stack(2, (0.06, 0.95), 0.015, (0.51, 0.99), (0.0, 0.06))), top=1.0),
    "tv_bench": Template(
        ((1.0, 2.0), (0.35, 0.5), (0.95, 1.5)), (0.02, 0.04), ("wood", "dark", "poster"),
        (Part("box", ALL, ALL, (0.04, 0.36)), Part("box", (0.12, 0.88), (0.5, 0.5 + t), (0.42, 1), 1), Part("box", (0.14, 0.86), (0.48, 0.5), (0.44, 0.98), 2),
         Part("box", (0.4, 0.6), (0.4, 0.7), (0.36, 0.38), 1), Part("box", (0.46, 0.54), (0.5, 0.56), (0.36, 0.5), 1))),
    "floor_lamp": Template(
        ((0.28, 0.5), (0.28, 0.5), (1.2, 1.85)), (0.012, 0.02), ("metal", "lit", "dark"),
        (Part("cylinder", (0.1, 0.9), (0.1, 0.9), (0, t)), Part("cylinder", (0.5 - t / 2, 0.5 + t / 2), (0.5 - t / 2, 0.5 + t / 2), (0, 0.85)),
         Part("dome", ALL, ALL, (0.8, 1), 1))),
    "plant": Template(
        ((0.3, 0.8), (0.3, 0.8), (0.5, 1.8)), (0.02, 0.04), ("any", "foliage", "wood"),
        (Part("column", (0.3, 0.7), (0.3, 0.7), (0, 0.25)), Part("cylinder", (0.5 - t / 2, 0.5 + t / 2), (0.5 - t / 2, 0.5 + t / 2), (0.2, 0.7), 2),
         Part("ellipsoid", (0.1, 0.8), (0.15, 0.9), (0.55, 1), 1), Part("ellipsoid", (0.3, 1.0), (0, 0.6), (0.4, 0.75), 1),
         Part("ellipsoid", (0, 0.55), (0.4, 1), (0.35, 0.7), 1, 0.8))),
    "box_pile": Template(
        ((0.4, 0.9), (0.3, 0.7), (0.5, 1.4)), (0.02, 0.05), ("any", "any", "any"),
        (Part("box", (0, 0.95), ALL, (0, 0.4)), Part("box", (0.1, 1), (0.1, 0.9), (0.4, 0.75), 1), Part("box", (0.25, 0.8), (0.2, 0.8), (0.75, 1), 2, 0.6))),
    "bin": Template(((0.2, 0.45), (0.2, 0.45), (0.28, 0.7)), (0.01, 0.02), ("any", "metal", "dark"),
                    (Part("cylinder", ALL, ALL, (0, 0.93)), Part("cylinder", (-t, 1 + t), (-t, 1 + t), (0.93, 1), 1))),
    "pillar": Template(((0.2, 0.6), (0.2, 0.6), (2.2, 5.0)), (0.04, 0.1), ("masonry", "wall", "any"),
                       (Part("column", ALL, ALL, ALL), Part("box", (-t, 1 + t), (-t, 1 + t), (0, 0.06), 1, 0.6))),
    "stairs": Template(
        ((0.8, 1.5), (1.4, 2.4), (0.9, 1.3)), (0.03, 0.05), ("floor", "wood", "metal"),
        (*(Part("box", ALL, (i / 6, 1), (i / 6, (i + 1) / 6)) for i in range(6)), Part("cylinder", (0, t), (0, t), (0.1, 1.0), 2),
         Part("cylinder", (0, t), (1 - t, 1), (0.9, 1.8), 2), Part("rod_y", (0, t), (-0.15, 1.15), (1.35, 1.35 + t), 2, 1.0, 38.0))),
    "counter": Template(
        ((1.2, 3.2), (0.58, 0.68), (1.9, 2.3)), (0.025, 0.04), ("plain", "floor", "metal"),
        (Part("box", ALL, (0.05, 1), (0.04, 0.42)), Part("box", ALL, ALL, (0.42, 0.42 + t), 1), Part("box", ALL, (0.5, 1), (0.68, 1), 0, 0.8),
         Part("box", (0.49, 0.5), (0.49, 0.5), (0.68, 1), 2, 0.8), *(Part("box", (i / 4 + 0.01, i / 4 + 0.24), (0.02, 0.05), (0.06, 0.41)) for i in range(4)),
         Part("cylinder", (0.6, 0.6 + t), (0.8, 0.8 + t), (0.43, 0.56), 2), Part("rod_y", (0.6, 0.6 + t), (0.5, 0.85), (0.555, 0.57), 2))),
    "fridge": Template(
        ((0.55, 0.95), (0.55, 0.75), (1.4, 2.0)), (0.02, 0.03), ("plain", "painted", "metal"),
        (Part("box", ALL, (0.08, 1), ALL), Part("box", ALL, (0, 0.07), (0.02, 0.35), 1), Part("box", ALL, (0, 0.07), (0.36, 1), 1),
         Part("cylinder", (0.1, 0.1 + t), (-t, 0), (0.4, 0.65), 2), Part("cylinder", (0.1, 0.1 + t), (-t, 0), (0.2, 0.33), 2))),
    "rack": Template(
        ((0.8, 1.6), (0.4, 0.55), (1.3, 2.0)), (0.02, 0.035), ("metal", "fabric", "fabric"),
        (*legs(shape="cylinder"), Part("rod_x", ALL, (0.5 - t / 2, 0.5 + t / 2), (0.97, 0.99)), Part("box", (0.15, 0.3), (0.2, 0.8), (0.35, 0.95), 1, 0.7),
         Part("box", (0.35, 0.42), (0.15, 0.85), (0.3, 0.95), 2, 0.7), Part("box", (0.5, 0.75), (0.2, 0.8), (0.4, 0.95), 1, 0.7), Part("box", ALL, ALL, (0.1, 0.1 + t), 0, 0.6))),
    "ladder": Template(
        ((0.4, 0.5), (0.5, 0.9), (1.3, 2.2)), (0.02, 0.035), ("metal", "wood", "any"),
        (Part("box", (0, t), (0.45, 0.45 + 2 * t), ALL, 0, 1.0, 14.0), Part("box", (1 - t, 1), (0.45, 0.45 + 2 * t), ALL, 0, 1.0, 14.0),
         *(Part("box", (t, 1 - t), (0.75 - 0.6 * z, 0.75 - 0.6 * z + 3 * t), (z, z + t), 1) for z in (0.2, 0.4, 0.6, 0.8)))),
    "person": Template(
        ((0.4, 0.58), (0.25, 0.38), (1.45, 1.95)), (0.06, 0.08), ("fabric", "fabric", "plain"),
        (Part("column", (0.12, 0.48), (0.2, 0.8), (0, 0.5), 1), Part("column", (0.52, 0.88), (0.2, 0.8), (0, 0.5), 1), Part("column", (0.1, 0.9), (0.1, 0.9), (0.46, 0.84)),
         Part("ellipsoid", (0.3, 0.7), (0.15, 0.9), (0.86, 1), 2), Part("cylinder", (0.4, 0.6), (0.3, 0.7), (0.82, 0.9), 2),
         Part("column", (-0.08, 0.12), (0.25, 0.75), (0.42, 0.82)), Part("column", (0.88, 1.08), (0.25, 0.75), (0.42, 0.82)))),
    # on walls
    "picture": Template(((0.25, 1.6), (0.02, 0.05), (0.25, 1.2)), (0.01, 0.05), ("wood", "poster", "poster"),
                        (Part("box", ALL, (0.3, 1), ALL), Part("box", (t, 1 - t), (0, 0.5), (t, 1 - t), 1))),
    "mirror": Template(((0.4, 1.0), (0.02, 0.05), (0.6, 1.6)), (0.02, 0.05), ("metal", "plain", "any"),
                       (Part("box", ALL, (0.3, 1), ALL), Part("box", (t, 1 - t), (0, 0.5), (t, 1 - t), 1))),
    "wall_shelf": Template(
        ((0.5, 1.4), (0.18, 0.32), (0.25, 0.45)), (0.018, 0.03), ("wood", "books", "any"),
        (Part("box", ALL, ALL, (0, t)), Part("box", (0.05, 0.5), (0.2, 1), (t, 0.9), 1, 0.8), Part("cylinder", (0.6, 0.75), (0.3, 0.8), (t, 0.6), 2, 0.7),
         Part("box", (0.8, 0.95), (0.2, 0.8), (t, 0.8), 2, 0.6))),
    "radiator": Template(((0.5, 1.6), (0.08, 0.14), (0.4, 0.7)), (0.01, 0.02), ("plain", "metal", "any"),
                         (Part("box", ALL, (0.2, 0.9), ALL), *(Part("box", (i / 5 + 0.02, i / 5 + 0.18), (0, 0.3), (0.04, 0.96)) for i in range(5)))),
    "door": Template(
        ((0.8, 1.05), (0.06, 0.12), (2.0, 2.2)), (0.04, 0.09), ("wood", "wood", "metal"),
        (Part("box", (0, t), ALL, ALL), Part("box", (1 - t, 1), ALL, ALL), Part("box", ALL, ALL, (1 - t, 1)), Part("box", (t, 1 - t), (0.3, 0.9), (0, 1 - t), 1),
         Part("rod_x", (0.15, 0.28), (-0.5, -0.3), (0.47, 0.485), 2))),
    "curtain": Template(((0.8, 2.2), (0.08, 0.16), (1.4, 2.4)), (0.02, 0.03), ("fabric", "metal", "fabric"),
                        (Part("rod_x", ALL, (0.3, 0.7), (0.97, 0.99), 1), Part("column", (0, 0.22), ALL, (0, 0.97)), Part("column", (0.78, 1), ALL, (0, 0.97)))),
    "vent": Template(((0.2, 0.6), (0.1, 0.35), (0.15, 0.5)), (0.01, 0.02), ("metal", "dark", "any"),
                     (Part("box", ALL, (0.2, 1), ALL), *stack(4, (0.08, 0.92), 0.08, (0.05, 0.95), (0, 0.3)))),
    "slant": Template(((2.5, 8.0), (1.2, 2.4), (1.0, 2.0)), (0.06, 0.2), ("plain", "wood", "any"),
                      (Part("box", ALL, (-0.3, 1.3), (0.5, 0.5 + t), 0, 1.0, -40.0), Part("box", (0.3, 0.3 + t), (-0.3, 1.3), (0.5 - t, 0.5), 1, 0.6, -40.0),
                       Part("box", (0.7, 0.7 + t), (-0.3, 1.3), (0.5 - t, 0.5), 1, 0.6, -40.0))),
    "ramp": Template(((0.6, 2.0), (1.0, 3.0), (0.2, 1.0)), (0.02, 0.1), ("wood", "metal", "any"), (Part("box", ALL, ALL, (0.4, 0.4 + t), 0, 1.0, 17.0), Part("box", ALL, (0.8, 0.8 + t), (0, 0.8), 1, 0.6))),
    # from ceilings
    "pendant": Template(((0.2, 0.6), (0.2, 0.6), (0.4, 1.1)), (0.008, 0.014), ("metal", "lit", "any"),
                        (Part("cylinder", (0.5 - t / 2, 0.5 + t / 2), (0.5 - t / 2, 0.5 + t / 2), (0.3, 1)), Part("dome", ALL, ALL, (0, 0.32), 1))),
    "panel": Template(((0.3, 1.3), (0.15, 0.7), (0.03, 0.1)), (0.02, 0.04), ("metal", "lit", "any"),
                      (Part("box", ALL, ALL, (0.3, 1)), Part("box", (t, 1 - t), (t, 1 - t), (0, 0.6), 1))),
    "beam": Template(((1.5, 4.5), (0.1, 0.25), (0.12, 0.3)), (0.02, 0.04), ("wood", "wood", "any"), (Part("box", ALL, ALL, ALL),)),
    "pipe": Template(((1.5, 5.0), (0.05, 0.3), (0.05, 0.3)), (0.02, 0.04), ("metal", "painted", "any"), (Part("rod_x", ALL, ALL, ALL),)),
    # small things
    "cup": Template(((0.07, 0.1), (0.07, 0.1), (0.08, 0.12)), (0.004, 0.008), ("any", "any", "any"),
                    (Part("cylinder", ALL, ALL, ALL), Part("box", (1, 1.35), (0.45, 0.55), (0.25, 0.75)))),
    "bottle": Template(((0.06, 0.1), (0.06, 0.1), (0.2, 0.34)), (0.01, 0.02), ("painted", "poster", "any"),
                       (Part("column", ALL, ALL, (0, 0.65)), Part("dome", ALL, ALL, (0.65, 0.8)), Part("cylinder", (0.35, 0.65), (0.35, 0.65), (0.7, 1)),
                        Part("cylinder", (-0.01, 1.01), (-0.01, 1.01), (0.2, 0.5), 1, 0.7))),
    "book_stack": Template(((0.15, 0.32), (0.12, 0.24), (0.04, 0.2)), (0.005, 0.01), ("painted", "poster", "any"),
                           (Part("box", (0, 0.95), ALL, (0, 0.35), 0), Part("box", (0.06, 1), (0.05, 0.95), (0.35, 0.7), 1), Part("box", (0.1, 0.9), (0.1, 1), (0.7, 1), 2, 0.7))),
    "laptop": Template(((0.28, 0.4), (0.2, 0.28), (0.2, 0.27)), (0.008, 0.014), ("metal", "dark", "poster"),
                       (Part("box", ALL, ALL, (0, t)), Part("box", ALL, (1 - t / 2, 1 + t / 2), (0, 1), 1, 1.0, -15.0), Part("box", (0.05, 0.95), (0.1, 0.6), (t, 1.3 * t), 1))),
    "bowl": Template(((0.12, 0.3), (0.12, 0.3), (0.05, 0.14)), (0.01, 0.02), ("any", "any", "any"), (Part("dome", ALL, ALL, ALL),)),
    "ball": Template(((0.06, 0.4), (0.06, 0.4), (0.06, 0.4)), (0.01, 0.02), ("any", "any", "any"), (Part("ellipsoid", ALL, ALL, ALL),)),
    "carton": Template(((0.1, 0.5), (0.1, 0.4), (0.06, 0.4)), (0.01, 0.02), ("poster", "any", "any"), (Part("box", ALL, ALL, ALL),)),
    "vase": Template(((0.1, 0.25), (0.1, 0.25), (0.2, 0.45)), (0.01, 0.02), ("any", "foliage", "any"),
                     (Part("ellipsoid", ALL, ALL, (0, 0.6)), Part("cylinder", (0.3, 0.7), (0.3, 0.7), (0.45, 0.7)), Part("ellipsoid", (-0.1, 1.1), (-0.1, 1.1), (0.65, 1.1), 1, 0.6))),
    "desk_lamp": Template(((0.15, 0.3), (0.15, 0.3), (0.3, 0.55)), (0.01, 0.016), ("metal", "lit", "any"),
                          (Part("cylinder", (0.2, 0.8), (0.2, 0.8), (0, t)), Part("cylinder", (0.5 - t / 2, 0.5 + t / 2), (0.5 - t / 2, 0.5 + t / 2), (0, 0.7)),
                           Part("dome", ALL, ALL, (0.6, 1), 1))),
    "frame": Template(((0.12, 0.3), (0.02, 0.04), (0.15, 0.35)), (0.01, 0.02), ("wood", "poster", "any"),
                      (Part("box", ALL, ALL, ALL, 0, 1.0, -8.0), Part("box", (t, 1 - t), (-0.2, 0.1), (t, 1 - t), 1, 1.0, -8.0))),
    "rug": Template(((1.0, 3.0), (0.8, 2.2), (0.006, 0.02)), (0.01, 0.02), ("fabric", "poster", "any"), (Part("box", ALL, ALL, ALL), Part("box", (0.06, 0.94), (0.06, 0.94), (0.5, 1.3), 1, 0.6))),
    # outdoors
    "tree": Template(
        ((2.0, 6.5), (2.0, 6.5), (3.0, 13.0)), (0.15, 0.45), ("wood", "foliage", "foliage"),
        (Part("cylinder", (0.5 - t / 2, 0.5 + t / 2), (0.5 - t / 2, 0.5 + t / 2), (0, 0.6)), Part("ellipsoid", (0.12, 0.85), (0.15, 0.9), (0.5, 1), 1),
         Part("ellipsoid", (0.35, 1), (0, 0.6), (0.4, 0.8), 2), Part("ellipsoid", (0, 0.6), (0.35, 1), (0.35, 0.75), 1), Part("ellipsoid", (0, 0.55), (0.05, 0.6), (0.5, 0.85), 2, 0.8))),
    "conifer": Template(
        ((1.5, 4.0), (1.5, 4.0), (3.0, 14.0)), (0.12, 0.3), ("wood", "foliage", "foliage"),
        (Part("cylinder", (0.5 - t / 2, 0.5 + t / 2), (0.5 - t / 2, 0.5 + t / 2), (0, 0.4)), Part("dome", ALL, ALL, (0.15, 0.6), 1),
         Part("dome", (0.14, 0.86), (0.14, 0.86), (0.4, 0.82), 1), Part("dome", (0.28, 0.72), (0.28, 0.72), (0.62, 1), 1))),
    "bush": Template(((0.6, 2.5), (0.6, 2.0), (0.5, 1.6)), (0.1, 0.2), ("foliage", "foliage", "any"),
                     (Part("ellipsoid", (0, 0.7), ALL, (-0.2, 0.9)), Part("ellipsoid", (0.3, 1), (0.1, 0.9), (-0.2, 1), 1))),
    "hedge": Template(((2.0, 9.0), (0.5, 1.2), (0.8, 2.2)), (0.1, 0.2), ("foliage", "foliage", "any"), (Part("box", ALL, ALL, ALL),)),
    "car": Template(
        ((3.6, 4.9), (1.65, 1.95), (1.4, 1.75)), (0.09, 0.12), ("painted", "dark", "metal"),
        (Part("box", ALL, ALL, (0.18, 0.55)), Part("cushion", (0.18, 0.85), (0.06, 0.94), (0.3, 1.0), 1), Part("box", (0.26, 0.76), (0.1, 0.9), (0.9, 0.97)),
         *(Part("rod_y", x, y, (0, 0.42), 1) for x in ((0.1, 0.25), (0.74, 0.89)) for y in ((-0.01, 0.14), (0.86, 1.01))),
         Part("box", (-0.005, 0.01), (0.05, 0.25), (0.38, 0.5), 2), Part("box", (-0.005, 0.01), (0.75, 0.95), (0.38, 0.5), 2))),
    "van": Template(
        ((4.5, 6.5), (1.9, 2.3), (2.1, 3.0)), (0.1, 0.13), ("painted", "dark", "metal"),
        (Part("box", (0.22, 1), ALL, (0.12, 1)), Part("box", (0, 0.22), (0.02, 0.98), (0.12, 0.62)), Part("box", (0.1, 0.23), (0.05, 0.95), (0.55, 0.92), 1, 1.0),
         *(Part("rod_y", x, y, (0, 0.26), 1) for x in ((0.1, 0.24), (0.74, 0.88)) for y in ((-0.01, 0.14), (0.86, 1.01))))),
    "lamppost": Template(((0.8, 2.0), (0.2, 0.3), (3.5, 8.0)), (0.1, 0.18), ("metal", "lit", "any"),
                         (Part("cylinder", (0, t), (0.5 - t / 2, 0.5 + t / 2), (0, 1)), Part("box", ALL, (0.5 - 0.3 * t, 0.5 + 0.3 * t), (0.985, 1)),
                          Part("box", (0.7, 1), (0.1, 0.9), (0.96, 0.985), 1))),
    "sign": Template(((0.5, 1.0), (0.06, 0.1), (2.0, 3.0)), (0.05, 0.07), ("metal", "poster", "any"),
                     (Part("cylinder", (0.5 - t / 2, 0.5 + t / 2), (0, 1), (0, 1)), Part("box", ALL, (-0.3, 0.1), (0.7, 1), 1))),
    "bench": Template(((1.2, 2.0), (0.45, 0.6), (0.75, 0.95)), (0.04, 0.06), ("wood", "metal", "any"),
                      (Part("box", ALL, (0, 0.85), (0.48, 0.48 + t)), Part("box", ALL, (0.9, 0.9 + t), (0.6, 1), 0, 1.0, -8.0), *legs(z=(0, 0.48), material=1))),
    "fence": Template(((2.0, 6.0), (0.06, 0.12), (0.8, 1.8)), (0.05, 0.09), ("wood", "metal", "any"),
                      (Part("box", ALL, (0.3, 0.7), (0.8, 0.88)), Part("box", ALL, (0.3, 0.7), (0.3, 0.38)),
                       *(Part("box", (i / 5 - (i == 5) * t, i / 5 + (i < 5) * t), ALL, ALL) for i in range(6)))),
    "house": Template(
        ((6.0, 14.0), (6.0, 11.0), (4.0, 9.0)), (0.15, 0.3), ("facade", "masonry", "dark"),
        (Part("box", ALL, ALL, (0, 0.72)), Part("box", (-t, 1 + t), (-0.09, 0.55), (0.82, 0.82 + t), 1, 1.0, 28.0), Part("box", (-t, 1 + t), (0.45, 1.09), (0.82, 0.82 + t), 1, 1.0, -28.0),
         Part("box", (0.42, 0.55), (-0.005, 0.02), (0, 0.3), 2), Part("box", (0.7, 0.76), (0.6, 0.7), (0.6, 1.15), 1, 0.6))),
    "block": Template(
        ((8.0, 26.0), (8.0, 16.0), (6.0, 26.0)), (0.2, 0.5), ("facade", "wall", "dark"),
        (Part("box", ALL, ALL, ALL), Part("box", (-t, 1 + t), (-t, 1 + t), (1, 1 + t), 1), Part("box", (0.4, 0.5), (-0.005, 0.02), (0, 0.12), 2),
         Part("box", (0.1, 0.3), (-0.08, 0), (0.4, 0.4 + t), 1, 0.5), Part("box", (0.6, 0.8), (-0.08, 0), (0.4, 0.4 + t), 1, 0.5))),
    "shed": Template(((2.0, 5.0), (2.0, 4.0), (2.0, 3.2)), (0.08, 0.15), ("masonry", "metal", "wood"),
                     (Part("box", ALL, ALL, (0, 0.85)), Part("box", (-t, 1 + t), (-0.1, 1.1), (0.9, 0.9 + t), 1, 1.0, 8.0), Part("box", (0.3, 0.6), (-0.01, 0.02), (0, 0.7), 2))),
    "wall": Template(((3.0, 12.0), (0.2, 0.4), (0.5, 2.6)), (0.05, 0.1), ("masonry", "wall", "any"), (Part("box", ALL, ALL, ALL), Part("box", (-t, 1 + t), (-0.2, 1.2), (1, 1 + t), 1, 0.5))),
    "rock": Template(((0.3, 2.5), (0.3, 2.0), (0.2, 1.5)), (0.1, 0.2), ("ground", "ground", "any"),
                     (Part("ellipsoid", ALL, ALL, (-0.3, 1)), Part("cushion", (0.3, 1.1), (0.2, 1.2), (-0.3, 0.7), 1, 0.6))),
    "bollard": Template(((0.12, 0.25), (0.12, 0.25), (0.6, 1.1)), (0.02, 0.03), ("any", "painted", "any"),
                        (Part("cylinder", ALL, ALL, (0, 0.92)), Part("ellipsoid", ALL, ALL, (0.82, 1), 1), Part("cylinder", (-0.03, 1.03), (-0.03, 1.03), (0.6, 0.75), 1))),
    "container": Template(((1.2, 6.0), (1.0, 2.4), (1.2, 2.6)), (0.04, 0.08), ("painted", "metal", "dark"),
                          (Part("box", ALL, ALL, (0.05, 0.95)), Part("box", (-0.01, 1.01), (-0.01, 1.01), (0.95, 1), 1), Part("box", (-0.01, 1.01), (-0.01, 1.01), (0, 0.06), 1))),
    "shelter": Template(
        ((2.0, 4.5), (1.2, 2.0), (2.2, 2.8)), (0.06, 0.1), ("metal", "poster", "wood"),
        (*legs(shape="cylinder"), Part("box", (-t, 1 + t), (-3 * t, 1 + t), (1, 1 + t)), Part("box", (0, 0.02), (0.1, 1), (0.1, 0.9), 1, 0.8), Part("box", (0.2, 0.8), (0.6, 0.9), (0.18, 0.21), 2))),
}  # fmt: skip
TEMPLATE_ID = {name: i for i, name in enumerate(TEMPLATES)}
PARTS = max(len(template.parts) for template in TEMPLATES.values())


def ids(*names: str) -> list[int]:
    return [TEMPLATE_ID[name] for name in names]


@dataclass(frozen=True)
class TemplateTable:
    """`TEMPLATES` as tensors; T templates of at most K parts, absent ones with chance 0."""

    size_low: Tensor  # (T, 3)
    size_high: Tensor  # (T, 3)
    thickness_low: Tensor  # (T,)
    thickness_high: Tensor  # (T,)
    family: Tensor  # (T, 3) int64
    top: Tensor  # (T,)
    bounds: Tensor  # (T, K, 3 axes, 2 ends, 2: fraction and thicknesses)
    shape: Tensor  # (T, K) int64
    material: Tensor  # (T, K) int64
    chance: Tensor  # (T, K)
    tilt: Tensor  # (T, K) radians


@cache
def template_table(device: torch.device) -> TemplateTable:
    """Built once per device."""
    templates = list(TEMPLATES.values())
    absent = Part("box", (0, 0), (0, 0), (0, 0), chance=0.0)
    parts = [[*template.parts, *[absent] * (PARTS - len(template.parts))] for template in templates]
    bounds = torch.tensor([[[p.x, p.y, p.z] for p in row] for row in parts], dtype=torch.complex64)

    def floats(values: list[list[float]] | list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    return TemplateTable(
        size_low=floats([[low for low, _ in template.size] for template in templates]),
        size_high=floats([[high for _, high in template.size] for template in templates]),
        thickness_low=floats([template.thickness[0] for template in templates]),
        thickness_high=floats([template.thickness[1] for template in templates]),
        family=torch.tensor([[FAMILY_ID[f] for f in template.families] for template in templates], device=device),
        top=floats([template.top for template in templates]),
        bounds=torch.view_as_real(bounds).to(device),
        shape=torch.tensor([[SHAPE_ID[p.shape] for p in row] for row in parts], device=device),
        material=torch.tensor([[p.material for p in row] for row in parts], device=device),
        chance=floats([[p.chance for p in row] for row in parts]),
        tilt=torch.deg2rad(floats([[p.tilt_deg for p in row] for row in parts])),
    )
