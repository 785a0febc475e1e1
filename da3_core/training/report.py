"""What a training says while it runs: TensorBoard, one line of JSON per entry, and a progress bar. The first process only."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from da3_core.training.config import TrainConfig
from da3_core.training.processes import Processes

log = logging.getLogger(__name__)


class Report:
    """Means of the steps' scalars since the last entry, and how fast they went. step, progress: what of the training was done before.

    What was written of later steps is dropped: a run that broke off is resumed from its last checkpoint, and makes these again.
    """

    def __init__(self, config: TrainConfig, folder: Path, processes: Processes, step: int = 0, progress: float = 0.0) -> None:
        self.config, self.folder, self.processes, self.step, self.done = config, folder, processes, step, _percent(progress)
        self.lines = folder / "scalars.jsonl"
        self.sums: dict[str, Tensor] = {}
        self.counts: Counter[str] = Counter()
        self.steps = self.images = 0
        self.since = time.monotonic()

    def __enter__(self) -> Report:
        if self.processes.is_first:
            _drop_after(self.step, self.lines)
            self.writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step + 1)
            quiet = 0.5 if sys.stderr.isatty() else 20.0
            form = "{percentage:5.1f}% |{bar:20}| {elapsed} < {remaining}{postfix}"
            self.bar = tqdm(total=100, initial=self.done, mininterval=quiet, bar_format=form)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.processes.is_first:
            self.bar.close()
            self.writer.close()

    def collect(self, values: Mapping[str, Tensor], images: int) -> None:
        """Add a step's scalars, without waiting for the device."""
        for name, value in values.items():
            self.sums[name] = value.detach().float() + self.sums.get(name, 0)
            self.counts[name] += 1
        self.steps += 1
        self.images += images

    def scalars(self, step: int, progress: float, rates: Mapping[str, float]) -> None:
        """Write the means since the last entry down, of each scalar over the steps that had it."""
        sums = torch.stack([*self.sums.values()]).tolist()
        means = {name: total / self.counts[name] for name, total in zip(self.sums, sums, strict=True)}
        seconds = time.monotonic() - self.since
        speed = {"steps_per_s": self.steps / seconds, "views_per_s": self.images * self.processes.count / seconds}
        self.sums, self.counts = {}, Counter()
        self.steps, self.images, self.since = 0, 0, time.monotonic()
        if not self.processes.is_first:
            return
        self._write("train", step, means | dict(rates) | speed)
        self.bar.n = _percent(progress)
        self.bar.set_postfix_str(f"step {step}, loss {means['loss']:.4f}, {speed['views_per_s']:.0f} views/s")

    def validation(self, step: int, means: Mapping[str, float]) -> None:
        """Write a validation down."""
        if self.processes.is_first:
            self._write("validation", step, means)
            log.info("step %d: %s", step, ", ".join(f"{name} {value:.4f}" for name, value in means.items()))

    def pictures(self, step: int, pictures: Mapping[str, Tensor]) -> None:
        """Write pictures (3, H, W) in 0..1 down."""
        if self.processes.is_first:
            for name, picture in pictures.items():
                self.writer.add_image(name, picture.clamp(0, 1).cpu(), step)

    def _write(self, group: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)
        with self.lines.open("a") as file:
            file.write(json.dumps({"step": step, "group": group, **values}) + "\n")


def _drop_after(step: int, lines: Path) -> None:
    """Drop the entries of later steps, and one that was not written to its end."""
    if lines.exists():
        kept = [line for line in lines.read_text().splitlines(keepends=True) if line.endswith("\n") and json.loads(line)["step"] <= step]
        part = lines.with_suffix(".part")
        part.write_text("".join(kept))
        part.rename(lines)


def _percent(progress: float) -> float:
    return round(100 * min(progress, 1), 2)
