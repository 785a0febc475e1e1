"""The demo at a small size, and its comparison on results that are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from da3_core import DEMO, PathSettings, RobotPath, robot_path
from da3_ros import demo
from da3_ros.bag.writer import BagWriter
from da3_ros.cli import main
from da3_ros.comparison import compared_frames, path_errors, read_cloud, score_depth
from da3_ros.drive import record_drive
from da3_ros.to_msg import OutputConfig, StreamCounts

from .reading import depth_of, read_mcap, stamps
from .results import make_result

SIZE = (48, 63)
T_ODOM_WORLD = np.array([[1.0, 0, 0, 5], [0, 1, 0, -3], [0, 0, 1, 0], [0, 0, 0, 1]])
HALF_PIXEL = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RobotPath]:
    path = robot_path(DEMO[0], PathSettings(duration_s=3.0, image_hz=2.0, size=SIZE))
    bag = tmp_path_factory.mktemp("demo") / "drive"
    record_drive(bag, path)
    return bag, path


def third_K(path: RobotPath) -> np.ndarray[Any, Any]:
    """Every pixel's centre is that of the middle one of three by three."""
    return (path.calibration.K + HALF_PIXEL) / [[3], [3], [1]] - HALF_PIXEL


def write_output(bag: Path, path: RobotPath, scale: float) -> None:
    """What a network would give that sees true depth at a third of the size, `scale` times too far, from true poses moved elsewhere."""
    writer = BagWriter(bag, "odom", "front", OutputConfig())
    for frame in path.frames():
        depth = np.where(np.isfinite(frame.depth_m), frame.depth_m * scale, np.nan).astype(np.float32)[1::3, 1::3]
        result = make_result(
            stamp_ns=frame.stamp_ns,
            depth_m=depth,
            confidence=None,
            image=frame.image[1::3, 1::3],
            K=third_K(path),
            T_world_cam=T_ODOM_WORLD @ frame.T_world_cam,
        )
        writer.write_results([result], StreamCounts(1, 1, 0), frame.stamp_ns)
    writer.close()


def test_a_drive_is_recorded_with_its_truth(drive: tuple[Path, RobotPath]) -> None:
    bag, path = drive
    found = read_mcap(bag)
    for topic in ("/front/image_raw", "/front/camera_info", "/truth/front/depth", "/truth/front/pose"):
        assert stamps(found[topic]) == path.image_stamps_ns
    assert len(found["/odom"]) == len(path.odometry()) == len(found["/tf"])
    frame = next(path.frames())
    first = found["/front/image_raw"][0][1]
    np.testing.assert_array_equal(np.frombuffer(first.data, np.uint8).reshape(*SIZE, 3), frame.image)
    truth = depth_of(found["/truth/front/depth"][0][1])
    np.testing.assert_array_equal(np.isnan(truth), frame.sky)
    np.testing.assert_array_equal(truth[~frame.sky], frame.depth_m[~frame.sky])
    order = [log_ns for topic in ("/odom", "/front/image_raw") for log_ns, _ in found[topic]]
    assert min(order) == found["/odom"][0][0]


def test_scores_recover_a_known_error(drive: tuple[Path, RobotPath], tmp_path: Path) -> None:
    bag, path = drive
    write_output(tmp_path / "out", path, 1.1)
    for frame in compared_frames(bag, tmp_path / "out"):
        np.testing.assert_array_equal(np.isnan(frame.true_depth_m), np.isnan(frame.depth_m))
        score = score_depth(frame)
        assert score is not None
        assert score.abs_rel == pytest.approx(0.1, abs=1e-5)
        assert score.scale_error == pytest.approx(0.1, abs=1e-5)
        assert score.abs_rel_scaled == pytest.approx(0.0, abs=1e-5)
        assert (score.delta1, score.known) == (1.0, 1.0)
    assert path_errors(bag, tmp_path / "out").ate_m == pytest.approx(0.0, abs=1e-6)


def test_frames_without_depth_have_no_score(drive: tuple[Path, RobotPath], tmp_path: Path) -> None:
    bag, path = drive
    write_output(tmp_path / "out", path, 1.0)
    frame = next(compared_frames(bag, tmp_path / "out"))
    assert score_depth(dataclasses.replace(frame, depth_m=np.full_like(frame.depth_m, np.nan))) is None


def test_clouds_are_read_in_the_frame_of_the_poses(drive: tuple[Path, RobotPath], tmp_path: Path) -> None:
    _, path = drive
    write_output(tmp_path / "out", path, 1.0)
    points, colours = read_cloud(tmp_path / "out")
    expected, expected_colours = [], []
    for frame in path.frames():
        depth, image = frame.depth_m[1::3, 1::3], frame.image[1::3, 1::3]
        v, u = np.nonzero(np.isfinite(depth))
        seen = np.linalg.inv(third_K(path)) @ np.stack([u, v, np.ones_like(u)]) * depth[v, u]
        expected.append((T_ODOM_WORLD @ frame.T_world_cam @ np.vstack([seen, np.ones((1, len(u)))]))[:3].T)
        expected_colours.append(image[v, u])
    np.testing.assert_allclose(points, np.concatenate(expected), atol=1e-3)
    np.testing.assert_array_equal(colours, np.concatenate(expected_colours))


def test_demo_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "IMAGE_SIZE", SIZE)
    monkeypatch.setattr(demo, "IMAGE_HZ", 2.0)
    folder = tmp_path / "demo"
    tiny: list[Any] = ["--engine", "eager", "--preprocess.size", 70, "--window.views", 2]
    with pytest.raises(SystemExit) as ended:
        main(["demo", str(folder), "--seconds", "3", *map(str, tiny)])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "AbsRel" in out
    assert "given odometry" in out
    assert "rerun" in out
    assert sorted(p.name for p in folder.iterdir()) == ["demo.rrd", "drive", "output", "sheet.png", "trajectory.tum"]
    sheet = cv2.imread(str(folder / "sheet.png"))
    assert sheet.shape[0] > 500
    with pytest.raises(SystemExit) as ended:
        main(["demo", str(folder), *map(str, tiny)])
    assert ended.value.code == 1


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        main(["demo", str(tmp_path), "--force"])
    assert ended.value.code
    assert "is no demo's folder" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "mine"
