"""Whether given poses agree with what the images say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from da3_core.config import ModeConfig, ScaleConfig
from da3_core.geometry.rigid import invert_rigid, matrix_product, rotation_angle
from da3_core.streaming.parallax import window_parallax
from da3_core.streaming.predicted import PredictedWindow
from da3_core.types import View

FAILURES_TO_DISTRUST = 2
PASSES_TO_TRUST = 3


@dataclass(frozen=True)
class Disagreement:
    """Medians over the pairs of a window's views; direction is None when no pair was given a motion to speak of."""

    rotation_deg: float
    direction_deg: float | None

    def __str__(self) -> str:
        direction = "" if self.direction_deg is None else f", direction by {self.direction_deg:.1f} deg"
        return f"rotation by {self.rotation_deg:.1f} deg{direction}"


def disagreement(T_world_cam: Tensor, T_cam_window: Tensor, pairs: Tensor, min_baseline_m: float) -> Disagreement:
    """Relative motion of given cameras T_world_cam (N, 4, 4) against that of ones predicted without them, T_cam_window (N, 4, 4).

    pairs: (2, P) indices of the cameras that are compared, at least one pair.
    """
    first, second = pairs
    given = matrix_product(invert_rigid(T_world_cam[first]), T_world_cam[second])
    predicted = matrix_product(T_cam_window[first], invert_rigid(T_cam_window[second])).to(given.dtype)
    rotation = rotation_angle(matrix_product(given[:, :3, :3].mT, predicted[:, :3, :3]))
    moved = torch.linalg.vector_norm(given[:, :3, 3], dim=-1) >= min_baseline_m
    direction = _angle(given[moved, :3, 3], predicted[moved, :3, 3])
    return Disagreement(_median_deg(rotation), _median_deg(direction) if direction.numel() else None)


@dataclass(frozen=True)
class ImageEvidence:
    """How many points in the images move as either motion would have them."""

    given: float
    predicted: float
    given_is_explained: bool  # however few that are, they are many of those that were looked for

    @property
    def sides_with_given(self) -> bool:
        by_chance = 2 * math.sqrt(self.given + self.predicted)
        return self.given_is_explained or self.given - self.predicted > by_chance

    def __str__(self) -> str:
        return f"{self.given:.0f} tracked points move as given, {self.predicted:.0f} as predicted"


def image_evidence(window: PredictedWindow, T_world_cam: Tensor, T_cam_window: Tensor) -> ImageEvidence | None:
    """Whether given cameras T_world_cam or predicted ones T_cam_window, (N, 4, 4) both, explain how points move in the images.

    For a network may know less of its cameras than an odometer does. Asked are the first newest view and the last one of its camera
    before. None without one, or where too little can be tracked.
    """
    now = window.wanted[0]
    earlier = window.earlier(now)
    if not earlier:
        return None
    before = earlier[-1]
    given = window_parallax(window, before, matrix_product(invert_rigid(T_world_cam[before]), T_world_cam[now]))
    predicted = window_parallax(window, before, matrix_product(T_cam_window[before], invert_rigid(T_cam_window[now])))
    if given is None and predicted is None:
        return None
    given_points, predicted_points = (0.0 if fit is None else fit.support * fit.tracks for fit in (given, predicted))
    return ImageEvidence(given_points, predicted_points, given is not None and given.is_explained)


def _moving_pairs(views: Sequence[View]) -> Tensor:
    """(2, P) views of one camera at two times: those of a rig at one time are as far apart as they always are, whatever moves it."""
    pairs = [(i, j) for i, j in combinations(range(len(views)), 2) if views[i].camera == views[j].camera]
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T


def _angle(a: Tensor, b: Tensor) -> Tensor:
    cross = torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1)
    return torch.atan2(cross, (a * b).sum(-1))


def _median_deg(angles: Tensor) -> float:
    return float(torch.rad2deg(angles.quantile(0.5)))


class PoseGate:
    """Trusts given poses until two checks in a row fail, and again after three in a row pass.

    While they are trusted every `gate_interval`-th window is predicted a second time, without poses and without depth; after a failure
    the next one is, too. While they are not, every window is predicted without them anyway.
    """

    def __init__(self, config: ModeConfig, scale: ScaleConfig) -> None:
        self._config, self._min_baseline_m = config, scale.min_baseline_m
        self.reset()

    def reset(self) -> None:
        self.is_open = True
        self._against = 0  # checks in a row that spoke against the present state
        self._windows: int | None = None  # since the last check
        self.reason = "given poses, not checked yet"

    def is_due(self, views: Sequence[View]) -> bool:
        """Whether this window of posed views is to be predicted without its poses, only to check them. To be asked once a window."""
        self._windows = None if self._windows is None else self._windows + 1
        may_wait = self._windows is not None and self._windows < self._config.gate_interval and not self._against
        return self.is_open and not may_wait and bool(_moving_pairs(views).numel())

    def check(self, window: PredictedWindow, T_cam_window: Tensor) -> None:
        """Takes in the cameras (N, 4, 4) that are predicted for a window of posed views without their poses.

        Cameras that are not finite (a nested network that sees sky only) speak neither for the poses nor against them.
        """
        pairs = _moving_pairs(window.views)
        if not pairs.numel() or not bool(T_cam_window.isfinite().all()):
            return
        given = torch.stack([view.T_world_cam for view in window.views if view.T_world_cam is not None])
        found = disagreement(given, T_cam_window.double(), pairs, self._min_baseline_m)
        agree = found.rotation_deg <= self._config.gate_rotation_deg and (found.direction_deg or 0.0) <= self._config.gate_translation_deg
        images = None if agree else image_evidence(window, given, T_cam_window.double())
        self._take(agree or (images is not None and images.sides_with_given), _report(agree, found, images))

    def _take(self, passed: bool, reason: str) -> None:
        self._windows, self.reason = 0, reason
        self._against = 0 if passed == self.is_open else self._against + 1
        if self._against >= (FAILURES_TO_DISTRUST if self.is_open else PASSES_TO_TRUST):
            self.is_open, self._against = not self.is_open, 0


def _report(agree: bool, found: Disagreement, images: ImageEvidence | None) -> str:
    if agree:
        return f"given poses agree with the predicted ones: {found}"
    if images is not None and images.sides_with_given:
        return f"given poses differ from the predicted ones, {found}, but the images side with them: {images}"
    return f"given poses contradict the images: {found}" + ("" if images is None else f", {images}")
