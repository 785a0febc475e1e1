"""The node with an engine that sees truly and can be told to fail: faults are injected where an engine would have them.

FAULTS is a folder. While it holds a file `fail`, the engine raises (`fail_once`: a single time); while `oom`, windows of more than one
view run out of memory; `delay` holds the seconds that an image takes; with `build_fails` the engine cannot be
built, with `slow_build` only in a minute, with `refuses` not by the fastest compiler; with `callback_fails` the callback of odometry
raises.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import world

from da3_core import Prediction, View
from da3_ros.node import DepthNode
from da3_ros.process import main
from da3_ros.settings import Parameters

FAULTS = Path(os.environ["FAULTS"])


class FallibleEngine(world.TruthfulEngine):
    @property
    def refusals(self) -> Sequence[str]:
        return ["the fastest compiler is off by 0.3"] if (FAULTS / "refuses").exists() else []

    def infer(self, views: Sequence[View], wanted: Sequence[int], posed: bool) -> Prediction:
        if (FAULTS / "fail_once").exists():
            (FAULTS / "fail_once").unlink()
            raise RuntimeError("an injected engine failure")
        if (FAULTS / "fail").exists():
            raise RuntimeError("an engine failure that stays")
        if (FAULTS / "oom").exists() and len(views) > 1:
            raise torch.cuda.OutOfMemoryError("an injected lack of memory")
        if (FAULTS / "delay").exists():
            time.sleep(float((FAULTS / "delay").read_text()))
        return super().infer(views, wanted, posed)


def load(parameters: Parameters) -> FallibleEngine:
    if (FAULTS / "slow_build").exists():
        time.sleep(60)
    if (FAULTS / "build_fails").exists():
        raise FileNotFoundError("no engine for this machine")
    return FallibleEngine()


class FallibleNode(DepthNode):
    def _on_odometry(self, *arguments: Any) -> None:
        if (FAULTS / "callback_fails").exists():
            raise ArithmeticError("an injected error of a callback")
        super()._on_odometry(*arguments)


main(lambda: FallibleNode(load))
