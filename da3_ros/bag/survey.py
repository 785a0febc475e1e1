"""What a recording holds that matters here: picture topics, odometry topics and the frames that TF links, found by one quick look."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from da3_core import PoseConfig

from ..from_msg import DEPTHS, MessageError, StampedTransform, transform_from_odometry, transforms_from_msg
from ..tf_tree import TransformTree
from .own_poses import OwnPoses
from .recording import BagError, DamagedError, Recording
from .topics import IMAGE_TYPES, INFO_TYPE, ODOMETRY_TYPE, TF_TYPES, connections_of, is_static_tf

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class ImageTopic:
    """A topic of pictures (not of depth)."""

    topic: str
    frame_id: str

    @property
    def base(self) -> str:
        """The topic without its transport: /front/image_raw for /front/image_raw/compressed."""
        return self.topic.removesuffix("/compressed")

    @property
    def namespace(self) -> str:
        return self.base.rsplit("/", 1)[0]

    @property
    def is_rectified(self) -> bool:
        return self.base.rsplit("/", 1)[1].startswith("image_rect")


@dataclass(frozen=True)
class OdometryTopic:
    topic: str
    parent: str
    child: str


@dataclass(frozen=True)
class Survey:
    images: tuple[ImageTopic, ...]
    infos: dict[str, Any]  # topic -> its first CameraInfo
    odometries: tuple[OdometryTopic, ...]
    tree: TransformTree  # static edges, and the moving ones without their poses
    own_poses: OwnPoses  # not in the above
    static_transforms: dict[str, StampedTransform] = field(default_factory=dict)  # by child

    def add_static(self, transform: StampedTransform) -> None:
        """A link that the recording lacks, or has otherwise."""
        self.tree.add_static(transform)
        self.static_transforms[transform.child] = transform


def survey(recording: Recording, poses: PoseConfig, child_suffix: str) -> Survey:
    """Reads the first message of every picture, camera_info and odometry topic, and all of TF for its frames.

    Topics of ours are left out, and poses of ours, which `child_suffix` tells.
    """
    own_poses = OwnPoses(recording, child_suffix)
    images = [_image_topic(topic, msg) for topic, msg in _first_messages(recording, own_poses, *IMAGE_TYPES)]
    odometries = [_odometry_topic(topic, msg) for topic, msg in _first_messages(recording, own_poses, ODOMETRY_TYPE)]
    tree, static_transforms = _transform_frames(recording, own_poses, poses)
    return Survey(
        images=tuple(image for image in images if image is not None),
        infos=dict(_first_messages(recording, own_poses, INFO_TYPE)),
        odometries=tuple(odometry for odometry in odometries if odometry is not None),
        tree=tree,
        own_poses=own_poses,
        static_transforms=static_transforms,
    )


def _first_messages(recording: Recording, own_poses: OwnPoses, *types: str) -> Iterator[tuple[str, Any]]:
    by_topic: dict[str, list[Connection]] = {}
    for connection in connections_of(recording, *types):
        by_topic.setdefault(connection.topic, []).append(connection)
    for topic, connections in by_topic.items():
        for _, _, msg in _readable_messages(recording, own_poses, connections):
            yield topic, msg
            break


def _image_topic(topic: str, msg: Any) -> ImageTopic | None:
    encoding = getattr(msg, "encoding", None) or msg.format
    if encoding.split(";")[0].strip() in DEPTHS:
        log.info("%s holds depth (%s), not pictures: left out", topic, encoding)
        return None
    return ImageTopic(topic, msg.header.frame_id.lstrip("/"))


def _odometry_topic(topic: str, msg: Any) -> OdometryTopic | None:
    try:
        first = transform_from_odometry(msg)
    except MessageError as error:
        log.warning("%s left out: %s", topic, error)
        return None
    return OdometryTopic(topic, first.parent, first.child)


def _transform_frames(recording: Recording, own_poses: OwnPoses, poses: PoseConfig) -> tuple[TransformTree, dict[str, StampedTransform]]:
    tree, static_transforms = TransformTree(poses), {}
    for connection, topic, msg in _readable_messages(recording, own_poses, connections_of(recording, *TF_TYPES)):
        for transform in _usable_transforms(topic, msg):
            if is_static_tf(connection):
                tree.add_static(transform)
                static_transforms[transform.child] = transform
            else:
                tree.declare(transform)
    return tree, static_transforms


def _usable_transforms(topic: str, msg: Any) -> Sequence[StampedTransform]:
    try:
        return transforms_from_msg(msg)
    except MessageError as error:
        log.debug("%s: %s", topic, error)
        return ()


def _readable_messages(
    recording: Recording, own_poses: OwnPoses, connections: Sequence[Connection]
) -> Iterator[tuple[Connection, str, Any]]:
    """Messages up to where the recording is damaged, those that cannot be parsed left out: the job itself reports both."""
    for connection, _, raw in own_poses.leave_out_of(_until_damage(recording.messages(connections))):
        msg = _parsed(recording, connection, raw)
        if msg is not None:
            yield connection, connection.topic, msg


def _parsed(recording: Recording, connection: Connection, raw: bytes) -> Any | None:
    try:
        return recording.deserialize(raw, connection.msgtype)
    except BagError as error:
        log.debug("%s: %s", connection.topic, error)
        return None


def _until_damage(messages: Iterable[T]) -> Iterator[T]:
    try:
        yield from messages
    except DamagedError as error:
        log.debug("%s", error)
