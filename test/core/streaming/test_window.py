from __future__ import annotations

from da3_core.config import WindowConfig
from da3_core.streaming.log_scale import LogScale
from da3_core.streaming.placed import PlacedView
from da3_core.streaming.window import Window
from da3_core.types import View

CONFIG = WindowConfig(views=4, keyframe_translation_m=0.15, keyframe_rotation_deg=10, keyframe_interval_s=1.0)
TENTH_NS = 100_000_000


def placed(*views: View, is_metric: bool = True) -> dict[int, PlacedView]:
    return {view.id: PlacedView(view.T_world_cam, None, LogScale(0.0, 0.0), is_metric) for view in views if view.T_world_cam is not None}


def run(window: Window, views: list[View], is_metric: bool = True, gives_poses: bool = True) -> list[list[int]]:
    """Ids of the window after each view, all views being placed where they are."""
    kept, ids, window_views = placed(*views, is_metric=is_metric), [], []
    for view in views:
        bare = View(view.id, view.camera, view.stamp_ns, view.image, view.K, view.T_world_cam if gives_poses else None)
        window_views = window.push([bare], kept)
        ids.append([v.id for v in window_views])
    return ids


def test_keyframes_are_as_far_apart_as_asked_for_and_the_oldest_leaves_first(room) -> None:
    views = [room.view(k, room.pose(z=0.06 * k), k) for k in range(12)]  # every third is 0.18 m on
    ids = run(Window(CONFIG), views)
    assert ids[:5] == [[0], [0, 1], [0, 2], [0, 3], [0, 3, 4]]
    assert ids[-1] == [3, 6, 9, 11]


def test_turning_makes_keyframes_too(room) -> None:
    ids = run(Window(CONFIG), [room.view(k, room.pose(yaw_deg=4 * k), k) for k in range(8)])
    assert ids[-1] == [0, 3, 6, 7]


def test_a_robot_that_stands_still_keeps_its_parallax(room) -> None:
    way = [room.pose(z=0.2 * k) for k in range(4)]
    views = [room.view(k, T, k * TENTH_NS) for k, T in enumerate(way + [way[-1]] * 200)]
    assert run(Window(CONFIG), views)[-1] == [1, 2, 3, 203]


def test_without_metres_it_is_rotation_or_time(room) -> None:
    views = [room.view(k, room.pose(z=5.0 * k), 3 * k * TENTH_NS) for k in range(9)]
    assert run(Window(CONFIG), views, is_metric=False)[-1] == [0, 4, 8]
    turning = [room.view(k, room.pose(yaw_deg=12.0 * k), k * TENTH_NS) for k in range(4)]
    assert run(Window(CONFIG), turning, is_metric=False)[-1] == [0, 1, 2, 3]


def test_without_any_place_it_is_time(room) -> None:
    views = [room.view(k, None, 3 * k * TENTH_NS) for k in range(9)]
    assert run(Window(CONFIG), views)[-1] == [0, 4, 8]


def test_a_rigs_newest_views_are_all_in_and_the_first_cameras_keyframe_stays_longest(room) -> None:
    window = Window(CONFIG)
    ids, kept = [], {}
    for k in range(3):
        views = [room.view(10 * k + c, room.pose(x=c, z=0.5 * k), k * TENTH_NS, camera) for c, camera in enumerate("abc")]
        kept |= placed(*views)
        ids.append([view.id for view in window.push(views, kept)])
    assert ids == [[0, 1, 2], [0, 10, 11, 12], [10, 20, 21, 22]]
    assert len(Window(WindowConfig(views=2)).push(views, {})) == 3


def test_where_poses_are_given_keyframes_without_one_leave(room) -> None:
    window = Window(CONFIG)
    for k in range(3):
        window.push([room.view(k, None, 20 * k * TENTH_NS)], {})
    posed = room.view(3, room.pose(), 60 * TENTH_NS)
    assert [view.id for view in window.push([posed], {})] == [3]
    assert [view.id for view in window.push([room.view(4, None, 61 * TENTH_NS)], placed(posed))] == [3, 4]
    assert [view.id for view in window.push([room.view(5, room.pose(), 62 * TENTH_NS)], placed(posed))] == [3, 5]
