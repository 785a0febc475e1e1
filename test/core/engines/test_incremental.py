"""The incremental window against the whole network run anew."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn

from da3_core.engines import AnyViewEngine, FullRecompute, MonoEngine, NestedEngine, make_engine
from da3_core.engines.programs import Program, Programs
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


class ShortLived:
    """Programs that share memory as strictly as recordings may: what one gave is gone once the next has run."""

    name = "short-lived"

    def __init__(self) -> None:
        self._last: tuple[Tensor, ...] = ()

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            outputs = tuple(x.clone() for x in part(*inputs))
            for x in self._last:
                x.fill_(torch.nan)
            self._last = outputs
            return outputs

        return run


@pytest.mark.parametrize("preset", ["da3-nano", "da3metric-nano", "da3nested-nano"])
def test_nothing_a_program_gave_is_read_after_the_next(
    preset: str, model_of: Callable[[str], Model], views_of: Callable[..., list[View]]
) -> None:
    model, programs = model_of(preset), Programs([], ShortLived())
    engine: AnyViewEngine | MonoEngine | NestedEngine
    if isinstance(model, AnyView):
        engine = AnyViewEngine(model, programs, 3)
    elif isinstance(model, Mono):
        engine = MonoEngine(model, programs, 3)
    else:
        engine = NestedEngine(AnyViewEngine(model.any_view, programs, 3), MonoEngine(model.metric, programs, 3))
    reference = FullRecompute(model, engine.kind)
    views = views_of(5, SIZE)
    for window in (views[:1], views[:3], views[2:4], views[2:]):
        for posed in (False, True):
            assert_same(engine.infer(window, [0], posed), reference.infer(window, [0], posed))


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
