import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_core.geometry.scale_shift import least_squares_scale_shift, median_scale, ransac_scale_shift

scales, shifts, seeds = st.floats(0.05, 20), st.floats(-3, 3), st.integers(0, 2**31)


def depths(seed: int, *shape: int) -> torch.Tensor:
    return 0.5 + 5 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, scale=scales, shift=shifts)
def test_constructed_scales_and_shifts_come_back(seed, scale, shift):
    d, valid = depths(seed, 2, 3, 40), torch.ones(2, 3, 40, dtype=torch.bool)
    expected = torch.full((2, 3), scale, dtype=torch.float64)
    torch.testing.assert_close(median_scale(d, scale * d, valid), expected)
    for solve in (least_squares_scale_shift, ransac_scale_shift):
        s, t = solve(d, scale * d + shift, valid)
        torch.testing.assert_close(s, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(t, torch.full_like(expected, shift), rtol=1e-6, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_invalid_pixels_do_not_count(seed):
    d = depths(seed, 60)
    reference = 2 * d + 1
    valid = torch.rand(60, generator=torch.Generator().manual_seed(seed)) < 0.7
    dirty = torch.where(valid, reference, torch.tensor(1e6, dtype=torch.float64))
    torch.testing.assert_close(median_scale(d, dirty, valid), median_scale(d[valid], reference[valid], valid[valid]))
    for solve in (least_squares_scale_shift, ransac_scale_shift):
        s, t = solve(d, dirty, valid)
        torch.testing.assert_close(torch.stack([s, t]), torch.tensor([2.0, 1.0], dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_least_squares_by_hand():
    d, r = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 5.0])
    s, t = least_squares_scale_shift(d, r, torch.ones(3))
    assert (s.item(), t.item()) == pytest.approx((1.5, 0.0))
    s, t = least_squares_scale_shift(d, r, torch.tensor([1.0, 1.0, 0.0]))
    assert (s.item(), t.item()) == pytest.approx((0.0, 2.0), abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_ransac_bears_wrong_sparse_depth_that_bends_least_squares(seed):
    generator = torch.Generator().manual_seed(seed)
    d = depths(seed, 2000)
    reference = 1.5 * d + 0.3 + 0.01 * torch.randn(2000, generator=generator, dtype=torch.float64)
    wrong = torch.rand(2000, generator=generator) < 0.2
    reference[wrong] = 2 + 18 * torch.rand(int(wrong.sum()), generator=generator, dtype=torch.float64)
    everywhere = torch.ones(2000, dtype=torch.bool)
    robust, plain = (torch.stack(solve(d, reference, everywhere)) for solve in (ransac_scale_shift, least_squares_scale_shift))
    truth = torch.tensor([1.5, 0.3], dtype=torch.float64)
    at_4m = torch.tensor([4.0, 1.0], dtype=torch.float64)
    assert abs((robust - truth) @ at_4m) < 0.1 < abs((plain - truth) @ at_4m)
    assert abs(robust[0] - 1.5) < 0.1


def test_ransac_takes_no_negative_scale_though_more_pairs_ask_for_it():
    d = 1 + 8 * torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reference = torch.where(torch.arange(1000) < 550, 20 - 2 * d, 2 * d)
    scale, _ = ransac_scale_shift(d, reference, torch.ones(1000, dtype=torch.bool))
    assert scale > 1


def test_ransac_is_seeded():
    d = depths(1, 500)
    noisy = d + torch.randn(500, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    valid = torch.ones(500, dtype=torch.bool)
    assert torch.equal(ransac_scale_shift(d, noisy, valid)[0], ransac_scale_shift(d, noisy, valid)[0])


def test_what_determines_no_scale_is_refused():
    d, none = torch.ones(10), torch.zeros(10, dtype=torch.bool)
    with pytest.raises(ValueError, match="too few"):
        median_scale(d, d, none)
    with pytest.raises(ValueError, match="the same"):
        least_squares_scale_shift(d, torch.rand(10), ~none)
    with pytest.raises(ValueError, match="disagree in sign"):
        ransac_scale_shift(torch.arange(10.0), -torch.arange(10.0), ~none)
    with pytest.raises(ValueError, match="at least 2"):
        ransac_scale_shift(torch.arange(10.0), torch.arange(10.0), none)
