from __future__ import annotations

import pytest
import torch

from da3_core.scenes.sample import reorder_views, split_views
from da3_core.scenes.splits import TRAIN, VALIDATION
from da3_core.training.config import Bucket, DataConfig, world_shape
from da3_core.training.data import RenderedScenes, Share, draw_step, draw_validation

from .fixed_batch import fixed_samples

CONFIG = DataConfig(
    patches_per_step=8 * 4,
    buckets=(Bucket(28, 28, (1, 2, 4)), Bucket(28, 56, (2, 4), weight=2.0)),
    worlds_reused=2,
)


def test_a_step_is_drawn_the_same_again_and_another_differently() -> None:
    a, b, c, d = (draw_step(CONFIG, seed, step, Share()) for seed, step in ((0, 6), (0, 6), (0, 8), (1, 6)))
    assert torch.equal(a.seeds, b.seeds)
    assert torch.equal(a.view_order, b.view_order)
    assert a.chances == b.chances
    assert not torch.equal(a.seeds, c.seeds)
    assert not torch.equal(a.seeds, d.seeds)


def test_processes_take_parts_of_one_batch() -> None:
    halves = [draw_step(CONFIG, 0, 3, Share(rank, 2)) for rank in range(2)]
    doubled = DataConfig(patches_per_step=2 * CONFIG.patches_per_step, buckets=CONFIG.buckets, worlds_reused=2)
    whole = draw_step(doubled, 0, 3, Share())
    for name in ("seeds", "view_order", "scene_chances"):
        assert torch.equal(torch.cat([getattr(half, name) for half in halves]), getattr(whole, name))
    assert halves[0].chances == halves[1].chances == whole.chances


def test_every_view_count_of_a_bucket_has_the_same_images() -> None:
    shapes = {
        (d.image_size, len(d.view_order) * d.n_views, len(d.seeds), d.world_views)
        for d in (draw_step(CONFIG, 0, s, Share()) for s in range(40))
    }
    assert shapes == {((28, 28), 8, 2, 4), ((28, 56), 4, 1, 4)}
    assert world_shape(Bucket(28, 28, (2, 3)), 3, 32) == (2, 3)  # nothing in common: every count for itself


def test_a_batch_too_small_for_its_views_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.patches_per_step = 8: raise it"):
        draw_step(DataConfig(patches_per_step=8, buckets=(Bucket(28, 28, (4,)),)), 0, 0, Share())


def test_reused_worlds_come_in_another_order() -> None:
    a, b = (draw_step(CONFIG, 0, step, Share()) for step in (4, 5))
    assert torch.equal(a.seeds, b.seeds)
    assert a.n_views == b.n_views
    assert a.chances != b.chances


def test_training_and_validation_never_share_a_world() -> None:
    assert all(seed in TRAIN for step in range(10) for seed in draw_step(CONFIG, 0, step, Share()).seeds.tolist())
    draws = draw_validation(CONFIG, 2, Share())
    assert all(seed in VALIDATION for draw in draws for seed in draw.seeds.tolist())
    assert [(d.image_size, d.n_views) for d in draws[::2]] == [((28, 28), 1), ((28, 28), 2), ((28, 28), 4), ((28, 56), 2), ((28, 56), 4)]


def test_sequences_are_split_in_order_of_time_and_views_reordered() -> None:
    samples = fixed_samples(b=2, n=4)
    pairs = split_views(samples, 2)
    assert pairs.images.shape[:2] == (4, 2)
    assert torch.equal(pairs.images[1], samples.images[0, 2:])
    assert pairs.kind.shape == (4,)
    swapped = reorder_views(pairs, torch.tensor([[1, 0], [0, 1], [0, 1], [1, 0]]))
    assert torch.equal(swapped.T_world_cam[3, 0], samples.T_world_cam[1, 3])
    assert torch.equal(swapped.depth_m[1], pairs.depth_m[1])


def test_planning_ahead_changes_no_pixel() -> None:
    """A resumed run plans other steps together than an unbroken one."""
    config = DataConfig(patches_per_step=8, buckets=(Bucket(28, 28, (2,)),))
    draws = [draw_step(config, 0, step, Share()) for step in range(3)]
    ahead, alone = (RenderedScenes(torch.device("cpu"), compiled=False, ahead=n) for n in (3, 1))
    ahead(draws[0], upcoming=draws[1:])
    a, b = ahead(draws[1], upcoming=draws[2:]), alone(draws[1])
    assert torch.equal(a.images, b.images)
    assert torch.equal(a.depth_m, b.depth_m)
    assert torch.equal(a.T_world_cam, b.T_world_cam)
