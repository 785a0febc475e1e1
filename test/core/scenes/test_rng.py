import math

import torch

from da3_core.scenes.rng import Draws


def test_draws_depend_on_the_seed_and_not_on_the_batch():
    together = Draws(torch.tensor([3, 1 << 41, 7]), "a").uniform(2, 5)
    for i, seed in enumerate((3, 1 << 41, 7)):
        assert torch.equal(Draws(torch.tensor([seed]), "a").uniform(2, 5)[0], together[i])


def test_streams_and_seeds_that_differ_only_in_high_bits_are_unrelated():
    a = Draws(torch.tensor([5]), "a").uniform(4000)[0]
    for other in (Draws(torch.tensor([5]), "b"), Draws(torch.tensor([5 + (1 << 40)]), "a"), Draws(torch.tensor([6]), "a")):
        assert abs(torch.corrcoef(torch.stack((a, other.uniform(4000)[0])))[0, 1]) < 0.06


def test_blocks_do_not_change_the_sequence():
    seeds = torch.arange(3)
    small, large = Draws(seeds, "a", block=4), Draws(seeds, "a", block=1000)
    for shape in ((3,), (2, 2), (), (11,)):
        assert torch.equal(small.uniform(*shape), large.uniform(*shape))


def test_moments():
    draws = Draws(torch.arange(8), "moments")
    u, n, log = draws.uniform(4000, low=-1.0, high=3.0), draws.normal(4000, std=2.0), draws.log_uniform(4000, low=0.1, high=10.0)
    assert u.min() >= -1 and u.max() < 3 and abs(u.mean() - 1) < 0.03 and abs(u.std() - 4 / math.sqrt(12)) < 0.02
    assert abs(n.mean()) < 0.05 and abs(n.std() - 2) < 0.05
    assert log.min() >= 0.1 and log.max() <= 10 and abs(torch.log(log).mean()) < 0.05
    assert abs(draws.chance(0.3, 4000).float().mean() - 0.3) < 0.02
    assert set(draws.integers(3, 500).unique().tolist()) == {0, 1, 2}


def test_rows_of_consecutive_seeds_are_uncorrelated():
    u = Draws(torch.arange(64), "rows").uniform(512)
    off_diagonal = torch.corrcoef(u) - torch.eye(64)
    assert off_diagonal.abs().max() < 0.25
