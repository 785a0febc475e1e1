"""Results -> messages, through one code path for rclpy and rosbags: `types` says which classes and arrays are filled."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import nan
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch

from da3_core import Float32Array, Float64Array, FrameResult, K_from_ros, Uint8Array, quaternion_from_rotation, setting, unproject

POINT_DTYPE = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("confidence", "<f4")])
POINT_FIELD_FLOAT32 = 7
OWN_WORLD = "da3_world"  # frame of poses where none were given
UNKNOWN_VARIANCE = 1e6  # zero is read as certain by filters that fuse odometry


@dataclass(frozen=True)
class OutputConfig:
    """What results look like as messages."""

    depth_encoding: str = setting("32FC1", "32FC1: metres, NaN invalid; 16UC1: millimetres, 0 invalid", choices=("32FC1", "16UC1"))
    cloud: str = setting("organised", "organised: one point per pixel, NaN kept; dense: NaN dropped", choices=("organised", "dense"))
    child_suffix: str = setting(
        "_da3",
        "our pose of a camera is published in TF as its frame's name with this appended: the camera's own frame has a parent already",
        not_empty=True,
    )


class MessageTypes(Protocol):
    """Makes messages of one library."""

    def message(self, name: str, /, **fields: Any) -> Any:
        """An instance of e.g. sensor_msgs/msg/Image with every field given."""

    def sequence(self, values: npt.NDArray[Any], /) -> Any:
        """`values` as that library holds an unbounded sequence of numbers."""


class RclpyTypes:
    """rclpy's classes. Sequences are array.array: rclpy checks any other type element by element."""

    def __init__(self) -> None:
        import builtin_interfaces.msg
        import da3.msg
        import geometry_msgs.msg
        import nav_msgs.msg
        import sensor_msgs.msg
        import std_msgs.msg
        import tf2_msgs.msg

        packages = (builtin_interfaces, geometry_msgs, nav_msgs, sensor_msgs, std_msgs, tf2_msgs, da3)
        self._packages = {package.__name__: package.msg for package in packages}

    def message(self, name: str, /, **fields: Any) -> Any:
        package, _, kind = name.split("/")
        return getattr(self._packages[package], kind)(**fields)

    def sequence(self, values: npt.NDArray[Any], /) -> Any:
        filled = array(values.dtype.char)
        filled.frombytes(values.data.cast("B"))
        return filled


@dataclass(frozen=True)
class StreamCounts:
    """Images since the start."""

    frames_in: int
    frames_out: int
    frames_dropped: int


def header(types: MessageTypes, stamp_ns: int, frame_id: str) -> Any:
    """std_msgs/Header."""
    return types.message("std_msgs/msg/Header", stamp=_time(types, stamp_ns), frame_id=frame_id)


def depth_image(types: MessageTypes, result: FrameResult, encoding: str = "32FC1") -> Any:
    """sensor_msgs/Image after REP 118: 32FC1 metres with NaN, or 16UC1 millimetres with 0 where unknown or beyond 65.535 m."""
    if encoding == "32FC1":
        return float_image(types, result.stamp_ns, result.frame_id, result.depth_m)
    millimetres = np.rint(result.depth_m.astype(np.float64) * 1000.0)
    known = (millimetres > 0) & (millimetres <= np.iinfo(np.uint16).max)  # False for NaN
    return _pixels(types, result.stamp_ns, result.frame_id, encoding, np.where(known, millimetres, 0).astype(np.uint16))


def float_image(types: MessageTypes, stamp_ns: int, frame_id: str, values: Float32Array) -> Any:
    """sensor_msgs/Image, 32FC1."""
    return _pixels(types, stamp_ns, frame_id, "32FC1", values)


def colour_image(types: MessageTypes, stamp_ns: int, frame_id: str, rgb: Uint8Array) -> Any:
    """sensor_msgs/Image, rgb8."""
    return _pixels(types, stamp_ns, frame_id, "rgb8", rgb)


def confidence_image(types: MessageTypes, result: FrameResult) -> Any:
    """sensor_msgs/Image, 32FC1; an image of height 0 when the network has no confidence."""
    empty = np.empty((0, result.depth_m.shape[1]), np.float32)
    return float_image(types, result.stamp_ns, result.frame_id, empty if result.confidence is None else result.confidence)


def camera_info(types: MessageTypes, result: FrameResult) -> Any:
    """sensor_msgs/CameraInfo of the depth image: same header and size, no distortion left."""
    height, width = result.depth_m.shape
    return pinhole_info(types, result.stamp_ns, result.frame_id, result.K, (height, width))


