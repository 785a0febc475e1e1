"""What a run leaves besides the bag: a trajectory, and places that appear only when they are complete."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from da3_core import Float32Array, Float64Array, FrameResult, TumRgbdWriter, quaternion_from_rotation

from .measured import MeasuredDepth

log = logging.getLogger(__name__)
SUMMARY = "summary.json"


def tum_pose(T_world_cam: Float64Array) -> list[float]:
    """tx ty tz in metres, qx qy qz qw of a pose (4, 4)."""
    return [*T_world_cam[:3, 3].tolist(), *quaternion_from_rotation(torch.from_numpy(T_world_cam[:3, :3])).tolist()]


def tum_row(stamp_ns: int, pose: Sequence[float]) -> str:
    """A line of a TUM file: the stamp in seconds, to the nanosecond, and what `tum_pose` gives."""
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return f"{seconds}.{nanoseconds:09d}" + "".join(f" {number:.9f}" for number in pose) + "\n"


class TrajectoryFile:
    """TUM format of one camera's poses in the world frame."""

    def __init__(self, path: Path, camera: str) -> None:
        self._file, self._camera = path.open("w"), camera

    def write(self, results: Sequence[FrameResult]) -> None:
        """The camera's pose in one synchronised set, if it has one."""
        for result in results:
            if result.camera == self._camera and result.T_world_cam is not None:
                self._file.write(tum_row(result.stamp_ns, tum_pose(result.T_world_cam)))

    def close(self) -> None:
        self._file.close()


class DatasetFolder:
    """One camera's images, depth (measured, else the results') and poses in the TUM RGB-D layout."""

    def __init__(self, folder: Path, camera: str, measured: MeasuredDepth | None = None) -> None:
        self._camera, self._measured = camera, measured
        self._writer, self._written, self._left_out = TumRgbdWriter(folder), 0, Counter[str]()

    def write(self, results: Sequence[FrameResult]) -> None:
        """The results of one synchronised set."""
        for result in results:
            if result.camera == self._camera:
                self._write(result)

    def close(self) -> None:
        """Finish the lists, and say what is not in them."""
        self._writer.close()
        reasons = [f"{count} {reason}" for reason, count in self._left_out.items()]
        level = logging.INFO if self._written else logging.WARNING
        log.log(level, "dataset: %d frames; left out: %s", self._written, ", ".join(reasons) or "none")

    def _write(self, result: FrameResult) -> None:
        depth_m, reason = self._depth(result)
        if depth_m is None:
            self._left_out[reason] += 1
            return
        self._writer.write(result.stamp_ns, result.image, depth_m, result.K, result.T_world_cam)
        self._written += 1

    def _depth(self, result: FrameResult) -> tuple[Float32Array | None, str]:
        """Depth, or why there is none. What was measured is to judge networks by: no pose of theirs goes with it."""
        if self._measured is None:
            return (result.depth_m if result.scale.is_metric else None), "without metres"
        if result.mode != "posed":
            return None, "without a given pose"
        return self._measured.of(result), "without measured depth within 20 ms"


@contextmanager
def new_bag(output: Path) -> Iterator[Path]:
    """A temporary directory to write a bag and its summary.json in, which take their places when the block ends without an error.

    An `output` that ends in .mcap becomes the bag's one file, any other name the bag's directory.
    """
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
        bag = Path(folder) / output.stem
        yield bag
        if output.exists():
            output.replace(Path(folder) / "replaced")
        if output.suffix == ".mcap":
            (bag / f"{bag.name}.mcap").replace(output)
            (bag / SUMMARY).replace(summary_path(output))
        else:
            bag.replace(output)


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A temporary directory that becomes `output` when the block ends without an error."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
        yield Path(folder) / "new"
        if output.exists():
            output.replace(Path(folder) / "replaced")
        (Path(folder) / "new").replace(output)


@contextmanager
def new_file(output: Path) -> Iterator[Path]:
    """A temporary name beside `output`, which it takes when the block ends without an error."""
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.part")
    try:
        yield part
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


def summary_path(output: Path) -> Path:
    """summary.json in the bag's directory, or <name>.summary.json beside its one file."""
    return output.with_suffix(f".{SUMMARY}") if output.suffix == ".mcap" else output / SUMMARY
