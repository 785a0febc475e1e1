"""A recording in, a recording out: read back with a second reader."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from da3_core import Engine, Prediction, ScaleEstimate, StreamConfig
from da3_core.datasets import TumRgbdRecording
from da3_ros.bag.files import DatasetFolder
from da3_ros.bag.job import BagJob, run_bag
from da3_ros.bag.plan import SourceOptions
from da3_ros.bag.recording import BagError
from da3_ros.from_msg import stamp_ns, transforms_from_msg
from da3_ros.tf_tree import TransformTree
from da3_ros.to_msg import OutputConfig

from . import bags, messages
from .bags import HEIGHT, LATENCY_NS, Q_BASE_CAM, WIDTH, stamp_of
from .conftest import Run, make_config
from .reading import depth_of, read_mcap, stamps
from .results import make_result

FRAMES = 5
PER_CAMERA = ("depth/image", "depth/camera_info", "confidence/image", "points", "pose")


@pytest.fixture(scope="module")
def robot_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bags.write_ros2(tmp_path_factory.mktemp("robot") / "bag", bags.robot(FRAMES))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def tree_of(found: dict[str, list[tuple[int, Any]]]) -> TransformTree:
    """Refuses second parents when asked."""
    tree = TransformTree()
    for _, msg in found.get("/tf_static", []):
        for transform in transforms_from_msg(msg):
            tree.add_static(transform)
    for _, msg in found.get("/tf", []):
        for transform in transforms_from_msg(msg):
            tree.add(transform)
    return tree


def depth_bytes(bag: Path) -> str:
    return hashlib.sha256(b"".join(bytes(m.data) for _, m in read_mcap(bag)["/da3/front/depth/image"])).hexdigest()


def test_every_image_becomes_its_outputs_under_its_own_stamp(robot_bag: Path, out: Path, run: Run) -> None:
    summary = run(robot_bag, out)
    assert (summary.status, summary.exit_code) == ("complete", 0)
    found = read_mcap(out)
    expected = [stamp_of(i) for i in range(FRAMES)]
    for name in PER_CAMERA:
        assert stamps(found[f"/da3/front/{name}"]) == expected
    for topic in ("/da3/odometry", "/da3/status"):
        assert stamps(found[topic]) == expected
    assert [log_ns for log_ns, _ in found["/da3/front/depth/image"]] == [ns + LATENCY_NS for ns in expected]


def test_depth_and_camera_info_agree_and_the_world_frame_is_the_odometrys(robot_bag: Path, out: Path, run: Run) -> None:
    run(robot_bag, out)
    found = read_mcap(out)
    (_, depth), (_, info), (_, points) = (found[f"/da3/front/{name}"][-1] for name in ("depth/image", "depth/camera_info", "points"))
    assert depth.header.frame_id == info.header.frame_id == points.header.frame_id == "front_optical"
    assert (depth.height, depth.width) == (info.height, info.width) == (points.height, points.width) == (HEIGHT, WIDTH)
    assert np.isfinite(depth_of(depth)).mean() > 0.5
    assert found["/da3/front/pose"][-1][1].header.frame_id == "odom"
    np.testing.assert_allclose(np.array(info.k).reshape(3, 3), [[60, 0, 34.5], [0, 60, 27.5], [0, 0, 1]], atol=1e-9)


def test_poses_are_those_of_odometry_and_static_tf_at_the_images_stamps(robot_bag: Path, out: Path, run: Run) -> None:
    """Odometry comes at other stamps than images: this fails without interpolation, and without the extrinsics."""
    run(robot_bag, out, {"mode.mode": "posed"})
    for ns, (_, msg) in zip(map(stamp_of, range(FRAMES)), read_mcap(out)["/da3/front/pose"], strict=True):
        position = np.array(bags.base_position(ns)) + bags.T_BASE_CAM[:3, 3]
        np.testing.assert_allclose([msg.pose.position.x, msg.pose.position.y, msg.pose.position.z], position, atol=1e-9)
        q = msg.pose.orientation
        assert abs(np.dot([q.x, q.y, q.z, q.w], Q_BASE_CAM)) == pytest.approx(1.0, abs=1e-9)


def test_tf_of_the_output_is_complete_and_gives_no_frame_a_second_parent(robot_bag: Path, out: Path, run: Run) -> None:
    run(robot_bag, out, {"mode.mode": "posed"})
    tree = tree_of(read_mcap(out))
    T_input = tree.transform("odom", "front_optical", stamp_of(2))
    T_ours = tree.transform("odom", "front_optical_da3", stamp_of(2))
    np.testing.assert_allclose(T_ours, T_input, atol=1e-9)


def test_static_tf_is_latched(robot_bag: Path, out: Path, run: Run) -> None:
    run(robot_bag, out)
    metadata = yaml.safe_load((out / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    topics = {t["topic_metadata"]["name"]: t["topic_metadata"] for t in metadata["topics_with_message_count"]}
    (qos,) = yaml.safe_load(topics["/tf_static"]["offered_qos_profiles"])
    assert (qos["durability"], qos["reliability"], qos["history"]) == (1, 1, 1)  # transient local, reliable, keep last
    assert metadata["storage_identifier"] == "mcap"


def test_without_odometry_the_camera_hangs_in_our_own_world(tmp_path: Path, out: Path, run: Run) -> None:
    bag = bags.write_ros2(tmp_path / "in", bags.camera(FRAMES))
    summary = run(bag, out)
    assert set(summary.modes) == {"unposed"}
    tree = tree_of(read_mcap(out))
    assert tree.ancestors("front_optical") == ["front_optical", "front_optical_da3", "da3_world"]


def test_odometry_without_tf_hangs_the_robots_tree_in_its_world(tmp_path: Path, out: Path, run: Run) -> None:
    bag = bags.write_ros2(tmp_path / "in", [*bags.camera(FRAMES), *bags.odometry(FRAMES), *bags.static_tf()])
    run(bag, out, {"mode.mode": "posed"})
    tree = tree_of(read_mcap(out))
    np.testing.assert_allclose(tree.transform("odom", "base_link", stamp_of(3))[:3, 3], bags.base_position(stamp_of(3)), atol=1e-9)


def test_poses_from_tf_alone(tmp_path: Path, out: Path, run: Run) -> None:
    bag = bags.write_ros2(tmp_path / "in", [*bags.static_tf(), *bags.camera(FRAMES), *bags.moving_tf(FRAMES)])
    summary = run(bag, out, {"mode.mode": "posed"})
    assert not summary.unposed
    last = read_mcap(out)["/da3/front/pose"][-1][1]
    assert last.header.frame_id == "odom"
    expected = np.array(bags.base_position(stamp_of(FRAMES - 1))) + bags.T_BASE_CAM[:3, 3]
    np.testing.assert_allclose([last.pose.position.x, last.pose.position.y, last.pose.position.z], expected, atol=1e-9)


def test_images_without_a_pose_go_in_unposed(tmp_path: Path, out: Path, run: Run) -> None:
    until = stamp_of(2) - 60_000_000
    robot = [r for r in bags.robot(FRAMES) if "image" in r[1] or "info" in r[1] or r[0] - LATENCY_NS < until]
    summary = run(bags.write_ros2(tmp_path / "in", robot), out)
    assert summary.unposed == {"front": FRAMES - 2}
    assert summary.processed == {"front": FRAMES}
    assert summary.modes["unposed"] > 0


def test_images_before_the_first_pose_have_none_in_its_frame(tmp_path: Path, out: Path, run: Run) -> None:
    robot = [r for r in bags.robot(FRAMES) if "image" in r[1] or "info" in r[1] or r[1] == "/tf_static" or r[0] > stamp_of(2)]
    summary = run(bags.write_ros2(tmp_path / "in", robot), out, {"mode.mode": "posed"})
    poses = [stamp_ns(msg.header.stamp) for _, msg in read_mcap(out)["/da3/front/pose"]]
    without = summary.unposed["front"]
    assert 0 < without < FRAMES
    assert poses == [stamp_of(i) for i in range(without, FRAMES)]
    assert summary.placed == {"front": FRAMES - without}


def test_poses_that_are_not_to_be_used_leave_the_camera_in_our_own_world(robot_bag: Path, out: Path, run: Run) -> None:
    summary = run(robot_bag, out, {"mode.mode": "unposed"})
    assert "da3_world" in summary.plan[-1]
    found = read_mcap(out)
    assert {msg.header.frame_id for _, msg in [*found["/da3/front/pose"], *found["/da3/odometry"]]} == {"da3_world"}


def own_tf(i: int, *others: Any) -> bags.Recorded:
    """What the node sent for frame i, in a world of its own; in one message with `others`."""
    ns = stamp_of(i)
    return ns + 70_000_000, "/tf", messages.tf(*others, messages.transform("da3_world", "front_optical_da3", (9, 9, i), ns=ns))


def own_odometry(topic: str) -> list[bags.Recorded]:
    return list(bags.motion(FRAMES, lambda ns: messages.odometry("da3_world", "front_optical_da3", (9, 9, 9), ns=ns), topic))


def transforms_to(child: str, found: dict[str, list[tuple[int, Any]]]) -> list[tuple[int, str]]:
    """Stamps and parents."""
    sent = [t for _, msg in found["/tf"] for t in transforms_from_msg(msg)]
    return [(t.stamp_ns, t.parent) for t in sent if t.child == child]


@pytest.mark.parametrize("kind", ["MCAP", "SQLITE3", "ros1"])
def test_transforms_of_an_earlier_run_give_way_to_the_new_ones(tmp_path: Path, out: Path, run: Run, kind: str) -> None:
    """Those of others stay, also where both are in one message."""
    wheel = [messages.transform("base_link", "wheel", (0, 1, i), ns=stamp_of(i)) for i in range(FRAMES)]
    recorded = [*bags.robot(FRAMES), own_tf(0), *(own_tf(i, wheel[i]) for i in range(FRAMES))]
    bag = bags.write_ros1(tmp_path / "in.bag", recorded) if kind == "ros1" else bags.write_ros2(tmp_path / "in", recorded, kind)
    run(bag, out, {"mode.mode": "posed"})
    found = read_mcap(out)
    assert transforms_to("front_optical_da3", found) == [(stamp_of(i), "odom") for i in range(FRAMES)]
    assert transforms_to("wheel", found) == [(stamp_of(i), "base_link") for i in range(FRAMES)]
    assert len(transforms_to("base_link", found)) == len(list(bags.moving_tf(FRAMES)))
    np.testing.assert_allclose(tree_of(found).transform("base_link", "wheel", stamp_of(2))[:3, 3], (0, 1, 2), atol=1e-9)


def test_an_earlier_runs_world_is_no_second_parent(tmp_path: Path, out: Path, run: Run) -> None:
    others = messages.transform("map", "front_optical_da3", (1, 2, 3))
    recorded = [*bags.robot(FRAMES), (stamp_of(0), "/tf_static", messages.tf(others)), *map(own_tf, range(FRAMES))]
    run(bags.write_ros2(tmp_path / "in", recorded), out, source=SourceOptions(odometry="none", world_frame="new_world"))
    assert tree_of(read_mcap(out)).ancestors("front_optical_da3") == ["front_optical_da3", "new_world"]


@pytest.mark.parametrize("topic", ["/da3/odometry", "/robot1/da3/odometry", "/robot1/depth/odometry"])
def test_what_an_earlier_run_found_is_no_given_pose(tmp_path: Path, out: Path, run: Run, topic: str) -> None:
    recorded = [*bags.camera(FRAMES), *own_odometry(topic), *map(own_tf, range(FRAMES))]
    summary = run(bags.write_ros2(tmp_path / "in", recorded), out, copy=True)
    assert summary.modes == {"unposed": FRAMES}
    assert topic not in set(read_mcap(out)) - {"/da3/odometry"}


def test_our_topics_are_known_under_any_namespace_and_by_their_whole_name(tmp_path: Path, out: Path, run: Run) -> None:
    image = [msg for _, topic, msg in bags.camera(1) if topic.endswith("image_raw")]
    ours, others = ["/robot1/da3/front/picture", "/da3/front/picture"], ["/foo_da3/rear/picture", "/robot1/da3_other/picture"]
    recorded = [*bags.robot(FRAMES), *((stamp_of(0), topic, image[0]) for topic in [*ours, *others])]
    source = SourceOptions(cameras=("front=/front/image_raw",))
    run(bags.write_ros2(tmp_path / "in", recorded), out, copy=True, source=source)
    assert {topic for topic in read_mcap(out) if topic.endswith("/picture")} == set(others)
    with pytest.raises(BagError, match=r"there are /foo_da3/rear/picture, /front/image_raw, /robot1/da3_other/picture$"):
        run(tmp_path / "in", out, force=True, source=SourceOptions(cameras=("/robot1/da3/front/picture",)))


def test_the_suffix_of_earlier_runs_is_the_settings(tmp_path: Path, out: Path, run: Run) -> None:
    """With another, frames that end in _da3 are anybody's."""
    bag = bags.write_ros2(tmp_path / "in", [*bags.robot(FRAMES), *map(own_tf, range(FRAMES))])
    run(bag, out, {"mode.mode": "posed"}, OutputConfig(child_suffix="_new"))
    assert transforms_to("front_optical_da3", read_mcap(out)) == [(stamp_of(i), "da3_world") for i in range(FRAMES)]


