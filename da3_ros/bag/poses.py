"""Where the cameras are at a stamp, as the recording tells it: from an odometry topic, from TF, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from da3_core import Float64Array, PoseBuffer, PoseConfig

from ..from_msg import transform_from_odometry, transforms_from_msg
from ..tf_tree import TransformError, TransformTree
from .plan import PosePlan
from .survey import ODOMETRY_TYPE, TF_TYPES, connections_of, is_static_tf

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

    from .recording import Recording


class Poses(Protocol):
    """Fed with messages in the order of the recording."""

    def take(self, msg: Any) -> None:
        """A message of one of the pose topics."""

    def is_known(self, frame_id: str, stamp_ns: int) -> bool:
        """Whether later messages cannot improve the answer."""

    def at(self, frame_id: str, stamp_ns: int) -> Float64Array | None:
        """T_world_cam (4, 4); None where no poses are known at all. Raises TransformError when this one is missing."""


class NoPoses:
    def take(self, msg: Any) -> None:
        """There are no pose topics."""

    def is_known(self, frame_id: str, stamp_ns: int) -> bool:
        return True

    def at(self, frame_id: str, stamp_ns: int) -> Float64Array | None:
        return None


class TfPoses:
    def __init__(self, tree: TransformTree, world_frame: str) -> None:
        self._tree = tree
        self._world_frame = world_frame

    def take(self, msg: Any) -> None:
        for transform in transforms_from_msg(msg):
            self._tree.add(transform)

    def is_known(self, frame_id: str, stamp_ns: int) -> bool:
        return self._tree.is_known(self._world_frame, frame_id, stamp_ns)

    def at(self, frame_id: str, stamp_ns: int) -> Float64Array | None:
        return self._tree.transform(self._world_frame, frame_id, stamp_ns)


class OdometryPoses:
    """T_world_base from odometry, T_base_cam from TF: that may move too, as on a pan-tilt head."""

    def __init__(self, tree: TransformTree, plan: PosePlan, config: PoseConfig) -> None:
        self._tree = tree
        self._plan = plan
        self._base = PoseBuffer(config)

    def take(self, msg: Any) -> None:
        if hasattr(msg, "transforms"):
            for transform in transforms_from_msg(msg):
                self._tree.add(transform)
        else:
            odometry = transform_from_odometry(msg)
            self._base.add(odometry.stamp_ns, odometry.T_parent_child)

    def is_known(self, frame_id: str, stamp_ns: int) -> bool:
        newest_ns = self._base.newest_ns
        return newest_ns is not None and newest_ns >= stamp_ns and self._tree.is_known(self._plan.base_frame, frame_id, stamp_ns)

    def at(self, frame_id: str, stamp_ns: int) -> Float64Array | None:
        T_world_base = self._base.at(stamp_ns)
        if T_world_base is None:
            raise TransformError(f"{self._plan.topic} knows no pose at {stamp_ns * 1e-9:.3f} s")
        return np.asarray(T_world_base @ self._tree.transform(self._plan.base_frame, frame_id, stamp_ns))


def make_poses(tree: TransformTree, plan: PosePlan | None, config: PoseConfig) -> Poses:
    """The source that the plan names."""
    if plan is None:
        return NoPoses()
    return TfPoses(tree, plan.world_frame) if plan.topic is None else OdometryPoses(tree, plan, config)


def pose_connections(recording: Recording, plan: PosePlan | None) -> list[Connection]:
    """The topics to feed `Poses` with: moving TF, and the odometry."""
    if plan is None:
        return []
    moving_tf = [c for c in connections_of(recording, *TF_TYPES) if not is_static_tf(c)]
    return moving_tf + [c for c in connections_of(recording, ODOMETRY_TYPE) if c.topic == plan.topic]
