"""Which engine, and why."""

from __future__ import annotations

import copy

import torch

from da3_core.engines.incremental import AnyViewEngine, MonoEngine, NestedEngine
from da3_core.engines.programs import Eager, Programs
from da3_core.model.checkpoint import Model
from da3_core.model.da3 import AnyView, Mono

ENGINES = ("auto", "eager")


def make_engine(name: str, model: Model, device: str = "cpu", views: int = 4) -> AnyViewEngine | MonoEngine | NestedEngine:
    """The engine `name`, or with "auto" the best that works here, for a model of `da3_core.load_model`; it is moved to `device`.

    Raises ValueError, naming those there are, when there is no such engine.
    """
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r} here: take one of {', '.join(ENGINES)}")
    where = torch.device(device)
    model = copy.deepcopy(model).eval().to(where)
    programs = Programs([], Eager(where))
    if isinstance(model, AnyView):
        return AnyViewEngine(model, programs, views)
    if isinstance(model, Mono):
        return MonoEngine(model, programs, views)
    return NestedEngine(AnyViewEngine(model.any_view, programs, views), MonoEngine(model.metric, programs, views))
