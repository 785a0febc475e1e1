"""The same numbers on a GPU, at full precision whatever TF32 and autocast are set to, and without waiting where that is promised."""

import pytest
import torch

from da3_core.geometry.baselines import scale_from_baselines
from da3_core.geometry.camera_from_rays import camera_from_rays
from da3_core.geometry.pinhole import K_from_fov, K_from_ros, fov_from_K, project, scale_K, unproject
from da3_core.geometry.rays import points_from_rays, rays_from_cameras
from da3_core.geometry.rigid import interpolate_rigid, invert_rigid, matrix_product, quaternion_from_rotation, rotation_from_quaternion
from da3_core.geometry.scale_shift import median_scale, ransac_scale_shift
from da3_core.geometry.sim3 import umeyama

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
K = torch.tensor([[70.0, 0, 42], [0, 75, 28], [0, 0, 1]])


def from_rays_and_back(T_world_cam: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    T = interpolate_rigid(T_world_cam, matrix_product(T_world_cam, invert_rigid(T_world_cam)), 0.5)
    R = rotation_from_quaternion(quaternion_from_rotation(T[..., :3, :3]))
    K = scale_K(K_from_ros(K_from_fov(fov_from_K(K, 56, 84), 56, 84)), 0.5, 0.25)
    rays = rays_from_cameras(T, K, (14, 42), (14, 42))
    points = points_from_rays(rays, torch.full_like(rays[..., 0], 2.0))
    return project(points + 10, K) + R.sum() + unproject(rays[..., 2], K)[..., :2]


def test_rigid_pinhole_and_rays_do_not_wait_and_keep_their_precision(random_rigid):
    T, K_views = random_rigid(1, 4).float(), K.expand(4, 3, 3)
    expected = from_rays_and_back(T, K_views)
    T, K_views = T.cuda(), K_views.cuda()
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            found = from_rays_and_back(T, K_views)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.backends.cuda.matmul.allow_tf32 = False
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_cameras_from_rays(random_rigid):
    T, K_views = random_rigid(1, 4).float().cuda(), K.repeat(4, 1, 1).cuda()
    T_found, K_found = camera_from_rays(rays_from_cameras(T, K_views, (56, 84), (32, 48)), torch.ones(4, 32, 48, device="cuda"), (56, 84))
    torch.testing.assert_close(T_found, T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(K_found, K_views, atol=1e-2, rtol=1e-4)


def test_alignments():
    p = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).cuda()
    assert umeyama(3 * p + 1, p).scale.item() == pytest.approx(3, rel=1e-5)
    depth, valid = p.abs().sum(-1), torch.ones(500, dtype=torch.bool, device="cuda")
    assert median_scale(depth, 2 * depth, valid).item() == pytest.approx(2)
    assert ransac_scale_shift(depth, 2 * depth + 1, valid)[0].item() == pytest.approx(2, rel=1e-5)
    found = scale_from_baselines(2 * p[:8], p[:8], 0.05)
    assert found is not None and found[0] == pytest.approx(2)
