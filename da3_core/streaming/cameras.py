"""Frames to views: every camera's rectifier, kept for as long as its calibration and image size stay what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from da3_core.config import PreprocessConfig
from da3_core.preprocess import Rectifier, Size, make_rectifier
from da3_core.streaming.poses import is_rigid
from da3_core.types import Frame, Uint8Array, View, as_tensor

Key = tuple[object, ...]


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
    network_image: Uint8Array  # (h, w, 3)
    view: View

    @property
    def lost_pose(self) -> bool:
        """Whether the frame came with something that is no pose."""
        return self.frame.T_world_cam is not None and self.view.T_world_cam is None


class Cameras:
    """All cameras' images come out at the network size of the first camera, as one window must have one size."""

    def __init__(self, config: PreprocessConfig) -> None:
        self._next_id = 0
        self.configure(config)

    def configure(self, config: PreprocessConfig) -> None:
        """New settings; all rectifiers are made anew. Ids go on."""
        self._config = config
        self._rectifiers: dict[str, tuple[Key, Rectifier]] = {}

    def adopt(self, frames: Sequence[Frame]) -> list[str]:
        """Makes the rectifiers that are missing; what has changed since the last frames comes back in words.

        Raises UnusableFrame on a calibration that is none or belongs to another size; then all is as it was.
        """
        rectifiers, changes = dict(self._rectifiers), []
        for frame in frames:
            known, key = rectifiers.get(frame.camera), _key(frame)
            if known is None or known[0] != key:
                others = [rectifier for camera, (_, rectifier) in rectifiers.items() if camera != frame.camera]
                rectifiers[frame.camera] = key, self._make(frame, others[0].plan.network if others else None)
                changes += [f"camera {frame.camera}: image size or calibration changed, a new window begins"] if known else []
        self._rectifiers = rectifiers
        return changes

    def see(self, frame: Frame) -> Seen:
        """The view of a frame whose camera was adopted."""
        rectifier = self._rectifiers[frame.camera][1]
        network_image = rectifier.network_image(frame.image)
        self._next_id += 1
        image = torch.from_numpy(np.stack(cv2.split(network_image)))  # no thread pool to wake, as torch's copy would
        T_world_cam = as_tensor(np.asarray(frame.T_world_cam, np.float64)) if is_rigid(frame.T_world_cam) else None
        view = View(self._next_id, frame.camera, frame.stamp_ns, image, as_tensor(rectifier.K), T_world_cam)
        return Seen(frame, rectifier, network_image, view)

    def _make(self, frame: Frame, network: Size | None) -> Rectifier:
        height, width = frame.image.shape[:2]
        try:
            return make_rectifier(width, height, frame.calibration, self._config, network)
        except ValueError as error:
            raise UnusableFrame(frame.camera, str(error)) from error


def _key(frame: Frame) -> Key:
    calibration = frame.calibration
    if calibration is None:
        return frame.image.shape
    K = np.asarray(calibration.K, np.float64).tobytes()
    return (*frame.image.shape, calibration.width_px, calibration.height_px, K, calibration.distortion_model, calibration.D)
