from dataclasses import replace

import pytest
import torch

from da3_core.geometry.pinhole import K_from_parameters
from da3_core.model import build_model, metres_from_canonical
from da3_core.model.nested import in_metres, scale_to_metres
from da3_core.model.presets import NestedConfig
from da3_core.types import Prediction

SHAPE = (1, 2, 10, 20)


@pytest.fixture
def scene():
    """Depth, confidence, metres and sky, with metres = 2.5 depth wherever it counts."""
    generator = torch.Generator().manual_seed(0)
    depth, confidence = torch.rand(2, *SHAPE, generator=generator) + 1
    return depth, confidence, 2.5 * depth, torch.zeros(SHAPE)


def test_metric_depth_is_for_a_focal_length_of_300_pixels_and_each_view_has_its_own():
    fx, fy, c = torch.tensor([[150.0, 500.0]]), torch.tensor([[150.0, 700.0]]), torch.zeros(1, 2)
    metres = metres_from_canonical(torch.ones(SHAPE), K_from_parameters(fx, fy, c, c))
    assert metres[0, :, 0, 0].tolist() == pytest.approx([0.5, 2.0])


def test_the_scale_is_the_least_squares_one(scene):
    depth, confidence, metres, sky = scene
    metres = metres + 0.1 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    sure = confidence >= confidence.quantile(0.5)
    truth = torch.linalg.lstsq(depth[sure][:, None], metres[sure][:, None]).solution
    torch.testing.assert_close(scale_to_metres(depth, confidence, metres, sky), truth.flatten())


def wrong_where_unsure(depth, confidence, metres, sky):
    return depth, confidence, torch.where(confidence < confidence.quantile(0.5), 100.0, metres), sky


def wrong_in_the_sky(depth, confidence, metres, sky):
    is_sky = torch.arange(20) < 6
    return depth, torch.where(is_sky, 9.0, confidence), torch.where(is_sky, 100.0, metres), torch.where(is_sky, 0.3, sky)


def wrong_where_too_near(depth, confidence, metres, sky):
    near = torch.arange(20) < 6
    return torch.where(near, 1e-3, depth), confidence, torch.where(near, 1e6, metres), sky


def wrong_where_too_near_in_metres(depth, confidence, metres, sky):
    near = torch.arange(20) < 6
    return torch.where(near, 1e3, depth), confidence, torch.where(near, 1e-2, metres), sky


@pytest.mark.parametrize("spoil", [wrong_where_unsure, wrong_in_the_sky, wrong_where_too_near, wrong_where_too_near_in_metres])
def test_pixels_that_say_nothing_do_not_count(scene, spoil):
    assert scale_to_metres(*spoil(*scene)).item() == pytest.approx(2.5)


@pytest.mark.parametrize(("solid_pixels", "known"), [(0, False), (10, False), (11, True)])
def test_a_view_of_the_sky_has_no_scale(scene, solid_pixels, known):
    depth, confidence, metres, _ = scene
    sky = (torch.arange(400) >= solid_pixels).float().reshape(SHAPE)
    assert scale_to_metres(depth, confidence, metres, sky).isnan().item() != known


def relative_prediction(depth, confidence):
    f, c = torch.full((1, 2), 300.0), torch.full((1, 2), 5.0)
    T_cam_world = torch.eye(4).repeat(1, 2, 1, 1)
    T_cam_world[:, 1, 0, 3] = 2.0
    return Prediction(depth=depth, confidence=confidence, T_cam_world=T_cam_world, K=K_from_parameters(f, f, c, c))


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_depth_and_cameras_become_metric_and_the_sky_far(scene, unit):
    depth, confidence, metres, sky = wrong_in_the_sky(*scene)
    p = in_metres(relative_prediction(depth, confidence), unit * metres, sky)
    solid = sky < 0.3
    assert p.is_metric
    assert p.scale_factor.item() == pytest.approx(2.5 * unit)
    torch.testing.assert_close(p.depth[solid], 2.5 * unit * depth[solid])
    assert p.T_cam_world[0, 1, 0, 3].item() == pytest.approx(5 * unit)
    far = min(p.depth[solid].quantile(0.99).item(), 200)
    assert p.depth[~solid].unique().tolist() == pytest.approx([far])
    assert p.confidence[~solid].unique().tolist() == [1]
    assert torch.equal(p.confidence[solid], confidence[solid])


def test_a_scale_needs_all_it_is_made_from(scene):
    depth, _, metres, sky = scene
    with pytest.raises(ValueError, match="predict all three"):
        in_metres(relative_prediction(depth, None), metres, sky)


def test_gaussians_follow_the_scale_unless_cameras_are_given(any_view_config, mono_config, lively, images):
    any_view = replace(any_view_config, gaussian_head=any_view_config.head)
    model = lively(build_model(NestedConfig(any_view, mono_config)))
    T_cam_world = torch.eye(4).repeat(1, 4, 1, 1)
    K = K_from_parameters(*(torch.full((1, 4), v) for v in (40.0, 40.0, 28.0, 21.0)))
    for given, factor in (((), 1), ((T_cam_world, K), 0)):
        own = model.any_view(images, *given, want={"gaussians"}).gaussians
        metric = model(images, *given, want={"gaussians"})
        scale = metric.scale_factor.item() if factor else 1
        torch.testing.assert_close(metric.gaussians.mean, own.mean * scale)
        torch.testing.assert_close(metric.gaussians.scale, own.scale * scale)
