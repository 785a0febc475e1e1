import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from da3_core.geometry.rigid import (
    interpolate_rigid,
    invert_rigid,
    matrix_product,
    quaternion_from_rotation,
    rigid_from_rt,
    rotate,
    rotation_angle,
    rotation_from_quaternion,
)

seeds = st.integers(0, 2**31)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_inverse_undoes(random_rigid, seed):
    T = random_rigid(seed, 2, 3)
    torch.testing.assert_close(T @ invert_rigid(T), torch.eye(4, dtype=T.dtype).expand(2, 3, 4, 4))
    torch.testing.assert_close(rigid_from_rt(T[..., :3, :3], T[..., :3, 3]), T)


@settings(max_examples=50, deadline=None)
@given(seed=seeds, scale=st.floats(0.01, 100))
def test_quaternions_there_and_back_like_scipy(random_rotation, seed, scale):
    R = random_rotation(seed, 5, most=math.pi)
    q = quaternion_from_rotation(R)
    scipy_q = torch.from_numpy(Rotation.from_matrix(R.numpy()).as_quat(canonical=True))
    torch.testing.assert_close(q, scipy_q, atol=1e-9, rtol=0)
    torch.testing.assert_close(rotation_from_quaternion(q * scale), R)


@pytest.mark.parametrize("axis", [(1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0), (1.0, 1, 0), (0, 1.0, -1)])
def test_half_turns_have_a_quaternion_and_a_finite_gradient(axis):
    axis = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    R = (2 * torch.outer(axis, axis) - torch.eye(3)).requires_grad_()
    q = quaternion_from_rotation(R)
    torch.testing.assert_close(q[:3].abs(), axis.abs())
    q.sum().backward()
    assert R.grad.isfinite().all()
    assert rotation_angle(R.detach()).item() == pytest.approx(math.pi)


def test_quaternion_gradients_are_those_of_finite_differences(random_rotation):
    R = random_rotation(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(quaternion_from_rotation, R)
    assert torch.autograd.gradcheck(rotation_from_quaternion, torch.randn(4, 4, dtype=torch.float64).requires_grad_())


@pytest.mark.parametrize("angle", [1e-7, 1e-3, 1.0, math.pi - 1e-4])
def test_rotation_angle_is_accurate_at_both_ends_in_float32(angle):
    R = torch.from_numpy(Rotation.from_rotvec([0.6 * angle, 0, 0.8 * angle]).as_matrix()).float()
    assert rotation_angle(R).item() == pytest.approx(angle, rel=1e-3, abs=1e-6 if angle > 3 else 1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, alpha=st.floats(0, 1))
def test_interpolation_is_slerp(random_rigid, seed, alpha):
    T_a, T_b = random_rigid(seed), random_rigid(seed + 7)
    expected = Slerp([0, 1], Rotation.from_matrix(torch.stack([T_a, T_b])[:, :3, :3].numpy()))(alpha).as_matrix()
    middle = interpolate_rigid(T_a, T_b, alpha)
    torch.testing.assert_close(middle[:3, :3], torch.from_numpy(expected), atol=1e-7, rtol=0)
    torch.testing.assert_close(middle[:3, 3], (1 - alpha) * T_a[:3, 3] + alpha * T_b[:3, 3])
    batched = interpolate_rigid(T_a.expand(2, 4, 4), T_b.expand(2, 4, 4), torch.tensor([0.0, alpha], dtype=torch.float64))
    torch.testing.assert_close(batched, torch.stack([T_a, middle]))


def test_interpolation_between_equal_poses_is_that_pose(random_rigid):
    T = random_rigid(1)
    torch.testing.assert_close(interpolate_rigid(T, T, 0.3), T)


def test_products_are_exact_under_autocast(random_rotation):
    A, B = random_rotation(1, 6).float(), random_rotation(2, 6).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        product, rotated = matrix_product(A, B), rotate(A, B[..., 0])
    torch.testing.assert_close(product, A @ B)
    torch.testing.assert_close(rotated, (A @ B)[..., 0])
