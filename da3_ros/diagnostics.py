"""What the node knows of its own health: rates, latencies, drops and faults. Written by callbacks and the worker, read once a second."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Level(IntEnum):
    """diagnostic_msgs/DiagnosticStatus levels."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Fault:
    level: Level
    text: str


@dataclass(frozen=True)
class Report:
    """One DiagnosticStatus."""

    name: str
    level: Level
    message: str
    values: dict[str, str]


class Rate:
    """Events per second over the last `span_s` seconds."""

    def __init__(self, span_s: float = 5.0) -> None:
        self._span_s = span_s
        self._started_s = time.monotonic()
        self._times_s: deque[float] = deque(maxlen=4096)

    def tick(self) -> None:
        self._times_s.append(time.monotonic())

    @property
    def hz(self) -> float:
        now = time.monotonic()
        recent = sum(now - t <= self._span_s for t in list(self._times_s))
        return recent / min(self._span_s, max(now - self._started_s, 1e-3))

    @property
    def silent_s(self) -> float:
        """Seconds since the last event, or since the start when there was none."""
        return time.monotonic() - (self._times_s[-1] if self._times_s else self._started_s)


class Percentiles:
    """Median and tail of the last 512 values."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=512)

    def add(self, value: float) -> None:
        self._values.append(value)

    def at(self, *percent: float) -> tuple[float, ...]:
        values = list(self._values)
        return tuple(float(v) for v in np.percentile(values, percent)) if values else (0.0,) * len(percent)


class Faults:
    """What is wrong now, by name. `raised` and `cleared` tell whether that is news, so that each change is logged once."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}
        self._lock = threading.Lock()

    def raised(self, name: str, text: str, level: Level = Level.WARN) -> bool:
        with self._lock:
            is_new = name not in self._faults
            self._faults[name] = Fault(level, text)
        return is_new

    def cleared(self, name: str) -> bool:
        with self._lock:
            return self._faults.pop(name, None) is not None

    def starting_with(self, prefix: str) -> dict[str, Fault]:
        with self._lock:
            return {name: fault for name, fault in self._faults.items() if name.startswith(prefix)}


class Health:
    """The node's meters. A camera's faults are named `<camera>/<what>`, the node's own have no slash."""

    def __init__(self, cameras: Iterable[str], log: Callable[[Level, str], None]) -> None:
        self.cameras = tuple(cameras)
        self.frames_in = 0
        self.frames_out = 0
        self.last_event = "none"
        self._log = log
        self._lock = threading.Lock()
        self._drops: Counter[str] = Counter()  # by reason
        self.begin_run()

    def begin_run(self) -> None:
        """Rates, latencies and faults begin anew, as when the node becomes active; counts go on."""
        self._faults = Faults()
        self._latency_s = Percentiles()
        self._input_rates = {camera: Rate() for camera in self.cameras}
        self._output_rates = {camera: Rate() for camera in self.cameras}

    @property
    def frames_dropped(self) -> int:
        with self._lock:
            return self._drops.total()

    def received(self, camera: str) -> None:
        self.frames_in += 1
        self._input_rates[camera].tick()

    def published(self, camera: str, latency_s: float) -> None:
        self.frames_out += 1
        self._output_rates[camera].tick()
        self._latency_s.add(latency_s)

    def drop(self, reason: str, images: int = 1) -> None:
        with self._lock:
            self._drops[reason] += images

    def raise_fault(self, name: str, text: str, level: Level = Level.WARN) -> None:
        """Shows until cleared; logged when it is new."""
        if self._faults.raised(name, text, level):
            self._log(level, f"{name}: {text}")

    def clear(self, name: str) -> None:
        if self._faults.cleared(name):
            self._log(Level.OK, f"{name}: recovered")

    def note(self, text: str) -> None:
        """Something that happened and is over."""
        self.last_event = text
        self._log(Level.WARN, text)

    def check_silence(self, silent_after_s: float) -> None:
        """Raises and clears the faults of cameras that send nothing."""
        for camera, rate in self._input_rates.items():
            if rate.silent_s > silent_after_s:
                self.raise_fault(f"{camera}/silent", f"no image for {rate.silent_s:.1f} s", Level.ERROR)
            else:
                self.clear(f"{camera}/silent")

    def camera_report(self, camera: str) -> Report:
        incoming, outgoing = self._input_rates[camera], self._output_rates[camera]
        values = {
            "input rate [Hz]": f"{incoming.hz:.2f}",
            "output rate [Hz]": f"{outgoing.hz:.2f}",
            "silent [s]": f"{incoming.silent_s:.1f}",
        }
        return report(f"camera {camera}", self._faults.starting_with(f"{camera}/").values(), values)

    def node_report(self, values: dict[str, str]) -> Report:
        own = [fault for name, fault in self._faults.starting_with("").items() if "/" not in name]
        p50, p95, p99 = self._latency_s.at(50, 95, 99)
        with self._lock:
            drops = sorted(self._drops.items())
        measured = {
            "frames in": str(self.frames_in),
            "frames out": str(self.frames_out),
            "frames dropped": str(self.frames_dropped),
            "last event": self.last_event,
            "latency p50 [ms]": f"{1e3 * p50:.1f}",
            "latency p95 [ms]": f"{1e3 * p95:.1f}",
            "latency p99 [ms]": f"{1e3 * p99:.1f}",
            **{f"dropped, {reason}": str(count) for reason, count in drops},
        }
        return report("depth", own, values | measured)


def report(name: str, faults: Iterable[Fault], values: dict[str, str]) -> Report:
    worst_first = sorted(faults, key=lambda fault: -fault.level)
    level = worst_first[0].level if worst_first else Level.OK
    return Report(name, level, "; ".join(fault.text for fault in worst_first) or "ok", values)
