"""Frames to views: every camera's rectifier, kept for as long as its calibration and image size stay what they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from da3_core.config import PreprocessConfig
from da3_core.preprocess import NetworkImage, Rectifier, Size, ToNetwork, make_rectifier, make_to_network
from da3_core.streaming.poses import is_rigid
from da3_core.types import Frame, Uint8Array, View, as_tensor

Key = tuple[object, ...]

_ids = itertools.count(1)  # of all streams' views: engines tell views by them


class UnusableFrame(ValueError):  # noqa: N818 - what it is, not what went wrong
    """A frame whose image or calibration cannot be used; those of other cameras can go in without it."""

    def __init__(self, camera: str, reason: str) -> None:
        super().__init__(f"camera {camera}: {reason}")
        self.camera = camera


@dataclass(frozen=True)
class Seen:
    """A frame on its way: the network's view of it, and what leads back from there."""

    frame: Frame
    rectifier: Rectifier
    network_image: NetworkImage
    view: View

    @property
    def output_image(self) -> Uint8Array:
        """(H, W, 3), what depth is aligned with. A GPU is waited for."""
        return self.rectifier.output_image(self.frame.image, self.network_image.on_host())

    @property
    def lost_pose(self) -> bool:
        """Whether the frame came with something that is no pose."""
        return self.frame.T_world_cam is not None and self.view.T_world_cam is None


@dataclass(frozen=True)
class Camera:
    """What was made for images and a calibration such as `key` says."""

    key: Key
    rectifier: Rectifier
    to_network: ToNetwork


class Cameras:
    """All cameras' images come out at the network size of the first camera, as one window must have one size."""

    def __init__(self, config: PreprocessConfig, device: torch.device) -> None:
        """device: of the engine."""
        self._device = device
        self.configure(config)

    def configure(self, config: PreprocessConfig) -> None:
        """New settings; all rectifiers are made anew. Ids go on."""
        self._config = config
        self._cameras: dict[str, Camera] = {}

    def adopt(self, frames: Sequence[Frame]) -> list[str]:
        """Makes the rectifiers that are missing; what has changed since the last frames comes back in words.

        Raises UnusableFrame on a calibration that is none or belongs to another size, and on an image that is not of three channels of
        uint8; then all is as it was.
        """
        cameras, changes = dict(self._cameras), []
        for frame in frames:
            known, key = cameras.get(frame.camera), _key(frame)
            if known is None or known.key != key:
                others = [camera.rectifier for name, camera in cameras.items() if name != frame.camera]
                cameras[frame.camera] = self._make(frame, key, others[0].plan.network if others else None)
                changes += [f"camera {frame.camera}: image size or calibration changed, a new window begins"] if known else []
            with _names(frame.camera):
                cameras[frame.camera].rectifier.check(frame.image)
        self._cameras = cameras
        return changes

    def see(self, frame: Frame) -> Seen:
        """The view of a frame whose camera was adopted."""
        camera = self._cameras[frame.camera]
        network_image = camera.to_network(frame.image)
        T_world_cam = as_tensor(np.asarray(frame.T_world_cam, np.float64)) if is_rigid(frame.T_world_cam) else None
        view = View(next(_ids), frame.camera, frame.stamp_ns, network_image.planes(), as_tensor(camera.rectifier.K), T_world_cam)
        return Seen(frame, camera.rectifier, network_image, view)

    def _make(self, frame: Frame, key: Key, network: Size | None) -> Camera:
        height, width = frame.image.shape[:2]
        with _names(frame.camera):
            rectifier = make_rectifier(width, height, frame.calibration, self._config, network)
        return Camera(key, rectifier, make_to_network(rectifier, self._device))


@contextmanager
def _names(camera: str) -> Iterator[None]:
    """Raises a ValueError as one of this camera's frame."""
    try:
        yield
    except ValueError as error:
        raise UnusableFrame(camera, str(error)) from error


def _key(frame: Frame) -> Key:
    calibration = frame.calibration
    if calibration is None:
        return frame.image.shape
    K = np.asarray(calibration.K, np.float64).tobytes()
    return (*frame.image.shape, calibration.width_px, calibration.height_px, K, calibration.distortion_model, calibration.D)
