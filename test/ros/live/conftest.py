"""Real processes over real DDS: every node has a process, every test a domain of its own."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.append(str(HERE))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(ROOT / "config" / "fastdds-large.xml"))
_domains = itertools.count(os.getpid() % 150 + 20)


class NodeProcess:
    """A node that runs beside the test."""

    def __init__(self, command: list[str], domain_id: int, folder: Path) -> None:
        self.domain_id, self.folder = domain_id, folder
        self.log_path = folder / "node.log"
        environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(domain_id),
            "FAULTS": str(folder),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
        }
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def inject(self, fault: str, text: str = "") -> None:
        (self.folder / fault).write_text(text)

    def heal(self, fault: str) -> None:
        (self.folder / fault).unlink()

    def stop(self, sig: signal.Signals = signal.SIGINT) -> float:
        """Seconds from the signal to the end."""
        began = time.monotonic()
        self.process.send_signal(sig)
        assert self.process.wait(10) in (0, -signal.SIGALRM)
        return time.monotonic() - began


def ros_arguments(parameters: dict[str, Any]) -> list[str]:
    def text(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return ["--ros-args", *itertools.chain.from_iterable(("-p", f"{name}:={text(value)}") for name, value in parameters.items())]


SMALL = {"preprocess.size": 70, "window.views": 3, "restart_interval_s": 0.5, "silent_after_s": 0.6}


StartNode = Callable[..., NodeProcess]


def starter(make_folder: Callable[[], Path]) -> Iterator[StartNode]:
    """start(program, arguments after --ros-args, prepare=faults to begin with, defaults, **parameters): __ in names stands for a dot."""
    started: list[NodeProcess] = []

    def start(
        program: str | Path = "truthful_node.py",
        arguments: Sequence[str] = (),
        prepare: Sequence[str] = (),
        defaults: Mapping[str, Any] = SMALL,
        **parameters: Any,
    ) -> NodeProcess:
        named = {**defaults, **{name.replace("__", "."): value for name, value in parameters.items()}}
        folder = make_folder()
        for fault in prepare:
            (folder / fault).touch()
        command = [sys.executable, str(HERE / program), *ros_arguments(named), *arguments]
        started.append(NodeProcess(command, next(_domains), folder))
        return started[-1]

    yield start
    for node in started:
        node.process.send_signal(signal.SIGINT)
        try:
            node.process.wait(10)
        except subprocess.TimeoutExpired:
            node.process.kill()
        print(f"--- {node.log_path}\n{node.log}")  # noqa: T201


@pytest.fixture
def start_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartNode]:
    """A node of the test's own."""
    yield from starter(lambda: tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module")
def start_module_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartNode]:
    """A node that a module's tests share."""
    yield from starter(lambda: tmp_path_factory.mktemp("node"))
