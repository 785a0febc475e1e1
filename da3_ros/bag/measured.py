"""A recording's measured depth, beside the results."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from da3_core import Calibration, DepthRectifier, Float32Array, FrameResult

from ..from_msg import DEPTHS, MessageError, depth_from_image, stamp_ns
from .recording import BagError, DamagedError, Recording
from .topics import IMAGE_TYPES, connections_of

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

log = logging.getLogger(__name__)
MOST_APART_NS = 20_000_000  # an image and its depth


class MeasuredDepth:
    """Depth images of a topic, registered to the images of the camera that `calibration` is of."""

    def __init__(self, recording: Recording, topic: str, calibration: Calibration | None) -> None:
        """Reads the topic once, for its stamps. Raises BagError where it holds no such depth, or the camera is not calibrated."""
        if calibration is None:
            raise BagError("measured depth takes a calibrated camera: camera_info whose K is not 0")
        self._recording, self._topic, self._calibration = recording, topic, calibration
        self._connections = self._find(topic)
        self._has_refused = False
        self._log_ns = dict(self._stamps())  # by stamp
        self._sorted = sorted(self._log_ns)
        self._rectified = DepthRectifier(calibration)

    def of(self, result: FrameResult) -> Float32Array | None:
        """Measured depth where the result's is, NaN where unknown; None when no usable one was recorded within 20 ms."""
        i = bisect_left(self._sorted, result.stamp_ns)
        nearest = min(self._sorted[max(i - 1, 0) : i + 1], key=lambda stamp: abs(stamp - result.stamp_ns), default=None)
        if nearest is None or abs(nearest - result.stamp_ns) > MOST_APART_NS:
            return None
        found = (msg for _, msg in self._messages(self._log_ns[nearest]) if stamp_ns(msg.header.stamp) == nearest)
        msg = next(found)  # it was there when the stamps were read
        try:
            height, width = result.depth_m.shape
            return self._rectified(depth_from_image(msg), result.K, (width, height))
        except (MessageError, ValueError) as error:
            self._refuse(error)
            return None

    def _find(self, topic: str) -> list[Connection]:
        images = connections_of(self._recording, IMAGE_TYPES[0])
        if not (found := [c for c in images if c.topic == topic]):
            there = ", ".join(dict.fromkeys(c.topic for c in images)) or "none"
            raise BagError(f"{topic} holds no uncompressed depth: uncompressed images are on {there} (republish compressed depth as raw)")
        return found

    def _stamps(self) -> Iterator[tuple[int, int]]:
        for i, (log_ns, msg) in enumerate(self._messages()):
            if i == 0:
                self._check(msg)
            yield stamp_ns(msg.header.stamp), log_ns

    def _check(self, msg: Any) -> None:
        """Whether the topic is what it should be, before the network runs."""
        if msg.encoding not in DEPTHS or (msg.height, msg.width) != (self._calibration.height_px, self._calibration.width_px):
            camera = f"{self._calibration.width_px}x{self._calibration.height_px}"
            raise BagError(
                f"{self._topic} holds {msg.encoding} of {msg.width}x{msg.height}: "
                f"it takes {' or '.join(DEPTHS)} of {camera}, registered to the camera's images"
            )

    def _messages(self, at_ns: int | None = None) -> Iterator[tuple[int, Any]]:
        """(log time, message) of all that can be parsed, or of those that were logged at one time."""
        stop_ns = None if at_ns is None else at_ns + 1
        with suppress(DamagedError):  # whoever reads the images tells of it
            for connection, log_ns, raw in self._recording.messages(self._connections, stop_ns, at_ns):
                try:
                    msg = self._recording.deserialize(raw, connection.msgtype)
                except BagError as error:
                    self._refuse(error)
                    continue
                yield log_ns, msg

    def _refuse(self, error: Exception) -> None:
        log.log(logging.DEBUG if self._has_refused else logging.WARNING, "%s: message ignored: %s", self._topic, error)
        self._has_refused = True
