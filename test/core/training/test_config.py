from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from da3_core.model import PRESETS
from da3_core.model.presets import AnyViewConfig
from da3_core.training.config import LossConfig, TrainConfig, load_config
from da3_core.training.data import Share, draw_step
from da3_core.types import CANONICAL_FOCAL_PX

CONFIGS = sorted((Path(__file__).resolve().parents[3] / "config" / "train").glob("*.yaml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_settings_are_valid_and_can_be_drawn(path: Path) -> None:
    config = load_config(path)
    preset = PRESETS[config.model]
    assert isinstance(preset, AnyViewConfig) == (config.objective in ("anyview", "gaussians"))
    assert isinstance(preset, AnyViewConfig) or preset.metric == (config.objective == "metric")  # type: ignore[union-attr]
    for step in range(20):
        draw = draw_step(config.data, config.seed, step, Share())
        assert len(draw.seeds) * draw.world_views == len(draw.view_order) * draw.n_views


def test_what_is_not_named_keeps_its_default(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "seed: 3\noptimizer: {lr: 1e-3}\ndata: {buckets: [{height: 28, width: 42, views: [2]}]}"))
    assert config.seed == 3
    assert config.optimizer.lr == 1e-3
    assert config.optimizer.beta1 == TrainConfig().optimizer.beta1
    assert (config.data.buckets[0].height, config.data.buckets[0].views, config.data.buckets[0].weight) == (28, (2,), 1.0)


def test_whole_numbers_may_be_written_with_exponents(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "schedule: {steps: 1e5, warmup_steps: 2.0e+3}"), ["seed=12e0"])
    assert (config.schedule.steps, config.schedule.warmup_steps, config.seed) == (100_000, 2000, 12)
    assert {type(n) for n in (config.schedule.steps, config.schedule.warmup_steps, config.seed)} == {int}


def test_overrides_come_last(tmp_path: Path) -> None:
    path = written(tmp_path, "optimizer: {lr: 1e-3}")
    config = load_config(path, ["optimizer.lr=2e-4", "runtime.compile=false", "data.buckets=[{height: 28, width: 28}]"])
    assert config.optimizer.lr == 2e-4
    assert not config.runtime.compile
    assert config.data.buckets[0].width == 28


def test_the_papers_numbers() -> None:
    """Ours where it gives none (lambda_c, Gaussians), and no aids that are not in it."""
    assert asdict(LossConfig()) == {
        "lambda_c": 0.2,
        "alpha": 1.0,
        "beta": 1.0,
        "rays": 1.0,
        "points": 1.0,
        "baselines": 0.0,
        "distance": "linear",
        "scene_limit": 0.0,
        "matching": 0.0,
        "given_cameras": 0.0,
        "pose_conditioning": 0.2,
        "teacher_gradient": 0.5,
        "metric_ground_truth": 0.2,
        "metric_rotation": 0.05,
        "photometric_ssim": 0.05,
        "gaussian_depth": 0.1,
    }
    assert CANONICAL_FOCAL_PX == 300
    anyview, metric = (load_config(CONFIGS[0].parent / f"{name}.yaml") for name in ("anyview_paper", "metric_large"))
    assert anyview.loss == metric.loss == LossConfig()
    assert (anyview.schedule.steps, anyview.schedule.warmup_steps, anyview.optimizer.lr) == (200_000, 8_000, 2e-4)
    assert anyview.teacher.from_step == 120_000
    sizes = [(504, 504), (504, 378), (504, 336), (504, 280), (336, 504), (896, 504), (756, 504), (672, 504)]
    assert [(b.height, b.width) for b in anyview.data.buckets] == sizes
    assert anyview.data.buckets[0].views == tuple(range(2, 19))
    assert (metric.schedule.steps, metric.data.patches_per_step) == (160_000, 64 // 4 * 36 * 36)
    assert (metric.optimizer.lr, metric.optimizer.lr * metric.optimizer.backbone_lr_factor) == pytest.approx((5e-5, 5e-6))


def test_a_group_without_settings_keeps_its_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, "optimizer:\nschedule:\n")
    assert load_config(path) == TrainConfig()
    assert load_config(path, ["optimizer.lr=0.5", "schedule="]).optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "override 'seed' must look like name=value"),
        ("data.buckets=[{", r"override 'data\.buckets=\[\{' is not valid YAML: while parsing"),
        ("optimizer.lr.peak=1", r"optimizer\.lr takes a mapping, not 0\.1"),
        ("optimizer.rate.peak=1", r"unknown setting 'optimizer\.rate'"),
    ],
)
def test_mistakes_in_overrides_are_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(written(tmp_path, "optimizer: {lr: 0.1}"), [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimiser: {lr: 1}", r"unknown setting 'optimiser'; there are .*optimizer"),
        ("optimizer: {learning_rate: 1}", r"unknown setting 'optimizer.learning_rate'; there are name, lr"),
        ("data: {buckets: [{height: 28, wide: 3}]}", r"unknown setting 'data.buckets\[0\].wide'; there are height"),
        ("optimizer: {lr: -1.0}", r"^optimizer.lr = -1.0 is outside \[0.0, 10.0\]"),
        ("optimizer: {lr: .nan}", r"^optimizer.lr = nan is outside"),
        ("optimizer: {lr: fast}", r"optimizer.lr takes a number, not 'fast'"),
        ("optimizer: {name: sgd}", r"^optimizer.name = 'sgd' is none of adamw, muon"),
        ("data: {buckets: [{}, {weight: -1.0}]}", r"^data.buckets\[1\].weight = -1.0 is outside"),
        ("seed: 1.5", r"^seed takes a int, not 1.5"),
        ("schedule: {steps: 1.5e0}", r"^schedule.steps takes a int, not 1.5"),
        ("schedule: {steps: 1e-5}", r"^schedule.steps takes a int, not 1e-05"),
        ("schedule: {steps: many}", r"^schedule.steps takes a number, not 'many'"),
        ("data: 3", r"data takes a mapping, not 3"),
        ("data: {buckets: [{height: 30, width: 28}]}", r"30x28: both sides must be multiples of 14"),
        ("data: {buckets: [{height: 28, width: 28, views: [0, 2]}]}", r"must be a list of positive counts"),
        ("data: {buckets: [{height: 28, width: 28, views: [two]}]}", r"data.buckets\[0\].views\[0\] takes a int, not 'two'"),
        ("optimizer: {name: muon}\nruntime: {parallel: fsdp}", r"muon needs whole matrices"),
        ("loss: {matching: 0.5}\nruntime: {parallel: fsdp}", r"matching reads matrices inside blocks"),
        (
            "data: {patches_per_step: 8, buckets: [{height: 28, width: 28, views: [2]}, {height: 28, width: 28, views: [1, 4]}]}",
            r"^4 views of 28x28",
        ),
        ("data: {buckets: []}", r"data.buckets holds nothing to draw"),
        ("data: {buckets: [{weight: 0}, {weight: 0.0}]}", r"one bucket at least, with a weight above 0"),
        ("objective: metric", r"takes no worlds that show no size: leave object out of data\.worlds"),
        ("- 3", r"must hold settings"),
        ("1: 2", r"unknown setting '1'; there are objective"),
        ("seed: 3\noptimizer: {lr: [", r"^\S*settings\.yaml is not valid YAML: while parsing [^\n]* line 2, column 18[^\n]*$"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(written(tmp_path, text))
