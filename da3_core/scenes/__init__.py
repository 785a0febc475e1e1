"""Procedural worlds rendered with exact truth: training data, the demo's content, the tests' ground."""

from da3_core.scenes.cameras import STYLES, sample_cameras
from da3_core.scenes.effects import photograph
from da3_core.scenes.kinds import KINDS, make_worlds
from da3_core.scenes.render import Rendering, render, render_rays
from da3_core.scenes.sample import Samples, make_samples
from da3_core.scenes.splits import DEMO, TRAIN, VALIDATION, seeds, split_of
from da3_core.scenes.worlds import Worlds

__all__ = [
    "DEMO", "KINDS", "STYLES", "TRAIN", "VALIDATION", "Rendering", "Samples", "Worlds",
    "make_samples", "make_worlds", "photograph", "render", "render_rays", "sample_cameras", "seeds", "split_of",
]  # fmt: skip
