"""Every setting of a training and its default, once; a YAML file names what differs."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from da3_core.config import checked_setting, setting
from da3_core.scenes.kinds import KINDS, MIX, SIZELESS, check_mix

PATCH = 14
OBJECTIVES = ("anyview", "teacher", "mono", "metric", "gaussians")


@dataclass(frozen=True)
class Bucket:
    """Batches of one image size. `views` are the view counts drawn from, each with the same number of images in a batch."""

    height: int = setting(168, "image height, a multiple of 14", range=(28, 2044))
    width: int = setting(224, "image width, a multiple of 14", range=(28, 2044))
    views: tuple[int, ...] = (1, 2, 4, 8)
    weight: float = setting(1.0, "how often this bucket is drawn, relative to the others", range=(0.0, 1e6))


@dataclass(frozen=True)
class DataConfig:
    """Where batches come from and what is in them."""

    source: str = setting("scenes", "rendered worlds, or recordings in the TUM RGB-D layout", choices=("scenes", "tum_rgbd"))
    train: tuple[str, ...] = ()  # folders of recordings to train on
    validation: tuple[str, ...] = ()  # folders of recordings to validate on
    patches_per_step: int = setting(49152, "14x14 patches in one process's batch, about constant over buckets", range=(1, 1e9))
    buckets: tuple[Bucket, ...] = (Bucket(),)
    worlds: tuple[str, ...] = MIX  # kinds of rendered worlds, each name as often as its share
    worlds_reused: int = setting(1, "steps that share a batch, in other view orders: where rendering holds up, not learning", range=(1, 64))


@dataclass(frozen=True)
class LossConfig:
    """Weights and forms of the losses; defaults are the paper's."""

    lambda_c: float = setting(0.2, "pull of the confidence; the paper gives none, 0.2 and 1.0 are in use", range=(0.0, 100.0))
    alpha: float = setting(1.0, "weight of the gradient loss (any-view)", range=(0.0, 1000.0))
    beta: float = setting(1.0, "weight of the camera loss", range=(0.0, 1000.0))
    rays: float = setting(1.0, "weight of the ray loss", range=(0.0, 1000.0))
    points: float = setting(1.0, "weight of the point loss", range=(0.0, 1000.0))
    baselines: float = setting(0.0, "weight of the errors of baselines over their lengths, which the paper has not", range=(0.0, 1000.0))
    distance: str = setting(
        "linear",
        "linear: the paper's l1. relative: log-depth, and points divided by their depth, so that far surfaces do not drown near ones",
        choices=("linear", "relative"),
    )
    scene_limit: float = setting(
        0.0,
        "ray, point, camera and baseline losses of a scene beyond this grow with their logarithm only, since the few scenes in which "
        "nothing can be matched drown the others; 0: no limit",
        range=(0.0, 1000.0),
    )
    matching: float = setting(0.0, "weight of the matching loss, for training from random weights", range=(0.0, 1000.0))
    given_cameras: float = setting(0.0, "weight of telling tokens what given cameras mean, likewise", range=(0.0, 1000.0))
    pose_conditioning: float = setting(0.2, "share of steps with given cameras", range=(0.0, 1.0))
    teacher_gradient: float = setting(0.5, "weight of the gradient loss (teacher, mono, metric; eq. 7)", range=(0.0, 1000.0))
    metric_ground_truth: float = setting(0.2, "share of scenes with raw ground truth instead of the teacher's labels", range=(0.0, 1.0))
    metric_rotation: float = setting(0.05, "share of steps whose images are all rotated by 90 or 270 degrees", range=(0.0, 1.0))
    photometric_ssim: float = setting(0.05, "weight of 1 - SSIM beside the squared colour error (gaussians)", range=(0.0, 1000.0))
    gaussian_depth: float = setting(0.1, "weight of the depth loss (gaussians)", range=(0.0, 1000.0))


