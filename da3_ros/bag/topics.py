"""The topics of a recording that matter here, by their types, and which of them are our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

    from .recording import Recording

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
ODOMETRY_TYPE = "nav_msgs/msg/Odometry"
TF_TYPES = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")


def connections_of(recording: Recording, *types: str) -> list[Connection]:
    """Connections with messages of these types, our own outputs left out, in the order of their topics."""
    found = [c for c in recording.connections if c.msgtype in types and c.msgcount and not is_own(c)]
    return sorted(found, key=lambda c: c.topic)


def is_own(connection: Connection) -> bool:
    """Whether a bag of ours, or the node under any namespace, has the topic."""
    return "/da3/" in connection.topic


def is_static_tf(connection: Connection) -> bool:
    return connection.topic.endswith("tf_static")
