"""The incremental window against the whole network run anew."""

from __future__ import annotations

import dataclasses
import logging
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from da3_core.config import ModeConfig, PreprocessConfig, ScaleConfig, StreamConfig
from da3_core.engines import AnyViewEngine, FullRecompute, MonoEngine, NestedEngine, make_engine
from da3_core.engines.backend import Eager, Program
from da3_core.engines.incremental import UNBUILT_WINDOWS
from da3_core.engines.programs import Programs
from da3_core.model import PRESETS
from da3_core.model.checkpoint import Model
from da3_core.model.da3 import AnyView, Mono
from da3_core.streaming import Stream
from da3_core.types import Calibration, Frame, View

from .same import assert_same

ANY_VIEW = [name for name in PRESETS if "mono" not in name and not name.startswith("da3metric")]
SIZE = (28, 42)


def windows(views: list[View], capacity: int, seed: int) -> Iterator[tuple[list[View], list[int]]]:
    """Windows that views enter, one or a rig's three at a time, and leave in any order, with some views wanted of each."""
    rng = random.Random(seed)
    window: list[View] = []
    coming = iter(views)
    while new := [view for _, view in zip(range(rng.choice((1, 1, 3))), coming, strict=False)]:
        while len(window) + len(new) > capacity or (window and rng.random() < 0.2):
            window.pop(rng.randrange(len(window)))
        window = [*window, *new]
        if rng.random() < 0.3:
            rng.shuffle(window)
        yield window, rng.sample(range(len(window)), rng.randrange(len(window) + 1))


@pytest.mark.parametrize("preset", PRESETS)
def test_any_sequence_of_windows_gives_what_the_whole_network_gives(
    preset: str, model_of: Callable[[str], Model], views_of: Callable[..., list[View]]
) -> None:
    model = model_of(preset)
    engine = make_engine("eager", model, views=4)
    reference = FullRecompute(model, engine.kind)
    rng = random.Random(preset)
    for window, wanted in windows(views_of(12, SIZE), 4, seed=1):
        posed = rng.random() < 0.5
        assert_same(engine.infer(window, wanted, posed), reference.infer(window, wanted, posed))


class Shared:
    """Records nothing, but as strictly as recordings may: what a sequence gave is gone once the next has run, inputs lie in its own memory,
    and it runs a few times where it is recorded."""

    def __init__(self) -> None:
        self._last: tuple[Tensor, ...] = ()
        self.recorded = 0

    def record(self, run: Program, inputs: Sequence[Tensor]) -> Program:
        run(*inputs)
        self.recorded += 1
        fixed = [x.clone() for x in inputs]

        def replay(*inputs: Tensor) -> tuple[Tensor, ...]:
            for x, y in zip(fixed, inputs, strict=True):
                x.copy_(y)
            outputs = tuple(x.clone() for x in run(*fixed))
            for x in self._last:
                x.fill_(torch.nan)
            self._last = outputs
            return outputs

        return replay


@pytest.mark.parametrize("preset", ["da3-nano", "da3metric-nano", "da3nested-nano"])
def test_nothing_a_sequence_gave_is_read_after_the_next(
    preset: str, model_of: Callable[[str], Model], views_of: Callable[..., list[View]]
) -> None:
    model, programs = model_of(preset), Programs([], Eager(torch.device("cpu")), recorder=Shared())
    engine: AnyViewEngine | MonoEngine | NestedEngine
    if isinstance(model, AnyView):
        engine = AnyViewEngine(model, programs, 3)
    elif isinstance(model, Mono):
        engine = MonoEngine(model, programs, 3)
    else:
        engine = NestedEngine(AnyViewEngine(model.any_view, programs, 3), MonoEngine(model.metric, programs, 3))
    reference = FullRecompute(model, engine.kind)
    views = views_of(7, SIZE)
    for window in (views[:1], views[:3], views[2:4], views[2:5], views[3:6], views[3:7]):  # the last is larger than what was prepared
        for posed in (False, True):
            for _ in range(3):  # as it is, recorded, replayed
                assert_same(engine.infer(window, [0], posed), reference.infer(window, [0], posed))
            engine.infer(window[::-1], [], not posed)


