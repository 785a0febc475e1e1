"""Messages of a recording -> synchronised sets of frames with their poses, in the recording's order."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from da3_core import Calibration, Float64Array, Frame, StaleStamp, StreamConfig, Synchronizer

from ..from_msg import MessageError, calibration_from_msg, rgb_from_any, stamp_ns
from ..tf_tree import TransformError
from .plan import Camera, Plan
from .poses import RecordedPoses, pose_connections
from .recording import BagError, Recording
from .survey import Survey
from .topics import TF_TYPES, is_own, is_static_tf

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

log = logging.getLogger(__name__)
POSE_WAIT_NS = 500_000_000  # how much later than an image, in the recording's time, its pose may come
MOST_WAITING = 64  # images, however long that is


@dataclass(frozen=True)
class FrameSet:
    """Frames of one instant; `log_ns` is when the recording received the last of them."""

    frames: tuple[Frame, ...]
    log_ns: int
    received: int  # images read so far
    dropped: int  # of these, images that will not come


@dataclass(frozen=True)
class Carried:
    """A message that goes to the output as it is."""

    connection: Connection
    log_ns: int
    raw: bytes


@dataclass
class Tally:
    """What became of the messages, counted by the reading thread. Every kind of trouble is told once, then counted."""

    received: Counter[str] = field(default_factory=Counter)  # images, by camera
    skipped: Counter[str] = field(default_factory=Counter)  # images, by camera and reason
    unposed: Counter[str] = field(default_factory=Counter)  # images whose pose is missing, by camera
    ignored: Counter[str] = field(default_factory=Counter)  # other messages that cannot be used, by topic
    read_s: float = 0.0
    decode_s: float = 0.0

    def skip(self, camera: str, reason: str, detail: object) -> None:
        self._note(self.skipped, f"{camera}: {reason}", f"{camera}: image skipped: {detail}")

    def unpose(self, camera: str, detail: object) -> None:
        self._note(self.unposed, camera, f"{camera}: image goes in without a pose: {detail}")

    def ignore(self, topic: str, detail: object) -> None:
        self._note(self.ignored, topic, f"{topic}: message ignored: {detail}")

    def _note(self, counter: Counter[str], key: str, line: str) -> None:
        counter[key] += 1
        if counter[key] == 1:
            log.warning("%s", line)


@dataclass(frozen=True)
class Waiting:
    """An image whose pose may still come."""

    camera: Camera
    msg: Any
    stamp_ns: int
    log_ns: int
    calibration: Calibration | None


class FrameSource:
    """Iterate once. Images wait, undecoded, until the poses around their stamp have been read."""

    def __init__(self, recording: Recording, found: Survey, plan: Plan, config: StreamConfig, carry_all: bool) -> None:
        self.tally = Tally()
        self._recording = recording
        self._own_poses = found.own_poses
        self._recorded = RecordedPoses(found.tree, plan.poses, config.poses)
        self._poses = self._recorded.poses
        self._cameras = {camera.image.topic: camera for camera in plan.cameras}
        self._info_cameras = {camera.info_topic: camera for camera in plan.cameras if camera.info_topic}
        self._calibrations = {camera.name: _first_calibration(camera, found) for camera in plan.cameras}
        self._synchronizer: Synchronizer[Frame] = Synchronizer(config.rig, [camera.name for camera in plan.cameras])
        self._pose_topics = {connection.topic for connection in pose_connections(recording, plan.poses)}
        self._carry_all = carry_all
        self._waiting: deque[Waiting] = deque()

    def calibration_of(self, camera: str) -> Calibration | None:
        """The last one that was read, or the recording's first as long as none was. Raises KeyError on a camera that is none."""
        return self._calibrations[camera]

    @property
    def image_count(self) -> int:
        """Messages on the cameras' topics."""
        return sum(c.msgcount for c in self._recording.connections if c.topic in self._cameras)

    def __iter__(self) -> Iterator[FrameSet | Carried]:
        started, last_ns = time.perf_counter(), 0
        for connection, log_ns, raw in self._own_poses.leave_out_of(self._recording.messages(self._connections())):
            self.tally.read_s += time.perf_counter() - started
            if self._is_carried(connection):
                yield Carried(connection, log_ns, raw)
            self._take(connection, log_ns, raw)
            while self._waiting and self._has_waited(self._waiting[0], log_ns):
                yield from self._sets_with(self._waiting.popleft())
            started, last_ns = time.perf_counter(), log_ns
        while self._waiting:
            yield from self._sets_with(self._waiting.popleft())
        yield from (self._set(frames, last_ns) for frames in self._synchronizer.flush())

    def _connections(self) -> list[Connection]:
        used = {*self._cameras, *self._info_cameras, *self._pose_topics}
        return [c for c in self._recording.connections if c.topic in used or self._is_carried(c)]

    def _is_carried(self, connection: Connection) -> bool:
        """TF always is, so that the output places its frames by itself; static TF is written in one message instead."""
        if is_own(connection) or (connection.msgtype in TF_TYPES and is_static_tf(connection)):
            return False
        return self._carry_all or connection.msgtype in TF_TYPES

    def _take(self, connection: Connection, log_ns: int, raw: bytes) -> None:
        topic = connection.topic
        if topic not in self._cameras and topic not in self._info_cameras and topic not in self._pose_topics:
            return
        try:
            msg = self._recording.deserialize(raw, connection.msgtype)
            if topic in self._pose_topics:
                self._recorded.take(msg)
            elif topic in self._info_cameras:
                camera = self._info_cameras[topic]
                self._calibrations[camera.name] = calibration_from_msg(msg, camera.image.is_rectified)
        except (BagError, MessageError, StaleStamp) as error:
            self._refuse(topic, error)
            return
        if topic in self._cameras:
            self._take_image(self._cameras[topic], msg, log_ns)

    def _take_image(self, camera: Camera, msg: Any, log_ns: int) -> None:
        self.tally.received[camera.name] += 1
        self._waiting.append(Waiting(camera, msg, stamp_ns(msg.header.stamp), log_ns, self._calibrations[camera.name]))

    def _refuse(self, topic: str, error: Exception) -> None:
        if topic not in self._cameras:
            self.tally.ignore(topic, error)
            return
        name = self._cameras[topic].name
        self.tally.received[name] += 1
        self.tally.skip(name, "cannot be parsed", error)

    def _has_waited(self, image: Waiting, log_ns: int) -> bool:
        overdue = log_ns - image.log_ns > POSE_WAIT_NS or len(self._waiting) > MOST_WAITING
        return overdue or self._poses.is_known(image.camera.name, image.camera.frame_id, image.stamp_ns)

    def _sets_with(self, image: Waiting) -> Iterator[FrameSet]:
        try:
            frame = self._frame(image)
            yield from (self._set(frames, image.log_ns) for frames in self._synchronizer.push(frame))
        except MessageError as error:
            self.tally.skip(image.camera.name, "cannot be decoded", error)
        except StaleStamp as error:
            self.tally.skip(image.camera.name, "stamp went back", error)

    def _set(self, frames: Sequence[Frame], log_ns: int) -> FrameSet:
        return FrameSet(tuple(frames), log_ns, self.tally.received.total() - len(self._waiting), self.tally.skipped.total())

    def _frame(self, image: Waiting) -> Frame:
        started = time.perf_counter()
        rgb = rgb_from_any(image.msg)
        self.tally.decode_s += time.perf_counter() - started
        return Frame(image.camera.name, image.camera.frame_id, image.stamp_ns, rgb, image.calibration, self._pose(image))

    def _pose(self, image: Waiting) -> Float64Array | None:
        try:
            return self._poses.at(image.camera.name, image.camera.frame_id, image.stamp_ns)
        except TransformError as error:
            self.tally.unpose(image.camera.name, error)
            return None


def _first_calibration(camera: Camera, found: Survey) -> Calibration | None:
    """For images that come before their camera_info."""
    if camera.info_topic is None:
        return None
    try:
        calibration = calibration_from_msg(found.infos[camera.info_topic], camera.image.is_rectified)
    except MessageError as error:
        raise BagError(f"{camera.info_topic}: {error}") from error
    if calibration is None:
        log.warning("%s: the camera is not calibrated (K is 0): the network's own intrinsics are used", camera.info_topic)
    return calibration
