"""What Inductor builds, on a CPU: it gives what the part gives, is kept, and is refused where it does not load."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from da3_core.engines import compiled
from da3_core.engines.backend import Eager, Program, ProgramError
from da3_core.engines.cache import ArtifactCache
from da3_core.engines.compiled import JustInTime, Packages
from da3_core.engines.programs import Programs

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.layer(x).exp(), x + 1


@pytest.fixture
def part() -> Part:
    torch.manual_seed(0)
    return Part().eval()


def agrees(program: object, part: Part, seed: int) -> bool:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        wanted = part(x)
    found = program(x)  # type: ignore[operator]
    return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, wanted, strict=True))


@needs_compiler
def test_a_package_reads_the_weights_of_the_model_and_is_built_once(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(3, 4)
    first = Packages(ArtifactCache(part, tmp_path), CPU).build(part, [x])
    assert agrees(first, part, 1)
    monkeypatch.setattr(compiled, "export", None)  # a second start traces nothing
    again = Packages(ArtifactCache(part, tmp_path), CPU).build(part, [x])
    assert agrees(again, part, 2)
    with torch.no_grad():
        part.layer.weight.mul_(2)
    assert agrees(again, part, 3)


@needs_compiler
def test_a_package_keeps_constants_with_their_strides(tmp_path: Path) -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2, 5, 3))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            rows, columns = torch.arange(5.0, device=x.device), torch.arange(3.0, device=x.device)
            return (x * self.scale + (rows.unsqueeze(1) + columns).mT.sin().mT.expand(2, 5, 3),)

    part, x = Table(), torch.ones(2, 5, 3)
    for _ in range(2):
        (y,) = Packages(ArtifactCache(part, tmp_path), CPU).build(part, [x])(x)
        assert torch.allclose(y, part(x)[0])
    assert len(list(tmp_path.rglob("constants.pt"))) == 1


@needs_compiler
def test_a_package_that_does_not_load_is_refused(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_nonsense(self: Packages, part: nn.Module, inputs: object, path: Path) -> None:
        path.write_bytes(b"not a package")

    monkeypatch.setattr(Packages, "_write", write_nonsense)
    with pytest.raises(ProgramError, match="does not run"):
        Packages(ArtifactCache(part, tmp_path), CPU).build(part, [torch.zeros(3, 4)])


@needs_compiler
def test_compiled_at_start_runs_with_and_without_gradients_and_compiles_once(part: Part, tmp_path: Path) -> None:
    program = JustInTime(ArtifactCache(part, tmp_path), CPU).build(part, [torch.zeros(3, 4)])
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert agrees(program, part, 3)
        assert not any(y.requires_grad for y in program(torch.ones(3, 4)))


@needs_compiler
def test_what_was_built_is_loaded_beside_the_first_results(part: Part, tmp_path: Path) -> None:
    x = torch.ones(3, 4)

    def start() -> Programs:
        packages = Packages(ArtifactCache(part, tmp_path), CPU)
        programs = Programs([packages], Eager(CPU), later=packages)
        programs.prepare(part, x)
        return programs

    first = start()
    assert first.runs == {"Part": "compiled"} and not first.is_loading  # built before anything runs
    again = start()
    assert again.runs == {} and again.is_loading
    wanted = part(x)[0]
    give_up = time.monotonic() + 60
    while again.is_loading and time.monotonic() < give_up:
        assert torch.allclose(again.run(lambda x: again(part, x), x)[0], wanted)
    assert again.runs == {"Part": "compiled"} and again.refusals == []
    assert torch.allclose(again(part, x)[0], wanted)


class DoesNotLoad:
    """Has built everything, and loads nothing."""

    name = "compiled"

    def is_built(self, part: nn.Module, inputs: Sequence[Tensor]) -> bool:
        return True

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        raise ProgramError("it is damaged")


def test_what_does_not_load_beside_the_first_results_stays_plain(part: Part) -> None:
    later, x = DoesNotLoad(), torch.ones(3, 4)
    programs = Programs([later, JustInTime(ArtifactCache(part), CPU)], Eager(CPU), later=later)
    programs.prepare(part, x)
    give_up = time.monotonic() + 60
    while programs.is_loading and time.monotonic() < give_up:
        assert torch.allclose(programs.run(lambda x: programs(part, x), x)[0], part(x)[0])
    assert programs.runs == {} and programs.refusals == ["compiled cannot run Part: it is damaged"]
    assert torch.allclose(programs(part, x)[0], part(x)[0])


def test_a_package_is_of_the_instructions_that_it_was_compiled_to(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: Packages, part: nn.Module, inputs: object, path: Path) -> None:
        path.write_bytes(b"code")

    packages, x = Packages(ArtifactCache(part, tmp_path), CPU), torch.zeros(3, 4)
    monkeypatch.setattr(Packages, "_write", write)
    monkeypatch.setattr(Packages, "_program", lambda self, part, path, inputs: part)
    packages.build(part, [x])
    assert packages.is_built(part, [x])
    with monkeypatch.context() as another:
        another.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another one")
        assert not packages.is_built(part, [x])
    monkeypatch.setattr("platform.machine", lambda: "another one")
    assert not packages.is_built(part, [x])


def test_what_inductor_keeps_is_of_these_instructions_too(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = set()
    for capability in ("AVX2", "AVX512"):
        monkeypatch.setattr(os, "environ", {})
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        compiled.keep_inductors_cache(ArtifactCache(part, tmp_path))
        folders.add(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert len(folders) == 2
