"""Every setting and its default, once. YAML files, ROS parameters and command-line flags are derived from these fields.

`metadata["help"]` is the description users read; `metadata["range"]` the closed interval a number must lie in;
`metadata["choices"]` the allowed words; `metadata["not_empty"]` marks text that must be there, `metadata["read_only"]` what needs a
restart of the node.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


def setting(
    default: Any,
    help: str,
    *,
    range: tuple[float, float] | None = None,
    choices: tuple[str, ...] | None = None,
    not_empty: bool = False,
    read_only: bool = False,
) -> Any:
    """A dataclass field with the metadata that every front end is derived from."""
    metadata = {"help": help, "range": range, "choices": choices, "not_empty": not_empty, "read_only": read_only}
    return field(default=default, metadata={k: v for k, v in metadata.items() if v})


@dataclass(frozen=True)
class ModelConfig:
    """Which network, and what runs it."""

    model: str = setting("da3-nano", "preset, Hub name or folder of a checkpoint", read_only=True)
    engine: str = setting("auto", "what runs the network", choices=("auto", "eager", "compiled", "onnx", "tensorrt"), read_only=True)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N", read_only=True)
    precision: str = setting(
        "auto",
        "of the network; auto: fp32 on a CPU, on a GPU fp16 in TensorRT and before Ampere, bf16 elsewhere",
        choices=("auto", "fp32", "bf16", "fp16"),
        read_only=True,
    )


@dataclass(frozen=True)
class PreprocessConfig:
    """From a camera's image to the network's."""

    size: int = setting(
        336,
        "longest side of the network's image; both sides become multiples of 14 (trained at: published networks 504, nano 224 and 336)",
        range=(56, 2044),
        read_only=True,
    )
    resize: str = setting(
        "upper_bound_resize",
        "which side becomes `size`, the longest (upper) or the shortest (lower), and whether the rest is resized or cropped to 14s",
        choices=("upper_bound_resize", "upper_bound_crop", "lower_bound_resize", "lower_bound_crop"),
        read_only=True,
    )
    coverage: str = setting(
        "inside",
        "of a distorted camera's view, keep what fills a pinhole image (inside), or all of it with empty corners (all)",
        choices=("inside", "all"),
        read_only=True,
    )
    max_fov_deg: float = setting(110.0, "widest view of a rectified image along its longer side", range=(20.0, 170.0), read_only=True)
    output_size: str = setting("network", "size of the published depth", choices=("network", "input"), read_only=True)


@dataclass(frozen=True)
class WindowConfig:
    """Which views go in together."""

    views: int = setting(4, "most views in a window, the newest included", range=(1, 64), read_only=True)
    keyframe_translation_m: float = setting(0.15, "a view this far from the last keyframe becomes a keyframe", range=(0.0, 100.0))
    keyframe_rotation_deg: float = setting(10.0, "a view turned this far from the last keyframe becomes a keyframe", range=(0.0, 180.0))
    keyframe_interval_s: float = setting(1.0, "without poses, time between keyframes", range=(0.0, 60.0))


@dataclass(frozen=True)
class RigConfig:
    """How several cameras make one instant."""

    anchor_camera: str = setting("", "camera that triggers a set; empty: the first")
    max_camera_time_diff_s: float = setting(0.02, "another camera joins when its stamp is this near", range=(0.0, 1.0))


@dataclass(frozen=True)
class PoseConfig:
    """How given poses are read at an image's stamp."""

    tolerance_s: float = setting(
        0.05, "take the nearest pose when none surround the image but one is this near", range=(0.0, 10.0), read_only=True
    )
    max_gap_s: float = setting(0.5, "interpolate between poses at most this far apart", range=(0.0, 60.0), read_only=True)
    memory_s: float = setting(30.0, "poses are kept for this long", range=(1.0, 3600.0), read_only=True)