def pinhole_info(types: MessageTypes, stamp_ns: int, frame_id: str, K: Float64Array, size: tuple[int, int]) -> Any:
    """sensor_msgs/CameraInfo of an image (height, width) without distortion; K (3, 3) with the first pixel's centre at (0, 0)."""
    P = np.zeros((3, 4))
    P[:, :3] = K
    roi = types.message("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return types.message(
        "sensor_msgs/msg/CameraInfo",
        header=header(types, stamp_ns, frame_id),
        height=size[0],
        width=size[1],
        distortion_model="plumb_bob",
        d=types.sequence(np.zeros(5)),
        k=np.ascontiguousarray(K, np.float64).reshape(9),
        r=np.eye(3).reshape(9),
        p=P.reshape(12),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def point_cloud(types: MessageTypes, result: FrameResult, layout: str = "organised") -> Any:
    """sensor_msgs/PointCloud2 in the camera's optical frame: x y z rgb [confidence], 32 bits each, row-major.

    organised: one point per pixel, unknown ones NaN; dense: unknown ones dropped, one row.
    """
    points = cloud_points(result, layout)
    height, width = points.shape
    return types.message(
        "sensor_msgs/msg/PointCloud2",
        header=header(types, result.stamp_ns, result.frame_id),
        height=height,
        width=width,
        fields=cloud_fields(types, points),
        is_bigendian=False,
        point_step=points.dtype.itemsize,
        row_step=points.dtype.itemsize * width,
        data=types.sequence(_as_bytes(points)),
        is_dense=layout == "dense" or bool(np.isfinite(points["z"]).all()),
    )


def cloud_points(result: FrameResult, layout: str) -> npt.NDArray[Any]:
    """The points of `point_cloud`: (H, W) or (1, M) structs of x y z rgb [confidence]."""
    points = _points(result)
    return points[np.isfinite(result.depth_m)][None] if layout == "dense" else points


def cloud_fields(types: MessageTypes, points: npt.NDArray[Any]) -> list[Any]:
    """sensor_msgs/PointField of each column; rgb is packed into the bits of a float, as PCL and RViz have it."""
    return [
        types.message("sensor_msgs/msg/PointField", name=name, offset=4 * i, datatype=POINT_FIELD_FLOAT32, count=1)
        for i, name in enumerate(points.dtype.names or ())
    ]


def pose_stamped(types: MessageTypes, result: FrameResult, world_frame: str) -> Any:
    """geometry_msgs/PoseStamped of the camera's optical frame in the world frame. The result must have a pose."""
    return stamped_pose(types, result.stamp_ns, world_frame, _known_pose(result))


def stamped_pose(types: MessageTypes, stamp_ns: int, frame_id: str, T: Float64Array) -> Any:
    """geometry_msgs/PoseStamped of T (4, 4), metres."""
    return types.message("geometry_msgs/msg/PoseStamped", header=header(types, stamp_ns, frame_id), pose=_pose(types, T))


def odometry(types: MessageTypes, result: FrameResult, world_frame: str, child_suffix: str = "_da3") -> Any:
    """nav_msgs/Odometry of our own child frame in the world frame. The result must have a pose."""
    return stamped_odometry(types, result.stamp_ns, world_frame, result.frame_id + child_suffix, _known_pose(result))


def stamped_odometry(types: MessageTypes, stamp_ns: int, parent: str, child: str, T_parent_child: Float64Array) -> Any:
    """nav_msgs/Odometry. Covariances are not estimated, which a large variance says; nor is the twist."""
    zero = types.message("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
    twist = types.message("geometry_msgs/msg/Twist", linear=zero, angular=zero)
    unknown = (UNKNOWN_VARIANCE * np.eye(6)).ravel()
    return types.message(
        "nav_msgs/msg/Odometry",
        header=header(types, stamp_ns, parent),
        child_frame_id=child,
        pose=types.message("geometry_msgs/msg/PoseWithCovariance", pose=_pose(types, T_parent_child), covariance=unknown),
        twist=types.message("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=unknown),
    )


def pose_transform(types: MessageTypes, result: FrameResult, world_frame: str, child_suffix: str = "_da3") -> Any:
    """geometry_msgs/TransformStamped that gives our pose a frame of its own: the camera's frame keeps the parent it has."""
    return transform_stamped(types, result.stamp_ns, world_frame, result.frame_id + child_suffix, _known_pose(result))


def transform_stamped(types: MessageTypes, stamp_ns: int, parent: str, child: str, T_parent_child: Float64Array) -> Any:
    """geometry_msgs/TransformStamped."""
    translation, rotation = _vector_and_quaternion(types, "Vector3", T_parent_child)
    return types.message(
        "geometry_msgs/msg/TransformStamped",
        header=header(types, stamp_ns, parent),
        child_frame_id=child,
        transform=types.message("geometry_msgs/msg/Transform", translation=translation, rotation=rotation),
    )


def tf_message(types: MessageTypes, transforms: Sequence[Any]) -> Any:
    """tf2_msgs/TFMessage."""
    return types.message("tf2_msgs/msg/TFMessage", transforms=list(transforms))


def stream_status(
    types: MessageTypes, results: Sequence[FrameResult], world_frame: str, counts: StreamCounts, latency_s: float = nan
) -> Any:
    """da3/StreamStatus of one synchronised set, the anchor's result first."""
    anchor = results[0]
    return types.message(
        "da3/msg/StreamStatus",
        header=header(types, anchor.stamp_ns, world_frame),
        cameras=[result.camera for result in results],
        mode=anchor.mode,
        mode_reason=anchor.mode_reason,
        scale=float(anchor.scale.value) if anchor.scale.is_metric else nan,
        scale_log_variance=float(anchor.scale.log_variance),
        scale_source=anchor.scale.source,
        window_views=anchor.window_views,
        stages=list(anchor.timings_s),
        stage_s=types.sequence(np.array(list(anchor.timings_s.values()), np.float64)),
        latency_s=float(latency_s),
        frames_in=counts.frames_in,
        frames_out=counts.frames_out,
        frames_dropped=counts.frames_dropped,
    )


def prediction(types: MessageTypes, results: Sequence[FrameResult], world_frame: str, status: Any) -> Any:
    """da3/Prediction: every result of one synchronised set in one piece; `status` is its stream_status."""
    return types.message(
        "da3/msg/Prediction",
        header=header(types, results[0].stamp_ns, world_frame),
        status=status,
        views=[_placed_view(types, result) for result in results],
    )


def _placed_view(types: MessageTypes, result: FrameResult) -> Any:
    T_world_cam = np.eye(4) if result.T_world_cam is None else result.T_world_cam
    return types.message(
        "da3/msg/PlacedView",
        camera=result.camera,
        camera_info=camera_info(types, result),
        depth=depth_image(types, result),
        confidence=confidence_image(types, result),
        has_pose=result.T_world_cam is not None,
        pose=_pose(types, T_world_cam),
    )


def _pixels(types: MessageTypes, stamp_ns: int, frame_id: str, encoding: str, pixels: npt.NDArray[Any]) -> Any:
    return types.message(
        "sensor_msgs/msg/Image",
        header=header(types, stamp_ns, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=pixels[0].nbytes if len(pixels) else 0,
        data=types.sequence(_as_bytes(pixels)),
    )


def _points(result: FrameResult) -> npt.NDArray[Any]:
    """(H, W) of POINT_DTYPE, without the confidence field where there is none."""
    names = [name for name in POINT_DTYPE.names or () if name != "confidence" or result.confidence is not None]
    points = np.empty(result.depth_m.shape, np.dtype([(name, POINT_DTYPE[name]) for name in names]))
    x_per_z, y_per_z = _rays(*result.depth_m.shape, tuple(result.K.ravel()))
    np.multiply(result.depth_m, x_per_z, out=points["x"])
    np.multiply(result.depth_m, y_per_z, out=points["y"])
    points["z"] = result.depth_m
    points["rgb"] = cv2.cvtColor(result.image, cv2.COLOR_RGB2BGRA).view("<u4")[..., 0] & 0xFFFFFF
    if result.confidence is not None:
        points["confidence"] = result.confidence
    return points


@lru_cache(maxsize=16)
def _rays(height: int, width: int, K: tuple[float, ...]) -> tuple[Float32Array, Float32Array]:
    """x and y of every pixel's ray at z = 1, (H, W) each: the same for all images of a calibration."""
    at_one = unproject(torch.ones(height, width), K_from_ros(torch.tensor(K, dtype=torch.float64).reshape(3, 3)).float())
    x_per_z, y_per_z, _ = at_one.unbind(-1)
    return x_per_z.numpy().copy(), y_per_z.numpy().copy()


def _as_bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _known_pose(result: FrameResult) -> Float64Array:
    if result.T_world_cam is None:
        raise ValueError(f"the result of {result.camera} at {result.stamp_ns} has no pose to publish")
    return result.T_world_cam


def _time(types: MessageTypes, stamp_ns: int) -> Any:
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return types.message("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)


def _pose(types: MessageTypes, T: Float64Array) -> Any:
    position, orientation = _vector_and_quaternion(types, "Point", T)
    return types.message("geometry_msgs/msg/Pose", position=position, orientation=orientation)


def _vector_and_quaternion(types: MessageTypes, vector: str, T: Float64Array) -> tuple[Any, Any]:
    x, y, z = (float(v) for v in T[:3, 3])
    qx, qy, qz, qw = quaternion_from_rotation(torch.from_numpy(T[:3, :3])).tolist()
    return (
        types.message(f"geometry_msgs/msg/{vector}", x=x, y=y, z=z),
        types.message("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
    )
