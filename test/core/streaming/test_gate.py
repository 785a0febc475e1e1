from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from da3_core.config import ModeConfig, ScaleConfig
from da3_core.geometry.rigid import invert_rigid
from da3_core.streaming.gate import PoseGate, disagreement, image_evidence
from da3_core.streaming.predicted import Choice, PredictedWindow
from da3_core.types import Float64Array, Prediction

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


def window_along(room, T_seen: list[Float64Array] | None = None, camera: str = "front") -> PredictedWindow:
    """A window whose images are taken from T_seen, while its poses say that it goes straight on."""
    given = [room.pose(z=-2 + 0.3 * k) for k in range(3)]
    seen = [room.view(k, T, k, camera) for k, T in enumerate(T_seen or given)]
    views = [replace(view, T_world_cam=torch.from_numpy(T)) for view, T in zip(seen, given, strict=True)]
    depth = room.depth((T_seen or given)[-1]).float()[None] / 3
    return PredictedWindow(views, 1, [2], Choice("posed", ""), Prediction(depth=depth))


def without_images(window: PredictedWindow) -> PredictedWindow:
    return replace(window, views=[replace(view, image=torch.zeros_like(view.image)) for view in window.views])


def checked(gate: PoseGate, window: PredictedWindow, T_cam_window: Tensor) -> bool:
    """Whether poses are trusted after one more check."""
    gate.check(window, T_cam_window)
    return gate.is_open


def test_trust_is_lost_by_two_failures_in_a_row_and_won_by_three_passes(room) -> None:
    gate, window = PoseGate(ModeConfig(), ScaleConfig()), without_images(window_along(room))
    good = in_another_gauge(stacked([view.T_world_cam.numpy() for view in window.views]), room)
    bad = in_another_gauge(stacked([room.pose(z=0.3 * k, yaw_deg=40 * k) for k in range(3)]), room)
    assert [checked(gate, window, T) for T in (good, bad, good, bad, bad)] == [True, True, True, True, False]
    assert "contradict the images: rotation by 40.0 deg" in gate.reason
    assert [checked(gate, window, T) for T in (good, good, bad, good, good, good)] == [False] * 5 + [True]
    assert "agree with the predicted ones" in gate.reason


def test_a_check_is_due_at_first_then_every_interval_and_at_once_after_a_failure(room) -> None:
    gate, window = PoseGate(ModeConfig(gate_interval=4), ScaleConfig()), without_images(window_along(room))
    good = in_another_gauge(stacked([view.T_world_cam.numpy() for view in window.views]), room)
    bad = in_another_gauge(stacked([room.pose(z=0.3 * k, yaw_deg=40 * k) for k in range(3)]), room)
    due = []
    for k in range(10):
        due.append(gate.is_due(window.views))
        if due[-1]:
            checked(gate, window, bad if k == 4 else good)
    assert due == [True, False, False, False, True, True, False, False, False, True]


def test_the_cameras_of_a_rig_at_one_time_say_nothing_of_its_odometry(room) -> None:
    gate = PoseGate(ModeConfig(), ScaleConfig())
    assert not gate.is_due([room.view(k, room.pose(x=k), 0, camera) for k, camera in enumerate("abc")])
    assert gate.is_due(window_along(room, camera="a").views)


def test_a_window_that_shows_the_network_nothing_says_nothing_of_its_odometry(room) -> None:
    gate, window = PoseGate(ModeConfig(), ScaleConfig()), without_images(window_along(room))
    good = in_another_gauge(stacked([view.T_world_cam.numpy() for view in window.views]), room)
    bad = in_another_gauge(stacked([room.pose(z=0.3 * k, yaw_deg=40 * k) for k in range(3)]), room)
    blind = good.clone()
    blind[:, :3, 3] = torch.nan  # as a nested network has it that sees sky only
    assert [checked(gate, window, T) for T in (good, blind, blind, blind)] == [True] * 4
    assert "agree with the predicted ones: rotation by 0.0 deg" in gate.reason
    assert [checked(gate, window, T) for T in (bad, bad, blind, blind, blind)] == [True] + [False] * 4


def test_where_network_and_odometry_differ_the_images_decide(room) -> None:
    window = window_along(room)
    T_world_cam = stacked([view.T_world_cam.numpy() for view in window.views])
    lost = in_another_gauge(stacked([room.pose(z=0.3 * k, yaw_deg=15 * k) for k in range(3)]), room)
    # the images are of the way that the odometer says, and the network is lost
    evidence = image_evidence(window, T_world_cam, lost)
    assert evidence is not None
    assert evidence.sides_with_given
    assert evidence.given > 15 > 3 * evidence.predicted
    # the images are of the way that the network says, and the odometer slips
    turning = [room.pose(z=-2 + 0.3 * k, yaw_deg=7 * k) for k in range(3)]
    evidence = image_evidence(window_along(room, turning), T_world_cam, in_another_gauge(stacked(turning), room))
    assert evidence is not None
    assert not evidence.sides_with_given
    assert image_evidence(without_images(window), T_world_cam, lost) is None


def test_good_odometry_is_kept_though_the_network_is_lost_and_the_reason_says_so(room) -> None:
    gate, window = PoseGate(ModeConfig(), ScaleConfig()), window_along(room)
    lost = in_another_gauge(stacked([room.pose(z=0.3 * k, yaw_deg=15 * k) for k in range(3)]), room)
    assert [checked(gate, window, lost) for _ in range(4)] == [True] * 4
    assert "rotation by 15.0 deg" in gate.reason
    assert "the images side with them" in gate.reason
