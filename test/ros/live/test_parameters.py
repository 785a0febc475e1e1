"""Parameters from another process: described, refused with the reason, taken live, and dumped and loaded again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2: make ros-test")

import robot as r
import world
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from rclpy.parameter import Parameter, parameter_value_to_python
from sensor_msgs.msg import CameraInfo, Image

from da3_ros.settings import CameraConfig, Parameters


@pytest.fixture(scope="module")
def node(start_module_node: Callable[..., Any]) -> Any:
    return start_module_node(filter__edge_ratio=0.0)


@pytest.fixture(scope="module")
def robot(node: Any) -> Iterator[r.Robot]:
    robot = r.Robot(node.domain_id)
    robot.listen(Image, "/da3/camera/depth/image")
    robot.listen(CameraInfo, "/da3/camera/depth/camera_info")
    robot.wait_until_heard()
    robot.drive(range(6))
    yield robot
    robot.close()


def set_parameter(robot: r.Robot, name: str, value: Any) -> Any:
    messages: list[ParameterMessage] = [Parameter(name, value=value).to_parameter_msg()]
    return robot.call(SetParameters, "/da3/set_parameters", SetParameters.Request(parameters=messages)).results[0]


def get_parameters(robot: r.Robot, names: list[str]) -> dict[str, Any]:
    values = robot.call(GetParameters, "/da3/get_parameters", GetParameters.Request(names=names)).values
    return {name: parameter_value_to_python(value) for name, value in zip(names, values, strict=True)}


def names(robot: r.Robot) -> list[str]:
    return list(robot.call(ListParameters, "/da3/list_parameters").result.names)


def test_every_setting_is_a_described_parameter(robot: r.Robot) -> None:
    settings = Parameters(cameras={"camera": CameraConfig()}).flat()
    assert set(settings) <= set(names(robot))
    ordered = list(settings)
    described = robot.call(DescribeParameters, "/da3/describe_parameters", DescribeParameters.Request(names=ordered)).descriptors
    for name, descriptor in zip(ordered, described, strict=True):
        f, _ = settings[name]
        assert descriptor.description == f.metadata["help"]
        assert descriptor.read_only == bool(f.metadata.get("read_only"))
        for found in (*descriptor.floating_point_range, *descriptor.integer_range):
            assert (found.from_value, found.to_value) == f.metadata["range"]
        assert len(descriptor.floating_point_range) + len(descriptor.integer_range) == ("range" in f.metadata)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("filter.min_confidence", 0.5, "range"),
        ("filter.min_confidence", float("nan"), "min_confidence"),
        ("filter.max_depth_m", "far", "max_depth_m takes a float, not 'far'"),
        ("filter.max_depth_m", -1, "outside"),
        ("filter.max_depth_m", None, "takes a float"),
        ("filter.max_depth_m", True, "takes a float"),
        ("window.keyframe_interval_s", 61, "outside"),
        ("scale.unknown", "guess", "none of drop, relative"),
        ("mode.mode", "metric", "needs a metric or a nested model"),
        ("rig.anchor_camera", "rear", "none of camera"),
        ("output.child_suffix", "", "child_suffix is empty"),
        ("window.views", 5, "read-only"),
        ("poses.tolerance_s", 0.1, "read-only"),
    ],
)
def test_a_bad_value_is_refused_with_the_reason(robot: r.Robot, name: str, value: Any, reason: str) -> None:
    before = get_parameters(robot, [name])
    answer = set_parameter(robot, name, value)
    assert not answer.successful
    assert reason in answer.reason.replace("read only", "read-only")
    assert get_parameters(robot, [name]) == before


def test_an_unknown_parameter_is_refused(robot: r.Robot) -> None:
    answer = set_parameter(robot, "filter.no_such_thing", 1)
    assert not answer.successful and "undeclared" in answer.reason


def test_a_changed_filter_holds_from_the_next_image_on_and_keeps_the_scale(robot: r.Robot) -> None:
    depth = robot.heard["/da3/camera/depth/image"]
    assert np.isfinite(r.pixels(depth[-1])).all()
    assert set_parameter(robot, "filter.min_confidence", 2.5).successful  # the engine is always confident by 2
    robot.drive(range(10, 14))
    assert np.isnan(r.pixels(depth[-1])).all()
    assert set_parameter(robot, "filter.min_confidence", 1.5).successful
    robot.drive(range(14, 17))
    assert np.isfinite(r.pixels(depth[-1])).all()  # a scale that had to be found anew would not be there yet


def test_an_integer_is_taken_for_a_float_as_in_a_file_of_the_offline_job(robot: r.Robot, start_node: Callable[..., Any]) -> None:
    nearest_m = np.nanmin(r.pixels(robot.heard["/da3/camera/depth/image"][-1]))
    assert nearest_m > 1
    assert set_parameter(robot, "filter.max_depth_m", 1).successful
    robot.drive(range(20, 23))
    assert np.isnan(r.pixels(robot.heard["/da3/camera/depth/image"][-1])).all()
    assert set_parameter(robot, "filter.max_depth_m", 0).successful
    node = start_node(filter__max_depth_m=1, poses__memory_s=20, restart_interval_s=1)
    with closing(r.Robot(node.domain_id)) as other:
        depth = other.listen(Image, "/da3/camera/depth/image")
        other.wait_until_heard()
        other.drive(range(6))
        assert depth and np.isnan(r.pixels(depth[-1])).all()


def test_depth_at_the_inputs_size_in_millimetres(start_node: Callable[..., Any]) -> None:
    node = start_node(preprocess__output_size="input", output__depth_encoding="16UC1")
    with closing(r.Robot(node.domain_id)) as robot:
        depth, infos = robot.listen(Image, "/da3/camera/depth/image"), robot.listen(CameraInfo, "/da3/camera/depth/camera_info")
        robot.wait_until_heard()
        robot.drive(range(10))
        robot.wait_for(lambda: depth and infos and r.number_of(depth[-1]) == r.number_of(infos[-1]) > 4)
    assert (depth[-1].encoding, depth[-1].width, depth[-1].height) == ("16UC1", world.WIDTH_PX, world.HEIGHT_PX)
    assert (infos[-1].width, infos[-1].height) == (world.WIDTH_PX, world.HEIGHT_PX)
    np.testing.assert_allclose(np.array(infos[-1].k).reshape(3, 3), world.K_px(), atol=1e-6)
    T_world_cam = world.T_world_body(r.number_of(depth[-1])) @ world.T_BODY_CAM
    truth = world.depth_m(T_world_cam, world.K_px(), world.HEIGHT_PX, world.WIDTH_PX)
    seen = r.pixels(depth[-1])
    assert (seen > 0).mean() > 0.7
    np.testing.assert_allclose(seen[seen > 0] / 1000.0, truth[seen > 0], rtol=0.05)


def test_a_dump_loads_into_the_same_parameters(robot: r.Robot, start_node: Callable[..., Any], tmp_path: Path) -> None:
    every = [name for name in names(robot) if not name.startswith("start_type_description")]
    dumped = get_parameters(robot, every)
    path = tmp_path / "dump.yaml"
    path.write_text(yaml.safe_dump({"/da3": {"ros__parameters": _nested(dumped)}}))  # as `ros2 param dump` writes it
    again = start_node(arguments=["--params-file", str(path)], defaults={})
    other = r.Robot(again.domain_id)
    other.wait_until_heard()
    assert get_parameters(other, every) == dumped
    other.close()


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *groups, leaf = name.split(".")
        group = nested
        for part in groups:
            group = group.setdefault(part, {})
        group[leaf] = _plain(value)
    return nested


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else list(value)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"preprocess__size": 7}, "preprocess.size"),
        ({"pose_source": "stars"}, "tf, odometry, none"),
        ({"cameras": "[window]"}, "name of a parameter"),
        ({"output__child_suffix": "''"}, "child_suffix is empty"),
        ({"pose_source": "odometry", "camera__extrinsics": "1 2 3"}, "x y z qx qy qz qw"),
        ({"image_width_px": 640}, "640x0: set image_width_px and image_height_px, or neither"),
        ({"rig__anchor_camera": "rear"}, "none of camera"),
    ],
)
def test_a_bad_start_ends_with_the_reason(start_node: Callable[..., Any], parameters: dict[str, Any], reason: str) -> None:
    node = start_node(**parameters, prepare=["slow_build"])  # the network is not waited for
    assert node.process.wait(30) != 0
    assert reason in node.log
    assert "Traceback" not in node.log
