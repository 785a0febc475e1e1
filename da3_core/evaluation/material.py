"""What a model is measured on: scenes of several views, with their truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from da3_core.datasets import TumRgbdRecording, fit_frame, pick_frames, samples_from_frames
from da3_core.scenes import Samples, make_samples, seeds
from da3_core.scenes.kinds import MIX, check_mix, draw_kinds

Focals = tuple[tuple[float, float] | None, ...]


class Material(Protocol):
    """Always the same scenes."""

    focals: ClassVar[Focals]  # over the image's width: ranges by which metric depth is reported, None for all

    def __len__(self) -> int:
        """Number of scenes."""

    @property
    def contents(self) -> dict[str, list[str]]:
        """What the scenes are made of; stands in the report."""

    def batches(self, views: int, size: tuple[int, int], batch: int, device: str) -> Iterator[Samples]:
        """All scenes on `device`, `batch` at once, of `views` views in order of time, images of size (H, W)."""


@dataclass(frozen=True)
class ValidationWorlds:
    """The first rendered worlds of the validation split, which no training has seen.

    worlds: kinds of worlds, names of `KINDS`, each as often as its share; `DataConfig.worlds` in training.
    """

    count: int = 128
    worlds: tuple[str, ...] = MIX
    focals: ClassVar[Focals] = ((0.5, 1.5), (0.5, 0.75), (0.75, 1.0), (1.0, 1.25), (1.25, 1.5))

    def __post_init__(self) -> None:
        """Raises ValueError for names that are no kinds of worlds, or none."""
        check_mix("worlds", self.worlds)

    def __len__(self) -> int:
        return self.count

    @property
    def contents(self) -> dict[str, list[str]]:
        """See `Material`."""
        return {"worlds": list(self.worlds)}

    def batches(self, views: int, size: tuple[int, int], batch: int, device: str) -> Iterator[Samples]:
        """See `Material`. Raises ValueError when there are not as many."""
        for chosen in seeds("validation", 0, self.count).split(batch):
            yield make_samples(chosen.to(device), views, size, device, draw_kinds(chosen, self.worlds))


class RecordedWindows:
    """Pieces of recordings in the TUM RGB-D layout, from one after the other: evenly spaced frames, up to 30 apart.

    They are drawn with replacement, and the same ones every time: short recordings give the same piece more than once.
    """

    focals: ClassVar[Focals] = (None,)

    def __init__(self, folders: Sequence[Path | str], count: int = 128) -> None:
        """Raises ValueError when a folder cannot be read or none was given."""
        if not folders:
            raise ValueError("name folders in the TUM RGB-D layout: `da3 bag --export-dataset FOLDER --export-depth TOPIC` writes them")
        self.recordings = [TumRgbdRecording(folder) for folder in folders]
        self.count = count

    def __len__(self) -> int:
        return self.count

    @property
    def contents(self) -> dict[str, list[str]]:
        """See `Material`."""
        return {"recordings": [str(recording.folder) for recording in self.recordings]}

    def batches(self, views: int, size: tuple[int, int], batch: int, device: str) -> Iterator[Samples]:
        """See `Material`. Raises ValueError when a recording is too short or a picture cannot be read."""
        for first in range(0, self.count, batch):
            windows = [self._window(i, views) for i in range(first, min(first + batch, self.count))]
            yield samples_from_frames([[fit_frame(r[k], size) for k in frames] for r, frames in windows], device)

    def _window(self, index: int, views: int) -> tuple[TumRgbdRecording, list[int]]:
        recording = self.recordings[index % len(self.recordings)]
        try:
            return recording, pick_frames(np.random.default_rng(index), len(recording), views)
        except ValueError as error:
            raise ValueError(f"{recording.folder}: {error}") from error
