import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from da3_core.evaluation.trajectory import trajectory_errors

STAMPS = 1_700_000_000_000_000_000 + np.arange(50) * 100_000_000


def circle(turn_deg: float = 0.0) -> np.ndarray:
    angle = np.linspace(0, 4, 50)
    T = np.tile(np.eye(4), (50, 1, 1))
    T[:, :3, :3] = Rotation.from_euler("z", angle[:, None] + np.radians(turn_deg) * np.arange(50)[:, None]).as_matrix()
    T[:, :3, 3] = np.stack([np.cos(angle), np.sin(angle), 0.1 * angle], -1)
    return T


def moved(T: np.ndarray, scale: float) -> np.ndarray:
    S = np.eye(4)
    S[:3, :3], S[:3, 3] = Rotation.from_euler("xyz", [0.3, -0.5, 1.2]).as_matrix(), [5, -6, 7]
    T = T.copy()
    T[:, :3, 3] *= scale
    return S @ T


def test_the_truth_has_no_error():
    found = trajectory_errors(STAMPS, circle(), STAMPS, circle(), align="none")
    assert found.ate_m == 0 and found.rpe_m < 1e-12 and found.rpe_deg < 1e-4
    assert found.matched == 50
    assert found.length_m == pytest.approx(4 * np.hypot(1, 0.1), rel=1e-2)


def test_alignment_undoes_a_frame_and_a_scale():
    assert trajectory_errors(STAMPS, moved(circle(), 1), STAMPS, circle()).ate_m < 1e-9
    found = trajectory_errors(STAMPS, moved(circle(), 2.5), STAMPS, circle(), align="sim3")
    assert found.ate_m < 1e-9 and found.scale == pytest.approx(0.4)
    assert trajectory_errors(STAMPS, moved(circle(), 2.5), STAMPS, circle(), align="se3").ate_m > 0.5


def test_constructed_errors_are_measured():
    noise = np.random.default_rng(0).normal(0, 0.05, (50, 3))
    noisy = circle()
    noisy[:, :3, 3] += noise
    found = trajectory_errors(STAMPS, noisy, STAMPS, circle(), align="none")
    assert found.ate_m == pytest.approx(np.sqrt((noise**2).sum(-1).mean()))
    assert trajectory_errors(STAMPS, circle(turn_deg=0.5), STAMPS, circle(), align="none").rpe_deg == pytest.approx(0.5)


def test_poses_are_matched_by_stamp():
    found = trajectory_errors(STAMPS[::5] + 2_000_000, circle()[::5], STAMPS, circle(), align="none")
    assert found.matched == 10 and found.ate_m == 0


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="cannot be compared"):
        trajectory_errors(STAMPS + 10**12, circle(), STAMPS, circle())
    with pytest.raises(ValueError, match="only 2 poses"):
        trajectory_errors(STAMPS[:2], circle()[:2], STAMPS, circle())
    with pytest.raises(ValueError, match="Umeyama"):
        trajectory_errors(STAMPS, np.tile(np.eye(4), (50, 1, 1)), STAMPS, circle())
