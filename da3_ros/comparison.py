"""A processed drive against its truth: numbers for a table, and pictures for a sheet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from da3_core import DepthRectifier, Float32Array, Float64Array, TrajectoryErrors, Uint8Array, depth_metrics, trajectory_errors

from .bag.recording import Recording
from .drive import CAMERA, TRUE_DEPTH, TRUE_POSE
from .from_msg import calibration_from_msg, depth_from_image, rgb_from_image, rigid_from_msg, stamp_ns
from .to_msg import POINT_DTYPE

DEPTH, INFO, POINTS, POSE = (f"/da3{CAMERA}/{name}" for name in ("depth/image", "depth/camera_info", "points", "pose"))
POINTS_PER_FRAME = 4000


@dataclass(frozen=True)
class ComparedFrame:
    """One image: published depth, and the true depth of the same pixels (NaN where there is none)."""

    image: Uint8Array  # (h, w, 3)
    depth_m: Float32Array  # (H, W)
    true_depth_m: Float32Array  # (H, W)


@dataclass(frozen=True)
class DepthScore:
    """One frame, over the pixels where both depths are known."""

    abs_rel: float
    delta1: float
    abs_rel_scaled: float  # after the ratio of medians
    scale_error: float  # relative
    known: float  # share of the pixels with true depth


@dataclass(frozen=True)
class Path3D:
    """Camera poses (N, 4, 4) at stamps (N,)."""

    stamps_ns: Any
    T_world_cam: Float64Array


def compared_frames(drive: Path, output: Path) -> Iterator[ComparedFrame]:
    """Every image that has published depth, in order."""
    with Recording(drive) as truth, Recording(output) as published:
        calibration = calibration_from_msg(next(messages_of(truth, f"{CAMERA}/camera_info")))
        if calibration is None:
            raise ValueError(f"{drive}: {CAMERA} is not calibrated")
        rectified = DepthRectifier(calibration)
        inputs = zip(messages_of(truth, f"{CAMERA}/image_raw"), messages_of(truth, TRUE_DEPTH), strict=True)
        for depth, info in zip(messages_of(published, DEPTH), messages_of(published, INFO), strict=True):
            image, true_depth = next(pair for pair in inputs if pair[0].header.stamp == depth.header.stamp)
            true_depth_m = rectified(depth_from_image(true_depth), np.asarray(info.k).reshape(3, 3), (info.width, info.height))
            yield ComparedFrame(rgb_from_image(image), depth_from_image(depth), true_depth_m)


def score_depth(frame: ComparedFrame) -> DepthScore | None:
    """None where no pixel can be compared."""
    has_truth = np.isfinite(frame.true_depth_m)
    valid = has_truth & np.isfinite(frame.depth_m)
    if not valid.any():
        return None
    depth, truth = (torch.from_numpy(d[valid]) for d in (frame.depth_m, frame.true_depth_m))
    plain, scaled = (depth_metrics(depth, truth, torch.ones_like(depth, dtype=torch.bool), align) for align in ("none", "median"))
    return DepthScore(
        abs_rel=float(plain.abs_rel),
        delta1=float(plain.delta1),
        abs_rel_scaled=float(scaled.abs_rel),
        scale_error=float(depth.median() / truth.median()) - 1.0,
        known=float(valid.sum() / has_truth.sum()),
    )


def score_frames(frames: Iterable[ComparedFrame]) -> list[DepthScore]:
    """Of every frame that can be compared."""
    return [score for frame in frames if (score := score_depth(frame)) is not None]


def read_path(bag: Path, topic: str) -> Path3D:
    """The PoseStamped messages of a topic."""
    with Recording(bag) as recording:
        poses = [(stamp_ns(msg.header.stamp), rigid_from_msg(msg.pose)) for msg in messages_of(recording, topic)]
    return Path3D(np.array([stamp for stamp, _ in poses], np.int64), np.array([T for _, T in poses]).reshape(-1, 4, 4))


def path_errors(drive: Path, output: Path) -> TrajectoryErrors:
    """Published camera poses against the true ones, after a rigid alignment; raises ValueError when they cannot be compared."""
    true, found = read_path(drive, TRUE_POSE), read_path(output, POSE)
    return trajectory_errors(found.stamps_ns, found.T_world_cam, true.stamps_ns, true.T_world_cam)


def read_cloud(output: Path) -> tuple[Float64Array, Uint8Array]:
    """All published points with a pose (P, 3) in its frame, thinned, and their colours (P, 3)."""
    points, colours = [np.empty((0, 3))], [np.empty((0, 3), np.uint8)]
    with Recording(output) as recording:
        poses = {stamp_ns(msg.header.stamp): rigid_from_msg(msg.pose) for msg in messages_of(recording, POSE)}
        for msg in messages_of(recording, POINTS):
            T = poses.get(stamp_ns(msg.header.stamp))
            if T is not None:
                xyz, rgb = _points(msg)
                every = len(xyz) // POINTS_PER_FRAME + 1
                points.append(xyz[::every] @ T[:3, :3].T + T[:3, 3])
                colours.append(rgb[::every])
    return np.concatenate(points), np.concatenate(colours)


def messages_of(recording: Recording, topic: str) -> Iterator[Any]:
    """The messages of one topic, parsed."""
    for connection, _, raw in recording.messages([c for c in recording.connections if c.topic == topic]):
        yield recording.deserialize(raw, connection.msgtype)


def _points(msg: Any) -> tuple[Float64Array, Uint8Array]:
    dtype = np.dtype([(field.name, POINT_DTYPE[field.name]) for field in msg.fields])
    points = np.frombuffer(msg.data, dtype)
    points = points[np.isfinite(points["z"])]
    rgb = points["rgb"]
    xyz = np.stack([points[axis] for axis in "xyz"], -1).astype(np.float64)
    return xyz, np.stack([rgb >> 16 & 255, rgb >> 8 & 255, rgb & 255], -1).astype(np.uint8)