@dataclass(frozen=True)
class TeacherLabelConfig:
    """Labels by a teacher instead of raw ground truth (paper section 4)."""

    model: str = setting("", "preset, Hub name or folder of the teacher; empty: ground truth throughout")
    from_step: int = setting(0, "first step with the teacher's labels; the paper's any-view model switches at 120000", range=(0, 1e9))


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, or Muon for the hidden matrices and AdamW for the rest."""

    name: str = setting("adamw", "adamw, or muon for 2-D hidden matrices and adamw for the rest", choices=("adamw", "muon"))
    lr: float = setting(2e-4, "peak learning rate", range=(0.0, 10.0))
    backbone_lr_factor: float = setting(1.0, "the backbone's share of the learning rate (0.1 for the metric model)", range=(0.0, 100.0))
    muon_lr: float = setting(2e-3, "Muon's peak learning rate, in AdamW's scale (updates have an RMS of 0.2)", range=(0.0, 10.0))
    weight_decay: float = setting(0.05, "decoupled, on matrices only", range=(0.0, 10.0))
    beta1: float = setting(0.9, "AdamW's", range=(0.0, 1.0))
    beta2: float = setting(0.95, "AdamW's", range=(0.0, 1.0))
    clip_norm: float = setting(1.0, "largest norm of the gradient", range=(1e-6, 1e9))


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, and the learning rate over it."""

    steps: int = setting(200_000, "length; with max_minutes, an upper bound not expected to be reached", range=(1, 1e9))
    max_minutes: float = setting(0.0, "train for this long instead, the decay following the clock; 0: by steps", range=(0.0, 1e6))
    warmup_steps: int = setting(8_000, "steps of linear warm-up", range=(0, 1e9))
    decay: str = setting("cosine", "from peak to zero", choices=("cosine", "linear", "constant"))
    decay_from: float = setting(0.0, "share of the training after which the decay starts", range=(0.0, 1.0))


