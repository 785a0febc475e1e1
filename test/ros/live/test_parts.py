"""The node's parts that need no ROS: inbox and worker, poses, settings, recorder, meters."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest
import torch

from da3_core import FrameResult, ScaleEstimate, quaternion_from_rotation
from da3_ros.bag.files import TrajectoryFile
from da3_ros.diagnostics import Health, Level
from da3_ros.from_msg import MessageError, StampedTransform
from da3_ros.live import refuse_unfit
from da3_ros.poses import OdometryPoses, rigid_from_text
from da3_ros.recorder import PLY_DTYPE, Recorder, VoxelCloud, _write_ply
from da3_ros.settings import CameraConfig, Parameters
from da3_ros.tf_tree import TransformError, TransformTree
from da3_ros.worker import MAX_WAITING, Inbox, Worker


def test_the_newest_item_wins_and_older_ones_are_dropped() -> None:
    dropped: list[int] = []
    inbox: Inbox[int] = Inbox(lambda item: True, 1.0, dropped.append)
    for item in range(4):
        inbox.put(item)
    assert inbox.take() == 3
    assert dropped == [0, 1, 2]


def test_an_item_waits_for_what_it_needs_and_a_later_one_may_overtake() -> None:
    dropped: list[int] = []
    known: set[int] = {1}
    inbox: Inbox[int] = Inbox(known.__contains__, 60.0, dropped.append)
    for item in (1, 2, 3):
        inbox.put(item)
    assert inbox.take() == 1  # 2 and 3 are newer, but wait
    known.add(3)
    assert inbox.take() == 3
    assert dropped == [2]


def test_patience_ends() -> None:
    inbox: Inbox[str] = Inbox(lambda item: False, 0.1, lambda item: None)
    inbox.put("late")
    began = time.monotonic()
    assert inbox.take() == "late"
    assert time.monotonic() - began >= 0.1


def test_what_waits_is_bounded() -> None:
    dropped: list[int] = []
    inbox: Inbox[int] = Inbox(lambda item: False, 60.0, dropped.append)
    for item in range(100):
        inbox.put(item)
    assert len(inbox.clear()) == MAX_WAITING
    assert dropped == list(range(100 - MAX_WAITING))


def test_a_worker_outlives_an_error_and_stops_when_asked() -> None:
    done: list[int] = []
    errors: list[Exception] = []
    turn = threading.Event()

    def work(item: int) -> None:
        turn.set()
        if item == 1:
            raise ArithmeticError("one")
        done.append(item)

    inbox: Inbox[int] = Inbox(lambda item: True, 0.0, lambda item: None)
    worker = Worker(inbox, work, errors.append)
    for item in (1, 2):
        turn.clear()
        inbox.put(item)
        assert turn.wait(5.0)
    assert worker.stop(5.0)
    assert done == [2] and [str(error) for error in errors] == ["one"]


def odometry(stamp_s: float, T: Any, parent: str = "odom", child: str = "base") -> Any:
    x, y, z, w = quaternion_from_rotation(torch.from_numpy(T[:3, :3])).tolist()
    pose = Message(position=Message(x=T[0, 3], y=T[1, 3], z=T[2, 3]), orientation=Message(x=x, y=y, z=z, w=w))
    stamp = Message(sec=int(stamp_s), nanosec=round(stamp_s % 1 * 1e9))
    return Message(header=Message(stamp=stamp, frame_id=parent), child_frame_id=child, pose=Message(pose=pose))


def placed(x: float) -> Any:
    T = np.eye(4)
    T[0, 3] = x
    return T


def test_odometry_places_a_camera_by_given_extrinsics_or_by_the_tree() -> None:
    tree = TransformTree()
    tree.add_static(StampedTransform(0, "base", "left_optical", placed(0.5)))
    poses = OdometryPoses(tree, "odom", {"right": placed(-0.5)})
    poses.add(odometry(1.0, placed(1.0)))
    assert not poses.is_known("left", "left_optical", 1_050_000_000)
    poses.add(odometry(1.1, placed(2.0)))
    assert poses.is_known("left", "left_optical", 1_050_000_000)
    for camera, offset in (("left", 0.5), ("right", -0.5)):
        T_world_cam = poses.at(camera, f"{camera}_optical", 1_050_000_000)
        assert T_world_cam is not None
        np.testing.assert_allclose(T_world_cam[:3, 3], [1.5 + offset, 0, 0], atol=1e-6)
    with pytest.raises(TransformError, match="no odometry at 3"):
        poses.at("left", "left_optical", 3_000_000_000)


def test_odometry_of_a_run_that_was_says_nothing_of_one_whose_first_message_is_an_image() -> None:
    poses = OdometryPoses(TransformTree(), "odom", {"front": placed(0.0)})
    for stamp_s in (5.0, 5.1, 9.0):
        poses.add(odometry(stamp_s, placed(stamp_s)))
    poses.forget_other_runs(5_050_000_000)
    assert not poses.is_known("front", "front_optical", 5_050_000_000)
    with pytest.raises(TransformError, match=r"no odometry at 5\.05"):
        poses.at("front", "front_optical", 5_050_000_000)


def test_odometry_of_another_world_is_refused() -> None:
    poses = OdometryPoses(TransformTree(), "odom", {})
    with pytest.raises(MessageError, match="given in map, but world_frame is odom"):
        poses.add(odometry(1.0, placed(1.0), parent="map"))


def test_a_clock_that_went_back_empties_only_what_is_of_the_other_run() -> None:
    tree = TransformTree()
    for parent, child, stamp_s in (("odom", "base", 100), ("base", "head", 100), ("base", "head", 5)):
        tree.add(StampedTransform(stamp_s * 1_000_000_000, parent, child, placed(1.0)))
    tree.forget_other_runs(5_000_000_000)
    np.testing.assert_allclose(tree.transform("base", "head", 5_000_000_000), placed(1.0))
    with pytest.raises(TransformError):
        tree.transform("odom", "base", 100_000_000_000)


@pytest.mark.parametrize("text", ["", "1 2 3", "1 2 3 0 0 0 0", "1 2 3 0 0 0 two", "nan 0 0 0 0 0 1", "1 2 3 0 0 0 1 7"])
def test_extrinsics_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="x y z qx qy qz qw"):
        rigid_from_text(text)


def test_settings_of_all_parts_are_found_by_their_dotted_name() -> None:
    parameters = Parameters(cameras={"front": CameraConfig()})
    for name, value in {"autostart": False, "model": "x", "window.views": 7, "output.cloud": "dense", "front.image_topic": "/a"}.items():
        parameters = parameters.with_setting(name, value)
        assert parameters.flat()[name][1] == value
    assert parameters.flat().keys() == Parameters(cameras={"front": CameraConfig()}).flat().keys()
    with pytest.raises(ValueError, match=r"unknown parameter 'window.size'"):
        parameters.with_setting("window.size", 1)


def points(xyz: Any) -> Any:
    made = np.zeros(len(xyz), PLY_DTYPE)
    made["x"], made["y"], made["z"] = np.asarray(xyz, np.float32).T
    return made


def test_a_cloud_keeps_one_point_per_voxel_and_stops_at_its_bound() -> None:
    cloud = VoxelCloud(0.5, 100)
    grid = np.stack(np.meshgrid(*[np.arange(4) * 0.5 + 0.25] * 3), -1).reshape(-1, 3)
    cloud.add(points(np.concatenate([grid, grid + 0.1])))
    cloud.add(points(grid - 0.1))
    assert len(cloud.points) == 64
    kept = np.stack([cloud.points[axis] for axis in "xyz"], -1)
    assert {tuple(p) for p in kept.round(3)} == {tuple(p) for p in grid.astype(np.float32).round(3)}
    cloud.add(points(grid + 100.0))
    assert len(cloud.points) == 100
    nothing = VoxelCloud(0.0, 100)
    nothing.add(points(grid))
    assert len(nothing.points) == 0


def test_a_trajectory_is_thinned_when_it_grows_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("da3_ros.recorder.MAX_POSES", 64)
    recorder = Recorder(0.0, 1)
    for number in range(500):
        recorder.add([_result(number), _result(number, "left")], 1.0)  # of a rig, the anchor's path only
    recorder.save(tmp_path / "new")
    stamps = np.loadtxt(tmp_path / "new" / "trajectory.tum")[:, 0]
    assert 32 <= len(stamps) <= 64 and stamps[0] == 0.0 and stamps[-1] == pytest.approx(49.9)
    assert (np.diff(stamps) > 0).all()


def test_the_saved_trajectory_is_that_of_the_offline_job_to_the_nanosecond(tmp_path: Path) -> None:
    first_ns = 1_700_000_000_123_456_789
    T = rigid_from_text("5400000.1234 -0.5 2 0.5 -0.5 0.5 0.5")
    results = [dataclasses.replace(_result(0), stamp_ns=first_ns + i, T_world_cam=T) for i in range(3)]
    recorder, file = Recorder(0.0, 1), TrajectoryFile(tmp_path / "offline.tum", "camera")
    for result in results:
        recorder.add([result], 1.0)
        file.write([result])
    file.close()
    recorder.save(tmp_path)
    rows = (tmp_path / "trajectory.tum").read_text()
    assert rows == (tmp_path / "offline.tum").read_text()
    stamps, numbers = zip(*(row.split(maxsplit=1) for row in rows.splitlines()), strict=True)
    assert stamps == ("1700000000.123456789", "1700000000.123456790", "1700000000.123456791")
    assert numbers[0].startswith("5400000.123400000 -0.500000000 2.000000000 ")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_saving_again_writes_beside_what_was_saved(tmp_path: Path) -> None:
    """A clock that goes back empties the recorder: what it had is not replaced by less."""
    recorder = Recorder(0.0, 1)
    for number in range(3):
        recorder.add([_result(number)], 1.0)
    assert recorder.save(tmp_path) == f"0 points and 3 poses in {tmp_path}/cloud.ply and {tmp_path}/trajectory.tum"
    recorder.clear()
    recorder.add([_result(0)], 1.0)
    assert recorder.save(tmp_path) == f"0 points and 1 poses in {tmp_path}/cloud-2.ply and {tmp_path}/trajectory-2.tum"
    assert len((tmp_path / "trajectory.tum").read_text().splitlines()) == 3
    (tmp_path / "cloud-2.ply").unlink()
    (tmp_path / "cloud-3.ply").touch()
    recorder.save(tmp_path)
    assert names_in(tmp_path) == ["cloud-3.ply", "cloud-4.ply", "cloud.ply", "trajectory-2.tum", "trajectory-4.tum", "trajectory.tum"]


def test_saving_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    recorder = Recorder(0.0, 1)
    recorder.add([_result(0)], 1.0)
    recorder.save(tmp_path)
    monkeypatch.setattr("da3_ros.recorder.tum_row", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        recorder.save(tmp_path)
    assert names_in(tmp_path) == ["cloud.ply", "trajectory.tum"]
    monkeypatch.undo()
    recorder.save(tmp_path)
    assert names_in(tmp_path) == ["cloud-2.ply", "cloud.ply", "trajectory-2.tum", "trajectory.tum"]


def test_recording_goes_on_while_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(0.0, 1)
    recorder.add([_result(0)], 1.0)

    def write_slowly(*arguments: Any) -> None:
        recorder.add([_result(1)], 1.0)  # what the worker does meanwhile
        _write_ply(*arguments)

    monkeypatch.setattr("da3_ros.recorder._write_ply", write_slowly)
    assert "0 points and 1 poses" in recorder.save(tmp_path)
    assert "0 points and 2 poses" in recorder.save(tmp_path)


def _result(number: int, camera: str = "camera") -> FrameResult:
    return FrameResult(
        camera=camera,
        frame_id="camera_optical",
        stamp_ns=number * 100_000_000,
        depth_m=np.ones((4, 6), np.float32),
        confidence=None,
        image=np.zeros((4, 6, 3), np.uint8),
        K=np.eye(3),
        T_world_cam=np.eye(4),
        mode="posed",
        mode_reason="",
        scale=ScaleEstimate(1.0, 0.0, "baselines"),
        window_views=1,
    )


def test_a_fault_is_told_once_and_the_worst_comes_first() -> None:
    told: list[tuple[Level, str]] = []
    health = Health(["front"], lambda level, text: told.append((level, text)))
    for _ in range(3):
        health.raise_fault("engine", "broken", Level.ERROR)
        health.raise_fault("memory", "little")
        health.raise_fault("front/image", "corrupt", Level.ERROR)
    assert len(told) == 3
    report = health.node_report({})
    assert (report.level, report.message) == (Level.ERROR, "broken; little")
    assert health.camera_report("front").message == "corrupt"
    health.clear("engine")
    health.clear("engine")
    assert told[3:] == [(Level.OK, "engine: recovered")]
    assert health.node_report({}).level == Level.WARN


def test_meters_count_what_came_and_went() -> None:
    health = Health(["front"], lambda level, text: None)
    for _ in range(10):
        health.received("front")
        health.published("front", 0.02)
    health.drop("late", 3)
    values = health.node_report({"engine": "fast"}).values
    assert values["frames in"] == "10" and values["frames dropped"] == "3" and values["dropped, late"] == "3"
    assert float(values["latency p95 [ms]"]) == pytest.approx(20.0)
    assert values["engine"] == "fast"
    health.check_silence(60.0)
    assert health.camera_report("front").level == Level.OK
    health.check_silence(0.0)
    assert health.camera_report("front").level == Level.ERROR


def test_settings_are_tried_without_the_engine_of_a_run_forgetting_its_images() -> None:
    engine: Any = Message(kind="any_view", device=torch.device("cpu"), reset=lambda: pytest.fail("it forgets"))
    refuse_unfit(engine, Parameters())
    with pytest.raises(ValueError, match="mode metric needs"):
        refuse_unfit(engine, Parameters().with_setting("mode.mode", "metric"))
