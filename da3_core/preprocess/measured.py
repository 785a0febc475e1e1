"""Measured depth brought to where the network's depth is, to compare both or to train on it."""

from __future__ import annotations

import numpy as np

from da3_core.preprocess.lens import lens_from_calibration
from da3_core.preprocess.resize import Size
from da3_core.types import Calibration, Float32Array, Float64Array


class DepthRectifier:
    """z-depth images of a camera as the pinhole K at its place sees them. Every pixel takes the one measurement that it falls on."""

    def __init__(self, calibration: Calibration, K: Float64Array, size: Size) -> None:
        """K (3, 3): the first pixel's centre at (0, 0), as a result's. size: (width, height). Raises ValueError as lenses do."""
        self.shape = calibration.height_px, calibration.width_px
        x, y = np.meshgrid(*((np.arange(n) - K[i, 2]) / K[i, i] for i, n in enumerate(size)))
        pixels = lens_from_calibration(calibration).pixels(np.stack([x, y], -1))
        self._seen = ~np.isnan(pixels[..., 0])
        columns, rows = np.where(self._seen[..., None], pixels, 0).astype(int).transpose(2, 0, 1)
        self._rows, self._columns = np.minimum(rows, self.shape[0] - 1), np.minimum(columns, self.shape[1] - 1)

    def __call__(self, depth_m: Float32Array) -> Float32Array:
        """(h, w), NaN where unknown, from (height_px, width_px), not finite or 0 where unknown. Raises ValueError on another size."""
        if depth_m.shape != self.shape:
            sizes = [f"{width}x{height}" for height, width in (depth_m.shape, self.shape)]
            raise ValueError(f"the depth is {sizes[0]}, the camera's images are {sizes[1]}: it takes depth that is registered to these")
        found = depth_m[self._rows, self._columns]
        return np.where(self._seen & np.isfinite(found) & (found > 0), found, np.nan).astype(np.float32)
