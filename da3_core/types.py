"""What flows through da3, in the order it flows: Frame -> View -> Prediction -> FrameResult.

`Frame` and `FrameResult` are numpy: they are what messages and files are made of. `View` and `Prediction` are torch: they are
what networks are fed with. Transforms are named `T_a_b` with `p_a = T_a_b @ p_b`, cameras are OpenCV optical frames (x right,
y down, z forward), pixels have their centre at +0.5 (the image spans [0, W] x [0, H]), time is int nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Float64Array = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
Uint8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

Mode = Literal["posed", "unposed", "metric"]
World = Literal["given", "own"]  # that of the poses which frames came with, or one that begins with the first view's camera
DistortionModel = Literal["none", "plumb_bob", "rational_polynomial", "equidistant"]


@dataclass(frozen=True)
class Calibration:
    """Intrinsics of the image as it arrives. `K` follows this package's pixel convention only after `preprocess`: cameras are calibrated
    with the first pixel's centre at (0, 0), as ROS and OpenCV have it."""

    width_px: int
    height_px: int
    K: Float64Array  # (3, 3)
    distortion_model: DistortionModel = "none"
    D: tuple[float, ...] = ()


@dataclass(frozen=True)
class Frame:
    """One image as received."""

    camera: str
    frame_id: str
    stamp_ns: int
    image: Uint8Array  # (H, W, 3) RGB
    calibration: Calibration | None = None
    T_world_cam: Float64Array | None = None  # (4, 4), metres, at stamp_ns


@dataclass(frozen=True)
class View:
    """One image as the network sees it: rectified, resized, its principal point at the centre."""

    id: int  # unique within a stream, never reused: engines key their caches by it
    camera: str
    stamp_ns: int
    image: Tensor  # (3, H, W) uint8 RGB, on the host or where the engine is
    K: Tensor | None = None  # (3, 3) float64, pixels of `image`
    T_world_cam: Tensor | None = None  # (4, 4) float64, metres


@dataclass(frozen=True)
class Gaussians:
    """World-frame 3D Gaussians, one per pixel (paper section 5), quaternions in the order that published checkpoints know."""

    mean: Tensor  # (..., G, 3)
    scale: Tensor  # (..., G, 3)
    quaternion: Tensor  # (..., G, 4)
    sh: Tensor  # (..., G, 3, 9)
    opacity: Tensor  # (..., G)


SKY_THRESHOLD = 0.3
CANONICAL_FOCAL_PX = 300.0  # a metric network's depth is metres at this focal length, and in proportion to it at others


@dataclass(frozen=True)
class Prediction:
    """What a network says of N views, in its own scale unless `is_metric`.

    A field is None when it was not asked for or the network has none. A model returns leading dimensions (B, N); an engine returns
    no batch dimension, per-pixel fields for the wanted views only, and cameras for every view of the window.
    """

    depth: Tensor | None = None  # (..., N, H, W), z-depth
    confidence: Tensor | None = None  # (..., N, H, W), 1 + exp: higher is better, at least 1
    sky: Tensor | None = None  # (..., N, H, W), sky where >= SKY_THRESHOLD
    rays: Tensor | None = None  # (..., N, h', w', 6), direction then origin
    ray_confidence: Tensor | None = None  # (..., N, h', w')
    camera_encoding: Tensor | None = None  # (..., N, 9): t_world_cam, quaternion_xyzw, fov_h, fov_w
    T_cam_world: Tensor | None = None  # (..., N, 4, 4)
    K: Tensor | None = None  # (..., N, 3, 3), pixels of the network's image
    gaussians: Gaussians | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)
    is_metric: bool = False
    scale_factor: Tensor | None = None  # (...,) what a nested model multiplied its depth and translations with


EngineKind = Literal["any_view", "mono", "metric", "nested"]


class Engine(Protocol):
    """What runs a network, however it does it. It owns device and precision; made by `da3_core.engines.make_engine`."""

    @property
    def kind(self) -> EngineKind: ...

    @property
    def device(self) -> torch.device:
        """Where it runs. Views' images may lie there or on the host."""

    @property
    def description(self) -> str:
        """What runs what and why, for the log and the diagnostics."""

    @property
    def refusals(self) -> Sequence[str]:
        """What was to run it, or to make it faster, and does not, each with the reason."""

    def infer(self, views: Sequence[View], wanted: Sequence[int], posed: bool) -> Prediction:
        """Predicts for one window, all of whose images have one size.

        wanted: indices into `views`, one may come twice; depth, confidence and sky come back for these, in this order, and are None
        when there are none.
        Cameras come back for all views (None from mono and metric networks). posed: condition on the views' K and T_world_cam, which
        all must have; the cameras' scale is then still the network's own. No batch dimension, float32 on the CPU.
        """

    def reset(self) -> None:
        """Forgets what is cached of views."""


@dataclass(frozen=True)
class Sim3:
    """p_a = scale * R_a_b @ p_b + t_a_b."""

    scale: Tensor  # (...,)
    R: Tensor  # (..., 3, 3)
    t: Tensor  # (..., 3)


ScaleSource = Literal["none", "network", "parallax", "baselines", "chained", "held", "metric_model"]


@dataclass(frozen=True)
class ScaleEstimate:
    """Metres per network unit, with the variance of its logarithm (0.01 is about 10 %) and where it came from.

    parallax: this window's given camera motion, and how it moves points in the images; baselines: that motion against the one which the
    network predicts, trusted little; chained: carried over from earlier windows by views seen in both; held: the last known value,
    nothing to check it against; metric_model: a network that knows metres. Two are not metres, and `is_metric` says so:
    network: units of the first window of a run that has never seen a metre, and consistent within it; none: every frame its own units.
    """

    value: float
    log_variance: float
    source: ScaleSource

    @property
    def is_metric(self) -> bool:
        return self.source not in ("none", "network")


@dataclass(frozen=True)
class FrameResult:
    """One image's placed prediction: depth in metres, NaN where unknown.

    While no metre is known (`scale.is_metric` is false) depth is all NaN and there is no pose but a given one; or both are in the units
    that `scale` tells, when the setting `scale.unknown` asks for it.
    """

    camera: str
    frame_id: str
    stamp_ns: int
    depth_m: Float32Array  # (H, W)
    confidence: Float32Array | None  # (H, W)
    image: Uint8Array  # (H, W, 3) RGB, rectified, pixel-aligned with depth_m
    K: Float64Array  # (3, 3), of depth_m, first pixel's centre at (0, 0) as ROS has it
    T_world_cam: Float64Array | None  # (4, 4), in metres and in `world`; None while that is not known
    mode: Mode
    mode_reason: str
    scale: ScaleEstimate
    window_views: int
    timings_s: Mapping[str, float] = field(default_factory=dict)
    world: World = "given"
    events: tuple[str, ...] = ()  # what happened on the way that its reader should hear of: resets, poses that were refused


def as_tensor(array: npt.NDArray[np.generic] | None) -> Tensor | None:
    """The one way from a numpy field to a torch one; None stays None."""
    return None if array is None else torch.from_numpy(np.ascontiguousarray(array))