def test_what_fills_and_what_knows_other_memory_is_not_recorded(
    model_of: Callable[[str], Model], views_of: Callable[..., list[View]]
) -> None:
    model, recorder, views = model_of("da3-nano"), Shared(), views_of(9, SIZE)
    assert isinstance(model, AnyView)
    engine = AnyViewEngine(model, Programs([], Eager(torch.device("cpu")), recorder=recorder), 3)

    def run(first: int, last: int) -> int:
        """Recordings that a run over these views makes, from an empty window on."""
        before = recorder.recorded
        engine.reset()
        for i in range(first, last):
            engine.infer(views[max(first, i - 2) : i + 1], [0], posed=False)
        return recorder.recorded - before

    assert run(0, 6) == 1  # of the full window; those before it came once
    assert run(0, 6) == 0
    engine.infer(views[:4], [0], posed=False)  # more than there is room for: what is kept moves
    assert run(0, 6) == 1


def test_a_window_that_fails_leaves_no_view_half_kept(model_of: Callable[[str], Model], views_of: Callable[..., list[View]]) -> None:
    model, views = model_of("da3-nano"), views_of(3, SIZE)
    engine = make_engine("eager", model, views=3)
    torn = dataclasses.replace(views[1], image=views[1].image[:2])
    with pytest.raises(RuntimeError):
        engine.infer([views[0], torn], [0], posed=False)
    assert_same(engine.infer(views, [2], posed=False), FullRecompute(model, engine.kind).infer(views, [2], posed=False))


def test_a_view_is_encoded_once(model_of: Callable[[str], Model], views_of: Callable[..., list[View]]) -> None:
    engine = make_engine("eager", model_of("da3-nano"), views=3)
    a, b, c, d = views_of(4, SIZE)
    black = [dataclasses.replace(view, image=torch.zeros_like(view.image)) for view in (a, b, c)]
    seen = engine.infer([a, b, c], [2], posed=False)
    assert_same(engine.infer(black, [2], posed=False), seen, tolerance=0)
    engine.infer([b, c, d], [2], posed=False)  # a makes room
    kept = engine.infer(black[1:], [0, 1], posed=True)
    engine.reset()
    assert_same(kept, engine.infer([b, c], [0, 1], posed=True), tolerance=1e-6)


class Fast:
    """Runs what it has built in PyTorch, and remembers what ran."""

    name = "fast"

    def __init__(self) -> None:
        self.ran: list[str] = []

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            self.ran.append(type(part).__name__)
            return part(*inputs)

        return run


def fast_engine(model: Model, views: int) -> tuple[AnyViewEngine | NestedEngine, Fast]:
    fast = Fast()
    programs = Programs([fast], Eager(torch.device("cpu")))
    if isinstance(model, AnyView):
        return AnyViewEngine(model, programs, views), fast
    assert not isinstance(model, Mono)
    return NestedEngine(AnyViewEngine(model.any_view, programs, views), MonoEngine(model.metric, programs, views)), fast


