"""The Depth Anything 3 network. Read `da3.py` first."""

from da3_core.model.camera import normalise_cameras
from da3_core.model.checkpoint import CheckpointError, Model, build_model, init_backbone_from_dinov2, load_model, save_model
from da3_core.model.da3 import AnyView, Mono, Want, metres_from_canonical
from da3_core.model.nested import Nested
from da3_core.model.presets import PRESETS

__all__ = [
    "PRESETS",
    "AnyView",
    "CheckpointError",
    "Model",
    "Mono",
    "Nested",
    "Want",
    "build_model",
    "init_backbone_from_dinov2",
    "load_model",
    "metres_from_canonical",
    "normalise_cameras",
    "save_model",
]
