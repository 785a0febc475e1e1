"""Whether given poses agree with what the images say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from da3_core.config import ModeConfig, ScaleConfig
from da3_core.geometry.rigid import invert_rigid, matrix_product, rotation_angle
from da3_core.types import Prediction, View

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
        self._last: Disagreement | None = None

    @property
    def reason(self) -> str:
        if self._last is None:
            return "given poses, not checked yet"
        return f"given poses {'agree with' if self._agrees(self._last) else 'contradict'} the images: {self._last}"

    def is_due(self, views: Sequence[View]) -> bool:
        """Whether this window of posed views is to be predicted without its poses, only to check them. To be asked once a window."""
        self._windows = None if self._windows is None else self._windows + 1
        may_wait = self._windows is not None and self._windows < self._config.gate_interval and not self._against
        return self.is_open and not may_wait and bool(_moving_pairs(views).numel())

    def check(self, views: Sequence[View], unposed: Prediction) -> None:
        """Takes in what a window of posed views looks like without its poses."""
        pairs = _moving_pairs(views)
        if not pairs.numel() or unposed.T_cam_world is None:
            return
        given = torch.stack([view.T_world_cam for view in views if view.T_world_cam is not None])
        self._last = disagreement(given, unposed.T_cam_world.double(), pairs, self._min_baseline_m)
        self._windows = 0
        self._against = 0 if self._agrees(self._last) == self.is_open else self._against + 1
        if self._against >= (FAILURES_TO_DISTRUST if self.is_open else PASSES_TO_TRUST):
            self.is_open, self._against = not self.is_open, 0

    def _agrees(self, found: Disagreement) -> bool:
        rotates_alike = found.rotation_deg <= self._config.gate_rotation_deg
        return rotates_alike and (found.direction_deg or 0.0) <= self._config.gate_translation_deg
