"""Rays of cameras with real lenses, through OpenCV's own inverse of the distortion."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from da3_core.types import DistortionModel, Float64Array

ITERATIONS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)


def lens_directions(K: Float64Array, model: DistortionModel, D: tuple[float, ...], size: tuple[int, int]) -> Tensor:
    """(3, H, W) float32 camera-frame rays with z = 1 through the centres of a distorted image's pixels.

    K (3, 3) in pixels of an image that spans [0, W] x [0, H]; D as in sensor_msgs/CameraInfo; size (H, W).
    Raises ValueError for a model that OpenCV cannot invert.
    """
    h, w = size
    v, u = np.meshgrid(np.arange(h) + 0.5, np.arange(w) + 0.5, indexing="ij")
    pixels = np.stack((u, v), -1).reshape(-1, 1, 2)
    xy = _undistorted(pixels, K, model, np.asarray(D, np.float64)).reshape(h, w, 2)
    return torch.from_numpy(np.concatenate((xy, np.ones((h, w, 1))), -1)).float().permute(2, 0, 1)


def _undistorted(pixels: Float64Array, K: Float64Array, model: DistortionModel, D: Float64Array) -> Float64Array:
    if model == "equidistant":
        return np.asarray(cv2.fisheye.undistortPoints(pixels, K, D, criteria=ITERATIONS), np.float64)
    if model in ("none", "plumb_bob", "rational_polynomial"):
        return np.asarray(cv2.undistortPointsIter(pixels, K, D, np.eye(3), np.eye(3), ITERATIONS), np.float64)
    raise ValueError(f"distortion model {model!r} is unknown: use none, plumb_bob, rational_polynomial or equidistant")
