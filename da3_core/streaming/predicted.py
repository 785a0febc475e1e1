"""A window on its way from the engine: how it was predicted, and what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from da3_core.geometry.rigid import invert_rigid
from da3_core.streaming.placed import DepthSamples, depth_samples
from da3_core.types import Mode, Prediction, View

ASSUMED_FOV_DEG = 60.0  # across an image of which neither calibration nor network knows K


@dataclass(frozen=True)
class Choice:
    """How a window is predicted, and why so. trusts_poses: given poses, of however few views, may tell the scale and the world."""

    mode: Mode
    reason: str
    trusts_poses: bool = True


@dataclass(frozen=True)
class PredictedWindow:
    """A window's views, how it was predicted, and what came out."""

    views: Sequence[View]
    newest: int  # how many, at the end of `views`
    wanted: Sequence[int]  # whose depth there is: the newest, then shared ones
    choice: Choice
    prediction: Prediction

    @cached_property
    def T_window_cam(self) -> Tensor:
        """(N, 4, 4) float64."""
        return invert_rigid(there(self.prediction.T_cam_world).double())

    @cached_property
    def given(self) -> Mapping[int, Tensor]:
        """Poses T_world_cam that came with the views, by index, as far as they are trusted."""
        return {i: v.T_world_cam for i, v in enumerate(self.views) if v.T_world_cam is not None and self.choice.trusts_poses}

    def earlier(self, index: int) -> list[int]:
        """Indices of the views of the same camera before one of the newest, oldest first."""
        return [i for i, view in enumerate(self.views[: -self.newest]) if view.camera == self.views[index].camera]

    def depth(self, index: int) -> Tensor:
        """(H, W), in the network's units."""
        return there(self.prediction.depth)[self.wanted.index(index)]

    def confidence(self, index: int) -> Tensor | None:
        """(H, W), None where the network has none."""
        confidence = self.prediction.confidence
        return None if confidence is None else confidence[self.wanted.index(index)]

    def samples(self, index: int) -> DepthSamples:
        """Of a wanted view's depth, in the network's units."""
        return depth_samples(self.depth(index), self.confidence(index))

    def sky(self, index: int) -> Tensor | None:
        """(H, W), None where the network has none."""
        sky = self.prediction.sky
        return None if sky is None else sky[self.wanted.index(index)]

    def K(self, index: int) -> Tensor:
        """(3, 3) float64: the known intrinsics, else the predicted ones, else those of a view ASSUMED_FOV_DEG wide."""
        known, predicted = self.views[index].K, self.prediction.K
        if known is not None:
            return known
        return _assumed_K(*self.views[index].image.shape[1:]) if predicted is None else predicted[index].double()


def _assumed_K(h: int, w: int) -> Tensor:
    focal = w / 2 / math.tan(math.radians(ASSUMED_FOV_DEG) / 2)
    return torch.tensor([[focal, 0, w / 2], [0, focal, h / 2], [0, 0, 1]], dtype=torch.float64)


def there(value: Tensor | None) -> Tensor:
    """What a prediction must have. Raises ValueError where it has not."""
    if value is None:
        raise ValueError("the prediction lacks depth or cameras: ask the engine for the wanted views' depth")
    return value
