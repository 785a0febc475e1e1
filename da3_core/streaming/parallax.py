"""Metres from parallax: how far points move between two views against how far away they are predicted to be.

A point at pixel p with predicted depth d is at s d metres, s being the scale. Given how the camera moved, T_before_now, it must be seen in
the earlier view at project(R K^-1 p + t / (s d)). The scale that puts the tracked points where the images show them owes nothing to the
cameras that the network predicts. A small rotation is found along with it, as far as the given one may be off, for it moves points, too.

Predicted depth is wrong in shape as well as in scale: every point may be off by a share of its own, which is eliminated from the
equations (a Schur complement); else the few near points, which move most, would outvote all others. And some points are nowhere near
where they are predicted, but far beyond, as what is seen through windows and in mirrors is: those that do not move tell nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from da3_core.streaming.predicted import PredictedWindow
from da3_core.streaming.tracks import Tracks, track
from da3_core.types import BoolArray, Float32Array, Float64Array

PIXEL_SIGMA = 0.5  # of a track
DEPTH_SIGMA = 0.2  # of the logarithm of a point's predicted depth, against that of all
ROTATION_SIGMA = math.radians(0.3)  # of a given relative rotation
FAR_SHARE = 0.2  # of the points
LOG_SCALES = np.linspace(-4, 5, 46)  # where the search starts
STEPS = 3
TURNS = np.array([[[0, 0, 0], [0, 0, 1], [0, -1, 0]], [[0, 0, -1], [0, 0, 0], [1, 0, 0]], [[0, 1, 0], [-1, 0, 0], [0, 0, 0]]], np.float64)
NEAREST = 0.01  # share of its depth in one view that a point has at least in the other
MIN_SUPPORT, MAX_ROTATION, MAX_LOG_VARIANCE = 0.33, 3 * ROTATION_SIGMA, 0.15**2


@dataclass(frozen=True)
class Parallax:
    """What the images say of a given motion and a predicted depth."""

    log_scale: float  # of metres per unit of depth
    log_variance: float
    support: float  # mean weight of the tracks: which share of them motion and depth explain
    tracks: int  # how many
    rotation_rad: float  # by which the given rotation had to be corrected

    @property
    def is_explained(self) -> bool:
        """Whether the images may come of this motion."""
        return self.support > MIN_SUPPORT and self.rotation_rad < MAX_ROTATION

    @property
    def is_good(self) -> bool:
        """Whether there is parallax, too, enough to tell the scale."""
        return self.is_explained and self.log_variance < MAX_LOG_VARIANCE


def fit_parallax(tracks: Tracks, depth: Float32Array, K: Float64Array, T_before_now: Float64Array) -> Parallax:
    """Scale of the depth (H, W) of the view `now`, K (3, 3) being that of both images, by robust Gauss-Newton on the tracks.

    Where there is no parallax, the variance comes out as large as the search is wide.
    """
    motion = _Motion.of(tracks, depth, K, T_before_now)
    start = np.array([motion.likeliest(LOG_SCALES), 0.0, 0.0, 0.0])  # log scale, rotation vector
    prior = np.array([1 / (LOG_SCALES[-1] - LOG_SCALES[0]) ** 2, *(1 / ROTATION_SIGMA**2,) * 3])
    x = start
    for _ in range(STEPS):
        missed, J = motion.missed_and_jacobian(x)
        weights = motion.weights(missed, J[:, 0])
        A, b = J @ J.swapaxes(1, 2), (J @ missed[..., None])[..., 0]  # (P, 4, 4), (P, 4)
        own = weights * _own_variance(A[:, 0, 0])
        H = np.tensordot(weights, A, 1) - (A[:, 0].T * own) @ A[:, 0] + np.diag(prior)
        x = x - np.linalg.solve(H, weights @ b - (own * b[:, 0]) @ A[:, 0] + prior * (x - start))
    return Parallax(float(x[0]), float(np.linalg.inv(H)[0, 0]), float(weights.mean()), len(weights), float(np.linalg.norm(x[1:])))


def window_parallax(window: PredictedWindow, before: int, T_before_now: Tensor) -> Parallax | None:
    """Of the first newest view against the view `before`, given how the camera moved (4, 4); None where too little can be tracked."""
    now = window.wanted[0]
    K, T = window.K(now).numpy(), T_before_now.numpy()
    tracks = track(window.views[now], window.views[before], K, T)
    return None if tracks is None else fit_parallax(tracks, window.depth(now).numpy(), K, T)


@dataclass(frozen=True)
class _Motion:
    """Points of the view `now` in the frame of the view before, as functions of x = (log scale, rotation vector).

    What is in the image is counted in PIXEL_SIGMA.
    """

    rotated: Float64Array  # (P, 3) rays
    t_over_depth: Float64Array  # (P, 3)
    has_depth: BoolArray  # (P,)
    seen: Float64Array  # (P, 2) from the centre
    focal: Float64Array  # (2,)

    @classmethod
    def of(cls, tracks: Tracks, depth: Float32Array, K: Float64Array, T_before_now: Float64Array) -> _Motion:
        focal, centre = K[[0, 1], [0, 1]], K[:2, 2]
        rays = np.concatenate([(tracks.now - centre) / focal, np.ones((len(tracks.now), 1))], 1)
        column, row = tracks.now.astype(int).T
        z = depth[row, column].astype(np.float64)
        has_depth = np.isfinite(z) & (z > 0)
        t_over_depth = T_before_now[:3, 3] / np.where(has_depth, z, 1.0)[:, None]
        seen = (tracks.before - centre) / PIXEL_SIGMA
        return cls(rays @ T_before_now[:3, :3].T, t_over_depth, has_depth, seen, focal / PIXEL_SIGMA)

    def missed_and_jacobian(self, x: Float64Array) -> tuple[Float64Array, Float64Array]:
        """(P, 2), and (P, 4, 2) by x."""
        parallax = self.t_over_depth * math.exp(-x[0])
        points = self.rotated + parallax
        points = points + points @ np.tensordot(x[1:], TURNS, 1)
        by_x = np.stack([-parallax, *(points @ TURNS)], 1)  # (P, 4, 3)
        return self.missed(points), self.moved(points[:, None], by_x)

    def missed(self, points: Float64Array) -> Float64Array:
        """(..., 2) from where they are seen to where the points (..., 3) are."""
        return np.asarray(points[..., :2] / points[..., 2:].clip(min=NEAREST) * self.focal - self.seen, np.float64)

    def moved(self, points: Float64Array, by: Float64Array) -> Float64Array:
        """(..., 2) in the image when the points (..., 3) move by a little (..., 3)."""
        z = points[..., 2:].clip(min=NEAREST)
        return np.asarray((by[..., :2] - points[..., :2] / z * by[..., 2:]) / z * self.focal, np.float64)

    def likeliest(self, log_scales: Float64Array) -> float:
        """The one of these scales at which the tracks are likeliest, given the rotation as it is."""
        parallax = self.t_over_depth * np.exp(-log_scales)[:, None, None]  # (scales, P, 3)
        points = self.rotated + parallax
        _, near = self._near(self.missed(points), self.moved(points, parallax))
        return float(log_scales[np.log(near + self.far).sum(-1).argmax()])

    def weights(self, missed: Float64Array, j: Float64Array) -> Float64Array:
        """(P,) of points that are where they are predicted: Student's for two degrees of freedom."""
        squared, near = self._near(missed, j)
        return np.asarray(near / (near + self.far) / (1 + squared / 2), np.float64)

    def _near(self, missed: Float64Array, j: Float64Array) -> tuple[Float64Array, Float64Array]:
        """(..., P) squared distances, and the likelihood of points that are about where they are predicted."""
        squared, likelihood = _misfit(missed, j)
        return squared, (1 - FAR_SHARE) * self.has_depth * likelihood

    @cached_property
    def far(self) -> Float64Array:
        """(P,) likelihood of points that are so far away that they do not move."""
        missed = self.missed(self.rotated)
        return FAR_SHARE * _misfit(missed, np.zeros_like(missed))[1]


def _own_variance(j_squared: Float64Array) -> Float64Array:
    """Of the logarithm of a point's own error of depth, once its track is known, which that moves by j."""
    return np.asarray(1 / (1 / DEPTH_SIGMA**2 + j_squared), np.float64)


def _misfit(missed: Float64Array, j: Float64Array) -> tuple[Float64Array, Float64Array]:
    """(...) squared distances, but for what a point's own error of depth explains, which moves it by j (..., 2); and the likelihood."""
    own = _own_variance((j**2).sum(-1))
    squared = (missed**2).sum(-1) - own * (j * missed).sum(-1) ** 2
    return squared, np.sqrt(own) / DEPTH_SIGMA / (1 + squared / 2) ** 2
