"""Recorded frames as samples: the same type that rendered worlds give, so that training and evaluation take either."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from da3_core.datasets.recording import RecordedFrame
from da3_core.scenes.sample import Samples
from da3_core.types import Float64Array

LARGEST_STRIDE = 30  # frames from one view to the next: a second of most cameras


def pick_frames(rng: np.random.Generator, length: int, views: int) -> list[int]:
    """Indices of `views` frames of a recording of `length`, evenly spaced; raises ValueError when it is too short."""
    if length < views:
        raise ValueError(f"a recording of {length} frames cannot give {views} views: use longer ones, or fewer (--views)")
    widest = min(LARGEST_STRIDE, (length - 1) // max(views - 1, 1))
    stride = int(np.exp(rng.uniform(0, np.log(widest + 1)))) if widest > 1 else 1
    start = int(rng.integers(length - stride * (views - 1)))
    return [start + stride * i for i in range(views)]


def samples_from_frames(scenes: Sequence[Sequence[RecordedFrame]], device: torch.device | str) -> Samples:
    """Samples (B, N, ...) of equally many frames per scene. Recordings know no sky, objects or normals: these are empty; kind is -1.

    The world's origin is moved to each scene's first camera, its axes stay: nothing but relative poses matters to training and
    evaluation, and float32 has half a metre between numbers where map coordinates are millions.
    """

    def stacked(arrays: Sequence[Sequence[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]]) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.stack(row) for row in arrays])).to(device)

    images = stacked([[f.image for f in frames] for frames in scenes]).movedim(-1, -3).float() / 255
    depth_m = stacked([[f.depth_m for f in frames] for frames in scenes])
    nothing = torch.zeros_like(depth_m, dtype=torch.bool)
    return Samples(
        images=images,
        depth_m=depth_m,
        valid=depth_m > 0,
        sky=nothing,
        object=nothing,
        normal_world=torch.zeros_like(images),
        T_world_cam=stacked([_from_first_centre(frames) for frames in scenes]).float(),
        K=stacked([[f.K for f in frames] for frames in scenes]).float(),
        kind=torch.full((len(scenes),), -1, device=device),
    )


def _from_first_centre(frames: Sequence[RecordedFrame]) -> list[Float64Array]:
    """Poses (4, 4) of the frames in a world whose origin is the first one's camera."""
    T = np.stack([f.T_world_cam for f in frames])
    T[:, :3, 3] -= T[0, :3, 3]
    return list(T)
