"""Messages -> arrays, for rclpy and rosbags messages alike: only attributes are read, nothing of ROS is imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch

from da3_core import Calibration, DistortionModel, Float32Array, Float64Array, Uint8Array, rotation_from_quaternion

Picture = npt.NDArray[Any]  # uint8 or uint16; depth also float


class MessageError(ValueError):
    """A message that cannot be used; its text says why, in one line."""


@dataclass(frozen=True)
class StampedTransform:
    """`child` in `parent` at `stamp_ns`."""

    stamp_ns: int
    parent: str
    child: str
    T_parent_child: Float64Array  # (4, 4), metres


@dataclass(frozen=True)
class Layout:
    """How an uncompressed encoding lies in memory: rows of `channels` values per pixel, then one OpenCV conversion to RGB."""

    dtype: str
    channels: int
    to_rgb: int | None  # None: is RGB already
    rows_per_2_rows: int = 2  # planar YUV has chroma rows below the picture's own


# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first row's first two.
LAYOUTS = {
    "rgb8": Layout("u1", 3, None),
    "bgr8": Layout("u1", 3, cv2.COLOR_BGR2RGB),
    "rgba8": Layout("u1", 4, cv2.COLOR_RGBA2RGB),
    "bgra8": Layout("u1", 4, cv2.COLOR_BGRA2RGB),
    "rgb16": Layout("u2", 3, None),
    "bgr16": Layout("u2", 3, cv2.COLOR_BGR2RGB),
    "mono8": Layout("u1", 1, cv2.COLOR_GRAY2RGB),
    "mono16": Layout("u2", 1, cv2.COLOR_GRAY2RGB),
    "8UC1": Layout("u1", 1, cv2.COLOR_GRAY2RGB),
    "8UC3": Layout("u1", 3, cv2.COLOR_BGR2RGB),  # an OpenCV array published as it is
    "8UC4": Layout("u1", 4, cv2.COLOR_BGRA2RGB),
    "bayer_rggb8": Layout("u1", 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": Layout("u1", 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": Layout("u1", 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": Layout("u1", 1, cv2.COLOR_BayerGB2RGB),
    "yuv422": Layout("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": Layout("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": Layout("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": Layout("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    "nv12": Layout("u1", 1, cv2.COLOR_YUV2RGB_NV12, rows_per_2_rows=3),
    "nv21": Layout("u1", 1, cv2.COLOR_YUV2RGB_NV21, rows_per_2_rows=3),
    "nv24": Layout("u1", 1, cv2.COLOR_YUV2RGB_NV12, rows_per_2_rows=6),
}
DEPTHS = {  # by encoding: how depth lies in memory, and metres in its unit (REP 118)
    "16UC1": (Layout("u2", 1, None), 0.001),
    "32FC1": (Layout("f4", 1, None), 1.0),
    "64FC1": (Layout("f8", 1, None), 1.0),
}
DISTORTION_COEFFICIENTS: dict[str, tuple[DistortionModel, tuple[int, ...]]] = {
    "plumb_bob": ("plumb_bob", (4, 5)),
    "rational_polynomial": ("rational_polynomial", (8, 12, 14)),
    "equidistant": ("equidistant", (4,)),
    "fisheye": ("equidistant", (4,)),
}


def stamp_ns(stamp: Any) -> int:
    """builtin_interfaces/Time (or a ROS 1 time) as int nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def rgb_from_image(msg: Any) -> Uint8Array:
    """sensor_msgs/Image -> (H, W, 3) RGB. 16-bit pictures are scaled by 255/65535, 8UC3 is taken as BGR.

    Raises MessageError for encodings that are no picture or unknown, for data that is shorter than height and step say, and for odd sizes
    where pixels share their chroma.
    """
    layout = LAYOUTS.get(msg.encoding)
    if layout is None:
        raise MessageError(_unusable_encoding(msg.encoding))
    pixels = _pixels(msg, layout)
    size = f"{msg.width}x{msg.height}"
    with _opencv(f"{msg.encoding} image of {size} does not convert to RGB: send one of even width and height, or rgb8"):
        if msg.encoding == "nv24":
            return _rgb_from_nv24(pixels, msg.height)
        if pixels.dtype.itemsize == 2:
            pixels = cv2.convertScaleAbs(pixels, alpha=255.0 / 65535.0)
        return np.array(pixels) if layout.to_rgb is None else cast(Uint8Array, cv2.cvtColor(pixels, layout.to_rgb))


