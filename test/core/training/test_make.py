"""Settings become the network, its first weights and its labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from da3_core.model import PRESETS, CheckpointError, build_model, load_model, save_model
from da3_core.model.presets import ModelConfig
from da3_core.training.config import TrainConfig
from da3_core.training.make import make_network

from .fixed_batch import METRIC, MONO


def saved(config: ModelConfig, folder: Path, seed: int = 0) -> str:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_model(build_model(config), folder)
    return str(folder)


def test_a_metric_network_begins_as_a_teacher(tmp_path: Path) -> None:
    teacher, student = saved(MONO, tmp_path / "teacher"), saved(METRIC, tmp_path / "student", seed=1)
    network = make_network(TrainConfig(model=student, init_from=teacher))
    assert network.config == METRIC
    begun, trained = network.state_dict(), load_model(teacher).state_dict()
    assert all(torch.equal(begun[name], trained[name]) for name in trained)


def test_the_small_mono_preset_is_the_metric_one_without_metres() -> None:
    mono, metric = PRESETS["da3mono-nano"], PRESETS["da3metric-nano"]
    assert replace(mono, metric=True) == metric != mono  # type: ignore[call-arg]
    with pytest.raises(CheckpointError, match="da3mono-nano has no published weights"):
        load_model("da3mono-nano")
