"""The bag job as a process that can be sent signals: tells each window, and takes its time for it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch

from da3_core import StreamConfig, load_model, make_engine, replace_setting
from da3_ros.bag.job import BagJob, run_bag
from da3_ros.to_msg import OutputConfig


class Slow:
    kind = "any_view"
    device = torch.device("cpu")
    description = "slow"

    def __init__(self) -> None:
        self._engine = make_engine("eager", load_model("da3-nano", weights=None))

    def infer(self, *arguments: Any, **named: Any) -> Any:
        print("infer", flush=True)  # noqa: T201
        time.sleep(0.05)
        return self._engine.infer(*arguments, **named)

    def reset(self) -> None:
        self._engine.reset()


config = replace_setting(replace_setting(StreamConfig(), "preprocess.size", 70), "window.views", 1)
sys.exit(run_bag(BagJob(Path(sys.argv[1]), Path(sys.argv[2])), Slow(), config, OutputConfig()).exit_code)
