"""The engine of onnxruntime, and what it keeps on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from da3_core.engines import FullRecompute, make_engine
from da3_core.model.checkpoint import Model
from da3_core.types import View

from .same import assert_same

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SIZE = (28, 42)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the module: exporting takes seconds, and what one test exports the next one finds."""
    return tmp_path_factory.mktemp("cache")


def artifacts(folder: Path) -> dict[Path, int]:
    """Every file's time of writing, in ns."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("preset", "parts"), [("da3-nano", ["EncodeViews", "DecodeWindow"]), ("da3metric-nano", ["PredictViews"])])
def test_it_gives_what_the_whole_network_gives(
    preset: str, parts: list[str], folder: Path, shallow_of: Callable[[str], Model], views_of: Callable[..., list[View]]
) -> None:
    model = shallow_of(preset)
    engine = make_engine("onnx", model, "cpu", views=3, cache_dir=folder)
    reference = FullRecompute(model, engine.kind)
    views = views_of(5, SIZE)
    for i, (posed, wanted) in enumerate([(False, [2]), (True, [1]), (False, [0, 2])]):  # the last is not what it was built for
        window = views[i : i + 3]
        assert_same(engine.infer(window, wanted, posed), reference.infer(window, wanted, posed), tolerance=1e-4)
    assert all(f"{part} by onnx" in engine.description for part in parts) and "cannot" not in engine.description


def test_a_second_start_exports_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, shallow_of: Callable[[str], Model], views_of: Callable[..., list[View]]
) -> None:
    model, views = shallow_of("da3metric-nano"), views_of(3, SIZE)
    first = make_engine("onnx", model, "cpu", views=3, cache_dir=folder).infer(views, [2], posed=False)
    written = artifacts(folder)
    assert written
    monkeypatch.setenv("DA3_CACHE_DIR", str(folder))
    second = make_engine("onnx", model, "cpu", views=3)
    assert_same(second.infer(views, [2], posed=False), first, tolerance=0)
    assert artifacts(folder) == written and "PredictViews by onnx" in second.description


def test_without_a_place_to_write_the_plain_network_runs_and_says_what_helps(
    tmp_path: Path, shallow_of: Callable[[str], Model], views_of: Callable[..., list[View]]
) -> None:
    (tmp_path / "engines").write_text("a file where the folder should be")
    model, views = shallow_of("da3metric-nano"), views_of(1, SIZE)
    engine = make_engine("onnx", model, "cpu", views=1, cache_dir=tmp_path)
    assert_same(engine.infer(views, [0], False), FullRecompute(model, engine.kind).infer(views, [0], False))
    assert "PredictViews by" not in engine.description and "set DA3_CACHE_DIR" in engine.description
