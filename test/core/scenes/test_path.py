import itertools
import math

import numpy as np
import pytest
import torch

from da3_core.scenes.path import START_NS, PathSettings, robot_path
from da3_core.scenes.primitives import distance_below
from da3_core.scenes.splits import DEMO
from da3_core.scenes.vec import Vec

SEED = DEMO.start + 14


@pytest.fixture(scope="module")
def drive():
    return robot_path(SEED, PathSettings(duration_s=6.0, size=(48, 64), image_hz=5.0))


def test_frames_come_in_time_with_truth(drive):
    frames = list(itertools.islice(drive.frames(), 4))
    assert [f.stamp_ns for f in frames] == drive.image_stamps_ns[:4] and len(drive.image_stamps_ns) == 30
    for frame in frames:
        assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8
        assert np.array_equal(frame.sky, np.isinf(frame.depth_m))
        assert np.allclose(frame.T_world_cam, drive.T_world_base(frame.stamp_ns) @ drive.T_base_cam)
        assert 30 < frame.image.mean() < 225
    assert drive.calibration.K[0, 2] == 31.5 and drive.calibration.K[1, 2] == 23.5


def test_the_camera_looks_ahead_and_is_upright(drive):
    R = drive.T_base_cam[:3, :3]
    assert np.allclose(R @ R.T, np.eye(3)) and math.isclose(np.linalg.det(R), 1.0)
    assert R[0, 2] > 0.99 and R[2, 1] < -0.99 and R[1, 0] == -1.0


def test_the_way_is_smooth_free_and_along_the_heading(drive):
    stamps = [START_NS + k * 20_000_000 for k in range(300)]
    poses = np.stack([drive.T_world_base(s) for s in stamps])
    steps = poses[1:, :2, 3] - poses[:-1, :2, 3]
    speed = np.linalg.norm(steps, axis=1) / 0.02
    assert speed[:40].max() < 1e-6 and abs(speed[-100:] - 0.45).max() < 0.02
    sideways = -poses[:-1, 1, 0] * steps[:, 0] + poses[:-1, 0, 0] * steps[:, 1]
    assert np.abs(sideways).max() < 1e-3
    points = torch.from_numpy(poses[:, :3, 3]).float()
    frames = drive._worlds.solids.frames().map(lambda c: c[0, :, None])
    assert distance_below(frames, Vec(points[:, 0], points[:, 1], torch.full((300,), 0.4))).min() > 0.15


def test_odometry_drifts_a_little(drive):
    messages = drive.odometry()
    assert len(messages) == 301 and np.array_equal(messages[0].T_odom_base, np.eye(4))
    assert messages[0].stamp_ns < drive.image_stamps_ns[0] and messages[-1].stamp_ns > drive.image_stamps_ns[-1]
    truth = np.linalg.inv(messages[0].T_world_base) @ messages[-1].T_world_base
    error = np.linalg.norm(truth[:2, 3] - messages[-1].T_odom_base[:2, 3])
    travelled = sum(m.linear_m_s for m in messages) / 50
    assert 1.5 < travelled < 2.5 and 1e-4 < error < 0.1 * travelled


def test_without_flaws_odometry_is_the_truth():
    settings = PathSettings(duration_s=6.0, scale_error=0.0, heading_drift_rad_s=0.0, noise=0.0)
    last = robot_path(SEED, settings).odometry()
    truth = np.linalg.inv(last[0].T_world_base) @ last[-1].T_world_base
    assert np.allclose(truth, last[-1].T_odom_base, atol=2e-3)


def test_a_room_without_a_way_is_refused():
    with pytest.raises(ValueError, match="another seed"):
        for seed in range(DEMO.start, DEMO.start + 60):
            robot_path(seed)
