"""Every encoding and camera_info convention, against pictures that were made the other way round."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest

from da3_ros.from_msg import (
    LAYOUTS,
    MessageError,
    calibration_from_msg,
    depth_from_image,
    rgb_from_any,
    rigid_from_msg,
    stamp_ns,
    transform_from_odometry,
    transforms_from_msg,
)

from . import messages
from .messages import camera_info, compressed, image

Array = np.ndarray[Any, Any]
H, W = 24, 32
K = np.array([[300.0, 0, 15.5], [0, 310.0, 11.5], [0, 0, 1]])


def smooth_picture() -> Array:
    """Smooth, so that chroma subsampling and demosaicing lose little; every channel differs."""
    y, x = np.mgrid[0:H, 0:W]
    return np.stack([60 + 3 * x, 70 + 3 * y, 200 - 2 * x - y], -1).astype(np.uint8)


def noisy_picture() -> Array:
    return np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)


def bayer(rgb: Array, pattern: str) -> Array:
    """Keeps of every pixel the channel that the pattern names, row by row from the first pixel."""
    channel = {"r": 0, "g": 1, "b": 2}
    mosaic = np.empty((H, W), np.uint8)
    for i, name in enumerate(pattern):
        mosaic[i // 2 :: 2, i % 2 :: 2] = rgb[i // 2 :: 2, i % 2 :: 2, channel[name]]
    return mosaic


def yuv(rgb: Array) -> tuple[Array, Array, Array]:
    """BT.601, limited range, from its definition."""
    r, g, b = (rgb[..., i].astype(np.float64) for i in range(3))
    y = 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255
    u = 128 + (-37.797 * r - 74.203 * g + 112.0 * b) / 255
    v = 128 + (112.0 * r - 93.786 * g - 18.214 * b) / 255
    return tuple(np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in (y, u, v))  # type: ignore[return-value]


def packed_422(rgb: Array, order: str) -> Array:
    y, u, v = yuv(rgb)
    planes = {"y0": y[:, 0::2], "y1": y[:, 1::2], "u": u[:, 0::2], "v": v[:, 0::2]}
    names = ("u", "y0", "v", "y1") if order == "uyvy" else ("y0", "u", "y1", "v")
    return np.stack([planes[name] for name in names], -1).reshape(H, 2 * W)


def semi_planar(rgb: Array, order: str, subsampled: bool) -> Array:
    y, u, v = yuv(rgb)
    s = 2 if subsampled else 1
    chroma = np.stack([u[::s, ::s], v[::s, ::s]] if order == "uv" else [v[::s, ::s], u[::s, ::s]], -1)
    return np.vstack([y, chroma.reshape(-1, W)])


EXACT = {
    "rgb8": lambda p: p,
    "bgr8": lambda p: p[..., ::-1],
    "8UC3": lambda p: p[..., ::-1],
    "rgba8": lambda p: np.dstack([p, p[..., :1]]),
    "bgra8": lambda p: np.dstack([p[..., ::-1], p[..., :1]]),
    "8UC4": lambda p: np.dstack([p[..., ::-1], p[..., :1]]),
    "rgb16": lambda p: p.astype("<u2") * 257,
    "bgr16": lambda p: p[..., ::-1].astype("<u2") * 257,
}
GREY = {"mono8": lambda g: g, "8UC1": lambda g: g, "mono16": lambda g: g.astype("<u2") * 257}
NEAR = {
    **{f"bayer_{pattern}8": (lambda p, pattern=pattern: bayer(p, pattern)) for pattern in ("rggb", "bggr", "gbrg", "grbg")},
    "yuv422": lambda p: packed_422(p, "uyvy"),
    "uyvy": lambda p: packed_422(p, "uyvy"),
    "yuv422_yuy2": lambda p: packed_422(p, "yuyv"),
    "yuyv": lambda p: packed_422(p, "yuyv"),
    "nv12": lambda p: semi_planar(p, "uv", True),
    "nv21": lambda p: semi_planar(p, "vu", True),
    "nv24": lambda p: semi_planar(p, "uv", False),
}


def rows(pixels: Array) -> Array:
    return np.ascontiguousarray(pixels).reshape(len(pixels), -1)


def test_every_encoding_is_tested() -> None:
    assert set(EXACT) | set(GREY) | set(NEAR) == set(LAYOUTS)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", EXACT)
def test_colour_encodings_are_exact(encoding: str, padding: int) -> None:
    picture = noisy_picture()
    found = rgb_from_any(image(rows(EXACT[encoding](picture)), encoding, H, W, padding))
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_array_equal(found, picture)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", GREY)
def test_grey_encodings_give_three_equal_channels(encoding: str, padding: int) -> None:
    grey = noisy_picture()[..., 0]
    found = rgb_from_any(image(rows(GREY[encoding](grey)), encoding, H, W, padding))
    np.testing.assert_array_equal(found, np.dstack([grey] * 3))


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("encoding", NEAR)
def test_subsampled_encodings_recover_a_smooth_picture(encoding: str, padding: int) -> None:
    picture = smooth_picture()
    found = rgb_from_any(image(rows(NEAR[encoding](picture)), encoding, H, W, padding))
    inside = (slice(2, -2), slice(2, -2))  # demosaicing has no neighbours at the border
    assert np.abs(found[inside].astype(int) - picture[inside]).max() <= 8


def test_full_chroma_is_not_subsampled() -> None:
    picture = np.full((H, W, 3), 128, np.uint8)
    picture[:, 1::2] = (200, 60, 60)  # chroma changes at every column
    found = rgb_from_any(image(semi_planar(picture, "uv", False), "nv24", H, W))
    assert np.abs(found.astype(int) - picture).max() <= 3


def test_big_endian_pictures() -> None:
    grey = noisy_picture()[..., 0]
    msg = dataclasses.replace(image(rows(grey.astype(">u2") * 257), "mono16", H, W), is_bigendian=1)
    np.testing.assert_array_equal(rgb_from_any(msg)[..., 0], grey)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_is_not_a_picture(encoding: str) -> None:
    with pytest.raises(MessageError, match="not a picture"):
        rgb_from_any(image(np.zeros((H, 4 * W), np.uint8), encoding, H, W))


@pytest.mark.parametrize(("encoding", "dtype", "unit"), [("16UC1", "<u2", 0.001), ("32FC1", "<f4", 1.0), ("64FC1", "<f8", 1.0)])
def test_depth_is_metres(encoding: str, dtype: str, unit: float) -> None:
    numbers = np.arange(H * W).reshape(H, W).astype(dtype)
    found = depth_from_image(image(numbers, encoding, H, W, padding=3))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, numbers * unit, rtol=1e-6)
    with pytest.raises(MessageError, match="'rgb8' is no depth"):
        depth_from_image(image(np.zeros((H, 3 * W), np.uint8), "rgb8", H, W))


def test_unknown_encodings_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(MessageError, match=r"'rgb9'.*bayer_rggb8"):
        rgb_from_any(image(np.zeros((H, W), np.uint8), "rgb9", H, W))


def test_images_shorter_than_they_say_are_refused() -> None:
    whole = image(rows(noisy_picture()), "rgb8", H, W)
    with pytest.raises(MessageError, match="needs 24 rows of at least 96 bytes"):
        rgb_from_any(dataclasses.replace(whole, data=whole.data[:-1]))
    with pytest.raises(MessageError, match="step 90"):
        rgb_from_any(dataclasses.replace(whole, step=90))
    with pytest.raises(MessageError, match="0x0"):
        rgb_from_any(dataclasses.replace(whole, height=0, width=0))


@pytest.mark.parametrize(
    ("encoding", "width", "height"),
    [(encoding, 5, 4) for encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21")] + [("nv12", 4, 5), ("nv21", 4, 5)],
)
def test_odd_sizes_are_refused_where_pixels_share_their_chroma(encoding: str, width: int, height: int) -> None:
    layout = LAYOUTS[encoding]
    odd = image(np.zeros((height * layout.rows_per_2_rows // 2, width * layout.channels), np.uint8), encoding, height, width)
    with pytest.raises(MessageError, match=rf"{encoding} image of {width}x{height}.*even width and height"):
        rgb_from_any(odd)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed_pictures(suffix: str) -> None:
    picture = smooth_picture()
    data = cv2.imencode(suffix, picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    found = rgb_from_any(compressed(data))
    assert np.abs(found.astype(int) - picture).max() <= (6 if suffix == ".jpg" else 0)


def test_compressed_grey_and_sixteen_bit() -> None:
    grey = noisy_picture()[..., 0]
    data = cv2.imencode(".png", grey.astype(np.uint16) * 257)[1].tobytes()
    np.testing.assert_array_equal(rgb_from_any(compressed(data, "mono16; png compressed")), np.dstack([grey] * 3))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("keep", [0.6, 0.05])
def test_cut_off_pictures_are_refused(suffix: str, keep: float) -> None:
    data = cv2.imencode(suffix, noisy_picture())[1].tobytes()
    with pytest.raises(MessageError, match="corrupt or cut off"):
        rgb_from_any(compressed(data[: int(len(data) * keep)]))


def with_size(coded: bytes, width: int, height: int) -> bytes:
    """A JPEG or PNG whose header says another size than it has."""
    changed = bytearray(coded)
    if coded.startswith(b"\x89PNG"):
        changed[16:24] = struct.pack(">II", width, height)
        changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
    else:
        frame = coded.index(b"\xff\xc0")  # baseline: length (2), precision (1), height, width
        changed[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(changed)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("size", [(30_000, 40_000), (65_535, 65_535), (0, H)])
def test_sizes_that_no_picture_has_are_refused(suffix: str, size: tuple[int, int]) -> None:
    data = cv2.imencode(suffix, noisy_picture())[1].tobytes()
    assert rgb_from_any(compressed(with_size(data, W, H))).shape == (H, W, 3)
    with pytest.raises(MessageError, match="corrupt or cut off"):
        rgb_from_any(compressed(with_size(data, *size)))


def test_other_compressed_data_is_refused() -> None:
    with pytest.raises(MessageError, match="neither JPEG nor PNG"):
        rgb_from_any(compressed(b"RIFF....WEBP"))
    with pytest.raises(MessageError, match="depth"):
        rgb_from_any(compressed(b"\x89PNG", "16UC1; compressedDepth png"))


def test_calibration_of_a_raw_picture() -> None:
    found = calibration_from_msg(camera_info(K, W, H, d=np.array([0.1, -0.2, 0.01, 0.02, 0.3])))
    assert found is not None
    assert (found.width_px, found.height_px, found.distortion_model) == (W, H, "plumb_bob")
    assert found.D == (0.1, -0.2, 0.01, 0.02, 0.3)
    np.testing.assert_array_equal(found.K, K)


def test_calibration_of_a_rectified_picture_follows_p() -> None:
    P = np.array([[280.0, 0, 14, -28], [0, 281, 12, 0], [0, 0, 1, 0]])
    info = camera_info(K, W, H, d=np.array([0.1, 0, 0, 0, 0]), p=P.reshape(12))
    found = calibration_from_msg(info, rectified=True)
    assert found is not None
    np.testing.assert_array_equal(found.K, P[:, :3])
    assert (found.distortion_model, found.D) == ("none", ())


@pytest.mark.parametrize(
    ("name", "count", "model"),
    [("rational_polynomial", 8, "rational_polynomial"), ("equidistant", 4, "equidistant"), ("fisheye", 4, "equidistant")],
)
def test_distortion_models(name: str, count: int, model: str) -> None:
    found = calibration_from_msg(camera_info(K, W, H, distortion_model=name, d=np.full(count, 0.01)))
    assert found is not None
    assert (found.distortion_model, len(found.D)) == (model, count)


@pytest.mark.parametrize("name", ["equidistant", "fisheye"])
def test_an_ideal_fisheye_is_no_pinhole(name: str) -> None:
    found = calibration_from_msg(camera_info(K, W, H, distortion_model=name, d=np.zeros(4)))
    assert found is not None
    assert (found.distortion_model, found.D) == ("equidistant", (0.0,) * 4)
    with pytest.raises(MessageError, match=f"'{name}' with 0 coefficients"):
        calibration_from_msg(camera_info(K, W, H, distortion_model=name, d=np.zeros(0)))


def test_no_distortion_needs_no_model() -> None:
    found = calibration_from_msg(camera_info(K, W, H, distortion_model="", d=np.zeros(0)))
    assert found is not None
    assert found.distortion_model == "none"


def test_unknown_distortion_and_uncalibrated_cameras() -> None:
    with pytest.raises(MessageError, match="'thin_prism' with 4"):
        calibration_from_msg(camera_info(K, W, H, distortion_model="thin_prism", d=np.full(4, 0.1)))
    assert calibration_from_msg(camera_info(np.zeros((3, 3)), W, H)) is None


def test_binning_and_region_keep_the_rays() -> None:
    """A sensor point's pixel in the cropped, binned picture is where averaging pixels moves it to."""
    info = camera_info(K, 640, 480, binning_x=2, binning_y=4, roi=(100, 40, 400, 480))
    found = calibration_from_msg(info)
    assert found is not None
    assert (found.width_px, found.height_px) == (240, 100)
    point = np.array([0.2, 0.1, 1.0])
    u, v, _ = K @ point
    expected = (u - 100 + 0.5) / 2 - 0.5, (v - 40 + 0.5) / 4 - 0.5
    np.testing.assert_allclose((found.K @ point)[:2], expected)


