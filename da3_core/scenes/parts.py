"""The language that furniture is written in: parts of templates, in metres.

A part's bounds along an axis are complex numbers a + b*t with t = 1j: a is a fraction of the template's size along that axis, b a multiple
of its thickness. x runs along the width, y from the front to the back, z up from the floor.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """One solid of a template: a name of `SHAPES` that fills the box of its bounds, `tilt_deg` turned about x through the box's middle."""

    shape: str
    x: Bound
    y: Bound
    z: Bound
    material: int = 0  # 0, 1 or 2 of the template's
    chance: float = 1.0
    tilt_deg: float = 0.0  # about x


@dataclass(frozen=True)
class Template:
    """A thing's parts and the ranges that its size and thickness are drawn from, metres; `families` are of its three materials."""

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
