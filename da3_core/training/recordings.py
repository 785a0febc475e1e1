"""Samples from recordings: the same type that rendered worlds give, so that every objective trains on either."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from da3_core.datasets import RecordedFrame, TumRgbdRecording, fit_frame
from da3_core.scenes.sample import Samples, reorder_views, split_views
from da3_core.scenes.splits import VALIDATION
from da3_core.training.config import DataConfig
from da3_core.training.data import Draw

LARGEST_STRIDE = 30  # frames between views: a second of most cameras


def pick_frames(rng: np.random.Generator, length: int, views: int) -> list[int]:
    """Indices of `views` frames of a recording of `length`, evenly spaced in time; raises ValueError when it is too short."""
    if length < views:
        raise ValueError(f"a recording of {length} frames cannot give {views} views: use longer ones or fewer views in data.buckets")
    widest = min(LARGEST_STRIDE, (length - 1) // max(views - 1, 1))
    stride = int(np.exp(rng.uniform(0, np.log(widest + 1)))) if widest > 1 else 1
    start = int(rng.integers(length - stride * (views - 1)))
    return [start + stride * i for i in range(views)]


def samples_from_frames(scenes: Sequence[Sequence[RecordedFrame]], device: torch.device) -> Samples:
    """Samples (B, N, ...) of equally many frames per scene. Recordings know no sky, objects or normals: these are empty."""

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
        T_world_cam=stacked([[f.T_world_cam for f in frames] for frames in scenes]).float(),
        K=stacked([[f.K for f in frames] for frames in scenes]).float(),
        kind=torch.full((len(scenes),), -1, device=device),
    )


class RecordedScenes:
    """Samples of random pieces of recordings; a draw's seeds choose recording, start and stride."""

    def __init__(self, config: DataConfig, device: torch.device) -> None:
        """Raises ValueError when a folder cannot be read or none was given."""
        if not config.train:
            raise ValueError("data.source = tum_rgbd needs folders: set data.train, and data.validation for folders to validate on")
        self.device = device
        self.train = [TumRgbdRecording(folder) for folder in config.train]
        self.validation = [TumRgbdRecording(folder) for folder in config.validation] or self.train

    def __call__(self, draw: Draw, upcoming: Iterable[Draw] = ()) -> Samples:
        scenes = [self._scene(seed, draw) for seed in draw.seeds.tolist()]
        samples = samples_from_frames(scenes, self.device)
        return reorder_views(split_views(samples, draw.n_views), draw.view_order.to(self.device))

    def _scene(self, seed: int, draw: Draw) -> list[RecordedFrame]:
        recordings = self.validation if seed in VALIDATION else self.train
        rng = np.random.default_rng(seed)
        recording = recordings[rng.integers(len(recordings))]
        return [fit_frame(recording[i], draw.image_size) for i in pick_frames(rng, len(recording), draw.world_views)]
