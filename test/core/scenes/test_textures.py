"""Colours of surfaces against what their parameters say, cell by cell."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from da3_core.scenes import make_worlds
from da3_core.scenes.materials import FAMILY_ID, Materials, sample_materials
from da3_core.scenes.rng import Draws
from da3_core.scenes.textures import albedo
from da3_core.scenes.vec import Vec

BASE, VEIN, ACCENT, MARK = 0.2, 0.6, 0.4, 0.9
NEAR = torch.tensor(1e-4)  # a footprint that hides nothing


def material(**given: Any) -> Materials:
    """Plain, but for what is given: numbers."""
    values = {f.name: 0.0 for f in dataclasses.fields(Materials)}
    values |= {"noise_per_m": 1.0, "stretch": 1.0, "roughness": 0.5, "cell_u_m": 1.0, "cell_v_m": 1.0, "gloss": 10.0} | given
    colours = {"base": BASE, "vein": BASE, "accent": ACCENT, "mark": MARK}
    scalars = {name: torch.tensor(value) for name, value in values.items()}
    scalars["seed"] = torch.tensor(5, dtype=torch.int32)
    for name, level in colours.items():
        scalars[name] = Vec(*(torch.tensor(given.get(name, level)) for _ in range(3)))
    return Materials(**scalars)


def look(m: Materials, u_m: Tensor, v_m: Tensor, footprint_m: Tensor = NEAR) -> Tensor:
    """Grey levels of a surface at (u_m, v_m), which broadcast."""
    u_m, v_m = torch.broadcast_tensors(u_m, v_m)
    return albedo(m, u_m, v_m, footprint_m.expand_as(u_m)).x


def grid(count: int, spacing_m: float) -> tuple[Tensor, Tensor]:
    """Places (count, 1) along u and (count,) along v."""
    at = spacing_m * torch.arange(count)
    return at[:, None] + 0.013, at + 0.029


def steps(colours: Tensor) -> tuple[Tensor, Tensor]:
    """Mean differences of neighbours along u and along v, relative to the spread."""
    return colours.diff(dim=0).abs().mean() / colours.std(), colours.diff(dim=1).abs().mean() / colours.std()


def correlation(colours: Tensor, lag: int) -> float:
    a, b = colours[lag:].flatten(), colours[: len(colours) - lag].flatten()
    return float(torch.corrcoef(torch.stack((a, b)))[0, 1])


def test_noise_moves_between_two_colours_smoothly() -> None:
    noisy = look(material(contrast=0.8, vein=VEIN), *grid(160, 0.2))
    assert noisy.std() > 0.05 and abs(noisy.mean() - 0.5 * (BASE + VEIN)) < 0.06
    assert correlation(noisy, 1) > 0.7 and abs(correlation(noisy, 40)) < 0.2  # a fifth of a cell, and eight
    plain = look(material(contrast=0.0, vein=VEIN), *grid(20, 0.2))
    assert torch.allclose(plain, torch.tensor(0.5 * (BASE + VEIN)))


def test_noise_has_octaves_and_a_direction() -> None:
    fine, coarse = (look(material(contrast=0.5, vein=VEIN, roughness=r), *grid(100, 0.06)) for r in (0.9, 0.3))
    assert steps(fine)[0] > 1.5 * steps(coarse)[0]
    along, across = steps(look(material(contrast=0.5, vein=VEIN, stretch=8.0), *grid(100, 0.06)))
    assert across > 2 * along
    turned = steps(look(material(contrast=0.5, vein=VEIN, stretch=8.0, angle=torch.pi / 2), *grid(100, 0.06)))
    assert turned[0] > 2 * turned[1]


def test_what_is_finer_than_a_pixel_is_its_mean() -> None:
    u, v = grid(40, 0.37)
    wide = torch.tensor(3.0)
    assert torch.allclose(look(material(contrast=0.8, vein=VEIN), u, v, wide), torch.tensor(0.5 * (BASE + VEIN)))
    assert torch.allclose(look(material(checker=1.0), u, v, wide), torch.tensor(0.5 * (BASE + ACCENT)))
    assert torch.allclose(look(material(joint_m=0.02, inset_chance=1.0, inset_u=0.5, inset_v=0.5), u, v, wide), torch.tensor(BASE))


def test_checkers_alternate() -> None:
    u, v = torch.arange(-4.0, 4.0, 0.1)[:, None] + 0.05, torch.arange(-2.0, 2.0, 0.1) + 0.05
    is_odd = (torch.floor(u / 0.5) + torch.floor(v / 0.25)) % 2 == 1
    seen = look(material(checker=1.0, cell_u_m=0.5, cell_v_m=0.25), u, v)
    assert torch.allclose(seen, torch.where(is_odd, ACCENT, BASE))


def test_cells_have_tints_of_their_own() -> None:
    cells = torch.arange(-6.0, 6.0)
    corner, middle = (look(material(tint=1.0), cells[:, None] + at, cells + at) for at in (0.1, 0.5))
    assert torch.equal(corner, middle)
    assert corner.min() < BASE + 0.02 and corner.max() > ACCENT - 0.02 and len(corner.unique()) > 60


def test_joints_are_at_the_cells_edges_and_rows_are_staggered() -> None:
    m = material(joint_m=0.03, stagger=0.5)
    along = torch.tensor([0.01, 0.02, 0.04, 0.5, 0.96, 0.98])
    assert torch.allclose(look(m, along, torch.tensor(0.5)), torch.tensor([MARK, MARK, BASE, BASE, BASE, MARK]))
    assert torch.allclose(look(m, along, torch.tensor(1.5)), torch.tensor([BASE, BASE, BASE, MARK, BASE, BASE]))
    assert torch.allclose(look(m, torch.tensor(0.3), along), torch.tensor([MARK, MARK, BASE, BASE, BASE, MARK]))
    edge = look(material(joint_m=0.03), torch.tensor(0.03), torch.tensor(0.5), torch.tensor(0.01))
    assert torch.isclose(edge, torch.tensor(0.5 * (BASE + MARK)))  # half the pixel


@pytest.mark.parametrize("chance", [1.0, 0.4])
def test_insets_fill_the_middle_of_their_share_of_cells(chance: float) -> None:
    m = material(inset_chance=chance, inset_u=0.5, inset_v=0.8)
    cells = torch.arange(0.0, 30.0)
    filled = look(m, cells[:, None] + 0.5, cells + 0.5) == MARK
    assert abs(filled.float().mean() - chance) < 0.05
    for u, v, inside in ((0.27, 0.12, True), (0.73, 0.88, True), (0.23, 0.5, False), (0.5, 0.08, False)):
        assert torch.allclose(look(m, cells[:, None] + u, cells + v), torch.where(filled & inside, MARK, BASE))


def test_glyphs_stand_in_lines_like_writing() -> None:
    """Eight across an inset 0.8 m wide: 0.1 m each, every other line of 0.15 m empty, three in five of the rest inked."""
    m = material(inset_chance=1.0, inset_u=0.8, inset_v=0.8, marks=8.0)
    place, line = torch.arange(1, 9), torch.arange(1, 6)  # that lie within the inset of their cell
    cell = torch.arange(12.0)
    u = (cell[:, None] + 0.1 * place).flatten()[:, None]
    v = (cell[:, None] + 0.15 * line).flatten()
    low, high = look(m, u + 0.02, v + 0.02), look(m, u + 0.08, v + 0.13)
    assert torch.equal(low[:, :4], high[:, :4])  # one glyph is of one ink; the fifth line leaves the inset
    lines = low.unflatten(0, (12, 8)).unflatten(2, (12, 5))
    inked = torch.isclose(lines, torch.tensor(MARK))
    assert torch.allclose(lines[~inked], torch.tensor(BASE))
    assert not inked[..., 0::2].any() and 0.5 < inked[..., 1::2].float().mean() < 0.7
    words = inked[..., 1].transpose(1, 2).flatten(0, 1).unique(dim=0)
    assert len(words) > 60  # of 144 cells
    far = look(m, torch.tensor(0.5), torch.tensor(0.5), torch.tensor(0.15))
    assert torch.isclose(far, torch.tensor(BASE + 0.3 * (MARK - BASE)))  # their mean: half the lines, three in five


def test_families_bring_noise_patterns_and_writing() -> None:
    def drawn(name: str) -> Materials:
        return sample_materials(Draws(torch.arange(400), name), torch.full((400, 1), FAMILY_ID[name]))

    poster, floor, foliage = drawn("poster"), drawn("floor"), drawn("foliage")
    assert abs((poster.marks > 0).float().mean() - 0.8 * 0.5) < 0.08
    assert abs((floor.joint_m > 0).float().mean() - 0.75 * 0.85) < 0.08 and not floor.marks.any()
    assert foliage.contrast.min() > 0.79 and not (foliage.joint_m + foliage.checker + foliage.marks).any()


@pytest.mark.parametrize("kind", ["room", "outdoor", "object", "abstract"])
def test_worlds_have_all_of_them(kind: str) -> None:
    worlds = make_worlds(torch.arange(40), kind)
    m, present = worlds.materials, worlds.solids.centre[..., 2] > -9e3

    def share(which: Tensor) -> Tensor:
        return (which & present).sum(1) / present.sum(1)

    patterned = (m.joint_m > 0) | (m.checker > 0) | (m.tint > 0) | (m.inset_chance > 0)
    assert share(m.contrast > 0.1).mean() > 0.5 and share(patterned).mean() > 0.2
    assert (share((m.marks > 0) & (m.inset_chance > 0)) > 0).float().mean() > 0.2
