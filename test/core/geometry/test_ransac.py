import pytest
import torch

from da3_core.geometry.ransac import draw_subsets


def test_rows_are_subsets_and_uniform():
    draws = draw_subsets(10, 4, 5000, torch.Generator().manual_seed(1))
    assert draws.shape == (5000, 4) and draws.min() >= 0 and draws.max() < 10
    assert (draws.sort(-1).values.diff(dim=-1) > 0).all()
    share = torch.bincount(draws.flatten(), minlength=10) / 5000
    torch.testing.assert_close(share, torch.full((10,), 0.4), atol=0.03, rtol=0)


def test_all_of_them_and_the_seed():
    assert draw_subsets(3, 3, 5).sort(-1).values.tolist() == [[0, 1, 2]] * 5
    assert torch.equal(draw_subsets(100, 8, 7), draw_subsets(100, 8, 7, torch.Generator().manual_seed(0)))
    generator = torch.Generator().manual_seed(0)
    assert not torch.equal(draw_subsets(100, 8, 7, generator), draw_subsets(100, 8, 7, generator))


def test_too_few_are_refused():
    with pytest.raises(ValueError, match="at least 8"):
        draw_subsets(7, 8, 1)
