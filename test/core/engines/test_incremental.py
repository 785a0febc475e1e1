"""The incremental window against the whole network run anew."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from da3_core.engines import AnyViewEngine, FullRecompute, MonoEngine, NestedEngine, make_engine
from da3_core.engines.backend import Eager, Program
from da3_core.engines.programs import Programs
from da3_core.model import PRESETS
from da3_core.model.checkpoint import Model
from da3_core.model.da3 import AnyView, Mono
from da3_core.types import View

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
