"""What a training writes down of its steps."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from da3_core.training.config import TrainConfig
from da3_core.training.processes import Processes
from da3_core.training.report import Report


def test_scalars_are_means_over_the_steps_that_have_them(tmp_path: Path) -> None:
    steps = [{"loss": 1.0}, {"loss": 3.0, "matching": 4.0}, {"loss": 5.0, "matching": 8.0}, {"loss": 7.0}]
    with Report(TrainConfig(), tmp_path, Processes(0, 1, torch.device("cpu"))) as report:
        for step, values in enumerate(steps, 1):
            report.collect({name: torch.tensor(value) for name, value in values.items()}, 8)
            if step >= 3:
                report.scalars(step, 0.0, {})
    first, second = (json.loads(line) for line in (tmp_path / "scalars.jsonl").read_text().splitlines())
    assert (first["step"], first["loss"], first["matching"]) == (3, 3.0, 6.0)
    assert (second["step"], second["loss"]) == (4, 7.0) and "matching" not in second
