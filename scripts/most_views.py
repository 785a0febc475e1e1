"""How many views fit: python scripts/most_views.py [--models …] [--gb 80]. Peak memory of one window, all depths wanted, in bf16.

Views are encoded and read out a few at a time; all are decoded together, in PyTorch without compiling. Attention over thousands of views
takes minutes a layer, and its time is not the question: the search leaves it out (its output is there, uncomputed), after a check with
`--checked` views that this changes no peak.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from da3_core.engines.choice import in_precision
from da3_core.model import PRESETS, build_model
from da3_core.model.backbone import EncodedViews, Feature

PAPER = {"da3-small": 4000, "da3-base": 2100, "da3-large": 1500, "da3-giant": 900}  # at least, on 80 GB (table 8)
TOGETHER = 16  # views


def main() -> None:
    options = _options()
    torch.cuda.set_per_process_memory_fraction(min(1.0, options.gb * 1e9 / torch.cuda.get_device_properties(0).total_memory))
    for name in options.models:
        started = time.monotonic()
        with torch.device("cuda"):
            model: Any = in_precision(build_model(PRESETS[name]).eval(), torch.bfloat16)
        check = [peak_gb(model, options.checked, tuple(options.size), skip) for skip in (False, True)]
        views = most(lambda n, model=model: fits(model, n, tuple(options.size)), PAPER[name], options.seconds)  # type: ignore[misc]
        result = {"model": name, "most_views": views, "paper": PAPER[name], "gb": options.gb, "checked_gb": check}
        print(json.dumps({**result, "s": round(time.monotonic() - started)}), flush=True)
        if options.json:
            with options.json.open("a") as file:
                file.write(json.dumps(result) + "\n")
        del model


def most(fits: Callable[[int], bool], first: int, seconds: float) -> int:
    """The largest number that fits, to 3 %, or the best found in that time."""
    deadline, n, failed, trial = time.monotonic() + seconds, 0, None, first
    while time.monotonic() < deadline and (failed is None or failed > 1.03 * n):
        if fits(trial):
            n = trial
        else:
            failed = trial
        trial = int(1.4 * n) if failed is None else (n + failed) // 2
    return n


def fits(model: Any, views: int, size: tuple[int, int]) -> bool:
    try:
        peak_gb(model, views, size, skip_attention=True)
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


@torch.no_grad()
def peak_gb(model: Any, views: int, size: tuple[int, int], skip_attention: bool) -> float:
    """Peak of allocated memory while a window is predicted."""
    torch.cuda.reset_peak_memory_stats()
    attention = F.scaled_dot_product_attention
    if skip_attention:
        F.scaled_dot_product_attention = _no_attention  # type: ignore[assignment]
    try:
        predict(model, views, size)
    finally:
        F.scaled_dot_product_attention = attention
    return torch.cuda.max_memory_allocated() / 1e9


def predict(model: Any, views: int, size: tuple[int, int]) -> None:
    grid = model.backbone.grid_of(size)
    groups = [range(i, min(i + TOGETHER, views)) for i in range(0, views, TOGETHER)]
    parts = [model.backbone.encode_views(torch.randn(1, len(group), 3, *size, device="cuda")) for group in groups]
    kept = {i: torch.cat([part.kept[i] for part in parts], 1) for i in parts[0].kept}
    encoded = EncodedViews(torch.cat([p.tokens for p in parts], 1), torch.cat([p.class_tokens for p in parts], 1), kept)
    del parts, kept
    features = model.backbone.decode_window(encoded, grid).features
    del encoded
    model.camera_decoder(features[-1].camera)
    depth = torch.empty(views, *size, device="cuda")
    for group in groups:
        part = [Feature(f.patches[:, group.start : group.stop], f.camera) for f in features]
        maps = model.head([f.patches for f in part], grid, size)
        depth[group.start : group.stop] = maps.depth[0]


def _no_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What attention allocates: its output, and a number a query and head."""
    q.new_empty(q.shape[:-1], dtype=torch.float32)
    return torch.zeros_like(q)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=PAPER, default=list(PAPER))
    parser.add_argument("--size", nargs=2, type=int, default=(336, 504))
    parser.add_argument("--gb", type=float, default=80.0)
    parser.add_argument("--checked", type=int, default=64, help="views with which leaving out attention is checked")
    parser.add_argument("--seconds", type=float, default=25.0, help="for the search, a model")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
