"""Poses that an earlier run of ours left in a recording: no truth to place images by, and the output has its own of the same frames."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .recording import BagError, Recording
from .topics import ODOMETRY_TYPE, TF_TYPES

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

log = logging.getLogger(__name__)


class OwnPoses:
    """Transforms and odometry of child frames whose names end in `child_suffix`, which is not empty."""

    def __init__(self, recording: Recording, child_suffix: str) -> None:
        self._recording = recording
        self._suffix = child_suffix
        self._told: set[tuple[str, str]] = set()

    def leave_out_of(self, messages: Iterable[tuple[Connection, int, bytes]]) -> Iterator[tuple[Connection, int, bytes]]:
        """The messages without them: a message of others' transforms, too, keeps those."""
        for connection, log_ns, raw in messages:
            others = raw if not self._may_be_in(connection, raw) else self._others(connection, raw)
            if others is not None:
                yield connection, log_ns, others

    def _may_be_in(self, connection: Connection, raw: bytes) -> bool:
        """Spares parsing: names stand in a message as they are."""
        return connection.msgtype in (ODOMETRY_TYPE, *TF_TYPES) and self._suffix.encode() in raw

    def _others(self, connection: Connection, raw: bytes) -> bytes | None:
        try:
            msg = self._recording.deserialize(raw, connection.msgtype)
        except BagError:
            return raw  # whoever uses it tells of it
        if connection.msgtype == ODOMETRY_TYPE:
            return None if self._is_own(connection.topic, msg) else raw
        others = [transform for transform in msg.transforms if not self._is_own(connection.topic, transform)]
        if len(others) == len(msg.transforms):
            return raw
        return self._recording.serialize(dataclasses.replace(msg, transforms=others), connection.msgtype) if others else None

    def _is_own(self, topic: str, msg: Any) -> bool:
        child = msg.child_frame_id
        if not child.endswith(self._suffix):
            return False
        if (topic, child) not in self._told:
            self._told.add((topic, child))
            log.info("%s: poses of %s left out: its name ends in output.child_suffix, an earlier run's do", topic, child)
        return True
