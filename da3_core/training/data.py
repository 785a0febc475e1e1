"""What every step trains on: a pure function of (seed, step, rank), so that a resumed run sees what an unbroken one does.

The scenes of a step are numbered over all processes and each process takes its share: one process with the whole batch and several
with a part of it train on the same scenes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import count, islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from da3_core.scenes.kinds import MIX, draw_kinds
from da3_core.scenes.sample import Samples, Shots, plan_shots, reorder_views, shoot, split_views
from da3_core.scenes.splits import TRAIN, VALIDATION
from da3_core.training.config import Bucket, DataConfig, world_shape


@dataclass(frozen=True)
class Draw:
    """One process's part of a step, before it is rendered or read."""

    step: int
    image_size: tuple[int, int]
    n_views: int  # N, of a scene
    world_views: int  # of a world, a multiple of N: its views, in order of time, make several scenes
    seeds: Tensor  # (W,) int64: one per world
    chances: tuple[float, float]  # two uniform numbers that all processes share, for what an objective decides by step
    view_order: Tensor  # (B, N) int64
    scene_chances: Tensor  # (B, 2): uniform numbers for what an objective decides by scene


SeedKey = tuple[object, ...]


class Source(Protocol):
    """What turns a draw into samples."""

    def __call__(self, draw: Draw, upcoming: Iterable[Draw] = ()) -> Samples:
        """The samples of `draw`. `upcoming` are those of the next steps, for sources that can prepare them along."""

    def close(self) -> None:
        """End what is being prepared; no samples are asked for any more."""


@dataclass(frozen=True)
class Share:
    """Process `rank` of `processes`."""

    rank: int = 0
    processes: int = 1


def draw_step(config: DataConfig, seed: int, step: int, share: Share) -> Draw:
    """What one process trains on in `step`: bucket and view count are everybody's, scenes its own."""
    pool = step // config.worlds_reused
    worlds, order = np.random.default_rng((seed, 0, pool)), np.random.default_rng((seed, 1, step))
    weights = np.array([b.weight for b in config.buckets])
    bucket = config.buckets[worlds.choice(len(weights), p=weights / weights.sum())]
    n_views = int(worlds.choice(bucket.views))
    shape = world_shape(bucket, n_views, config.patches_per_step)
    return _draw(step, bucket, n_views, shape, TRAIN, (worlds, order), share)


def draw_validation(config: DataConfig, batches: int, share: Share) -> list[Draw]:
    """The fixed validation batches, the same in every run: each view count of each bucket."""
    draws = []
    for bucket in config.buckets:
        for n_views in sorted(set(bucket.views)):
            shape = world_shape(bucket, n_views, config.patches_per_step)
            for i in range(batches):
                worlds, order = np.random.default_rng((0, 0, i)), np.random.default_rng((0, 1, i))
                draws.append(_draw(i, bucket, n_views, shape, VALIDATION, (worlds, order), share))
    return draws


def _draw(
    step: int,
    bucket: Bucket,
    n_views: int,
    shape: tuple[int, int],
    split: range,
    randoms: tuple[np.random.Generator, np.random.Generator],
    share: Share,
) -> Draw:
    (n_worlds, world_views), (worlds, order) = shape, randoms
    scenes = n_worlds * world_views // n_views
    total, mine = scenes * share.processes, slice(share.rank * scenes, (share.rank + 1) * scenes)
    return Draw(
        step=step,
        image_size=(bucket.height, bucket.width),
        n_views=n_views,
        world_views=world_views,
        seeds=torch.from_numpy(worlds.integers(split.start, split.stop, n_worlds * share.processes)[share.rank * n_worlds :][:n_worlds]),
        chances=(order.random(), order.random()),
        view_order=torch.from_numpy(order.random((total, n_views)).argsort(1)[mine]),
        scene_chances=torch.from_numpy(order.random((total, 2))[mine]),
    )


class RenderedScenes:
    """Samples of procedural worlds, rendered on `device`; the last ones are kept for the steps that share them.

    Worlds and cameras are thousands of small operations, as many for one step as for several: those of upcoming steps are planned along.
    """

    def __init__(self, device: torch.device, compiled: bool, ahead: int = 1, mix: Sequence[str] = MIX) -> None:
        self.device, self.compiled, self.ahead, self.mix = device, compiled, ahead, mix
        self.planned: dict[SeedKey, Shots] = {}
        self.kept: tuple[SeedKey, Samples] | None = None

    def __call__(self, draw: Draw, upcoming: Iterable[Draw] = ()) -> Samples:
        key = seed_key(draw)
        if self.kept is None or self.kept[0] != key:
            if key not in self.planned:
                self.planned |= self._plan(draw, upcoming)
            self.kept = key, shoot(self.planned.pop(key), draw.image_size, compiled=self.compiled)
        return reorder_views(split_views(self.kept[1], draw.n_views), draw.view_order.to(self.device))

    def close(self) -> None:
        """See `Source`; nothing goes on by itself."""

    def _plan(self, draw: Draw, upcoming: Iterable[Draw]) -> dict[SeedKey, Shots]:
        """Shots of this draw and of those upcoming ones that have the same shape."""
        alike = {seed_key(d): d.seeds for d in (draw, *islice(upcoming, self.ahead - 1)) if _shape(d) == _shape(draw)}
        seeds = torch.cat([*alike.values()])
        shots = plan_shots(seeds.to(self.device), draw.world_views, draw.image_size, self.device, draw_kinds(seeds, self.mix))
        rows = torch.arange(len(alike) * len(draw.seeds), device=self.device).chunk(len(alike))
        return {key: shots.select(row) for key, row in zip(alike, rows, strict=True)}


def seed_key(draw: Draw) -> SeedKey:
    """What draws that share their worlds have in common."""
    return (draw.image_size, draw.world_views, *draw.seeds.tolist())


def _shape(draw: Draw) -> tuple[tuple[int, int], int, int]:
    return draw.image_size, draw.world_views, len(draw.seeds)


class Batches:
    """The samples of one step after the other; on a GPU the next ones are made on a second stream while the network trains."""

    def __init__(self, source: Source, draw: Callable[[int], Draw], device: torch.device, prefetch: bool) -> None:
        self.source, self.draw = source, draw
        self.stream = torch.cuda.Stream(device) if prefetch and device.type == "cuda" else None
        self.ready: tuple[Draw, Samples] | None = None

    def get(self, step: int) -> tuple[Draw, Samples]:
        """The draw and samples of `step`."""
        ready, self.ready = self.ready, None
        draw, samples = ready if ready and ready[0].step == step else self._make(step)
        if self.stream:
            _hand_over(samples, self.stream)
        return draw, samples

    def prepare(self, step: int) -> None:
        """Start making the samples of `step`, which `get` then returns; call it once the current step's work is queued."""
        if self.stream:
            self.ready = self._make(step)

    def _make(self, step: int) -> tuple[Draw, Samples]:
        draw = self.draw(step)
        with torch.cuda.stream(self.stream), torch.no_grad():  # no stream: no effect
            return draw, self.source(draw, map(self.draw, count(step + 1)))


def _hand_over(samples: Samples, stream: torch.cuda.Stream) -> None:
    current = torch.cuda.current_stream()
    current.wait_stream(stream)
    for f in fields(samples):
        getattr(samples, f.name).record_stream(current)


def seeds_text(draw: Draw, limit: int = 64) -> str:
    """The seeds of a batch for messages."""
    seeds: Sequence[int] = draw.seeds.tolist()
    return ", ".join(map(str, seeds[:limit])) + (f", … ({len(seeds)} in all)" if len(seeds) > limit else "")
