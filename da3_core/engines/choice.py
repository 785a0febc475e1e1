"""Which engine, and why."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import torch

from da3_core.engines.cache import ArtifactCache
from da3_core.engines.incremental import AnyViewEngine, MonoEngine, NestedEngine
from da3_core.engines.onnx import OnnxRuntime
from da3_core.engines.programs import Backend, Eager, Programs
from da3_core.model.checkpoint import Model
from da3_core.model.da3 import AnyView, Mono

ENGINES = ("auto", "eager", "onnx")

logger = logging.getLogger(__name__)


def make_engine(
    name: str, model: Model, device: str = "auto", views: int = 4, cache_dir: Path | None = None
) -> AnyViewEngine | MonoEngine | NestedEngine:
    """The engine `name`, or with "auto" the best that works here, for a model of `da3_core.load_model`, which it copies to `device`.

    views: of a full window, which it is built for. What is built is kept in `cache_dir`, see `default_folder`.
    Raises ValueError, naming those there are, when there is no such engine.
    """
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}: take one of {', '.join(ENGINES)}")
    where = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    backends: list[Backend] = []
    if name in ("auto", "onnx") and where.type == "cpu":
        backends.append(OnnxRuntime(ArtifactCache(model, cache_dir)))
    model = copy.deepcopy(model).eval().to(where)
    programs = Programs(backends, Eager(where))
    if isinstance(model, AnyView):
        return AnyViewEngine(model, programs, views)
    if isinstance(model, Mono):
        return MonoEngine(model, programs, views)
    return NestedEngine(AnyViewEngine(model.any_view, programs, views), MonoEngine(model.metric, programs, views))
