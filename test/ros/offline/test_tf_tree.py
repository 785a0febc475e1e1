"""The transform tree against products of the transforms it was made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from da3_ros.from_msg import StampedTransform
from da3_ros.tf_tree import TransformError, TransformTree

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(3)
S = 1_000_000_000


def rigid() -> Array:
    T = np.eye(4)
    T[:3, :3] = Rotation.random(random_state=RANDOM).as_matrix()
    T[:3, 3] = RANDOM.normal(size=3)
    return T


def at(ns: int, parent: str, child: str, T: Array) -> StampedTransform:
    return StampedTransform(ns, parent, child, T)


def robot() -> tuple[TransformTree, dict[str, Array]]:
    """odom ~> base -> head ~> camera, base -> lidar; ~> moves."""
    T = {name: rigid() for name in ("base", "base_later", "head", "camera", "camera_later", "lidar")}
    tree = TransformTree()
    tree.add_static(at(0, "base", "head", T["head"]))
    tree.add_static(at(0, "base", "lidar", T["lidar"]))
    for name, parent in (("base", "odom"), ("camera", "head")):
        tree.add(at(10 * S, parent, name, T[name]))
        tree.add(at(10 * S + S // 10, parent, name, T[f"{name}_later"]))
    return tree, T


def between(T_a: Array, T_b: Array, alpha: float) -> Array:
    """Position linearly, rotation along the shortest way: written out with another library."""
    T = np.eye(4)
    T[:3, 3] = (1 - alpha) * T_a[:3, 3] + alpha * T_b[:3, 3]
    turn = (Rotation.from_matrix(T_a[:3, :3].T @ T_b[:3, :3])).as_rotvec()
    T[:3, :3] = T_a[:3, :3] @ Rotation.from_rotvec(alpha * turn).as_matrix()
    return T


def test_composes_along_the_path_and_interpolates_what_moves() -> None:
    tree, T = robot()
    stamp = 10 * S + S // 40
    base, camera = (between(T[name], T[f"{name}_later"], 0.25) for name in ("base", "camera"))
    np.testing.assert_allclose(tree.transform("odom", "camera", stamp), base @ T["head"] @ camera, atol=1e-9)
    np.testing.assert_allclose(tree.transform("lidar", "camera", stamp), np.linalg.inv(T["lidar"]) @ T["head"] @ camera, atol=1e-9)
    np.testing.assert_allclose(tree.transform("camera", "odom", stamp) @ tree.transform("odom", "camera", stamp), np.eye(4), atol=1e-9)
    np.testing.assert_array_equal(tree.transform("camera", "camera", stamp), np.eye(4))


def test_knows_what_is_fixed_and_what_is_known() -> None:
    tree, _ = robot()
    assert tree.is_fixed("lidar", "head")
    assert not tree.is_fixed("odom", "lidar")
    assert tree.is_known("odom", "camera", 10 * S + S // 10)
    assert not tree.is_known("odom", "camera", 10 * S + S // 10 + 1)
    assert tree.is_known("lidar", "head", 99 * S)
    assert not tree.is_known("map", "camera", 10 * S)


def test_missing_links_and_times_name_the_frames() -> None:
    tree, _ = robot()
    with pytest.raises(TransformError, match="does not link camera and map: camera hangs below odom, map below map"):
        tree.transform("map", "camera", 10 * S)
    with pytest.raises(TransformError, match=r"no transform from camera to head at 12\.000 s"):
        tree.transform("base", "camera", 12 * S)


def test_second_parents_and_loops_are_refused_where_they_matter() -> None:
    tree, _ = robot()
    tree.add(at(10 * S, "map", "base", rigid()))
    with pytest.raises(TransformError, match="base has two parents in TF, odom and map"):
        tree.transform("odom", "camera", 10 * S)
    tree = TransformTree()
    tree.add_static(at(0, "a", "b", rigid()))
    tree.add_static(at(0, "b", "a", rigid()))
    with pytest.raises(TransformError, match="loop: b -> a -> b"):
        tree.transform("b", "a", 0)


def test_repeated_transforms_are_left_out_and_the_past_can_be_forgotten() -> None:
    tree, T = robot()
    tree.add(at(10 * S, "odom", "base", rigid()))  # as TF repeats them
    np.testing.assert_allclose(tree.transform("odom", "base", 10 * S), T["base"], atol=1e-12)
    tree.forget_other_runs(5 * S)
    assert tree.is_fixed("lidar", "head")
    with pytest.raises(TransformError):
        tree.transform("odom", "base", 10 * S)
