"""From a set of image messages to placed depth, on the worker's thread: decode, find the pose, register, and survive what goes wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from da3_core import Calibration, Engine, Float64Array, Frame, FrameResult, StaleStamp, Stream, Uint8Array

from .diagnostics import Health, Level
from .from_msg import MessageError
from .poses import Poses
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
        self._failures = 0
        self._knows_world = False

    def process(self, arrivals: Sequence[Arrival]) -> list[FrameResult]:
        """Results of one synchronised set; fewer than images where some cannot be used.

        Raises EngineBrokenError when the engine has failed `engine_failures` times in a row.
        """
        frames = [frame for arrival in arrivals if (frame := self._usable_frame(arrival)) is not None]
        if not frames:
            return []
        try:
            results = self._register(frames)
        except StaleStamp:
            self._health.drop("stamp not after the last one", len(frames))
            return []
        except Exception as error:  # whatever an engine raises: the node must outlive it
            self._after_failure(error, len(frames))
            return []
        self._failures = 0
        self._health.clear("engine")
        return self._in_given_world(frames, results)

    def reset(self) -> None:
        """Begins a new run."""
        self._stream.reset()
        self._knows_world = False

    def configure(self, parameters: Parameters) -> None:
        """Takes new settings, keeping the window and the scale; a window that had to shrink stays as it is."""
        window = dataclasses.replace(parameters.stream.window, views=self._config.window.views)
        self._node, self._config = parameters.node, dataclasses.replace(parameters.stream, window=window)
        self._stream.configure(self._config)

    def _in_given_world(self, frames: Sequence[Frame], results: Sequence[FrameResult]) -> list[FrameResult]:
        """Where poses are given at all, those of the first images without one would be in a world of their own: they are left out."""
        if self._node.pose_source == "none":
            return list(results)
        given = {frame.camera for frame in frames if frame.T_world_cam is not None}
        self._knows_world = self._knows_world or bool(given)
        return [
            result
            if result.camera in given or (self._knows_world and result.scale.is_metric)
            else dataclasses.replace(result, T_world_cam=None)
            for result in results
        ]

    def _usable_frame(self, arrival: Arrival) -> Frame | None:
        camera = self._cameras[arrival.camera]
        if self._node.require_camera_info and camera.lacks:
            self._health.raise_fault(f"{arrival.camera}/camera_info", camera.lacks, Level.ERROR)
            self._health.drop("no camera_info")
            return None
        try:
            frame = self._frame(arrival, camera.calibration)
        except MessageError as error:
            self._health.raise_fault(f"{arrival.camera}/image", str(error), Level.ERROR)
            self._health.drop("unusable image")
            return None
        self._health.clear(f"{arrival.camera}/image")
        return frame

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

    def _register(self, frames: Sequence[Frame]) -> list[FrameResult]:
        try:
            return self._stream.register(frames)
        except torch.cuda.OutOfMemoryError as error:
            if not self._shrink_window(len(frames)):
                raise
            self._health.raise_fault("memory", f"out of GPU memory: the window's bound is {self._config.window.views} now ({error})")
            return self._register(frames)

    def _shrink_window(self, fewest: int) -> bool:
        """Halves the window, down to one view per camera; False when it is that small already."""
        views = max(fewest, self._config.window.views // 2)
        if views >= self._config.window.views:
            return False
        self._config = dataclasses.replace(self._config, window=dataclasses.replace(self._config.window, views=views))
        self._engine.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._stream = Stream(self._engine, self._config)
        self._knows_world = False
        return True

    def _after_failure(self, error: Exception, images: int) -> None:
        self._failures += 1
        self._health.drop("engine failure", images)
        self._health.raise_fault("engine", f"{type(error).__name__}: {error}", Level.ERROR)
        self.reset()
        if self._failures >= self._node.engine_failures:
            raise EngineBrokenError(f"{self._failures} failures in a row, the last: {type(error).__name__}: {error}") from error
