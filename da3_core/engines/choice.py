"""Which engine, in which precision, and why."""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from da3_core.engines import tensorrt, torch_tensorrt
from da3_core.engines.backend import Backend, Eager
from da3_core.engines.cache import ArtifactCache
from da3_core.engines.compiled import JustInTime, Packages
from da3_core.engines.device import device_of
from da3_core.engines.graphs import GraphFiles
from da3_core.engines.incremental import AnyViewEngine, MonoEngine, NestedEngine
from da3_core.engines.onnx import NEEDS, OnnxRuntime
from da3_core.engines.parity import Checked
from da3_core.engines.programs import Programs
from da3_core.engines.recorded import Recorder
from da3_core.engines.tensorrt import TensorRT
from da3_core.engines.torch_tensorrt import TorchTensorRT
from da3_core.model.checkpoint import Model
from da3_core.model.da3 import AnyView, Mono
from da3_core.model.dpt import Size

Name = Literal["auto", "eager", "compiled", "onnx", "tensorrt"]
ENGINES: tuple[Name, ...] = ("auto", "eager", "compiled", "onnx", "tensorrt")
HAS_BFLOAT16 = (8, 0)  # compute capability from which a GPU has units for it
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

logger = logging.getLogger(__name__)


def make_engine(
    name: str,
    model: Model,
    device: str = "auto",
    views: int = 4,
    precision: str = "auto",
    cache_dir: Path | None = None,
    rebuild: bool = False,
    at_once: bool = False,
) -> AnyViewEngine | MonoEngine | NestedEngine:
    """The engine `name`, or with "auto" the best that works here, for a model of `da3_core.load_model`, which it copies to `device`.

    views: of a full window, which it is built for. precision: of backbone and heads, "auto" for float32 on a CPU, and on a GPU for float16
    in TensorRT and on chips before Ampere, bfloat16 elsewhere. What is built is kept in `cache_dir`, see `default_folder`, and made anew
    where `rebuild` is set.
    at_once: compiled programs that were built before are loaded beside the first results, which PyTorch gives as it is.
    Raises ValueError, naming those there are, when there is no such engine or precision, or the device is not one that the engine runs on.
    """
    where = device_of(device)
    chosen, reason = choose(name, where)
    logger.info("engine %s on %s: %s", chosen, where, reason)
    dtype = precision_of(precision, chosen, where)
    cache = ArtifactCache(model, cache_dir, rebuild)
    found = backends(chosen, where, cache)
    later = found[0] if at_once and found and isinstance(found[0], Packages) else None
    programs = Programs(found, Eager(where), reason, Recorder(where) if where.type == "cuda" else None, later)
    return _engine(in_precision(copy_on(where, model), dtype), programs, views)


def export_graphs(
    model: Model,
    folder: Path,
    views: int,
    size: Size,
    wanted: int | Sequence[int] = 1,
    precision: str = "fp16",
    replace: bool = False,
    new: int | None = None,
) -> list[Path]:
    """Writes the parts of an engine for full windows of `views` images of `size` (H, W); gives their folders. wanted, new: see
    `AnyViewEngine.prepare`.

    Each has part.onnx, strongly typed, and reference.safetensors: inputs, and what PyTorch gives for them in float32. The parts are those
    of `halves`. Raises FileExistsError where there is such a folder already, unless `replace` is set, and ValueError where a part cannot be
    written.
    """
    dtype, cpu, files = precision_of(precision, "tensorrt", torch.device("cpu")), torch.device("cpu"), GraphFiles(folder, replace)
    engine = _engine(in_precision(copy_on(cpu, model), dtype), Programs([files], Eager(cpu)), views)
    engine.prepare(size, wanted, new)
    if engine.refusals:
        raise ValueError(f"not all parts could be written: {'; '.join(engine.refusals)}")
    return files.folders


