"""Cameras, transports, QoS, calibrations and poses as robots have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: make ros-test")

import robot as r
import world
from da3.msg import StreamStatus
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from da3_ros.cameras import CameraInput
from da3_ros.settings import CameraConfig, NodeConfig

StartNode = Callable[..., Any]


def positions(poses: list[PoseStamped]) -> dict[int, list[float]]:
    return {r.number_of(m): [m.pose.position.x, m.pose.position.y, m.pose.position.z] for m in poses}


def assert_poses_are_true(poses: list[PoseStamped], atol: float = 1e-3) -> None:
    assert poses
    for number, position in positions(poses).items():
        np.testing.assert_allclose(position, (world.T_world_body(number) @ world.T_BODY_CAM)[:3, 3], atol=atol)


def test_a_rig_of_compressed_cameras_goes_in_together_and_goes_on_when_one_is_silent(start_node: StartNode) -> None:
    names = ("front", "left", "right")
    rig = {"rig__anchor_camera": "left", "rig__max_camera_time_diff_s": 0.02, "window__views": 6}
    node = start_node(cameras=list(names), image_transport="compressed", **rig)
    with closing(r.Robot(node.domain_id, names, "compressed")) as robot:
        status = robot.listen(StreamStatus, "/da3/status")
        depth = {name: robot.listen(Image, f"/da3/{name}/depth/image") for name in names}
        robot.wait_until_heard()
        for number in range(10):
            robot.send(number)
            robot.send_image("right", _offset(r.jpeg_message(number, "right"), 40_000_000))  # too far from any of the anchor's
            robot.spin(0.1)
        robot.wait_for(lambda: status and r.number_of(status[-1]) >= 8)
        last = status[-1]
        assert (last.cameras, last.window_views) == (["left", "front", "right"], 6)
        assert {depth[name][-1].header.frame_id for name in names} == {f"{name}_optical" for name in names}
        assert 6 <= last.frames_dropped <= 14
        assert last.frames_in - last.frames_out - last.frames_dropped <= 9  # what is under way

        robot.drive(range(10, 25), cameras=["front", "left"])  # half a rig
        robot.wait_for(lambda: r.number_of(status[-1]) >= 23)
        assert status[-1].cameras == ["left", "front"]

        robot.drive(range(25, 40), cameras=["front", "right"])  # the trigger is gone
        robot.wait_for(lambda: r.number_of(status[-1]) >= 38)
        assert status[-1].cameras[0] != "left" and set(status[-1].cameras) == {"front", "right"}

        robot.drive(range(40, 50))
        robot.wait_for(lambda: r.number_of(status[-1]) >= 48)
        assert status[-1].cameras == ["left", "front", "right"]


def _offset(message: Any, ns: int) -> Any:
    message.header.stamp.nanosec += ns
    return message


def test_image_qos_is_sensor_data_and_can_be_overridden(start_node: StartNode) -> None:
    override = {"qos_overrides./camera/image_raw.subscription.reliability": "reliable"}
    node = start_node(**override)
    with closing(r.Robot(node.domain_id)) as best_effort:
        depth = best_effort.listen(Image, "/da3/camera/depth/image", qos_profile_sensor_data)
        best_effort.wait_for(lambda: best_effort.node.count_subscribers("/camera/image_raw"), 90.0)
        best_effort.drive(range(5))
        assert not depth  # a reliable subscription takes nothing from a best-effort publisher
        with closing(r.Robot(node.domain_id, image_qos=r.RELIABLE)) as reliable:
            reliable.wait_until_heard()
            reliable.drive(range(5, 10))
        best_effort.wait_for(lambda: depth)


def test_a_latched_camera_info_from_before_the_start_is_taken(start_node: StartNode) -> None:
    topic = "qos_overrides./camera/camera_info.subscription"
    node = start_node(**{f"{topic}.reliability": "reliable", f"{topic}.durability": "transient_local"})
    with closing(r.Robot(node.domain_id, info_qos=r.LATCHED)) as robot:
        depth = robot.listen(Image, "/da3/camera/depth/image")
        robot.send(0, images=False)  # the node is not there yet
        robot.wait_until_heard()
        robot.drive(range(1, 6), info=False)
        robot.wait_for(lambda: depth)


def test_outputs_reach_listeners_of_every_quality_and_can_be_overridden(start_node: StartNode) -> None:
    node = start_node(**{"qos_overrides./da3/camera/points.publisher.reliability": "best_effort"})
    with closing(r.Robot(node.domain_id)) as demanding, closing(r.Robot(node.domain_id)) as content:
        depth, points = ("/da3/camera/depth/image", "/da3/camera/points")
        refused = demanding.listen(PointCloud2, points, r.RELIABLE)  # made best effort, it is not enough
        heard = [demanding.listen(Image, depth, r.RELIABLE)]
        heard += [content.listen(kind, topic, qos_profile_sensor_data) for kind, topic in ((Image, depth), (PointCloud2, points))]
        demanding.wait_until_heard()
        for number in range(50):
            demanding.send(number)
            demanding.spin(0.1)
            content.spin(0.02)
            if all(heard):
                break
        assert all(heard) and not refused


@pytest.fixture(scope="module")
def robot(start_module_node: StartNode) -> Iterator[r.Robot]:
    """For what one node can show after another; each test begins behind the last one's numbers."""
    node = start_module_node(pose_timeout_s=3.0)
    robot = r.Robot(node.domain_id, image_qos=r.RELIABLE)  # best-effort subscriptions take that, too
    robot.node_log = lambda: node.log
    robot.listen(CameraInfo, "/da3/camera/depth/camera_info")
    robot.listen(PoseStamped, "/da3/camera/pose")
    robot.wait_until_heard()
    yield robot
    robot.close()


