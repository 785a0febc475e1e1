"""Training samples: worlds, cameras, images and their truth from seeds alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from da3_core.scenes.cameras import sample_cameras
from da3_core.scenes.effects import photograph
from da3_core.scenes.kinds import make_worlds
from da3_core.scenes.render import render
from da3_core.scenes.worlds import Worlds, select


@dataclass(frozen=True)
class Samples:
    """B worlds seen from N cameras. Ray maps follow from the cameras, exactly: `geometry.rays.rays_from_cameras`."""

    images: Tensor  # (B, N, 3, H, W) float32 RGB in 0..1
    depth_m: Tensor  # (B, N, H, W) z-depth, 0 where not valid
    valid: Tensor  # (B, N, H, W) bool: there is a surface
    sky: Tensor  # (B, N, H, W) bool
    object: Tensor  # (B, N, H, W) bool: the thing in the middle of object worlds
    normal_world: Tensor  # (B, N, 3, H, W) unit, 0 where not valid
    T_world_cam: Tensor  # (B, N, 4, 4) float32
    K: Tensor  # (B, N, 3, 3) float32
    kind: Tensor  # (B,) int64 index into `kinds.KINDS`; -1 of recordings, which know no sky, object or normal


@dataclass(frozen=True)
class Shots:
    """B worlds and N cameras in each: what there is to render."""

    worlds: Worlds
    T_world_cam: Tensor  # (B, N, 4, 4) float32
    K: Tensor  # (B, N, 3, 3) float32

    def select(self, index: Tensor) -> Shots:
        """The shots of the worlds at `index` (K,) int64."""
        return Shots(select(self.worlds, index), self.T_world_cam[index], self.K[index])


def plan_shots(
    seeds: Tensor,
    n_views: int,
    size: tuple[int, int],
    device: torch.device | str = "cpu",
    kinds: Sequence[str] | str | None = None,
    styles: Sequence[str] | str | None = None,
) -> Shots:
    """Worlds `seeds` (B,) int64 with cameras for images of size (H, W). Many small steps: plan for many worlds at once."""
    worlds = make_worlds(seeds, kinds, device)
    return Shots(worlds, *sample_cameras(worlds, n_views, size, styles))


def shoot(shots: Shots, size: tuple[int, int], effects: bool = True, compiled: bool = False) -> Samples:
    """Images (H, W) and truth of planned shots.

    compiled: fuse into a few kernels: the renderer's compile once per number of images B N and size, the camera's once per B, N and size.
    """
    worlds = shots.worlds
    seen = render(worlds, shots.T_world_cam, shots.K, size, compiled)
    valid = torch.isfinite(seen.depth)
    return Samples(
        images=photograph(seen.radiance, worlds.seed, compiled) if effects else seen.image,
        depth_m=torch.where(valid, seen.depth, 0.0),
        valid=valid,
        sky=seen.sky,
        object=seen.object,
        normal_world=seen.normal,
        T_world_cam=shots.T_world_cam,
        K=shots.K,
        kind=worlds.kind,
    )


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
    """Samples of worlds `seeds` (B,) int64 at size (H, W). Each depends on its own seed, n_views and size only, not on the batch."""
    return shoot(plan_shots(seeds, n_views, size, device, kinds, styles), size, effects, compiled)


def split_views(samples: Samples, n_views: int) -> Samples:
    """Samples (B, M, ...) of long sequences as more of short ones (B * (M // N), N, ...), in order; what is left over is dropped."""
    parts = samples.images.shape[1] // n_views
    return _map(
        samples,
        lambda t: t[:, : parts * n_views].unflatten(1, (parts, n_views)).flatten(0, 1),
        lambda t: t.repeat_interleave(parts),
    )


def reorder_views(samples: Samples, order: Tensor) -> Samples:
    """Samples whose view i of scene b is view order[b, i] (B, N): any view may become the reference."""
    rows = torch.arange(len(order), device=order.device)[:, None]
    return _map(samples, lambda t: t[rows, order], lambda t: t)


def _map(samples: Samples, of_views: Callable[[Tensor], Tensor], of_worlds: Callable[[Tensor], Tensor]) -> Samples:
    tensors = {field.name: getattr(samples, field.name) for field in fields(samples)}
    return Samples(**{name: of_views(t) if t.ndim > 1 else of_worlds(t) for name, t in tensors.items()})
