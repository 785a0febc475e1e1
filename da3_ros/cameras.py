"""The subscriptions of one camera."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.qos import QoSPolicyKind, QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from da3_core import Calibration

from .from_msg import MessageError, calibration_from_msg, stamp_ns
from .settings import CameraConfig, NodeConfig

OVERRIDABLE = QoSOverridingOptions(
    policy_kinds=(QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
)

NO_INFO = "no camera_info has come"


@dataclass(frozen=True)
class Arrival:
    """An image message as it came, not yet decoded."""

    camera: str
    frame_id: str
    stamp_ns: int
    received_s: float  # monotonic
    message: Any


class CameraInput:
    """Camera_info from configure on, since some drivers send it once; images only while the node is active."""

    def __init__(self, node: Any, name: str, config: CameraConfig, common: NodeConfig, on_image: Callable[[Arrival], None]) -> None:
        self.name = name
        self.calibration: Calibration | None = None
        self.lacks = NO_INFO
        self._node, self._common, self._on_image = node, common, on_image
        self._image_topic = config.image_topic or f"{name}/image_raw"
        self._uncalibrated = f"camera_info holds no calibration ({'P' if common.rectified else 'K'} is 0)"
        self._image_subscription: Any = None
        self._last_info: tuple[Any, ...] | None = None
        self._info_subscription = self._subscribe(CameraInfo, config.camera_info_topic or f"{name}/camera_info", self._on_info)

    def start(self) -> None:
        kind, suffix = (Image, "") if self._common.image_transport == "raw" else (CompressedImage, "/compressed")
        self._image_subscription = self._subscribe(kind, self._image_topic + suffix, self._on_message)

    def stop(self) -> None:
        if self._image_subscription is not None:
            self._node.destroy_subscription(self._image_subscription)
        self._image_subscription = None

    def close(self) -> None:
        self.stop()
        self._node.destroy_subscription(self._info_subscription)

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None]) -> Any:
        qos = QoSProfile(
            depth=qos_profile_sensor_data.depth,
            reliability=qos_profile_sensor_data.reliability,
            durability=qos_profile_sensor_data.durability,
        )
        return self._node.create_subscription(kind, topic, callback, qos, qos_overriding_options=OVERRIDABLE)

    def _on_message(self, msg: Any) -> None:
        self._on_image(Arrival(self.name, msg.header.frame_id.lstrip("/"), stamp_ns(msg.header.stamp), time.monotonic(), msg))

    def _on_info(self, msg: Any) -> None:
        roi = msg.roi
        region = (roi.x_offset, roi.y_offset, roi.width, roi.height, msg.binning_x, msg.binning_y)
        info = (msg.width, msg.height, msg.distortion_model, tuple(msg.d), tuple(msg.k), tuple(msg.p), region)
        if info == self._last_info:
            return
        self._last_info = info
        try:
            self.calibration = calibration_from_msg(msg, self._common.rectified)
        except MessageError as error:
            self.calibration, self.lacks = None, str(error)
        else:
            self.lacks = self._uncalibrated if self.calibration is None else ""