def test_ros1_spells_camera_info_in_capitals() -> None:
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    now = camera_info(K, W, H)
    values = {f.name: getattr(now, f.name) for f in dataclasses.fields(now)}
    old = store.types["sensor_msgs/msg/CameraInfo"](**{n.upper() if n in "dkrp" else n: v for n, v in values.items()})
    found = calibration_from_msg(old)
    assert found is not None
    np.testing.assert_array_equal(found.K, K)


def test_stamps_are_exact_nanoseconds() -> None:
    assert stamp_ns(messages.stamp(1_700_000_000_123_456_789)) == 1_700_000_000_123_456_789


def test_poses() -> None:
    half = np.sqrt(0.5)
    msg = messages.odometry("/odom", "base", (1, 2, 3), (0, 0, half, half), ns=5)
    found = transform_from_odometry(msg)
    assert (found.stamp_ns, found.parent, found.child) == (5, "odom", "base")
    np.testing.assert_allclose(found.T_parent_child @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-12)  # x of the base is y of the world
    (same,) = transforms_from_msg(messages.tf(messages.transform("odom", "base", (1, 2, 3), (0, 0, half, half), ns=5)))
    np.testing.assert_array_equal(same.T_parent_child, found.T_parent_child)


@pytest.mark.parametrize(("t", "q"), [((np.nan, 0, 0), (0, 0, 0, 1)), ((0, 0, 0), (0, 0, 0, 0)), ((0, 0, 0), (np.nan, 0, 0, 1))])
def test_poses_that_are_none_are_refused(t: Any, q: Any) -> None:
    with pytest.raises(MessageError, match="not a rigid transform"):
        rigid_from_msg(messages.odometry("odom", "base", t, q).pose.pose)


def test_odometry_without_frames_is_refused() -> None:
    with pytest.raises(MessageError, match="does not name both"):
        transform_from_odometry(messages.odometry("odom", "", (0, 0, 0)))