def test_an_output_is_an_input(tmp_path: Path, run: Run) -> None:
    """Two cameras on one base: the second run hangs it where the first did."""
    rig = [*bags.static_tf(), *bags.static_tf("rear_optical"), *bags.camera(FRAMES), *bags.camera(FRAMES, "/rear", "rear_optical")]
    run(bags.write_ros2(tmp_path / "in", rig), tmp_path / "first", copy=True)
    summary = run(tmp_path / "first", tmp_path / "second")
    assert set(summary.modes) == {"unposed"}
    first, second = (tree_of(read_mcap(tmp_path / name)) for name in ("first", "second"))
    for frame in ("front_optical", "rear_optical", "rear_optical_da3"):
        assert second.ancestors(frame) == first.ancestors(frame)


def test_the_same_input_gives_the_same_bytes(robot_bag: Path, tmp_path: Path, run: Run) -> None:
    run(robot_bag, tmp_path / "a")
    run(robot_bag, tmp_path / "b")
    assert depth_bytes(tmp_path / "a") == depth_bytes(tmp_path / "b")


@pytest.mark.parametrize("kind", ["SQLITE3", "ros1"])
def test_other_storages_give_the_same_depth(robot_bag: Path, tmp_path: Path, run: Run, kind: str) -> None:
    robot = bags.robot(FRAMES)
    bag = bags.write_ros1(tmp_path / "in.bag", robot) if kind == "ros1" else bags.write_ros2(tmp_path / "in", robot, kind)
    run(robot_bag, tmp_path / "mcap")
    summary = run(bag, tmp_path / "other", copy=True)
    assert summary.exit_code == 0
    assert depth_bytes(tmp_path / "other") == depth_bytes(tmp_path / "mcap")
    copied = read_mcap(tmp_path / "other")
    assert stamps(copied["/front/camera_info"]) == [stamp_of(i) for i in range(FRAMES)]
    np.testing.assert_array_equal(np.frombuffer(copied["/front/image_raw"][1][1].data, np.uint8), bags.picture(1).reshape(-1))
    assert copied["/front/camera_info"][0][1].k[0] == 60.0


