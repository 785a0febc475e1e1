"""Tokens are told the rays and the depth that given cameras imply."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from da3_core.geometry.rigid import invert_rigid
from da3_core.model import build_model
from da3_core.scenes.sample import Samples, make_samples
from da3_core.training.anyview import AnyViewTraining
from da3_core.training.config import LossConfig
from da3_core.training.given_cameras import GivenCameras, shortened
from da3_core.training.objective import ground_truth

from .fixed_batch import ANY_VIEW, fixed_draw, values_over_steps

POSED, UNPOSED = (0.0, 0.0), (0.9, 0.9)


def a_room() -> Samples:
    return make_samples(torch.tensor([5]), 3, (84, 112), kinds="room", effects=False)


def reader() -> GivenCameras:
    """Reads rays and depth as they are: tokens are what it should be told."""
    taught = GivenCameras(build_model(ANY_VIEW).backbone)  # type: ignore[arg-type]
    taught.rays, taught.log_depth = nn.ModuleList([nn.Identity()]), nn.ModuleList([nn.Identity()])
    return taught


def truth_of(samples: Samples) -> tuple[Tensor, Tensor]:
    """Rays (1, N, P, 6) and log-depth (1, N, P, 1) of the pixels in the middle of the patches, one camera after the other."""
    T_world_cam, rays, depths = samples.T_world_cam[0], [], []
    T_first_cam = [invert_rigid(T_world_cam[0]) @ T for T in T_world_cam]
    unit = sorted(float(T[:3, 3].norm()) for T in T_first_cam)[1]  # the first one's is zero
    middles = [(14 * row + 7, 14 * column + 7) for row in range(6) for column in range(8)]
    for T, K, depth in zip(T_first_cam, samples.K[0], samples.depth_m[0], strict=True):
        directions = torch.stack([T[:3, :3] @ K.inverse() @ torch.tensor([float(x), float(y), 1.0]) for y, x in middles])
        rays.append(torch.cat([directions, (T[:3, 3] / unit).expand(len(middles), 3)], -1))
        depths.append(torch.stack([depth[y, x] / unit for y, x in middles]).log())
    return torch.stack(rays)[None], torch.stack(depths)[None, ..., None]


def features(rays: Tensor, log_depth: Tensor) -> dict[str, Tensor]:
    """As the backbone gives them: a camera token before the patches."""
    return {name: torch.cat([x[:, :, :1], x], 2) for name, x in (("block_02", shortened(rays)), ("block_03", log_depth))}


def test_the_truth_costs_nothing_and_an_error_its_size() -> None:
    samples = a_room()
    rays, log_depth = truth_of(samples)
    taught = reader()
    torch.testing.assert_close(taught(features(rays, log_depth), samples), torch.zeros(1), atol=1e-4, rtol=0)
    torch.testing.assert_close(taught(features(rays, log_depth + 0.3), samples), torch.tensor([0.3]), atol=1e-3, rtol=0)
    turned = rays + torch.tensor([0.1, 0, 0, 0, 0, 0])
    torch.testing.assert_close(taught(features(turned, log_depth), samples), torch.tensor([0.1]), atol=1e-3, rtol=0)


def test_depth_is_asked_for_where_it_is_known_and_parallax_tells_it() -> None:
    samples = a_room()
    rays, log_depth = truth_of(samples)
    hidden = dataclasses.replace(samples, depth_m=samples.depth_m * torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1, 1))
    wrong = log_depth + torch.tensor([0.0, 9.0, 0.0]).view(1, 3, 1, 1)
    assert reader()(features(rays, wrong), hidden) < 1e-3
    far = dataclasses.replace(samples, depth_m=samples.depth_m * 1000)
    assert reader()(features(rays, log_depth), far) < 1e-3


def test_origins_far_away_are_near() -> None:
    rays = torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0, -100.0], [1.0, 2.0, 3.0, 0.0, 0.0, 0.0]], requires_grad=True)
    short = shortened(rays)
    torch.testing.assert_close(short[:, :3], rays[:, :3])
    torch.testing.assert_close(short[:, 3:], torch.tensor([[0.0, 0.0, -torch.tensor(101.0).log().item()], [0.0, 0.0, 0.0]]))


def test_tokens_learn_what_cameras_mean() -> None:
    samples = make_samples(torch.tensor([5, 6]), 2, (56, 84), kinds="room", effects=False)
    torch.manual_seed(0)
    objective = AnyViewTraining(build_model(ANY_VIEW).train(), LossConfig(given_cameras=1.0), bf16=False, labels=ground_truth)  # type: ignore[arg-type]
    found = values_over_steps(objective, samples, fixed_draw(samples, chances=POSED), 40, 5e-3, "given_cameras")
    assert found[-1] < 0.4 * found[0]


def test_rays_are_asked_for_where_cameras_have_entered() -> None:
    odd = dataclasses.replace(ANY_VIEW, backbone=dataclasses.replace(ANY_VIEW.backbone, alt_start=1))
    for config, before, after in ((ANY_VIEW, [2], [3]), (odd, [2], [1, 3])):
        taught = GivenCameras(build_model(config).backbone)  # type: ignore[arg-type]
        assert (taught.before, taught.after) == (before, after)


@pytest.mark.parametrize("views", [1, 3])
def test_without_given_cameras_there_is_nothing_to_tell(views: int) -> None:
    samples = make_samples(torch.tensor([5]), views, (56, 84), effects=False)
    objective = AnyViewTraining(build_model(ANY_VIEW).train(), LossConfig(given_cameras=1.0), bf16=False, labels=ground_truth)  # type: ignore[arg-type]
    assert "given_cameras" not in objective(samples, fixed_draw(samples, chances=UNPOSED))
    posed = objective(samples, fixed_draw(samples, chances=POSED))
    assert posed["given_cameras"] > 0 and posed["loss"].isfinite()
