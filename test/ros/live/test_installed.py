"""The program that colcon installed, with a real network, driven by a rendered world at a camera's rate."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="needs ROS 2: make ros-test")

import robot as r
import world
from ament_index_python.packages import get_package_prefix, get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from da3_core import BUILT_IN_WEIGHTS, load_model, ros_from_K, save_model
from da3_core.scenes import Samples, make_samples, seeds

HEIGHT_PX, WIDTH_PX, VIEWS = 126, 168, 16


@pytest.fixture(scope="module")
def rendered() -> Samples:
    return make_samples(seeds("demo", 0, 1), VIEWS, (HEIGHT_PX, WIDTH_PX), kinds="room", styles="robot")


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("random")
    save_model(load_model("da3-nano", weights=None), folder)
    return folder


def send(robot: r.Robot, rendered: Samples, number: int) -> None:
    T_odom_base = rendered.T_world_cam[0, number].double().numpy() @ np.linalg.inv(world.T_BODY_CAM)
    robot.publish_tf(TFMessage(transforms=[r.transform(number, "odom", "base_link", T_odom_base)]))
    info = r.camera_info(number, "camera", ros_from_K(rendered.K[0, number].double()).numpy())
    info.width, info.height = WIDTH_PX, HEIGHT_PX
    robot.send_info("camera", info)
    pixels = (rendered.images[0, number].permute(1, 2, 0) * 255).byte().numpy()
    message = r.image_message(number, "camera")
    message.height, message.width, message.step, message.data = HEIGHT_PX, WIDTH_PX, 3 * WIDTH_PX, array("B", pixels.tobytes())
    robot.send_image("camera", message)


def drive(start_node: Callable[..., Any], rendered: Samples, model: str, engine: str) -> dict[int, tuple[Any, Any]]:
    """number -> (depth, truth) of what came back; the node's parameters are those of the shipped file, but for size and model."""
    program = Path(get_package_prefix("da3")) / "lib" / "da3" / "da3_node"
    config = Path(get_package_share_directory("da3")) / "config" / "one_camera.yaml"
    own = {"model": model, "engine": engine, "preprocess.size": WIDTH_PX, "image_width_px": WIDTH_PX, "image_height_px": HEIGHT_PX}
    node = start_node(program, ["--params-file", str(config), *_overrides(own)], defaults={"use_sim_time": True})
    with closing(r.Robot(node.domain_id)) as robot:
        depth, infos = robot.listen(Image, "/da3/camera/depth/image"), robot.listen(CameraInfo, "/da3/camera/depth/camera_info")
        diagnostics = robot.listen(DiagnosticArray, "/diagnostics")
        robot.wait_until_heard()
        for number in range(VIEWS):
            send(robot, rendered, number)
            robot.spin(0.3)
        robot.wait_for(lambda: depth and r.number_of(depth[-1]) >= VIEWS - 2)
        robot.wait_for(lambda: diagnostics, what="diagnostics though simulated time stands still")
        robot.wait_for(lambda: len(depth) == len(infos))
    assert [message.header for message in depth] == [message.header for message in infos]
    return {r.number_of(message): (r.pixels(message), rendered.depth_m[0, r.number_of(message)].numpy()) for message in depth}


def _overrides(parameters: dict[str, Any]) -> list[str]:
    return [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]


def test_the_installed_program_runs_a_network(start_node: Callable[..., Any], rendered: Samples, random_weights: Path) -> None:
    found = drive(start_node, rendered, str(random_weights), "eager")
    assert len(found) >= VIEWS // 2
    for depth, truth in found.values():
        assert depth.shape == truth.shape  # 168 is a multiple of 14: nothing is resized
        assert not (depth[np.isfinite(depth)] <= 0).any()


@pytest.mark.skipif(not (BUILT_IN_WEIGHTS / "da3-nano").is_dir(), reason="da3-nano's weights are not in this package yet")
def test_the_built_in_network_sees_the_rendered_world(start_node: Callable[..., Any], rendered: Samples) -> None:
    found = drive(start_node, rendered, "da3-nano", "auto")
    errors = [_abs_rel(*found[number]) for number in sorted(found)[3:]]
    assert len(errors) >= VIEWS // 2
    assert np.median(errors) < 0.2


def _abs_rel(depth: Any, truth: Any) -> float:
    seen = np.isfinite(depth) & np.isfinite(truth)
    return float(np.mean(np.abs(depth[seen] / truth[seen] - 1)))
