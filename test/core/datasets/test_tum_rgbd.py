from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from da3_core.datasets import RecordedFrame, TumRgbdRecording, TumRgbdWriter, fit_frame
from da3_core.datasets.tum_rgbd import ns_from_seconds, seconds_from_ns
from da3_core.geometry.rigid import rigid_from_rt, rotation_from_quaternion

K_ROS = np.array([[40.0, 0, 23.5], [0, 42.0, 15.5], [0, 0, 1]])


def pose(seed: int) -> np.ndarray:
    g = torch.Generator().manual_seed(seed)
    q, t = torch.randn(4, generator=g, dtype=torch.float64), torch.randn(3, generator=g, dtype=torch.float64)
    return rigid_from_rt(rotation_from_quaternion(q), t).numpy()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (3, 32, 48, 3), dtype=np.uint8)
    depths = rng.uniform(0.5, 9.0, (3, 32, 48)).astype(np.float32)
    depths[:, 0, :3] = (np.nan, np.inf, 50.0)
    stamps = [1_700_000_000_123_456_789 + i * 33_000_001 for i in range(3)]
    with TumRgbdWriter(tmp_path / "run") as writer:
        for i in range(3):
            writer.write(stamps[i], images[i], depths[i], K_ROS, pose(i))
    recording = TumRgbdRecording(tmp_path / "run")
    assert len(recording) == 3
    for i in range(3):
        frame = recording[i]
        assert frame.stamp_ns == stamps[i]
        assert np.array_equal(frame.image, images[i])
        assert frame.depth_m[0, :3].tolist() == [0, 0, 0]
        assert np.abs(frame.depth_m - depths[i])[1:].max() <= 0.5 / 5000 + 1e-6
        assert np.allclose(frame.T_world_cam, pose(i), atol=1e-8)
        assert np.allclose(frame.K, [[40, 0, 24], [0, 42, 16], [0, 0, 1]])


def write_by_hand(folder: Path) -> None:
    """As the published sequences are: other clocks for colour, depth and poses."""
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    for i, grey in enumerate((10, 20, 30)):
        cv2.imwrite(str(folder / f"rgb/{i}.png"), np.full((4, 6, 3), grey, np.uint8))
        cv2.imwrite(str(folder / f"depth/{i}.png"), np.full((4, 6), 5000 * (i + 1), np.uint16))
    (folder / "rgb.txt").write_text("# color images\n100.000 rgb/0.png\n100.100 rgb/1.png\n100.200 rgb/2.png\n")
    (folder / "depth.txt").write_text("100.010 depth/0.png\n100.115 depth/1.png\n100.290 depth/2.png\n")
    s = np.sqrt(0.5)
    poses = ["99.95 0 0 0 0 0 0 1", f"100.05 1 0 2 0 0 {s} {s}", "100.15 3 0 2 0 0 1 0", "100.21 3 0 2 0 0 1 0"]
    (folder / "groundtruth.txt").write_text("\n".join(poses))


def test_streams_are_associated_by_time_and_poses_interpolated(tmp_path: Path) -> None:
    folder = tmp_path / "rgbd_dataset_freiburg3_desk"
    write_by_hand(folder)
    recording = TumRgbdRecording(folder)
    assert [stamp for stamp, *_ in recording.frames] == [100_000_000_000, 100_100_000_000]  # the third image has no depth near it
    assert recording[1].image[0, 0].tolist() == [20, 20, 20]
    assert recording[1].depth_m[0, 0] == pytest.approx(2.0)
    T = recording[0].T_world_cam
    assert T[:3, 3] == pytest.approx([0.5, 0, 1])
    assert T[0, 0] == pytest.approx(np.cos(np.pi / 4))  # half of the way to 90 degrees
    assert recording.K[0] == pytest.approx([535.4, 0, 320.6])


