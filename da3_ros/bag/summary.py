"""What a run did, as a person and as a program want to know it."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from da3_core import FrameResult, settings

from .source import Tally

log = logging.getLogger(__name__)
Status = Literal["complete", "damaged", "interrupted", "failed"]
EXIT_CODES = {"complete": 0, "failed": 1, "damaged": 3}  # an interrupted run's is 128 + signal, as shells have it
KIB_PER_MAXRSS = 1 / 1024 if sys.platform == "darwin" else 1.0


@dataclass
class Summary:
    """Filled while the job runs; `results` are counted as they come, nothing of them is kept."""

    input: str
    output: str
    settings: dict[str, Any]
    engine: str = ""  # what ran what, known in the end
    plan: list[str] = field(default_factory=list)
    status: Status = "complete"
    message: str = ""
    signal: int = 0
    images_in_recording: int = 0
    received: Counter[str] = field(default_factory=Counter)
    processed: Counter[str] = field(default_factory=Counter)
    placed: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    unposed: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    scale_sources: Counter[str] = field(default_factory=Counter)
    last_scale: float | None = None
    last_scale_log_variance: float | None = None
    events: Counter[str] = field(default_factory=Counter)
    known_pixels: float = 0.0
    stage_s: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.perf_counter)
    first_done: float = 0.0
    first_count: int = 0

    @property
    def exit_code(self) -> int:
        return 128 + self.signal if self.status == "interrupted" else EXIT_CODES[self.status]

    @property
    def has_metres(self) -> bool:
        """Whether any depth came out in metres."""
        return any(source not in ("none", "network") for source in self.scale_sources)

    def count(self, results: Sequence[FrameResult]) -> None:
        """One synchronised set."""
        if not self.processed:
            self.first_done, self.first_count = time.perf_counter(), len(results)
        for result in results:
            self.processed[result.camera] += 1
            self.placed[result.camera] += result.T_world_cam is not None
            self.modes[result.mode] += 1
            self.scale_sources[result.scale.source] += 1
            self.known_pixels += float(np.isfinite(result.depth_m).mean())
        self.last_scale, self.last_scale_log_variance = results[0].scale.value, results[0].scale.log_variance
        self.stage_s.update(results[0].timings_s)
        self.events.update(results[0].events)

    def skip(self, cameras: Sequence[str], error: Exception) -> None:
        """Images that the stream refused."""
        for camera in cameras:
            self.skipped[f"{camera}: refused"] += 1
            if self.skipped[f"{camera}: refused"] == 1:
                log.warning("%s: image skipped: %s", camera, error)

    def stop(self, status: Status, message: str, signal: int = 0) -> None:
        """Why the job does not reach the recording's end."""
        self.status, self.message, self.signal = status, message, signal

    def add(self, tally: Tally, write_s: float) -> None:
        """What the reading and the writing thread have counted."""
        self.received, self.unposed, self.ignored = tally.received, tally.unposed, tally.ignored
        self.skipped += tally.skipped
        left_over = "without a partner in time" if self.status in ("complete", "damaged") else "not reached"
        for camera, count in self.received.items():
            skipped = sum(n for reason, n in self.skipped.items() if reason.startswith(f"{camera}: "))
            if count > skipped + self.processed[camera]:
                self.skipped[f"{camera}: {left_over}"] = count - skipped - self.processed[camera]
        self.stage_s.update({"read": tally.read_s, "decode": tally.decode_s, "write": write_s})

    def reason(self) -> str:
        """Why nothing came out."""
        return self.message or ", ".join(f"{count} {reason}" for reason, count in self.skipped.items()) or "there are none"

    def as_dict(self) -> dict[str, Any]:
        """What summary.json holds."""
        processed = self.processed.total()
        return {
            "input": self.input,
            "output": self.output,
            "plan": self.plan,
            "engine": self.engine,
            "settings": self.settings,
            "status": self.status,
            "message": self.message,
            "frames": {
                "in": self.images_in_recording,
                "received": dict(self.received),
                "processed": dict(self.processed),
                "skipped": dict(self.skipped),
                "placed": dict(self.placed),
                "without_pose": dict(self.unposed),
            },
            "ignored_messages": dict(self.ignored),
            "mode_shares": _shares(self.modes),
            "scale": {
                "value": _finite(self.last_scale),
                "log_variance": _finite(self.last_scale_log_variance),
                "source_shares": _shares(self.scale_sources),
            },
            "known_depth_share": self.known_pixels / max(1, processed),
            "events": dict(self.events),
            "stage_s": {name: round(seconds, 3) for name, seconds in self.stage_s.items()},
            "wall_s": round(time.perf_counter() - self.started, 3),
            "frames_per_s": round(self.frames_per_s(), 3),
            "peak_memory_mib": round(peak_memory_mib(), 1),
        }

    def frames_per_s(self) -> float:
        """After the first set, which may have had to wait for an engine to be built."""
        return (self.processed.total() - self.first_count) / (time.perf_counter() - self.first_done)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.as_dict(), indent=2) + "\n")

    def line(self) -> str:
        """The run in one line."""
        processed, skipped = self.processed.total(), self.skipped.total()
        modes = ", ".join(f"{share:.0%} {mode}" for mode, share in _shares(self.modes).items())
        share = f"{processed} of {self.images_in_recording} images processed ({modes}), {skipped} skipped"
        return f"{self.status}: {share}, {self.frames_per_s():.1f} frames/s{': ' if self.message else ''}{self.message}"


def values_of(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of every setting."""
    return {name: value for name, (_, value) in settings(config, prefix).items()}


def peak_memory_mib() -> float:
    """Of this process, resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB_PER_MAXRSS / 1024


def _shares(counter: Counter[str]) -> dict[str, float]:
    return {name: count / counter.total() for name, count in counter.most_common()}


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
