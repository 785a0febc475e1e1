"""The TUM RGB-D layout (Sturm et al. 2012), read and written.

rgb.txt, depth.txt     "seconds file" per line, "#" starts a comment
groundtruth.txt        "seconds tx ty tz qx qy qz qw" of the camera in the world
rgb/, depth/           8-bit colour and 16-bit depth in 1/5000 m, 0 where unknown
calibration.txt        "fx fy cx cy" in pixels, the first pixel's centre at (0, 0); our addition, rectified images are assumed
"""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import torch

from da3_core.datasets.recording import RecordedFrame
from da3_core.geometry.rigid import interpolate_rigid, quaternion_from_rotation, rigid_from_rt, rotation_from_quaternion
from da3_core.types import Float32Array, Float64Array, Uint8Array

CALIBRATION = 'one line "fx fy cx cy" in pixels, the first pixel\'s centre at (0, 0)'
DEPTH_PER_METRE = 5000.0
MAX_DEPTH_GAP_NS = 20_000_000  # between an image and its depth
MAX_POSE_GAP_NS = 100_000_000  # between two poses that one is interpolated from
PUBLISHED = {  # of the original sequences, by the camera in the folder's name
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}


class TumRgbdRecording:
    """The frames of a folder that have an image, depth and a pose."""

    def __init__(self, folder: Path | str) -> None:
        """Raises ValueError saying which file is missing or what is wrong in it."""
        self.folder = Path(folder)
        self.K = _read_K(self.folder)
        rgb, depth = _read_list(self.folder / "rgb.txt", 1), _read_list(self.folder / "depth.txt", 1)
        poses = _read_poses(self.folder / "groundtruth.txt")
        depth_stamps, pose_stamps = [s for s, _ in depth], [s for s, _ in poses]
        self.frames: list[tuple[int, str, str, Float64Array]] = []
        for stamp, (image_file,) in rgb:
            nearest = _nearest(depth_stamps, stamp)
            T_world_cam = _pose_at(pose_stamps, poses, stamp)
            if nearest is not None and T_world_cam is not None:
                self.frames.append((stamp, image_file, depth[nearest][1][0], T_world_cam))
        if not self.frames:
            raise ValueError(f"{self.folder}: no image has depth within 20 ms and poses around it: check that the clocks agree")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)

    def __getitem__(self, index: int) -> RecordedFrame:
        """Read one frame; raises ValueError when a file is missing or no picture, or when depth is not the image's."""
        stamp, image_file, depth_file, T_world_cam = self.frames[index]
        image = _read_picture(self.folder / image_file, cv2.IMREAD_COLOR)
        depth_m = _read_depth(self.folder / depth_file, image.shape[:2])
        return RecordedFrame(stamp, np.ascontiguousarray(image[..., ::-1]), depth_m, self.K, T_world_cam)


class TumRgbdWriter:
    """Writes one camera's frames as a new folder; a context manager."""

    def __init__(self, folder: Path | str) -> None:
        """Raises FileExistsError when the folder holds something."""
        self.folder = Path(folder)
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise FileExistsError(f"{self.folder} is not empty: choose another folder, or remove it first")
        for name in ("rgb", "depth"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.lists = {name: (self.folder / f"{name}.txt").open("w") for name in ("rgb", "depth", "groundtruth")}
        self.K: Float64Array | None = None

    def write(self, stamp_ns: int, image: Uint8Array, depth_m: Float32Array, K: Float64Array, T_world_cam: Float64Array | None) -> None:
        """Add a frame.

        image (H, W, 3) RGB; depth_m (H, W), not finite or beyond 13.1 m is written as unknown; K (3, 3) with the first pixel's centre at
        (0, 0), the same for all frames (ValueError); T_world_cam (4, 4) in metres, or None for a frame without a pose.
        """
        if self.K is None:
            self.K = K
            (self.folder / "calibration.txt").write_text(f"# fx fy cx cy\n{K[0, 0]:.9g} {K[1, 1]:.9g} {K[0, 2]:.9g} {K[1, 2]:.9g}\n")
        elif not np.allclose(self.K, K, rtol=1e-6):
            raise ValueError("K changed within a recording: the TUM layout has one calibration, write a folder per calibration")
        stamp = seconds_from_ns(stamp_ns)
        units = np.nan_to_num(depth_m, nan=0.0, posinf=0.0, neginf=0.0) * DEPTH_PER_METRE
        units = np.where(units < 65535.5, np.rint(units), 0).astype(np.uint16)
        _write_picture(self.folder / "rgb" / f"{stamp}.png", np.ascontiguousarray(image[..., ::-1]))
        _write_picture(self.folder / "depth" / f"{stamp}.png", units)
        self.lists["rgb"].write(f"{stamp} rgb/{stamp}.png\n")
        self.lists["depth"].write(f"{stamp} depth/{stamp}.png\n")
        if T_world_cam is not None:
            q_xyzw = quaternion_from_rotation(torch.from_numpy(T_world_cam[:3, :3]))
            numbers = (*T_world_cam[:3, 3].tolist(), *q_xyzw.tolist())
            self.lists["groundtruth"].write(stamp + "".join(f" {x:.9f}" for x in numbers) + "\n")

    def close(self) -> None:
        """Finish the lists."""
        for file in self.lists.values():
            file.close()

    def __enter__(self) -> TumRgbdWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def seconds_from_ns(stamp_ns: int) -> str:
    """Seconds with nine decimals, exactly."""
    return f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}"


