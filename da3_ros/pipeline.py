"""From a set of image messages to placed depth, on the worker's thread: decode, find the pose, register, and survive what goes wrong."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from da3_core import Calibration, Engine, Float64Array, Frame, FrameResult, StaleStamp, Stream, Uint8Array, UnusableFrame

from .diagnostics import Health, Level
from .from_msg import MessageError
from .poses import Poses, in_given_world
from .settings import Parameters
from .tf_tree import TransformError


class Arrival(Protocol):
    """An image message as it came; see cameras.py."""

    @property
    def camera(self) -> str: ...

    @property
    def frame_id(self) -> str: ...

    @property
    def stamp_ns(self) -> int: ...

    @property
    def received_s(self) -> float: ...

    @property
    def message(self) -> Any: ...


class CameraState(Protocol):
    """What is known of a camera; see cameras.py."""

    @property
    def lacks(self) -> str:
        """Why its calibration is not known; empty: nothing is wrong."""

    @property
    def calibration(self) -> Calibration | None: ...


NO_METRES = "no metre is known, so depth is NaN: it takes a camera that moves and poses, or a metric model, or scale.unknown: relative"

NO_WORLD = (
    "no given pose could be used yet, so there is none in the world frame; mode.mode unposed uses none: pose_source: none gives poses in a "
    "world of their own"
)


class EngineBrokenError(Exception):
    """The engine failed so often that it must be built anew."""


class Pipeline:
    """One stream, fed with messages."""

    def __init__(
        self,
        engine: Engine,
        parameters: Parameters,
        cameras: Mapping[str, CameraState],
        poses: Poses,
        decode: Callable[[Any], Uint8Array],
        health: Health,
    ) -> None:
        self._engine, self._node, self._config = engine, parameters.node, parameters.stream
        self._cameras, self._poses, self._decode, self._health = cameras, poses, decode, health
        self._stream = Stream(engine, parameters.stream)
        self._full_views = parameters.stream.window.views
        self._widen_at_s = math.inf  # monotonic
        self._failures = 0

    def process(self, arrivals: Sequence[Arrival]) -> list[FrameResult]:
        """Results of one synchronised set; fewer than images where some cannot be used.

        Raises EngineBrokenError when the engine has failed `engine_failures` times in a row.
        """
        self._widen_window()
        frames = [frame for arrival in arrivals if (frame := self._usable_frame(arrival)) is not None]
        try:
            results = self._register(frames)
        except StaleStamp:
            self._health.drop("stamp not after the last one", len(frames))
            return []
        except Exception as error:  # whatever an engine raises: the node must outlive it
            failure, lacks_memory = f"{type(error).__name__}: {error}", _is_lack_of_memory(error)
        else:
            return self._succeeded(results)
        # Only here, behind the except block, is the memory free that the error's traceback held.
        if not (lacks_memory and self._narrow_window(failure, len(frames))):
            self._failed(failure, len(frames))
        return []

    def reset(self) -> None:
        """Begins a new run."""
        self._stream.reset()

    def configure(self, parameters: Parameters) -> None:
        """Takes new settings, keeping the window and the scale; a window that had to shrink stays as it is."""
        window = dataclasses.replace(parameters.stream.window, views=self._config.window.views)
        self._node, self._config = parameters.node, dataclasses.replace(parameters.stream, window=window)
        self._stream.configure(self._config)

    def _register(self, frames: Sequence[Frame]) -> list[FrameResult]:
        if not frames:
            return []
        try:
            return self._stream.register(frames)
        except UnusableFrame as error:
            self._health.raise_fault(f"{error.camera}/image", str(error), Level.ERROR)
            self._health.drop("unusable image")
            return self._register([frame for frame in frames if frame.camera != error.camera])

    def _succeeded(self, results: Sequence[FrameResult]) -> list[FrameResult]:
        if not results:
            return []
        self._failures = 0
        self._health.clear("engine")
        for result in results:
            self._health.clear(f"{result.camera}/image")
        if results[0].scale.is_metric or self._config.scale.unknown == "relative":
            self._health.clear("scale")
        else:
            self._health.raise_fault("scale", NO_METRES)
        if self._node.pose_source == "none":
            return list(results)
        if any(result.world == "own" for result in results):
            self._health.raise_fault("world", NO_WORLD)
        else:
            self._health.clear("world")
        return in_given_world(results)

    def _usable_frame(self, arrival: Arrival) -> Frame | None:
        camera = self._cameras[arrival.camera]
        if camera.lacks:
            is_needed = self._node.require_camera_info
            consequence = "images are dropped" if is_needed else "the network's own intrinsics are used"
            text = f"{camera.lacks}: {consequence} (require_camera_info)"
            self._health.raise_fault(f"{arrival.camera}/camera_info", text, Level.ERROR if is_needed else Level.WARN)
            if is_needed:
                self._health.drop("no camera_info")
                return None
        else:
            self._health.clear(f"{arrival.camera}/camera_info")
        try:
            return self._frame(arrival, camera.calibration)
        except MessageError as error:
            self._health.raise_fault(f"{arrival.camera}/image", str(error), Level.ERROR)
            self._health.drop("unusable image")
            return None

    def _frame(self, arrival: Arrival, calibration: Calibration | None) -> Frame:
        image = self._decode(arrival.message)
        height_px, width_px = image.shape[:2]
        if calibration is not None and (calibration.width_px, calibration.height_px) != (width_px, height_px):
            raise MessageError(
                f"the image is {width_px}x{height_px}, but camera_info is of {calibration.width_px}x{calibration.height_px} pixels"
            )
        T_world_cam = self._pose(arrival)
        return Frame(arrival.camera, arrival.frame_id, arrival.stamp_ns, image, calibration, T_world_cam)

    def _pose(self, arrival: Arrival) -> Float64Array | None:
        try:
            T_world_cam = self._poses.at(arrival.camera, arrival.frame_id, arrival.stamp_ns)
        except TransformError as error:
            self._health.raise_fault(f"{arrival.camera}/pose", f"goes without a pose: {error}")
            return None
        self._health.clear(f"{arrival.camera}/pose")
        return T_world_cam

    def _narrow_window(self, failure: str, images: int) -> bool:
        """Halves the window, down to one view per camera; False when it is that small already."""
        views = max(images, self._config.window.views // 2)
        if views >= self._config.window.views:
            return False
        self._health.drop("out of GPU memory", images)
        self._health.raise_fault("memory", f"out of GPU memory: the window's bound is {views} now ({failure})")
        self._set_views(views)
        self._widen_at_s = time.monotonic() + self._node.memory_retry_s
        return True

    def _widen_window(self) -> None:
        """What took the memory may be gone by now."""
        if time.monotonic() < self._widen_at_s:
            return
        self._widen_at_s = math.inf
        self._set_views(self._full_views)
        self._health.clear("memory")

    def _set_views(self, views: int) -> None:
        self._config = dataclasses.replace(self._config, window=dataclasses.replace(self._config.window, views=views))
        self._stream.configure(self._config)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _failed(self, failure: str, images: int) -> None:
        self._failures += 1
        self._health.drop("engine failure", images)
        self._health.raise_fault("engine", failure, Level.ERROR)
        self.reset()
        if self._failures >= self._node.engine_failures:
            raise EngineBrokenError(f"{self._failures} failures in a row, the last: {failure}")


def _is_lack_of_memory(error: Exception) -> bool:
    """torch's own error, or what other engines say of CUDA's."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in str(error).lower()
