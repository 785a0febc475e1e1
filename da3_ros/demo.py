"""`da3 demo`: a rendered drive through a room, processed as any recording is, and compared with the truth."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from da3_core import DEMO, CheckpointError, Engine, Float64Array, PathSettings, RobotPath, TrajectoryErrors, robot_path, trajectory_errors

from .bag.files import new_folder
from .bag.job import BagJob, run_bag
from .bag.summary import Summary
from .comparison import POSE, ComparedFrame, DepthScore, compared_frames, path_errors, read_cloud, read_path, score_frames
from .drive import TRUE_POSE, record_drive
from .flags import UNTRAINED, OfflineConfig, load_engine
from .sheet import draw_sheet

log = logging.getLogger(__name__)
WORLD_SEED = DEMO[0]
IMAGE_HZ = 5.0
IMAGE_SIZE = (192, 256)
SHOWN = 4
DEFAULTS = OfflineConfig().with_setting("preprocess.size", 224)  # what da3-nano was trained at


@dataclass(frozen=True)
class DemoFiles:
    """What a demo leaves."""

    folder: Path

    @property
    def drive(self) -> Path:
        return self.folder / "drive"

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def recording(self) -> Path:
        return self.folder / "demo.rrd"

    @property
    def trajectory(self) -> Path:
        return self.folder / "trajectory.tum"

    @property
    def sheet(self) -> Path:
        return self.folder / "sheet.png"


def demo_path(world: int, seconds: float) -> RobotPath:
    """The robot's way through a world; raises ValueError where it finds none."""
    return robot_path(world, PathSettings(duration_s=seconds, image_hz=IMAGE_HZ, size=IMAGE_SIZE))


def run_demo(folder: Path, seconds: float, config: OfflineConfig, force: bool) -> int:
    """Fills the new `folder` and prints what came out; returns the exit code. Raises ValueError when the folder exists."""
    import evo  # noqa: F401 - what makes the report in the end is missed at the beginning
    import matplotlib  # noqa: F401

    if folder.exists() and not force:
        raise ValueError(f"{folder} exists; --force replaces it")
    if folder.exists() and not DemoFiles(folder).drive.is_dir() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is no demo's folder, it has no drive: --force does not replace it; remove it or take another place")
    console = Console()
    engine, is_trained = _load(config)
    if not is_trained:
        console.print(Panel(UNTRAINED, style="bold red"))
    with new_folder(folder) as new:
        files = DemoFiles(new)
        new.mkdir()
        path = demo_path(WORLD_SEED, seconds)
        record_drive(files.drive, path)
        job = BagJob(files.drive, files.output, trajectory=files.trajectory, rerun=files.recording, model=config.model)
        summary = run_bag(job, engine, config.stream, config.output)
        if not summary.exit_code:
            _report(console, files, path, summary, config, is_trained)
    if not summary.exit_code:
        console.print(_how_to_open(DemoFiles(folder)))
    if not is_trained:
        console.print(Panel(UNTRAINED, style="bold red"))
    return summary.exit_code


def _load(config: OfflineConfig) -> tuple[Engine, bool]:
    """The network, and whether it has learnt anything."""
    try:
        return load_engine(config), True
    except CheckpointError as error:
        log.warning("%s", error)
        return load_engine(config, untrained=True), False


def _report(console: Console, files: DemoFiles, path: RobotPath, summary: Summary, config: OfflineConfig, is_trained: bool) -> None:
    frames = list(compared_frames(files.drive, files.output))
    scores = score_frames(frames)
    console.print(_table(scores, _errors_or_none(files), _odometry_errors(path), summary, config.model.model))
    title = f"{config.model.model} on a rendered drive" + ("" if is_trained else ": UNTRAINED, RANDOM WEIGHTS")
    true, found = read_path(files.drive, TRUE_POSE).T_world_cam, read_path(files.output, POSE).T_world_cam
    paths = {"published": found[:, :3, 3], "true": _in_frame_of_first(true, found)[:, :3, 3]}
    draw_sheet(files.sheet, title, _evenly(frames), read_cloud(files.output), paths)


def _table(scores: Sequence[DepthScore], found: TrajectoryErrors | None, given: TrajectoryErrors, summary: Summary, model: str) -> Table:
    table = Table("measure", "value", title=f"{model} against the truth, {len(scores)} images", title_justify="left")
    if scores:
        table.add_row("depth AbsRel, in metres as published", f"{fmean(s.abs_rel for s in scores):.3f}")
        table.add_row("depth δ1, in metres as published", f"{fmean(s.delta1 for s in scores):.3f}")
        table.add_row("depth AbsRel, scaled per image", f"{fmean(s.abs_rel_scaled for s in scores):.3f}")
        table.add_row("scale error, median of images", f"{median(s.scale_error for s in scores):+.1%}")
        table.add_row("share of pixels with depth", f"{fmean(s.known for s in scores):.1%}")
    table.add_row("published camera path, ATE", f"{found.ate_m:.3f} m of {found.length_m:.1f} m" if found else "not comparable")
    table.add_row("given odometry, ATE", f"{given.ate_m:.3f} m of {given.length_m:.1f} m")
    for mode, count in summary.modes.items():
        table.add_row(f"mode {mode}", f"{count} images")
    table.add_row("speed", f"{summary.frames_per_s():.1f} images/s")
    return table


def _errors_or_none(files: DemoFiles) -> TrajectoryErrors | None:
    try:
        return path_errors(files.drive, files.output)
    except ValueError as error:
        log.warning("%s", error)
        return None


def _odometry_errors(path: RobotPath) -> TrajectoryErrors:
    odometry = path.odometry()
    stamps = np.array([o.stamp_ns for o in odometry], np.int64)
    return trajectory_errors(stamps, np.array([o.T_odom_base for o in odometry]), stamps, np.array([o.T_world_base for o in odometry]))


def _in_frame_of_first(T_world_cam: Float64Array, found: Float64Array) -> Float64Array:
    """The true path moved so that it begins where the published one does: what lies between them later is drift."""
    return np.asarray(found[0] @ np.linalg.inv(T_world_cam[0]) @ T_world_cam) if len(found) else T_world_cam


def _evenly(frames: Sequence[ComparedFrame]) -> list[ComparedFrame]:
    """Some of them, the last included: the first have no scale yet."""
    return [frames[i] for i in np.linspace(0, len(frames) - 1, SHOWN + 1).astype(int)[1:]]


def _how_to_open(files: DemoFiles) -> str:
    return "\n".join(
        [
            f"the sheet:      {files.sheet}",
            f"in 3D:          rerun {files.recording}",
            f"in Foxglove:    open {files.output / (files.output.name + '.mcap')}",
            f"in ROS 2:       ros2 bag play {files.output}, and rviz2 with fixed frame odom",
            f"the input:      {files.drive}, with the truth in /truth",
            f"the run:        {files.output / 'summary.json'}, {files.trajectory}",
        ]
    )
