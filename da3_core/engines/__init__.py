"""What runs a network: one protocol (`da3_core.types.Engine`), chosen once by `make_engine`."""

from da3_core.engines.choice import ENGINES, make_engine
from da3_core.engines.device import wake_up
from da3_core.engines.eager import FullRecompute
from da3_core.engines.incremental import AnyViewEngine, MonoEngine, NestedEngine
from da3_core.types import Engine

__all__ = ["ENGINES", "AnyViewEngine", "Engine", "FullRecompute", "MonoEngine", "NestedEngine", "make_engine", "wake_up"]
