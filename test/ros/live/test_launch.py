"""Launch files, parameter files and the RViz layout name only what exists. launch_ros is not on PyPI, so they are read, not run."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from da3_ros.settings import CameraConfig, Parameters

ROOT = Path(__file__).resolve().parents[3]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
PARAMETER_FILES = sorted((ROOT / "config").glob("*.yaml"))
OUTPUTS = ("depth/image", "depth/camera_info", "confidence/image", "points", "pose")


def calls(path: Path, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def keyword(call: ast.Call, name: str) -> Any:
    return next((k.value for k in call.keywords if k.arg == name), None)


def declared(path: Path) -> set[str]:
    return {call.args[0].value for call in calls(path, "DeclareLaunchArgument") if isinstance(call.args[0], ast.Constant)}


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda p: p.name)
def test_launch_files_are_short_and_compile(path: Path) -> None:
    compile(path.read_text(), str(path), "exec")
    assert len(path.read_text().splitlines()) < 80


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda p: p.name)
def test_every_argument_used_is_declared_and_described(path: Path) -> None:
    used = {call.args[0].value for call in calls(path, "LaunchConfiguration") if isinstance(call.args[0], ast.Constant)}
    assert len(used) == len({ast.dump(call) for call in calls(path, "LaunchConfiguration")})
    assert used == declared(path)
    assert all(keyword(call, "description") is not None for call in calls(path, "DeclareLaunchArgument"))


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda p: p.name)
def test_every_executable_package_and_file_named_exists(path: Path) -> None:
    cmake, package = (ROOT / "CMakeLists.txt").read_text(), (ROOT / "package.xml").read_text()
    for call in [*calls(path, "Node"), *calls(path, "LifecycleNode")]:
        owner, executable = keyword(call, "package").value, keyword(call, "executable").value
        if owner == "da3":
            assert f"scripts/{executable}" in cmake
            assert (ROOT / "scripts" / executable).stat().st_mode & 0o111
        else:
            assert f"<exec_depend>{owner}</exec_depend>" in package
    for call in calls(path, "ExecuteProcess"):
        assert [word.value for word in keyword(call, "cmd").elts[:2]] == ["ros2", "bag"]
        assert "<exec_depend>rosbag2</exec_depend>" in package
    for file in re.findall(r'"([\w.-]+\.(?:yaml|rviz|xml|launch\.py))"', path.read_text()):
        assert (ROOT / "config" / file).exists() or (ROOT / "launch" / file).exists()


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda p: p.name)
def test_every_parameter_and_forwarded_argument_exists(path: Path) -> None:
    known = set(Parameters().flat()) | {"use_sim_time"}
    for call in [*calls(path, "Node"), *calls(path, "LifecycleNode")]:
        for given in ast.walk(keyword(call, "parameters")):
            if isinstance(given, ast.Dict):
                assert {key.value for key in given.keys if isinstance(key, ast.Constant)} <= known
    for call in calls(path, "IncludeLaunchDescription"):
        included = next(p for p in LAUNCH_FILES if p.name in ast.dump(call))
        forwarded = next(node for node in ast.walk(keyword(call, "launch_arguments")) if isinstance(node, ast.Dict))
        assert {key.value for key in forwarded.keys if isinstance(key, ast.Constant)} <= declared(included)


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda p: p.name)
def test_launch_makes_a_description_of_it(path: Path) -> None:
    pytest.importorskip("launch_ros", reason="launch_ros is not on PyPI")
    spec = importlib.util.spec_from_file_location("launch_file", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(module.generate_launch_description().entities) > len(declared(path))


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    return {
        name: value
        for key, inner in content.items()
        for name, value in (flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {f"{prefix}{key}": inner}).items()
    }


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda p: p.name)
def test_parameter_files_hold_only_valid_settings(path: Path) -> None:
    settings = flat(yaml.safe_load(path.read_text())["/**"]["ros__parameters"])
    parameters = Parameters(cameras={name: CameraConfig() for name in settings["cameras"]})
    for name, value in settings.items():
        parameters = parameters.with_setting(name, tuple(value) if isinstance(value, list) else value)
    assert parameters.node.cameras == tuple(settings["cameras"])


def test_every_python_dependency_is_one_of_the_ros_package() -> None:
    """By a key of rosdep's public list, or by one of our own, which then is not forgotten in either place."""
    tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=]", line)[0] for line in (*project["dependencies"], *project["optional-dependencies"]["onnx"])}
    public = {"torch": "pytorch-pip", "numpy": "numpy", "opencv-python-headless": "opencv", "pyyaml": "yaml", "tqdm": "tqdm"}
    public |= {"rich": "rich", "onnxruntime": "onnxruntime-pip"}
    ours = {name: f"{name.replace('_', '-')}-pip" for name in needed - set(public)}
    package = (ROOT / "package.xml").read_text()
    assert all(f"<exec_depend>python3-{key}</exec_depend>" in package for key in (public | ours).values())
    assert set(yaml.safe_load((ROOT / "requirements" / "rosdep.yaml").read_text())) == {f"python3-{key}" for key in ours.values()}


def test_rviz_shows_topics_that_are_published() -> None:
    layout = yaml.safe_load((ROOT / "config" / "da3.rviz").read_text())["Visualization Manager"]
    topics = {display["Topic"]["Value"] for display in layout["Displays"] if "Topic" in display}
    assert topics <= {"/camera/image_raw", "/da3/odometry", *(f"/da3/camera/{output}" for output in OUTPUTS)}
    assert layout["Global Options"]["Fixed Frame"] == Parameters().world_frame
