"""Abstract rooms: closed where they say so, and of looks that tell nothing of what a thing is."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import ks_2samp

from da3_core.scenes import KINDS, Worlds, make_samples, make_worlds
from da3_core.scenes.casting import first_solid
from da3_core.scenes.kinds import MIX
from da3_core.scenes.materials import FAMILIES, FAMILY_ID, USUAL
from da3_core.scenes.pieces import pack, random_solids, solids
from da3_core.scenes.primitives import Solids
from da3_core.scenes.rng import Draws
from da3_core.scenes.shell import Shell, draw_shell, shell_pieces
from da3_core.scenes.vec import vec
from da3_core.scenes.worlds import SOLIDS, select

FLOOR, CEILING, WALLS = 0, 1, slice(4, 14)  # places among a world's solids


@pytest.fixture(scope="module")
def abstract() -> Worlds:
    return make_worlds(torch.arange(512), "abstract")


@pytest.fixture(scope="module")
def usual() -> Worlds:
    return make_worlds(torch.arange(512), "room")


def farthest_m(room: Solids, middle: torch.Tensor) -> torch.Tensor:
    """(B,) how far one sees from the middles (B, 3) in any of many directions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(1, 1, 1000, 3, generator=generator), dim=-1).expand(len(middle), -1, -1, -1)
    return first_solid(room.frames(), vec(middle[:, None, None]), vec(directions))[0].flatten(1).amax(1)


def diagonal_m(worlds: Worlds) -> torch.Tensor:
    """(B,) of the air between floor and ceiling: slabs 20 cm thick that reach 30 cm under every wall."""
    half, centre = worlds.solids.half[:, CEILING], worlds.solids.centre[:, CEILING]
    return torch.stack((2 * half[:, 0] - 0.6, 2 * half[:, 1] - 0.6, centre[:, 2] - 0.1), -1).norm(dim=-1)


def is_closed(worlds: Worlds) -> torch.Tensor:
    middle = 0.5 * (worlds.stay.low + worlds.stay.high)
    return farthest_m(worlds.solids, middle) < diagonal_m(worlds)


def test_no_ray_leaves_a_closed_shell() -> None:
    def see(shell: Shell) -> torch.Tensor:
        middle = torch.stack((torch.zeros(64), torch.zeros(64), 0.5 * shell.height), -1)
        return farthest_m(solids(pack(shell_pieces(Draws(torch.arange(64), "pieces"), shell), SOLIDS)), middle)

    shell = draw_shell(Draws(torch.arange(64), "shell"), is_corridor=False)
    diagonal = torch.stack((shell.length, shell.width, shell.height), -1).norm(dim=-1)
    assert shell.has_partition.any() and not shell.is_closed.any()
    assert (see(replace(shell, is_closed=torch.ones_like(shell.is_closed))) < diagonal).all()
    assert (see(shell) > diagonal).float().mean() > 0.9


def test_more_than_half_are_closed_and_their_images_hold_nothing_else(abstract: Worlds) -> None:
    rooms = select(abstract, torch.arange(96))
    closed = is_closed(rooms)
    assert 0.45 < closed.float().mean() < 0.75
    chosen = select(rooms, torch.nonzero(closed)[:6, 0])
    seen = make_samples(chosen.seed, 2, (28, 42), kinds="abstract", effects=False)
    assert seen.valid.all() and not seen.sky.any() and not seen.object.any()
    assert (seen.depth_m.flatten(1).amax(1) < diagonal_m(chosen)).all()


def looks_apart(worlds: Worlds, a: int, b: int) -> float:
    """The largest distance between distributions (Kolmogorov's) of any parameter of two solids' materials, over the worlds."""
    m = worlds.materials
    columns = (m.base.x, m.contrast, m.noise_per_m, m.stretch, m.cell_u_m, m.specular)
    return max(float(ks_2samp(column[:, a].numpy(), column[:, b].numpy()).statistic) for column in columns)


@pytest.mark.parametrize("other", [CEILING, WALLS.start], ids=["ceiling", "wall"])
def test_looks_do_not_tell_what_a_thing_is(abstract: Worlds, usual: Worlds, other: int) -> None:
    """Chance keeps 512 against 512 draws of one distribution below 0.122 in 999 of 1000 cases."""
    assert looks_apart(usual, FLOOR, other) > 0.2
    assert looks_apart(abstract, FLOOR, other) < 0.122


def test_the_walls_of_an_abstract_room_differ(abstract: Worlds, usual: Worlds) -> None:
    """Elsewhere they are of one family, so that their patterns are about as large."""
    differ, alike = (worlds.materials.cell_u_m[:, WALLS].log().std(1).median() for worlds in (abstract, usual))
    assert differ > 1.5 * alike


def test_other_worlds_draw_from_the_families_that_they_always_had() -> None:
    assert tuple(USUAL) == (
        "any", "plain", "wall", "floor", "wood", "metal", "fabric", "painted", "poster", "books", "masonry", "facade", "foliage", "ground",
        "dark", "lit",
    )  # fmt: skip
    assert tuple(FAMILIES) == (*USUAL, "wild", "loud", "flat")
    drawn = random_solids(Draws(torch.tensor([7]), "t"), 12, (0.1, 1.0), 0.3).families[0]
    names = ["any", "painted", "fabric", "floor", "foliage", "poster", "painted", "poster", "metal", "any", "any", "plain"]
    assert drawn.tolist() == [FAMILY_ID[name] for name in names]
    assert set(KINDS) - set(MIX) == {"abstract"}
