"""The gate that programs pass before they run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from da3_core.engines import AnyViewEngine, FullRecompute
from da3_core.engines.backend import Eager, Program
from da3_core.engines.cache import ArtifactCache
from da3_core.engines.choice import in_precision
from da3_core.engines.parity import Checked
from da3_core.engines.programs import Programs
from da3_core.engines.recorded import Recorder
from da3_core.model.checkpoint import Model
from da3_core.model.da3 import AnyView
from da3_core.types import View

from .same import assert_same

CPU, SIZE, VIEWS = torch.device("cpu"), (28, 42), 3
PARTS = ("EncodeViews", "GivenCameras", "LearnedCameras", "DecodeWindow")


class Careless:
    """Compiles parts to something that is not quite the same."""

    name = "careless"

    def __init__(self, change: Callable[[nn.Module], nn.Module]) -> None:
        self._change = change

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        return Eager(CPU).build(self._change(copy.deepcopy(part)), inputs)


def rounded(part: nn.Module) -> nn.Module:
    """Weights with the three bits of an eight-bit float."""
    for parameter in part.parameters():
        parameter.data = parameter.data.to(torch.float8_e4m3fn).float()
    return part


def overflowing(part: nn.Module) -> nn.Module:
    for parameter in part.parameters():
        parameter.data.fill_(torch.inf)
    return part


class Failing(nn.Module):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (torch.ones(7, 7) @ torch.ones(5),)  # raises


def engine_of(model: Model, backend: Checked) -> AnyViewEngine:
    assert isinstance(model, AnyView)
    engine = AnyViewEngine(model, Programs([backend], Eager(CPU)), VIEWS)
    engine.prepare(SIZE)
    return engine


def test_programs_that_are_right_run(tmp_path: Path, shallow_of: Callable[[str], Model]) -> None:
    model = shallow_of("da3-nano")
    engine = engine_of(model, Checked(Eager(CPU), ArtifactCache(model, tmp_path)))
    assert engine.programs.refusals == [] and tuple(engine.programs.runs) == PARTS
    assert len(list((tmp_path / "engines").glob("*/reference.safetensors"))) == len(PARTS)


@pytest.mark.parametrize("change", [rounded, overflowing])
def test_programs_that_are_wrong_are_refused_and_the_next_engine_runs(
    change: Callable[[nn.Module], nn.Module],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    shallow_of: Callable[[str], Model],
    views_of: Callable[..., list[View]],
) -> None:
    model, views = shallow_of("da3-nano"), views_of(VIEWS, SIZE)
    engine = engine_of(model, Checked(Careless(change), ArtifactCache(model, tmp_path)))
    for part in PARTS:
        reason = f"careless cannot run {part}: output "
        assert reason in engine.description and reason in caplog.text
    assert "off what PyTorch gives in float32" in engine.description and "precision fp32" in engine.description
    assert_same(engine.infer(views, [2], posed=True), FullRecompute(model, engine.kind).infer(views, [2], posed=True))


def test_programs_that_fail_are_refused(tmp_path: Path, shallow_of: Callable[[str], Model]) -> None:
    model = shallow_of("da3-nano")
    refusals = engine_of(model, Checked(Careless(lambda _: Failing()), ArtifactCache(model, tmp_path))).programs.refusals
    assert len(refusals) == len(PARTS) and all("it cannot be checked" in refusal for refusal in refusals)


def test_the_reference_is_kept_and_used_again(tmp_path: Path, shallow_of: Callable[[str], Model]) -> None:
    model = shallow_of("da3-nano")
    written, refusals = [], []
    for backend in (Eager(CPU), Careless(rounded)):
        refusals.append(engine_of(model, Checked(backend, ArtifactCache(model, tmp_path))).programs.refusals)
        written.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")})
    assert written[0] == written[1] and list(map(len, refusals)) == [0, len(PARTS)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_a_gpu_is_within_the_tolerance_and_records(
    dtype: torch.dtype, tmp_path: Path, shallow_of: Callable[[str], Model], views_of: Callable[..., list[View]]
) -> None:
    model, gpu = in_precision(shallow_of("da3-nano").cuda(), dtype), torch.device("cuda")
    assert isinstance(model, AnyView)
    checked = Checked(Eager(gpu), ArtifactCache(model, tmp_path))
    engine = AnyViewEngine(model, Programs([checked], Eager(gpu), recorder=Recorder(gpu)), VIEWS)
    engine.prepare(SIZE)
    for posed in (True, False, True, False):
        engine.infer(views_of(VIEWS, SIZE), [0], posed)
    assert engine.programs.refusals == [] and tuple(engine.programs.runs) == PARTS
