"""Which engine, in which precision, and why."""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch

from da3_core.engines.cache import ArtifactCache
from da3_core.engines.compiled import AheadOfTime, JustInTime
from da3_core.engines.incremental import AnyViewEngine, MonoEngine, NestedEngine
from da3_core.engines.onnx import NEEDS, OnnxRuntime
from da3_core.engines.programs import Backend, Eager, Programs
from da3_core.engines.recorded import Recorded
from da3_core.model.checkpoint import Model
from da3_core.model.da3 import AnyView, Mono

Name = Literal["auto", "eager", "compiled", "onnx", "tensorrt"]
ENGINES: tuple[Name, ...] = ("auto", "eager", "compiled", "onnx", "tensorrt")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

logger = logging.getLogger(__name__)


def make_engine(
    name: str,
    model: Model,
    device: str = "auto",
    views: int = 4,
    precision: str = "auto",
    cache_dir: Path | None = None,
) -> AnyViewEngine | MonoEngine | NestedEngine:
    """The engine `name`, or with "auto" the best that works here, for a model of `da3_core.load_model`, which it copies to `device`.

    views: of a full window, which it is built for. precision: of backbone and heads, "auto" for bfloat16 on a GPU and float32 elsewhere.
    What is built is kept in `cache_dir`, see `default_folder`. Raises ValueError, naming those there are, when there is no such engine
    or precision, or the device is not one that the engine runs on.
    """
    where = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    chosen, reason = choose(name, where)
    logger.info("engine %s on %s: %s", chosen, where, reason)
    dtype = _dtype(precision, where)
    cache = ArtifactCache(model, cache_dir)
    programs = Programs(backends(chosen, where, cache), _plain(where), reason)
    return _engine(in_precision(copy.deepcopy(model).eval().to(where), dtype), programs, views)


def choose(name: str, device: torch.device) -> tuple[Name, str]:
    """The engine that "auto" stands for, and why. Raises ValueError, saying what helps, where `name` cannot be."""
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}: take one of {', '.join(ENGINES)}")
    if name == "tensorrt":
        raise ValueError("this version has no tensorrt engine: take auto, which is compiled on a GPU and onnx on a CPU")
    if name == "onnx" and device.type != "cpu":
        raise ValueError("the onnx engine runs on the CPU: take device cpu, or the engine compiled")
    missing = [module for module in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(module) is None]
    if name == "onnx" and missing:
        raise ValueError(f"the onnx engine needs {', '.join(missing)}: {NEEDS}, or take the engine eager")
    if name != "auto":
        return cast(Name, name), "asked for"
    if device.type == "cuda":
        return "compiled", "there is a GPU"
    if missing:
        return "eager", f"there is no GPU, and for onnxruntime, which is faster, {', '.join(missing)} is missing: {NEEDS}"
    return "onnx", "there is no GPU, and onnxruntime is the fastest on a CPU"


def backends(name: Name, device: torch.device, cache: ArtifactCache) -> list[Backend]:
    """What runs the prepared windows, best first; plain PyTorch stands behind them all."""
    compiled: list[Backend] = [AheadOfTime(cache, device), JustInTime(cache, device)]
    found: dict[str, Sequence[Backend]] = {"eager": [], "onnx": [OnnxRuntime(cache)], "compiled": compiled}
    return [Recorded(backend, device) if device.type == "cuda" else backend for backend in found[name]]


def in_precision(model: Model, dtype: torch.dtype) -> Model:
    """Backbones and heads in `dtype`, convolutions of a GPU with channels last; what makes and reads cameras stays in float32."""
    for network in (part for part in model.modules() if isinstance(part, (AnyView, Mono))):
        network.backbone.to(dtype)
        network.head.to(dtype)
        if next(network.parameters()).is_cuda:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}: take auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def _plain(device: torch.device) -> Backend:
    return Recorded(Eager(device), device) if device.type == "cuda" else Eager(device)


def _engine(model: Model, programs: Programs, views: int) -> AnyViewEngine | MonoEngine | NestedEngine:
    if isinstance(model, AnyView):
        return AnyViewEngine(model, programs, views)
    if isinstance(model, Mono):
        return MonoEngine(model, programs, views)
    return NestedEngine(AnyViewEngine(model.any_view, programs, views), MonoEngine(model.metric, programs, views))
