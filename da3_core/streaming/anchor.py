"""A prediction in the network's own scale and frame, placed: depth in metres, poses in the world.

posed    poses are the given ones; depth takes the scale that the given camera motion shows (`scale.py`).
unposed  the window is joined to the world over the views that both know (`align.py`), and inherits their scale.
metric   depth is metres already, up to the focal length; poses are the given ones, if any.

The world is that of the given poses, or the first view's camera where none are known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from da3_core.config import ScaleConfig
from da3_core.geometry import sim3
from da3_core.geometry.rigid import invert_rigid
from da3_core.streaming.align import join_cameras, scale_from_depth
from da3_core.streaming.mode import Choice
from da3_core.streaming.placed import DepthSamples, PlacedView, PlacedViews, depth_samples
from da3_core.streaming.scale import LogScale, RunningScale, baselines_measured
from da3_core.types import EngineKind, Prediction, ScaleEstimate, ScaleSource, View

METRIC_FOCAL_PX = 300.0  # at which a metric network's output is metres
METRIC_LOG_VARIANCE = 0.1**2  # of a metric network's scale
ASSUMED_FOV_DEG = 60.0  # across an image of which neither calibration nor network knows K


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
        return invert_rigid(_there(self.prediction.T_cam_world).double())

    @cached_property
    def given(self) -> Mapping[int, Tensor]:
        """Poses T_world_cam that came with the views, by index, as far as they are trusted."""
        return {i: v.T_world_cam for i, v in enumerate(self.views) if v.T_world_cam is not None and self.choice.trusts_poses}

    def depth(self, index: int) -> Tensor:
        """(H, W), in the network's units."""
        return _there(self.prediction.depth)[self.wanted.index(index)]

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


@dataclass(frozen=True)
class Placement:
    """One of the newest views in the world."""

    depth: Tensor  # (H, W), in the units of `scale`
    T_world_cam: Tensor | None  # (4, 4) float64
    K: Tensor  # (3, 3) float64, of the network's image
    scale: ScaleEstimate


