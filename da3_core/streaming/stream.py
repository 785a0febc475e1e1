"""The way of an image, and there is no other, live or from a bag: preprocess, window, engine, anchor."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from da3_core.config import StreamConfig
from da3_core.geometry.pinhole import ros_from_K
from da3_core.streaming.anchor import Anchor, Placement, views_wanted
from da3_core.streaming.cameras import Cameras, Seen
from da3_core.streaming.clock import is_restart
from da3_core.streaming.filters import without_untrusted
from da3_core.streaming.mode import ModeChooser
from da3_core.streaming.predicted import PredictedWindow
from da3_core.streaming.window import Window
from da3_core.types import Engine, EngineKind, Float32Array, Float64Array, Frame, FrameResult, View


class Stream:
    """Frames in, placed depth out, in the order they come. One stream has one engine, and memory that does not grow."""

    def __init__(self, engine: Engine, config: StreamConfig | None = None) -> None:
        """The engine forgets what it has seen before. Raises ValueError as `refuse_unfit` does."""
        self._config = config or StreamConfig()
        self._engine = engine
        self._modes = ModeChooser(engine, self._config.mode, self._config.scale)
        self._cameras = Cameras(self._config.preprocess, engine.device)
        self._window = self._make_window()
        self._anchor = Anchor(engine.kind, self._config.scale)
        self._last_stamp_ns: dict[str, int] = {}
        engine.reset()

    @staticmethod
    def refuse_unfit(engine: Engine, config: StreamConfig) -> None:
        """Raises ValueError when the configured mode is not one that the engine's network has."""
        ModeChooser(engine, config.mode, config.scale)

    @staticmethod
    def views_wanted(kind: EngineKind, config: StreamConfig, cameras: int = 1) -> tuple[int, ...]:
        """Of how many views a stream with these settings asks an engine for depth, where images of so many cameras come together."""
        return views_wanted(kind, config.mode.mode, config.scale, cameras)

    def register(self, frames: Sequence[Frame]) -> list[FrameResult]:
        """Places one synchronised set of frames, at most one per camera; one result each, in their order.

        A stamp that is not after its camera's last one raises StaleStamp, and nothing happens; one that is a second or more behind
        starts a new run. A camera whose image size or calibration changes begins a new window. Both are told in `FrameResult.events`.
        Raises ValueError on images or calibrations that cannot be used, naming the camera.
        """
        events = self._begin(frames)
        timings: dict[str, float] = {}
        with _timed(timings, "preprocess"):
            seen = [self._cameras.see(frame) for frame in frames]
            events += [f"camera {each.view.camera}: its pose is no rigid transform, and is not used" for each in seen if each.lost_pose]
        with _timed(timings, "window"):
            views = self._window.push([each.view for each in seen], self._anchor.placed)
        with _timed(timings, "engine"):
            window = self._predict(views, len(seen))
        with _timed(timings, "anchor"):
            placements = self._anchor.place(window)
            results = [self._result(*each, window) for each in zip(seen, window.wanted, placements, strict=False)]
        return [dataclasses.replace(result, timings_s=timings, events=tuple(events)) for result in results]

    def configure(self, config: StreamConfig) -> None:
        """Takes new settings, from the next frames on. What they do not touch goes on: scale and world always, the trust in poses unless
        what they are judged by changes, the window unless its own settings or the images' do. Raises ValueError as the constructor does;
        then nothing has happened.
        """
        modes = ModeChooser(self._engine, config.mode, config.scale)
        old, self._config = self._config, config
        self._anchor.configure(config.scale)
        if (config.mode, config.scale.min_baseline_m) != (old.mode, old.scale.min_baseline_m):
            self._modes = modes
        if (config.preprocess, config.window) != (old.preprocess, old.window):
            self._cameras.configure(config.preprocess)
            self._window = self._make_window()
            self._forget_views()

    def reset(self) -> None:
        """Begins a new run: no view, pose or scale of the last one is kept."""
        self._cameras.configure(self._config.preprocess)
        self._forget_views()
        self._modes.reset()
        self._anchor.reset()
        self._last_stamp_ns.clear()

    def _begin(self, frames: Sequence[Frame]) -> list[str]:
        """Makes sure that the set can follow what was before; says what had to be given up for it."""
        restarts = [frame for frame in frames if is_restart(self._last_stamp_ns.get(frame.camera), frame.stamp_ns, frame.camera)]
        if restarts:
            self.reset()
        changes = self._cameras.adopt(frames)
        if changes:
            self._forget_views()
        self._last_stamp_ns |= {frame.camera: frame.stamp_ns for frame in frames}
        return [f"camera {frame.camera}: the clock went back, a new run begins" for frame in restarts] + changes

    def _make_window(self) -> Window:
        sees_many = self._engine.kind in ("any_view", "nested")
        return Window(self._config.window if sees_many else dataclasses.replace(self._config.window, views=1))

    def _forget_views(self) -> None:
        self._window.reset()
        self._engine.reset()

    def _predict(self, views: list[View], newest: int) -> PredictedWindow:
        choice = self._modes.choose(views)
        wanted = self._anchor.wanted(views, newest, choice)
        prediction = self._engine.infer(views, wanted, posed=choice.mode == "posed")
        window = PredictedWindow(views, newest, wanted, choice, prediction)
        self._modes.observe(window)
        return window

    def _result(self, seen: Seen, index: int, placement: Placement, window: PredictedWindow) -> FrameResult:
        frame, rectifier = seen.frame, seen.rectifier
        confidence = _numpy(window.confidence(index))
        depth = self._published(placement, confidence, _numpy(window.sky(index)))
        return FrameResult(
            camera=frame.camera,
            frame_id=frame.frame_id,
            stamp_ns=frame.stamp_ns,
            depth_m=rectifier.output_depth(depth),
            confidence=None if confidence is None else rectifier.output_confidence(confidence),
            image=seen.output_image,
            K=ros_from_K(torch.from_numpy(rectifier.output_K(placement.K.numpy()))).numpy(),
            T_world_cam=self._published_pose(placement),
            mode=window.choice.mode,
            mode_reason=window.choice.reason,
            scale=placement.scale,
            window_views=len(window.views),
            world=placement.world,
        )

    def _published(self, placement: Placement, confidence: Float32Array | None, sky: Float32Array | None) -> Float32Array:
        """Depth at the network's size, NaN where a setting does not want it."""
        depth = placement.depth.float().numpy()
        if not self._has_wanted_units(placement):
            return np.full_like(depth, np.nan)
        return without_untrusted(depth, confidence, sky, self._config.filter)

    def _published_pose(self, placement: Placement) -> Float64Array | None:
        if placement.T_world_cam is None or not (placement.is_given or self._has_wanted_units(placement)):
            return None
        T_world_cam: Float64Array = placement.T_world_cam.numpy().copy()
        return T_world_cam

    def _has_wanted_units(self, placement: Placement) -> bool:
        return placement.scale.is_metric or self._config.scale.unknown == "relative"


def _numpy(image: Tensor | None) -> Float32Array | None:
    return None if image is None else image.float().numpy()


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[stage] = time.perf_counter() - start
