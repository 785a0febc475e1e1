"""How well the stream knows metres: python scripts/scale_on_drives.py FOLDER. Needs `pip install -e '.[onnx,eval]'`.

Rendered drives like the demo's, each through another room, with odometry that drifts. Every image's published scale is compared with the
one that its depth needs: means over images of the absolute logarithm of their ratio, and of AbsRel as published. A world without a free
loop for the robot is passed over.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

from da3_core import DEMO
from da3_core.types import Engine
from da3_ros.bag.job import BagJob, run_bag
from da3_ros.comparison import DepthScore, compared_frames, score_frames
from da3_ros.demo import DEFAULTS, demo_path
from da3_ros.drive import record_drive
from da3_ros.flags import load_engine


def score_drive(folder: Path, world: int, engine: Engine) -> list[DepthScore]:
    """Of every image with depth; none where the robot finds no way through this world."""
    try:
        path = demo_path(DEMO[world], seconds=12)
    except ValueError:
        return []
    drive, output = folder / f"drive-{world:02d}", folder / f"output-{world:02d}"
    record_drive(drive, path)
    engine.reset()
    run_bag(BagJob(drive, output), engine, DEFAULTS.stream, DEFAULTS.output)
    return score_frames(compared_frames(drive, output))


def line(name: str, scores: Sequence[DepthScore]) -> str:
    off = fmean(abs(math.log1p(score.scale_error)) for score in scores)
    return f"{name}: scale off by {off:.3f}, AbsRel {fmean(score.abs_rel for score in scores):.3f}, {len(scores)} images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new directory")
    parser.add_argument("--worlds", type=int, default=14, help="how many of the demo's worlds to try (default: 14)")
    args = parser.parse_args()
    if args.folder.exists():
        parser.error(f"{args.folder} exists: name a new folder")
    args.folder.mkdir(parents=True)
    engine = load_engine(DEFAULTS)
    found = {world: score_drive(args.folder, world, engine) for world in tqdm(range(args.worlds), unit="drive")}
    for world, scores in found.items():
        print(line(f"world {world}", scores) if scores else f"world {world}: no way for the robot")
    print(line("all", [score for scores in found.values() for score in scores]))


if __name__ == "__main__":
    main()
