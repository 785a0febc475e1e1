import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from da3_core.evaluation.pose import PoseErrors, auc, pose_errors, rra, rta
from da3_core.geometry.sim3 import transform_cameras
from da3_core.types import Sim3


def poses(seed: int, n: int) -> torch.Tensor:
    T = torch.eye(4, dtype=torch.float64).repeat(n, 1, 1)
    T[:, :3, :3] = torch.from_numpy(Rotation.random(n, rng=seed).as_matrix())
    T[:, :3, 3] = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return T


def about_z(angle_deg: float) -> torch.Tensor:
    return torch.from_numpy(Rotation.from_euler("z", angle_deg, degrees=True).as_matrix())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 6), scale=st.floats(0.01, 100))
def test_another_frame_and_scale_are_no_error(seed, n, scale):
    truth, frame = poses(seed, n), poses(seed + 1, 1)[0]
    moved = transform_cameras(Sim3(torch.tensor(scale, dtype=torch.float64), frame[:3, :3], frame[:3, 3]), truth)
    errors = pose_errors(moved, truth)
    assert errors.rotation_deg.shape == errors.translation_deg.shape == (n * (n - 1) // 2,)
    assert errors.rotation_deg.max() < 1e-5 and errors.translation_deg.max() < 1e-5
    assert auc(errors, 3) == auc(errors, 30) == auc(errors, 30, "joint") == 1


def test_errors_of_constructed_pairs():
    """Camera 1 turns by 10 degrees too much about its axis: its rotation is wrong to both others, a translation only where seen from it."""
    truth = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    truth[1, 0, 3], truth[2, 1, 3] = 1.0, 2.0
    found = truth.clone()
    found[1, :3, :3] = about_z(10)
    errors = pose_errors(found, truth)  # pairs 01, 02, 12
    torch.testing.assert_close(errors.rotation_deg, torch.tensor([10.0, 0, 10], dtype=torch.float64))
    torch.testing.assert_close(errors.translation_deg, torch.tensor([0.0, 0, 10], dtype=torch.float64))


def test_the_sign_of_a_translation_does_not_count():
    truth = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    truth[1, 0, 3] = 1.0
    for angle, error in ((0, 0), (60, 60), (100, 80), (180, 0)):
        found = truth.clone()
        found[1, :3, 3] = about_z(angle) @ truth[1, :3, 3]
        assert pose_errors(found, truth).translation_deg.item() == pytest.approx(error, abs=1e-6)


def test_without_a_true_baseline_only_rotation_counts():
    truth = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    truth[2, 0, 3] = 1.0
    found = truth.clone()
    found[1, 1, 3] = 0.1  # pair 01 stands still in truth
    errors = pose_errors(found, truth)
    assert errors.translation_deg.isnan().tolist() == [True, False, False]
    assert rta(errors, 1) == 0.5 and rra(errors, 1) == 1.0
    assert math.isnan(auc(pose_errors(truth[:2], truth[:2]), 30))


def test_a_predicted_standstill_is_as_wrong_as_can_be():
    truth = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    truth[1, 0, 3] = 1.0
    assert pose_errors(torch.eye(4).repeat(2, 1, 1), truth).translation_deg.item() == 90


def test_a_pose_that_is_not_finite_is_as_wrong_as_can_be():
    truth = torch.eye(4).repeat(3, 1, 1)
    truth[:, 0, 3] = torch.tensor([0.0, 1.0, 1.0])
    found = truth.clone()
    found[2, 0, 0] = torch.nan
    errors = pose_errors(found, truth)  # of the pairs 01, 02, 12
    assert errors.rotation_deg.tolist() == pytest.approx([0, 180, 180], abs=1e-4)
    assert errors.translation_deg[:2].tolist() == pytest.approx([0, 90], abs=1e-4)
    assert errors.translation_deg[2].isnan()  # no true baseline
    assert auc(errors, 30) == pytest.approx(1 / 3)


def test_auc_by_hand():
    """Each pair is good in one of the two: no pair is good in both, which the paper's curve does not ask for."""
    errors = PoseErrors(torch.tensor([0.5, 40.0]), torch.tensor([40.0, 1.5]))
    assert [rra(errors, t) for t in (0.5, 1, 30)] == [0.0, 0.5, 0.5]
    assert [rta(errors, t) for t in (1, 2, 30)] == [0.0, 0.5, 0.5]
    assert auc(errors, 3) == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert auc(errors, 30) == pytest.approx(29 * 0.5 / 30)
    assert auc(errors, 30, "joint") == 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_joint_curve_is_the_protocols_histogram_and_never_above(seed):
    rotation, translation = 40 * torch.rand(2, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    errors = PoseErrors(rotation, translation)
    histogram = torch.histogram(torch.maximum(rotation, translation), bins=torch.arange(31.0, dtype=torch.float64)).hist / 50
    assert auc(errors, 30, "joint") == pytest.approx(histogram.cumsum(0).mean().item())
    assert auc(errors, 30, "joint") <= auc(errors, 30)


def test_one_view_has_no_pair():
    with pytest.raises(ValueError, match="two views"):
        pose_errors(torch.eye(4)[None], torch.eye(4)[None])
