"""Each fault shows in /diagnostics, leaves the node alive, and is over when its cause is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: make ros-test")

import robot as r
import world
from da3.msg import StreamStatus
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage

HAS_TF2 = find_spec("tf2_ros") is not None  # it tells nobody but the log what it refuses
OK, WARN, ERROR = (bytes([level]) for level in range(3))


class Patient:
    """A node under faults, watched through its diagnostics; images are numbered on and on."""

    def __init__(self, start_node: Callable[..., Any], cameras: tuple[str, ...], transport: str, **parameters: Any) -> None:
        self.node = start_node(cameras=list(cameras), image_transport=transport, pose_timeout_s=0.05, **parameters)
        self.robot = r.Robot(self.node.domain_id, cameras, transport)
        self.diagnostics = self.robot.listen(DiagnosticArray, "/diagnostics")
        self.status = self.robot.listen(StreamStatus, "/da3/status")
        self.depth = self.robot.listen(Image, f"/da3/{cameras[0]}/depth/image")
        self.number = 0
        self.robot.wait_until_heard()

    def drive_until(self, condition: Callable[[], Any], timeout_s: float = 30.0, **parts: Any) -> None:
        for _ in range(int(timeout_s * 10)):
            if condition():
                return
            self.robot.send(self.number, **parts)
            self.number += 1
            self.robot.spin(0.1)
        raise AssertionError(f"not within {timeout_s} s; diagnostics say {self.says()}")

    def says(self) -> dict[str, tuple[bytes, str, dict[str, str]]]:
        """The newest diagnostics: name -> level, message, values."""
        if not self.diagnostics:
            return {}
        return {s.name: (s.level, s.message, {v.key: v.value for v in s.values}) for s in self.diagnostics[-1].status}

    def complains(self, name: str, level: bytes, text: str) -> bool:
        found_level, message, _ = self.says().get(f"da3: {name}", (OK, "", {}))
        return found_level == level and text in message

    def is_well(self) -> bool:
        return bool(self.says()) and all(level == OK for level, _, _ in self.says().values())

    def works(self) -> bool:
        """Depth of one of the last images has come."""
        return bool(self.depth) and r.number_of(self.depth[-1]) >= self.number - 3

    def recovers(self, **parts: Any) -> None:
        self.drive_until(lambda: self.is_well() and self.works(), **parts)


@pytest.fixture(scope="module")
def patient(start_module_node: Callable[..., Any]) -> Iterator[Patient]:
    patient = Patient(start_module_node, ("camera",), "raw", pose_source="odometry", engine_failures=4, memory_retry_s=1.0)
    patient.recovers()
    yield patient
    patient.robot.close()


def test_a_silent_camera(patient: Patient) -> None:
    patient.robot.wait_for(lambda: patient.complains("camera camera", ERROR, "no image for"))
    patient.recovers()


def test_an_encoding_that_is_no_picture(patient: Patient) -> None:
    def send() -> None:
        patient.number += 1
        patient.robot.send_image("camera", r.image_message(patient.number, "camera", "32FC1"))

    send()
    patient.drive_until(lambda: send() or patient.complains("camera camera", ERROR, "32FC1 is depth"), images=False)
    patient.recovers()


def test_a_camera_info_of_another_size(patient: Patient) -> None:
    info = r.camera_info(patient.number, "camera")
    info.width //= 2
    patient.robot.send_info("camera", info)
    patient.drive_until(lambda: patient.complains("camera camera", ERROR, "camera_info is of"), info=False)
    patient.recovers()


def test_odometry_that_is_not_a_number(patient: Patient) -> None:
    def send() -> None:
        broken = r.odometry(patient.number)
        broken.pose.pose.position.x = float("nan")
        patient.robot.send_odometry(broken)

    patient.drive_until(lambda: send() or patient.complains("depth", ERROR, "not a rigid transform"), odometry=False)
    assert patient.works()
    patient.recovers()


def test_a_gap_in_the_poses(patient: Patient) -> None:
    patient.drive_until(lambda: patient.complains("camera camera", WARN, "without a pose: no odometry"), odometry=False)
    patient.drive_until(lambda: patient.status[-1].mode == "unposed" and patient.works(), odometry=False)
    patient.recovers()
    patient.drive_until(lambda: patient.status[-1].mode == "posed")


def test_odometry_that_does_not_fit_the_images(patient: Patient) -> None:
    def send() -> None:
        T = world.T_world_body(-5 * patient.number)  # around the wrong way
        patient.robot.send_odometry(r.odometry(patient.number, T))

    def is_found_out() -> bool:
        last = patient.status[-1]
        return last.mode == "unposed" and last.mode_reason.startswith("given poses contradict the images")

    assert patient.robot.set_parameters("/da3", [Parameter("mode.gate_interval", value=1)])
    patient.drive_until(lambda: send() or is_found_out(), odometry=False)
    patient.drive_until(lambda: patient.status[-1].mode == "posed")


def test_an_engine_that_fails_once_in_a_while(patient: Patient) -> None:
    patient.node.inject("fail_once")
    patient.drive_until(lambda: "injected engine failure" in patient.node.log)
    patient.recovers()
    patient.robot.wait_for(lambda: patient.says()["da3: depth"][2].get("dropped, engine failure") == "1")


def test_a_compiler_that_was_refused_shows_as_long_as_the_engine_is_slower_for_it(patient: Patient) -> None:
    patient.node.inject("refuses")
    patient.drive_until(lambda: patient.complains("depth", WARN, "the fastest compiler is off by 0.3"))
    assert patient.node.log.count("the fastest compiler is off by 0.3") == 1
    patient.node.heal("refuses")
    patient.recovers()


def test_diagnostics_come_once_a_second_and_tell_rates_latency_and_mode(patient: Patient) -> None:
    patient.recovers()
    patient.diagnostics.clear()
    patient.drive_until(lambda: len(patient.diagnostics) >= 4)
    stamps = [r.stamp_ns(message.header.stamp) / 1e9 for message in patient.diagnostics]
    assert np.median(np.diff(stamps)) == pytest.approx(1.0, abs=0.2)
    values = patient.says()["da3: depth"][2]
    assert values["state"] == "active" and values["mode"] in ("posed", "unposed")
    assert values["engine"] == "sees the room as it is" and values["model"] == "da3-nano"
    assert float(values["scale"]) == pytest.approx(world.METRES_PER_NETWORK_UNIT, rel=0.1) and values["scale source"] != "none"
    assert {"scale log variance", "mode reason", "window views", "latency p95 [ms]", "last event"} <= set(values)
    assert 0 < float(values["latency p50 [ms]"]) <= float(values["latency p99 [ms]"])
    camera = patient.says()["da3: camera camera"][2]
    assert float(camera["input rate [Hz]"]) > 3 and float(camera["output rate [Hz]"]) > 3
    assert int(values["frames in"]) >= int(values["frames out"]) + int(values["frames dropped"]) > 0


def test_a_calibration_that_nobody_knows(patient: Patient) -> None:
    info = r.camera_info(patient.number, "camera")
    info.distortion_model, info.d = "a_model_of_its_own", [0.1] * 5
    patient.drive_until(
        lambda: patient.robot.send_info("camera", info) or patient.complains("camera camera", ERROR, "a_model_of_its_own"), info=False
    )
    patient.recovers()


def test_a_camera_that_is_not_calibrated(patient: Patient) -> None:
    info = r.camera_info(patient.number, "camera", np.zeros((3, 3)))
    text = "camera_info holds no calibration (K is 0): images are dropped"
    patient.drive_until(lambda: patient.robot.send_info("camera", info) or patient.complains("camera camera", ERROR, text), info=False)
    patient.recovers()


def test_an_engine_that_goes_on_failing_is_built_anew(patient: Patient) -> None:
    patient.node.inject("build_fails")
    patient.node.inject("fail")
    patient.drive_until(lambda: "no engine for this machine" in patient.node.log)
    state = patient.robot.call(GetState, "/da3/get_state").current_state.id
    assert state == State.PRIMARY_STATE_UNCONFIGURED
    patient.robot.wait_for(lambda: patient.complains("depth", ERROR, "cannot configure"))
    patient.node.heal("fail")
    patient.node.heal("build_fails")
    patient.robot.wait_until_heard()
    patient.recovers()


def test_too_little_memory_makes_the_window_smaller_for_as_long_as_it_lacks(patient: Patient) -> None:
    patient.node.inject("oom")
    patient.drive_until(lambda: patient.complains("depth", WARN, "out of GPU memory: the window's bound is 1"))
    patient.drive_until(lambda: patient.status[-1].window_views == 1 and patient.works())
    patient.node.heal("oom")
    patient.recovers()
    patient.drive_until(lambda: patient.status[-1].window_views == 3)


def test_tf_that_is_not_there_then_broken_then_gone(start_node: Callable[..., Any]) -> None:
    patient = Patient(start_node, ("camera",), "raw")
    patient.drive_until(lambda: patient.complains("depth", WARN, "no metre is known, so depth is NaN"), tf=False)
    assert patient.complains("camera camera", WARN, "goes without a pose")
    patient.recovers()

    def send() -> None:
        T = world.T_world_body(patient.number)
        T[0, 3] = np.nan
        patient.robot.publish_tf(TFMessage(transforms=[r.transform(patient.number, "odom", "base_link", T)]))

    broken = ("camera camera", WARN, "goes without a pose") if HAS_TF2 else ("depth", ERROR, "not a rigid transform")
    patient.drive_until(lambda: send() or patient.complains(*broken), tf=False)
    assert patient.works()
    patient.recovers()

    patient.drive_until(lambda: patient.complains("camera camera", WARN, "goes without a pose"), tf=False)
    assert patient.works()
    patient.recovers()
    patient.drive_until(lambda: patient.status[-1].mode == "posed")
    patient.robot.close()


def test_a_corrupt_jpeg_in_half_a_rig(start_node: Callable[..., Any]) -> None:
    patient = Patient(start_node, ("front", "left"), "compressed")
    patient.recovers()

    def send() -> None:
        patient.robot.send_image("front", r.jpeg_message(patient.number - 1, "front", keep=0.6))

    patient.drive_until(lambda: send() or patient.complains("camera front", ERROR, "corrupt or cut off"), cameras=["left"])
    assert patient.complains("camera left", OK, "ok")
    patient.drive_until(lambda: patient.status[-1].cameras == ["left"])
    patient.recovers()

    K = world.K_px()
    K[0, 2] = -50.0
    patient.robot.send_info("front", r.camera_info(patient.number, "front", K))
    patient.drive_until(lambda: patient.complains("camera front", ERROR, "principal point"), info=False)
    patient.drive_until(lambda: patient.status[-1].cameras == ["left"], info=False)
    assert "dropped, engine failure" not in patient.says()["da3: depth"][2]
    patient.recovers()

    patient.drive_until(lambda: patient.complains("camera left", ERROR, "no image for"), cameras=["front"])
    assert patient.works()
    patient.recovers()
    patient.robot.close()
