"""What half precision costs: python scripts/precision.py [--models …]. Differences from float32 on rendered scenes, as a table.

The reference view is the one that float32 chooses; how often half precision would choose another one is counted apart.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from da3_core.engines.bench import random_model
from da3_core.engines.choice import in_precision
from da3_core.geometry.rigid import invert_rigid, rotation_angle
from da3_core.model import load_model, normalise_cameras
from da3_core.model.checkpoint import CheckpointError
from da3_core.model.da3 import AnyView
from da3_core.model.images import normalise_images
from da3_core.model.reference_view import choose_reference_view
from da3_core.scenes import make_samples
from da3_core.scenes.splits import VALIDATION
from da3_core.types import Prediction

WANT = frozenset({"depth", "rays", "cameras"})


def main() -> None:
    options = _options()
    seeds = torch.arange(options.scenes) + VALIDATION.start
    samples = make_samples(seeds, options.views, tuple(options.size), device=options.device)
    images = normalise_images(samples.images)
    T_cam_world = normalise_cameras(invert_rigid(samples.T_world_cam.double())).float()
    print(f"{options.scenes} scenes, {options.views} views, {options.size[0]}x{options.size[1]}; relative differences, median / largest")
    print("model            weights   precision  poses   depth             rays              rotation deg      translation       flips")
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for name in options.models:
            for weights, model in models(name):
                for dtype in (torch.bfloat16, torch.float16):
                    for posed in (True, False):
                        row = compare(model.to(options.device), dtype, images, T_cam_world if posed else None, samples.K if posed else None)
                        cells = "  ".join(f"{median:.1e} / {largest:.1e}" for median, largest in row[0])
                        print(
                            f"{name:16} {weights:9} {str(dtype)[6:]:10} {'given' if posed else 'none':7} {cells}  {row[1]}/{len(images)}",
                            flush=True,
                        )


def models(name: str) -> list[tuple[str, AnyView]]:
    """With random weights, and with those that come with the package where there are any."""
    try:
        trained = [("trained", cast(AnyView, load_model(name)))]
    except CheckpointError:
        trained = []
    return [("random", random_model(name)), *trained]


def compare(model: AnyView, dtype: torch.dtype, images: Tensor, T_cam_world: Tensor | None, K: Tensor | None) -> Any:
    """(median, largest) of depth's, rays', rotations' and translations' differences, and the count of other reference views."""
    rough = cast(AnyView, in_precision(copy.deepcopy(model), dtype))
    differences: list[list[Tensor]] = [[], [], [], []]
    flips = 0
    for i in range(len(images)):
        cameras = (None, None) if T_cam_world is None or K is None else (T_cam_world[i : i + 1], K[i : i + 1])
        chosen = _reference_view(model, images[i : i + 1])
        flips += int((_reference_view(rough, images[i : i + 1]) != chosen).sum())
        exact, half = (network(images[i : i + 1], *cameras, reference_view=chosen, want=WANT) for network in (model, rough))
        for all_of_a_kind, difference in zip(differences, _differences(exact, half), strict=True):
            all_of_a_kind.append(difference.flatten().cpu())
    return [(float(torch.cat(d).median()), float(torch.cat(d).max())) for d in differences], flips


def _differences(exact: Prediction, half: Prediction) -> tuple[Tensor, ...]:
    depth, rough_depth, rays, rough_rays = (cast(Tensor, x) for x in (exact.depth, half.depth, exact.rays, half.rays))
    T, rough_T = cast(Tensor, exact.T_cam_world), cast(Tensor, half.T_cam_world)
    t, rough_t = T[..., :3, 3], rough_T[..., :3, 3]
    return (
        (rough_depth - depth).abs() / depth,
        (rough_rays - rays).norm(dim=-1) / rays.norm(dim=-1),
        torch.rad2deg(rotation_angle(T[..., :3, :3].mT @ rough_T[..., :3, :3])),
        (rough_t - t).norm(dim=-1) / t.norm(dim=-1).max(),
    )


def _reference_view(model: AnyView, images: Tensor) -> Tensor:
    return choose_reference_view(model.backbone.encode_views(images).class_tokens, "saddle_balanced")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["da3-nano", "da3-small", "da3-base", "da3-large"])
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--size", nargs=2, type=int, default=(168, 224))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
