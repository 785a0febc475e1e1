import dataclasses

import pytest
import torch

from da3_core.scenes import DEMO, KINDS, TRAIN, VALIDATION, make_samples, make_worlds, seeds, split_of
from da3_core.scenes.kinds import MIX, draw_kinds
from da3_core.scenes.tree import map_tensors

SIZE = (28, 42)


@pytest.fixture(scope="module")
def batch():
    return make_samples(seeds("train", 40, 6), 2, SIZE)


def test_shapes_and_meaning(batch):
    assert batch.images.shape == (6, 2, 3, *SIZE) and batch.depth_m.shape == batch.valid.shape == (6, 2, *SIZE)
    assert (batch.depth_m[batch.valid] > 0).all() and (batch.depth_m[~batch.valid] == 0).all() and torch.isfinite(batch.depth_m).all()
    assert not (batch.sky & batch.valid).any() and not (batch.object & ~batch.valid).any()
    assert batch.images.min() >= 0 and batch.images.max() <= 1
    norm = batch.normal_world.norm(dim=2)
    assert torch.allclose(norm[batch.valid], torch.ones_like(norm[batch.valid]), atol=1e-4)


def test_a_world_alone_is_the_same_as_in_a_batch(batch):
    alone = make_samples(seeds("train", 43, 1), 2, SIZE)
    assert torch.allclose(alone.depth_m[0], batch.depth_m[3], rtol=1e-4)
    assert torch.equal(alone.valid[0], batch.valid[3])
    assert ((alone.images[0] - batch.images[3]).abs() > 0.02).float().mean() < 1e-3


def test_the_same_seeds_give_the_same_bytes(batch):
    again = make_samples(seeds("train", 40, 6), 2, SIZE)
    for field in dataclasses.fields(again):
        assert torch.equal(getattr(again, field.name), getattr(batch, field.name)), field.name


def test_images_are_neither_grey_nor_dark(batch):
    contrast = batch.images.mean(2).flatten(2).std(-1)
    assert (contrast > 0.03).float().mean() > 0.9 and batch.images.mean() > 0.2 and batch.images.mean() < 0.8


def test_kinds_are_mixed_and_can_be_asked_for():
    assert set(draw_kinds(torch.arange(200))) == set(MIX)
    mixed = draw_kinds(torch.arange(2000), ("abstract", "outdoor", "abstract", "abstract"))
    assert set(mixed) == {"abstract", "outdoor"} and 0.7 < mixed.count("abstract") / 2000 < 0.8
    assert [KINDS[i] for i in make_worlds(torch.arange(20)).kind] == draw_kinds(torch.arange(20))
    worlds = make_worlds(torch.arange(len(KINDS)), KINDS)
    assert worlds.kind.tolist() == list(range(len(KINDS)))
    assert (make_worlds(torch.arange(3), "outdoor").kind == KINDS.index("outdoor")).all()


@pytest.mark.parametrize("kind", ["room", "abstract"])
def test_worlds_differ_by_seed_only(kind):
    many = make_worlds(torch.arange(50, 58), [kind] * 6 + ["outdoor", kind])
    one = make_worlds(torch.tensor([53]), kind)
    pairs = []
    map_tensors(lambda a, b: pairs.append((a[0], b[3])) or a, one, many)
    assert all(torch.allclose(a.double(), b.double(), atol=1e-5) for a, b in pairs)
    assert not torch.equal(many.solids.centre[0], many.solids.centre[1])


def test_furniture_has_real_sizes():
    """Rooms are rooms, and nothing in them is larger than they are."""
    rooms = make_worlds(torch.arange(64), "room")
    size = rooms.stay.high[:, :2] - rooms.stay.low[:, :2] + 0.5
    assert (size > 2.4).all() and (size < 25).all() and 3.5 < size.mean() < 8
    assert (rooms.solids.centre[..., 2] > -9e3).sum(1).float().mean() > 50


def test_splits_are_disjoint_and_guarded():
    ranges = [TRAIN, VALIDATION, DEMO]
    for i, a in enumerate(ranges):
        assert all(a[-1] < b[0] or b[-1] < a[0] for b in ranges[i + 1 :])
        assert split_of([a[0], a[-1]]) == ("train", "validation", "demo")[i]
    assert seeds("validation", 3, 2).tolist() == [VALIDATION[3], VALIDATION[4]]
    with pytest.raises(ValueError, match="one split"):
        split_of([TRAIN[0], DEMO[0]])
    with pytest.raises(ValueError, match="one split"):
        split_of([-1])
    with pytest.raises(ValueError, match="start lower"):
        seeds("demo", len(DEMO) - 1, 2)