@dataclass(frozen=True)
class ModeConfig:
    """Posed, unposed or metric, and when given poses are trusted."""

    mode: str = setting("auto", "auto uses given poses while they agree with the images", choices=("auto", "posed", "unposed", "metric"))
    gate_interval: int = setting(10, "check given poses against predicted ones every so many windows", range=(1, 1000))
    gate_rotation_deg: float = setting(10.0, "given and predicted relative rotations may differ by this much (median)", range=(0.1, 180.0))
    gate_translation_deg: float = setting(45.0, "given and predicted motion may differ by this much (median)", range=(0.1, 180.0))


@dataclass(frozen=True)
class ScaleConfig:
    """Metres per network unit."""

    min_baseline_m: float = setting(0.05, "camera motion below which the scale is held instead of estimated", range=(0.001, 10.0))
    chain: str = setting(
        "always",
        "carry the scale from window to window by a view that both share, which costs its depth: always, or only while motion shows none",
        choices=("always", "when_blind"),
    )
    memory: float = setting(0.5, "weight of the past in the running scale; 0 takes every window's own", range=(0.0, 0.999))
    unknown: str = setting(
        "drop",
        "while no metre is known: depth is NaN and poses are not estimated (drop), or both are in the network's units (relative)",
        choices=("drop", "relative"),
    )


@dataclass(frozen=True)
class FilterConfig:
    """What becomes NaN."""

    min_confidence: float = setting(1.0, "drop depth below this confidence (1 + exp, at least 1)", range=(1.0, 100.0))
    edge_ratio: float = setting(0.1, "drop depth that jumps to a neighbour by more than this share; 0 keeps all", range=(0.0, 10.0))
    drop_sky: bool = setting(True, "drop sky where the network has a sky output")
    max_depth_m: float = setting(0.0, "drop depth beyond this; 0 keeps all", range=(0.0, 10000.0))


@dataclass(frozen=True)
class StreamConfig:
    """Everything that turns frames into placed depth."""

    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    rig: RigConfig = field(default_factory=RigConfig)
    poses: PoseConfig = field(default_factory=PoseConfig)
    mode: ModeConfig = field(default_factory=ModeConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)


def settings(config: Any, prefix: str = "") -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Flat view of a config: dotted name -> (field, value), nested dataclasses opened."""
    flat: dict[str, tuple[dataclasses.Field[Any], Any]] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            flat |= settings(value, f"{prefix}{f.name}.")
        else:
            flat[prefix + f.name] = (f, value)
    return flat


def replace_setting(config: Any, name: str, value: Any, prefix: str = "") -> Any:
    """A copy of `config` with the dotted setting `name` changed; raises ValueError naming the setting, its range or its choices.

    prefix: where `config` stands in a larger one, for the text.
    """
    head, _, rest = name.partition(".")
    names = [f.name for f in dataclasses.fields(config)]
    if head not in names:
        raise ValueError(f"unknown setting {head!r}; there are {', '.join(names)}")
    path, current = prefix + head, getattr(config, head)
    if dataclasses.is_dataclass(current):
        if not rest:
            raise ValueError(f"{path} takes settings ({', '.join(settings(current))}), not {value!r}")
        return dataclasses.replace(config, **{head: replace_setting(current, rest, value, f"{path}.")})
    if rest:
        raise ValueError(f"{path} takes a {type(current).__name__}, and has no setting {rest!r}")
    return dataclasses.replace(config, **{head: checked_setting(config, head, value, path)})


def checked_setting(config: Any, name: str, value: Any, path: str) -> Any:
    """`value` as the field `name` of `config` takes it; raises ValueError naming it by its `path`, its range or its choices."""
    (f,) = (f for f in dataclasses.fields(config) if f.name == name)
    current = getattr(config, name)
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(current):
        raise ValueError(f"{path} takes a {type(current).__name__}, not {value!r}")
    low, high = f.metadata.get("range", (None, None))
    if low is not None and not low <= value <= high:  # also refuses NaN
        raise ValueError(f"{path} = {value} is outside [{low}, {high}]: {f.metadata['help']}")
    choices = f.metadata.get("choices")
    if choices and value not in choices:
        raise ValueError(f"{path} = {value!r} is none of {', '.join(choices)}")
    if f.metadata.get("not_empty") and not value:
        raise ValueError(f"{path} is empty: {f.metadata['help']}")
    return value
