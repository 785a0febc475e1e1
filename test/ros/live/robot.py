"""A robot in the world of world.py, as other processes see it: cameras, TF and odometry over DDS; and what it hears of them."""

from __future__ import annotations

import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import cv2
import numpy as np
import rclpy
import world
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, Quaternion, TransformStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from da3_core import quaternion_from_rotation
from da3_ros.from_msg import stamp_ns

BASE_NS = 1_700_000_000_000_000_000
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)


class Robot:
    """Publishes what belongs to image `number`, stamped BASE_NS + number * period; hears everything that was asked for with `listen`."""

    def __init__(
        self,
        domain_id: int,
        cameras: Iterable[str] = ("camera",),
        transport: str = "raw",
        image_qos: Any = qos_profile_sensor_data,
        info_qos: Any = qos_profile_sensor_data,
    ) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node("robot", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.cameras = list(cameras)
        self.transport = transport
        self.heard: dict[str, list[Any]] = defaultdict(list)
        kind, suffix = (Image, "") if transport == "raw" else (CompressedImage, "/compressed")
        self._images = {name: self.node.create_publisher(kind, f"{name}/image_raw{suffix}", image_qos) for name in self.cameras}
        self._infos = {name: self.node.create_publisher(CameraInfo, f"{name}/camera_info", info_qos) for name in self.cameras}
        self._tf = self.node.create_publisher(TFMessage, "/tf", 100)
        self._tf_static = self.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        self._odometry = self.node.create_publisher(Odometry, "odom", 50)
        self.send_extrinsics()

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    # hearing

    def listen(self, kind: Any, topic: str, qos: Any = RELIABLE) -> list[Any]:
        """The list into which messages of the topic will come."""
        kept = self.heard[topic]
        self.node.create_subscription(kind, topic, kept.append, qos)
        return kept

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def wait_for(self, condition: Callable[[], Any], timeout_s: float = 30.0, what: str = "") -> Any:
        """What `condition` returns once that is true; fails after the timeout."""
        end = time.monotonic() + timeout_s
        while not (met := condition()):
            if time.monotonic() > end:
                raise AssertionError(f"waited {timeout_s} s for {what or condition}")
            self._executor.spin_once(timeout_sec=0.02)
        return met

    def call(self, kind: Any, service: str, request: Any = None, timeout_s: float = 60.0) -> Any:
        client = self.node.create_client(kind, service)
        self.wait_for(client.service_is_ready, timeout_s, f"service {service}")
        future = client.call_async(request or kind.Request())
        self.wait_for(future.done, timeout_s, f"an answer of {service}")
        self.node.destroy_client(client)
        return future.result()

    def set_parameters(self, node: str, parameters: list[Parameter]) -> bool:
        request = SetParameters.Request(parameters=[parameter.to_parameter_msg() for parameter in parameters])
        return all(result.successful for result in self.call(SetParameters, f"{node}/set_parameters", request).results)

    def wait_until_heard(self, timeout_s: float = 90.0) -> None:
        """Until the node listens to images and camera_info: it is active then."""
        publishers = [*self._images.values(), *self._infos.values()]
        self.wait_for(lambda: all(p.get_subscription_count() for p in publishers), timeout_s, "a subscription to the images")

    def wait_until_tf_is_heard(self) -> None:
        self.wait_for(self._tf.get_subscription_count, what="a subscription to /tf")

    # speaking

    def send(self, number: int, cameras: Iterable[str] | None = None, **parts: bool) -> None:
        """Everything of one instant; parts that are given False (info, tf, odometry, images) are left out."""
        cameras = self.cameras if cameras is None else list(cameras)
        if parts.get("info", True):
            for name in cameras:
                self._infos[name].publish(camera_info(number, name))
        if parts.get("tf", True):
            self.send_tf(number)
        if parts.get("odometry", True):
            self._odometry.publish(odometry(number))
        if parts.get("images", True):
            for name in cameras:
                self.send_image(name, image_message(number, name) if self.transport == "raw" else jpeg_message(number, name))

    def send_image(self, camera: str, message: Any) -> None:
        self._images[camera].publish(message)

    def send_tf(self, number: int) -> None:
        self.publish_tf(TFMessage(transforms=[transform(number, "odom", "base_link", world.T_world_body(number))]))

    def publish_tf(self, message: TFMessage) -> None:
        self._tf.publish(message)

    def send_odometry(self, message: Odometry) -> None:
        self._odometry.publish(message)

    def send_info(self, camera: str, message: CameraInfo) -> None:
        self._infos[camera].publish(message)

    def send_extrinsics(self) -> None:
        static = [transform(0, "base_link", optical_frame(name), world.T_BODY_CAM) for name in self.cameras]
        self._tf_static.publish(TFMessage(transforms=static))

    def drive(self, numbers: Iterable[int], hz: float = 10.0, **parts: Any) -> None:
        """Sends at a rate, hearing in between."""
        for number in numbers:
            self.send(number, **parts)
            self.spin(1.0 / hz)


def optical_frame(camera: str) -> str:
    return f"{camera}_optical"


def time_of(number: float) -> Time:
    sec, nanosec = divmod(BASE_NS + round(number * world.PERIOD_NS), 1_000_000_000)
    return Time(sec=sec, nanosec=nanosec)


def number_of(message: Any) -> int:
    """Which instant a message is stamped with."""
    offset, rest = divmod(stamp_ns(message.header.stamp) - BASE_NS, world.PERIOD_NS)
    assert rest == 0, "a stamp that no image had"
    return offset


def _fill(message: Any, number: float, frame_id: str) -> Any:
    message.header.stamp = time_of(number)
    message.header.frame_id = frame_id
    return message


def image_message(number: int, camera: str, encoding: str = "rgb8") -> Image:
    pixels = world.image(number)
    h, w = pixels.shape[:2]
    data = array("B", pixels.tobytes())
    return _fill(Image(height=h, width=w, encoding=encoding, step=3 * w, data=data), number, optical_frame(camera))


def jpeg_message(number: int, camera: str, keep: float = 1.0) -> CompressedImage:
    """keep < 1: cut off."""
    coded = cv2.imencode(".jpg", world.image(number))[1].tobytes()
    return _fill(CompressedImage(format="jpeg", data=array("B", coded[: int(keep * len(coded))])), number, optical_frame(camera))


def camera_info(number: int, camera: str, K: Any = None) -> CameraInfo:
    K = world.K_px() if K is None else K
    P = np.hstack([K, np.zeros((3, 1))])
    message = CameraInfo(height=world.HEIGHT_PX, width=world.WIDTH_PX, distortion_model="plumb_bob", d=[0.0] * 5)
    message.k, message.p = K.reshape(9), P.reshape(12)
    return _fill(message, number, optical_frame(camera))


def odometry(number: float, T: Any = None) -> Odometry:
    message = _fill(Odometry(child_frame_id="base_link"), number, "odom")
    placed = transform(number, "odom", "base_link", world.T_world_body(number) if T is None else T).transform
    pose: Pose = message.pose.pose
    pose.position.x, pose.position.y, pose.position.z = placed.translation.x, placed.translation.y, placed.translation.z
    pose.orientation = placed.rotation
    return message


def transform(number: float, parent: str, child: str, T: Any) -> TransformStamped:
    import torch

    message = _fill(TransformStamped(child_frame_id=child), number, parent)
    t, (x, y, z, w) = message.transform.translation, quaternion_from_rotation(torch.from_numpy(T[:3, :3])).tolist()
    t.x, t.y, t.z = T[:3, 3].tolist()
    message.transform.rotation = Quaternion(x=x, y=y, z=z, w=w)
    return message


def pixels(image: Image) -> Any:
    """(H, W) of a depth or confidence image."""
    dtype = {"32FC1": np.float32, "16UC1": np.uint16}[image.encoding]
    return np.frombuffer(image.data, dtype).reshape(image.height, image.width)
