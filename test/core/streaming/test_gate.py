from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from da3_core.config import ModeConfig, ScaleConfig
from da3_core.geometry.rigid import invert_rigid
from da3_core.streaming.gate import PoseGate, disagreement
from da3_core.types import Float64Array, Prediction, View

ALL_OF_THREE = torch.tensor([[0, 0, 1], [1, 2, 2]])


def stacked(poses: list[Float64Array]) -> Tensor:
    return torch.from_numpy(np.stack(poses))


def in_another_gauge(T_world_cam: Tensor, room) -> Tensor:
    """T_cam_window of the same cameras, in a frame and a unit that a network may choose."""
    moved = torch.from_numpy(room.pose(3, 1, -2, 77)) @ T_world_cam
    moved[:, :3, 3] *= 0.3
    return invert_rigid(moved)


def test_neither_frame_nor_unit_matters(room) -> None:
    given = stacked([room.pose(z=0.3 * k, yaw_deg=5 * k) for k in range(3)])
    found = disagreement(given, in_another_gauge(given, room), ALL_OF_THREE, 0.05)
    assert found.rotation_deg == pytest.approx(0, abs=1e-5)
    assert found.direction_deg == pytest.approx(0, abs=1e-5)


def test_the_medians_are_of_the_angles_that_were_put_in(room) -> None:
    given = stacked([room.pose(z=0.3 * k, yaw_deg=5 * k) for k in range(3)])
    # every view is seen turned by 6 degrees more than the one before: pairs are off by 6, 6 and 12
    turned = stacked([room.pose(z=0.3 * k, yaw_deg=11 * k) for k in range(3)])
    assert disagreement(given, in_another_gauge(turned, room), ALL_OF_THREE, 0.05).rotation_deg == pytest.approx(6)
    # the way is seen to go off to the side by 30 degrees
    aside = stacked([room.pose(x=0.3 * k * np.tan(np.pi / 6), z=0.3 * k, yaw_deg=5 * k) for k in range(3)])
    assert disagreement(given, in_another_gauge(aside, room), ALL_OF_THREE, 0.05).direction_deg == pytest.approx(30)


def test_where_nothing_moved_there_is_no_direction(room) -> None:
    given = stacked([room.pose(z=0.001 * k, yaw_deg=5 * k) for k in range(3)])
    assert disagreement(given, in_another_gauge(given, room), ALL_OF_THREE, 0.05).direction_deg is None


def views_along(room, camera: str = "front") -> list[View]:
    return [room.view(k, room.pose(z=0.3 * k), k, camera) for k in range(3)]


def checked(gate: PoseGate, views: list[View], T_cam_window: Tensor) -> bool:
    """Whether poses are trusted after one more check."""
    gate.check(views, Prediction(T_cam_world=T_cam_window))
    return gate.is_open


def test_trust_is_lost_by_two_failures_in_a_row_and_won_by_three_passes(room) -> None:
    gate, views = PoseGate(ModeConfig(), ScaleConfig()), views_along(room)
    good = in_another_gauge(stacked([view.T_world_cam.numpy() for view in views]), room)
    bad = in_another_gauge(stacked([room.pose(z=0.3 * k, yaw_deg=40 * k) for k in range(3)]), room)
    assert [checked(gate, views, T) for T in (good, bad, good, bad, bad)] == [True, True, True, True, False]
    assert "contradict the images: rotation by 40.0 deg" in gate.reason
    assert [checked(gate, views, T) for T in (good, good, bad, good, good, good)] == [False] * 5 + [True]
    assert "agree with the images" in gate.reason


def test_a_check_is_due_at_first_then_every_interval_and_at_once_after_a_failure(room) -> None:
    gate, views = PoseGate(ModeConfig(gate_interval=4), ScaleConfig()), views_along(room)
    good = in_another_gauge(stacked([view.T_world_cam.numpy() for view in views]), room)
    bad = in_another_gauge(stacked([room.pose(z=0.3 * k, yaw_deg=40 * k) for k in range(3)]), room)
    due = []
    for k in range(10):
        due.append(gate.is_due(views))
        if due[-1]:
            checked(gate, views, bad if k == 4 else good)
    assert due == [True, False, False, False, True, True, False, False, False, True]


def test_the_cameras_of_a_rig_at_one_time_say_nothing_of_its_odometry(room) -> None:
    gate = PoseGate(ModeConfig(), ScaleConfig())
    assert not gate.is_due([room.view(k, room.pose(x=k), 0, camera) for k, camera in enumerate("abc")])
    assert gate.is_due(views_along(room, "a"))
