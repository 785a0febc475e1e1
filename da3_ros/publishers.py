"""What the node publishes: made and sent only while someone listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from da3.msg import Prediction, StreamStatus
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from da3_core import FrameResult

from .diagnostics import Report
from .libraries import make_cloud_maker
from .settings import Parameters
from .to_msg import (
    MessageTypes,
    StreamCounts,
    camera_info,
    confidence_image,
    depth_image,
    odometry,
    pose_stamped,
    pose_transform,
    prediction,
    stream_status,
)


@dataclass(frozen=True)
class CameraPublishers:
    """The topics below ~/<camera>."""

    depth: Any
    camera_info: Any
    confidence: Any
    points: Any
    pose: Any


class Publishers:
    """All outputs of one configured node."""

    def __init__(self, node: Any, cameras: Sequence[str], types: MessageTypes, broadcaster: Any) -> None:
        """broadcaster: see libraries.make_broadcaster; it outlives this, as nobody can close one of tf2's."""
        self._node, self._types, self._broadcaster = node, types, broadcaster
        self._point_cloud = make_cloud_maker()
        self._created: list[Any] = []
        self._cameras = {
            name: CameraPublishers(
                self._create(Image, f"~/{name}/depth/image"),
                self._create(CameraInfo, f"~/{name}/depth/camera_info"),
                self._create(Image, f"~/{name}/confidence/image"),
                self._create(PointCloud2, f"~/{name}/points"),
                self._create(PoseStamped, f"~/{name}/pose"),
            )
            for name in cameras
        }
        self._odometry = self._create(Odometry, "~/odometry")
        self._status = self._create(StreamStatus, "~/status")
        self._prediction = self._create(Prediction, "~/prediction")

    def publish(self, results: Sequence[FrameResult], parameters: Parameters, counts: StreamCounts, received_s: float) -> None:
        """One synchronised set, the anchor's result first, whose image came at that time of the monotonic clock.

        Every message bears its own image's stamp.
        """
        types, world = self._types, parameters.world_frame
        for result in results:
            self._publish_camera(self._cameras[result.camera], result, parameters)
        anchor = results[0]
        if anchor.camera == parameters.anchor_camera and anchor.T_world_cam is not None:
            _offer(self._odometry, lambda: odometry(types, anchor, world, parameters.output.child_suffix))
        self._broadcast(results, parameters)
        latency_s = time.monotonic() - received_s
        _offer(self._status, lambda: stream_status(types, results, world, counts, latency_s))
        _offer(self._prediction, lambda: prediction(types, results, world, stream_status(types, results, world, counts, latency_s)))

    def close(self) -> None:
        for publisher in self._created:
            self._node.destroy_lifecycle_publisher(publisher)
        self._created.clear()

    def _create(self, kind: Any, topic: str) -> Any:
        # Reliable reaches best-effort and reliable subscribers alike; RViz is of the latter.
        publisher = self._node.create_lifecycle_publisher(
            kind, topic, QoSProfile(depth=5), qos_overriding_options=QoSOverridingOptions.with_default_policies()
        )
        self._created.append(publisher)
        return publisher

    def _publish_camera(self, topics: CameraPublishers, result: FrameResult, parameters: Parameters) -> None:
        types, output = self._types, parameters.output
        _offer(topics.depth, lambda: depth_image(types, result, output.depth_encoding))
        _offer(topics.camera_info, lambda: camera_info(types, result))
        if result.confidence is not None:
            _offer(topics.confidence, lambda: confidence_image(types, result))
        _offer(topics.points, lambda: self._point_cloud(types, result, output.cloud))
        if result.T_world_cam is not None:
            _offer(topics.pose, lambda: pose_stamped(types, result, parameters.world_frame))

    def _broadcast(self, results: Sequence[FrameResult], parameters: Parameters) -> None:
        placed = [result for result in results if result.T_world_cam is not None]
        if placed and parameters.node.publish_tf:
            world, suffix = parameters.world_frame, parameters.output.child_suffix
            self._broadcaster.sendTransform([pose_transform(self._types, result, world, suffix) for result in placed])


class DiagnosticsPublisher:
    """/diagnostics, whether the node is active or not."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def publish(self, reports: Sequence[Report]) -> None:
        message = DiagnosticArray(status=[self._status(report) for report in reports])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _status(self, report: Report) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=bytes([report.level]),
            name=f"{self._node.get_name()}: {report.name}",
            message=report.message,
            hardware_id=self._node.get_fully_qualified_name(),
            values=[KeyValue(key=key, value=value) for key, value in report.values.items()],
        )


def _offer(publisher: Any, make: Callable[[], Any]) -> None:
    if publisher.get_subscription_count():
        publisher.publish(make())