def ns_from_seconds(text: str) -> int:
    """Nanoseconds of a decimal number of seconds, exactly: a float would lose a quarter of a microsecond."""
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 10**9 + int((fraction + "0" * 9)[:9])


def _read_list(path: Path, columns: int) -> list[tuple[int, list[str]]]:
    if not path.is_file():
        raise ValueError(f"{path.parent} has no {path.name}: it is not in the TUM RGB-D layout")
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 1 + columns:
            raise ValueError(f"{path}:{number} has {len(words)} columns, not {1 + columns}: {line!r}")
        try:
            rows.append((ns_from_seconds(words[0]), words[1:]))
        except ValueError as error:
            raise ValueError(f"{path}:{number} does not begin with seconds like 1305031102.175304: {line!r}") from error
    return sorted(rows)


def _read_poses(path: Path) -> list[tuple[int, list[float]]]:
    rows = []
    for stamp, words in _read_list(path, 7):
        numbers = _floats(words)
        if not np.isfinite(numbers).all() or not any(numbers[3:]):
            wanted = "tx ty tz qx qy qz qw, the quaternion not zero: correct it, or leave the line out"
            raise ValueError(f"{path} has no pose at {seconds_from_ns(stamp)} but {' '.join(words)!r}; it takes {wanted}")
        rows.append((stamp, numbers))
    return rows


def _floats(words: list[str]) -> list[float]:
    """What the words say, none when one is no number."""
    try:
        return [float(word) for word in words]
    except ValueError:
        return []


def _read_K(folder: Path) -> Float64Array:
    path = folder / "calibration.txt"
    published = next((numbers for camera, numbers in PUBLISHED.items() if camera in folder.resolve().name), None)
    if path.is_file():
        fx, fy, cx, cy = _read_calibration(path)
    elif published:
        fx, fy, cx, cy = published
    else:
        raise ValueError(f"{folder} has no calibration.txt: write {CALIBRATION}")
    return np.array([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]])


def _read_calibration(path: Path) -> list[float]:
    lines = [line.strip() for line in path.read_text().splitlines()]
    line = next((line for line in lines if line and not line.startswith("#")), "")
    numbers = _floats(line.split())
    if len(numbers) != 4:
        raise ValueError(f"{path} says {line!r}: write {CALIBRATION}")
    return numbers


def _nearest(stamps: list[int], stamp: int) -> int | None:
    """Index of the stamp nearest to `stamp`, if it is near enough."""
    i = bisect_left(stamps, stamp)
    around = [j for j in (i - 1, i) if 0 <= j < len(stamps) and abs(stamps[j] - stamp) <= MAX_DEPTH_GAP_NS]
    return min(around, key=lambda j: abs(stamps[j] - stamp), default=None)


def _pose_at(stamps: list[int], poses: list[tuple[int, list[float]]], stamp: int) -> Float64Array | None:
    """T_world_cam at a stamp, interpolated between two poses near enough to each other."""
    i = bisect_left(stamps, stamp)
    if i < len(stamps) and stamps[i] == stamp:
        return _pose(poses[i][1]).numpy()
    if not 0 < i < len(stamps) or stamps[i] - stamps[i - 1] > MAX_POSE_GAP_NS:
        return None
    alpha = (stamp - stamps[i - 1]) / (stamps[i] - stamps[i - 1])
    return interpolate_rigid(_pose(poses[i - 1][1]), _pose(poses[i][1]), alpha).numpy()


def _pose(numbers: list[float]) -> torch.Tensor:
    pose = torch.tensor(numbers, dtype=torch.float64)
    return rigid_from_rt(rotation_from_quaternion(pose[3:]), pose[:3])


def _read_depth(path: Path, size: tuple[int, ...]) -> Float32Array:
    """Metres, of the image's size (H, W)."""
    units = _read_picture(path, cv2.IMREAD_UNCHANGED)
    if units.ndim != 2 or units.dtype != np.uint16:
        found = f"{units.dtype.itemsize * 8} bits" + (f" in {units.shape[2]} channels" if units.ndim > 2 else "")
        raise ValueError(f"{path} holds {found}: depth is written with 16 bits in one channel, in 1/5000 m, 0 where unknown")
    if units.shape != size:
        sizes = [f"{width}x{height}" for height, width in (units.shape, size)]
        raise ValueError(f"{path} is {sizes[0]} and its image {sizes[1]}: register depth to the image, pixel by pixel")
    return (units / DEPTH_PER_METRE).astype(np.float32)


def _read_picture(path: Path, mode: int) -> Uint8Array:
    picture = cv2.imread(str(path), mode)
    if picture is None:
        raise ValueError(f"{path} is missing or is no picture")
    return picture  # type: ignore[return-value]


def _write_picture(path: Path, picture: object) -> None:
    if not cv2.imwrite(str(path), picture):  # type: ignore[call-overload]
        raise OSError(f"cannot write {path}: check the disk's space and rights")