def test_copy_carries_every_input_message(robot_bag: Path, out: Path, run: Run) -> None:
    run(robot_bag, out, copy=True)
    before, after = read_mcap(robot_bag), read_mcap(out)
    for topic in set(before) - {"/tf", "/tf_static"}:
        assert [log_ns for log_ns, _ in after[topic]] == [log_ns for log_ns, _ in before[topic]]
        assert stamps(after[topic]) == stamps(before[topic])
    assert len(after["/tf"]) == len(before["/tf"]) + FRAMES


def test_compressed_images(tmp_path: Path, out: Path, run: Run) -> None:
    def recorded(i: int) -> bags.Recorded:
        data = cv2.imencode(".png", bags.picture(i)[..., ::-1])[1].tobytes()
        return stamp_of(i) + LATENCY_NS, "/front/image_raw/compressed", messages.compressed(data, "png", stamp_of(i))

    infos = [r for r in bags.camera(FRAMES) if r[1].endswith("camera_info")]
    run(bags.write_ros2(tmp_path / "in", [*infos, *map(recorded, range(FRAMES))]), out)
    run(bags.write_ros2(tmp_path / "raw", bags.camera(FRAMES)), tmp_path / "raw_out")
    assert depth_bytes(out) == depth_bytes(tmp_path / "raw_out")


