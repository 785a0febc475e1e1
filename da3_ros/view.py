"""Results -> a rerun recording (.rrd): images, depth, clouds, camera poses, the path, and what the stream says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from da3_core import Float32Array, Float64Array, FrameResult, K_from_ros, Uint8Array, unproject

APPLICATION = "da3"
MOST_POINTS = 20_000  # of a cloud: a viewer shows hundreds of them at once
JPEG_QUALITY = 85


class RerunRecording:
    """Streams to the file, so that memory stays flat. World entities are in the world frame, in metres where the scale is known."""

    def __init__(self, path: Path) -> None:
        import rerun as rr

        self._rr = rr
        self._recording = rr.RecordingStream(APPLICATION)
        self._recording.save(path)
        self._recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        self._path_points: dict[str, list[Float64Array]] = {}

    def write(self, results: Sequence[FrameResult]) -> None:
        """One synchronised set."""
        for result in results:
            self._recording.set_time("stamp", timestamp=np.datetime64(result.stamp_ns, "ns"))
            self._log_camera(result)
            self._log_cloud(result)
        self._log_stream(results[0])

    def close(self) -> None:
        """Adds the whole paths and ends the file."""
        for camera, points in self._path_points.items():
            self._recording.log(f"world/path/{camera}", self._rr.LineStrips3D([np.stack(points)]), static=True)
        self._recording.flush()
        self._recording.disconnect()

    def _log_camera(self, result: FrameResult) -> None:
        rr, entity = self._rr, f"world/camera/{result.camera}"
        height, width = result.depth_m.shape
        self._recording.log(entity, rr.Pinhole(image_from_camera=result.K, resolution=(width, height), image_plane_distance=0.3))
        self._recording.log(f"{entity}/image", rr.Image(result.image).compress(jpeg_quality=JPEG_QUALITY))
        self._recording.log(f"{entity}/depth", rr.DepthImage(np.nan_to_num(result.depth_m), meter=1.0))
        T = result.T_world_cam
        if T is not None:
            self._recording.log(entity, rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]))
            self._path_points.setdefault(result.camera, []).append(T[:3, 3])

    def _log_cloud(self, result: FrameResult) -> None:
        points, colours = world_points(result)
        every = len(points) // MOST_POINTS + 1
        self._recording.log(f"world/cloud/{result.camera}", self._rr.Points3D(points[::every], colors=colours[::every]))

    def _log_stream(self, result: FrameResult) -> None:
        rr = self._rr
        self._recording.log("stream/scale", rr.Scalars(result.scale.value))
        self._recording.log("stream/mode", rr.TextLog(f"{result.mode}: {result.mode_reason}; scale from {result.scale.source}"))
        for event in result.events:
            self._recording.log("stream/events", rr.TextLog(event, level="WARN"))


def world_points(result: FrameResult) -> tuple[Float32Array, Uint8Array]:
    """Known points (P, 3) in the world frame (the camera's where it has no pose) and their colours (P, 3), 0 to 255."""
    known = np.isfinite(result.depth_m)
    points = unproject(torch.from_numpy(result.depth_m), K_from_ros(torch.from_numpy(result.K)).float()).numpy()[known]
    T = np.eye(4) if result.T_world_cam is None else result.T_world_cam
    return (points @ T[:3, :3].T + T[:3, 3]).astype(np.float32), result.image[known]
