"""`da3 train` says in one line how it ended or what is wrong, and exits accordingly."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from da3_core import build_model, save_model
from da3_core.model.presets import AnyViewConfig, BackboneConfig, DPTConfig
from da3_core.training.loop import Trainer
from da3_ros.cli import main

HEAD = DPTConfig(8, (4, 8, 8, 8))
NETWORK = AnyViewConfig(BackboneConfig(16, 4, 1, (0, 1, 2, 3), 1, 1, 1), HEAD, camera_encoder_heads=1, camera_encoder_depth=1)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Three steps of a tiny network on two images of 28x28."""
    save_model(build_model(NETWORK), tmp_path / "network")
    path = tmp_path / "settings.yaml"
    data = {"patches_per_step": 8, "buckets": [{"height": 28, "width": 28, "views": [2]}]}
    values = {"model": str(tmp_path / "network"), "output": str(tmp_path / "run"), "data": data, "schedule": {"steps": 3}}
    path.write_text(yaml.safe_dump(values | {"report": {"validate_every": 100}}))
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_training_says_how_to_go_on(
    settings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    train_step = Trainer._train_step

    def stopped_at_one(trainer: Trainer) -> None:
        if trainer.step == 1:
            os.kill(os.getpid(), number)
        train_step(trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_train_step", stopped_at_one)
        assert run("train", settings) == 128 + number
    out = capsys.readouterr().out
    assert f"stopped by {number.name} at step 2: resume=true continues there" in out and "trained model" not in out
    assert run("train", settings, "resume=true") == 0
    assert f"trained model in {settings.parent / 'run' / 'model'}" in capsys.readouterr().out


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert run("train", *arguments) == 1
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_loss_that_is_not_finite_is_one_line(settings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    train_step = Trainer._train_step

    def broken(trainer: Trainer) -> None:
        next(trainer.objective.parameters()).data.fill_(torch.inf)
        train_step(trainer)

    monkeypatch.setattr(Trainer, "_train_step", broken)
    line = complaint(capsys, settings)
    assert line.startswith("da3 train: the loss or its gradient is not finite at step 0") and "start again with overwrite=true" in line


def test_a_missing_rasteriser_is_one_line(settings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gsplat", None)
    save_model(build_model(replace(NETWORK, gaussian_head=HEAD)), settings.parent / "gaussians")
    line = complaint(capsys, settings, "objective=gaussians", f"model={settings.parent / 'gaussians'}")
    assert line.startswith("da3 train: objective gaussians renders with gsplat: pip install gsplat")


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        ("optimizer: {", [], "settings.yaml is not valid YAML"),
        ("optimizer:\n", ["optimizer.lr=-1"], "lr = -1.0 is outside"),
        ("seed: 1", ["data.buckets=[]"], "data.buckets holds nothing to draw"),
    ],
)
def test_settings_that_cannot_be_are_one_line(
    settings: Path, capsys: pytest.CaptureFixture[str], text: str, overrides: list[str], said: str
) -> None:
    settings.write_text(text)
    line = complaint(capsys, settings, *overrides)
    assert line.startswith("da3 train: ") and said in line