def test_a_rig_of_two_cameras(tmp_path: Path, out: Path, run: Run) -> None:
    rear = [(log_ns + 5_000_000, topic, msg) for log_ns, topic, msg in bags.camera(FRAMES, "/rear", "rear_optical")]
    recorded = [*bags.robot(FRAMES), *rear, *bags.static_tf("rear_optical")]
    summary = run(bags.write_ros2(tmp_path / "in", recorded), out, {"window.views": 4})
    assert summary.processed == {"front": FRAMES, "rear": FRAMES}
    found = read_mcap(out)
    assert all(msg.cameras == ["front", "rear"] for _, msg in found["/da3/status"])
    assert stamps(found["/da3/rear/depth/image"]) == [stamp_of(i) for i in range(FRAMES)]
    tree_of(found).transform("odom", "rear_optical_da3", stamp_of(1))


def test_images_of_a_rig_without_a_partner_are_counted(tmp_path: Path, out: Path, run: Run) -> None:
    rear = [r for i in (0, 3) for r in bags.camera_frame(i, "/rear", "rear_optical")]
    late = [
        (log_ns, topic, messages.STORE.types[msg.__msgtype__](**(vars(msg) | {"header": messages.header(stamp_of(1) + 50_000_000)})))
        for log_ns, topic, msg in bags.camera_frame(1, "/rear", "rear_optical")
    ]
    summary = run(bags.write_ros2(tmp_path / "in", [*bags.camera(FRAMES), *rear, *late]), out)
    assert summary.processed == {"front": FRAMES, "rear": 2}
    assert summary.skipped == {"rear: without a partner in time": 1}