def stream_frames(stream: Stream, cameras: int, count: int = 6) -> Iterator[None]:
    """Posed images of a rig that moves a keyframe's distance each time; yields after each set."""
    H, W = SIZE
    calibration = Calibration(W, H, np.array([[40.0, 0, W / 2 - 0.5], [0, 40.0, H / 2 - 0.5], [0, 0, 1]]))
    rng = np.random.default_rng(0)
    for k in range(1, count + 1):
        frames = []
        for camera in map(str, range(cameras)):
            T_world_cam = np.eye(4)
            T_world_cam[:3, 3] = 0.2 * k, 0.1 * int(camera), 0
            image = rng.integers(0, 255, (H, W, 3)).astype(np.uint8)
            frames.append(Frame(camera, camera, k * 10**8, image, calibration, T_world_cam))
        stream.register(frames)
        yield


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize(
    ("preset", "cameras", "views", "config"),
    [
        ("da3-nano", 1, 3, StreamConfig()),
        ("da3-nano", 1, 1, StreamConfig()),
        ("da3-nano", 2, 5, StreamConfig()),
        ("da3-nano", 1, 3, StreamConfig(scale=ScaleConfig(chain="when_blind"))),
        ("da3-nano", 1, 3, StreamConfig(mode=ModeConfig("unposed"), scale=ScaleConfig(chain="when_blind"))),
        ("da3nested-nano", 1, 3, StreamConfig()),
        ("da3nested-nano", 1, 3, StreamConfig(mode=ModeConfig("metric"))),
    ],
)
def test_full_windows_of_a_stream_run_what_was_built_for_them(
    prepared: bool, preset: str, cameras: int, views: int, config: StreamConfig, model_of: Callable[[str], Model]
) -> None:
    mode = dataclasses.replace(config.mode, gate_interval=1000)  # windows that check poses want no depth, and are not built for
    window = dataclasses.replace(config.window, views=views, keyframe_interval_s=0)
    config = dataclasses.replace(config, mode=mode, window=window, preprocess=PreprocessConfig(size=SIZE[1]))
    engine, fast = fast_engine(model_of(preset), views)
    if prepared:
        engine.prepare(SIZE, Stream.views_wanted(engine.kind, config, cameras), cameras)
    elif "when_blind" in config.scale.chain and config.mode.mode != "unposed":
        pytest.skip("the first window alone does not say what others want")
    for _ in stream_frames(Stream(engine, config), cameras):
        ran, fast.ran = fast.ran, []
    assert ran.count("DecodeWindow") == 1 and ran.count("EncodeViews") == 1
    assert not engine.refusals


def test_full_windows_that_nothing_is_built_for_are_told_once_where_they_go_on(
    model_of: Callable[[str], Model], views_of: Callable[..., list[View]], caplog: pytest.LogCaptureFixture
) -> None:
    engine, _ = fast_engine(model_of("da3-nano"), 3)
    views = views_of(8, SIZE)
    engine.prepare(SIZE, 2)
    with caplog.at_level(logging.WARNING):
        for last in range(1, 4):
            engine.infer(views[:last], [0], posed=False)
        for _ in range(UNBUILT_WINDOWS - 2):
            engine.infer(views[1:4], [2], posed=True)
        engine.infer(views[1:4], [0, 2], posed=True)  # as a rig's that has its camera again
        for _ in range(UNBUILT_WINDOWS):
            assert not engine.refusals
            engine.infer(views[1:4], [2], posed=True)
    assert caplog.messages == list(engine.refusals) == ["full windows with depth wanted of 1 of 3 views run plainly: built for 2"]
    assert engine.refusals[0] in engine.description
    engine.prepare(SIZE, 1)
    engine.infer(views[2:5], [2], posed=True)
    assert not engine.refusals


def test_an_engine_without_programs_has_none_to_miss(model_of: Callable[[str], Model], views_of: Callable[..., list[View]]) -> None:
    engine = make_engine("eager", model_of("da3-nano"), "cpu", views=2)
    engine.prepare(SIZE, 2)
    engine.infer(views_of(3, SIZE), [0], posed=False)
    assert not engine.refusals


def test_a_window_that_is_too_large_is_told_and_slow_until_the_engine_is_reset(
    model_of: Callable[[str], Model], views_of: Callable[..., list[View]]
) -> None:
    engine, fast = fast_engine(model_of("da3-nano"), 2)
    reference, views = FullRecompute(model_of("da3-nano"), engine.kind), views_of(6, SIZE)
    engine.prepare(SIZE, 1)
    assert_same(engine.infer(views[:4], [3], posed=False), reference.infer(views[:4], [3], posed=False))
    assert len(engine.refusals) == 1 and "make it for as many views as a window can have" in engine.refusals[0]
    engine.reset()
    fast.ran = []
    assert_same(engine.infer(views[:2], [1], posed=True), reference.infer(views[:2], [1], posed=True))
    assert "DecodeWindow" in fast.ran


def test_an_engine_that_was_not_prepared_is_built_for_a_first_window_that_is_too_large(
    model_of: Callable[[str], Model], views_of: Callable[..., list[View]]
) -> None:
    for preset in ("da3-nano", "da3nested-nano"):
        engine, fast = fast_engine(model_of(preset), 2)
        engine.infer(views_of(3, SIZE), [0, 1, 2], posed=True)  # three cameras
        assert "DecodeWindow" in fast.ran and not engine.refusals
