"""Furniture as its templates say, part by part, and worlds that have what they promise: slanted planes and thin parts."""

import math

import pytest
import torch
from torch import Tensor

from da3_core.scenes import Worlds, make_worlds
from da3_core.scenes.pieces import Instances, Pieces, pieces_from_instances
from da3_core.scenes.primitives import BOX, CYLINDER
from da3_core.scenes.rng import Draws
from da3_core.scenes.templates import TEMPLATES, ids


def placed(
    name: str, size_m: tuple[float, float, float], thickness_m: float, yaw: float = 0.0, at: tuple[float, ...] = (0, 0, 0)
) -> Pieces:
    """The parts of one template, those that are only there by chance as they come."""
    instances = Instances(
        torch.tensor([ids(name)]), torch.tensor([[size_m]]), torch.tensor([[thickness_m]]), torch.tensor([[at]]).float(),
        torch.tensor([[yaw]]), torch.ones(1, 1, dtype=torch.bool),
    )  # fmt: skip
    return pieces_from_instances(Draws(torch.tensor([0]), "t"), instances)


def corners(pieces: Pieces, count: int) -> tuple[Tensor, Tensor]:
    """(lowest, highest) points (count, 3) of the first parts, in the world."""
    reach = (pieces.rotation[0, :count].abs() @ pieces.half[0, :count, :, None])[..., 0]
    return pieces.centre[0, :count] - reach, pieces.centre[0, :count] + reach


def tilt_deg(rotation: Tensor) -> Tensor:
    """Between a solid's third axis and the vertical."""
    return torch.rad2deg(torch.acos(rotation[..., 2, 2].clamp(-1, 1)))


def test_a_table_is_a_top_on_four_legs() -> None:
    """2 m by 1 m by 0.75 m, its top 4 cm thick and its legs 8 cm, 2 cm from the edge; turned by a quarter, it is 1 m wide."""
    pieces = placed("table", (2.0, 1.0, 0.75), 0.04, yaw=math.pi / 2, at=(3.0, 1.0, 0.5))
    assert torch.isfinite(pieces.order[0]).sum() == 5 and (pieces.quadric[0, :5] == torch.tensor(BOX)).all()
    low, high = corners(pieces, 5)
    expected = [((2.5, 0.0, 1.21), (3.5, 2.0, 1.25))]
    expected += [((x, y, 0.5), (x + 0.08, y + 0.08, 1.21)) for y in (0.02, 1.90) for x in (3.40, 2.52)]
    assert torch.allclose(low, torch.tensor([a for a, _ in expected]), atol=1e-5)
    assert torch.allclose(high, torch.tensor([b for _, b in expected]), atol=1e-5)


def test_a_stools_legs_are_thin_cylinders_down_to_the_floor() -> None:
    pieces = placed("stool", (0.4, 0.4, 0.6), 0.03)
    low, high = corners(pieces, 5)
    assert (pieces.quadric[0, :5] == torch.tensor(CYLINDER)).all()
    assert torch.allclose((high - low)[1:], torch.tensor([0.03, 0.03, 0.6 - 0.045]), atol=1e-5) and (low[1:, 2] == 0).all()


def test_rods_lie_along_the_width_or_the_depth() -> None:
    rod = 4  # of a rack, after its four posts
    rack = placed("rack", (1.0, 0.5, 1.5), 0.02)
    low, high = corners(rack, rod + 1)
    assert torch.allclose(rack.rotation[0, rod, :, 2], torch.tensor([1.0, 0.0, 0.0]))
    assert torch.allclose((high - low)[rod], torch.tensor([1.0, 0.02, 0.03]), atol=1e-5)
    wheels = [i for i, part in enumerate(TEMPLATES["car"].parts) if part.shape == "rod_y"]
    low, high = corners(placed("car", (4.0, 2.0, 1.5), 0.1), max(wheels) + 1)
    assert len(wheels) == 4 and torch.allclose((high - low)[wheels], torch.tensor([0.6, 0.3, 0.63]), atol=1e-5)


@pytest.mark.parametrize(("name", "degrees"), [("slant", 40.0), ("ramp", 17.0), ("house", 28.0)])
def test_slanted_boards_slope_across_the_width(name: str, degrees: float) -> None:
    is_board = torch.tensor([abs(part.tilt_deg) == degrees and part.chance == 1.0 for part in TEMPLATES[name].parts])
    rotation = placed(name, (3.0, 2.0, 1.5), 0.1, yaw=0.3).rotation[0, : len(is_board)][is_board]
    assert len(rotation) == (2 if name == "house" else 1)
    assert torch.allclose(tilt_deg(rotation), torch.tensor(degrees), atol=1e-3)
    assert torch.allclose(rotation[..., 0], torch.tensor([math.cos(0.3), math.sin(0.3), 0.0]), atol=1e-6)


def share_with_boards(worlds: Worlds, degrees: float) -> Tensor:
    """Of the worlds, those with a plane of this slope that is larger than half a metre by half a metre."""
    half, present = worlds.solids.half.sort(-1).values, worlds.solids.centre[..., 2] > -9e3
    is_sloping = (tilt_deg(worlds.solids.rotation) - degrees).abs() < 0.02
    return (present & is_sloping & (half[..., 1] > 0.25)).any(1).float().mean()


@pytest.mark.parametrize(
    ("kind", "degrees", "share"), [("room", 40, 0.08), ("room", 17, 0.04), ("corridor", 40, 0.08), ("outdoor", 28, 0.4)]
)
def test_worlds_have_slanted_planes(kind: str, degrees: float, share: float) -> None:
    assert share_with_boards(make_worlds(torch.arange(64), kind), degrees) > share


def test_rooms_have_thin_parts() -> None:
    """Legs, bars and rods, less than 6 cm across and more than 20 cm long."""
    rooms = make_worlds(torch.arange(64), "room")
    half, present = rooms.solids.half.sort(-1).values, rooms.solids.centre[..., 2] > -9e3
    thin = (present & (half[..., 1] < 0.03) & (half[..., 2] > 0.1)).sum(1)
    assert thin.float().median() > 10 and (thin > 1).float().mean() > 0.9
