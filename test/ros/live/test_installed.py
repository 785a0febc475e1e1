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

from da3_core import (
    BUILT_IN_WEIGHTS,
    Calibration,
    Frame,
    Stream,
    StreamConfig,
    load_model,
    make_engine,
    replace_setting,
    ros_from_K,
    save_model,
)
from da3_core.scenes import Samples, make_samples, seeds

HEIGHT_PX, WIDTH_PX, VIEWS = 126, 168, 8
WORST_ABS_REL = 0.5  # of da3-nano's early weights


@pytest.fixture(scope="module")
def rendered() -> Samples:
    return make_samples(seeds("demo", 0, 1), VIEWS, (HEIGHT_PX, WIDTH_PX), kinds="room", styles="robot")


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("random")
    save_model(load_model("da3-nano", weights=None), folder)
    return folder


def pixels_of(rendered: Samples, number: int) -> Any:
    return np.ascontiguousarray((rendered.images[0, number].permute(1, 2, 0) * 255).byte().numpy())


def send(robot: r.Robot, rendered: Samples, number: int) -> None:
    T_odom_base = rendered.T_world_cam[0, number].double().numpy() @ np.linalg.inv(world.T_BODY_CAM)
    robot.publish_tf(TFMessage(transforms=[r.transform(number, "odom", "base_link", T_odom_base)]))
    info = r.camera_info(number, "camera", ros_from_K(rendered.K[0, number].double()).numpy())
    info.width, info.height = WIDTH_PX, HEIGHT_PX
    robot.send_info("camera", info)
    pixels = pixels_of(rendered, number)
    message = r.image_message(number, "camera")
    message.height, message.width, message.step, message.data = HEIGHT_PX, WIDTH_PX, 3 * WIDTH_PX, array("B", pixels.tobytes())
    robot.send_image("camera", message)


def drive(start_node: Callable[..., Any], rendered: Samples, model: str) -> list[Any]:
    """Depth of every view, each sent when the last one's has come; parameters are the shipped file's, but for sizes, model and mode."""
    program = Path(get_package_prefix("da3")) / "lib" / "da3" / "da3_node"
    config = Path(get_package_share_directory("da3")) / "config" / "one_camera.yaml"
    sizes = {"preprocess.size": WIDTH_PX, "image_width_px": WIDTH_PX, "image_height_px": HEIGHT_PX}
    own = {"model": model, "engine": "eager", "mode.mode": "posed", "pose_timeout_s": 2.0, **sizes}
    own |= {f"qos_overrides./camera/{topic}.subscription.reliability": "reliable" for topic in ("image_raw", "camera_info")}
    words = [word for name, value in own.items() for word in ("-p", f"{name}:={value}")]
    node = start_node(program, ["--params-file", str(config), *words], defaults={"use_sim_time": True})
    with closing(r.Robot(node.domain_id, image_qos=r.RELIABLE, info_qos=r.RELIABLE)) as robot:
        depth, infos = robot.listen(Image, "/da3/camera/depth/image"), robot.listen(CameraInfo, "/da3/camera/depth/camera_info")
        diagnostics = robot.listen(DiagnosticArray, "/diagnostics")
        robot.wait_until_heard()
        robot.wait_until_tf_is_heard()
        for number in range(VIEWS):
            send(robot, rendered, number)
            robot.wait_for(lambda number=number: len(depth) > number)
        robot.wait_for(lambda: diagnostics, what="diagnostics though simulated time stands still")
        robot.wait_for(lambda: len(depth) == len(infos))
    assert [message.header for message in depth] == [message.header for message in infos]
    assert [r.number_of(message) for message in depth] == list(range(VIEWS))
    return [r.pixels(message) for message in depth]


def registered(rendered: Samples, model: str) -> list[Any]:
    """What the stream makes of the same images without a node."""
    config = replace_setting(replace_setting(StreamConfig(), "preprocess.size", WIDTH_PX), "mode.mode", "posed")
    stream = Stream(make_engine("eager", load_model(model), "cpu", config.window.views), config)
    return [stream.register([_frame(rendered, number)])[0].depth_m for number in range(VIEWS)]


def _frame(rendered: Samples, number: int) -> Frame:
    K = ros_from_K(rendered.K[0, number].double()).numpy()
    stamp_ns = r.BASE_NS + number * world.PERIOD_NS
    calibration = Calibration(WIDTH_PX, HEIGHT_PX, K)
    return Frame(
        "camera", "camera_optical", stamp_ns, pixels_of(rendered, number), calibration, rendered.T_world_cam[0, number].double().numpy()
    )


def test_the_installed_program_gives_what_the_stream_gives(start_node: Callable[..., Any], rendered: Samples, random_weights: Path) -> None:
    live, offline = drive(start_node, rendered, str(random_weights)), registered(rendered, str(random_weights))
    seen = 0
    for found, expected in zip(live, offline, strict=True):
        both = np.isfinite(found) & np.isfinite(expected)
        assert (np.isfinite(found) == np.isfinite(expected)).mean() > 0.99
        np.testing.assert_allclose(found[both], expected[both], rtol=1e-3)  # poses went through quaternions
        seen += int(both.sum())
    assert seen > 0


@pytest.mark.skipif(not (BUILT_IN_WEIGHTS / "da3-nano").is_dir(), reason="da3-nano's weights are not in this package yet")
def test_the_built_in_network_sees_the_rendered_world(start_node: Callable[..., Any], rendered: Samples) -> None:
    truth = [depth.numpy() for depth in rendered.depth_m[0]]
    errors = [_abs_rel(*pair) for pair in list(zip(drive(start_node, rendered, "da3-nano"), truth, strict=True))[2:]]
    assert np.median(errors) < WORST_ABS_REL


def _abs_rel(depth: Any, truth: Any) -> float:
    seen = np.isfinite(depth) & (truth > 0)
    return float(np.mean(np.abs(depth[seen] / truth[seen] - 1)))
