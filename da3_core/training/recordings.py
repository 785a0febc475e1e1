"""Training on recordings."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch

from da3_core.datasets import RecordedFrame, TumRgbdRecording, fit_frame, pick_frames, samples_from_frames
from da3_core.scenes.sample import Samples, reorder_views, split_views
from da3_core.scenes.splits import VALIDATION
from da3_core.training.config import DataConfig, world_shape
from da3_core.training.data import Draw, SeedKey, seed_key

log = logging.getLogger(__name__)

THREADS = max(1, min(16, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))  # of each of torchrun's processes
BATCHES_AHEAD = 2  # in memory beside the one that is asked for

Scene = list["Future[RecordedFrame]"]


class RecordedScenes:
    """Samples of random pieces of recordings; a draw's seeds choose recording, start and stride.

    Threads read the frames, those of upcoming draws while the network trains.
    """

    def __init__(self, config: DataConfig, device: torch.device) -> None:
        """Raises ValueError when a folder cannot be read or holds too little for a window, or none was given."""
        if not config.train:
            raise ValueError("data.source = tum_rgbd needs folders: set data.train, and data.validation for folders to validate on")
        if not config.validation:
            log.warning("validating on the recordings that are trained on, which hides overfitting: set data.validation to others")
        self.device = device
        longest = max(world_shape(bucket, n, config.patches_per_step)[1] for bucket in config.buckets for n in bucket.views)
        self.train = [_open(folder, longest) for folder in config.train]
        self.validation = [_open(folder, longest) for folder in config.validation] or self.train
        self.draws_ahead = BATCHES_AHEAD * config.worlds_reused
        self.threads = ThreadPoolExecutor(THREADS, "recordings")
        self.reading: dict[SeedKey, list[Scene]] = {}

    def __call__(self, draw: Draw, upcoming: Iterable[Draw] = ()) -> Samples:
        self._read({seed_key(d): d for d in (draw, *islice(upcoming, self.draws_ahead))})
        scenes = [[frame.result() for frame in scene] for scene in self.reading[seed_key(draw)]]
        samples = samples_from_frames(scenes, self.device)
        return reorder_views(split_views(samples, draw.n_views), draw.view_order.to(self.device))

    def close(self) -> None:
        """See `Source`."""
        self.threads.shutdown(cancel_futures=True)

    def _read(self, draws: dict[SeedKey, Draw]) -> None:
        """Begin with those that are not being read yet, in their order, and drop what is no longer wanted."""
        for key in self.reading.keys() - draws.keys():
            for scene in self.reading.pop(key):
                for frame in scene:
                    frame.cancel()
        for key, draw in draws.items():
            if key not in self.reading:
                self.reading[key] = [self._scene(seed, draw) for seed in draw.seeds.tolist()]

    def _scene(self, seed: int, draw: Draw) -> Scene:
        recordings = self.validation if seed in VALIDATION else self.train
        rng = np.random.default_rng(seed)
        recording = recordings[rng.integers(len(recordings))]
        frames = pick_frames(rng, len(recording), draw.world_views)
        return [self.threads.submit(_read_frame, recording, frame, draw.image_size) for frame in frames]


def _open(folder: str, longest: int) -> TumRgbdRecording:
    recording = TumRgbdRecording(folder)
    if len(recording) < longest:
        raise ValueError(f"{folder} has {len(recording)} frames, data.buckets asks for {longest} in a row: leave it out, or ask for fewer")
    return recording


def _read_frame(recording: TumRgbdRecording, index: int, size: tuple[int, int]) -> RecordedFrame:
    return fit_frame(recording[index], size)
