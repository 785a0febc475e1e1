"""Transitions from another process, errors and recovery, and the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: make ros-test")

import robot as r
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

StartNode = Callable[..., Any]


def change(robot: r.Robot, transition: int) -> bool:
    return bool(robot.call(ChangeState, "/da3/change_state", ChangeState.Request(transition=Transition(id=transition)), 60.0).success)


def state(robot: r.Robot) -> int:
    return int(robot.call(GetState, "/da3/get_state").current_state.id)


def allowed_s() -> float:
    """Two seconds, for a process that has a core when it wants one."""
    return 2.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def images_after(robot: r.Robot, depth: list[Any], numbers: range) -> int:
    before = len(depth)
    robot.drive(numbers)
    robot.spin(0.5)
    return len(depth) - before


def test_a_manager_leads_it_through_its_states(start_node: StartNode) -> None:
    node = start_node(autostart=False)
    with closing(r.Robot(node.domain_id)) as robot:
        depth = robot.listen(Image, "/da3/camera/depth/image")
        assert state(robot) == State.PRIMARY_STATE_UNCONFIGURED

        node.inject("build_fails")
        assert not change(robot, Transition.TRANSITION_CONFIGURE)
        assert state(robot) == State.PRIMARY_STATE_UNCONFIGURED  # through on_error
        assert "no engine for this machine" in node.log
        node.heal("build_fails")

        assert change(robot, Transition.TRANSITION_CONFIGURE)
        assert state(robot) == State.PRIMARY_STATE_INACTIVE
        assert images_after(robot, depth, range(5)) == 0
        assert not robot.set_parameters("/da3", [Parameter("mode.mode", value="metric")])  # the network at hand is none

        assert change(robot, Transition.TRANSITION_ACTIVATE)
        robot.wait_until_heard()
        assert images_after(robot, depth, range(5, 15)) >= 7

        assert change(robot, Transition.TRANSITION_DEACTIVATE)
        assert images_after(robot, depth, range(15, 20)) == 0

        assert change(robot, Transition.TRANSITION_ACTIVATE)
        robot.wait_until_heard()
        assert images_after(robot, depth, range(20, 30)) >= 7

        assert change(robot, Transition.TRANSITION_DEACTIVATE)
        assert change(robot, Transition.TRANSITION_CLEANUP)
        assert state(robot) == State.PRIMARY_STATE_UNCONFIGURED
        robot.wait_for(lambda: robot.node.count_publishers("/da3/camera/depth/image") == 0, what="publishers to go")

        assert change(robot, Transition.TRANSITION_CONFIGURE)
        assert change(robot, Transition.TRANSITION_ACTIVATE)
        robot.wait_until_heard()
        assert images_after(robot, depth, range(40, 50)) >= 7
        assert not change(robot, Transition.TRANSITION_CONFIGURE)  # it is active
        assert state(robot) == State.PRIMARY_STATE_ACTIVE
        owners = [info.node_name for info in robot.node.get_publishers_info_by_topic("/tf")]
        assert owners.count("da3") == 1

        assert change(robot, Transition.TRANSITION_ACTIVE_SHUTDOWN)
        assert state(robot) == State.PRIMARY_STATE_FINALIZED
    assert node.stop() < allowed_s()


def test_autostart_tries_again_until_the_engine_can_be_built(start_node: StartNode) -> None:
    node = start_node(autostart=True, prepare=["build_fails"])
    with closing(r.Robot(node.domain_id)) as robot:
        robot.wait_for(lambda: "no engine for this machine" in node.log, 30.0)
        node.heal("build_fails")
        robot.wait_until_heard()
        robot.wait_for(lambda: "active" in node.log)
    assert node.stop(signal.SIGTERM) < allowed_s()


def test_a_manager_may_be_quicker_than_autostart(start_node: StartNode) -> None:
    node = start_node(prepare=["build_fails"], restart_interval_s=4.0)
    with closing(r.Robot(node.domain_id)) as robot:
        robot.wait_for(lambda: "no engine for this machine" in node.log, 30.0)
        node.heal("build_fails")
        assert change(robot, Transition.TRANSITION_CONFIGURE)
        robot.spin(5.0)
        assert state(robot) == State.PRIMARY_STATE_INACTIVE


def test_an_error_that_nobody_thought_of_ends_no_more_than_its_callback(start_node: StartNode) -> None:
    node = start_node(pose_source="odometry", prepare=["callback_fails"])
    with closing(r.Robot(node.domain_id)) as robot:
        depth = robot.listen(Image, "/da3/camera/depth/image")
        robot.wait_until_heard()
        robot.drive(range(5))
        robot.wait_for(lambda: "an injected error of a callback" in node.log)
        node.heal("callback_fails")
        robot.wait_for(lambda: "callback: recovered" in node.log)
        assert images_after(robot, depth, range(5, 12)) >= 4


def test_a_signal_ends_it_in_time_even_while_the_engine_is_busy(start_node: StartNode) -> None:
    node = start_node()
    node.inject("delay", "20")
    with closing(r.Robot(node.domain_id)) as robot:
        robot.wait_until_heard()
        robot.drive(range(3))
        assert node.stop(signal.SIGINT) < allowed_s()


def test_a_signal_ends_it_in_time_even_while_the_engine_is_built(start_node: StartNode) -> None:
    node = start_node(prepare=["slow_build"])
    with closing(r.Robot(node.domain_id)) as robot:
        robot.wait_for(lambda: robot.node.count_publishers("/diagnostics"), 90.0)
        robot.spin(0.5)
        assert node.stop(signal.SIGTERM) < allowed_s()


def test_build_only_builds_the_engine_and_ends(start_node: StartNode) -> None:
    node = start_node(build_only=True, image_width_px=64, image_height_px=48)
    assert node.process.wait(90) == 0
    assert "the engine is built: " in node.log


def test_build_only_asks_for_the_size_to_build_for(start_node: StartNode) -> None:
    node = start_node(build_only=True, image_width_px=64)
    assert node.process.wait(90) == 1
    assert "set image_width_px and image_height_px" in node.log
