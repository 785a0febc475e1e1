"""Training samples: worlds, cameras, images and their truth from seeds alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from da3_core.scenes.cameras import sample_cameras
from da3_core.scenes.effects import photograph
from da3_core.scenes.kinds import make_worlds
from da3_core.scenes.render import render


@dataclass(frozen=True)
class Samples:
    """B worlds seen from N cameras."""

    images: Tensor  # (B, N, 3, H, W) float32 RGB in 0..1
    depth_m: Tensor  # (B, N, H, W) z-depth, 0 where not valid
    valid: Tensor  # (B, N, H, W) bool: there is a surface
    sky: Tensor  # (B, N, H, W) bool
    object: Tensor  # (B, N, H, W) bool: the thing in the middle of object worlds
    normal_world: Tensor  # (B, N, 3, H, W) unit, 0 where not valid
    T_world_cam: Tensor  # (B, N, 4, 4) float32
    K: Tensor  # (B, N, 3, 3) float32
    kind: Tensor  # (B,) int64 index into `kinds.KINDS`


def make_samples(
    seeds: Tensor,
    n_views: int,
    size: tuple[int, int],
    device: torch.device | str = "cpu",
    kinds: Sequence[str] | str | None = None,
    styles: Sequence[str] | str | None = None,
    effects: bool = True,
    compiled: bool = False,
) -> Samples:
    """Samples of worlds `seeds` (B,) int64 at size (H, W). Each depends on its own seed, n_views and size only, not on the batch.

    compiled: fuse the renderer into a few kernels (compiles once per (B, n_views, size)).
    """
    worlds = make_worlds(seeds, kinds, device)
    T_world_cam, K = sample_cameras(worlds, n_views, size, styles)
    seen = render(worlds, T_world_cam, K, size, compiled)
    valid = torch.isfinite(seen.depth)
    return Samples(
        images=photograph(seen.radiance, worlds.seed) if effects else seen.image,
        depth_m=torch.where(valid, seen.depth, 0.0),
        valid=valid,
        sky=seen.sky,
        object=seen.object,
        normal_world=seen.normal,
        T_world_cam=T_world_cam,
        K=K,
        kind=worlds.kind,
    )
