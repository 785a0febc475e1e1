from __future__ import annotations

import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from da3_core.datasets import RecordedFrame, TumRgbdRecording
from da3_core.geometry.pinhole import project, unproject

ROOT = Path(__file__).resolve().parents[3]
for needed in ("trimesh", "embreex", "skimage"):
    pytest.importorskip(needed, reason=f"scripts/foreign_rooms.py needs {needed}: pip install trimesh embreex scikit-image")


def write_room(folder: Path, seed: tuple[int, int], size: tuple[int, int]) -> TumRgbdRecording:
    script = runpy.run_path(str(ROOT / "scripts/foreign_rooms.py"))
    script["write_room"](folder, np.random.default_rng(seed), size)
    return TumRgbdRecording(folder)


def disagreement(frame: RecordedFrame, other: RecordedFrame) -> tuple[np.ndarray, np.ndarray]:
    """By how much (relative) the depth, and (in 255) the colour, of a frame's pixels differ from those of another where they lie in it."""
    points = unproject(torch.from_numpy(frame.depth_m).double(), torch.from_numpy(frame.K)).numpy()
    T = np.linalg.inv(other.T_world_cam) @ frame.T_world_cam
    points = points @ T[:3, :3].T + T[:3, 3]
    u, v = np.moveaxis(project(torch.from_numpy(points), torch.from_numpy(other.K)).numpy() - 0.5, -1, 0).astype(np.float32)
    # 1 / z is linear in the pixel on every plane: interpolated, it is exact
    inverse, image = (cv2.remap(x, u, v, cv2.INTER_LINEAR) for x in (1 / other.depth_m, other.image.astype(np.float32)))
    h, w = other.depth_m.shape
    inside = (points[..., 2] > 0.1) & (u > 0) & (u < w - 1) & (v > 0) & (v < h - 1)
    return np.abs(points[..., 2] * inverse - 1)[inside], np.abs(image - frame.image).mean(axis=-1)[inside]


def test_frames_of_a_room_agree_about_what_both_see(tmp_path: Path) -> None:
    recording = write_room(tmp_path, (0, 1), (96, 128))
    assert len(recording) == 8
    for i in range(7):
        depth, colour = disagreement(recording[i], recording[i + 1])
        assert len(depth) > 96 * 128 / 3
        assert (depth < 0.01).mean() > 0.85  # the rest is hidden from the other frame
        assert np.median(depth) < 3e-4
        assert np.median(colour) < 5


def test_the_seed_decides(tmp_path: Path) -> None:
    a, b, c = (write_room(tmp_path / name, (seed, 0), (24, 32))[7] for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    assert np.array_equal(a.image, b.image) and np.array_equal(a.depth_m, b.depth_m) and np.array_equal(a.T_world_cam, b.T_world_cam)
    assert not np.array_equal(a.image, c.image)
