"""What runs a network: one protocol (`da3_core.types.Engine`), chosen once by `make_engine`."""

from __future__ import annotations

from torch import nn

from da3_core.engines.eager import EagerEngine
from da3_core.types import Engine

__all__ = ["EagerEngine", "Engine", "make_engine"]

ENGINES = ("eager",)  # best first: what "auto" takes


def make_engine(name: str, model: nn.Module, device: str = "cpu") -> Engine:
    """The engine `name`, or with "auto" the best that works here, for a model of `da3_core.load_model`; it is moved to `device`.

    Raises ValueError, naming those there are, when there is no such engine.
    """
    if name in ("auto", "eager"):
        return EagerEngine(model, device)
    raise ValueError(f"there is no engine {name!r} here: take one of auto, {', '.join(ENGINES)}")
