"""Launch and parameter files and the RViz layout name only what exists. launch_ros is not on PyPI: they are read, or run with stand-ins."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
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


def loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("launch_file", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda p: p.name)
def test_launch_makes_a_description_of_it(path: Path) -> None:
    pytest.importorskip("launch_ros", reason="launch_ros is not on PyPI")
    assert len(loaded(path).generate_launch_description().entities) > len(declared(path))


class StandIn:
    """Of a class of launch or launch_ros: keeps what it was made of."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs

    def perform(self, context: dict[str, Any]) -> Any:
        """A LaunchConfiguration's value."""
        return context[self.args[0]]


def stand_ins(path: Path) -> dict[str, ModuleType]:
    """Modules with all that the file imports from launch and launch_ros: every class in it is one of its own."""
    modules: dict[str, ModuleType] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("launch"):
            for alias in node.names:
                module = modules.setdefault(str(node.module), ModuleType(str(node.module)))
                setattr(module, alias.name, type(alias.name, (StandIn,), {}))
    return modules


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """launch(path, **arguments) -> the parameters of each node that is started: the file as `file`, the others by their names."""

    def launch(path: Path, **arguments: str) -> list[dict[str, Any]]:
        for name, module in stand_ins(path).items():
            monkeypatch.setitem(sys.modules, name, module)
        (entities,) = loaded(path).generate_launch_description().args
        context = {entity.args[0]: entity.kwargs["default_value"] for entity in of_kind(entities, "DeclareLaunchArgument")} | arguments
        made = [node for entity in of_kind(entities, "OpaqueFunction") for node in entity.kwargs["function"](context)]
        return [parameters_of(node, context) for node in of_kind(entities + made, "LifecycleNode", "Node")]

    return launch


def of_kind(entities: list[Any], *kinds: str) -> list[Any]:
    return [entity for entity in entities if type(entity).__name__ in kinds]


def parameters_of(node: Any, context: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for part in node.kwargs["parameters"]:
        if isinstance(part, dict):
            merged |= {name: yaml.safe_load(value.args[0].perform(context)) for name, value in part.items()}
        else:
            merged["file"] = part.perform(context)
    return merged


@pytest.mark.parametrize(
    ("arguments", "node", "rviz"),
    [
        ({}, {}, {}),
        ({"autostart": "false"}, {"autostart": False}, {}),
        ({"use_sim_time": "true"}, {"use_sim_time": True}, {"use_sim_time": True}),
        ({"use_sim_time": "false", "autostart": "true"}, {"use_sim_time": False, "autostart": True}, {"use_sim_time": False}),
    ],
)
def test_only_arguments_that_are_given_hold_over_the_parameter_file(
    launch: Callable[..., list[dict[str, Any]]], arguments: dict[str, str], node: dict[str, Any], rviz: dict[str, Any]
) -> None:
    assert launch(ROOT / "launch" / "da3.launch.py", params_file="mine.yaml", **arguments) == [{"file": "mine.yaml"} | node, rviz]
    assert set(node) <= set(Parameters().flat()) | {"use_sim_time"}


def test_a_replay_takes_its_time_from_the_recording() -> None:
    (included,) = calls(ROOT / "launch" / "replay.launch.py", "IncludeLaunchDescription")
    forwarded = next(node for node in ast.walk(keyword(included, "launch_arguments")) if isinstance(node, ast.Dict))
    values = {ast.unparse(key): ast.unparse(value) for key, value in zip(forwarded.keys, forwarded.values, strict=True) if key}
    assert values["'use_sim_time'"] == "'true'"


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
