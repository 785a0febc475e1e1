"""Measured depth brought to where the network's depth is, to compare both or to train on it."""

from __future__ import annotations

import numpy as np

from da3_core.preprocess.lens import lens_from_calibration
from da3_core.preprocess.on_device import Indices
from da3_core.preprocess.resize import Size
from da3_core.types import BoolArray, Calibration, Float32Array, Float64Array

View = tuple[bytes, Size]  # K's and the image's size
Lookup = tuple[Indices, Indices, BoolArray]  # rows, columns, and where the camera sees anything


class DepthRectifier:
    """z-depth images of a camera as a pinhole at its place sees them. Every pixel takes the one measurement that it falls on."""

    def __init__(self, calibration: Calibration) -> None:
        """Raises ValueError on a calibration that is none."""
        self._shape = calibration.height_px, calibration.width_px
        self._lens = lens_from_calibration(calibration)
        self._last: tuple[View, Lookup] | None = None

    def __call__(self, depth_m: Float32Array, K: Float64Array, size: Size) -> Float32Array:
        """(h, w), NaN where unknown, from (height_px, width_px), not finite or 0 where unknown. Raises ValueError on another size.

        K (3, 3): of the pinhole, the first pixel's centre at (0, 0), as a result's. size: its image's, (width, height).
        """
        if depth_m.shape != self._shape:
            sizes = [f"{width}x{height}" for height, width in (depth_m.shape, self._shape)]
            raise ValueError(f"the depth is {sizes[0]}, the camera's images are {sizes[1]}: it takes depth that is registered to these")
        rows, columns, seen = self._lookup(K, size)
        found = depth_m[rows, columns]
        return np.where(seen & np.isfinite(found) & (found > 0), found, np.nan).astype(np.float32)

    def _lookup(self, K: Float64Array, size: Size) -> Lookup:
        """Of the last view, as long as that stays."""
        view = K.tobytes(), size
        if self._last is None or self._last[0] != view:
            self._last = view, self._make_lookup(K, size)
        return self._last[1]

    def _make_lookup(self, K: Float64Array, size: Size) -> Lookup:
        x, y = np.meshgrid(*((np.arange(n) - K[i, 2]) / K[i, i] for i, n in enumerate(size)))
        pixels = self._lens.pixels(np.stack([x, y], -1))
        seen = ~np.isnan(pixels[..., 0])
        columns, rows = np.where(seen[..., None], pixels, 0).astype(np.int64).transpose(2, 0, 1)
        return np.minimum(rows, self._shape[0] - 1), np.minimum(columns, self._shape[1] - 1), seen
