from __future__ import annotations

import weakref
from dataclasses import dataclass

import pytest

from da3_core.config import RigConfig
from da3_core.streaming import StaleStamp, Synchronizer

MS = 1_000_000
RIG = RigConfig(max_camera_time_diff_s=0.02)


@dataclass(frozen=True)
class Stamped:
    camera: str
    stamp_ns: int


def pushed(rig: Synchronizer[Stamped], *arrivals: tuple[str, int]) -> list[list[tuple[str, int]]]:
    """Sets as (camera, milliseconds), in the order in which they are complete."""
    sets = [s for camera, ms in arrivals for s in rig.push(Stamped(camera, ms * MS))]
    return [[(frame.camera, frame.stamp_ns // MS) for frame in s] for s in sets]


def test_one_camera_is_passed_through() -> None:
    assert pushed(Synchronizer(RIG, ["a"]), ("a", 0), ("a", 100)) == [[("a", 0)], [("a", 100)]]


def test_the_others_join_the_anchor_whatever_order_they_come_in() -> None:
    rig = Synchronizer(RigConfig(anchor_camera="b", max_camera_time_diff_s=0.02), ["a", "b", "c"])
    assert pushed(rig, ("a", 3), ("b", 0), ("c", 8)) == [[("b", 0), ("a", 3), ("c", 8)]]
    assert pushed(rig, ("b", 100), ("c", 101), ("a", 102)) == [[("b", 100), ("a", 102), ("c", 101)]]


def test_the_nearest_frame_joins_once_and_only_within_the_tolerance() -> None:
    rig = Synchronizer(RIG, ["a", "b"])
    assert pushed(rig, ("b", 85), ("b", 95), ("a", 100), ("b", 104)) == [[("a", 100), ("b", 104)]]
    assert pushed(rig, ("a", 110), ("b", 135)) == [[("a", 110)]]
    assert pushed(rig, ("a", 150), ("b", 160)) == [[("a", 150), ("b", 160)]]


def test_a_set_is_not_waited_for_longer_than_until_the_anchors_next_frame() -> None:
    rig = Synchronizer(RIG, ["a", "b"])
    assert pushed(rig, ("a", 0), ("b", 1), ("a", 100), ("a", 200)) == [[("a", 0), ("b", 1)], [("a", 100)]]
    assert [frame.stamp_ns for frame in rig.flush()[0]] == [200 * MS]
    assert rig.flush() == []


def test_a_camera_that_fell_silent_delays_nothing() -> None:
    rig = Synchronizer(RIG, ["a", "b", "c"])
    pushed(rig, ("a", 0), ("b", 0), ("c", 0))
    for ms in range(100, 1100, 100):
        pushed(rig, ("a", ms), ("b", ms))
    assert pushed(rig, ("a", 1100), ("b", 1101)) == [[("a", 1100), ("b", 1101)]]


def test_a_camera_that_never_spoke_is_waited_for_at_first_only() -> None:
    rig = Synchronizer(RIG, ["a", "b"])
    assert pushed(rig, ("a", 0), ("a", 500)) == [[("a", 0)]]
    assert pushed(rig, ("a", 1000)) == [[("a", 500)], [("a", 1000)]]
    assert pushed(rig, ("a", 1100)) == [[("a", 1100)]]


def test_stamps_that_go_back_are_refused_and_clocks_that_do_begin_anew() -> None:
    rig = Synchronizer(RIG, ["a", "b"])
    pushed(rig, ("a", 9000), ("b", 9000))
    with pytest.raises(StaleStamp):
        rig.push(Stamped("a", 8999 * MS))
    assert pushed(rig, ("a", 0), ("b", 2)) == [[("a", 0), ("b", 2)]]


def test_memory_is_bounded_while_the_anchor_is_silent() -> None:
    rig = Synchronizer(RIG, ["a", "b"])
    pushed(rig, *(("b", k) for k in range(10_000)))
    assert len(rig._kept["b"]) < 100


@pytest.mark.parametrize("cameras", [["a"], ["a", "b"]])
def test_images_of_the_anchor_are_kept_no_longer_than_their_set_is_waited_for(cameras: list[str]) -> None:
    rig = Synchronizer(RIG, cameras)
    alive: weakref.WeakSet[Stamped] = weakref.WeakSet()
    for k in range(50):
        frame = Stamped("a", 100 * k * MS)
        alive.add(frame)
        rig.push(frame)
    del frame
    assert {kept.stamp_ns for kept in alive} <= {4900 * MS}
    rig.flush()
    assert not alive


def test_a_camera_that_is_none_of_the_rig_is_refused() -> None:
    with pytest.raises(KeyError):
        Synchronizer(RIG, ["a", "b"]).push(Stamped("c", 0))


def test_an_anchor_that_is_no_camera_is_refused() -> None:
    with pytest.raises(ValueError, match="none of a, b"):
        Synchronizer(RigConfig(anchor_camera="front"), ["a", "b"])