def depth_from_image(msg: Any) -> Float32Array:
    """sensor_msgs/Image of depth (REP 118) -> (H, W) metres, as they come: 0 or not finite where unknown. Raises MessageError as above."""
    if msg.encoding not in DEPTHS:
        raise MessageError(f"encoding {msg.encoding!r} is no depth: it takes {', '.join(DEPTHS)}")
    layout, metres = DEPTHS[msg.encoding]
    return cast(Float32Array, (_pixels(msg, layout) * np.float64(metres)).astype(np.float32))


def rgb_from_compressed(msg: Any) -> Uint8Array:
    """sensor_msgs/CompressedImage holding JPEG or PNG -> (H, W, 3) RGB; raises MessageError on anything else and on truncated data."""
    data = np.frombuffer(msg.data, np.uint8)
    if "compressedDepth" in msg.format:
        raise MessageError(f"compressed image of format {msg.format!r} holds depth, not a picture")
    head, end_marker = data[:4].tobytes(), None
    if head[:3] == b"\xff\xd8\xff":
        end_marker = b"\xff\xd9"  # cannot occur inside coded data, so its absence is a cut
    elif head == b"\x89PNG":
        end_marker = b"IEND"
    if end_marker is None:
        raise MessageError(f"compressed image of format {msg.format!r} is neither JPEG nor PNG")
    corrupt = f"compressed image of {data.size} bytes is corrupt or cut off: if others are, too, look at the link and at what encodes them"
    if data.tobytes().rfind(end_marker) <= 0:
        raise MessageError(corrupt)
    with _opencv(corrupt):
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)
        if decoded is None:
            raise MessageError(corrupt)
        if decoded.dtype == np.uint16:
            decoded = cv2.convertScaleAbs(decoded, alpha=255.0 / 65535.0)
        return cast(Uint8Array, cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))


def rgb_from_any(msg: Any) -> Uint8Array:
    """Image or CompressedImage -> (H, W, 3) RGB."""
    return rgb_from_image(msg) if hasattr(msg, "encoding") else rgb_from_compressed(msg)


