"""The live node for ten minutes: does memory stay flat, do rates hold, does every output bear the stamp of an image that was sent?

In ROS's environment (source scripts/ros_env.sh):  python scripts/soak.py [--minutes 10] [--model da3-nano] [--hz 15]
Drives the robot of the live tests past the installed node with a real network, too fast for it on purpose, with a clock that goes back and
a silent camera in every minute. Prints a Markdown table, and fails when a figure is not what it should be.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from ament_index_python.packages import get_package_prefix
from da3.msg import StreamStatus
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from da3_core import BUILT_IN_WEIGHTS, load_model, save_model

sys.path.append(str(Path(__file__).resolve().parents[1] / "test" / "ros" / "live"))
import robot as r
import world

DOMAIN_ID = 13
SILENT_S = 3.0
GROWTH_MB_PER_MINUTE = 1.0
WARM_MINUTES = 2  # caches fill, and the saved cloud grows


@dataclass
class Minute:
    """What one minute showed."""

    seconds: float
    sent: int = 0
    latency_s: list[float] = field(default_factory=list)
    wrong_stamps: int = 0
    unpaired: int = 0
    memory_mb: float = 0.0
    dropped: int = 0

    def row(self, number: int) -> str:
        p50, p95, p99 = 1e3 * np.percentile(self.latency_s or [np.nan], [50, 95, 99])
        rates = f"{self.sent / self.seconds:.1f} | {len(self.latency_s) / self.seconds:.1f} | {self.dropped}"
        return f"| {number} | {rates} | {p50:.0f} | {p95:.0f} | {p99:.0f} | {self.wrong_stamps} | {self.unpaired} | {self.memory_mb:.1f} |"


class Soak:
    """One node, one robot, and what came back."""

    def __init__(self, model: str, hz: float, size: int) -> None:
        program = Path(get_package_prefix("da3")) / "lib" / "da3" / "da3_node"
        parameters = {"model": model, "preprocess.size": size, "save_voxel_m": 0.05, "save_max_points": 200_000}
        parameters |= {"image_width_px": world.WIDTH_PX, "image_height_px": world.HEIGHT_PX}  # the engine is built before the clock starts
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN_ID)}
        self.process = subprocess.Popen([sys.executable, str(program), "--ros-args", *words], env=environment)
        self.hz = hz
        self.robot = r.Robot(DOMAIN_ID)
        self.depth = self.robot.listen(Image, "/da3/camera/depth/image")
        self.infos = self.robot.listen(CameraInfo, "/da3/camera/depth/camera_info")
        self.status = self.robot.listen(StreamStatus, "/da3/status")
        self.clouds = self.robot.listen(PointCloud2, "/da3/camera/points")
        self.robot.wait_until_heard(120.0)

    def minute(self, seconds: float = 60.0) -> Minute:
        """Numbers begin at 0 again: the clock goes back, as when a bag is played in a loop."""
        found, sent_s, dropped_before = Minute(seconds), dict[int, float](), self._dropped()
        self._forget()
        end = time.monotonic() + seconds - SILENT_S
        number = 0
        while (began := time.monotonic()) < end:
            sent_s[number] = began
            self.robot.send(number)
            number += 1
            self._hear(found, sent_s, began + 1 / self.hz)
        self._hear(found, sent_s, time.monotonic() + SILENT_S)
        found.sent = number
        found.unpaired = len({r.number_of(m) for m in self.depth} ^ {r.number_of(m) for m in self.infos})
        found.memory_mb = psutil.Process(self.process.pid).memory_info().rss / 2**20
        found.dropped = self._dropped() - dropped_before
        return found

    def close(self) -> float:
        """Seconds that the end took."""
        self.robot.close()
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        return time.monotonic() - began

    def _hear(self, found: Minute, sent_s: dict[int, float], until_s: float) -> None:
        while (left := until_s - time.monotonic()) > 0:
            before = len(self.depth)
            self.robot.spin(min(left, 0.01))
            for message in self.depth[before:]:
                number = r.number_of(message)
                found.wrong_stamps += number not in sent_s
                found.latency_s.append(time.monotonic() - sent_s.get(number, np.nan))

    def _dropped(self) -> int:
        return int(self.status[-1].frames_dropped) if self.status else 0

    def _forget(self) -> None:
        for heard in (self.depth, self.infos, self.clouds):
            heard.clear()
        del self.status[:-1]


def random_weights(folder: Path) -> str:
    print("da3-nano has no weights in this package yet: random ones do for this", flush=True)
    save_model(load_model("da3-nano", weights=None), folder)
    return str(folder)


def run(minutes: int, model: str, hz: float, size: int, seconds: float) -> int:
    with tempfile.TemporaryDirectory() as folder:
        known = model != "da3-nano" or (BUILT_IN_WEIGHTS / model).is_dir()
        soak = Soak(model if known else random_weights(Path(folder)), hz, size)
        print("| minute | images/s in | depth/s out | dropped | latency p50 [ms] | p95 | p99 | wrong stamps | unpaired | memory [MB] |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        found = []
        for number in range(1, minutes + 1):
            found.append(soak.minute(seconds))
            print(found[-1].row(number), flush=True)
        end_s = soak.close()
    print(f"\nended {end_s:.1f} s after SIGTERM")
    warm = [minute.memory_mb for minute in found[min(WARM_MINUTES, minutes - 1) :]]
    growth = float(np.polyfit(range(len(warm)), warm, 1)[0]) if len(warm) > 1 else 0.0
    print(f"memory grows by {growth:.2f} MB a minute once warm")
    sound = all(m.latency_s and not m.wrong_stamps and m.unpaired <= 1 for m in found)
    return 0 if sound and growth < GROWTH_MB_PER_MINUTE and end_s < 2.0 else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of what is called a minute")
    parser.add_argument("--model", default="da3-nano")
    parser.add_argument("--hz", type=float, default=15.0)
    parser.add_argument("--size", type=int, default=140)
    given = parser.parse_args()
    sys.exit(run(given.minutes, given.model, given.hz, given.size, given.seconds))