@dataclass(frozen=True)
class RuntimeConfig:
    """How it runs; nothing here changes what is learned beyond rounding."""

    device: str = setting("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))
    parallel: str = setting("ddp", "ddp, or fsdp to shard large models", choices=("ddp", "fsdp"))
    bf16: bool = setting(True, "autocast to bfloat16 on GPUs; losses stay float32")
    compile: bool = setting(True, "compile blocks and heads on GPUs")
    record: bool = setting(False, "replay steps from CUDA graphs: rendered worlds and ground truth only, one recording per shape")
    checkpoint_activations: bool = setting(False, "recompute blocks in the backward pass: less memory, a third more time")
    prefetch: bool = setting(True, "make the next batch on a second CUDA stream")


@dataclass(frozen=True)
class ReportConfig:
    """What is written down, and when."""

    log_every: int = setting(50, "steps between scalars", range=(1, 1e9))
    validate_every: int = setting(1000, "steps between validations, each with pictures", range=(1, 1e9))
    validation_batches: int = setting(2, "validation batches per image size and view count", range=(1, 1000))
    checkpoint_every: int = setting(1000, "steps between checkpoints", range=(1, 1e9))


@dataclass(frozen=True)
class TrainConfig:
    """One training."""

    objective: str = setting("anyview", "what is trained", choices=OBJECTIVES)
    model: str = setting("da3-nano", "preset to train")
    init_from: str = setting("", "preset, Hub name, folder or DINOv2 file whose weights to start from; empty: random")
    output: str = setting("runs/da3-nano", "folder of the run; refused when it exists, unless resume or overwrite")
    seed: int = setting(0, "of the weights and the order of the data", range=(0, 2**31 - 1))
    resume: bool = setting(False, "continue the run in `output` where it stopped; starts it when there is none")
    overwrite: bool = setting(False, "throw away the run in `output`")
    ema: float = setting(0.999, "decay of the averaged weights, which are the ones that ship", range=(0.0, 0.999999))
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    teacher: TeacherLabelConfig = field(default_factory=TeacherLabelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    report: ReportConfig = field(default_factory=ReportConfig)

    def __post_init__(self) -> None:
        for bucket in self.data.buckets:
            if bucket.height % PATCH or bucket.width % PATCH:
                raise ValueError(f"bucket {bucket.height}x{bucket.width}: both sides must be multiples of 14")
            if not bucket.views or min(bucket.views) < 1:
                raise ValueError(f"bucket {bucket.height}x{bucket.width}: views {list(bucket.views)} must be a list of positive counts")
            for n_views in bucket.views:
                world_shape(bucket, n_views, self.data.patches_per_step)
        if not any(bucket.weight for bucket in self.data.buckets):
            raise ValueError("data.buckets holds nothing to draw: name one bucket at least, with a weight above 0")
        check_mix("data.worlds", self.data.worlds)
        sizeless = sorted({name for name in self.data.worlds if KINDS.index(name) in SIZELESS})
        if self.objective == "metric" and self.data.source == "scenes" and sizeless:
            raise ValueError(f"objective metric takes no worlds that show no size: leave {', '.join(sizeless)} out of data.worlds")
        if self.runtime.parallel == "fsdp" and self.optimizer.name == "muon":
            raise ValueError("optimizer.name = muon needs whole matrices: use runtime.parallel = ddp, or adamw with fsdp")
        if self.runtime.parallel == "fsdp" and self.loss.matching > 0:
            raise ValueError("loss.matching reads matrices inside blocks: use runtime.parallel = ddp, or loss.matching = 0 with fsdp")


def world_shape(bucket: Bucket, n_views: int, patches_per_step: int) -> tuple[int, int]:
    """Worlds in a batch, and views of each: the same for every view count of the bucket where the largest is a multiple of all.

    One shape means one program for the renderer and one for every part of the network that sees single views. Raises ValueError for a
    batch that cannot hold them.
    """
    images = patches_per_step // (bucket.height // PATCH * (bucket.width // PATCH))
    most = max(bucket.views)
    views = n_views if any(most % n for n in bucket.views) else most
    if images < views:
        raise ValueError(f"{views} views of {bucket.height}x{bucket.width} exceed data.patches_per_step = {patches_per_step}: raise it")
    return images // views, views


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> TrainConfig:
    """The settings in the YAML file at `path`, with `overrides` like "optimizer.lr=1e-4" on top.

    Raises ValueError naming the setting, and what is valid instead, for unknown names, wrong types and numbers out of range, and naming
    the file or override that is no YAML.
    """
    data = _read_yaml(Path(path).read_text(), str(path)) or {}
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold settings as `name: value`, see config/train/anyview_nano.yaml")
    for override in overrides:
        name, separator, value = override.partition("=")
        if not separator:
            raise ValueError(f"override {override!r} must look like name=value")
        _set(data, name, _read_yaml(value, f"override {override!r}"))
    config: TrainConfig = config_from_mapping(TrainConfig, data)
    return config


def _read_yaml(text: str, place: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{place} is not valid YAML: {' '.join(str(error).split())}") from error


def _set(data: dict[str, Any], name: str, value: Any, prefix: str = "") -> None:
    group, _, rest = name.partition(".")
    if not rest:
        data[group] = value
        return
    data[group] = _mapping(data.get(group), prefix + group)
    _set(data[group], rest, value, f"{prefix}{group}.")


def config_from_mapping(cls: type[Any], data: Mapping[str, Any], prefix: str = "") -> Any:
    """An instance of the config dataclass `cls` with `data` over its defaults, every value checked."""
    config, hints = cls(), typing.get_type_hints(cls)
    changes: dict[str, Any] = {}
    for name, value in data.items():
        path = f"{prefix}{name}"
        if name not in hints:
            raise ValueError(f"unknown setting {path!r}; there are {', '.join(hints)}")
        changes[name] = _value(config, name, hints[name], value, path)
    return dataclasses.replace(config, **changes)


def _value(config: Any, name: str, hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return config_from_mapping(hint, _mapping(value, path), path + ".")
    if typing.get_origin(hint) is tuple:
        return tuple(_item(typing.get_args(hint)[0], item, f"{path}[{i}]") for i, item in enumerate(_expect(value, Sequence, path)))
    kind = type(getattr(config, name))
    if kind is str and value is None:
        value = ""  # as YAML reads nothing
    if kind in (int, float) and isinstance(value, str):
        value = _number(value, path)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    return checked_setting(config, name, value, path)


def _item(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return config_from_mapping(hint, _mapping(value, path), path + ".")
    return _expect(value, hint, path)


def _mapping(value: Any, path: str) -> Any:
    return _expect({} if value is None else value, Mapping, path)  # YAML reads a group without settings as nothing


def _expect(value: Any, kind: type[Any], path: str) -> Any:
    if not isinstance(value, kind) or (kind is Sequence and isinstance(value, str)):
        raise ValueError(f"{path} takes a {kind.__name__.lower()}, not {value!r}")
    return value


def _number(text: str, path: str) -> float:
    try:
        return float(text)  # YAML reads 1e-4 and 1e5 as words
    except ValueError as error:
        raise ValueError(f"{path} takes a number, not {text!r}") from error
