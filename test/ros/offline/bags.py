"""Small recordings with known content: a camera that moves sideways before a textured wall, odometry, TF."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from . import messages
from .messages import STORE, Array

WIDTH, HEIGHT = 70, 56
K = np.array([[60.0, 0, 34.5], [0, 60.0, 27.5], [0, 0, 1]])
START_NS = 1_700_000_000_000_000_000
FRAME_NS = 100_000_000
LATENCY_NS = 20_000_000  # from stamp to recording
SPEED_M_PER_FRAME = 0.05
Q_BASE_CAM = (-0.5, 0.5, -0.5, 0.5)  # optical: z forward where the base's x is
T_BASE_CAM = np.array([[0.0, 0, 1, 0.1], [-1, 0, 0, 0], [0, -1, 0, 0.3], [0, 0, 0, 1]])
Recorded = tuple[int, str, Any]  # log time, topic, message


def picture(i: int, width: int = WIDTH, height: int = HEIGHT) -> Array:
    """RGB; frame i sees the wall moved by 3 i pixels."""
    wall = np.random.default_rng(7).integers(0, 256, (height // 4 + 1, 80, 3), np.uint8)
    wall = cv2.resize(wall, (80 * 8, height + 4), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(wall[:height, 3 * i : 3 * i + width])


def stamp_of(i: int) -> int:
    return START_NS + i * FRAME_NS


def camera(frames: int, namespace: str = "/front", frame_id: str = "front_optical") -> Iterable[Recorded]:
    """rgb8 images with their camera_info."""
    for i in range(frames):
        yield from camera_frame(i, namespace, frame_id)


def camera_frame(i: int, namespace: str = "/front", frame_id: str = "front_optical") -> Iterable[Recorded]:
    image = messages.image(picture(i).reshape(HEIGHT, -1), "rgb8", HEIGHT, WIDTH, ns=stamp_of(i), frame_id=frame_id)
    info = messages.camera_info(K, WIDTH, HEIGHT, header=messages.header(stamp_of(i), frame_id))
    yield stamp_of(i) + LATENCY_NS, f"{namespace}/camera_info", info
    yield stamp_of(i) + LATENCY_NS, f"{namespace}/image_raw", image


def base_position(stamp_ns: int) -> tuple[float, float, float]:
    """Sideways at constant speed: exact under linear interpolation."""
    return 0.0, SPEED_M_PER_FRAME * (stamp_ns - START_NS) / FRAME_NS, 0.0


def motion(frames: int, make: Callable[[int], Any], topic: str) -> Iterable[Recorded]:
    """50 Hz, from before the first frame to after the last."""
    for ns in range(START_NS - 30_000_000, stamp_of(frames), 20_000_000):
        yield ns + LATENCY_NS, topic, make(ns)


def odometry(frames: int, topic: str = "/odom") -> Iterable[Recorded]:
    return motion(frames, lambda ns: messages.odometry("odom", "base_link", base_position(ns), ns=ns), topic)


def moving_tf(frames: int) -> Iterable[Recorded]:
    return motion(frames, lambda ns: messages.tf(messages.transform("odom", "base_link", base_position(ns), ns=ns)), "/tf")


def static_tf(child: str = "front_optical") -> Iterable[Recorded]:
    yield START_NS - 50_000_000, "/tf_static", messages.tf(messages.transform("base_link", child, T_BASE_CAM[:3, 3], Q_BASE_CAM))


def robot(frames: int) -> list[Recorded]:
    """One camera, odometry, TF: what most recordings have."""
    return [*static_tf(), *camera(frames), *odometry(frames), *moving_tf(frames)]


def write_ros2(path: Path, recorded: Iterable[Recorded], storage: str = "MCAP") -> Path:
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(path, version=8, storage_plugin=StoragePlugin[storage]) as writer:
        connections: dict[tuple[str, str], Any] = {}
        for log_ns, topic, msg in sorted(recorded, key=lambda r: r[0]):
            key = topic, msg.__msgtype__
            if key not in connections:
                connections[key] = writer.add_connection(*key, typestore=STORE)
            writer.write(connections[key], log_ns, STORE.serialize_cdr(msg, msg.__msgtype__))
    return path


def write_ros1(path: Path, recorded: Iterable[Recorded]) -> Path:
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    ros1 = get_typestore(Stores.ROS1_NOETIC)
    ros1.register(dict.fromkeys(("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage"), STORE.fielddefs["tf2_msgs/msg/TFMessage"]))
    with Writer(path) as writer:
        connections: dict[str, Any] = {}
        for log_ns, topic, msg in sorted(recorded, key=lambda r: r[0]):
            if topic not in connections:
                msgtype = "tf/msg/tfMessage" if topic == "/tf" else msg.__msgtype__  # as old recordings have it
                connections[topic] = writer.add_connection(topic, msgtype, typestore=ros1)
            raw = STORE.serialize_cdr(msg, msg.__msgtype__)
            writer.write(connections[topic], log_ns, STORE.cdr_to_ros1(raw, msg.__msgtype__))
    return path
