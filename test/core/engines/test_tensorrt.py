"""What TensorRT is given: the graphs in onnxruntime against PyTorch, and in TensorRT's own parser and builder. No engine runs here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from da3_core.engines.backend import Program, ProgramError
from da3_core.engines.cache import ArtifactCache
from da3_core.engines.choice import export_graphs
from da3_core.engines.graphs import GRAPH, REFERENCE
from da3_core.engines.parity import worst_error
from da3_core.engines.tensorrt import TensorRT, import_tensorrt, plan_from_onnx
from da3_core.model.checkpoint import Model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SIZE, VIEWS = (28, 42), 3
CAPABILITIES = [(8, 6), (8, 9), (12, 0)]
OF_WINDOWS = ["EncodeViews", "GivenCameras", "LearnedCameras", "DecodeWindow"]
CASES = {  # preset, precision, views with depth: the other presets have the same operations in other sizes
    ("da3-nano", "fp32", 1): OF_WINDOWS,
    ("da3-nano", "fp16", 2): ["EncodeViews", *OF_WINDOWS],  # of a rig: of one view, and of two at once
    ("da3-giant", "fp32", 1): OF_WINDOWS,  # with another feed-forward part
    ("da3-giant", "fp16", 1): OF_WINDOWS,
    ("da3metric-nano", "fp32", 1): ["PredictViews"],  # which is da3mono's: they differ in what is made of the depth
    ("da3metric-nano", "fp16", 1): ["PredictViews"],
}
Case = tuple[str, list[str], list[Path]]  # precision, parts, and the folders that they lie in
TOLERANCE = {"fp32": 2e-5, "fp16": 1e-2}


needs_builder = pytest.mark.skipif(
    find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT for RTX, which builds engines without a GPU, has no wheel here"
)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shallow_of: Callable[[str], Model]) -> Case:
    preset, precision, wanted = request.param
    folder = tmp_path_factory.mktemp(f"{preset}-{precision}")
    return precision, CASES[request.param], export_graphs(shallow_of(preset), folder, VIEWS, SIZE, wanted, precision)


def run_by_onnxruntime(path: Path) -> Program:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})))

    return run


def test_every_part_gives_in_onnxruntime_what_pytorch_gives_in_float32(case: Case) -> None:
    precision, parts, folders = case
    assert [folder.name.split("-")[0] for folder in folders] == parts
    for folder in folders:
        error, _ = worst_error(run_by_onnxruntime(folder / GRAPH), folder / REFERENCE)
        assert error < TOLERANCE[precision], folder.name


@needs_builder
def test_tensorrt_builds_an_engine_of_every_part_for_every_chip(case: Case) -> None:
    trt, log = import_tensorrt()
    _, _, folders = case
    for folder in folders:
        assert len(plan_from_onnx(trt, log, folder / GRAPH, CAPABILITIES)) > 1000, folder.name


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([2.0, 3.0]))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x * self.factor,)


@needs_builder
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the engine may load")
def test_an_engine_is_built_once_for_a_chip_and_refused_where_it_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a robot whose GPU was taken out."""
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "GeForce RTX 4090")
    part, inputs, written = Scaled(), [torch.ones(3, 2)], []
    for capability, complaint in (((8, 9), "does not load .*force"), ((8, 9), "does not load"), ((9, 0), "not for this GPU's SM90")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        with pytest.raises(ProgramError, match=complaint):
            TensorRT(ArtifactCache(part, tmp_path), torch.device("cpu")).build(part, inputs)
        written.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()})
    assert written[0] == written[1] == written[2] and [path.suffix for path in sorted(written[0])] == [".json", ".plan"]
    (folder,) = (tmp_path / "engines").iterdir()
    assert folder.name.startswith("Scaled-float32-3x2-") and "-sm89-GeForce-RTX-4090-tensorrt_rtx" in folder.name


@needs_builder
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the engine may load")
def test_whatever_goes_wrong_in_tensorrt_the_next_engine_can_be_asked(tmp_path: Path) -> None:
    """Here there is no GPU to ask for its name."""
    part = Scaled()
    with pytest.raises(ProgramError, match=r"TensorRT failed .*version 10 or later"):
        TensorRT(ArtifactCache(part, tmp_path), torch.device("cuda")).build(part, [torch.ones(3, 2)])
