"""What runs on a GPU only: recorded graphs, compiled and not, give what the whole network gives, and nothing waits for the device."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from da3_core.engines import AnyViewEngine, FullRecompute, make_engine
from da3_core.model.checkpoint import Model
from da3_core.types import View

from .same import assert_same
from .test_incremental import windows

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
SIZE = (28, 42)


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.parametrize("preset", ["da3-small", "da3-giant", "da3metric-nano", "da3nested-nano"])
def test_recorded_windows_give_what_the_whole_network_gives(
    preset: str, model_of: Callable[[str], Model], views_of: Callable[..., list[View]]
) -> None:
    model = model_of(preset)
    engine = make_engine("eager", model, "cuda", views=4, precision="fp32")
    reference = FullRecompute(model, engine.kind)
    rng = random.Random(preset)
    for window, wanted in windows(views_of(12, SIZE), 4, seed=1):
        posed = rng.random() < 0.5
        for _ in range(3):  # as it is, recorded, replayed
            assert_same(engine.infer(window, wanted, posed), reference.infer(window, wanted, posed), tolerance=1e-3)
    assert engine.programs.refusals == []


@pytest.mark.parametrize("precision, tolerance, count", [("fp32", 1e-3, 2), ("fp32", 1e-3, 3), ("bf16", 5e-2, 3), ("fp16", 1e-2, 3)])
def test_compiled_windows_are_loaded_again_and_give_what_the_whole_network_gives(
    precision: str,
    tolerance: float,
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shallow_of: Callable[[str], Model],
    views_of: Callable[..., list[View]],
) -> None:
    model, views = shallow_of("da3-small"), views_of(count + 1, SIZE)
    reference = FullRecompute(model, "any_view")
    for _ in range(2):
        engine = make_engine("compiled", model, "cuda", views=count, precision=precision, cache_dir=tmp_path)
        assert isinstance(engine, AnyViewEngine)
        engine.prepare(SIZE)
        assert engine.programs.refusals == [] and set(engine.programs.runs.values()) == {"compiled"}
        for window in (views[:count], views[1:]):
            for posed in (True, False) if precision == "fp32" else (True,):  # reference views flip on near ties
                for _ in range(3):
                    found, wanted = (e.infer(window, [count - 1], posed) for e in (engine, reference))
                    assert found.depth is not None and wanted.depth is not None
                    assert (found.depth - wanted.depth).norm() <= tolerance * wanted.depth.norm()
                assert engine.programs.refusals == []
        monkeypatch.setattr("da3_core.engines.compiled.export", None)


@pytest.mark.parametrize("posed", [True, False])
def test_the_host_runs_ahead(posed: bool, model_of: Callable[[str], Model], views_of: Callable[..., list[View]]) -> None:
    engine, views = make_engine("eager", model_of("da3-nano"), "cuda", views=3), views_of(8, SIZE)
    assert isinstance(engine, AnyViewEngine)
    for i in range(3):
        engine.infer(views[i : i + 3], [2], posed)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for i in (3, 4, 5):
            engine.predict(views[i : i + 3], [2], posed)
    finally:
        torch.cuda.set_sync_debug_mode("default")
