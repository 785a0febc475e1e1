"""Training on recordings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from da3_core.datasets import RecordedFrame, TumRgbdRecording, fit_frame, pick_frames, samples_from_frames
from da3_core.scenes.sample import Samples, reorder_views, split_views
from da3_core.scenes.splits import VALIDATION
from da3_core.training.config import DataConfig
from da3_core.training.data import Draw


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
