"""One scene's prediction against its truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from da3_core.evaluation.depth import DepthMetrics, depth_metrics, sky_overlap
from da3_core.evaluation.pose import auc, pose_errors, rra, rta
from da3_core.geometry.baselines import scale_from_baselines
from da3_core.geometry.rigid import invert_rigid
from da3_core.scenes import Samples
from da3_core.types import SKY_THRESHOLD, Prediction

SceneAlignment = Literal["baselines", "median", "median_per_view", "scale_shift", "none"]
MIN_BASELINE_M = 0.05  # of given cameras, for a scale to be read from them


@dataclass(frozen=True)
class PoseScore:
    """Translations and areas are NaN in a scene whose cameras all stand in one place."""

    auc3: float
    auc30: float
    auc30_joint: float  # with the stricter curve of the protocol's code, see pose.py
    rra5: float  # share of pairs whose relative rotation is less than 5 degrees off
    rra15: float
    rra30: float
    rta5: float  # ... whose relative translation's direction is
    rta15: float
    rta30: float


@dataclass(frozen=True)
class SceneScore:
    """Of all views of one scene together."""

    abs_rel: float  # NaN where predicted depth or cameras are not finite: the scene failed
    sq_rel: float
    delta1: float
    delta2: float
    delta3: float
    pose: PoseScore | None  # None of one view, or without predicted cameras
    sky: tuple[int, int] | None  # pixels in the intersection and in the union
    focal: float  # true fx over the image's width
    kind: int  # of its world, an index into `scenes.kinds.KINDS`; -1 of a recording
    fell_back: bool  # to the median, because the given cameras moved too little to give the scale


def score_scenes(prediction: Prediction, samples: Samples, align: SceneAlignment) -> list[SceneScore]:
    """Scores of the scenes of a batch (B, N, ...) that have any valid pixel.

    The alignment is one per scene, but for "median_per_view", which tells what other views do for an image: one median fits the views of
    a small scene better than those of a large one. "baselines" takes the scale from predicted against true camera centres, as a robot
    with odometry would, and the median ratio of depths where the cameras moved less than 5 cm (one view: always); "median" is
    always the latter; "scale_shift" is least squares; "none" takes depth for metres.
    Raises ValueError when the prediction has no depth.
    """
    if prediction.depth is None:
        raise ValueError("there is no depth in this prediction: ask the model for it")
    return [_score(prediction, samples, b, prediction.depth[b], align) for b in range(len(samples.valid)) if bool(samples.valid[b].any())]


def _score(prediction: Prediction, samples: Samples, b: int, depth: Tensor, align: SceneAlignment) -> SceneScore:
    focal, kind = float(samples.K[b, 0, 0, 0] / depth.shape[-1]), int(samples.kind[b])
    T_world_cam = None if prediction.T_cam_world is None else invert_rigid(prediction.T_cam_world[b].double().cpu())
    if not (bool(depth.isfinite().all()) and (T_world_cam is None or bool(T_world_cam.isfinite().all()))):
        nan = math.nan
        return SceneScore(nan, nan, nan, nan, nan, None, None, focal, kind, False)
    truth = samples.T_world_cam[b].double().cpu()
    scale = _scale_from_cameras(truth, T_world_cam) if align == "baselines" else None
    depth_align: SceneAlignment = align if scale is None else "none"
    depth_m = depth if scale is None else depth * scale
    metrics = _depth_metrics(depth_m, samples.depth_m[b], samples.valid[b], depth_align)
    knows_sky = kind >= 0  # recordings do not
    sky = None if prediction.sky is None or not knows_sky else sky_overlap(prediction.sky[b] >= SKY_THRESHOLD, samples.sky[b])
    return SceneScore(
        abs_rel=float(metrics.abs_rel.mean()),
        sq_rel=float(metrics.sq_rel.mean()),
        delta1=float(metrics.delta1.mean()),
        delta2=float(metrics.delta2.mean()),
        delta3=float(metrics.delta3.mean()),
        pose=None if T_world_cam is None or len(truth) < 2 else _score_poses(T_world_cam, truth),
        sky=sky,
        focal=focal,
        kind=kind,
        fell_back=align == "baselines" and scale is None,
    )


def _depth_metrics(depth: Tensor, truth: Tensor, valid: Tensor, align: SceneAlignment) -> DepthMetrics:
    """Of a scene's views (N, H, W) together, or one by one where each is aligned by itself; views without a valid pixel are left out."""
    if align == "median_per_view":
        known = valid.flatten(1).any(1)
        return depth_metrics(depth[known].flatten(1), truth[known].flatten(1), valid[known].flatten(1), "median")
    return depth_metrics(depth.flatten(), truth.flatten(), valid.flatten(), "median" if align == "baselines" else align)


def _scale_from_cameras(truth: Tensor, T_world_cam: Tensor | None) -> float | None:
    if T_world_cam is None:
        raise ValueError("a scale from given cameras needs predicted ones: ask the model for cameras")
    found = scale_from_baselines(truth[:, :3, 3], T_world_cam[:, :3, 3], MIN_BASELINE_M)
    return None if found is None else found[0]


def _score_poses(T_world_cam: Tensor, truth: Tensor) -> PoseScore:
    errors = pose_errors(T_world_cam, truth)
    return PoseScore(
        auc3=auc(errors, 3),
        auc30=auc(errors, 30),
        auc30_joint=auc(errors, 30, "joint"),
        rra5=rra(errors, 5),
        rra15=rra(errors, 15),
        rra30=rra(errors, 30),
        rta5=rta(errors, 5),
        rta15=rta(errors, 15),
        rta30=rta(errors, 30),
    )
