"""What a run leaves besides the bag: a trajectory, and places that appear only when they are complete."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from da3_core import FrameResult, TumRgbdWriter, quaternion_from_rotation

from .measured import MeasuredDepth

SUMMARY = "summary.json"


class TrajectoryFile:
    """TUM format of the anchor camera's poses in the world frame: seconds, tx ty tz in metres, qx qy qz qw."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")

    def write(self, results: Sequence[FrameResult]) -> None:
        """The first result of one synchronised set, if it has a pose."""
        T = results[0].T_world_cam
        if T is None:
            return
        seconds, nanoseconds = divmod(results[0].stamp_ns, 1_000_000_000)
        quaternion = quaternion_from_rotation(torch.from_numpy(T[:3, :3])).tolist()
        self._file.write(f"{seconds}.{nanoseconds:09d} " + " ".join(f"{v:.9g}" for v in [*T[:3, 3], *quaternion]) + "\n")

    def close(self) -> None:
        self._file.close()


class DatasetFolder:
    """The anchor camera's images, depth (measured, else the results') and poses in the TUM RGB-D layout. Without metres, nothing."""

    def __init__(self, folder: Path, measured: MeasuredDepth | None = None) -> None:
        self._writer, self._measured = TumRgbdWriter(folder), measured

    def write(self, results: Sequence[FrameResult]) -> None:
        """The first result of one synchronised set."""
        result = results[0]
        if self._measured is None:
            depth_m = result.depth_m if result.scale.is_metric else None
        else:  # given poses are in metres, whether or not the results are
            depth_m = self._measured.of(result) if result.mode == "posed" or result.scale.is_metric else None
        if depth_m is not None:
            self._writer.write(result.stamp_ns, result.image, depth_m, result.K, result.T_world_cam)

    def close(self) -> None:
        self._writer.close()


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