def calibration_from_msg(msg: Any, rectified: bool = False) -> Calibration | None:
    """sensor_msgs/CameraInfo -> calibration of the image that is sent beside it; None where the camera is not calibrated (K is 0).

    `rectified` images follow P and have no distortion left. K and P describe the full sensor: region of interest and binning are
    applied here. Raises MessageError for distortion models that are unknown.
    """
    K = np.array(_field(msg, "p"), np.float64).reshape(3, 4)[:, :3] if rectified else np.array(_field(msg, "k"), np.float64).reshape(3, 3)
    if K[0, 0] == 0.0 or K[1, 1] == 0.0:
        return None
    if not np.isfinite(K).all():
        raise MessageError("camera_info holds values that are not finite")
    model, D = ("none", ()) if rectified else _distortion(msg.distortion_model, _field(msg, "d"))
    roi = msg.roi
    width_px, height_px = (roi.width, roi.height) if roi.width and roi.height else (msg.width, msg.height)
    bin_x, bin_y = max(1, msg.binning_x), max(1, msg.binning_y)
    K = K.copy()
    K[0, 2] -= roi.x_offset
    K[1, 2] -= roi.y_offset
    # The first super-pixel's centre lies (b - 1) / 2 from the first pixel's centre.
    K[0] = [K[0, 0] / bin_x, K[0, 1] / bin_x, (K[0, 2] + 0.5) / bin_x - 0.5]
    K[1] = [0.0, K[1, 1] / bin_y, (K[1, 2] + 0.5) / bin_y - 0.5]
    return Calibration(int(width_px) // bin_x, int(height_px) // bin_y, K, model, D)


def transforms_from_msg(msg: Any) -> list[StampedTransform]:
    """tf2_msgs/TFMessage -> its transforms; raises MessageError when one is not finite or has no rotation."""
    return [
        StampedTransform(stamp_ns(t.header.stamp), _frame(t.header.frame_id), _frame(t.child_frame_id), rigid_from_msg(t.transform))
        for t in msg.transforms
    ]


def transform_from_odometry(msg: Any) -> StampedTransform:
    """nav_msgs/Odometry -> the pose of its child frame in its header's frame; raises MessageError when it is not usable."""
    parent, child = _frame(msg.header.frame_id), _frame(msg.child_frame_id)
    if not parent or not child:
        raise MessageError(f"odometry from {parent!r} to {child!r} does not name both its frames")
    return StampedTransform(stamp_ns(msg.header.stamp), parent, child, rigid_from_msg(msg.pose.pose))


def rigid_from_msg(msg: Any) -> Float64Array:
    """geometry_msgs/Transform or Pose -> (4, 4); raises MessageError when not finite or the quaternion's norm is far from 1."""
    t, q = (msg.translation, msg.rotation) if hasattr(msg, "translation") else (msg.position, msg.orientation)
    xyzw = np.array([q.x, q.y, q.z, q.w])
    norm = float(xyzw @ xyzw) ** 0.5
    if not (np.isfinite([t.x, t.y, t.z]).all() and 0.9 < norm < 1.1):  # also False for NaN
        raise MessageError(f"pose t = ({t.x}, {t.y}, {t.z}), q_xyzw = ({q.x}, {q.y}, {q.z}, {q.w}) is not a rigid transform")
    T = np.eye(4)
    T[:3, :3] = rotation_from_quaternion(torch.from_numpy(xyzw)).numpy()
    T[:3, 3] = t.x, t.y, t.z
    return T


@contextmanager
def _opencv(refused: str) -> Iterator[None]:
    """What OpenCV refuses becomes a MessageError: `refused`."""
    try:
        yield
    except cv2.error as error:
        raise MessageError(refused) from error


def _pixels(msg: Any, layout: Layout) -> Picture:
    """The rows of an image without their padding: (rows, W * channels) reshaped to (rows, W, channels), native byte order."""
    itemsize = np.dtype(layout.dtype).itemsize
    row_bytes = msg.width * layout.channels * itemsize
    rows = msg.height * layout.rows_per_2_rows // 2
    data = np.frombuffer(msg.data, np.uint8)
    if msg.step < row_bytes or data.size < rows * msg.step or rows == 0 or row_bytes == 0:
        raise MessageError(
            f"{msg.encoding} image of {msg.width}x{msg.height} needs {rows} rows of at least {row_bytes} bytes, "
            f"but comes with step {msg.step} and {data.size} bytes"
        )
    packed = data[: rows * msg.step].reshape(rows, msg.step)[:, :row_bytes]
    values = np.ascontiguousarray(packed).view((">" if msg.is_bigendian else "<") + layout.dtype)
    shape = (rows, msg.width) if layout.channels == 1 else (rows, msg.width, layout.channels)
    return values.astype(layout.dtype, copy=False).reshape(shape)


def _rgb_from_nv24(planes: Picture, height: int) -> Uint8Array:
    """Chroma at full resolution is the half-resolution chroma of a picture twice as large, which OpenCV converts."""
    luma, chroma = planes[:height], planes[height:].reshape(height, -1)
    doubled = np.vstack([luma.repeat(2, axis=0).repeat(2, axis=1), chroma])
    return np.ascontiguousarray(cv2.cvtColor(doubled, cv2.COLOR_YUV2RGB_NV12)[::2, ::2])


def _unusable_encoding(encoding: str) -> str:
    if encoding in DEPTHS:
        return f"encoding {encoding} is depth or a measurement, not a picture; publish grey pictures as mono16"
    return f"unknown image encoding {encoding!r}; there are {', '.join(LAYOUTS)}"


def _distortion(name: str, coefficients: Any) -> tuple[DistortionModel, tuple[float, ...]]:
    D = tuple(float(d) for d in coefficients)
    model, lengths = DISTORTION_COEFFICIENTS.get(name, (None, ()))
    if not any(D) and model != "equidistant":  # whose zeros say r = f * theta
        return "none", ()
    if model is None or len(D) not in lengths:
        raise MessageError(
            f"distortion model {name!r} with {len(D)} coefficients is unknown; there are {', '.join(DISTORTION_COEFFICIENTS)}, "
            f"or use the rectified image topic"
        )
    return model, D


def _field(msg: Any, name: str) -> Any:
    """ROS 1 spells CameraInfo's D, K, R and P in capitals."""
    return getattr(msg, name) if hasattr(msg, name) else getattr(msg, name.upper())


def _frame(frame_id: str) -> str:
    """ROS 1 wrote frames with a leading slash."""
    return frame_id.lstrip("/")
