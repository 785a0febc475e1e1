import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_core.geometry.pinhole import fov_from_K, project, scale_K
from da3_core.geometry.rays import points_from_rays, rays_from_cameras
from da3_core.geometry.rigid import invert_rigid, quaternion_from_rotation, rotation_from_quaternion

K = torch.tensor([[70.0, 0, 44], [0, 75, 25], [0, 0, 1]], dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_points_on_rays_project_back_to_their_pixel(random_rigid, seed):
    T_world_cam = random_rigid(seed, 2)
    depth = 0.5 + torch.rand(2, 8, 21, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    points = points_from_rays(rays_from_cameras(T_world_cam, K.expand(2, 3, 3), (56, 84), (8, 21)), depth)
    T_cam_world = invert_rigid(T_world_cam)
    in_camera = torch.einsum("nij,nhwj->nhwi", T_cam_world[:, :3, :3], points) + T_cam_world[:, None, None, :3, 3]
    torch.testing.assert_close(in_camera[..., 2], depth)
    x, y = torch.meshgrid(torch.arange(21) + 0.5, torch.arange(8) + 0.5, indexing="xy")
    expected = torch.stack([x, y], -1).double().expand(2, 8, 21, 2)
    torch.testing.assert_close(project(in_camera, scale_K(K, 21 / 84, 8 / 56).expand(2, 3, 3)), expected)


def test_rays_are_differentiable_in_both_cameras(random_rigid):
    T = random_rigid(5, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda t, k: rays_from_cameras(t, k, (56, 84), (2, 3)), (T, K.repeat(2, 1, 1).requires_grad_()))


def test_rays_keep_full_precision_under_autocast(random_rigid):
    T, K32 = random_rigid(5, 2).float(), K.repeat(2, 1, 1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = rays_from_cameras(T, K32, (56, 84), (8, 21))
    assert torch.equal(cast, rays_from_cameras(T, K32, (56, 84), (8, 21)))


def test_parity_with_the_reference(parity):
    case = parity("cases")
    T_world_cam = invert_rigid(case["T_cam_world"])
    torch.testing.assert_close(rays_from_cameras(T_world_cam, case["K"], (56, 84), (32, 48)), case["rays"], rtol=1e-5, atol=1e-6)
    encoding = torch.cat([T_world_cam[..., :3, 3], quaternion_from_rotation(T_world_cam[..., :3, :3]), fov_from_K(case["K"], 56, 84)], -1)
    torch.testing.assert_close(encoding, case["pose_encoding"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        rotation_from_quaternion(case["pose_encoding"][..., 3:7]), case["T_world_cam_back"][..., :3, :3], rtol=1e-5, atol=1e-6
    )
