#!/usr/bin/env python3
"""Frames per second and peak memory of the bag job: `python scripts/bench_bag.py`. Every run is a process of its own.

Recordings are made for it: raw 640x480 images, camera_info, 50 Hz odometry. The engine is built before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from da3_ros import to_msg
from da3_ros.bag.typestore import RosbagsTypes, load_typestore
from da3_ros.bag.writer import MessageWriter

WIDTH, HEIGHT, IMAGE_HZ, ODOMETRY_HZ = 640, 480, 15, 50
K = np.array([[450.0, 0, 319.5], [0, 450.0, 239.5], [0, 0, 1]])
T_BASE_CAM = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0.4], [0, 0, 0, 1]])
NS = 1_000_000_000
STAGES = ("read", "decode", "preprocess", "engine", "anchor", "write")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[200, 2000], metavar="N", help="lengths of the recordings")
    parser.add_argument("--model", default="da3-nano", help="preset or folder (default: da3-nano)")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--size", type=int, default=224, help="longest side of the network's image (default: 224, so 168x224)")
    parser.add_argument("--views", type=int, default=4, help="views in a window (default: 4)")
    parser.add_argument("--untrained", action="store_true", help="random weights: times are the same")
    given = parser.parse_args()
    settings = [f"--model={given.model}", f"--engine={given.engine}", f"--preprocess.size={given.size}", f"--window.views={given.views}"]
    settings += ["--untrained"] if given.untrained else []
    with tempfile.TemporaryDirectory() as folder:
        run_job(Path(folder), 6, settings)
        summaries = [run_job(Path(folder), frames, settings) for frames in given.frames]
    print_table(given.frames, summaries, f"{given.model}, window {given.views}, longest side {given.size}, images {WIDTH}x{HEIGHT} raw")


def run_job(folder: Path, frames: int, settings: Sequence[str]) -> dict[str, Any]:
    """One recording through `da3 bag`; its summary."""
    bag, output = folder / f"in_{frames}", folder / f"out_{frames}.mcap"
    record(bag, frames)
    subprocess.run([sys.executable, "-m", "da3_ros", "bag", bag, output, *settings], check=True)
    summary: dict[str, Any] = json.loads(output.with_suffix(".summary.json").read_text())
    for path in (*bag.iterdir(), output):
        path.unlink()
    return summary


def record(bag: Path, frames: int) -> None:
    """A camera that moves to the right along a textured wall, 2.25 m away."""
    types, writer = RosbagsTypes(load_typestore()), MessageWriter(bag)
    length = 4 * frames + WIDTH
    wall = cv2.resize(np.random.default_rng(0).integers(0, 256, (60, length // 8, 3), np.uint8), (length, HEIGHT))
    mount = to_msg.transform_stamped(types, 0, "base_link", "camera_optical", T_BASE_CAM)
    writer.write("/tf_static", to_msg.tf_message(types, [mount]), 0)
    for i in range(frames * ODOMETRY_HZ // IMAGE_HZ + 2):
        stamp_ns = i * NS // ODOMETRY_HZ
        T = np.eye(4)
        T[1, 3] = -0.3 * stamp_ns / NS
        writer.write("/odom", to_msg.stamped_odometry(types, stamp_ns, "odom", "base_link", T), stamp_ns)
    for i in range(frames):
        stamp_ns = i * NS // IMAGE_HZ
        image = np.ascontiguousarray(wall[:, 4 * i : 4 * i + WIDTH])
        writer.write("/camera/camera_info", to_msg.pinhole_info(types, stamp_ns, "camera_optical", K, (HEIGHT, WIDTH)), stamp_ns)
        writer.write("/camera/image_raw", to_msg.colour_image(types, stamp_ns, "camera_optical", image), stamp_ns)
    writer.close()


def print_table(frames: Sequence[int], summaries: Sequence[dict[str, Any]], title: str) -> None:
    table = Table("frames", "frames/s", *(f"{stage} ms" for stage in STAGES), "peak MiB", title=title)
    for count, summary in zip(frames, summaries, strict=True):
        stages = [f"{1000 * summary['stage_s'][stage] / count:.1f}" for stage in STAGES]
        table.add_row(str(count), f"{summary['frames_per_s']:.2f}", *stages, f"{summary['peak_memory_mib']:.0f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
