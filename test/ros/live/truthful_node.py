"""The node with an engine that sees truly and can be told to fail: faults are injected where an engine would have them.

FAULTS is a folder: while it holds a file `fail`, the engine raises; while `oom` does, windows of more than one view run out of memory;
`delay` holds the seconds that an image takes; `build_fails` makes the engine fail to be built.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import world

from da3_core import ModelConfig, Prediction, View
from da3_ros.node import DepthNode, main

FAULTS = Path(os.environ["FAULTS"])


class FallibleEngine(world.TruthfulEngine):
    def infer(self, views: Sequence[View], wanted: Sequence[int], posed: bool) -> Prediction:
        if (FAULTS / "fail").exists():
            raise RuntimeError("an injected engine failure")
        if (FAULTS / "oom").exists() and len(views) > 1:
            raise torch.cuda.OutOfMemoryError("an injected lack of memory")
        if (FAULTS / "delay").exists():
            time.sleep(float((FAULTS / "delay").read_text()))
        return super().infer(views, wanted, posed)


def load(config: ModelConfig) -> FallibleEngine:
    if (FAULTS / "build_fails").exists():
        raise FileNotFoundError("no engine for this machine")
    return FallibleEngine()


main(lambda: DepthNode(load))
