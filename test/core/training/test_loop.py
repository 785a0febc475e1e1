"""The loop on two recordings of a few small frames: it stops, resumes, spreads and refuses as it should."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from da3_core.model import build_model, load_model, save_model
from da3_core.model.presets import MonoConfig
from da3_core.training import __main__ as program
from da3_core.training.anyview import AnyViewTraining
from da3_core.training.config import ScheduleConfig, load_config
from da3_core.training.loop import Clock, NonFiniteLossError, Outcome, Trainer, train
from da3_core.training.processes import Processes, join_processes
from da3_core.training.state import newest_checkpoint

from .fixed_batch import ANY_VIEW, METRIC, MONO
from .small_recording import write_recording

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny network, a recording and settings that train the one on the other."""
    folder = tmp_path_factory.mktemp("material")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_model(build_model(ANY_VIEW), folder / "network")
        save_model(build_model(MONO), folder / "mono_network")
        save_model(build_model(METRIC), folder / "metric_network")
    write_recording(folder / "recording")
    settings = {
        "model": str(folder / "network"),
        "init_from": str(folder / "network"),
        "data": {
            "source": "tum_rgbd",
            "train": [str(folder / "recording")],
            "patches_per_step": 32,
            "buckets": [{"height": 28, "width": 28, "views": [2, 4]}],
        },
        "loss": {"pose_conditioning": 0.5, "given_cameras": 0.5},
        "optimizer": {"name": "muon", "lr": 1e-3},
        "schedule": {"steps": 6, "warmup_steps": 2},
        "report": {"log_every": 2, "validate_every": 4, "checkpoint_every": 2, "validation_batches": 1},
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(run / "model" / "model.safetensors")
    return tensors


class StoppedAtThree(Trainer):
    """Gets SIGTERM while its third step runs."""

    def _train_step(self) -> None:
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        super()._train_step()


def test_a_stopped_and_resumed_run_ends_with_the_weights_of_an_unbroken_one(material: Path, tmp_path: Path) -> None:
    train(material / "settings.yaml", [f"output={tmp_path / 'unbroken'}"])
    broken = [f"output={tmp_path / 'broken'}"]
    config = load_config(material / "settings.yaml", broken)
    with join_processes("cpu") as processes:
        outcome = StoppedAtThree(config, processes, time.monotonic()).run()
    assert (outcome.step, outcome.stopped_by, outcome.exit_code) == (4, signal.SIGTERM, 143)
    assert [f.name for f in (tmp_path / "broken" / "checkpoint").iterdir()] == ["step-00000004"]
    outcome = train(material / "settings.yaml", [*broken, "resume=true"])
    assert (outcome.step, outcome.stopped_by, outcome.exit_code) == (6, 0, 0)
    a, b = weights(tmp_path / "unbroken"), weights(tmp_path / "broken")
    start = load_file(material / "network" / "model.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], start[name]) for name in a)
    a, b = (load_file(tmp_path / run / "checkpoint/step-00000006/weights.safetensors") for run in ("unbroken", "broken"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def run_two(arguments: list[str]) -> None:
    """What torchrun does, without a third process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "da3_core.training", *arguments],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=200)
        assert worker.returncode == 0, errors[-3000:]


def test_two_processes_make_the_step_of_one(material: Path, tmp_path: Path) -> None:
    settings = ["schedule.steps=3", "report.validate_every=3"]
    train(material / "settings.yaml", [*settings, f"output={tmp_path / 'one'}", "data.patches_per_step=64"])
    run_two([str(material / "settings.yaml"), *settings, f"output={tmp_path / 'two'}"])
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-5, atol=2e-6)


@pytest.mark.slow
def test_sharded_processes_make_the_steps_of_one_even_when_resumed(material: Path, tmp_path: Path) -> None:
    settings = ["optimizer.name=adamw", "schedule.decay=constant", "report.validate_every=1"]
    train(material / "settings.yaml", [*settings, "schedule.steps=3", f"output={tmp_path / 'one'}", "data.patches_per_step=64"])
    sharded = [str(material / "settings.yaml"), *settings, "runtime.parallel=fsdp", f"output={tmp_path / 'two'}"]
    run_two([*sharded, "schedule.steps=2", "runtime.checkpoint_activations=true"])
    run_two([*sharded, "schedule.steps=3", "resume=true"])
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=5e-6)


def test_a_checkpoint_that_fails_half_way_leaves_the_one_before_it(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(material / "settings.yaml", [f"output={tmp_path / 'unbroken'}"])
    broken, save = [f"output={tmp_path / 'broken'}"], torch.save

    def disk_full(state: dict[str, dict[str, int]], path: Path) -> None:
        save(state, path)
        if state["progress"]["step"] == 4:
            path.write_bytes(path.read_bytes()[:100])
            raise OSError("no space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space left"):
        patched.setattr(torch, "save", disk_full)
        train(material / "settings.yaml", broken)
    checkpoint = newest_checkpoint(tmp_path / "broken")
    assert checkpoint is not None and checkpoint.name == "step-00000002"
    train(material / "settings.yaml", [*broken, "resume=true"])
    a, b = weights(tmp_path / "unbroken"), weights(tmp_path / "broken")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert [f.name for f in checkpoint.parent.iterdir()] == ["step-00000006"]


def test_a_step_is_saved_once(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checkpoint would have to be away for a moment, which is when the power fails."""
    saved, save = [], torch.save

    def noted(state: dict[str, dict[str, int]], path: Path) -> None:
        saved.append(state["progress"]["step"])
        save(state, path)

    monkeypatch.setattr(torch, "save", noted)
    train(material / "settings.yaml", [f"output={tmp_path}", "schedule.steps=4"])
    assert saved == [2, 4]


def test_the_model_has_the_averaged_weights(material: Path, tmp_path: Path) -> None:
    train(material / "settings.yaml", [f"output={tmp_path}", "schedule.steps=3", "schedule.decay=constant"])
    average, last = (load_file(tmp_path / f"checkpoint/step-00000003/{name}.safetensors") for name in ("average", "weights"))
    shipped = load_model(tmp_path / "model").state_dict()
    assert all(torch.equal(shipped[name], average[f"network.{name}"]) for name in shipped)
    assert any(not torch.equal(shipped[name], last[f"network.{name}"]) for name in shipped)


def test_tensorboard_shows_scalars_and_pictures(material: Path, tmp_path: Path) -> None:
    train(material / "settings.yaml", [f"output={tmp_path}", "schedule.steps=4"])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    written = [json.loads(line) for line in (tmp_path / "scalars.jsonl").read_text().splitlines()]
    for group, steps in (("train", [2, 4]), ("validation", [4])):
        entries = [entry for entry in written if entry["group"] == group]
        assert [entry["step"] for entry in entries] == steps
        for name in entries[0].keys() - {"step", "group"}:
            shown = events.Scalars(f"{group}/{name}")
            assert [scalar.step for scalar in shown] == steps
            assert [scalar.value for scalar in shown] == pytest.approx([entry[name] for entry in entries])
    assert {"loss", "gradient_norm", "views_per_s", "lr_0"} < set(written[0])
    assert {"image", "truth"} < set(events.Tags()["images"])
    (picture,) = events.Images("image")
    assert (picture.step, picture.width, picture.height) == (4, 28, 28)
    pixels = cv2.imdecode(np.frombuffer(picture.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None and pixels.std() > 10


def entries(run: Path, group: str) -> list[int]:
    """The steps of a group's entries in scalars.jsonl."""
    written = [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]
    return [entry["step"] for entry in written if entry["group"] == group]


def test_the_weights_that_ship_are_those_of_the_last_scores_and_pictures(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        def noting(objective: AnyViewTraining, *batch: object) -> Any:
            seen.append({name: tensor.clone() for name, tensor in objective.network.state_dict().items()})
            return method(objective, *batch)

        return noting

    for method in (AnyViewTraining.validate, AnyViewTraining.pictures):
        monkeypatch.setattr(AnyViewTraining, method.__name__, watched(method))
    train(material / "settings.yaml", [f"output={tmp_path}", "schedule.steps=5", "schedule.decay=constant"])
    assert (entries(tmp_path, "train"), entries(tmp_path, "validation")) == ([2, 4, 5], [4, 5])
    assert len(seen) == 2 * 3  # two view counts and one picture, twice
    shipped = load_model(tmp_path / "model").state_dict()
    assert all(torch.equal(shipped[name], found[name]) for name in shipped for found in seen[3:])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [picture.step for picture in events.Images("image")] == [4, 5]


def test_a_run_that_was_stopped_is_not_validated(material: Path, tmp_path: Path) -> None:
    config = load_config(material / "settings.yaml", [f"output={tmp_path}", "report.validate_every=5"])
    with join_processes("cpu") as processes:
        StoppedAtThree(config, processes, time.monotonic()).run()
    assert (entries(tmp_path, "train"), entries(tmp_path, "validation")) == ([2, 4], [])


def test_steps_that_are_made_again_are_reported_once(material: Path, tmp_path: Path) -> None:
    run = [f"output={tmp_path}", "schedule.steps=6", "report.log_every=1", "report.validate_every=2", "report.checkpoint_every=3"]
    with join_processes("cpu") as processes, pytest.raises(NonFiniteLossError):
        broken = Broken(load_config(material / "settings.yaml", run), processes, time.monotonic())
        broken.at = 5
        broken.run()
    assert entries(tmp_path, "train") == [1, 2, 3, 4, 5]
    with (tmp_path / "scalars.jsonl").open("a") as file:
        file.write('{"step": 6, "gro')
    train(material / "settings.yaml", [*run, "resume=true"])
    assert (entries(tmp_path, "train"), entries(tmp_path, "validation")) == ([1, 2, 3, 4, 5, 6], [2, 4, 6])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [scalar.step for scalar in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]


def test_gradients_are_clipped_and_the_norm_before_is_reported(material: Path, tmp_path: Path) -> None:
    config = load_config(material / "settings.yaml", [f"output={tmp_path}", "optimizer.clip_norm=0.001"])
    with join_processes("cpu") as processes:
        trainer = Trainer(config, processes, time.monotonic())
        trainer._train_step()
        trainer.batches.source.close()
    gradients = [p.grad.square().sum() for p in trainer.objective.parameters() if p.grad is not None]
    assert torch.stack(gradients).sum().sqrt().item() == pytest.approx(0.001, rel=1e-3)
    assert trainer.report.sums["gradient_norm"] > 0.01


class StoppedAtTheEnd(Trainer):
    """Gets SIGINT while its last step runs."""

    def _train_step(self) -> None:
        if self.step == self.config.schedule.steps - 1:
            os.kill(os.getpid(), signal.SIGINT)
        super()._train_step()


def test_a_signal_that_comes_when_all_is_done_stops_nothing(material: Path, tmp_path: Path) -> None:
    config = load_config(material / "settings.yaml", [f"output={tmp_path}", "schedule.steps=2"])
    with join_processes("cpu") as processes:
        outcome = StoppedAtTheEnd(config, processes, time.monotonic()).run()
    assert (outcome.step, outcome.exit_code) == (2, 0)


@pytest.mark.parametrize(("stopped_by", "code", "said"), [(0, 0, "trained model"), (signal.SIGTERM, 143, "stopped by SIGTERM at step 7")])
def test_a_worker_exits_as_its_training_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stopped_by: int, code: int, said: str
) -> None:
    monkeypatch.setattr(program, "train", lambda config, overrides: Outcome(Path("run/model"), 7, stopped_by))
    monkeypatch.setattr(sys, "argv", ["da3_core.training", "settings.yaml"])
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == code
    assert said in caplog.text


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("recordings")]


class Broken(Trainer):
    """A weight becomes infinite before the step `at`."""

    at = 1

    def _train_step(self) -> None:
        assert reading_threads() or self.step == 0
        if self.step == self.at:
            next(self.objective.parameters()).data.fill_(torch.inf)
        super()._train_step()


def test_a_loss_that_is_not_finite_stops_with_the_seeds(material: Path, tmp_path: Path) -> None:
    config = load_config(material / "settings.yaml", [f"output={tmp_path}"])
    with join_processes("cpu") as processes:
        trainer = Broken(config, processes, time.monotonic())
        assert not reading_threads()
        with pytest.raises(NonFiniteLossError, match=r"step 1 .*seeds \d+, .*start again with overwrite=true") as raised:
            trainer.run()
        assert not reading_threads()
        assert all(str(seed) in str(raised.value) for seed in trainer._draw(1).seeds.tolist())
        trainer = Broken(replace(config, overwrite=True), processes, time.monotonic())
        trainer.at = 3
        with pytest.raises(NonFiniteLossError, match=r"step 3 .*continue from the last checkpoint with resume=true"):
            trainer.run()


def test_a_run_is_not_overwritten_by_accident(material: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("seed: 0")
    with pytest.raises(FileExistsError, match="resume=true"):
        train(material / "settings.yaml", [f"output={tmp_path}"])


def test_an_overwritten_run_is_there_until_the_new_one_can_begin(material: Path, tmp_path: Path) -> None:
    run = [f"output={tmp_path}", "schedule.steps=1", "overwrite=true"]
    train(material / "settings.yaml", run)
    first = weights(tmp_path)
    with pytest.raises(ValueError, match=r"set data\.train"):
        train(material / "settings.yaml", [*run, "data.train=[]"])
    assert all(torch.equal(tensor, first[name]) for name, tensor in weights(tmp_path).items())
    train(material / "settings.yaml", [*run, f"init_from={tmp_path / 'model'}"])
    assert any(not torch.equal(tensor, first[name]) for name, tensor in weights(tmp_path).items())
    assert [f.name for f in (tmp_path / "checkpoint").iterdir()] == ["step-00000001"]


def test_the_clock_counts_time_where_it_is_given_and_steps_otherwise() -> None:
    half_a_minute_ago = time.monotonic() - 30
    with join_processes("cpu") as processes:
        by_time = Clock(ScheduleConfig(steps=1000, max_minutes=1.0), processes, half_a_minute_ago)
        by_steps = Clock(ScheduleConfig(steps=1000), processes, half_a_minute_ago)
        for clock in (by_time, by_steps):
            clock.tick(0)
    assert by_time.progress(10) == pytest.approx(0.5, abs=0.01)
    assert by_steps.progress(10) == 0.01
    assert by_time.progress(900) == 0.9


@dataclass(frozen=True)
class Pair(Processes):
    """This process and one that says nothing; notes when they agree."""

    agreements: list[list[float]] = field(default_factory=list)

    def largest(self, *values: float) -> list[float]:
        self.agreements.append([*values])
        return [*values]


@pytest.mark.parametrize(
    ("step_s", "looks"),
    [
        (0.1, [0, 1, 20, 40]),
        (1.5, [0, 1, 4, 7, 10, 13, 16, 19, 20, 23, 26, 29, 32, 35, 38, 40]),
        (8.0, list(range(42))),
    ],
)
def test_processes_agree_every_few_seconds_and_every_few_steps(monkeypatch: pytest.MonkeyPatch, step_s: float, looks: list[int]) -> None:
    """A stop that one process is asked for has to be everybody's before torchrun's half minute is over."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pair = Pair(0, 2, torch.device("cpu"))
    clock = Clock(ScheduleConfig(), pair, began=-100.0)  # loading took a while
    found = []
    for step in range(42):
        clock.tick(step)
        if len(pair.agreements) > len(found):
            found.append(step)
        now[0] += step_s
    assert found == looks


def test_the_bar_of_a_resumed_run_begins_where_it_stopped(material: Path, tmp_path: Path) -> None:
    run = [f"output={tmp_path}", "resume=true"]
    train(material / "settings.yaml", [*run, "schedule.steps=3"])
    with join_processes("cpu") as processes:
        trainer = Trainer(load_config(material / "settings.yaml", run), processes, time.monotonic())
        with trainer.report as report:
            assert (report.bar.initial, report.bar.n) == (50, 50)
            report.bar._time = lambda: report.bar.start_t + 10
            report.collect({"loss": torch.ones(())}, 8)
            report.scalars(4, 0.75, {})
            assert "75.0%" in str(report.bar) and "00:10 < 00:10" in str(report.bar)  # one quarter took ten seconds, another is left


def test_a_training_by_the_clock_ends_with_a_model(material: Path, tmp_path: Path) -> None:
    train(material / "settings.yaml", [f"output={tmp_path}", "schedule.max_minutes=0.01", "schedule.steps=1000000"])
    assert load_model(tmp_path / "model").config == ANY_VIEW


def test_another_networks_checkpoint_is_refused(material: Path, tmp_path: Path) -> None:
    run = [f"output={tmp_path}", "schedule.steps=1", "resume=true"]
    train(material / "settings.yaml", run)
    with pytest.raises(ValueError, match="of another network"):
        train(material / "settings.yaml", [*run, "model=da3mono-nano", "init_from=", "objective=teacher"])


def test_a_resumed_run_takes_the_rate_that_it_is_given(material: Path, tmp_path: Path) -> None:
    run = [f"output={tmp_path}", "resume=true"]
    train(material / "settings.yaml", [*run, "schedule.steps=2"])
    given = ["optimizer.lr=1e-5", "optimizer.beta2=0.99", "optimizer.weight_decay=0.1"]
    with join_processes("cpu") as processes:
        trainer = Trainer(load_config(material / "settings.yaml", [*run, *given]), processes, time.monotonic())
    assert trainer.step == 2
    adam = trainer.optimizers[0]
    assert {(g["peak_lr"], g["betas"], g["weight_decay"]) for g in adam.param_groups} == {(1e-5, (0.9, 0.99), d) for d in (0.0, 0.1)}
    assert all(state["step"] == 2 for state in adam.state.values())


@dataclass(frozen=True)
class ApartFrom(Processes):
    """This process, and one of another machine whose newest checkpoint is of `step`."""

    step: int = -1

    def largest(self, *values: float) -> list[float]:
        return [max(mine, other) for mine, other in zip(values, (self.step, -self.step), strict=True)]


@pytest.mark.parametrize("step", [-1, 1, 3])
def test_processes_that_do_not_share_the_run_are_refused(material: Path, tmp_path: Path, step: int) -> None:
    run = [f"output={tmp_path}", "resume=true"]
    train(material / "settings.yaml", [*run, "schedule.steps=2"])
    config = load_config(material / "settings.yaml", run)
    with pytest.raises(ValueError, match=rf"checkpoint of step {max(2, step)} in .* all machines share"):
        Trainer(config, ApartFrom(0, 1, torch.device("cpu"), step), time.monotonic())


@pytest.mark.parametrize("setting", ["optimizer.name=adamw", "optimizer.weight_decay=0", "optimizer.backbone_lr_factor=0.1"])
def test_another_optimizers_checkpoint_is_refused(material: Path, tmp_path: Path, setting: str) -> None:
    run = [f"output={tmp_path}", "schedule.steps=1", "resume=true"]
    train(material / "settings.yaml", run)
    with pytest.raises(ValueError, match=r"another optimizer\.name, or weight_decay or backbone_lr_factor"):
        train(material / "settings.yaml", [*run, setting])


@pytest.mark.parametrize(
    ("objective", "config"), [("teacher", MONO), ("mono", MONO), ("metric", METRIC)], ids=["teacher", "mono", "metric"]
)
def test_the_other_objectives_run_from_the_same_settings(material: Path, tmp_path: Path, objective: str, config: MonoConfig) -> None:
    mono = material / "mono_network"
    settings = [
        f"output={tmp_path}",
        f"objective={objective}",
        f"model={material / ('metric_network' if config.metric else 'mono_network')}",
        f"init_from={mono}",
        "schedule.steps=2",
        "report.validate_every=2",
    ]
    teacher = [] if objective == "teacher" else [f"teacher.model={mono}"]
    train(material / "settings.yaml", [*settings, *teacher])
    assert load_model(tmp_path / "model").config == config
    groups = [yaml.safe_load(line) for line in (tmp_path / "scalars.jsonl").read_text().splitlines()]
    assert {"absrel", "delta1"} < set(groups[-1]) and "sky_iou" not in groups[-1]  # recordings know no sky
    assert groups[0]["views_per_s"] == pytest.approx(8 * groups[0]["steps_per_s"])  # 32 patches, 4 a view, however views are grouped


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["objective=metric"], "does not train .* of kind AnyView"),
        (["objective=metric", "model={mono}", "init_from="], "does not train .* of relative depth"),
        (["objective=teacher", "model={metric}", "init_from="], "does not train .* of depth in metres"),
        (["objective=mono", "model={mono}", "init_from="], "learns from a teacher"),
        (["teacher.model={any_view}"], "is no mono network"),
        (["runtime.parallel=fsdp", "optimizer.name=adamw"], "start with torchrun"),
        (["data.train=[]"], "set data.train"),
    ],
)
def test_settings_that_do_not_fit_are_explained(material: Path, tmp_path: Path, settings: list[str], message: str) -> None:
    folders = {"mono": material / "mono_network", "metric": material / "metric_network", "any_view": material / "network"}
    with pytest.raises(ValueError, match=message):
        train(material / "settings.yaml", [f"output={tmp_path}", *(s.format(**folders) if "{" in s else s for s in settings)])
