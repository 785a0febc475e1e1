import pytest
import torch

from da3_core.model.sky import fill_sky, quantile


def scene(sky_pixels: int, pixels: int = 400):
    depth = torch.rand(1, 2, 10, pixels // 20, generator=torch.Generator().manual_seed(0)) + 1
    sky = torch.zeros(pixels)
    sky[torch.randperm(pixels, generator=torch.Generator().manual_seed(1))[:sky_pixels]] = 1
    return depth, sky.reshape(depth.shape)


def test_sky_is_put_at_the_far_end_of_all_views():
    depth, sky = scene(sky_pixels=150)
    far = depth[sky == 0].quantile(0.99)
    filled = fill_sky(depth, sky)
    torch.testing.assert_close(filled[sky > 0], far.expand(150))
    assert torch.equal(filled[sky == 0], depth[sky == 0])


@pytest.mark.parametrize(("sky_pixels", "is_filled"), [(0, False), (10, False), (11, True), (389, True), (390, False), (400, False)])
def test_ten_pixels_on_either_side_are_not_enough(sky_pixels, is_filled):
    depth, sky = scene(sky_pixels)
    assert torch.equal(fill_sky(depth, sky), depth) != is_filled


def test_sky_starts_at_three_tenths():
    depth, sky = scene(sky_pixels=100)
    below = torch.tensor(0.3).nextafter(torch.tensor(0.0))
    assert not torch.equal(fill_sky(depth, 0.3 * sky), depth)
    assert torch.equal(fill_sky(depth, below * sky), depth)


def test_scenes_of_a_batch_do_not_mix():
    (near, sky), far = scene(100), 50 * scene(100)[0]
    together = fill_sky(torch.cat([near, far]), torch.cat([sky, torch.zeros_like(sky)]))
    torch.testing.assert_close(together, torch.cat([fill_sky(near, sky), far]))


@pytest.mark.parametrize("q", [0.0, 0.5, 0.99, 1.0])
def test_the_quantile_is_of_the_masked_values_alone(q):
    values, sky = scene(sky_pixels=133)
    mask = sky == 0
    torch.testing.assert_close(quantile(values, mask, q).squeeze(), values[mask].quantile(q))
    assert quantile(values, torch.zeros_like(mask), q).item() == torch.inf
