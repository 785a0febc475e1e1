"""What is installed here and what could run."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch
from rich.console import Console
from rich.table import Table

from da3_core import BUILT_IN_WEIGHTS, ENGINES, HUB_REPOSITORIES, JOINED, PRESETS, build_model, choose_engine

LIBRARIES = (
    "da3", "torch", "numpy", "opencv-python-headless", "rosbags", "rerun-sdk", "onnxruntime", "tensorrt", "tensorrt-rtx-cu12-bindings",
    "torch-tensorrt", "open3d", "evo", "rclpy",
)  # fmt: skip


def print_info() -> None:
    """Presets, devices, engines, versions."""
    console = Console()
    console.print(_presets(), _pairs("devices", _devices()), _pairs("engines", _engines()), _pairs("versions", _versions()))


def _presets() -> Table:
    table = Table("model", "network", "10⁶ parameters", "weights", title="presets", title_justify="left")
    for name, config in PRESETS.items():
        with torch.device("meta"):
            model = build_model(config)
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        table.add_row(name, type(model).__name__, f"{millions:.1f}", _weights(name))
    return table


def _weights(preset: str) -> str:
    if preset in HUB_REPOSITORIES:
        return HUB_REPOSITORIES[preset]
    parts = JOINED.get(preset, (preset,))
    return "in this package" if all((BUILT_IN_WEIGHTS / part).is_dir() for part in parts) else "none: to be trained"


def _pairs(title: str, rows: Iterator[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for row in rows:
        table.add_row(*row)
    return table


def _devices() -> Iterator[tuple[str, str]]:
    yield "cpu", f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        yield f"cuda:{i}", f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB"


def _engines() -> Iterator[tuple[str, str]]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    yield from ((name, _engine(name, device)) for name in ENGINES)


def _engine(name: str, device: torch.device) -> str:
    try:
        chosen, reason = choose_engine(name, device)
    except ValueError as error:
        return f"not here: {error}"
    return f"{chosen}: {reason}" if name == "auto" else "available"


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    yield from ((library, _version(library)) for library in LIBRARIES)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
