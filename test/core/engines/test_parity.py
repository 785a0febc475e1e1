"""The gate that programs pass before they run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from da3_core.engines import AnyViewEngine, FullRecompute
from da3_core.engines.backend import Eager, Program, ProgramError
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
        return (torch.ones(7, 7) @ torch.ones(5),)  # raises RuntimeError


class Short(nn.Module):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return ()  # comparing raises ValueError


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


class Faint(nn.Module):
    """Gives a map of `level`, as the sky's probability is where there is none, beside one of depth."""

    def __init__(self, level: float = 0.0) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return 1 + x, self.level * torch.ones_like(x)


@pytest.mark.parametrize(("level", "is_right"), [(0.0, True), (5e-6, True), (2e-5, False)])
def test_an_output_of_zeros_may_be_nearly_zero(level: float, is_right: bool, tmp_path: Path) -> None:
    checked = Checked(Careless(lambda part: Faint(level)), ArtifactCache(Faint(), tmp_path))
    if is_right:
        checked.build(Faint(), [torch.rand(1, 4, 6)])
    else:
        with pytest.raises(ProgramError, match=r"output 1 is 2\.0e-03 off"):
            checked.build(Faint(), [torch.rand(1, 4, 6)])


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


@pytest.mark.parametrize("failing", [Failing, Short])
def test_programs_that_fail_are_refused(failing: type[nn.Module], tmp_path: Path, shallow_of: Callable[[str], Model]) -> None:
    model = shallow_of("da3-nano")
    refusals = engine_of(model, Checked(Careless(lambda _: failing()), ArtifactCache(model, tmp_path))).programs.refusals
    assert len(refusals) == len(PARTS) and all("it cannot be checked" in refusal for refusal in refusals)


def test_refusals_go_with_the_parts_that_they_were_of(tmp_path: Path, shallow_of: Callable[[str], Model]) -> None:
    model = shallow_of("da3-nano")
    engine = engine_of(model, Checked(Careless(lambda _: Failing()), ArtifactCache(model, tmp_path)))
    for size in ((42, 28), SIZE):
        engine.prepare(size)
        assert len(engine.refusals) == len(PARTS)


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
