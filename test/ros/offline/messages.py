"""Messages built from arrays, by hand and independently of to_msg: the inputs of the tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from da3_ros.bag.typestore import load_typestore

Array = np.ndarray[Any, Any]
STORE = load_typestore()


def make(name: str, **fields: Any) -> Any:
    return STORE.types[name](**fields)


def stamp(ns: int) -> Any:
    return make("builtin_interfaces/msg/Time", sec=ns // 10**9, nanosec=ns % 10**9)


def header(ns: int = 0, frame_id: str = "front_optical") -> Any:
    return make("std_msgs/msg/Header", stamp=stamp(ns), frame_id=frame_id)


def image(rows: Array, encoding: str, height: int, width: int, padding: int = 0, ns: int = 0, frame_id: str = "front_optical") -> Any:
    """`rows`: (R, bytes of a row); `padding` bytes of 0xAB follow every row."""
    padded = np.pad(rows.view(np.uint8).reshape(len(rows), -1), ((0, 0), (0, padding)), constant_values=0xAB)
    return make(
        "sensor_msgs/msg/Image",
        header=header(ns, frame_id),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=padded.shape[1],
        data=padded.reshape(-1),
    )


def compressed(data: bytes, format: str = "jpeg", ns: int = 0, frame_id: str = "front_optical") -> Any:
    return make("sensor_msgs/msg/CompressedImage", header=header(ns, frame_id), format=format, data=np.frombuffer(data, np.uint8))


def camera_info(K: Array, width: int, height: int, **changed: Any) -> Any:
    region = changed.pop("roi", (0, 0, 0, 0))
    names = ("x_offset", "y_offset", "height", "width")
    fields = {
        "header": header(),
        "height": height,
        "width": width,
        "distortion_model": "plumb_bob",
        "d": np.zeros(5),
        "k": np.asarray(K, np.float64).reshape(9),
        "r": np.eye(3).reshape(9),
        "p": np.hstack([K, np.zeros((3, 1))]).reshape(12),
        "binning_x": 0,
        "binning_y": 0,
        "roi": make("sensor_msgs/msg/RegionOfInterest", do_rectify=False, **dict(zip(names, region, strict=True))),
    }
    return make("sensor_msgs/msg/CameraInfo", **(fields | changed))


def vector(kind: str, values: Any) -> Any:
    names = "xyzw"[: len(values)]
    return make(f"geometry_msgs/msg/{kind}", **{name: float(v) for name, v in zip(names, values, strict=True)})


def transform(parent: str, child: str, t: Any, q_xyzw: Any = (0, 0, 0, 1), ns: int = 0) -> Any:
    rigid = make("geometry_msgs/msg/Transform", translation=vector("Vector3", t), rotation=vector("Quaternion", q_xyzw))
    return make("geometry_msgs/msg/TransformStamped", header=header(ns, parent), child_frame_id=child, transform=rigid)


def tf(*transforms: Any) -> Any:
    return make("tf2_msgs/msg/TFMessage", transforms=list(transforms))


def odometry(parent: str, child: str, t: Any, q_xyzw: Any = (0, 0, 0, 1), ns: int = 0) -> Any:
    pose = make("geometry_msgs/msg/Pose", position=vector("Point", t), orientation=vector("Quaternion", q_xyzw))
    zero = vector("Vector3", (0, 0, 0))
    twist = make("geometry_msgs/msg/Twist", linear=zero, angular=zero)
    return make(
        "nav_msgs/msg/Odometry",
        header=header(ns, parent),
        child_frame_id=child,
        pose=make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
        twist=make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
    )