class Anchor:
    """Carries scale and world from window to window."""

    def __init__(self, kind: EngineKind, config: ScaleConfig) -> None:
        self._kind, self._config = kind, config
        self._scale = RunningScale(config)
        self._last_T_world_cam: dict[str, Tensor] = {}  # by camera
        self._placed: dict[int, PlacedView] = {}

    @property
    def placed(self) -> PlacedViews:
        """The views of the last window that have their place in the world."""
        return self._placed

    def configure(self, config: ScaleConfig) -> None:
        """New settings, from the next window on."""
        self._config = config
        self._scale.configure(config)

    def reset(self) -> None:
        """Another run: nothing of the last one holds."""
        self._scale.reset()
        self._last_T_world_cam.clear()
        self._placed.clear()

    def wanted(self, views: Sequence[View], newest: int, choice: Choice) -> list[int]:
        """Indices of the views whose depth is needed: the `newest` last ones, then one to chain the window to earlier ones by.

        While there is none to chain to, a newest one stands in for it: an engine made for a number of views is best asked for as many.
        """
        wanted = list(range(len(views) - newest, len(views)))
        if not self._needs_chain(views, choice):
            return wanted
        shared = [i for i, view in enumerate(views[:-newest]) if view.id in self._placed]
        return wanted + (shared or wanted)[-1:]

    def place(self, window: PredictedWindow) -> list[Placement]:
        """The newest views, placed; what later windows need of them is remembered."""
        newest = window.wanted[: window.newest]
        if window.choice.mode == "metric" or window.prediction.T_cam_world is None:
            return [_focal_placement(window, index, self._kind) for index in newest]
        if not bool(window.T_window_cam.isfinite().all()):  # a nested network that sees sky only, a half-precision one that overflowed
            return [_nowhere(window, index) for index in newest]
        self._step_scale(window)
        T_world_cam = self._cameras(window)
        scale = self._scale.estimate
        self._remember(window, T_world_cam)
        return [Placement(window.depth(i) * scale.value, T_world_cam[i], window.K(i), scale) for i in newest]

    def _needs_chain(self, views: Sequence[View], choice: Choice) -> bool:
        if choice.mode == "metric" or self._kind in ("mono", "metric"):
            return False
        return choice.mode == "unposed" or self._config.chain == "always" or not self._moved(views)

    def _moved(self, views: Sequence[View]) -> bool:
        centres = torch.stack([view.T_world_cam[:3, 3] for view in views if view.T_world_cam is not None])
        return bool(torch.pdist(centres).ge(self._config.min_baseline_m).any())

    def _step_scale(self, window: PredictedWindow) -> None:
        measured: dict[ScaleSource, LogScale] = {}
        if window.prediction.is_metric:
            measured["metric_model"] = LogScale(math.log(_focal_ratio(window)), METRIC_LOG_VARIANCE)
        if len(window.given) > 1:
            given_m = torch.stack(list(window.given.values()))[:, :3, 3]
            measured |= baselines_measured(given_m, window.T_window_cam[list(window.given), :3, 3], self._config)
        was_known = self._scale.is_known
        self._scale.step(measured, self._chained(window), unknown="network" if window.choice.mode == "unposed" else "none")
        if self._scale.is_known and not was_known:
            self._placed.clear()  # it is in other units

    def _chained(self, window: PredictedWindow) -> LogScale | None:
        shared = [i for i in window.wanted[window.newest :] if window.views[i].id in self._placed]
        return scale_from_depth([self._placed[window.views[i].id] for i in shared], [window.samples(i) for i in shared])

    def _cameras(self, window: PredictedWindow) -> Tensor:
        """T_world_cam (N, 4, 4): as given where that is trusted; the others joined to those, and to the places they had before."""
        if len(window.given) == len(window.views):
            return torch.stack(list(window.given.values()))
        known = {i: self._placed[view.id].T_world_cam for i, view in enumerate(window.views) if view.id in self._placed}
        known |= window.given
        if not known:
            known = {0: self._last_T_world_cam.get(window.views[0].camera, torch.eye(4, dtype=torch.float64))}
        T_window_shared = window.T_window_cam[list(known)]
        S_world_window = join_cameras(torch.stack(list(known.values())), T_window_shared, self._scale.estimate.value)
        T_world_cam = sim3.transform_cameras(S_world_window, window.T_window_cam)
        return torch.stack([window.given.get(i, T) for i, T in enumerate(T_world_cam)])

    def _remember(self, window: PredictedWindow, T_world_cam: Tensor) -> None:
        """Places of the newest views, and of a shared one that lost its own; those of views that left are forgotten."""
        scale = self._scale.estimate
        self._placed = {view.id: self._placed[view.id] for view in window.views if view.id in self._placed}
        for i in window.wanted:
            if window.views[i].id in self._placed:
                continue
            is_metric = scale.is_metric or i in window.given
            samples = window.samples(i).scaled(scale.value) if scale.is_metric == is_metric else None
            self._placed[window.views[i].id] = PlacedView(T_world_cam[i], samples, scale.log_variance, is_metric)
            self._last_T_world_cam[window.views[i].camera] = T_world_cam[i]


def _nowhere(window: PredictedWindow, index: int) -> Placement:
    depth = torch.full_like(window.depth(index), torch.nan)
    return Placement(depth, window.views[index].T_world_cam, window.K(index), ScaleEstimate(1.0, math.inf, "none"))


def _focal_placement(window: PredictedWindow, index: int, kind: EngineKind) -> Placement:
    """A view whose network knows metres but for the focal length, or knows none of it (mono networks, unknown focal lengths)."""
    view = window.views[index]
    scale = ScaleEstimate(1.0, math.inf, "none")
    if kind == "nested":
        scale = ScaleEstimate(_focal_ratio(window), METRIC_LOG_VARIANCE, "metric_model")
    elif kind == "metric" and view.K is not None:
        scale = ScaleEstimate(float(_focal(view.K)) / METRIC_FOCAL_PX, METRIC_LOG_VARIANCE, "metric_model")
    return Placement(window.depth(index) * scale.value, view.T_world_cam, window.K(index), scale)


def _assumed_K(h: int, w: int) -> Tensor:
    focal = w / 2 / math.tan(math.radians(ASSUMED_FOV_DEG) / 2)
    return torch.tensor([[focal, 0, w / 2], [0, focal, h / 2], [0, 0, 1]], dtype=torch.float64)


def _focal_ratio(window: PredictedWindow) -> float:
    """What a nested network's metres are to be multiplied with: it took its own focal length for the true one."""
    known = {i: view.K for i, view in enumerate(window.views) if view.K is not None}
    if not known:
        return 1.0
    predicted = _there(window.prediction.K)[list(known)].double()
    ratios = torch.stack([_focal(K) for K in known.values()]) / _focal(predicted)
    return float(ratios.quantile(0.5))


def _there(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("the prediction lacks depth or cameras: ask the engine for the wanted views' depth")
    return value


def _focal(K: Tensor) -> Tensor:
    return (K[..., 0, 0] + K[..., 1, 1]) / 2
