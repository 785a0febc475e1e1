"""Light in scenes built by hand, against what a pencil and a ruler say."""

import dataclasses

import pytest
import torch
from torch import Tensor

from da3_core.scenes import Worlds, make_worlds, render
from da3_core.scenes.casting import Culled, openness, visibility
from da3_core.scenes.primitives import BOX, Solids
from da3_core.scenes.vec import Vec, vec
from da3_core.scenes.worlds import SOLIDS

LAMP = (0.0, 0.0, 4.0)
FLOOR = ((0.0, 0.0, -0.1), (5.0, 5.0, 0.1))  # centre and half sizes: its top is at 0
PLATE = ((0.0, 0.0, 2.0), (0.5, 0.25, 0.1))
# The lamp draws the edges of the plate's upper side, 1.9 m below it, and of its lower side, 2.1 m below it, on the floor 4 m below it.
LONGEST, SHORTEST = 4.0 / 1.9, 4.0 / 2.1


def boxes(*placed: tuple[tuple[float, float, float], tuple[float, float, float]]) -> Solids:
    """As many solids as a world has; those not given are far below."""
    centre, half = torch.tensor([0.0, 0.0, -1e4]).repeat(1, SOLIDS, 1), torch.full((1, SOLIDS, 3), 1e-2)
    for i, (middle, size) in enumerate(placed):
        centre[0, i], half[0, i] = torch.tensor(middle), torch.tensor(size)
    return Solids(centre, torch.eye(3).expand(1, SOLIDS, 3, 3), half, torch.tensor(BOX).expand(1, SOLIDS, 3))


def floor_points(count: int = 64, reach_m: float = 2.0) -> tuple[Tensor, Tensor]:
    """(count, count) places x, y of the floor."""
    at = torch.linspace(-reach_m, reach_m, count)
    return at[:, None].expand(count, count), at.expand(count, count)


def seen_light(solids: Solids, x: Tensor, y: Tensor, culled: bool) -> Tensor:
    """How much of the lamp is seen from the floor at x, y."""
    point = vec(torch.stack((x, y, torch.full_like(x, 2e-3)), -1)[None])
    lamp = vec(torch.tensor(LAMP).view(1, 1, 1, 3))
    if culled:
        return Culled(solids, solids.frames()).visibility(point, lamp)[0]
    return visibility(solids.frames(), point, lamp)[0]


