#!/usr/bin/env python3
"""How fast worlds are made and rendered as a training gets them: views a second of each of its buckets, and of all as often as drawn.

python scripts/bench_rendering.py [--config config/train/anyview_nano.yaml] [data.patches_per_step=3456 ...]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from da3_core.training.config import Bucket, DataConfig, TrainConfig, load_config
from da3_core.training.data import Draw, RenderedScenes, Share, draw_step
from da3_core.training.make import PLAN_AHEAD

CONFIG = Path(__file__).parents[1] / "config" / "train" / "anyview_nano.yaml"


@dataclass(frozen=True)
class Rate:
    """What the batches of one bucket take, on average."""

    world_views: int
    views: float  # in a batch
    seconds: float  # for a batch


def main() -> None:
    """Print the rate of every bucket, whose first batches compile on a GPU, and of the training's mixture of them."""
    options = _options()
    config = load_config(options.config, options.overrides)
    if config.data.source != "scenes":
        raise SystemExit(f"{options.config} trains on recordings: choose one with data.source = scenes")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    whole, views, seconds = sum(bucket.weight for bucket in config.data.buckets), 0.0, 0.0
    for bucket in config.data.buckets:
        share = bucket.weight / whole
        rate = measure(config, bucket, share, options.batches, device)
        views, seconds = views + share * rate.views, seconds + share * rate.seconds
        shape = f"{bucket.height}x{bucket.width}, worlds of {rate.world_views}, {rate.views:.0f} a batch"
        print(f"{rate.views / rate.seconds:7.0f} views/s  {shape}, {share:.0%} of the steps", flush=True)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{views / seconds:7.0f} views/s  all of {Path(options.config).name}, {name}, torch {torch.__version__}")


def measure(config: TrainConfig, bucket: Bucket, share: float, batches: int, device: torch.device) -> Rate:
    """Of `batches` after those that compile. Planned together are as many as a training plans: the share of its next steps."""
    on_gpu = device.type == "cuda"
    ahead = max(1, round(PLAN_AHEAD * share)) if on_gpu else 1
    source = RenderedScenes(device, compiled=config.runtime.compile and on_gpu, ahead=ahead, mix=config.data.worlds)
    draws = other_worlds(replace(config.data, buckets=(bucket,)), config.seed, ahead + batches)
    for i, draw in enumerate(draws):
        if i == ahead:  # compiled, and all that was planned is used up
            _wait(device)
            began = time.perf_counter()
        source(draw, draws[i + 1 :])
    _wait(device)
    seconds = time.perf_counter() - began
    views = sum(len(draw.seeds) * draw.world_views for draw in draws[ahead:])
    return Rate(draws[0].world_views, views / batches, seconds / batches)


def other_worlds(config: DataConfig, seed: int, count: int) -> list[Draw]:
    """Draws of steps that share no worlds."""
    return [draw_step(config, seed, i * config.worlds_reused, Share()) for i in range(count)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG, help="settings of a training")
    parser.add_argument("overrides", nargs="*", metavar="name=value", help="settings on top, like data.patches_per_step=3456")
    parser.add_argument("--batches", type=int, default=64, help="batches to time of each bucket")
    return parser.parse_args()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
