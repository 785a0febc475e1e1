"""Metres from parallax: how far points move between two views against how far away they are predicted to be.

A point at pixel p with predicted depth d is at s d metres, s being the scale. Given how the camera moved, T_before_now, it must be seen in
the earlier view at project(R K^-1 p + t / (s d)). The scale that puts the tracked points where the images show them owes nothing to the
cameras that the network predicts. A small rotation is found along with it, as far as the given one may be off, for it moves points, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from da3_core.streaming.tracks import Tracks
from da3_core.types import Float32Array, Float64Array

PIXEL_SIGMA = 0.5  # of a track
ROTATION_SIGMA = math.radians(0.3)  # of a given relative rotation
LOG_SCALES = np.linspace(-4, 5, 46)  # where the search starts
STEPS = 6
MAX_RESIDUAL_PX, MAX_ROTATION, MAX_LOG_VARIANCE = 1.0, 3 * ROTATION_SIGMA, 0.2**2


@dataclass(frozen=True)
class Parallax:
    """What the images say of a given motion and a predicted depth."""

    log_scale: float  # of metres per unit of depth
    log_variance: float
    residual_px: float  # median: how well they fit together
    rotation_rad: float  # by which the given rotation had to be corrected

    @property
    def is_good(self) -> bool:
        """Whether there is parallax, and motion and depth explain it."""
        is_explained = self.residual_px < MAX_RESIDUAL_PX and self.rotation_rad < MAX_ROTATION
        return is_explained and self.log_variance < MAX_LOG_VARIANCE


def fit_parallax(tracks: Tracks, depth: Float32Array, K: Float64Array, T_before_now: Float64Array) -> Parallax:
    """Scale of the depth (H, W) of the view `now`, K (3, 3) being that of both images, by robust Gauss-Newton on the tracks.

    Where there is no parallax, the variance comes out as large as the search is wide.
    """
    motion = _Motion.of(tracks, depth, K, T_before_now)
    start = np.array([motion.likeliest(LOG_SCALES, tracks.before), 0.0, 0.0, 0.0])  # log scale, rotation vector
    prior = np.array([1 / (LOG_SCALES[-1] - LOG_SCALES[0]) ** 2, *(1 / ROTATION_SIGMA**2,) * 3])
    x = start
    for _ in range(STEPS):
        points = motion.points(x)
        residual = motion.project(points) - tracks.before
        J, weights = motion.jacobian(x, points), _weights(residual)
        H = np.einsum("pik,pil,p->kl", J, J, weights) + np.diag(prior)
        x = x - np.linalg.solve(H, np.einsum("pik,pi,p->k", J, residual, weights) + prior * (x - start))
    off_px = float(np.median(np.linalg.norm(residual, axis=1)))
    return Parallax(float(x[0]), float(np.linalg.inv(H)[0, 0]), off_px, float(np.linalg.norm(x[1:])))


@dataclass(frozen=True)
class _Motion:
    """Points of the view `now` in the frame of the view before, as functions of x = (log scale, rotation vector)."""

    rotated: Float64Array  # (P, 3) rays
    t_over_depth: Float64Array  # (P, 3)
    focal: Float64Array  # (2,)
    centre: Float64Array  # (2,)

    @classmethod
    def of(cls, tracks: Tracks, depth: Float32Array, K: Float64Array, T_before_now: Float64Array) -> _Motion:
        focal, centre = K[[0, 1], [0, 1]], K[:2, 2]
        rays = np.concatenate([(tracks.now - centre) / focal, np.ones((len(tracks.now), 1))], 1)
        column, row = tracks.now.astype(int).T
        inverse_depth = 1 / depth[row, column].astype(np.float64)
        return cls(rays @ T_before_now[:3, :3].T, T_before_now[:3, 3] * inverse_depth[:, None], focal, centre)

    def points(self, x: Float64Array) -> Float64Array:
        """(P, 3), up to their scale."""
        points = self.rotated + self.t_over_depth * math.exp(-x[0])
        return np.asarray(points + np.cross(x[1:], points), np.float64)

    def project(self, points: Float64Array) -> Float64Array:
        """Pixels (..., 2) of points (..., 3)."""
        return np.asarray(points[..., :2] / points[..., 2:] * self.focal + self.centre, np.float64)

    def jacobian(self, x: Float64Array, points: Float64Array) -> Float64Array:
        """(P, 2, 4) of the pixels by x."""
        by_x = np.stack([-self.t_over_depth * math.exp(-x[0]), *(np.cross(axis, points) for axis in np.eye(3))], -1)  # (P, 3, 4)
        sideways = by_x[:, :2] - points[:, :2, None] / points[:, 2:, None] * by_x[:, 2:]
        return np.asarray(sideways / points[:, 2:, None] * self.focal[:, None], np.float64)

    def likeliest(self, log_scales: Float64Array, seen: Float64Array) -> float:
        """The one of these scales that leaves the tracks, seen at (P, 2), least off without any rotation."""
        points = self.rotated + self.t_over_depth * np.exp(-log_scales)[:, None, None]  # (scales, P, 3)
        squared = ((self.project(points) - seen) ** 2).sum(-1)
        return float(log_scales[np.log1p(squared / (2 * PIXEL_SIGMA) ** 2).sum(-1).argmin()])


def _weights(residual: Float64Array) -> Float64Array:
    """(P,) of Cauchy's loss, in inverse square pixels."""
    return np.asarray(1 / (PIXEL_SIGMA**2 + (residual**2).sum(1) / 4), np.float64)
