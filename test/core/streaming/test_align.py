from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from da3_core.geometry import sim3
from da3_core.geometry.rigid import rigid_from_rt, rotation_angle
from da3_core.streaming.align import join_cameras, scale_from_depth, weighted_median
from da3_core.streaming.log_scale import LogScale
from da3_core.streaming.placed import DepthSamples, PlacedView, depth_samples
from da3_core.types import Sim3


def rotations(n: int, rng: np.random.Generator, sigma_deg: float = 180.0) -> Tensor:
    return torch.from_numpy(Rotation.from_rotvec(np.deg2rad(sigma_deg) * rng.normal(size=(n, 3)) / np.sqrt(3)).as_matrix())


def cameras(n: int, rng: np.random.Generator) -> Tensor:
    return rigid_from_rt(rotations(n, rng), torch.from_numpy(rng.normal(size=(n, 3))))


def random_sim3(rng: np.random.Generator) -> Sim3:
    return Sim3(torch.tensor(math.exp(rng.uniform(-1, 1))), rotations(1, rng)[0], torch.from_numpy(rng.normal(0, 5, 3)))


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_a_similarity_is_recovered_from_the_cameras_that_it_moved(n: int) -> None:
    rng = np.random.default_rng(n)
    S, T_window_cam = random_sim3(rng), cameras(n, rng)
    found = join_cameras(sim3.transform_cameras(S, T_window_cam), T_window_cam, float(S.scale))
    torch.testing.assert_close(found.R, S.R, atol=1e-9, rtol=0)
    torch.testing.assert_close(found.t, S.t, atol=1e-9, rtol=0)


def test_a_minority_of_wild_cameras_hardly_moves_it_and_noise_is_averaged() -> None:
    rng = np.random.default_rng(0)
    errors = {"rotation": [], "translation": []}
    for _ in range(100):
        S, T_window_cam = random_sim3(rng), cameras(9, rng)
        T_world_cam = sim3.transform_cameras(S, T_window_cam)
        noisy = T_world_cam.clone()
        noisy[:, :3, :3] = T_world_cam[:, :3, :3] @ rotations(9, rng, 1.0)
        noisy[:, :3, 3] += torch.from_numpy(rng.normal(0, 0.01, (9, 3)))
        noisy[:3] = cameras(3, rng) * torch.tensor([1, 1, 1, 10.0])
        found = join_cameras(noisy, T_window_cam, float(S.scale))
        errors["rotation"].append(float(torch.rad2deg(rotation_angle(found.R @ S.R.mT))))
        errors["translation"].append(
            float(torch.linalg.vector_norm(sim3.transform_cameras(found, T_window_cam)[3:, :3, 3] - T_world_cam[3:, :3, 3], dim=-1).mean())
        )
    assert np.median(errors["rotation"]) < 1.0
    assert np.max(errors["rotation"]) < 4
    assert np.median(errors["translation"]) < 0.05


def placed(depth: Tensor, weight: Tensor | None = None, variance: float = 0.0) -> PlacedView:
    samples = DepthSamples(depth, torch.ones_like(depth) if weight is None else weight)
    return PlacedView(torch.eye(4, dtype=torch.float64), samples, LogScale(0.0, variance), True)


def test_scale_comes_from_shared_depth_despite_noise_and_confident_outliers() -> None:
    rng = np.random.default_rng(0)
    depth = torch.from_numpy(rng.uniform(1, 8, 1000))
    noisy = depth * torch.from_numpy(np.exp(rng.normal(0, 0.05, 1000))) / 3.0
    noisy[:300] *= torch.from_numpy(rng.uniform(1.5, 10, 300))  # all to one side: the worst for a mean
    sure = torch.ones(1000, dtype=torch.float64)
    sure[300:] = 4.0
    found = scale_from_depth([placed(depth, variance=0.01)], [DepthSamples(noisy, sure)])
    assert found is not None
    assert math.exp(found.value) == pytest.approx(3.0, rel=0.02)
    assert 0.0104 < found.variance < 0.0109  # inherited, and what views of a window are off by


def test_confidence_decides_where_half_of_the_depth_is_wild() -> None:
    depth = torch.ones(100, dtype=torch.float64)
    wild = torch.where(torch.arange(100) < 60, 5.0, 2.0).double()
    weights = torch.where(torch.arange(100) < 60, 1.0, 3.0).double()
    found = scale_from_depth([placed(depth, weights)], [DepthSamples(wild, weights)])
    assert found is not None
    assert math.exp(found.value) == pytest.approx(0.5)


def test_without_enough_depth_in_common_there_is_no_scale() -> None:
    depth = torch.ones(100, dtype=torch.float64)
    unknown = torch.full_like(depth, torch.nan)
    assert scale_from_depth([], []) is None
    assert scale_from_depth([placed(unknown)], [DepthSamples(depth, depth)]) is None
    not_in_metres = PlacedView(torch.eye(4), None, LogScale(0.0, 0.0), False)
    assert scale_from_depth([not_in_metres], [DepthSamples(depth, depth)]) is None


def test_the_weighted_median_is_where_half_the_weight_is_reached() -> None:
    values, weights = torch.tensor([5.0, 1.0, 3.0, 2.0]), torch.tensor([1.0, 1.0, 5.0, 1.0])
    assert weighted_median(values, weights) == 3.0
    assert weighted_median(values, torch.ones(4)) == 2.0
    assert weighted_median(values, torch.tensor([0.0, 1.0, 0.0, 0.0])) == 1.0


def test_samples_lie_on_one_grid_whatever_the_values() -> None:
    image = torch.arange(100.0 * 70).reshape(70, 100)
    samples = depth_samples(image, image + 1)
    assert 900 < len(samples.depth) < 1400
    torch.testing.assert_close(samples.weight, samples.depth + 1)
    assert depth_samples(torch.ones(14, 14), None).depth.shape == (196,)
