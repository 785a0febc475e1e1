import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_core.geometry.pinhole import (
    K_from_fov,
    K_from_parameters,
    K_from_ros,
    fov_from_K,
    pixel_centres,
    project,
    ros_from_K,
    scale_K,
    unproject,
)

focals = st.floats(20, 2000)


def intrinsics(fx: float, fy: float, cx: float, cy: float) -> torch.Tensor:
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def test_pixel_centres_are_half_in():
    centres = pixel_centres(2, 3)
    assert centres[0, 0].tolist() == [0.5, 0.5]
    assert centres[1, 2].tolist() == [2.5, 1.5]
    torch.testing.assert_close(centres.mean((0, 1)), torch.tensor([1.5, 1.0]))  # the middle of the span


def test_unproject_against_a_hand_computed_point():
    depth = torch.zeros(2, 4)
    depth[1, 3] = 2.0
    point = unproject(depth, intrinsics(4, 8, 2, 1).float())[1, 3]
    torch.testing.assert_close(point, torch.tensor([(3.5 - 2) / 4 * 2, (1.5 - 1) / 8 * 2, 2.0]))


@settings(max_examples=25, deadline=None)
@given(fx=focals, fy=focals, cx=st.floats(-50, 50), cy=st.floats(-50, 50), skew=st.floats(-5, 5), seed=st.integers(0, 2**31))
def test_project_undoes_unproject(fx, fy, cx, cy, skew, seed):
    K = intrinsics(fx, fy, cx, cy)
    K[0, 1] = skew
    depth = 0.1 + 10 * torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    points = unproject(depth, K.expand(2, 3, 3, 3))
    torch.testing.assert_close(points[..., 2], depth)
    torch.testing.assert_close(project(points, K.expand(2, 3, 3, 3)), pixel_centres(5, 7, dtype=torch.float64).expand(2, 3, 5, 7, 2))
    torch.testing.assert_close(project(points, K), torch.einsum("ij,...j->...i", K, points / points[..., 2:])[..., :2])


def test_every_view_uses_its_own_intrinsics():
    K = torch.stack([intrinsics(10, 10, 2, 2), intrinsics(20, 20, 2, 2)])
    x = unproject(torch.ones(2, 4, 4, dtype=torch.float64), K)[..., 0]
    torch.testing.assert_close(x[0], 2 * x[1])


@settings(max_examples=25, deadline=None)
@given(fx=focals, fy=focals)
def test_fov_there_and_back(fx, fy):
    K = intrinsics(fx, fy, 42, 28)
    fov = fov_from_K(K, 56, 84)
    assert math.isclose(fov[0], 2 * math.atan2(28, fy)) and math.isclose(fov[1], 2 * math.atan2(42, fx))
    torch.testing.assert_close(K_from_fov(fov, 56, 84), K)


def test_fov_of_zero_is_clamped_not_infinite():
    K = K_from_fov(torch.zeros(2), 56, 84)
    torch.testing.assert_close(K, intrinsics(42e6, 28e6, 42, 28).float())


@settings(max_examples=25, deadline=None)
@given(fx=focals, fy=focals, sx=st.floats(0.1, 3), sy=st.floats(0.1, 3))
def test_scaling_the_image_scales_the_pixel(fx, fy, sx, sy):
    K = intrinsics(fx, fy, 31, 17)
    point = torch.tensor([[0.3, -0.2, 1.7]], dtype=torch.float64)
    expected = project(point, K) * torch.tensor([sx, sy], dtype=torch.float64)
    torch.testing.assert_close(project(point, scale_K(K, sx, sy)), expected)


def test_the_border_to_ros_is_half_a_pixel():
    K_ros = intrinsics(300, 310, 159.5, 119.5)  # the centre of 320 x 240, counted from the first pixel's centre
    K = K_from_ros(K_ros)
    torch.testing.assert_close(K, intrinsics(300, 310, 160, 120))
    torch.testing.assert_close(ros_from_K(K), K_ros)
    assert K_ros[0, 2] == 159.5


def test_K_from_parameters_is_batched():
    f = torch.tensor([3.0, 4.0])
    K = K_from_parameters(f, f + 1, f + 2, f + 3)
    torch.testing.assert_close(K[1], intrinsics(4, 5, 6, 7).float())


def test_unproject_and_project_are_differentiable():
    depth = (1 + torch.rand(2, 3, 3, dtype=torch.float64)).requires_grad_()
    K = intrinsics(5, 6, 1.5, 1.4).repeat(2, 1, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda d, k: project(unproject(d, k) + 0.1, k), (depth, K))