def shadow(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(surely lit, surely dark) places under the plate; between them its edge is soft."""
    half_x, half_y, _ = PLATE[1]
    lit = (x.abs() > LONGEST * half_x + 0.01) | (y.abs() > LONGEST * half_y + 0.01)
    return lit, (x.abs() < 0.97 * SHORTEST * half_x) & (y.abs() < 0.97 * SHORTEST * half_y)


@pytest.mark.parametrize("culled", [False, True])
def test_a_plate_under_a_lamp_throws_its_shadow_on_the_floor(culled: bool) -> None:
    x, y = floor_points()
    seen = seen_light(boxes(FLOOR, PLATE), x, y, culled)
    lit, dark = shadow(x, y)
    assert lit.sum() > 3000 and dark.sum() > 300
    assert (seen[lit] == 1).all() and (seen[dark] == 0).all()
    across = seen_light(boxes(FLOOR, PLATE), torch.linspace(0.9, 1.1, 200)[None], torch.zeros(1, 200), culled)[0]
    assert (across.diff() >= 0).all() and ((across > 0.1) & (across < 0.9)).any()


@pytest.mark.parametrize("culled", [False, True])
def test_what_is_behind_the_lamp_or_under_the_floor_throws_none(culled: bool) -> None:
    x, y = floor_points()
    assert (seen_light(boxes(FLOOR, ((0.0, 0.0, 4.5), PLATE[1]), ((0.0, 0.0, -1.0), PLATE[1])), x, y, culled) == 1).all()


@pytest.mark.parametrize("culled", [False, True])
def test_openness_is_the_distance_to_the_nearest_thing(culled: bool) -> None:
    solids = boxes(FLOOR, ((3.0, 0.0, 1.0), (1.0, 5.0, 1.0)))  # a wall at x = 2
    at = torch.tensor([[[0.0, 0.0, 0.1], [0.0, 0.0, 0.3], [0.0, 0.0, 2.0], [1.9, 0.0, 0.3]]])[:, None]
    around = Culled(solids, solids.frames()).openness(vec(at), 0.4) if culled else openness(solids.frames(), vec(at), 0.4)
    assert torch.allclose(around.flatten(), torch.tensor([0.25, 0.75, 1.0, 0.25]), atol=1e-5)


def matt(solids: Solids, checker_m: float = 1.0, accent: float = 0.5) -> Worlds:
    """`solids` in clear air, without gloss or glow, in squares of reflectance 0.5 and `accent`; surroundings alone give light."""
    worlds = make_worlds(torch.tensor([1]), "room")
    zero, one = torch.zeros(1, SOLIDS), torch.ones(1, SOLIDS)
    plain = {f.name: zero for f in dataclasses.fields(worlds.materials)} | {"seed": zero.int(), "checker": one}
    plain |= {name: Vec(*(0.5 * one,) * 3) for name in ("base", "vein", "mark")} | {"accent": Vec(*(accent * one,) * 3)}
    plain |= dict.fromkeys(("noise_per_m", "stretch", "gloss"), one) | dict.fromkeys(("cell_u_m", "cell_v_m"), checker_m * one)
    light = dataclasses.replace(
        worlds.light, position=torch.tensor([[LAMP, (0.0, 0.0, 2000.0)]]), colour=torch.zeros(1, 2, 3), reach_m=torch.tensor([[3.0, 1e6]]),
        ambient_up=torch.ones(1, 3), ambient_down=torch.ones(1, 3),
    )  # fmt: skip
    return dataclasses.replace(
        worlds, solids=solids, materials=type(worlds.materials)(**plain), light=light,
        sky=dataclasses.replace(worlds.sky, haze_m=torch.tensor([1e9])),
    )  # fmt: skip


def seen_from_above(worlds: Worlds) -> Tensor:
    """(60, 60) grey levels of the floor's middle three metres, from 1.5 m above it and below the plate: 20 pixels a metre."""
    T_world_cam = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    T_world_cam[2, 3] = 1.5
    K = torch.tensor([[30.0, 0.0, 30.0], [0.0, 30.0, 30.0], [0.0, 0.0, 1.0]])
    return render(worlds, T_world_cam[None, None], K[None, None], (60, 60)).radiance[0, 0, 0]


@pytest.mark.parametrize("lamp", [0, 1])
def test_images_show_the_shadow_and_the_lights_falloff(lamp: int) -> None:
    """Lit by the lamp the floor shows the plate's enlarged shadow, lit from far above its true outline."""
    worlds = matt(boxes(FLOOR, PLATE))
    colour = torch.zeros(1, 2, 3)
    colour[:, lamp] = 1.0
    no_surroundings = {"ambient_up": torch.zeros(1, 3), "ambient_down": torch.zeros(1, 3)}
    worlds = dataclasses.replace(worlds, light=dataclasses.replace(worlds.light, colour=colour, **no_surroundings))
    image = seen_from_above(worlds)
    at = (torch.arange(60) + 0.5 - 30) / 20
    x, y = at.expand(60, 60), -at[:, None].expand(60, 60)
    if lamp == 0:
        lit, dark = shadow(x, y)
        falloff = 1 / (1 + (x**2 + y**2 + 16) / 9) * 4 / (x**2 + y**2 + 16).sqrt()
    else:
        lit, dark = (x.abs() > 0.51) | (y.abs() > 0.26), (x.abs() < 0.49) & (y.abs() < 0.24)
        falloff = torch.full_like(x, 1 / (1 + (2000 / 1e6) ** 2))
    assert lit.sum() > 1000 and dark.sum() > 150
    assert torch.allclose(image[lit], (0.5 * falloff)[lit], rtol=1e-3)
    assert (image[dark] == 0).all()


def test_images_show_the_pattern_of_a_surface() -> None:
    """Squares of 0.3 m are six pixels wide, wherever they begin."""
    image = seen_from_above(matt(boxes(FLOOR), checker_m=0.3, accent=0.25))
    dark = torch.isclose(image, torch.tensor(0.25), rtol=0.01)
    assert torch.isclose(image[~dark], torch.tensor(0.5), rtol=0.01).all()
    for shifted, turned in ((dark[:, 6:] ^ dark[:, :-6], True), (dark[6:] ^ dark[:-6], True), (dark[6:, 6:] ^ dark[:-6, :-6], False)):
        assert (shifted == turned).all()
    assert dark.float().mean() == 0.5


def test_images_are_darker_in_corners() -> None:
    """Surroundings light a floor by how far the next thing is from a point 0.35 m above it, down to 0.45 of the light."""
    wall = ((2.0, 0.0, 1.0), (1.0, 5.0, 1.0))
    row = seen_from_above(matt(boxes(FLOOR, wall)))[30]
    x = (torch.arange(60) + 0.5 - 30) / 20
    expected = 0.5 * (0.45 + 0.55 * ((1 - x) / 0.35).clamp_max(1.0))
    assert torch.allclose(row[x < 1], expected[x < 1], rtol=1e-3)
