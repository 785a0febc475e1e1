"""A recording's measured depth, beside the results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from da3_core import Calibration, Float32Array, FrameResult, rectified_depth

from ..from_msg import MessageError, depth_from_image, stamp_ns
from .recording import BagError, DamagedError, Recording
from .survey import IMAGE_TYPES, connections_of

MOST_APART_NS = 20_000_000  # an image and its depth


class MeasuredDepth:
    """Depth images of a topic, registered to the camera that `calibration` is of. Ask for results in order of time."""

    def __init__(self, recording: Recording, topic: str, calibration: Calibration | None) -> None:
        """Raises BagError when the recording has no such depth, or the camera is not calibrated."""
        images = connections_of(recording, IMAGE_TYPES[0])
        connections = [c for c in images if c.topic == topic]
        if not connections:
            raise BagError(f"{topic} holds no uncompressed depth images; there are {', '.join(c.topic for c in images)}")
        if calibration is None:
            raise BagError("measured depth takes a camera with camera_info")
        self._topic, self._calibration = topic, calibration
        self._messages = self._read(recording, connections)
        self._before: Any = None
        self._after = next(self._messages, None)

    def of(self, result: FrameResult) -> Float32Array | None:
        """Measured depth where the result's is, NaN where unknown; None when none was recorded within 20 ms. Raises BagError."""
        while self._after is not None and stamp_ns(self._after.header.stamp) <= result.stamp_ns:
            self._before, self._after = self._after, next(self._messages, None)
        apart = {abs(stamp_ns(m.header.stamp) - result.stamp_ns): m for m in (self._after, self._before) if m is not None}
        if not apart or min(apart) > MOST_APART_NS:
            return None
        height, width = result.depth_m.shape
        try:
            return rectified_depth(depth_from_image(apart[min(apart)]), self._calibration, result.K, (width, height))
        except (MessageError, ValueError) as error:
            raise BagError(f"{self._topic}: {error}") from error

    def _read(self, recording: Recording, connections: Any) -> Iterator[Any]:
        with suppress(DamagedError):  # whoever reads the images tells of it
            for connection, _, raw in recording.messages(connections):
                yield recording.deserialize(raw, connection.msgtype)