def test_camera_info_may_come_late_and_change(robot: r.Robot) -> None:
    infos = robot.heard["/da3/camera/depth/camera_info"]
    robot.drive(range(5), info=False)
    assert not infos

    robot.send(5)
    robot.drive(range(6, 12), info=False)  # once is enough
    robot.wait_for(lambda: infos and r.number_of(infos[-1]) >= 10)
    assert infos[-1].k[0] == pytest.approx(world.FOCAL_PX / 2, rel=1e-3)

    K = world.K_px()
    K[0, 0] = K[1, 1] = 130.0
    robot.send_info("camera", r.camera_info(12, "camera", K))
    robot.spin(0.3)
    robot.drive(range(12, 16), info=False)
    robot.wait_for(lambda: r.number_of(infos[-1]) >= 14)
    assert infos[-1].k[0] == pytest.approx(130.0 / 2, rel=1e-3)
    assert "calibration changed" in robot.node_log()


@pytest.mark.parametrize(("rectified", "matrix"), [(False, "K"), (True, "P")])
def test_a_camera_info_without_a_calibration_lacks_one(rectified: bool, matrix: str) -> None:
    told: list[Callable[[CameraInfo], None]] = []
    listener = SimpleNamespace(create_subscription=lambda kind, topic, callback, *_, **__: told.append(callback))
    camera = CameraInput(listener, "camera", CameraConfig(), NodeConfig(rectified=rectified), print)
    for info, lacks in (
        (r.camera_info(0, "camera"), ""),
        (r.camera_info(0, "camera", np.zeros((3, 3))), f"camera_info holds no calibration ({matrix} is 0)"),
        (r.camera_info(0, "camera", np.full((3, 3), np.nan)), "camera_info holds values that are not finite"),
        (r.camera_info(0, "camera"), ""),
    ):
        told[0](info)
        assert (camera.calibration is None, camera.lacks) == (bool(lacks), lacks)


