"""The poses that a recording tells, and the messages that tell them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from da3_core import PoseConfig

from ..from_msg import transforms_from_msg
from ..poses import NoPoses, OdometryPoses, Poses, TfPoses
from ..tf_tree import TransformTree
from .plan import PosePlan
from .topics import ODOMETRY_TYPE, TF_TYPES, connections_of, is_static_tf

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

    from .recording import Recording


class RecordedPoses:
    """Fed with the messages of the pose topics, in the order of the recording."""

    def __init__(self, tree: TransformTree, plan: PosePlan | None, config: PoseConfig) -> None:
        self._tree = tree
        self._odometry = OdometryPoses(tree, plan.world_frame, {}, config) if plan is not None and plan.topic is not None else None
        self.poses: Poses = self._odometry or (NoPoses() if plan is None else TfPoses(tree, plan.world_frame))

    def take(self, msg: Any) -> None:
        """Raises MessageError when it cannot be used, StaleStamp for odometry that does not come after the last."""
        if hasattr(msg, "transforms"):
            for transform in transforms_from_msg(msg):
                self._tree.add(transform)
        elif self._odometry is not None:
            self._odometry.add(msg)


def pose_connections(recording: Recording, plan: PosePlan | None) -> list[Connection]:
    """The topics to feed `Poses` with: moving TF, and the odometry."""
    if plan is None:
        return []
    moving_tf = [c for c in connections_of(recording, *TF_TYPES) if not is_static_tf(c)]
    return moving_tf + [c for c in connections_of(recording, ODOMETRY_TYPE) if c.topic == plan.topic]
