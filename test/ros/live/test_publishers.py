"""Nothing is made for topics that nobody listens to, and ROS's own conversion libraries give the same bytes as ours."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: make ros-test")

import rclpy
import robot as r
import world
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from da3_core import FrameResult, PoseConfig, ScaleEstimate
from da3_ros.frames import OwnTransforms
from da3_ros.from_msg import LAYOUTS, rgb_from_any, rgb_from_image, rigid_from_msg
from da3_ros.libraries import (
    CV_BRIDGE_ENCODINGS,
    make_broadcaster,
    make_cloud_maker,
    make_image_decoder,
    make_rigid_reader,
    make_transforms,
)
from da3_ros.publishers import Publishers
from da3_ros.settings import CameraConfig, Parameters
from da3_ros.tf_tree import TransformError
from da3_ros.to_msg import RclpyTypes, StreamCounts, point_cloud

PARAMETERS = Parameters(cameras={"camera": CameraConfig()})


class CountingTypes(RclpyTypes):
    """Counts the messages that are made, nested ones included."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[str] = Counter()

    def message(self, name: str, /, **fields: Any) -> Any:
        self.made[name] += 1
        return super().message(name, **fields)


def result(number: int = 7) -> FrameResult:
    rng = np.random.default_rng(number)
    depth = rng.uniform(1, 5, (28, 42)).astype(np.float32)
    depth[3:6, 4] = np.nan
    return FrameResult(
        camera="camera",
        frame_id="camera_optical",
        stamp_ns=number,
        depth_m=depth,
        confidence=np.full_like(depth, 1.5),
        image=rng.integers(0, 256, (28, 42, 3), dtype=np.uint8),
        K=np.array([[40.0, 0, 20.5], [0, 40.0, 13.5], [0, 0, 1]]),
        T_world_cam=np.eye(4),
        mode="posed",
        mode_reason="",
        scale=ScaleEstimate(1.0, 0.01, "baselines"),
        window_views=1,
    )


@pytest.fixture
def node() -> Iterator[LifecycleNode]:
    context = Context()
    rclpy.init(context=context, domain_id=15)
    node = LifecycleNode("da3", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_nothing_is_made_while_nobody_listens(node: LifecycleNode) -> None:
    types = CountingTypes()
    publishers = Publishers(node, ["camera"], types, make_broadcaster(node))
    node.trigger_configure()
    node.trigger_activate()
    publishers.publish([result()], PARAMETERS, StreamCounts(1, 1, 0), time.monotonic())
    assert not types.made["sensor_msgs/msg/Image"] and not types.made["sensor_msgs/msg/PointCloud2"]
    assert not types.made["da3/msg/StreamStatus"] and not types.made["nav_msgs/msg/Odometry"]
    assert types.made["geometry_msgs/msg/TransformStamped"] == 1  # TF is one topic for all: nobody knows who listens for what

    heard: list[Any] = []
    node.create_subscription(CameraInfo, "/da3/camera/depth/camera_info", heard.append, 10)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    for _ in range(100):
        publishers.publish([result()], PARAMETERS, StreamCounts(1, 1, 0), time.monotonic())
        executor.spin_once(timeout_sec=0.05)
        if heard:
            break
    assert heard and not types.made["sensor_msgs/msg/Image"]
    executor.shutdown()


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("encoding", sorted(CV_BRIDGE_ENCODINGS))
def test_cv_bridge_decodes_to_the_same_bytes(encoding: str, padding: int) -> None:
    pytest.importorskip("cv_bridge", reason="cv_bridge is not on PyPI")
    step = 42 * LAYOUTS[encoding].channels + padding
    data = np.random.default_rng(1).integers(0, 256, (28, step), dtype=np.uint8)
    image = Image(height=28, width=42, encoding=encoding, step=step, data=data.tobytes())
    np.testing.assert_array_equal(make_image_decoder()(image), rgb_from_image(image))


@pytest.mark.parametrize("layout", ["organised", "dense"])
def test_sensor_msgs_py_makes_the_same_cloud(layout: str) -> None:
    pytest.importorskip("sensor_msgs_py", reason="sensor_msgs_py is not on PyPI")
    types, known = RclpyTypes(), result()
    unknown = dataclasses.replace(known, depth_m=np.full_like(known.depth_m, np.nan))
    for each in (known, unknown):
        assert make_cloud_maker()(types, each, layout) == point_cloud(types, each, layout)


def test_tf_transformations_reads_the_same_rotation() -> None:
    pytest.importorskip("tf_transformations", reason="tf_transformations is not on PyPI")
    pose = r.odometry(5).pose.pose
    np.testing.assert_allclose(make_rigid_reader()(pose), rigid_from_msg(pose), atol=1e-12)


@pytest.mark.parametrize(("package", "make"), [("tf_transformations", make_rigid_reader), ("cv_bridge", make_image_decoder)])
@pytest.mark.parametrize("error", ["AttributeError", "ImportError"])
def test_a_library_that_does_not_load_is_done_without(
    package: str, make: Callable[[], Any], error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As Ubuntu's transforms3d and cv_bridge do beside pip's numpy 2."""
    (tmp_path / f"{package}.py").write_text(f"raise {error}('of another numpy')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package, raising=False)
    assert make() in (rigid_from_msg, rgb_from_any)
    assert f"{package} is installed but does not load" in caplog.text and "of another numpy" in caplog.text


def test_tf2_finds_the_same_transforms(node: LifecycleNode) -> None:
    """Between poses, a little beyond the last one, and not at all."""
    pytest.importorskip("tf2_ros", reason="tf2_ros is not on PyPI")
    refused: list[str] = []
    trees = [make_transforms(node, PoseConfig(), refused.append), OwnTransforms(node, PoseConfig(), refused.append)]
    moving, fixed = (node.create_publisher(TFMessage, topic, qos) for topic, qos in (("/tf", 100), ("/tf_static", r.LATCHED)))
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    last_ns = r.BASE_NS + 3 * world.PERIOD_NS
    for _ in range(100):
        fixed.publish(TFMessage(transforms=[r.transform(0, "base_link", "camera_optical", world.T_BODY_CAM)]))
        moving.publish(TFMessage(transforms=[r.transform(n, "odom", "base_link", world.T_world_body(n)) for n in range(4)]))
        executor.spin_once(timeout_sec=0.05)
        if all(tree.is_known("odom", "camera_optical", last_ns) for tree in trees):
            break
    for stamp_ns in (last_ns, last_ns - world.PERIOD_NS // 3, last_ns + 20_000_000):
        theirs, ours = (tree.transform("odom", "camera_optical", stamp_ns) for tree in trees)
        np.testing.assert_allclose(theirs, ours, atol=1e-9)
    for tree in trees:
        assert not tree.is_known("odom", "camera_optical", last_ns + 1)
        for target, stamp_ns in (("odom", last_ns + 500_000_000), ("map", last_ns)):
            with pytest.raises(TransformError):
                tree.transform(target, "camera_optical", stamp_ns)
        tree.close()
    executor.shutdown()
