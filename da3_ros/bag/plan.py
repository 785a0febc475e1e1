"""Which topics are processed and where poses come from: chosen from a survey, by itself where that is clear, by options where not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ..from_msg import StampedTransform
from ..tf_tree import TransformError, TransformTree
from ..to_msg import OWN_WORLD
from .recording import BagError
from .survey import ImageTopic, OdometryTopic, Survey

log = logging.getLogger(__name__)
WORLD_NAMES = ("odom", "map", "world")  # odom first: it is the one without jumps (REP 105)


@dataclass(frozen=True)
class SourceOptions:
    """What the user says about the recording; empty: find out."""

    cameras: tuple[str, ...] = ()  # [NAME=]IMAGE_TOPIC[,INFO_TOPIC]
    odometry: str = ""  # a topic, "tf" or "none"
    world_frame: str = ""


@dataclass(frozen=True)
class Camera:
    name: str
    image: ImageTopic
    info_topic: str | None
    frame_id: str


@dataclass(frozen=True)
class PosePlan:
    """T_world_base from an odometry topic, or from TF (`topic` None); T_base_cam from TF."""

    topic: str | None
    world_frame: str
    base_frame: str


@dataclass(frozen=True)
class Plan:
    cameras: tuple[Camera, ...]
    poses: PosePlan | None
    world_frame: str

    def describe(self) -> Iterator[str]:
        """One line per camera, and one for where poses come from."""
        for camera in self.cameras:
            calibrated = camera.info_topic or "no camera_info: the network's own intrinsics"
            yield f"camera {camera.name}: {camera.image.topic} ({calibrated}), frame {camera.frame_id}"
        if self.poses is None:
            yield f"poses: none known, they come from the network, in frame {self.world_frame}"
        else:
            source = self.poses.topic or "TF"
            yield f"poses: {source}, {self.poses.base_frame} in {self.world_frame}"


def make_plan(found: Survey, options: SourceOptions) -> Plan:
    """Raises BagError naming the options when there is no camera, or when the choice of cameras or odometry is not clear."""
    cameras = tuple(_named_cameras(found, options.cameras) if options.cameras else _found_cameras(found))
    poses = _choose_poses(found, cameras, options)
    return Plan(cameras, poses, poses.world_frame if poses else options.world_frame or OWN_WORLD)


def output_transforms(found: Survey, plan: Plan, child_suffix: str) -> list[StampedTransform]:
    """Static TF of the output: the recording's own, and what it takes to place a camera that the recording does not link with the world.

    Such a camera's tree is hung below our own frame by its root, which had no parent: no frame gets a second one. An earlier output's
    hangs there already.
    """
    hung: dict[str, StampedTransform] = {}
    own_frames = {camera.frame_id + child_suffix for camera in plan.cameras}
    for camera in plan.cameras:
        chain = found.tree.ancestors(camera.frame_id)
        root = chain[-1]
        if plan.world_frame in chain or root in hung or root in own_frames:
            continue
        if not found.tree.is_fixed(camera.frame_id, root):
            log.warning(
                "depth and poses are not linked: %s moves in %s, which TF does not know in %s", camera.frame_id, root, plan.world_frame
            )
            continue
        hung[root] = StampedTransform(0, camera.frame_id + child_suffix, root, found.tree.transform(camera.frame_id, root, 0))
    return [*found.static_transforms.values(), *hung.values()]


def _found_cameras(found: Survey) -> Iterator[Camera]:
    if not found.images:
        raise BagError("the recording has no topic of sensor_msgs/Image or CompressedImage pictures")
    for namespace, topics in groupby(sorted(found.images, key=lambda t: (t.namespace, t.topic)), key=lambda t: t.namespace):
        by_base: dict[str, ImageTopic] = {}
        for topic in topics:  # sorted: the raw transport before the compressed one
            by_base.setdefault(topic.base, topic)
        if len(by_base) > 1:
            choices = " or ".join(f"--camera {topic.topic}" for topic in by_base.values())
            raise BagError(f"{namespace or '/'} has {len(by_base)} picture topics; choose with {choices}")
        image = next(iter(by_base.values()))
        yield _camera(found, image, _name_from_namespace(namespace), f"{namespace}/camera_info")


def _named_cameras(found: Survey, specifications: tuple[str, ...]) -> Iterator[Camera]:
    images = {image.topic: image for image in found.images}
    for specification in specifications:
        name, _, topics = specification.rpartition("=")
        topic, _, info_topic = topics.partition(",")
        if topic not in images:
            raise BagError(f"--camera {specification}: {topic} is no picture topic; there are {', '.join(images) or 'none'}")
        if info_topic and info_topic not in found.infos:
            raise BagError(f"--camera {specification}: {info_topic} is no camera_info topic; there are {', '.join(found.infos) or 'none'}")
        image = images[topic]
        yield _camera(found, image, name or _name_from_namespace(image.namespace), info_topic or f"{image.namespace}/camera_info")


def _camera(found: Survey, image: ImageTopic, name: str, info_topic: str) -> Camera:
    info = found.infos.get(info_topic)
    if info is None:
        log.warning("%s has no camera_info on %s: the network's own intrinsics are used", image.topic, info_topic)
    frame_id = image.frame_id or _frame_id(info) or name
    return Camera(name, image, info_topic if info is not None else None, frame_id)


def _frame_id(info: Any) -> str:
    return "" if info is None else str(info.header.frame_id).lstrip("/")


def _name_from_namespace(namespace: str) -> str:
    return namespace.strip("/").replace("/", "_") or "camera"


def _choose_poses(found: Survey, cameras: tuple[Camera, ...], options: SourceOptions) -> PosePlan | None:
    if options.odometry == "none":
        return None
    if options.odometry == "tf":
        return _poses_from_tf(found.tree, cameras[0].frame_id, options.world_frame)
    if options.odometry:
        return _poses_from_named_odometry(found, cameras[0].frame_id, options)
    linked = [odometry for odometry in found.odometries if _is_usable(found.tree, odometry, cameras[0].frame_id, options.world_frame)]
    if len(linked) > 1:
        choices = " or ".join(f"--odometry {odometry.topic}" for odometry in linked)
        raise BagError(f"{len(linked)} odometry topics know the pose of {cameras[0].frame_id}; choose with {choices}, or --odometry none")
    if linked:
        return PosePlan(linked[0].topic, linked[0].parent, linked[0].child)
    try:
        return _poses_from_tf(found.tree, cameras[0].frame_id, options.world_frame)
    except BagError as error:
        log.warning("no poses: %s", error)
        return None


def _poses_from_named_odometry(found: Survey, frame_id: str, options: SourceOptions) -> PosePlan:
    odometry = next((o for o in found.odometries if o.topic == options.odometry), None)
    if odometry is None:
        known = ", ".join(o.topic for o in found.odometries) or "none"
        raise BagError(f"--odometry {options.odometry} is no odometry topic of the recording; there are {known}")
    if options.world_frame not in ("", odometry.parent):
        raise BagError(f"--world-frame {options.world_frame}: {odometry.topic} is in {odometry.parent}; take --odometry tf for another")
    try:
        found.tree.is_fixed(odometry.child, frame_id)
    except TransformError as error:
        raise BagError(f"--odometry {odometry.topic}: {error}; give the missing link with --static-transform") from error
    return PosePlan(odometry.topic, odometry.parent, odometry.child)


def _poses_from_tf(tree: TransformTree, frame_id: str, world_frame: str) -> PosePlan:
    try:
        moving = [frame for frame in tree.ancestors(frame_id)[1:] if not tree.is_fixed(frame, frame_id)]
    except TransformError as error:
        raise BagError(str(error)) from error
    if not moving:
        raise BagError(f"TF has no frame in which {frame_id} moves")
    if world_frame and world_frame not in moving:
        raise BagError(f"--world-frame {world_frame}: TF knows {frame_id} to move in {', '.join(moving)}")
    return PosePlan(None, world_frame or _usual_world(moving), frame_id)


def _usual_world(frames: list[str]) -> str:
    """The frame that REP 105 names, or else the root."""
    return next((frame for name in WORLD_NAMES for frame in frames if frame.rsplit("/", 1)[-1] == name), frames[-1])


def _is_usable(tree: TransformTree, odometry: OdometryTopic, frame_id: str, world_frame: str) -> bool:
    if world_frame not in ("", odometry.parent):
        return False
    try:
        tree.is_fixed(odometry.child, frame_id)
    except TransformError as error:
        log.warning("%s is not used: %s; give the missing link with --static-transform", odometry.topic, error)
        return False
    return True
