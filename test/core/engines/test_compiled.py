"""What Inductor builds, on a CPU: it gives what the part gives, is kept, and is refused where it would end the process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from da3_core.engines import compiled
from da3_core.engines.cache import ArtifactCache
from da3_core.engines.compiled import AheadOfTime, JustInTime
from da3_core.engines.programs import ProgramError

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
def test_a_package_reads_the_weights_of_the_model_and_is_built_once(part: Part, tmp_path: Path) -> None:
    x = torch.zeros(3, 4)
    first = AheadOfTime(ArtifactCache(part, tmp_path), CPU).build(part, [x])
    assert agrees(first, part, 1)
    (package,) = tmp_path.rglob("part.pt2")
    built = package.stat().st_mtime_ns
    again = AheadOfTime(ArtifactCache(part, tmp_path), CPU).build(part, [x])
    assert agrees(again, part, 2) and package.stat().st_mtime_ns == built


@needs_compiler
def test_compiled_at_start_runs_with_and_without_gradients_and_compiles_once(part: Part, tmp_path: Path) -> None:
    program = JustInTime(ArtifactCache(part, tmp_path), CPU).build(part, [torch.zeros(3, 4)])
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert agrees(program, part, 3)
        assert not any(y.requires_grad for y in program(torch.ones(3, 4)))


def test_a_package_that_ends_its_process_is_refused_then_and_later(part: Part, tmp_path: Path) -> None:
    cache = ArtifactCache(part, tmp_path)
    cache.folder.mkdir(parents=True)
    broken = tmp_path / "broken.pt2"
    broken.write_bytes(b"not a package")
    with pytest.raises(ProgramError, match="ends with"):
        AheadOfTime(cache, CPU)._check(broken)
    with pytest.raises(ProgramError, match=r"delete .*packages-refused"):
        AheadOfTime(cache, CPU).build(part, [torch.zeros(3, 4)])
    assert not list(tmp_path.rglob("part.pt2"))


def test_a_package_that_never_loads_is_refused(part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ArtifactCache(part, tmp_path)
    cache.folder.mkdir(parents=True)
    monkeypatch.setattr(compiled, "LOAD_TIMEOUT_S", 0.01)
    with pytest.raises(ProgramError, match="timed out"):
        AheadOfTime(cache, CPU)._check(tmp_path / "any.pt2")
