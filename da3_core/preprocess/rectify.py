"""One camera's way to the network's image and back, made once per calibration.

The rectified camera is a pinhole with square pixels and its principal point at the centre (the network knows no other place for it).
Its focal length is the smallest, and so its view the widest, that leaves no pixel without a source (`coverage` "inside") or that keeps
all the lens saw along the image's axes ("all", with NaN where it saw nothing), and in no case wider than `max_fov_deg`, where
perspective only stretches. Images whose camera is such a pinhole already, and images without calibration, are only resized.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import cv2
import numpy as np

from da3_core.config import PreprocessConfig
from da3_core.preprocess.lens import Lens, lens_from_calibration
from da3_core.preprocess.resize import Resize, Size, plan_cover, plan_resize
from da3_core.types import BoolArray, Calibration, Float32Array, Float64Array, Uint8Array

CENTRED_PX = 0.5  # of the network's image: a principal point this near to the centre is left where it is


class Images(Protocol):
    """What turns the camera's image into the network's, and into the one that goes with depth at the input's size."""

    def network_image(self, image: Uint8Array) -> Uint8Array: ...
    def output_image(self, image: Uint8Array) -> Uint8Array: ...


@dataclass(frozen=True)
class Rectifier:
    """Images of (height_px, width_px) in; network images, and depth at the network's or the input's size, out."""

    plan: Resize
    images: Images
    K: Float64Array | None  # (3, 3) of the network's image, None without calibration
    at_input_size: bool
    valid: BoolArray | None = None  # where the output has a source, None: everywhere

    def network_image(self, image: Uint8Array) -> Uint8Array:
        """(h, w, 3). Raises ValueError as `check` does."""
        self.check(image)
        return self.images.network_image(image)

    def check(self, image: Uint8Array) -> None:
        """Raises ValueError when the image is not uint8, or not of the size that this was made for."""
        if image.shape != (self.plan.input[1], self.plan.input[0], 3):
            raise ValueError(f"an image of shape {image.shape} came where {self.plan.input[1]}x{self.plan.input[0]}x3 was expected")
        if image.dtype != np.uint8:
            raise ValueError(
                f"an image of {image.dtype} came where uint8 from 0 to 255 was expected: convert it, from floats up to 1 by "
                "(255 * image).round().astype(np.uint8), from 16 bits by (image >> 8).astype(np.uint8)"
            )

    def output_image(self, image: Uint8Array, network_image: Uint8Array) -> Uint8Array:
        """The rectified image that depth is aligned with, from the camera's and the network's."""
        return self.images.output_image(image) if self.at_input_size else network_image

    def output_K(self, network_K: Float64Array) -> Float64Array:
        """K of the output from K of the network's image."""
        (w, h), (network_w, network_h) = self._output, self.plan.network
        return np.diag([w / network_w, h / network_h, 1.0]) @ network_K

    def output_depth(self, depth: Float32Array) -> Float32Array:
        """Depth (h, w) at the output's size, NaN where rectification has no source. Never averaged across an edge."""
        return _masked(_enlarged(depth, self._output), self.valid)

    def output_confidence(self, confidence: Float32Array) -> Float32Array:
        return _resized(confidence, self._output, cv2.INTER_LINEAR)

    @property
    def _output(self) -> Size:
        return self.plan.output if self.at_input_size else self.plan.network


def make_rectifier(
    width_px: int, height_px: int, calibration: Calibration | None, config: PreprocessConfig, network: Size | None = None
) -> Rectifier:
    """For images of one size and calibration. network: (width, height) to fill when another camera of the rig has set it.

    Raises ValueError when the calibration is for another size or is none.
    """
    plan = plan_resize(width_px, height_px, config.size, config.resize)
    if network is not None and network != plan.network:
        plan = plan_cover(width_px, height_px, network)
    at_input_size = config.output_size == "input"
    if calibration is None:
        return Rectifier(plan, plan, None, at_input_size)
    if (calibration.width_px, calibration.height_px) != (width_px, height_px):
        calibrated = f"{calibration.width_px}x{calibration.height_px}"
        raise ValueError(f"the image is {width_px}x{height_px} but its calibration is for {calibrated}: give the one that belongs to it")
    lens = lens_from_calibration(calibration)
    K = plan.network_K(lens.K)
    if not any(calibration.D) and calibration.distortion_model != "equidistant" and _is_centred(K, plan.network):
        return Rectifier(plan, plan, K, at_input_size)
    return _remapping_rectifier(lens, plan, config, at_input_size)


def _remapping_rectifier(lens: Lens, plan: Resize, config: PreprocessConfig, at_input_size: bool) -> Rectifier:
    K = _centred_K(focal_px(lens, plan, config), plan)
    images = Remapped(lens, K, plan)
    return Rectifier(plan, images, K, at_input_size, (images.to_output if at_input_size else images.to_network).valid)


def _is_centred(K: Float64Array, size: Size) -> bool:
    return bool(abs(K[0, 2] - size[0] / 2) <= CENTRED_PX and abs(K[1, 2] - size[1] / 2) <= CENTRED_PX and K[0, 1] == 0)


def _centred_K(focal: float, plan: Resize) -> Float64Array:
    """K of the network's image for a pinhole with square pixels of `focal` at the input's size."""
    (sx, sy), (w, h) = plan.per_axis, plan.network
    return np.array([[focal * sx, 0, w / 2], [0, focal * sy, h / 2], [0, 0, 1]])


