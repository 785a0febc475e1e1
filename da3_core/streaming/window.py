"""The views that go into the network together: keyframes, oldest first, then the newest view of every camera.

When a new set arrives, the one before it becomes a set of keyframes if it is far enough from the last such set: by translation or by
rotation where poses in metres are known, else by rotation or time. Otherwise it leaves. So a robot that stands still keeps the views
it came with, and with them their parallax. The newest views are always in, even when they alone exceed the bound; when room is needed
the oldest keyframe leaves first, of one set the first camera's last. Where poses are given, keyframes without one leave at once: they
would keep the others' poses from being used.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from da3_core.config import WindowConfig
from da3_core.geometry.rigid import matrix_product, rotation_angle
from da3_core.streaming.placed import PlacedView, PlacedViews
from da3_core.types import View


class Window:
    """Bounded, for one camera or a rig."""

    def __init__(self, config: WindowConfig) -> None:
        self._config = config
        self.reset()

    def reset(self) -> None:
        self._keyframes: list[View] = []
        self._newest: list[View] = []
        self._last_set: dict[str, tuple[View, PlacedView | None]] = {}  # by camera: the last that became keyframes, wherever they are now

    def push(self, newest: Sequence[View], placed: PlacedViews) -> list[View]:
        """The window with these newest views, one per camera, last. placed: views of the windows before that have a place."""
        if self._newest and self._is_far_from_last_set(placed):
            self._keyframes += self._newest[::-1]
            self._last_set = {view.camera: (view, placed.get(view.id)) for view in self._newest}
        if all(view.T_world_cam is not None for view in newest):
            self._keyframes = [view for view in self._keyframes if view.T_world_cam is not None]
        self._newest = list(newest)
        room = max(0, self._config.views - len(self._newest))
        self._keyframes = self._keyframes[max(0, len(self._keyframes) - room) :]
        return self._keyframes + self._newest

    def _is_far_from_last_set(self, placed: PlacedViews) -> bool:
        shared = [view for view in self._newest if view.camera in self._last_set]
        return not shared or any(self._is_far(view, placed.get(view.id), *self._last_set[view.camera]) for view in shared)

    def _is_far(self, view: View, place: PlacedView | None, last: View, last_place: PlacedView | None) -> bool:
        is_later = view.stamp_ns - last.stamp_ns >= 1e9 * self._config.keyframe_interval_s
        if place is None or last_place is None:
            return is_later
        T_last_cam = matrix_product(last_place.T_world_cam[:3, :3].mT, place.T_world_cam[:3, :3])
        if float(torch.rad2deg(rotation_angle(T_last_cam))) >= self._config.keyframe_rotation_deg:
            return True
        if not (place.is_metric and last_place.is_metric):
            return is_later
        moved = torch.linalg.vector_norm(place.T_world_cam[:3, 3] - last_place.T_world_cam[:3, 3])
        return float(moved) >= self._config.keyframe_translation_m
