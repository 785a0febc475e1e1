"""Lens models: where a ray of the ideal pinhole lands in the image of a real camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from da3_core.types import Calibration, DistortionModel, Float64Array

COEFFICIENTS: dict[DistortionModel, int] = {"none": 0, "plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}
MAX_ANGLE_RAD = np.deg2rad(89.5)  # from the optical axis: no pinhole sees further
RADIAL_SAMPLES = 4000


@dataclass(frozen=True)
class Lens:
    """A calibrated camera, its pixels counted from the image's corner (centres at +0.5)."""

    width_px: int
    height_px: int
    K: Float64Array  # (3, 3)
    distort: Callable[[Float64Array], Float64Array]  # (..., 2) on the plane z = 1, ideal to distorted
    max_radius: float  # on that plane: beyond, the model folds back and must not be asked

    def pixels(self, points: Float64Array) -> Float64Array:
        """(..., 2) pixels of points (..., 2) on the plane z = 1, NaN where the lens sees nothing."""
        distorted = self.distort(points)
        x = self.K[0, 0] * distorted[..., 0] + self.K[0, 1] * distorted[..., 1] + self.K[0, 2]
        y = self.K[1, 1] * distorted[..., 1] + self.K[1, 2]
        seen = (x >= 0) & (y >= 0) & (x <= self.width_px) & (y <= self.height_px)
        seen &= np.hypot(points[..., 0], points[..., 1]) < self.max_radius
        return np.where(seen[..., None], np.stack([x, y], -1), np.nan)


def lens_from_calibration(calibration: Calibration) -> Lens:
    """Raises ValueError on a calibration that is none: no focal length, too few or too many coefficients, values that are not finite."""
    K = np.asarray(calibration.K, np.float64) + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    D = _coefficients(calibration)
    if not (np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0):
        raise ValueError(f"K = {calibration.K.tolist()} has no focal length: calibrate the camera, or leave its calibration out")
    if calibration.distortion_model == "equidistant":
        distort, radial = _equidistant(D), _equidistant(D)
    else:
        distort, radial = _polynomial(D), _polynomial(D * (np.arange(8) != 2) * (np.arange(8) != 3))
    return Lens(calibration.width_px, calibration.height_px, K, distort, _fold_radius(radial))


def _coefficients(calibration: Calibration) -> Float64Array:
    """All 8 (4 for equidistant) coefficients; those not given are zero."""
    model, D = calibration.distortion_model, np.asarray(calibration.D, np.float64)
    if model not in COEFFICIENTS:
        raise ValueError(f"distortion model {model!r} is none of {', '.join(COEFFICIENTS)}: rectify these images before")
    if not np.isfinite(D).all() or D[COEFFICIENTS[model] :].any():
        raise ValueError(f"{model} takes {COEFFICIENTS[model]} finite coefficients, not {D.tolist()}: rectify these images before")
    size = 4 if model == "equidistant" else 8
    return np.pad(D[:size], (0, max(0, size - len(D))))


def _polynomial(D: Float64Array) -> Callable[[Float64Array], Float64Array]:
    """OpenCV's radial (plumb_bob, rational) and tangential distortion; D = k1 k2 p1 p2 k3 k4 k5 k6."""
    k1, k2, p1, p2, k3, k4, k5, k6 = D.tolist()

    def distort(points: Float64Array) -> Float64Array:
        x, y = points[..., 0], points[..., 1]
        r2 = x * x + y * y
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        dy = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        return np.stack([x * radial + dx, y * radial + dy], -1)

    return distort


def _equidistant(D: Float64Array) -> Callable[[Float64Array], Float64Array]:
    """Kannala-Brandt fisheye: the distorted radius is a polynomial of the angle."""
    k1, k2, k3, k4 = D.tolist()

    def distort(points: Float64Array) -> Float64Array:
        radius = np.maximum(np.hypot(points[..., 0], points[..., 1]), 1e-12)
        angle = np.arctan(radius)
        a2 = angle * angle
        distorted = angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
        return np.asarray(points * (distorted / radius)[..., None], np.float64)

    return distort


def _fold_radius(radial: Callable[[Float64Array], Float64Array]) -> float:
    """The radius up to which a larger angle lands further out: fitted polynomials turn round beyond the angles they were fitted to."""
    radius = np.tan(np.linspace(0, MAX_ANGLE_RAD, RADIAL_SAMPLES))
    distorted = radial(np.stack([radius, np.zeros_like(radius)], -1))[:, 0]
    folds = np.flatnonzero(~(np.diff(distorted) > 0))
    return float(radius[folds[0]] if folds.size else radius[-1])
