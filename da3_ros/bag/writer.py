"""Results and carried-over messages -> an MCAP bag."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from da3_core import FrameResult

from .. import to_msg
from ..from_msg import StampedTransform
from ..to_msg import OutputConfig, StreamCounts
from .recording import Recording
from .typestore import RosbagsTypes, load_typestore

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, Qos
    from rosbags.typesys.store import Typestore

ROSBAG2_VERSION: Literal[8] = 8  # the newest that Humble's and Jazzy's rosbag2 read alike
INFINITE_S, INFINITE_NS = 9223372036, 854775807
RENAMED_TYPES = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}
RESPELLED_TYPES = ("std_msgs/msg/Header", "sensor_msgs/msg/CameraInfo")  # differ between ROS 1 and 2 without differing on the wire


class MessageWriter:
    """Messages of rosbags' types to a new MCAP bag directory; topics are added as they come."""

    def __init__(self, path: Path) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer

        self._writer = Writer(path, version=ROSBAG2_VERSION, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._store = load_typestore()
        self._connections: dict[tuple[str, str], Connection] = {}

    def write(self, topic: str, msg: Any, log_ns: int, qos: Sequence[Qos] = ()) -> None:
        """`qos` is that of the topic, and counts the first time."""
        raw = self._store.serialize_cdr(msg, msg.__msgtype__)
        self.write_raw(topic, msg.__msgtype__, raw, log_ns, self._store, qos)

    def write_raw(self, topic: str, msgtype: str, raw: bytes | memoryview, log_ns: int, store: Typestore, qos: Sequence[Qos] = ()) -> None:
        """A serialized message whose type `store` knows."""
        key = topic, msgtype
        if key not in self._connections:
            self._connections[key] = self._writer.add_connection(topic, msgtype, typestore=store, offered_qos_profiles=qos)
        self._writer.write(self._connections[key], log_ns, raw)

    def close(self) -> None:
        """Writes the index; the bag is valid from here on."""
        self._writer.close()

    def abort(self) -> None:
        """Closes the file as it is, without an index; does nothing after `close`."""
        self._writer.abort()


class BagWriter(MessageWriter):
    """Writes results under /da3/<camera>/..., /da3/..., /tf and /tf_static."""

    def __init__(self, path: Path, world_frame: str, anchor: str, output: OutputConfig) -> None:
        """anchor: the camera whose pose is the odometry."""
        super().__init__(path)
        self._types = RosbagsTypes(self._store)
        self._world_frame, self._anchor = world_frame, anchor
        self._output = output

    def write_results(self, results: Sequence[FrameResult], counts: StreamCounts, log_ns: int) -> None:
        """Every message of one synchronised set, the anchor's result first."""
        types, output = self._types, self._output
        for result in results:
            topic = f"/da3/{result.camera}"
            self.write(f"{topic}/depth/image", to_msg.depth_image(types, result, output.depth_encoding), log_ns)
            self.write(f"{topic}/depth/camera_info", to_msg.camera_info(types, result), log_ns)
            self.write(f"{topic}/points", to_msg.point_cloud(types, result, output.cloud), log_ns)
            if result.confidence is not None:
                self.write(f"{topic}/confidence/image", to_msg.confidence_image(types, result), log_ns)
            if result.T_world_cam is not None:
                self.write(f"{topic}/pose", to_msg.pose_stamped(types, result, self._world_frame), log_ns)
        self._write_poses([result for result in results if result.T_world_cam is not None], log_ns)
        self.write("/da3/status", to_msg.stream_status(types, results, self._world_frame, counts), log_ns)

    def write_tf_static(self, transforms: Sequence[StampedTransform], log_ns: int) -> None:
        """All of them in one message: a player keeps the last one for those who join late."""
        stamped = [to_msg.transform_stamped(self._types, t.stamp_ns, t.parent, t.child, t.T_parent_child) for t in transforms]
        self.write("/tf_static", to_msg.tf_message(self._types, stamped), log_ns, [_latched()])

    def carrier(self, recording: Recording) -> Callable[[Connection, int, bytes], None]:
        """A function that writes a message of `recording` as it is, ROS 1 messages as their ROS 2 equals."""
        store = recording.typestore if recording.is_ros2 else _ros2_types(recording.typestore)

        def carry(source: Connection, log_ns: int, raw: bytes) -> None:
            msgtype = RENAMED_TYPES.get(source.msgtype, source.msgtype)
            cdr = raw if recording.is_ros2 else store.ros1_to_cdr(raw, msgtype)
            self.write_raw(source.topic, msgtype, cdr, log_ns, store, _qos_of(source))

        return carry

    def _write_poses(self, results: Sequence[FrameResult], log_ns: int) -> None:
        if not results:
            return
        suffix, world = self._output.child_suffix, self._world_frame
        if results[0].camera == self._anchor:
            self.write("/da3/odometry", to_msg.odometry(self._types, results[0], world, suffix), log_ns)
        transforms = [to_msg.pose_transform(self._types, result, world, suffix) for result in results]
        self.write("/tf", to_msg.tf_message(self._types, transforms), log_ns)


def _ros2_types(ros1: Typestore) -> Typestore:
    from rosbags.typesys import Stores, get_typestore

    ours = load_typestore().fielddefs
    definitions = {RENAMED_TYPES.get(name, name): definition for name, definition in ros1.fielddefs.items()}
    definitions |= {name: ours[name] for name in RESPELLED_TYPES if name in definitions}
    store = get_typestore(Stores.EMPTY)
    store.register(definitions)
    return store


def _qos_of(source: Connection) -> Sequence[Qos]:
    from rosbags.interfaces import ConnectionExtRosbag2

    if isinstance(source.ext, ConnectionExtRosbag2):
        return source.ext.offered_qos_profiles
    return [_latched()] if source.ext.latching else []


def _latched() -> Qos:
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    infinite = QosTime(INFINITE_S, INFINITE_NS)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL,
        deadline=infinite,
        lifespan=infinite,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=infinite,
        avoid_ros_namespace_conventions=False,
    )