def test_millimetres_and_dense_clouds(robot_bag: Path, out: Path, run: Run) -> None:
    run(robot_bag, out, results=OutputConfig(depth_encoding="16UC1", cloud="dense"))
    found = read_mcap(out)
    (_, depth), (_, points) = found["/da3/front/depth/image"][-1], found["/da3/front/points"][-1]
    assert (depth.encoding, depth.step, points.height, points.is_dense) == ("16UC1", 2 * WIDTH, 1, True)


def test_files_beside_the_bag(robot_bag: Path, out: Path, tmp_path: Path, run: Run) -> None:
    from evo.tools import file_interface

    run(robot_bag, out, {"mode.mode": "posed"}, trajectory=tmp_path / "t.tum", rerun=tmp_path / "view.rrd")
    trajectory = file_interface.read_tum_trajectory_file(tmp_path / "t.tum")
    stamp_texts = [line.split()[0] for line in (tmp_path / "t.tum").read_text().splitlines()]
    assert stamp_texts == [f"{stamp_of(i) // 10**9}.{stamp_of(i) % 10**9:09d}" for i in range(FRAMES)]
    np.testing.assert_allclose(trajectory.positions_xyz[3], np.array(bags.base_position(stamp_of(3))) + bags.T_BASE_CAM[:3, 3], atol=1e-6)
    assert (tmp_path / "view.rrd").stat().st_size > 10_000
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"]["processed"] == {"front": FRAMES}
    assert summary["mode_shares"] == {"posed": 1.0}
    assert {"read", "decode", "preprocess", "engine", "write"} <= set(summary["stage_s"])
    assert summary["peak_memory_mib"] > 50
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "t.tum", "view.rrd"]  # nothing temporary stays


def test_datasets_hold_the_frames_that_have_metres(tmp_path: Path) -> None:
    """Read back by the reader that trainings use."""
    results = [make_result(stamp_ns=stamp_of(i), scale=ScaleEstimate(1.0, 0.1, "baselines" if i else "none")) for i in range(4)]
    sink = DatasetFolder(tmp_path / "tum", results[0].camera)
    for result in results:
        sink.write([result])
    sink.close()
    recording = TumRgbdRecording(tmp_path / "tum")
    assert len(recording) == 3
    frame = recording[0]
    np.testing.assert_array_equal(frame.image, results[1].image)
    np.testing.assert_allclose(frame.depth_m, np.nan_to_num(results[1].depth_m), atol=1.1e-4)


DEPTH_TOPIC = "/front/depth_registered"


