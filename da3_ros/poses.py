"""Where a camera is at an image's stamp, live or in a recording: from TF, from odometry and extrinsics, or not known at all."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from da3_core import Float64Array, FrameResult, PoseBuffer, PoseConfig, rotation_from_quaternion

from .from_msg import MessageError, transform_from_odometry
from .tf_tree import TransformError


class TransformSource(Protocol):
    """The transform tree: a recording's (tf_tree.py) or the live one (frames.py)."""

    def transform(self, target: str, source: str, stamp_ns: int) -> Float64Array: ...

    def is_known(self, target: str, source: str, stamp_ns: int) -> bool: ...

    def forget_other_runs(self, stamp_ns: int) -> None: ...


class Poses(Protocol):
    """What places cameras in the world."""

    def is_known(self, camera: str, frame_id: str, stamp_ns: int) -> bool:
        """Whether later messages cannot improve the answer."""

    def at(self, camera: str, frame_id: str, stamp_ns: int) -> Float64Array | None:
        """T_world_cam (4, 4) in metres; None where poses are not used. Raises TransformError when this one is missing."""

    def forget_other_runs(self, stamp_ns: int) -> None:
        """Drops what lies ahead of a clock that went back to `stamp_ns`."""


class NoPoses:
    """The network finds the poses."""

    def is_known(self, camera: str, frame_id: str, stamp_ns: int) -> bool:
        return True

    def at(self, camera: str, frame_id: str, stamp_ns: int) -> Float64Array | None:
        return None

    def forget_other_runs(self, stamp_ns: int) -> None:
        """There is nothing to forget."""


class TfPoses:
    """The image's frame in the world frame, as TF has it."""

    def __init__(self, transforms: TransformSource, world_frame: str) -> None:
        self._transforms = transforms
        self._world_frame = world_frame

    def is_known(self, camera: str, frame_id: str, stamp_ns: int) -> bool:
        return self._transforms.is_known(self._world_frame, frame_id, stamp_ns)

    def at(self, camera: str, frame_id: str, stamp_ns: int) -> Float64Array | None:
        return self._transforms.transform(self._world_frame, frame_id, stamp_ns)

    def forget_other_runs(self, stamp_ns: int) -> None:
        self._transforms.forget_other_runs(stamp_ns)


class OdometryPoses:
    """Odometry of a base, and each camera's place on it: given, or from TF, where it may move."""

    def __init__(
        self, transforms: TransformSource, world_frame: str, T_base_cam: Mapping[str, Float64Array], config: PoseConfig | None = None
    ) -> None:
        self._transforms = transforms
        self._world_frame = world_frame
        self._T_base_cam = T_base_cam
        self._T_world_base = PoseBuffer(config)
        self._base_frame = ""
        self._lock = threading.Lock()

    def add(self, msg: Any) -> None:
        """A nav_msgs/Odometry. Raises MessageError when it cannot be used, StaleStamp when it does not come after the last."""
        pose = transform_from_odometry(msg)
        if pose.parent != self._world_frame:
            raise MessageError(f"odometry is given in {pose.parent}, but world_frame is {self._world_frame}: set one as the other")
        with self._lock:
            self._base_frame = pose.child
            self._T_world_base.add(pose.stamp_ns, pose.T_parent_child)

    def is_known(self, camera: str, frame_id: str, stamp_ns: int) -> bool:
        with self._lock:
            newest_ns = self._T_world_base.newest_ns
        if newest_ns is None or newest_ns < stamp_ns:
            return False
        return camera in self._T_base_cam or self._transforms.is_known(self._base_frame, frame_id, stamp_ns)

    def at(self, camera: str, frame_id: str, stamp_ns: int) -> Float64Array | None:
        with self._lock:
            T_world_base = self._T_world_base.at(stamp_ns)
        if T_world_base is None:
            raise TransformError(f"no odometry at {stamp_ns * 1e-9:.3f} s")
        T_base_cam = self._T_base_cam.get(camera)
        if T_base_cam is None:
            T_base_cam = self._transforms.transform(self._base_frame, frame_id, stamp_ns)
        return np.asarray(T_world_base @ T_base_cam)

    def forget_other_runs(self, stamp_ns: int) -> None:
        """Odometry, too, which else forgets with its first message of the new run only."""
        with self._lock:
            self._T_world_base.forget_other_runs(stamp_ns)
        self._transforms.forget_other_runs(stamp_ns)


def in_given_world(results: Sequence[FrameResult]) -> list[FrameResult]:
    """Without the poses of those that are in a world of their own, while none that was given could be used."""
    return [result if result.world == "given" else dataclasses.replace(result, T_world_cam=None) for result in results]


def rigid_from_text(text: str) -> Float64Array:
    """'x y z qx qy qz qw' -> (4, 4); raises ValueError when it is not seven numbers with a quaternion of length 1."""
    try:
        x, y, z, *q_xyzw = (float(word) for word in text.split())
        valid = len(q_xyzw) == 4 and abs(float(np.linalg.norm(q_xyzw)) - 1.0) < 1e-2 and bool(np.isfinite([x, y, z]).all())
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"extrinsics {text!r} are not 'x y z qx qy qz qw' with a quaternion of length 1")
    T = np.eye(4)
    T[:3, :3] = rotation_from_quaternion(torch.tensor(q_xyzw, dtype=torch.float64)).numpy()
    T[:3, 3] = x, y, z
    return T
