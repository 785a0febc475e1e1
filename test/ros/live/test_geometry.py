"""What arrives at a subscriber is the room, in metres, where and when the image was taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: make ros-test")

import robot as r
import world
from da3.msg import Prediction, StreamStatus
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

TOPICS = {
    "depth/image": Image,
    "depth/camera_info": CameraInfo,
    "confidence/image": Image,
    "points": PointCloud2,
    "pose": PoseStamped,
}


@pytest.fixture(scope="module")
def drive(start_module_node: Callable[..., Any]) -> Iterator[r.Robot]:
    """Two seconds of driving, everything heard."""
    node = start_module_node()
    robot = r.Robot(node.domain_id)
    for topic, kind in TOPICS.items():
        robot.listen(kind, f"/da3/camera/{topic}")
    robot.listen(Odometry, "/da3/odometry")
    robot.listen(StreamStatus, "/da3/status")
    robot.listen(Prediction, "/da3/prediction")
    robot.listen(TFMessage, "/tf")
    robot.wait_until_heard()
    robot.drive(range(20))
    robot.spin(0.5)
    yield robot
    robot.close()


def heard(robot: r.Robot, topic: str) -> dict[int, Any]:
    return {r.number_of(message): message for message in robot.heard[f"/da3/{topic}"]}


def test_every_output_of_an_instant_bears_its_images_stamp_and_frame(drive: r.Robot) -> None:
    numbers = {topic: set(heard(drive, f"camera/{topic}")) for topic in TOPICS}
    assert len(numbers["depth/image"]) >= 15
    assert all(found == numbers["depth/image"] for found in numbers.values())
    for topic in ("depth/image", "depth/camera_info", "confidence/image", "points"):
        assert {message.header.frame_id for message in drive.heard[f"/da3/camera/{topic}"]} == {"camera_optical"}


def test_depth_and_camera_info_agree_as_an_exact_synchroniser_wants(drive: r.Robot) -> None:
    infos = heard(drive, "camera/depth/camera_info")
    for number, depth in heard(drive, "camera/depth/image").items():
        info = infos[number]
        assert (info.header, info.width, info.height) == (depth.header, depth.width, depth.height)
        assert depth.encoding == "32FC1"
        assert depth.width == 70
        np.testing.assert_allclose(info.k[0], world.FOCAL_PX * depth.width / world.WIDTH_PX, rtol=1e-6)


def test_depth_is_the_distance_of_the_walls(drive: r.Robot) -> None:
    images, infos = heard(drive, "camera/depth/image"), heard(drive, "camera/depth/camera_info")
    for number in sorted(images)[4:]:  # the first images tell no scale
        K = np.array(infos[number].k).reshape(3, 3)
        depth = r.pixels(images[number])
        truth = world.depth_m(world.T_world_body(number) @ world.T_BODY_CAM, K, *depth.shape)
        seen = np.isfinite(depth)
        assert seen.mean() > 0.7  # edges between walls are dropped
        np.testing.assert_allclose(depth[seen], truth[seen], rtol=0.03)


def test_points_lie_on_the_walls(drive: r.Robot) -> None:
    clouds = heard(drive, "camera/points")
    number = max(clouds)
    cloud = clouds[number]
    points = np.frombuffer(cloud.data, [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("confidence", "<f4")])
    assert len(points) == cloud.width * cloud.height and not cloud.is_dense
    xyz = np.stack([points["x"], points["y"], points["z"], np.ones(len(points))])[:, np.isfinite(points["z"])]
    in_world = (world.T_world_body(number) @ world.T_BODY_CAM @ xyz)[:3]
    off_walls = np.minimum(np.abs(in_world - world.ROOM_MIN[:, None]), np.abs(in_world - world.ROOM_MAX[:, None])).min(axis=0)
    assert np.percentile(off_walls, 95) < 0.1


def test_pose_odometry_and_tf_say_where_the_camera_is(drive: r.Robot) -> None:
    children = [t for message in drive.heard["/tf"] for t in message.transforms if t.child_frame_id != "base_link"]
    assert {(t.header.frame_id, t.child_frame_id) for t in children} == {("odom", "camera_optical_da3")}
    odometry = heard(drive, "odometry")
    for number, message in heard(drive, "camera/pose").items():
        truth = world.T_world_body(number) @ world.T_BODY_CAM
        position = message.pose.position
        np.testing.assert_allclose([position.x, position.y, position.z], truth[:3, 3], atol=0.02)
        assert odometry[number].pose.pose == message.pose
        assert (odometry[number].header.frame_id, odometry[number].child_frame_id) == ("odom", "camera_optical_da3")


def test_status_and_prediction_tell_mode_scale_and_times(drive: r.Robot) -> None:
    predictions = heard(drive, "prediction")
    number = max(predictions)
    status = heard(drive, "status")[number]
    assert (status.mode, status.cameras, status.window_views) == ("posed", ["camera"], 3)
    assert status.scale == pytest.approx(world.METRES_PER_NETWORK_UNIT, rel=0.03)
    assert 0 < status.latency_s < 2.0 and "engine" in status.stages
    assert predictions[number].status == status
    assert predictions[number].views[0].depth == heard(drive, "camera/depth/image")[number]
