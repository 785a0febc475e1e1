"""The one loop of all trainings."""

from __future__ import annotations

import logging
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import torch
import yaml
from torch import Tensor

from da3_core.scenes.sample import Samples
from da3_core.training.config import ScheduleConfig, TrainConfig, load_config
from da3_core.training.data import Batches, Draw, Share, draw_step, draw_validation, seeds_text
from da3_core.training.gradients import make_gradients
from da3_core.training.make import make_objective, make_source
from da3_core.training.optimizer import AveragedWeights, learning_rate_factor, make_optimizers, set_learning_rate
from da3_core.training.parallel import clip_gradients
from da3_core.training.processes import Processes, join_processes
from da3_core.training.report import Report
from da3_core.training.state import Progress, load_state, newest_checkpoint, save_state, save_weights, step_of

log = logging.getLogger(__name__)

LOOK_EVERY = 20  # steps between looks at the device's results and at the other processes: either waits for the device
LOOK_SECONDS = 5.0  # between looks at the other processes where steps are slow: torchrun ends who has not stopped in half a minute


class NonFiniteLossError(ValueError):
    """The loss or its gradient was not a finite number; the text is one line and names the remedy."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    model: Path  # folder of the averaged weights, which `load_model` reads
    step: int  # that it reached
    stopped_by: int = 0  # signal that stopped it before its end

    @property
    def exit_code(self) -> int:
        """Of the process, as shells have it."""
        return 128 + self.stopped_by if self.stopped_by else 0

    def line(self) -> str:
        """The outcome in one line."""
        if not self.stopped_by:
            return f"trained model in {self.model}"
        name = signal.Signals(self.stopped_by).name
        return f"stopped by {name} at step {self.step}: resume=true continues there; the model so far is in {self.model}"


def train(config_path: Path | str, overrides: Sequence[str] = ()) -> Outcome:
    """Run the training that the YAML file describes, with overrides like "optimizer.lr=1e-4", to its end or until it is stopped.

    Start it with torchrun to use several GPUs. SIGTERM and SIGINT end it with a checkpoint, from which `resume=true` continues.
    Raises ValueError for invalid settings, FileExistsError when the run exists, NonFiniteLossError naming the batch's seeds.
    """
    began = time.monotonic()
    config = load_config(config_path, overrides)
    with join_processes(config.runtime.device) as processes:
        return Trainer(config, processes, began).run()


def refuse_run(config: TrainConfig) -> None:
    """Raises FileExistsError when the run's folder holds a run that is neither to be resumed nor overwritten."""
    folder = Path(config.output)
    if (folder / "run.yaml").exists() and not config.resume and not config.overwrite:
        raise FileExistsError(f"{folder} holds a run: continue it with resume=true, discard it with overwrite=true, or change output")


def open_run(config: TrainConfig) -> None:
    """Make the run's folder, without the run that it holds unless that is to be resumed."""
    folder = Path(config.output)
    if (folder / "run.yaml").exists() and not config.resume:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)


