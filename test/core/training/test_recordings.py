"""Recordings are read by threads and ahead of time, which changes no pixel and leaves nothing behind."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch

from da3_core.datasets import RecordedFrame, TumRgbdRecording, fit_frame
from da3_core.training import recordings
from da3_core.training.config import Bucket, DataConfig
from da3_core.training.data import Draw, Share, draw_step, draw_validation, seed_key
from da3_core.training.recordings import RecordedScenes

from .small_recording import write_recording


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """Batches of two windows of four views."""
    for name in ("train", "validation"):
        write_recording(tmp_path / name)
    train, validation = ((str(tmp_path / name),) for name in ("train", "validation"))
    return DataConfig("tum_rgbd", train, validation, patches_per_step=32, buckets=(Bucket(28, 28, (4,)),))


def draws_from(config: DataConfig, step: int) -> Iterator[Draw]:
    return (draw_step(config, 0, s, Share()) for s in count(step))


def scenes_of(config: DataConfig) -> RecordedScenes:
    return RecordedScenes(config, torch.device("cpu"))


def finish(source: RecordedScenes) -> None:
    for scenes in source.reading.values():
        for scene in scenes:
            wait(scene, timeout=20)


def test_upcoming_frames_are_read_before_they_are_asked_for(config: DataConfig) -> None:
    first, second = (draw_step(config, 0, step, Share()) for step in range(2))
    with closing(scenes_of(config)) as alone, closing(scenes_of(config)) as ahead:
        expected = alone(second)
        ahead(first, draws_from(config, 1))
        finish(ahead)
        shutil.rmtree(config.train[0])
        found = ahead(second, draws_from(config, 2))
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.depth_m, expected.depth_m)
    assert torch.equal(found.T_world_cam, expected.T_world_cam)


@pytest.mark.parametrize("reused", [1, 3])
def test_a_few_batches_are_kept_and_each_is_read_once(config: DataConfig, monkeypatch: pytest.MonkeyPatch, reused: int) -> None:
    read = []

    def counted(recording: TumRgbdRecording, index: int, size: tuple[int, int]) -> RecordedFrame:
        read.append(index)
        return fit_frame(recording[index], size)

    monkeypatch.setattr(recordings, "_read_frame", counted)
    config = replace(config, worlds_reused=reused)
    with closing(scenes_of(config)) as source:
        for step in range(2 * reused):
            source(draw_step(config, 0, step, Share()), draws_from(config, step + 1))
            assert [*source.reading] == [seed_key(draw_step(config, 0, (step // reused + i) * reused, Share())) for i in range(3)]
        finish(source)
    assert len(read) == 4 * 8  # two batches that were asked for, and two ahead of them


def test_what_is_no_longer_wanted_is_not_read(config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, going_on, read = threading.Event(), threading.Event(), []

    def held_up(recording: TumRgbdRecording, index: int, size: tuple[int, int]) -> RecordedFrame:
        read.append(index)
        begun.set()
        assert going_on.wait(timeout=20)
        return fit_frame(recording[index], size)

    monkeypatch.setattr(recordings, "_read_frame", held_up)
    monkeypatch.setattr(recordings, "THREADS", 1)
    first, second = (draw_step(config, 0, step, Share()) for step in range(2))
    with closing(scenes_of(config)) as source:
        source._read({seed_key(first): first})
        assert begun.wait(timeout=20)
        source._read({seed_key(second): second})
        going_on.set()
        finish(source)
    assert len(read) == 1 + 8


def test_frames_are_read_side_by_side(config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(4)

    def together_only(recording: TumRgbdRecording, index: int, size: tuple[int, int]) -> RecordedFrame:
        together.wait(timeout=20)
        return fit_frame(recording[index], size)

    monkeypatch.setattr(recordings, "_read_frame", together_only)
    monkeypatch.setattr(recordings, "THREADS", 4)
    with closing(scenes_of(config)) as source:
        assert source(draw_step(config, 0, 0, Share())).images.shape == (2, 4, 3, 28, 28)


def test_a_picture_that_cannot_be_read_is_named_when_its_turn_comes(config: DataConfig) -> None:
    first, second = (draw_step(config, 0, step, Share()) for step in range(2))
    with closing(scenes_of(config)) as source:
        source(first)
        shutil.rmtree(Path(config.train[0]) / "rgb")
        source._read({seed_key(d): d for d in (first, second)})
        finish(source)
        source(first)
        with pytest.raises(ValueError, match=r"\.png is missing or is no picture"):
            source(second)


@pytest.mark.parametrize("role", ["train", "validation"])
def test_a_recording_too_short_for_a_window_is_named_at_the_start(config: DataConfig, role: str) -> None:
    """Twelve frames are enough for twelve views."""
    buckets = (Bucket(28, 28, (4,)), Bucket(28, 28, (6, 12), weight=0.01))
    scenes_of(replace(config, patches_per_step=64, buckets=buckets)).close()
    associations = Path(getattr(config, role)[0]) / "rgb.txt"
    lines = associations.read_text().splitlines(keepends=True)
    associations.write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match=rf"{role} has 11 frames, data\.buckets asks for 12"):
        scenes_of(replace(config, patches_per_step=64, buckets=buckets))


def test_validating_on_what_is_trained_on_is_said_once(config: DataConfig, caplog: pytest.LogCaptureFixture) -> None:
    (draw,) = draw_validation(config, 1, Share())
    with closing(scenes_of(config)) as source:
        shutil.rmtree(config.train[0])
        source(draw)
    assert not caplog.records
    with closing(scenes_of(replace(config, train=config.validation, validation=()))) as source:
        source(draw)
        source(draw)
    (record,) = caplog.records
    assert "set data.validation" in record.getMessage()
