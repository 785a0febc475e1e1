"""One small network for all tests of the job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from da3_core import Engine, StreamConfig, load_model, make_engine, replace_setting
from da3_ros.bag.job import BagJob, run_bag
from da3_ros.bag.summary import Summary
from da3_ros.to_msg import OutputConfig

Run = Callable[..., Summary]


@pytest.fixture(scope="session")
def engine() -> Engine:
    """da3-nano with random weights: what it sees is nonsense, where it says so is not."""
    torch.manual_seed(0)
    return make_engine("eager", load_model("da3-nano", weights=None))


def make_config(**settings: Any) -> StreamConfig:
    """Networks' images of 70x56; depth in the network's units where no metre is known."""
    config = StreamConfig()
    for name, value in {"preprocess.size": 70, "scale.unknown": "relative", "window.views": 2, **settings}.items():
        config = replace_setting(config, name, value)
    return config


@pytest.fixture
def run(engine: Engine) -> Run:
    """run(input, output, settings={...}, **fields of BagJob)."""

    def run_job(
        input: Path, output: Path, settings: dict[str, Any] | None = None, results: OutputConfig | None = None, **job: Any
    ) -> Summary:
        engine.reset()
        return run_bag(BagJob(input, output, **job), engine, make_config(**(settings or {})), results or OutputConfig())

    return run_job
