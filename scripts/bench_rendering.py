#!/usr/bin/env python3
"""How fast worlds are made and rendered: views a second as training gets them. `python scripts/bench_rendering.py [--images 256]`"""

from __future__ import annotations

import argparse
import time

import torch

from da3_core.training.config import Bucket, DataConfig
from da3_core.training.data import RenderedScenes, Share, draw_step
from da3_core.training.make import PLAN_AHEAD


def main() -> None:
    """Print the rate of batch after batch, the first of which compile on a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256, help="images in a batch")
    parser.add_argument("--size", type=int, nargs=2, default=(168, 224), metavar=("H", "W"), help="of an image, multiples of 14")
    parser.add_argument(
        "--batches", type=int, default=4 * PLAN_AHEAD, help="batches to time; worlds of several are planned together on a GPU"
    )
    options = parser.parse_args()
    (height, width), on_gpu = options.size, torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    bucket = Bucket(height, width, views=(8,))
    config = DataConfig(patches_per_step=options.images * (height // 14) * (width // 14), buckets=(bucket,))
    source = RenderedScenes(device, compiled=on_gpu, ahead=PLAN_AHEAD if on_gpu else 1)
    draws = [draw_step(config, 0, step, Share()) for step in range(options.batches + PLAN_AHEAD)]
    for i, draw in enumerate(draws):
        if i == PLAN_AHEAD:  # compiled, and all that was planned is used up
            _wait(device)
            began = time.perf_counter()
        source(draw, draws[i + 1 :])
    _wait(device)
    seconds = time.perf_counter() - began
    rate = options.batches * options.images / seconds
    name = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} threads"
    print(f"{rate:.0f} views/s of {height}x{width}, {options.images} a batch, {name}, torch {torch.__version__}")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
