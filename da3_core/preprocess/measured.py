"""Measured depth brought to where the network's depth is, to compare both or to train on it."""

from __future__ import annotations

import numpy as np

from da3_core.preprocess.lens import lens_from_calibration
from da3_core.types import Calibration, Float32Array, Float64Array


def rectified_depth(depth_m: Float32Array, calibration: Calibration, K: Float64Array, size: tuple[int, int]) -> Float32Array:
    """z-depth (height_px, width_px) of a camera as the pinhole K at its place sees it: (h, w) of size = (w, h), NaN where unknown.

    Every pixel takes the one measurement it falls on: nothing is averaged across edges. depth_m: not finite or 0 where unknown. K (3, 3):
    the first pixel's centre at (0, 0), as a result's. Raises ValueError when depth and calibration are of different sizes.
    """
    width, height = calibration.width_px, calibration.height_px
    if depth_m.shape != (height, width):
        raise ValueError(
            f"the depth is {depth_m.shape[1]}x{depth_m.shape[0]}, the calibration for {width}x{height}: "
            "it takes depth that is registered to the camera's images"
        )
    x, y = np.meshgrid(*((np.arange(n) - K[i, 2]) / K[i, i] for i, n in enumerate(size)))
    pixels = lens_from_calibration(calibration).pixels(np.stack([x, y], -1))
    seen = ~np.isnan(pixels[..., 0])
    columns, rows = np.minimum(np.where(seen[..., None], pixels, 0).astype(int), [width - 1, height - 1]).transpose(2, 0, 1)
    found = depth_m[rows, columns]
    return np.where(seen & np.isfinite(found) & (found > 0), found, np.nan).astype(np.float32)
