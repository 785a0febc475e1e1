"""Measured depth is found where the rectified camera looks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from da3_core.preprocess import DepthRectifier
from da3_core.types import Calibration, Float32Array

RAW_K = np.array([[150.0, 0, 83.0], [0, 152.0, 55.0], [0, 0, 1]])
BENT = Calibration(160, 120, RAW_K, "plumb_bob", (-0.2, 0.05, 0.002, -0.001, 0.0))
SIZE = (112, 84)
K = np.array([[120.0, 0, 55.5], [0, 120.0, 41.5], [0, 0, 1]])


def slanted(x: Float32Array, y: Float32Array) -> Float32Array:
    """A depth that tells where on the plane z = 1 a ray goes."""
    return (3 + x + 2 * y).astype(np.float32)


def recorded() -> Float32Array:
    """The slanted depth as the lens sees it."""
    u, v = np.meshgrid(np.arange(160.0), np.arange(120.0))
    ideal = cv2.undistortPointsIter(
        np.stack([u, v], -1).reshape(-1, 1, 2),
        RAW_K,
        np.array(BENT.D),
        None,
        None,
        (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-9),
    )
    x, y = ideal.reshape(120, 160, 2).transpose(2, 0, 1)
    return slanted(x, y)


def expected() -> Float32Array:
    u, v = np.meshgrid(np.arange(112.0), np.arange(84.0))
    return slanted((u - 55.5) / 120, (v - 41.5) / 120)


def test_every_ray_finds_its_depth() -> None:
    found = DepthRectifier(BENT)(recorded(), K, SIZE)
    known = np.isfinite(found)
    assert found.dtype == np.float32 and known.mean() > 0.8
    half_a_pixel = 0.5 * (1 + 2) / 120 * 1.1
    assert np.abs(found - expected())[known].max() < half_a_pixel


def test_what_was_not_measured_stays_unknown_and_nothing_is_averaged() -> None:
    depth = recorded()
    depth[:, 80:] = 0
    depth[60, :] = np.nan
    depth[61, :] = np.inf
    found = DepthRectifier(BENT)(depth, K, SIZE)
    assert np.isnan(found[:, 70:]).all() and np.isfinite(found[:35, 20:40]).all()
    assert np.isnan(found[35:55, 20:40]).any(0).all()
    assert set(np.unique(found[np.isfinite(found)])) <= set(np.unique(depth))


def test_rays_outside_of_the_image_have_none() -> None:
    wide = np.array([[40.0, 0, 55.5], [0, 40.0, 41.5], [0, 0, 1]])
    found = DepthRectifier(BENT)(recorded(), wide, SIZE)
    assert np.isnan(found[0]).all() and np.isnan(found[:, 0]).all() and np.isfinite(found[42, 56])


def test_depth_of_another_camera_is_refused() -> None:
    with pytest.raises(ValueError, match="depth is 80x60, the camera's images are 160x120"):
        DepthRectifier(BENT)(np.ones((60, 80), np.float32), K, SIZE)


def test_another_view_is_another_lookup() -> None:
    rectified, wide = DepthRectifier(BENT), np.array([[40.0, 0, 55.5], [0, 40.0, 41.5], [0, 0, 1]])
    for view, size in ((K, SIZE), (wide, SIZE), (wide, (56, 42)), (K, SIZE)):
        np.testing.assert_array_equal(rectified(recorded(), view, size), DepthRectifier(BENT)(recorded(), view, size))