def test_a_pose_that_comes_late_is_waited_for_and_blocks_nobody(robot: r.Robot) -> None:
    poses = robot.heard["/da3/camera/pose"]
    robot.drive(range(100, 103))
    robot.wait_for(lambda: poses and r.number_of(poses[-1]) == 102)
    robot.send(103, tf=False)
    robot.spin(0.3)
    answer = robot.call(GetParameters, "/da3/get_parameters", GetParameters.Request(names=["pose_source"]), timeout_s=2.0)
    assert answer.values[0].string_value == "tf"
    assert 103 not in positions(poses)
    robot.send_tf(104)  # surrounds image 103 with 102: interpolated
    robot.wait_for(lambda: 103 in positions(poses), 2.0)
    np.testing.assert_allclose(positions(poses)[103], (world.T_world_body(103) @ world.T_BODY_CAM)[:3, 3], atol=0.01)


def test_a_clock_that_goes_back_begins_a_new_run(robot: r.Robot) -> None:
    poses = robot.heard["/da3/camera/pose"]
    robot.drive(range(200, 210))
    robot.wait_for(lambda: poses and r.number_of(poses[-1]) >= 208)
    poses.clear()
    robot.drive(range(150, 160))  # a bag that loops
    robot.wait_for(lambda: poses and r.number_of(poses[-1]) == 159)
    assert min(positions(poses)) <= 151
    assert_poses_are_true(poses)
    assert "clock went back" in robot.node_log()


def test_odometry_and_given_extrinsics_place_the_camera(start_node: StartNode) -> None:
    T = world.T_BODY_CAM
    extrinsics = f"{T[0, 3]} {T[1, 3]} {T[2, 3]} -0.5 0.5 -0.5 0.5"
    node = start_node(pose_source="odometry", camera__extrinsics=extrinsics)
    with closing(r.Robot(node.domain_id)) as robot:
        poses, status = robot.listen(PoseStamped, "/da3/camera/pose"), robot.listen(StreamStatus, "/da3/status")
        robot.wait_until_heard()
        robot.drive(range(8), tf=False)
        robot.wait_for(lambda: status and r.number_of(status[-1]) >= 6)
        assert status[-1].mode == "posed"
        assert_poses_are_true(poses)


def test_poses_that_are_not_used_do_not_place_the_camera_in_their_frame(start_node: StartNode) -> None:
    """Until one is used, the network's own world is not `odom`; once it is, the camera is followed from there."""
    node = start_node(mode__mode="unposed", scale__unknown="relative")
    with closing(r.Robot(node.domain_id)) as robot:
        poses, status = robot.listen(PoseStamped, "/da3/camera/pose"), robot.listen(StreamStatus, "/da3/status")
        odometry = robot.listen(Odometry, "/da3/odometry")
        robot.wait_until_heard()
        robot.drive(range(8))
        robot.wait_for(lambda: status and r.number_of(status[-1]) >= 6)
        assert (status[-1].mode, status[-1].header.frame_id) == ("unposed", "odom")
        assert not poses and not odometry
        assert "no given pose could be used yet" in node.log
        assert robot.set_parameters("/da3", [Parameter("mode.mode", value="posed")])
        robot.drive(range(8, 14))
        robot.wait_for(lambda: poses and odometry and r.number_of(poses[-1]) >= 12)
        assert_poses_are_true(poses)


def test_without_poses_the_network_finds_them(start_node: StartNode) -> None:
    node = start_node(pose_source="none", scale__unknown="relative")
    with closing(r.Robot(node.domain_id)) as robot:
        poses, status = robot.listen(PoseStamped, "/da3/camera/pose"), robot.listen(StreamStatus, "/da3/status")
        robot.wait_until_heard()
        robot.drive(range(8), tf=False, odometry=False)
        robot.wait_for(lambda: status and r.number_of(status[-1]) >= 6)
        assert (status[-1].mode, status[-1].header.frame_id) == ("unposed", "da3_world")
        found = positions(poses)
        first, last = min(found), max(found)
        T_first, T_last = (world.T_world_body(number) @ world.T_BODY_CAM for number in (first, last))
        moved = np.linalg.norm(np.subtract(found[last], found[first]))  # in the network's unit
        assert moved * world.METRES_PER_NETWORK_UNIT == pytest.approx(np.linalg.norm(T_last[:3, 3] - T_first[:3, 3]), rel=0.01)
