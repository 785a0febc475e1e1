"""A prediction in the network's own scale and frame, placed: depth in metres, poses in the world.

posed    poses are the given ones; depth takes the scale that the given camera motion shows (`scale.py`).
unposed  the window is joined to the world over the views that both know (`align.py`), and inherits their scale.
metric   depth is metres already, up to the focal length; poses are the given ones, if any.

The world is that of the given poses from the first one on that is trusted; until then, the first view's camera.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from da3_core.config import ScaleConfig
from da3_core.geometry import sim3
from da3_core.streaming.align import join_cameras, scale_from_depth
from da3_core.streaming.log_scale import LogScale
from da3_core.streaming.placed import PlacedView, PlacedViews
from da3_core.streaming.predicted import Choice, PredictedWindow, there
from da3_core.streaming.scale import RunningScale, baselines_measured, parallax_measured
from da3_core.types import CANONICAL_FOCAL_PX, EngineKind, ScaleEstimate, ScaleSource, View, World

METRIC_LOG_SIGMA = 0.05  # of its scale, from window to window
METRIC_BIAS = 0.1  # of a metric network's scale


@dataclass(frozen=True)
class Placement:
    """One of the newest views in the world."""

    depth: Tensor  # (H, W), in the units of `scale`
    T_world_cam: Tensor | None  # (4, 4) float64
    K: Tensor  # (3, 3) float64, of the network's image
    scale: ScaleEstimate
    is_given: bool = True  # the pose, if there is one
    world: World = "given"


def views_wanted(kind: EngineKind, mode: str, config: ScaleConfig, newest: int) -> tuple[int, ...]:
    """How many views `Anchor.wanted` may ask for where `newest` come at once, with `mode` as set: what an engine is to be built for."""
    chains = _chains(kind, mode, config)
    return (newest, newest + 1) if chains is None else (newest + chains,)


class Anchor:
    """Carries scale and world from window to window."""

    def __init__(self, kind: EngineKind, config: ScaleConfig) -> None:
        self._kind, self._config = kind, config
        self._scale = RunningScale(config)
        self._world: World = "own"
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
        self._world = "own"
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
        self._enter_given_world(window)
        T_world_cam = self._cameras(window)
        scale = self._scale.estimate
        self._remember(window, T_world_cam)
        return [
            Placement(_scaled(window.depth(i), scale), T_world_cam[i], window.K(i), scale, i in window.given, self._world) for i in newest
        ]

    def _needs_chain(self, views: Sequence[View], choice: Choice) -> bool:
        chains = _chains(self._kind, choice.mode, self._config)
        return not self._moved(views) if chains is None else chains

    def _moved(self, views: Sequence[View]) -> bool:
        centres = torch.stack([view.T_world_cam[:3, 3] for view in views if view.T_world_cam is not None])
        return bool(torch.pdist(centres).ge(self._config.min_baseline_m).any())

    def _step_scale(self, window: PredictedWindow) -> None:
        was_known = self._scale.is_known
        unknown: ScaleSource = "network" if window.choice.mode == "unposed" else "none"
        self._scale.step(self._measured(window), self._chained(window), unknown)
        if self._scale.is_known and not was_known:
            self._placed.clear()  # it is in other units

    def _measured(self, window: PredictedWindow) -> dict[ScaleSource, LogScale]:
        """What this window alone says of its scale; given motion does by parallax where points can be tracked, else by camera centres."""
        measured: dict[ScaleSource, LogScale] = {}
        if window.prediction.is_metric:
            measured["metric_model"] = LogScale(math.log(_focal_ratio(window)), METRIC_LOG_SIGMA**2, METRIC_BIAS**2)
        by_parallax = parallax_measured(window, self._config)
        return measured | (baselines_measured(window, self._config) if by_parallax is None else by_parallax)

    def _chained(self, window: PredictedWindow) -> LogScale | None:
        shared = [i for i in window.wanted[window.newest :] if window.views[i].id in self._placed]
        return scale_from_depth([self._placed[window.views[i].id] for i in shared], [window.samples(i) for i in shared])

    def _enter_given_world(self, window: PredictedWindow) -> None:
        """With the first given pose; what was placed before is in another world."""
        if window.given and self._world == "own":
            self._world = "given"
            self._placed.clear()
            self._last_T_world_cam.clear()

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
            self._placed[window.views[i].id] = PlacedView(T_world_cam[i], samples, self._scale.log, is_metric)
            self._last_T_world_cam[window.views[i].camera] = T_world_cam[i]


def _chains(kind: EngineKind, mode: str, config: ScaleConfig) -> bool | None:
    """Whether a window is chained to earlier ones in this mode; None: where its cameras did not move."""
    if mode == "metric" or kind in ("mono", "metric"):
        return False
    return True if mode == "unposed" or config.chain == "always" else None


def _nowhere(window: PredictedWindow, index: int) -> Placement:
    depth = torch.full_like(window.depth(index), torch.nan)
    return Placement(depth, window.views[index].T_world_cam, window.K(index), ScaleEstimate(1.0, math.inf, "none"))


def _focal_placement(window: PredictedWindow, index: int, kind: EngineKind) -> Placement:
    """A view whose network knows metres but for the focal length, or knows none of it (mono networks, unknown focal lengths)."""
    view = window.views[index]
    scale = ScaleEstimate(1.0, math.inf, "none")
    if kind == "nested":
        scale = ScaleEstimate(_focal_ratio(window), METRIC_BIAS**2, "metric_model")
    elif kind == "metric" and view.K is not None:
        scale = ScaleEstimate(float(_focal(view.K)) / CANONICAL_FOCAL_PX, METRIC_BIAS**2, "metric_model")
    return Placement(_scaled(window.depth(index), scale), view.T_world_cam, window.K(index), scale)


def _scaled(depth: Tensor, scale: ScaleEstimate) -> Tensor:
    """By numpy, as torch would wake its thread pool for it, which on a busy machine waits for a core longer than all else takes."""
    return torch.from_numpy(depth.float().numpy() * np.float32(scale.value))


def _focal_ratio(window: PredictedWindow) -> float:
    """What a nested network's metres are to be multiplied with: it took its own focal length for the true one."""
    known = {i: view.K for i, view in enumerate(window.views) if view.K is not None}
    if not known:
        return 1.0
    predicted = there(window.prediction.K)[list(known)].double()
    ratios = torch.stack([_focal(K) for K in known.values()]) / _focal(predicted)
    return float(ratios.quantile(0.5))


def _focal(K: Tensor) -> Tensor:
    return (K[..., 0, 0] + K[..., 1, 1]) / 2
