"""Recorded frames become samples without losing what was recorded."""

from __future__ import annotations

import numpy as np
import pytest

from da3_core.datasets import RecordedFrame, samples_from_frames


def frame_at(centre: list[float]) -> RecordedFrame:
    T_world_cam = np.diag([1.0, -1.0, -1.0, 1.0])
    T_world_cam[:3, 3] = centre
    return RecordedFrame(0, np.zeros((4, 6, 3), np.uint8), np.ones((4, 6), np.float32), np.eye(3), T_world_cam)


def test_centimetres_survive_map_coordinates() -> None:
    scenes = [
        [frame_at([500_000, 5_400_000, 300]), frame_at([500_000.01, 5_400_000.02, 299.97])],
        [frame_at([500_100, 5_400_000, 300]), frame_at([500_100.04, 5_400_000, 300])],
    ]
    recorded = scenes[0][1].T_world_cam.copy()
    samples = samples_from_frames(scenes, "cpu")
    assert samples.T_world_cam[:, 0, :3, 3].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert samples.T_world_cam[0, 1, :3, 3].tolist() == pytest.approx([0.01, 0.02, -0.03], abs=1e-6)
    assert samples.T_world_cam[1, 1, :3, 3].tolist() == pytest.approx([0.04, 0, 0], abs=1e-6)
    assert samples.T_world_cam[0, 1].diagonal().tolist() == [1, -1, -1, 1]
    assert np.array_equal(scenes[0][1].T_world_cam, recorded)