def choose(name: str, device: torch.device) -> tuple[Name, str]:
    """The engine that "auto" stands for, and why. Raises ValueError, saying what helps, where `name` cannot be."""
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}: take one of {', '.join(ENGINES)}")
    if name == "tensorrt" and device.type != "cuda":
        raise ValueError("the tensorrt engine runs on a GPU: take the engine auto, or on a machine with a GPU device cuda")
    if name == "tensorrt" and not (tensorrt.installed() or torch_tensorrt.installed()):
        raise ValueError(f"the tensorrt engine needs TensorRT: {tensorrt.NEEDS}; or take the engine compiled")
    if name == "onnx" and device.type != "cpu":
        raise ValueError("the onnx engine runs on the CPU: take device cpu, or the engine compiled")
    missing = [module for module in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(module) is None]
    if name == "onnx" and missing:
        raise ValueError(f"the onnx engine needs {', '.join(missing)}: {NEEDS}, or take the engine eager")
    if name != "auto":
        return cast(Name, name), "asked for"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None and tensorrt.installed():
        return "tensorrt", "there is a GPU, and TensorRT, but no Triton to compile with"
    if device.type == "cuda":
        return "compiled", "there is a GPU"
    if missing:
        return "eager", f"there is no GPU, and for onnxruntime, which is faster, {', '.join(missing)} is missing: {NEEDS}"
    return "onnx", "there is no GPU, and onnxruntime is the fastest on a CPU"


def backends(name: Name, device: torch.device, cache: ArtifactCache) -> list[Backend]:
    """What runs the prepared windows, best first; plain PyTorch stands behind them all."""
    compiled: list[Backend] = [Packages(cache, device), JustInTime(cache, device)]
    foreign: list[Backend] = [TorchTensorRT(cache, device)] if torch_tensorrt.installed() else []
    foreign += [TensorRT(cache, device)] if tensorrt.installed() else []
    found: dict[str, list[Backend]] = {
        "eager": [],
        "onnx": [OnnxRuntime(cache)],
        "compiled": compiled,
        "tensorrt": [*(Checked(backend, cache) for backend in foreign), *compiled],
    }
    return found[name]


def copy_on(device: torch.device, model: Model) -> Model:
    """A copy for inference. Weights go to the device as they are: a second copy on the host took a large model more than a second."""
    # Without gradients: where a parameter asks for them, Inductor takes additions of a bias out of products, into kernels of their own.
    parameters: dict[int, Any] = {id(x): nn.Parameter(x.detach().to(device, copy=True), requires_grad=False) for x in model.parameters()}
    buffers: dict[int, Any] = {id(x): x.to(device, copy=True) for x in model.buffers()}
    return copy.deepcopy(model, parameters | buffers).eval()


def in_precision(model: Model, dtype: torch.dtype) -> Model:
    """Backbones and heads in `dtype`, convolutions of a GPU with channels last; what makes and reads cameras stays in float32.

    So do the last layers before the rays: in trained networks they pass 65504, the largest float16, until a normalisation takes it back.
    """
    for network in (part for part in model.modules() if isinstance(part, (AnyView, Mono))):
        network.backbone.to(dtype)
        network.head.to(dtype)
        if isinstance(network, AnyView):
            network.camera_encoder.float()
            network.camera_decoder.float()
            network.head.ray_necks.float()
            network.head.ray_outputs.float()
        if next(network.parameters()).is_cuda:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def precision_of(precision: str, engine: Name, device: torch.device) -> torch.dtype:
    """What "auto", "fp32", "bf16" or "fp16" stands for. Raises ValueError, naming those there are."""
    if precision == "auto" and device.type != "cuda":
        return torch.float32
    if precision == "auto":
        return torch.float16 if engine == "tensorrt" or torch.cuda.get_device_capability(device) < HAS_BFLOAT16 else torch.bfloat16
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}: take auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def _engine(model: Model, programs: Programs, views: int) -> AnyViewEngine | MonoEngine | NestedEngine:
    if isinstance(model, AnyView):
        return AnyViewEngine(model, programs, views)
    if isinstance(model, Mono):
        return MonoEngine(model, programs, views)
    return NestedEngine(AnyViewEngine(model.any_view, programs, views), MonoEngine(model.metric, programs, views))
