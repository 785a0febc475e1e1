"""The table in docs/architecture.md, enforced: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MAY_IMPORT = {
    "types": set(),
    "config": {"types"},
    "geometry": {"types"},
    "preprocess": {"types", "config", "geometry"},
    "model": {"types", "config", "geometry"},
    "engines": {"types", "config", "geometry", "model"},
    "streaming": {"types", "config", "geometry", "preprocess"},
    "scenes": {"types", "geometry"},
    "datasets": {"types", "geometry", "scenes"},
    "training": {"types", "config", "geometry", "preprocess", "model", "scenes", "datasets"},
    "evaluation": {"types", "config", "geometry", "preprocess", "model", "engines", "streaming", "scenes", "datasets"},
}
ROS_MODULES = {
    "rclpy",
    "cv_bridge",
    "tf2_ros",
    "sensor_msgs_py",
    "tf_transformations",
    "sensor_msgs",
    "nav_msgs",
    "geometry_msgs",
    "launch",
}
MAY_IMPORT_ROS = {"node.py", "process.py", "cameras.py", "publishers.py", "parameters.py", "frames.py", "libraries.py", "to_msg.py"}
LAZY_ONLY = {"tensorrt", "open3d", "rosbags", "rerun", "gsplat"}


def imported_modules(path: Path, top_level_only: bool = False) -> set[str]:
    """Absolute dotted names that a file imports; relative imports are resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


CORE_FILES = sorted(p for p in (ROOT / "da3_core").rglob("*.py") if p != ROOT / "da3_core" / "__init__.py")
ROS_FILES = sorted((ROOT / "da3_ros").rglob("*.py"))


@pytest.mark.parametrize("path", CORE_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_core_rooms_import_only_what_the_table_allows(path: Path) -> None:
    room = path.relative_to(ROOT / "da3_core").parts[0].removesuffix(".py")
    imported = {name.split(".")[1] for name in imported_modules(path) if name.startswith("da3_core.")}
    assert imported - {room} <= MAY_IMPORT[room]


@pytest.mark.parametrize("path", CORE_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_core_knows_no_ros(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported_modules(path)} & (ROS_MODULES | {"da3_ros", "da3", "rosbags"})


@pytest.mark.parametrize("path", ROS_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_ros_uses_only_public_names_of_the_core(path: Path) -> None:
    public = {name for name in imported_modules(path) if name.startswith("da3_core")}
    assert all(name.count(".") <= 1 for name in public), public
    import da3_core

    assert {name.split(".")[1] for name in public if "." in name} <= set(da3_core.__all__)


@pytest.mark.parametrize("path", ROS_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_live_modules_import_ros(path: Path) -> None:
    if path.name not in MAY_IMPORT_ROS:
        assert not {name.split(".")[0] for name in imported_modules(path)} & ROS_MODULES


@pytest.mark.parametrize("path", [*CORE_FILES, *ROS_FILES], ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported_modules(path, top_level_only=True)} & LAZY_ONLY