def test_faults_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    write_by_hand(folder)
    with pytest.raises(ValueError, match=r"no calibration\.txt: write one line"):
        TumRgbdRecording(folder)
    (folder / "calibration.txt").write_text("# fx fy cx cy\n5 5 2.5 1.5\n")
    assert len(TumRgbdRecording(folder)) == 2
    (folder / "depth.txt").write_text("100.0 depth/0.png extra\n")
    with pytest.raises(ValueError, match=r"depth\.txt:1 has 3 columns"):
        TumRgbdRecording(folder)
    (folder / "depth.txt").unlink()
    with pytest.raises(ValueError, match=r"no depth\.txt"):
        TumRgbdRecording(folder)
    with pytest.raises(FileExistsError, match="not empty"):
        TumRgbdWriter(folder)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("calibration.txt", "# fx fy cx cy\n", r"calibration\.txt says '': write one line \"fx fy cx cy\""),
        ("calibration.txt", "  # fx fy cx cy\n5 5 2.5\n", r"calibration\.txt says '5 5 2\.5': write one line"),
        ("calibration.txt", "fx=5 fy=5 cx=2.5 cy=1.5\n", r"calibration\.txt says 'fx=5 .*: write one line"),
        ("rgb.txt", "now rgb/0.png\n", r"rgb\.txt:1 does not begin with seconds like"),
        ("groundtruth.txt", "99.95 0 0 0 0 0 0 one\n", r"groundtruth\.txt has no pose at 99\.950000000 but '0 0 0 0 0 0 one'"),
        ("groundtruth.txt", "99.95 nan 0 0 0 0 0 1\n", r"groundtruth\.txt has no pose at 99\.95.*leave the line out"),
        ("groundtruth.txt", "99.95 0 0 0 0 0 0 0\n", r"groundtruth\.txt has no pose at 99\.95.*quaternion not zero"),
    ],
)
def test_what_a_file_says_instead_is_quoted(tmp_path: Path, file: str, text: str, message: str) -> None:
    write_by_hand(tmp_path)
    (tmp_path / "calibration.txt").write_text("5 5 2.5 1.5\n")
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        TumRgbdRecording(tmp_path)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (np.ones((4, 6, 3), np.uint16), r"depth/0\.png holds 16 bits in 3 channels: depth is written with 16 bits in one channel"),
        (np.ones((4, 6), np.uint8), r"depth/0\.png holds 8 bits: depth is written with 16 bits"),
        (np.ones((2, 3), np.uint16), r"depth/0\.png is 3x2 and its image 6x4: register depth to the image"),
    ],
)
def test_depth_that_is_not_the_images_is_refused(tmp_path: Path, depth: np.ndarray, message: str) -> None:
    write_by_hand(tmp_path)
    (tmp_path / "calibration.txt").write_text("5 5 2.5 1.5\n")
    recording = TumRgbdRecording(tmp_path)
    cv2.imwrite(str(tmp_path / "depth/0.png"), depth)
    with pytest.raises(ValueError, match=message):
        recording[0]


def test_a_recording_has_one_calibration(tmp_path: Path) -> None:
    image, depth = np.zeros((4, 6, 3), np.uint8), np.ones((4, 6), np.float32)
    with TumRgbdWriter(tmp_path) as writer:
        writer.write(0, image, depth, K_ROS, None)
        with pytest.raises(ValueError, match="one calibration"):
            writer.write(1, image, depth, 2 * K_ROS, None)


@pytest.mark.parametrize("seconds", ["1305031102.175304000", "0.000000001", "1700000000.999999999"])
def test_time_is_exact(seconds: str) -> None:
    assert seconds_from_ns(ns_from_seconds(seconds)) == seconds


@pytest.mark.parametrize("size", [(56, 84), (28, 28), (112, 56)])
def test_fitted_frames_still_project_where_they_should(size: tuple[int, int]) -> None:
    """Depth is made a plane seen by the original camera; the fitted camera must see the same plane."""
    height, width = 96, 128
    K = np.array([[90.0, 0, 60.0], [0, 95.0, 50.0], [0, 0, 1]])
    y, x = np.mgrid[:height, :width] + 0.5
    plane = 1 / (0.3 + 0.2 * (x - 60) / 90 - 0.1 * (y - 50) / 95)
    image = np.repeat((20 * plane)[..., None], 3, -1).astype(np.uint8)
    frame = fit_frame(RecordedFrame(0, image, plane.astype(np.float32), K, np.eye(4)), size)
    H, W = size
    assert frame.image.shape == (H, W, 3)
    assert frame.K[0, 2] == W / 2
    assert frame.K[1, 2] == H / 2
    y, x = np.mgrid[:H, :W] + 0.5
    expected = 1 / (0.3 + 0.2 * (x - W / 2) / frame.K[0, 0] - 0.1 * (y - H / 2) / frame.K[1, 1])
    error = np.abs(frame.depth_m / expected - 1)
    assert np.median(error) < 0.01
    assert (frame.depth_m > 0).all()
    assert abs(np.mean(frame.depth_m / expected) - 1) < 2e-3  # no shift by half a pixel
