"""Settings become the network, its first weights and its labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from da3_core.model import PRESETS, CheckpointError, build_model, load_model, save_model
from da3_core.model.presets import ModelConfig
from da3_core.training import gaussians
from da3_core.training.config import DataConfig, LossConfig, TeacherLabelConfig, TrainConfig
from da3_core.training.labels import TeacherLabels
from da3_core.training.make import make_labels, make_network, make_objective
from da3_core.training.objective import ground_truth

from .fixed_batch import METRIC, MONO, WITH_GAUSSIANS, fixed_draw, fixed_samples

CPU = torch.device("cpu")
ROOMS = DataConfig(worlds=("room",))


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


@pytest.mark.parametrize("objective", ["anyview", "teacher", "mono", "metric", "gaussians"])
def test_every_objective_takes_a_teachers_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str) -> None:
    config = {"teacher": MONO, "mono": MONO, "metric": METRIC}.get(objective, WITH_GAUSSIANS)
    model, teacher = saved(config, tmp_path / "model"), saved(MONO, tmp_path / "teacher", seed=1)
    monkeypatch.setattr(gaussians, "load_rasteriser", lambda: None)
    made = make_objective(TrainConfig(objective=objective, model=model, teacher=TeacherLabelConfig(teacher), data=ROOMS), CPU)
    assert isinstance(made.labels, TeacherLabels)
    assert made.labels.aligned == (objective != "mono")
    assert torch.equal(made.labels.teacher.backbone.cls_token, load_model(teacher).backbone.cls_token)  # type: ignore[union-attr]


def test_labels_begin_at_their_step(tmp_path: Path) -> None:
    labels = make_labels(TrainConfig(teacher=TeacherLabelConfig(saved(MONO, tmp_path), from_step=7)), CPU)
    samples = fixed_samples()
    assert [labels(samples, fixed_draw(samples, step=step))[0] is samples for step in (6, 7)] == [True, False]
    assert make_labels(TrainConfig(), CPU) is ground_truth


def test_a_fifth_of_the_metric_networks_scenes_keep_their_depth(tmp_path: Path) -> None:
    teacher, samples = TeacherLabelConfig(saved(MONO, tmp_path)), fixed_samples()

    def share(objective: str, loss: LossConfig) -> list[bool]:
        labels = make_labels(TrainConfig(objective=objective, teacher=teacher, loss=loss, data=ROOMS), CPU)
        labels.aligned = False  # type: ignore[union-attr]
        chances = (0.1, 0.19, 0.21, 0.9)
        return [torch.equal(labels(samples, fixed_draw(samples, scene_chance=c))[0].depth_m, samples.depth_m) for c in chances]

    assert share("metric", LossConfig()) == [True, True, False, False]
    assert share("metric", LossConfig(metric_ground_truth=0.15)) == [True, False, False, False]
    assert share("anyview", LossConfig()) == share("mono", LossConfig()) == [False] * 4


def test_the_backbone_begins_as_dinov2(tmp_path: Path) -> None:
    torch.manual_seed(3)
    donor = build_model(METRIC).backbone.state_dict()  # type: ignore[union-attr]
    save_file({name.replace("patch_embed.", "patch_embed.proj."): p for name, p in donor.items()}, tmp_path / "dinov2.safetensors")
    network = make_network(TrainConfig(model=saved(METRIC, tmp_path / "model"), init_from=str(tmp_path / "dinov2.safetensors")))
    begun = network.backbone.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(begun[name], donor[name]) for name in donor)
