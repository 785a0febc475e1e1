"""What half precision costs: python scripts/precision.py [--models …]. Differences from float32 on rendered scenes, as a table.

The reference view is the one that float32 chooses; how often half precision would choose another one is counted apart. Eight bits, which
no engine offers, are what products of transformer blocks would take beside bfloat16: weights and tokens rounded, a scale for every row.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from eight_bits import as_float8, as_int8

from da3_core.engines.bench import random_model
from da3_core.engines.choice import in_precision
from da3_core.geometry.rigid import invert_rigid, rotation_angle
from da3_core.model import load_model, normalise_cameras
from da3_core.model.checkpoint import CheckpointError
from da3_core.model.da3 import Mono
from da3_core.model.images import normalise_images
from da3_core.model.reference_view import choose_reference_view
from da3_core.scenes import make_samples
from da3_core.scenes.splits import VALIDATION

WANT = frozenset({"depth", "rays", "cameras"})
Cameras = dict[str, Tensor]  # none, or T_cam_world and K of every scene


def main() -> None:
    options = _options()
    seeds = torch.arange(options.scenes) + VALIDATION.start
    samples = make_samples(seeds, options.views, tuple(options.size), device=options.device)
    images = normalise_images(samples.images)
    given = {"T_cam_world": normalise_cameras(invert_rigid(samples.T_world_cam.double())).float(), "K": samples.K}
    print(f"{options.scenes} scenes, {options.views} views, {options.size}; differences from float32, median / largest")
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for name in options.models:
            for weights, model in models(name):
                model.to(options.device)
                for precision in options.precisions:
                    rough = PRECISIONS[precision](copy.deepcopy(model))
                    for cameras in [{}] if isinstance(model, Mono) else [given, {}]:
                        row = compare(model, rough, images, cameras)
                        print(f"{name:16} {weights:8} {precision:9} {'posed' if cameras else 'unposed':8} {row}", flush=True)


def models(name: str) -> list[tuple[str, Any]]:
    """With random weights, and with those that come with the package where there are any."""
    try:
        trained = [("trained", load_model(name))]
    except CheckpointError:
        trained = []
    return [("random", random_model(name)), *trained]


def compare(exact: Any, rough: Any, images: Tensor, cameras: Cameras) -> str:
    """Median and largest of all differences over the scenes of `images` (B, N, 3, H, W), and how often the reference view is another."""
    differences: dict[str, list[Tensor]] = defaultdict(list)
    flips = 0
    for i in range(len(images)):
        scene, of_scene = images[i : i + 1], {key: value[i : i + 1] for key, value in cameras.items()}
        if isinstance(exact, Mono):
            found = mono_differences(exact, rough, scene)
        else:
            chosen = _reference_view(exact, scene)
            flips += int((_reference_view(rough, scene) != chosen).sum())
            found = any_view_differences(*(network(scene, **of_scene, reference_view=chosen, want=WANT) for network in (exact, rough)))
        for key, value in found.items():
            differences[key].append(value.flatten().cpu())
    joined = {key: torch.cat(values) for key, values in differences.items()}
    cells = [f"{key} {float(value.median()):.1e} / {float(value.max()):.1e}" for key, value in joined.items()]
    return "  ".join([*cells, *([] if isinstance(exact, Mono) else [f"other reference view {flips}/{len(images)}"])])


def any_view_differences(exact: Any, rough: Any) -> dict[str, Tensor]:
    """Relative ones of depth, rays and translations (to the longest), rotations in degrees."""
    t, rough_t = exact.T_cam_world[..., :3, 3], rough.T_cam_world[..., :3, 3]
    return {
        "depth": (rough.depth - exact.depth).abs() / exact.depth,
        "rays": (rough.rays - exact.rays).norm(dim=-1) / exact.rays.norm(dim=-1),
        "degrees": torch.rad2deg(rotation_angle(exact.T_cam_world[..., :3, :3].mT @ rough.T_cam_world[..., :3, :3])),
        "translation": (rough_t - t).norm(dim=-1) / t.norm(dim=-1).max(),
    }


def mono_differences(exact: Mono, rough: Mono, images: Tensor) -> dict[str, Tensor]:
    """Relative ones of depth as the head has it, and plain ones of the sky's probability."""
    (depth, sky), (rough_depth, rough_sky) = exact.depth_and_sky(images), rough.depth_and_sky(images)
    return {"depth": (rough_depth - depth).abs() / depth, "sky": (rough_sky - sky).abs()}


def in_eight_bits(as_eight_bits: Callable[[Tensor], tuple[Tensor, Tensor]], model: Any) -> Any:
    """`model` in bfloat16, with weights and inputs of its blocks' products rounded row by row."""

    def rounded(x: Tensor) -> Tensor:
        numbers, scale = as_eight_bits(x)
        return (numbers.float() * scale).to(x.dtype)

    model = in_precision(model, torch.bfloat16)
    for layer in (layer for layer in model.backbone.blocks.modules() if isinstance(layer, nn.Linear)):
        layer.weight.copy_(rounded(layer.weight))
        layer.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    return model


PRECISIONS: dict[str, Callable[[Any], Any]] = {
    "bfloat16": partial(in_precision, dtype=torch.bfloat16),
    "float16": partial(in_precision, dtype=torch.float16),
    "float8": partial(in_eight_bits, as_float8),
    "int8": partial(in_eight_bits, as_int8),
}


def _reference_view(model: Any, images: Tensor) -> Tensor:
    return choose_reference_view(model.backbone.encode_views(images).class_tokens, "saddle_balanced")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    everything = ["da3-nano", "da3-small", "da3-base", "da3-large", "da3-giant", "da3metric-nano", "da3mono-large", "da3metric-large"]
    parser.add_argument("--models", nargs="+", default=everything, help="any-view, mono and metric presets")
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--size", nargs=2, type=int, default=(168, 224))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
