"""ROS parameters, derived from the config dataclasses: descriptions, ranges, choices and what needs a restart are written once, there."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from da3_core import Synchronizer

from .settings import CameraConfig, Parameters


def declare(node: Any) -> Parameters:
    """Declares every parameter on an rclpy node and returns what its overrides (command line, files) make of them.

    Raises ValueError, or rclpy's ParameterException, for a value that is refused.
    """
    parameters = _declared(node, Parameters(), Parameters().flat())
    names = parameters.node.cameras
    _refuse_names(names, taken={name.partition(".")[0] for name in parameters.flat()})
    with_cameras = dataclasses.replace(parameters, cameras={name: CameraConfig() for name in names})
    declared = _declared(node, with_cameras, {k: v for k, v in with_cameras.flat().items() if k not in parameters.flat()})
    refuse_contradictions(declared)
    return declared


def refuse_contradictions(parameters: Parameters) -> None:
    """Raises ValueError for settings that do not go together, whatever the engine."""
    node = parameters.node
    sizes = node.image_width_px, node.image_height_px
    if any(sizes) != all(sizes):
        raise ValueError(f"the images' size is {sizes[0]}x{sizes[1]}: set image_width_px and image_height_px, or neither")
    if node.build_only and not all(sizes):
        raise ValueError("build_only builds the engine for images of one size: set image_width_px and image_height_px")
    Synchronizer(parameters.stream.rig, node.cameras)


def _refuse_names(names: Sequence[str], taken: Set[str]) -> None:
    """Raises ValueError for names that cannot be cameras' since parameters and topics are made of them."""
    if len(set(names)) < len(names) or not names or not all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) for name in names):
        raise ValueError(f"cameras = {list(names)}: give different names of letters, digits and _, at least one")
    if taken & set(names):
        raise ValueError(f"cameras = {list(names)}: {', '.join(sorted(taken & set(names)))} is the name of a parameter, take another")


def _declared(node: Any, parameters: Parameters, entries: Mapping[str, tuple[dataclasses.Field[Any], Any]]) -> Parameters:
    for name, (f, default) in entries.items():
        value = node.declare_parameter(name, to_ros(default), descriptor(f, default)).value
        parameters = parameters.with_setting(name, from_ros(value))
    return parameters


def descriptor(f: dataclasses.Field[Any], default: Any) -> ParameterDescriptor:
    """What `ros2 param describe` shows and rclpy enforces; the type of a float is enforced by its setting, which takes an integer, too."""
    described = ParameterDescriptor(description=f.metadata["help"], read_only=bool(f.metadata.get("read_only")))
    described.dynamic_typing = isinstance(default, float)
    if "choices" in f.metadata:
        described.additional_constraints = "one of: " + ", ".join(f.metadata["choices"])
    if "not_empty" in f.metadata:
        described.additional_constraints = "not empty"
    if "range" in f.metadata:
        low, high = f.metadata["range"]
        if isinstance(default, int):
            described.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
        else:
            described.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)]
    return described


def to_ros(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def from_ros(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value
