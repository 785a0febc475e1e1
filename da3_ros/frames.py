"""The live transform tree at a stamp, tf2_ros's or our own (libraries.py chooses); raises when it cannot answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from da3_core import Float64Array, PoseConfig

from .from_msg import MessageError, transforms_from_msg
from .from_msg import stamp_ns as ns_from_stamp
from .tf_tree import TransformError, TransformTree

Report = Callable[[str], None]  # of every message: why it was refused, or ''


class Transforms(Protocol):
    """What TF knows."""

    def transform(self, target: str, source: str, stamp_ns: int) -> Float64Array:
        """T_target_source (4, 4) at the stamp; raises TransformError when it is not known, or not yet."""

    def is_known(self, target: str, source: str, stamp_ns: int) -> bool:
        """Whether nothing better can come than what `transform` says now."""

    def forget_other_runs(self, stamp_ns: int) -> None:
        """Drops what lies ahead of a clock that went back to `stamp_ns`."""

    def close(self) -> None:
        """Ends the subscriptions."""


class OwnTransforms:
    """Subscribes to /tf and /tf_static itself."""

    def __init__(self, node: Any, config: PoseConfig, report: Report) -> None:
        self._node = node
        self._report = report
        self._tree = TransformTree(config)
        self._lock = threading.Lock()
        static_qos = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", lambda msg: self._add(msg, self._tree.add), QoSProfile(depth=100)),
            node.create_subscription(TFMessage, "/tf_static", lambda msg: self._add(msg, self._tree.add_static), static_qos),
        ]

    def transform(self, target: str, source: str, stamp_ns: int) -> Float64Array:
        with self._lock:
            return self._tree.transform(target, source, stamp_ns)

    def is_known(self, target: str, source: str, stamp_ns: int) -> bool:
        with self._lock:
            return self._tree.is_known(target, source, stamp_ns)

    def forget_other_runs(self, stamp_ns: int) -> None:
        with self._lock:
            self._tree.forget_other_runs(stamp_ns)

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _add(self, msg: Any, add: Callable[[Any], None]) -> None:
        try:
            transforms = transforms_from_msg(msg)
        except MessageError as error:
            self._report(str(error))
            return
        self._report("")
        with self._lock:
            for transform in transforms:
                add(transform)


class Tf2Transforms:
    """tf2's buffer and listener. The buffer is not given the node: its reaction to a jumping clock raises in several releases."""

    def __init__(self, node: Any, config: PoseConfig, rigid_from_msg: Callable[[Any], Float64Array]) -> None:
        import tf2_ros
        from rclpy.duration import Duration
        from rclpy.time import Time

        self._time, self._error = Time, tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=config.memory_s))
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._tolerance_ns = int(1e9 * config.tolerance_s)
        self._rigid_from_msg = rigid_from_msg

    def transform(self, target: str, source: str, stamp_ns: int) -> Float64Array:
        try:
            found = self._look_up(target, source, stamp_ns)
        except TransformError:
            found = self._look_up(target, source, 0)  # the latest, in tf2's words
            if abs(ns_from_stamp(found.header.stamp) - stamp_ns) > self._tolerance_ns:
                raise
        return self._rigid_from_msg(found.transform)

    def is_known(self, target: str, source: str, stamp_ns: int) -> bool:
        return bool(self._buffer.can_transform(target, source, self._time(nanoseconds=stamp_ns)))

    def forget_other_runs(self, stamp_ns: int) -> None:
        self._buffer.clear()  # static transforms stay

    def close(self) -> None:
        self._listener.unregister()

    def _look_up(self, target: str, source: str, stamp_ns: int) -> Any:
        try:
            return self._buffer.lookup_transform(target, source, self._time(nanoseconds=stamp_ns))
        except self._error as error:
            raise TransformError(str(error)) from error


class OwnBroadcaster:
    """tf2_ros.TransformBroadcaster's one method."""

    def __init__(self, node: Any) -> None:
        self._publisher = node.create_publisher(TFMessage, "/tf", QoSProfile(depth=100))

    def sendTransform(self, transforms: Sequence[Any]) -> None:
        self._publisher.publish(TFMessage(transforms=list(transforms)))
