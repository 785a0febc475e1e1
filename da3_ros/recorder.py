"""What the save service writes: the coloured cloud seen so far, one point per voxel, and the trajectory. Both are bounded."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

import numpy as np
import numpy.typing as npt

from da3_core import FrameResult

from .bag.files import new_file, tum_pose, tum_row
from .view import world_points

BITS = 21  # of a voxel's index along each axis: a million voxels to either side of the origin
MAX_POSES = 200_000
PLY_DTYPE = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])


class VoxelCloud:
    """The first point seen in every voxel, up to a number of voxels. `voxel_m` = 0 keeps none."""

    def __init__(self, voxel_m: float, max_points: int) -> None:
        self._voxel_m = voxel_m
        self._max_points = max_points
        self._keys = np.empty(0, np.int64)  # sorted
        self._points = np.empty(0, PLY_DTYPE)  # in the order of _keys

    @property
    def points(self) -> npt.NDArray[np.void]:
        return self._points

    def add(self, points: npt.NDArray[np.void]) -> None:
        """Points (M,) of PLY_DTYPE, metres in the world frame."""
        if not self._voxel_m or len(self._keys) >= self._max_points:
            return
        keys, first = np.unique(_voxel_keys(points, self._voxel_m), return_index=True)
        at = np.searchsorted(self._keys, keys)
        is_new = np.append(self._keys, -1)[at] != keys  # keys are not negative
        is_new &= np.cumsum(is_new) <= self._max_points - len(self._keys)
        self._keys = np.insert(self._keys, at[is_new], keys[is_new])
        self._points = np.insert(self._points, at[is_new], points[first[is_new]])


class Recorder:
    """Filled by the worker, saved by a service."""

    def __init__(self, voxel_m: float, max_points: int) -> None:
        self._voxel_m, self._max_points = voxel_m, max_points
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        with self._lock:
            self._cloud = VoxelCloud(self._voxel_m, self._max_points)
            self._stamps_ns, self._poses = array("q"), array("d")  # of a TUM file's rows; a pose has seven numbers
            self._next_cloud_ns: dict[str, int] = {}

    def add(self, results: Sequence[FrameResult], interval_s: float) -> None:
        """One synchronised set: the pose of the first, and every camera's points, which are taken once per interval."""
        with self._lock:
            self._add_pose(results[0])
            for result in results:
                is_placed = result.T_world_cam is not None and result.scale.is_metric
                if is_placed and result.stamp_ns >= self._next_cloud_ns.get(result.camera, result.stamp_ns):
                    self._next_cloud_ns[result.camera] = result.stamp_ns + int(1e9 * interval_s)
                    self._cloud.add(_coloured_points(result))

    def save(self, folder: Path) -> str:
        """Writes cloud.ply and trajectory.tum into a folder that is made where needed, and says what was written. Raises OSError.

        Where one of them is there already, both get the next number that is free: cloud-2.ply and trajectory-2.tum.
        """
        with self._lock:
            points, stamps_ns, poses = self._cloud.points, self._stamps_ns[:], self._poses[:]  # copies: the arrays grow on
        cloud, trajectory = _free_names(folder.resolve())
        with new_file(cloud) as cloud_part, new_file(trajectory) as trajectory_part:
            _write_ply(cloud_part, points)
            with trajectory_part.open("w") as file:
                file.writelines(tum_row(stamp_ns, poses[7 * i : 7 * i + 7]) for i, stamp_ns in enumerate(stamps_ns))
        return f"{len(points)} points and {len(stamps_ns)} poses in {cloud} and {trajectory}"

    def _add_pose(self, result: FrameResult) -> None:
        if result.T_world_cam is None:
            return
        self._stamps_ns.append(result.stamp_ns)
        self._poses.extend(tum_pose(result.T_world_cam))
        if len(self._stamps_ns) > MAX_POSES:
            self._stamps_ns = self._stamps_ns[::2]
            self._poses = array("d", np.asarray(self._poses).reshape(-1, 7)[::2].tobytes())


def _free_names(folder: Path) -> tuple[Path, Path]:
    """Of a cloud and its trajectory."""
    suffixes = chain([""], (f"-{number}" for number in count(2)))
    pairs = ((folder / f"cloud{suffix}.ply", folder / f"trajectory{suffix}.tum") for suffix in suffixes)
    return next(pair for pair in pairs if not any(path.exists() for path in pair))


def _coloured_points(result: FrameResult) -> npt.NDArray[np.void]:
    """Known points in the world frame."""
    xyz, rgb = world_points(result)
    points = np.empty(len(xyz), PLY_DTYPE)
    for column, values in zip(PLY_DTYPE.names or (), (*xyz.T, *rgb.T), strict=True):
        points[column] = values
    return points


def _voxel_keys(points: npt.NDArray[np.void], voxel_m: float) -> npt.NDArray[np.int64]:
    key = np.zeros(len(points), np.int64)
    for axis in "xyz":
        index = np.floor(points[axis].astype(np.float64) / voxel_m).astype(np.int64) + (1 << BITS - 1)
        key = key << BITS | np.clip(index, 0, (1 << BITS) - 1)
    return key


def _write_ply(path: Path, points: npt.NDArray[np.void]) -> None:
    properties = [f"property {'float' if points.dtype[name].kind == 'f' else 'uchar'} {name}" for name in PLY_DTYPE.names or ()]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties, "end_header"]
    path.write_bytes("\n".join([*header, ""]).encode() + points.tobytes())
