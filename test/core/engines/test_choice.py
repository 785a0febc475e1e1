"""Which engine runs, and what is said where one cannot."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import nn

from da3_core.config import ModelConfig
from da3_core.engines import ENGINES, AnyViewEngine, make_engine
from da3_core.engines.choice import PRECISIONS, Name, choose, copy_on, in_precision, precision_of
from da3_core.engines.tensorrt import MODULES
from da3_core.model.checkpoint import Model
from da3_core.model.da3 import AnyView

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def pretend(monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...]) -> None:
    """As if these compilers were installed and no others."""
    for name in (*MODULES, "torch_tensorrt", "triton"):
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module if name in installed else None)


def test_engines_and_precisions_are_those_of_the_settings() -> None:
    fields = ModelConfig.__dataclass_fields__
    assert fields["engine"].metadata["choices"] == ENGINES
    assert fields["precision"].metadata["choices"] == ("auto", *PRECISIONS)


@pytest.mark.parametrize(
    ("precision", "engine", "device", "capability", "expected"),
    [
        ("auto", "onnx", CPU, None, torch.float32),
        ("auto", "compiled", GPU, (8, 7), torch.bfloat16),
        ("auto", "compiled", GPU, (7, 5), torch.float16),
        ("auto", "tensorrt", GPU, (8, 7), torch.float16),
        ("fp32", "tensorrt", GPU, (8, 7), torch.float32),
    ],
)
def test_auto_takes_the_precision_that_suits_engine_and_device(
    precision: str,
    engine: Name,
    device: torch.device,
    capability: tuple[int, int] | None,
    expected: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert precision_of(precision, engine, device) is expected


def test_auto_takes_onnx_on_a_cpu_and_says_why(model_of: Callable[[str], Model], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert choose("auto", CPU)[0] == "onnx"
    engine = make_engine("auto", model_of("da3-nano"), "cpu", cache_dir=tmp_path)
    assert "no GPU" in engine.description and "onnxruntime" in engine.description


@pytest.mark.parametrize(
    ("installed", "expected"),
    [(("tensorrt",), "tensorrt"), (("triton",), "compiled"), (("tensorrt", "triton"), "compiled"), ((), "compiled")],
)
def test_auto_compiles_on_a_gpu_unless_there_is_tensorrt_and_no_compiler(
    installed: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, installed)
    name, reason = choose("auto", GPU)
    assert name == expected and "there is a GPU" in reason


def test_without_tensorrt_its_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, ())
    with pytest.raises(ValueError, match=r"needs TensorRT: .*JetPack.* or take the engine compiled"):
        choose("tensorrt", GPU)
    pretend(monkeypatch, ("torch_tensorrt",))
    assert choose("tensorrt", GPU) == ("tensorrt", "asked for")


def test_without_onnxruntime_auto_is_eager_and_onnx_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    name, reason = choose("auto", CPU)
    assert name == "eager" and "onnxruntime is missing" in reason and "pip install" in reason
    with pytest.raises(ValueError, match=r"needs onnxruntime: pip install .* or take the engine eager"):
        choose("onnx", CPU)


@pytest.mark.parametrize(
    ("name", "device", "complaint"),
    [
        ("fastest", CPU, "no engine 'fastest': take one of auto, eager"),
        ("onnx", GPU, "runs on the CPU: take device cpu, or the engine compiled"),
        ("tensorrt", CPU, "runs on a GPU: take the engine auto"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(name: str, device: torch.device, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        choose(name, device)


def test_an_unknown_precision_is_refused_with_those_there_are(model_of: Callable[[str], Model], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no precision 'int3': take auto, fp32, bf16, fp16"):
        make_engine("eager", model_of("da3-nano"), "cpu", precision="int3", cache_dir=tmp_path)


def test_rays_that_pass_float16_on_their_way_are_numbers_in_half_precision(model_of: Callable[[str], Model]) -> None:
    model = model_of("da3-nano")
    assert isinstance(model, AnyView)
    with torch.no_grad():
        for convolution in cast(nn.Sequential, model.head.ray_necks[3]):
            cast(nn.Conv2d, convolution).weight.mul_(20)  # as trained networks do, more and more, which the normalisation undoes
        images = torch.randn(1, 2, 3, 28, 42, generator=torch.Generator().manual_seed(0))
        exact = model(images, want={"rays"}).rays
        half = in_precision(copy_on(torch.device("cpu"), model), torch.float16)(images, want={"rays"}).rays
    assert (half - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_makes_and_reads_cameras_is_in_float32_also_of_a_model_that_was_loaded_in_half(
    precision: str, model_of: Callable[[str], Model], tmp_path: Path
) -> None:
    engine = make_engine("eager", model_of("da3-nano").half(), "cpu", precision=precision, cache_dir=tmp_path)
    assert isinstance(engine, AnyViewEngine) and engine.dtype is PRECISIONS[precision]
    cameras = [engine._model.camera_encoder, engine._model.camera_decoder]
    assert {p.dtype for part in cameras for p in part.parameters()} == {torch.float32}


def test_the_model_that_was_given_stays_as_it_is(model_of: Callable[[str], Model], tmp_path: Path) -> None:
    model = model_of("da3-nano")
    engine = make_engine("eager", model, "cpu", precision="bf16", cache_dir=tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert isinstance(engine, AnyViewEngine) and engine.dtype is torch.bfloat16
