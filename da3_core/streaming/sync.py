"""Several cameras' frames to sets of one instant."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from da3_core.config import RigConfig
from da3_core.streaming.clock import is_restart

KEPT_FRAMES = 30  # of each camera but the anchor, at most
SILENT_NS = 1_000_000_000  # a camera that was not heard of for so long is not waited for


class Stamped(Protocol):
    """A frame, or what will become one."""

    @property
    def camera(self) -> str: ...

    @property
    def stamp_ns(self) -> int: ...


StampedT = TypeVar("StampedT", bound=Stamped)


class Synchronizer(Generic[StampedT]):
    """The anchor camera triggers; of every other camera the frame nearest to it joins when within `max_camera_time_diff_s`.

    A set is complete as soon as no camera can bring a nearer frame: each has brought one at or after the anchor's stamp. It is not
    waited for longer than until the anchor's next frame, nor for cameras that have been silent for a second. So half a rig still
    makes sets, only smaller ones.
    """

    def __init__(self, config: RigConfig, cameras: Sequence[str]) -> None:
        """cameras: their names. Raises ValueError when the configured anchor is none of them."""
        self._anchor = config.anchor_camera or cameras[0]
        if self._anchor not in cameras:
            raise ValueError(f"anchor camera {self._anchor!r} is none of {', '.join(cameras)}")
        self._others = [camera for camera in cameras if camera != self._anchor]
        self._tolerance_ns = round(1e9 * config.max_camera_time_diff_s)
        self.reset()

    def reset(self) -> None:
        self._kept: dict[str, deque[StampedT]] = {camera: deque(maxlen=KEPT_FRAMES) for camera in self._others}
        self._last_ns: dict[str, int] = {}
        self._waiting: StampedT | None = None  # the anchor's newest, until its set is complete

    def push(self, frame: StampedT) -> list[list[StampedT]]:
        """Takes a frame in, gives the sets that it completes: none, one, or two; the anchor's frame is a set's first.

        Raises StaleStamp when the frame does not come after its camera's last one; a clock that went back by a second or more
        begins anew. Raises KeyError on a camera that is none of the rig.
        """
        last_ns = self._last_ns.get(frame.camera)
        if is_restart(last_ns, frame.stamp_ns, frame.camera):
            self.reset()
        if not self._last_ns:
            self._before_ns = frame.stamp_ns - self._tolerance_ns - 1  # when cameras that were not heard of yet count as heard
        if frame.camera != self._anchor:
            self._kept[frame.camera].append(frame)
        self._last_ns[frame.camera] = frame.stamp_ns
        sets = []
        if frame.camera == self._anchor:
            sets += self.flush()
            self._waiting = frame
        if self._waiting is not None and not self._may_improve(self._waiting):
            sets += self.flush()
        return sets

    def flush(self) -> list[list[StampedT]]:
        """The set that is still waited for, as far as it is there: for the end of a recording."""
        if self._waiting is None:
            return []
        anchor, self._waiting = self._waiting, None
        near = (self._take_nearest(camera, anchor.stamp_ns) for camera in self._others)
        return [[anchor, *(frame for frame in near if frame is not None)]]

    def _may_improve(self, anchor: StampedT) -> bool:
        newest_ns = max(self._last_ns.values())
        heard_ns = [self._last_ns.get(camera, self._before_ns) for camera in self._others]
        return any(last_ns < anchor.stamp_ns and newest_ns - last_ns < SILENT_NS for last_ns in heard_ns)

    def _take_nearest(self, camera: str, stamp_ns: int) -> StampedT | None:
        """The frame that joins, and with it goes all that is older: a frame joins one set only."""
        kept = self._kept[camera]
        nearest = min(kept, key=lambda frame: abs(frame.stamp_ns - stamp_ns), default=None)
        if nearest is None or abs(nearest.stamp_ns - stamp_ns) > self._tolerance_ns:
            return None
        while kept[0].stamp_ns <= nearest.stamp_ns:
            kept.popleft()
            if not kept:
                break
        return nearest
