import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_core.geometry.camera_from_rays import camera_from_rays
from da3_core.geometry.rays import rays_from_cameras
from da3_core.geometry.rigid import rotation_angle

H, W = 56, 84


def intrinsics(fx: float, fy: float, cx: float, cy: float) -> torch.Tensor:
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), fx=st.floats(30, 300), fy=st.floats(30, 300), cx=st.floats(20, 64), cy=st.floats(12, 44))
def test_noiseless_cameras_are_recovered_whatever_the_principal_point(random_rigid, seed, fx, fy, cx, cy):
    T, K = random_rigid(seed, 1, 2), intrinsics(fx, fy, cx, cy).repeat(1, 2, 1, 1)
    T_found, K_found = camera_from_rays(rays_from_cameras(T, K, (H, W), (32, 48)), torch.ones(1, 2, 32, 48), (H, W))
    torch.testing.assert_close(T_found, T, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(K_found, K, atol=1e-4, rtol=1e-6)


def test_skew_does_not_leak_into_the_principal_point(random_rigid):
    K = intrinsics(70, 75, 40, 30)
    K[0, 1] = 9
    _, K_found = camera_from_rays(rays_from_cameras(random_rigid(2), K, (H, W), (32, 48)), torch.ones(32, 48), (H, W))
    torch.testing.assert_close(K_found, intrinsics(70, 75, 40, 30))


@pytest.mark.parametrize("yaw_deg", [0, 45, 89.9, 90, 135, 180])
def test_outliers_and_noise_are_borne_in_every_direction_of_view(yaw_deg):
    yaw = math.radians(yaw_deg)
    T = torch.eye(4)
    T[0, 0] = T[2, 2] = math.cos(yaw)
    T[0, 2], T[2, 0] = math.sin(yaw), -math.sin(yaw)
    T[:3, 3] = torch.tensor([1.0, -2, 3])
    K = intrinsics(70, 75, 42, 28).float()
    generator = torch.Generator().manual_seed(0)
    rays = rays_from_cameras(T, K, (H, W), (32, 48))
    rays += 0.01 * torch.randn(rays.shape, generator=generator)
    wrong = torch.rand(32, 48, generator=generator) < 0.2
    rays[..., :3] = torch.where(wrong.unsqueeze(-1), torch.randn(32, 48, 3, generator=generator), rays[..., :3])
    confidence = 1 + torch.rand(32, 48, generator=generator)
    T_found, K_found = camera_from_rays(rays, confidence, (H, W))
    assert math.degrees(rotation_angle(T[:3, :3].mT @ T_found[:3, :3])) < 1.0
    torch.testing.assert_close(K_found[[0, 1], [0, 1]], K[[0, 1], [0, 1]], rtol=0.03, atol=0)
    torch.testing.assert_close(T_found[:3, 3], T[:3, 3], atol=0.01, rtol=0)


def test_confidence_decides_between_two_cameras(random_rigid):
    T = random_rigid(3, 2, most=0.4).float()
    rays = rays_from_cameras(T, intrinsics(70, 75, 42, 28).float().repeat(2, 1, 1), (H, W), (32, 48))
    left = torch.arange(48) < 24
    mixed = torch.where(left[:, None], rays[0], rays[1])
    T_found, _ = camera_from_rays(mixed, torch.where(left, 5.0, 0.0).expand(32, 48), (H, W))
    torch.testing.assert_close(T_found, T[0], atol=1e-4, rtol=1e-4)


def test_the_centre_is_the_weighted_mean_of_origins(random_rigid):
    rays = rays_from_cameras(random_rigid(4), intrinsics(70, 75, 42, 28), (H, W), (32, 48)).clone()
    rays[..., 3:] = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    rays[16:, :, 3:] = torch.tensor([0.0, 0, 5], dtype=torch.float64)
    confidence = torch.ones(32, 48)
    confidence[16:] = 3
    T_found, _ = camera_from_rays(rays, confidence, (H, W))
    torch.testing.assert_close(T_found[:3, 3], torch.tensor([0, 0, 4.0], dtype=torch.float64))


def test_the_same_rays_give_the_same_camera_bit_for_bit(random_rigid):
    generator = torch.Generator().manual_seed(5)
    rays = torch.randn(2, 16, 24, 6, generator=generator) + torch.tensor([0, 0, 4.0, 0, 0, 0])
    first, second = (camera_from_rays(rays, torch.ones(2, 16, 24), (H, W)) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


@pytest.mark.parametrize("direction", [(0.0, 0, 1), (0.0, 0, 0)])
def test_rays_all_alike_are_refused(direction):
    rays = torch.tensor([*direction, 0, 0, 0]).expand(16, 24, 6)
    with pytest.raises(ValueError, match="camera decoder"):
        camera_from_rays(rays, torch.ones(16, 24), (H, W))


def test_rays_that_are_not_finite_are_refused(random_rigid):
    rays = rays_from_cameras(random_rigid(4), intrinsics(70, 75, 42, 28), (H, W), (16, 24))
    broken, confidence = rays.clone(), torch.ones(16, 24)
    broken[3, 4, 0] = torch.nan
    for arguments in ((broken, confidence), (rays, torch.full_like(confidence, torch.inf))):
        with pytest.raises(ValueError, match="not finite"):
            camera_from_rays(*arguments, (H, W))


def test_parity_with_the_reference(parity):
    case = parity("cases")
    T, K = camera_from_rays(case["rays"], torch.ones(1, 4, 32, 48), (56, 84))
    torch.testing.assert_close(T, case["T_world_cam_from_rays"], rtol=1e-4, atol=1e-5)
    half = torch.tensor([42.0, 28.0])
    torch.testing.assert_close(K[..., [0, 1], [0, 1]] / half, case["focal_from_rays"], rtol=1e-4, atol=0)
    torch.testing.assert_close(K[..., :2, 2] / half, case["principal_from_rays"], rtol=1e-4, atol=0)