def measured(i: int, encoding: str = "16UC1", late_ns: int = 5_000_000) -> bags.Recorded:
    """Frame i stands i + 1 metres before a wall; the right half is unknown."""
    depth = np.full((HEIGHT, WIDTH), 1000 * (i + 1), "<u2") if encoding == "16UC1" else np.full((HEIGHT, WIDTH), i + 1.0, "<f4")
    depth[:, WIDTH // 2 :] = 0
    ns = stamp_of(i) + late_ns
    return ns + LATENCY_NS, DEPTH_TOPIC, messages.image(depth, encoding, HEIGHT, WIDTH, ns=ns)


def in_order(*recorded: bags.Recorded) -> list[bags.Recorded]:
    return sorted(recorded, key=lambda each: each[0])


def exported(tmp_path: Path, run: Run, recorded: list[bags.Recorded], storage: str = "MCAP", **settings: Any) -> dict[int, float]:
    """Metres on the left by number of the frame."""
    bag = bags.write_ros2(tmp_path / "in", recorded, storage)
    run(bag, tmp_path / "out", {"mode.mode": "posed", **settings}, dataset=tmp_path / "tum", depth_topic=DEPTH_TOPIC)
    frames = list(TumRgbdRecording(tmp_path / "tum"))
    for frame in frames:
        left, right = np.split(frame.depth_m, 2, axis=1)
        assert not right.any() and np.ptp(left) < 1e-3
    return {(f.stamp_ns - stamp_of(0)) // bags.FRAME_NS: round(float(f.depth_m[0, 0]), 2) for f in frames}


@pytest.mark.parametrize(("encoding", "storage"), [("16UC1", "MCAP"), ("32FC1", "MCAP"), ("16UC1", "SQLITE3")])
def test_datasets_take_measured_depth(tmp_path: Path, run: Run, encoding: str, storage: str) -> None:
    depth = [measured(i, encoding) for i in range(FRAMES) if i != 2]
    found = exported(tmp_path, run, in_order(*bags.robot(FRAMES), *depth), storage)
    assert found == {0: 1.0, 1: 2.0, 3: 4.0, 4: 5.0}


def test_single_depth_messages_that_are_bad_or_misplaced_cost_their_frame_only(tmp_path: Path, run: Run) -> None:
    depth = {i: measured(i) for i in range(FRAMES)}
    cut = depth[1][2]
    depth[1] = (*depth[1][:2], dataclasses.replace(cut, data=cut.data[:100]))
    depth[2] = (depth[2][0], DEPTH_TOPIC, dataclasses.replace(depth[2][2], header=messages.header(stamp_of(1000))))
    assert exported(tmp_path, run, in_order(*bags.robot(FRAMES), *depth.values())) == {0: 1.0, 3: 4.0, 4: 5.0}


def test_a_dataset_without_a_frame_says_why(tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    bag = bags.write_ros2(tmp_path / "in", in_order(*bags.robot(FRAMES), *(measured(i, late_ns=40_000_000) for i in range(FRAMES))))
    run(bag, tmp_path / "out", {"mode.mode": "posed"}, dataset=tmp_path / "tum", depth_topic=DEPTH_TOPIC)
    assert "dataset: 0 frames; left out: 5 without measured depth within 20 ms" in caplog.messages


def test_measured_depth_goes_with_given_poses_only() -> None:
    class Everywhere:
        def of(self, result: Any) -> Any:
            return np.ones_like(result.depth_m)

    results = [make_result(stamp_ns=stamp_of(i), mode=mode) for i, mode in enumerate(("posed", "unposed", "metric"))]
    with tempfile.TemporaryDirectory() as folder:
        sink = DatasetFolder(Path(folder) / "tum", results[0].camera, Everywhere())  # type: ignore[arg-type]
        for result in results:
            sink.write([result])
        sink.close()
        assert [f.stamp_ns for f in TumRgbdRecording(Path(folder) / "tum")] == [stamp_of(0)]


def test_what_another_camera_saw_is_left_out(tmp_path: Path, run: Run) -> None:
    """An image of the anchor that cannot be used leaves a set to the rig's others."""
    recorded = [*bags.robot(FRAMES), *bags.camera(FRAMES, "/side", "side_optical"), *bags.static_tf("side_optical")]
    small = messages.image(np.zeros((28, 3 * 35), np.uint8), "rgb8", 28, 35, ns=stamp_of(2))
    recorded = [(t, name, small if (name, t) == ("/front/image_raw", stamp_of(2) + LATENCY_NS) else msg) for t, name, msg in recorded]
    recorded += [measured(i) for i in range(FRAMES)]
    found = exported(tmp_path, run, in_order(*recorded), **{"rig.anchor_camera": "front"})
    assert found == {0: 1.0, 1: 2.0, 3: 4.0, 4: 5.0}
    run(tmp_path / "in", tmp_path / "again", {"mode.mode": "posed", "rig.anchor_camera": "front"}, trajectory=tmp_path / "path.tum")
    seconds = [float(line.split()[0]) for line in (tmp_path / "path.tum").read_text().splitlines()]
    assert seconds == [stamp_of(i) / 1e9 for i in (0, 1, 3, 4)]


@pytest.mark.parametrize(
    ("topic", "shape", "complaint"),
    [
        (
            "/elsewhere",
            (HEIGHT, WIDTH),
            "/elsewhere holds no uncompressed depth: uncompressed images are on /front/depth_registered, /front/image_raw",
        ),
        ("/front/image_raw", (HEIGHT, WIDTH), "/front/image_raw holds rgb8 of 70x56: it takes 16UC1 or 32FC1 or 64FC1 of 70x56"),
        ("/front/depth_registered", (HEIGHT, WIDTH // 2), "holds 16UC1 of 35x56: it takes 16UC1 or 32FC1 or 64FC1 of 70x56"),
    ],
)
def test_depth_that_does_not_fit_ends_the_job(tmp_path: Path, run: Run, topic: str, shape: tuple[int, int], complaint: str) -> None:
    depth = [
        (stamp_of(i) + LATENCY_NS, "/front/depth_registered", messages.image(np.ones(shape, "<u2"), "16UC1", *shape, ns=stamp_of(i)))
        for i in range(FRAMES)
    ]
    bag = bags.write_ros2(tmp_path / "in", sorted([*bags.robot(FRAMES), *depth], key=lambda each: each[0]))
    with pytest.raises(BagError, match=complaint):
        run(bag, tmp_path / "out", {"mode.mode": "posed"}, dataset=tmp_path / "tum", depth_topic=topic)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_an_output_that_is_one_file(robot_bag: Path, tmp_path: Path, run: Run) -> None:
    run(robot_bag, tmp_path / "out.mcap")
    assert len(read_mcap(tmp_path / "out.mcap")["/da3/status"]) == FRAMES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mcap", "out.summary.json"]


def test_options_choose_camera_names_and_topics(tmp_path: Path, out: Path, run: Run) -> None:
    renamed = [(log_ns, topic.replace("/front/camera_info", "/calibration"), msg) for log_ns, topic, msg in bags.robot(FRAMES)]
    bag = bags.write_ros2(tmp_path / "in", renamed)
    run(bag, out, source=SourceOptions(cameras=("left=/front/image_raw,/calibration",), odometry="tf"))
    assert len(read_mcap(out)["/da3/left/depth/image"]) == FRAMES


def test_frames_reach_the_stream_as_they_are(robot_bag: Path) -> None:
    """Image, calibration and pose of the frames themselves, before any network."""
    from da3_ros.bag.plan import make_plan
    from da3_ros.bag.recording import Recording
    from da3_ros.bag.source import FrameSet, FrameSource
    from da3_ros.bag.survey import survey

    config = StreamConfig()
    with Recording(robot_bag) as recording:
        found = survey(recording, config.poses, "_da3")
        source = FrameSource(recording, found, make_plan(found, SourceOptions()), config, carry_all=False)
        frames = [item.frames[0] for item in source if isinstance(item, FrameSet)]
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, bags.picture(i))
        assert frame.calibration is not None
        np.testing.assert_array_equal(frame.calibration.K, bags.K)
        assert frame.T_world_cam is not None
        expected = bags.T_BASE_CAM.copy()
        expected[1, 3] += i * bags.SPEED_M_PER_FRAME
        np.testing.assert_allclose(frame.T_world_cam, expected, atol=1e-9)
    assert len(frames) == FRAMES


class EngineThatBuildsAtFirst:
    """An engine that knows what runs it only once it ran."""

    description = "not built yet"

    def __init__(self, engine: Engine) -> None:
        self.kind, self.device, self._engine = engine.kind, engine.device, engine

    def infer(self, *arguments: Any, **named: Any) -> Prediction:
        self.description = "built"
        return self._engine.infer(*arguments, **named)

    def reset(self) -> None:
        self._engine.reset()


def test_the_summary_names_what_ran_the_network_in_the_end(robot_bag: Path, out: Path, engine: Engine) -> None:
    summary = run_bag(BagJob(robot_bag, out), EngineThatBuildsAtFirst(engine), make_config(), OutputConfig())
    assert summary.engine == "built"
    assert json.loads((out / "summary.json").read_text())["engine"] == "built"