class Clock:
    """How far the training is, by steps or by time, and whether it was asked to stop; the same in every process."""

    def __init__(self, schedule: ScheduleConfig, processes: Processes, began: float) -> None:
        self.schedule, self.processes, self.began = schedule, processes, began
        self.asked_by = self.stopped_by = 0  # signals
        self.seconds = 0.0
        self.last_look = self.next_look = 0

    def tick(self, step: int) -> None:
        """Look at the clock, and agree with the other processes every so often."""
        if step < self.next_look:
            return
        before = self.seconds
        self.seconds, stopped_by = self.processes.largest(time.monotonic() - self.began, self.asked_by)
        self.stopped_by = int(stopped_by)
        if self.processes.count > 1:
            step_s = max((self.seconds - before) / max(1, step - self.last_look), LOOK_SECONDS / LOOK_EVERY)
            steps = max(1, int(LOOK_SECONDS / step_s))
            self.last_look, self.next_look = step, min(step + steps, step - step % LOOK_EVERY + LOOK_EVERY)

    def progress(self, step: int) -> float:
        """Share of the training that is done before `step`."""
        minutes = self.schedule.max_minutes
        return max(step / self.schedule.steps, self.seconds / 60 / minutes if minutes else 0.0)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask for a stop instead of ending the process."""

        def ask(number: int, frame: FrameType | None) -> None:
            self.asked_by = number

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Trainer:
    """A training's state, and what a step does to it."""

    def __init__(self, config: TrainConfig, processes: Processes, began: float) -> None:
        self.config, self.processes = config, processes
        self.share = Share(processes.rank, processes.count)
        self.folder = Path(config.output)
        if processes.is_first:
            refuse_run(config)
        device = processes.device
        self.objective = make_objective(config, device)
        self.gradients = make_gradients(self.objective, config.runtime, processes)
        self.optimizers = make_optimizers(self.objective, config.optimizer)
        self.average = AveragedWeights(self.objective, config.ema)
        self.batches = Batches(make_source(config, device), self._draw, device, config.runtime.prefetch)
        self.clock = Clock(config.schedule, processes, began)
        self.validation: list[tuple[Draw, Samples]] = []
        self.step = 0
        self.first_bad = torch.full((), -1, device=device)  # step of the first loss that was not finite
        if processes.is_first:
            open_run(config)  # not before all else is made: settings may be wrong, and the weights to start from in there
        processes.barrier()
        self._resume()
        self.clock.tick(self.step)
        self.report = Report(config, self.folder, processes, self.step, self.clock.progress(self.step))

    def run(self) -> Outcome:
        """Train to the end or until asked to stop."""
        if self.processes.is_first:
            (self.folder / "run.yaml").write_text(yaml.safe_dump(asdict(self.config), sort_keys=False))
        with self.clock.listening(), self.report, closing(self.batches.source):
            while self.clock.progress(self.step) < 1 and not self.clock.stopped_by:
                self._train_step()
                self._look()
            self._finish()
        return Outcome(self.folder / "model", self.step, self.clock.stopped_by if self.clock.progress(self.step) < 1 else 0)

    def _train_step(self) -> None:
        step = self.step
        factor = learning_rate_factor(step, self.clock.progress(step), self.config.schedule)
        set_learning_rate(self.optimizers, factor)
        draw, samples = self.batches.get(step)
        values = self.gradients(samples, draw)
        norm = clip_gradients(self.objective, self.config.optimizer.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(step)
        self.batches.prepare(step + 1)
        bad = ~(values["loss"].isfinite() & norm.isfinite())
        self.first_bad = torch.where(bad & (self.first_bad < 0), step, self.first_bad)
        self.report.collect(values | {"gradient_norm": norm}, draw.view_order.numel())
        self.step += 1

    def _look(self) -> None:
        step, every = self.step, self.config.report
        self.clock.tick(step)
        is_last = self.clock.progress(step) >= 1
        logs, checks = is_last or step % every.log_every == 0, is_last or step % every.validate_every == 0
        saves = step % every.checkpoint_every == 0
        if logs or checks or saves or step % LOOK_EVERY == 0 or self.processes.device.type == "cpu":
            self._stop_on_bad()
        if logs:
            rates = {f"lr_{i}": o.param_groups[0]["lr"] for i, o in enumerate(self.optimizers)}
            self.report.scalars(step, self.clock.progress(step), rates)
        if checks:
            self.average.swap()
            self.report.validation(step, self._validate())
            self._picture()
            self.average.swap()
        if saves:
            self._save()

    def _stop_on_bad(self) -> None:
        step = int(self.first_bad)
        if step < 0:
            return
        draw = self._draw(step)
        saved = newest_checkpoint(self.folder) is not None
        again = "continue from the last checkpoint with resume=true" if saved else "start again with overwrite=true"
        raise NonFiniteLossError(
            f"the loss or its gradient is not finite at step {step} (process {self.processes.rank}: {draw.n_views} views of "
            f"{draw.image_size[0]}x{draw.image_size[1]}, seeds {seeds_text(draw)}): look at these scenes, or {again} and another seed or a "
            "lower optimizer.lr"
        )

    def _validate(self) -> dict[str, float]:
        """Errors on the fixed validation batches, the mean over batches and processes."""
        if not self.validation:
            draws = draw_validation(self.config.data, self.config.report.validation_batches, self.share)
            self.validation = [(draw, self.batches.source(draw)) for draw in draws]
        found: dict[str, list[Tensor]] = defaultdict(list)
        for draw, samples in self.validation:
            # With gradients, which nobody asks for: without them everything would be compiled a second time.
            for name, value in self.objective.validate(samples, draw).items():
                found[name].append(value.detach())
        means = torch.stack([torch.stack(values).mean() for values in found.values()])
        return dict(zip(found, self.processes.mean(means).tolist(), strict=True))

    def _picture(self) -> None:
        for draw, samples in self.validation[-1:]:
            self.report.pictures(self.step, {k: v.detach() for k, v in self.objective.pictures(samples, draw).items()})

    def _draw(self, step: int) -> Draw:
        return draw_step(self.config.data, self.config.seed, step, self.share)

    def _resume(self) -> None:
        checkpoint = newest_checkpoint(self.folder)
        latest, earliest = self.processes.largest(step_of(checkpoint), -step_of(checkpoint))
        if latest != -earliest:
            raise ValueError(
                f"not every process has the checkpoint of step {latest:.0f} in {self.folder}: give an output folder that all machines share"
            )
        if checkpoint is None:
            return
        progress = load_state(checkpoint, self.objective, self.optimizers, self.average)
        self.step = progress.step
        self.clock.began -= progress.seconds
        log.info("continuing at step %d", self.step)

    def _save(self) -> None:
        progress = Progress(self.step, self.clock.seconds)
        save_state(self.folder, progress, self.objective, self.optimizers, self.average, self.processes)

    def _finish(self) -> None:
        self._stop_on_bad()
        self._save()
        self.average.swap()
        save_weights(self.objective.network, self.folder / "model", self.processes)
        self.average.swap()
