"""The rasteriser that the Gaussian head is trained with sees what our cameras see."""

from __future__ import annotations

import pytest
import torch

from da3_core.geometry.pinhole import project
from da3_core.geometry.rigid import invert_rigid, rotate
from da3_core.model import build_model
from da3_core.training.config import LossConfig
from da3_core.training.gaussians import GaussianTraining, load_rasteriser
from da3_core.training.objective import ground_truth
from da3_core.types import Gaussians

from .fixed_batch import WITH_GAUSSIANS, fixed_draw, fixed_samples, on_gpu, values_over_steps

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


@pytest.fixture(autouse=True, scope="module")
def needs_gsplat() -> None:
    pytest.importorskip("gsplat")


def test_a_gaussian_is_drawn_where_it_is_projected() -> None:
    samples = on_gpu(fixed_samples(b=2, n=3, h=56, w=84))
    T_cam_world = invert_rigid(samples.T_world_cam)
    in_camera = torch.tensor([0.4, -0.2, 2.5], device="cuda")  # of every scene's view 1
    mean = rotate(samples.T_world_cam[:, 1, :3, :3], in_camera.expand(2, 3)) + samples.T_world_cam[:, 1, :3, 3]
    gaussians = Gaussians(
        mean=mean[:, None],
        scale=torch.full((2, 1, 3), 0.05, device="cuda"),
        quaternion=torch.tensor([1.0, 0, 0, 0], device="cuda").expand(2, 1, 4),
        sh=torch.cat([torch.ones(2, 1, 3, 1), torch.zeros(2, 1, 3, 8)], -1).cuda(),
        opacity=torch.full((2, 1), 0.9, device="cuda"),
    )
    image, depth = load_rasteriser()(gaussians, T_cam_world, samples.K, (56, 84))
    assert image.shape == (2, 3, 3, 56, 84) and depth.shape == (2, 3, 56, 84)
    for b in range(2):
        brightness = image[b, 1].mean(0)
        y, x = (i.item() for i in torch.where(brightness == brightness.max()))
        expected = project(in_camera, samples.K[b, 1]).tolist()
        assert (x + 0.5, y + 0.5) == pytest.approx(expected, abs=1.0)
        assert depth[b, 1, y, x].item() == pytest.approx(2.5, rel=1e-3)


def test_the_gaussian_head_learns_to_draw_the_images() -> None:
    torch.manual_seed(0)
    objective = GaussianTraining(build_model(WITH_GAUSSIANS).train(), LossConfig(), bf16=True, labels=ground_truth).cuda()  # type: ignore[arg-type]
    samples = on_gpu(fixed_samples(b=2, n=3, h=56, w=84))
    found = values_over_steps(objective, samples, fixed_draw(samples), 40, 1e-2, "colour")
    assert found[-1] < 0.8 * found[0]