def focal_px(lens: Lens, plan: Resize, config: PreprocessConfig) -> float:
    """Focal length of the rectified pinhole, in pixels of the input's size: see the module's text."""
    widest = max(plan.output) / 2 / math.tan(math.radians(config.max_fov_deg) / 2)
    if config.coverage == "all":
        return max(widest, _focal_for_all(lens, plan))
    outline = _outline(plan.network)

    def sees_all(focal: float) -> bool:
        return not bool(np.isnan(lens.pixels(_rays(outline, _centred_K(focal, plan)))).any())

    too_wide, focal = widest, widest
    while not sees_all(focal):
        too_wide, focal = focal, 2 * focal
        if focal > 1e3 * max(plan.input):
            raise ValueError(f"the principal point of K = {lens.K.tolist()} is not inside the {lens.width_px}x{lens.height_px} image")
    for _ in range(40 if focal > widest else 0):
        middle = (too_wide + focal) / 2
        too_wide, focal = (too_wide, middle) if sees_all(middle) else (middle, focal)
    return focal


def _focal_for_all(lens: Lens, plan: Resize) -> float:
    """The focal length at which what the lens sees along the image's axes, right, left, down and up, just fits."""
    reach = np.tan(np.linspace(0, np.deg2rad(89), 2000))
    directions = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    seen = ~np.isnan(lens.pixels(directions[:, None] * reach[:, None])[..., 0])  # (4, reach)
    furthest = np.where(seen, reach, 0).max(-1)
    half_w, half_h = plan.output[0] / 2, plan.output[1] / 2
    return float(min(half_w / furthest[:2].max(), half_h / furthest[2:].max()))


def _outline(size: Size) -> Float64Array:
    """(P, 2) points along the image's edges."""
    x, y = np.arange(size[0] + 1.0), np.arange(size[1] + 1.0)
    rows = [np.stack([x, np.full_like(x, edge)], -1) for edge in (y[0], y[-1])]
    columns = [np.stack([np.full_like(y, edge), y], -1) for edge in (x[0], x[-1])]
    return np.concatenate(rows + columns)


def _rays(pixels: Float64Array, K: Float64Array) -> Float64Array:
    """(..., 2) on the plane z = 1."""
    return np.asarray((pixels - K[:2, 2]) / K[[0, 1], [0, 1]], np.float64)


class Remapped:
    """Rectification and resizing in one look-up, with one source pixel or at most two per target pixel.

    Larger reductions are first shrunk by the whole factor with the area filter, so that nothing aliases and little is read.
    """

    def __init__(self, lens: Lens, K: Float64Array, plan: Resize) -> None:
        self._lens, self._K, self._plan = lens, K, plan
        self.to_network = RemapTable.of(lens, K, plan.network)

    @cached_property
    def to_output(self) -> RemapTable:
        (w, h), (network_w, network_h) = self._plan.output, self._plan.network
        return RemapTable.of(self._lens, np.diag([w / network_w, h / network_h, 1.0]) @ self._K, (w, h))

    def network_image(self, image: Uint8Array) -> Uint8Array:
        return self.to_network.remap(image)

    def output_image(self, image: Uint8Array) -> Uint8Array:
        return self.to_output.remap(image)


@dataclass(frozen=True)
class RemapTable:
    """OpenCV's fixed-point maps from a target image to the (shrunk) source."""

    shrunk: Size
    xy: np.ndarray[tuple[int, ...], np.dtype[np.int16]]  # (h, w, 2)
    fraction: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]  # (h, w)
    valid: BoolArray | None  # (h, w), None: everywhere

    @classmethod
    def of(cls, lens: Lens, K: Float64Array, size: Size) -> RemapTable:
        """The table for a target pinhole K, (width, height) = size."""
        shrink = max(1, int(min(lens.K[0, 0] / K[0, 0], lens.K[1, 1] / K[1, 1])))
        shrunk = -(-lens.width_px // shrink), -(-lens.height_px // shrink)
        x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
        source = lens.pixels(_rays(np.stack([x, y], -1), K))
        valid = ~np.isnan(source[..., 0])
        source *= [shrunk[0] / lens.width_px, shrunk[1] / lens.height_px]
        indices = np.where(valid[..., None], source - 0.5, -2).astype(np.float32)  # OpenCV counts from the first pixel's centre
        xy, fraction = cv2.convertMaps(indices[..., 0], indices[..., 1], cv2.CV_16SC2)
        return cls(shrunk, np.asarray(xy, np.int16), np.asarray(fraction, np.uint16), None if valid.all() else valid)

    def remap(self, image: Uint8Array) -> Uint8Array:
        """(h, w, 3), black where there is no source."""
        if image.shape[:2] != (self.shrunk[1], self.shrunk[0]):
            image = np.asarray(cv2.resize(image, self.shrunk, interpolation=cv2.INTER_AREA), np.uint8)
        rectified = cv2.remap(image, self.xy, self.fraction, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if self.valid is not None:
            rectified[~self.valid] = 0
        return np.asarray(rectified, np.uint8)


def _masked(depth: Float32Array, valid: BoolArray | None) -> Float32Array:
    return depth if valid is None else np.where(valid, depth, np.float32(np.nan))


def _enlarged(depth: Float32Array, size: Size) -> Float32Array:
    """Bilinear where that stays within a tenth of the nearest pixel, else the nearest: at an edge, and beside NaN."""
    if depth.shape == (size[1], size[0]):
        return depth
    nearest = _resized(depth, size, cv2.INTER_NEAREST_EXACT)
    smooth = _resized(depth, size, cv2.INTER_LINEAR)
    return np.where(np.abs(smooth - nearest) <= 0.1 * nearest, smooth, nearest)


def _resized(image: Float32Array, size: Size, interpolation: int) -> Float32Array:
    if image.shape == (size[1], size[0]):
        return image
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.float32)
