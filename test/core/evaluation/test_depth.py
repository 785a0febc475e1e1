import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_core.evaluation.depth import depth_metrics, sky_overlap


def test_metrics_by_hand():
    depth, truth = torch.tensor([1.0, 3.0, 2.0, 9.0]), torch.tensor([1.0, 2.0, 4.0, 9.0])
    found = depth_metrics(depth, truth, torch.tensor([True, True, True, False]))
    assert found.abs_rel.item() == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert found.sq_rel.item() == pytest.approx((0 + 0.5 + 1) / 3)
    assert found.delta1.item() == pytest.approx(1 / 3)  # ratios 1, 1.5, 2
    assert found.delta2.item() == pytest.approx(2 / 3)
    assert found.delta3.item() == pytest.approx(2 / 3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 10), shift=st.floats(0, 3))
def test_alignments_undo_what_they_are_for(seed, scale, shift):
    truth = 1 + 9 * torch.rand(3, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    everywhere = torch.ones_like(truth, dtype=torch.bool)
    assert depth_metrics(truth * scale, truth, everywhere, "median").abs_rel.max() < 1e-9
    assert depth_metrics(truth * scale + shift, truth, everywhere, "scale_shift").abs_rel.max() < 1e-6
    torch.testing.assert_close(
        depth_metrics(truth * scale, truth, everywhere).abs_rel, torch.full((3,), abs(scale - 1), dtype=torch.float64)
    )


def test_invalid_pixels_may_be_anything():
    truth = torch.tensor([[2.0, torch.inf, 4.0, torch.nan]])
    valid = torch.tensor([[True, False, True, False]])
    depth = torch.tensor([[2.0, 1.0, 4.0, 1e9]])
    for align in ("none", "median", "scale_shift"):
        found = depth_metrics(depth, truth, valid, align)
        assert found.abs_rel.item() == pytest.approx(0, abs=1e-6) and found.delta1.item() == 1


def test_depth_pushed_below_zero_is_wrong():
    found = depth_metrics(torch.tensor([-1.0]), torch.tensor([1.0]), torch.tensor([True]))
    assert found.delta3.item() == 0 and found.abs_rel.item() == pytest.approx(1, rel=1e-5)


def test_a_view_without_truth_is_refused():
    with pytest.raises(ValueError, match="no pixel is valid"):
        depth_metrics(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([[True] * 3, [False] * 3]))


def test_sky_overlap_by_hand():
    found, true = torch.tensor([1, 1, 1, 0, 0]).bool(), torch.tensor([0, 1, 1, 1, 0]).bool()
    assert sky_overlap(found, true) == (2, 4)
