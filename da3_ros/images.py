"""Plain pictures or a video through the stream: an array file and a depth picture per image, and one coloured cloud."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from da3_core import Calibration, Engine, Float32Array, Frame, FrameResult, Stream, StreamConfig, Uint8Array, UnusableFrame

from .bag.files import new_folder
from .bag.job import stop_signals
from .view import world_points

log = logging.getLogger(__name__)
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
BETWEEN_PICTURES_NS = 1_000_000_000  # pictures have no stamps: each is a keyframe by time
CAMERA = "camera"
CLOUDS = ("cloud.glb", "cloud.ply")
PICTURE_END = "_depth.png"


@dataclass(frozen=True)
class ImageJob:
    """What `da3 images` is asked for."""

    inputs: tuple[Path, ...]
    output: Path
    every: int = 1
    fov_deg: float = 0.0  # horizontal, of undistorted pictures; 0: the network's own intrinsics
    most_points: int = 1_000_000
    force: bool = False

    def refuse_place(self) -> None:
        """Raises ValueError when the output is there, unless it is to be replaced and holds nothing that `run_images` does not write."""
        if not self.output.exists():
            return
        if not self.force:
            raise ValueError(f"{self.output} exists; --force replaces it")
        if not self.output.is_dir():
            raise ValueError(f"{self.output} is no directory; take another place")
        foreign = _foreign(self.output)
        if foreign:
            raise ValueError(
                f"{self.output} is no output of da3 images, it holds {foreign[0]}: --force does not replace it; take another place"
            )


@dataclass
class Written:
    """What a run left in its output, and how it ended."""

    output: Path
    pictures: int = 0
    has_cloud: bool = False
    ended: str = ""  # why before the last picture; empty: it did not
    exit_code: int = 0  # 1 failed, 128 + signal stopped

    def end(self, reason: str, exit_code: int) -> None:
        self.ended, self.exit_code = reason, exit_code

    def line(self) -> str:
        cloud = f"the cloud in {self.output}/{CLOUDS[0]} and {CLOUDS[1]}" if self.has_cloud else "no cloud"
        early = f"{self.ended}, after " if self.ended else ""
        return f"{early}{self.pictures} pictures: depth in {self.output}/*.npz and *{PICTURE_END}, {cloud}"


@dataclass(frozen=True)
class Picture:
    name: str
    stamp_ns: int
    image: Uint8Array  # (H, W, 3) RGB


class Cloud:
    """Points and colours of any number of pictures, of all the same share: it is halved whenever there are twice too many."""

    def __init__(self, most: int) -> None:
        self._most, self._every, self._count = most, 1, 0
        self._parts: list[tuple[Float32Array, Uint8Array]] = []

    def add(self, points: Float32Array, colours: Uint8Array) -> None:
        """(P, 3) each."""
        self._keep(points, colours, self._every)
        while self._count > 2 * self._most:
            points, colours = self._joined()
            self._parts, self._count, self._every = [], 0, 2 * self._every
            self._keep(points, colours, 2)

    def points(self) -> tuple[Float32Array, Uint8Array]:
        """At most `most`, spread evenly over what is there."""
        points, colours = self._joined()
        chosen = np.linspace(0, len(points) - 1, min(self._most, len(points))).round().astype(int)
        return points[chosen], colours[chosen]

    def _keep(self, points: Float32Array, colours: Uint8Array, every: int) -> None:
        self._parts.append((points[::every].copy(), colours[::every].copy()))  # a view would keep all
        self._count += len(self._parts[-1][0])

    def _joined(self) -> tuple[Float32Array, Uint8Array]:
        points, colours = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        return points, colours


def run_images(job: ImageJob, engine: Engine, config: StreamConfig) -> Written:
    """Writes <name>.npz and <name>_depth.png per picture, and cloud.glb and cloud.ply if any depth is known.

    An .npz holds depth (H, W), confidence (H, W) if there is one, K (3, 3) with the first pixel's centre at (0, 0), T_world_cam (4, 4)
    if there is one, and is_metric. The output takes its place at the end, also when SIGINT, SIGTERM or the network ended the run early.
    Raises ValueError, and leaves nothing, when there is nothing to read or the output exists.
    """
    import trimesh  # noqa: F401 - what writes the cloud in the end is missed at the beginning

    job.refuse_place()
    sources = list(_sources(job.inputs))
    written, cloud, stream = Written(job.output), Cloud(job.most_points), Stream(engine, config)
    with stop_signals() as stops, new_folder(job.output) as folder:
        folder.mkdir()
        with closing(_results(job, sources, stream, written, stops)) as results:
            for name, result in results:
                write_result(folder / name, result)
                cloud.add(*world_points(result))
        if not written.pictures:
            raise ValueError("none of the pictures could be used")
        written.has_cloud = _write_cloud(folder, *cloud.points())
    return written


def _results(
    job: ImageJob, sources: Sequence[Path], stream: Stream, written: Written, stops: Sequence[int]
) -> Generator[tuple[str, FrameResult], None, None]:
    """Sends pictures through the stream until they end, the network fails or a signal comes; `written` says which."""
    for picture in tqdm(_pictures(sources, job.every), total=_total(sources, job.every), unit="image", disable=None):
        if stops and written.pictures:
            written.end(f"stopped by {signal.Signals(stops[0]).name}", 128 + stops[0])
            return
        try:
            (result,) = stream.register([_frame(picture, job.fov_deg)])
        except UnusableFrame as error:
            log.warning("%s is left out: %s", picture.name, error)
            continue
        except Exception as error:
            if not written.pictures:
                raise
            log.debug("the engine's error", exc_info=True)
            written.end(f"the network failed at {picture.name}: {type(error).__name__}: {error}", 1)
            return
        for event in result.events:
            log.warning("%s: %s", picture.name, event)
        yield picture.name, result
        written.pictures += 1


def write_result(stem: Path, result: FrameResult) -> None:
    """`stem`.npz and `stem`_depth.png."""
    arrays: dict[str, npt.NDArray[Any]] = {"depth": result.depth_m, "K": result.K, "is_metric": np.array(result.scale.is_metric)}
    arrays |= {} if result.confidence is None else {"confidence": result.confidence}
    arrays |= {} if result.T_world_cam is None else {"T_world_cam": result.T_world_cam}
    np.savez_compressed(stem.with_name(f"{stem.name}.npz"), **arrays)  # type: ignore[arg-type] # allow_pickle: an array to numpy before 2.2
    if not cv2.imwrite(str(stem.with_name(f"{stem.name}{PICTURE_END}")), depth_picture(result.depth_m)[..., ::-1]):
        raise OSError(f"cannot write {stem}{PICTURE_END}: check the disk's space and rights")


def depth_picture(depth: Float32Array) -> Uint8Array:
    """(H, W, 3) RGB: near is bright, by inverse depth between its 2nd and 98th percentile; unknown is black."""
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        return np.zeros((*depth.shape, 3), np.uint8)
    inverse = np.where(known, 1.0 / np.where(known, depth, 1.0), 0.0)
    far, near = np.percentile(inverse[known], (2, 98))
    level = np.clip((inverse - far) / max(near - far, 1e-12), 0, 1)
    coloured = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.ascontiguousarray(np.where(known[..., None], coloured, 0).astype(np.uint8))


def _foreign(folder: Path) -> list[str]:
    """Names in a folder that `run_images` does not write: all but clouds and pairs of .npz and depth picture."""
    pairs = {p.stem for p in folder.glob("*.npz") if p.with_name(f"{p.stem}{PICTURE_END}").is_file()}
    ours = {*CLOUDS, *(f"{stem}{end}" for stem in pairs for end in (".npz", PICTURE_END))}
    return sorted(p.name for p in folder.iterdir() if p.name not in ours)


def _sources(inputs: Sequence[Path]) -> Iterator[Path]:
    for path in inputs:
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
            if not found:
                raise ValueError(f"{path} holds no pictures ({', '.join(PICTURES)})")
            yield from found
        elif not path.is_file():
            raise ValueError(f"{path} does not exist")
        elif path.suffix.lower() in PICTURES + VIDEOS:
            yield path
        else:
            raise ValueError(f"{path} is neither a picture ({', '.join(PICTURES)}) nor a video ({', '.join(VIDEOS)})")


def _total(sources: Sequence[Path], every: int) -> int | None:
    """How many pictures are to come; None where a video does not know its length, as those that browsers record."""
    counts = [1 if source.suffix.lower() in PICTURES else int(_open_video(source).get(cv2.CAP_PROP_FRAME_COUNT)) for source in sources]
    return math.ceil(sum(counts) / every) if all(count > 0 for count in counts) else None


def _pictures(sources: Sequence[Path], every: int) -> Iterator[Picture]:
    """Every n-th picture, under unique names and rising stamps."""
    taken: set[str] = set()
    end_ns = index = 0
    for source in sources:
        begin_ns = end_ns
        for name, offset_ns, image in _read(source):
            end_ns = begin_ns + offset_ns + BETWEEN_PICTURES_NS
            if index % every == 0:
                unique = name if name not in taken else f"{name}_{index:06d}"
                taken.add(unique)
                yield Picture(unique, begin_ns + offset_ns, image)
            index += 1


def _read(source: Path) -> Iterator[tuple[str, int, Uint8Array]]:
    """(name, time within the source, RGB)."""
    if source.suffix.lower() in PICTURES:
        image = cv2.imread(str(source), cv2.IMREAD_COLOR)
        if image is None:
            log.warning("%s cannot be read: left out", source)
        else:
            yield source.stem, 0, _rgb(image)
        return
    video = _open_video(source)
    fps = video.get(cv2.CAP_PROP_FPS) or 30.0
    for i in range(int(1e9)):
        is_read, image = video.read()
        if not is_read:
            break
        yield f"{source.stem}_{i:06d}", round(i * 1e9 / fps), _rgb(image)


def _open_video(source: Path) -> cv2.VideoCapture:
    video = cv2.VideoCapture(str(source))
    if not video.isOpened():
        raise ValueError(f"{source} is no readable video")
    return video


def _rgb(image: object) -> Uint8Array:
    return np.ascontiguousarray(np.asarray(image, np.uint8)[..., ::-1])


def _frame(picture: Picture, fov_deg: float) -> Frame:
    return Frame(CAMERA, CAMERA, picture.stamp_ns, picture.image, _calibration(picture.image, fov_deg))


def _calibration(image: Uint8Array, fov_deg: float) -> Calibration | None:
    if not fov_deg:
        return None
    height, width = image.shape[:2]
    f = width / (2 * math.tan(math.radians(fov_deg) / 2))
    return Calibration(width, height, np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]]))


def _write_cloud(folder: Path, points: Float32Array, colours: Uint8Array) -> bool:
    """In the world frame, which is the first camera's; for .glb, which viewers show with y up, turned about x. False: there is none."""
    import trimesh

    if not len(points):
        log.warning("no depth is known: no cloud is written; --scale.unknown relative gives depth in the network's units")
        return False
    rgba = np.column_stack([colours, np.full(len(colours), 255, np.uint8)])
    cloud = trimesh.PointCloud(points, colors=rgba)  # type: ignore[no-untyped-call]
    cloud.export(folder / CLOUDS[1])  # type: ignore[no-untyped-call]
    cloud.apply_transform(np.diag([1.0, -1.0, -1.0, 1.0]))  # type: ignore[no-untyped-call]
    trimesh.Scene(cloud).export(folder / CLOUDS[0])  # type: ignore[no-untyped-call]
    return True
