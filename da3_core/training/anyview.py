"""Training the any-view network (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from da3_core.geometry.pinhole import fov_from_K
from da3_core.geometry.rays import points_from_rays, rays_from_cameras
from da3_core.geometry.rigid import invert_rigid, matrix_product, quaternion_from_rotation, rigid_from_rt
from da3_core.model import AnyView, normalise_cameras
from da3_core.model.images import normalise_images
from da3_core.scenes.sample import Samples
from da3_core.training import losses
from da3_core.training.config import LossConfig
from da3_core.training.data import Draw
from da3_core.training.given_cameras import GivenCameras
from da3_core.training.matching import features_needed, find_matches, matching_loss
from da3_core.training.objective import Labels, Objective, Values, autocast, depth_picture, given, ground_truth
from da3_core.training.scores import Scores, depth_scores, median_aligned, rotation_scores
from da3_core.types import Prediction

WANTED = frozenset({"depth", "rays", "cameras"})
LIMITED = ("rays", "points", "camera", "baselines")  # losses that a scene in which nothing can be matched drowns others with


@dataclass(frozen=True)
class AnyViewTruth:
    """What the network should say: in the frame of view 0 and divided by the scene's scale, finite everywhere."""

    depth: Tensor  # (B, N, H, W), 1 where not valid
    valid: Tensor  # (B, N, H, W) bool
    rays: Tensor  # (B, N, h, w, 6)
    points: Tensor  # (B, N, h, w, 3)
    points_depth: Tensor  # (B, N, h, w): depth of `points`
    points_valid: Tensor  # (B, N, h, w) bool
    camera: Tensor  # (B, N, 9): t, q_xyzw, fov of T_ref_cam


class AnyViewTraining(Objective):
    """The network with its objective: samples in, losses out."""

    network: AnyView

    def __init__(self, network: AnyView, config: LossConfig, bf16: bool, labels: Labels) -> None:
        super().__init__()
        self.network, self.config, self.labels = network, config, labels
        self.autocast = partial(autocast, bf16)
        self.given_cameras = GivenCameras(network.backbone) if config.given_cameras > 0 else None

    def forward(self, samples: Samples, draw: Draw) -> Values:
        """The losses of a batch; "loss" is their weighted sum."""
        samples, _ = self.labels(samples, draw)
        posed = self._is_posed(draw)
        prediction = self.predict(samples, posed, self._features_needed())
        values = measure(prediction, samples, self.config)
        aids = self._aids(prediction, samples, draw.scene_chances[:, 0], posed)
        weights = {"matching": self.config.matching, "given_cameras": self.config.given_cameras}
        return values | aids | {"loss": values["loss"] + sum(weights[name] * value for name, value in aids.items())}

    def _features_needed(self) -> list[int]:
        backbone = self.network.backbone
        needed = set(features_needed(backbone)) if self.config.matching > 0 else set()
        return sorted(needed | set(self.given_cameras.features_needed if self.given_cameras else ()))

    def _aids(self, prediction: Prediction, samples: Samples, chances: Tensor, posed: bool) -> Values:
        """What helps training from random weights and is no part of the paper: none with the default settings."""
        backbone, device, aids = self.network.backbone, samples.depth_m.device, {}
        if self.config.matching > 0 and samples.depth_m.shape[1] > 1:
            with self.autocast(device):
                matches = find_matches(samples, backbone.config.patch_size, chances.to(device))
                aids["matching"] = matching_loss(backbone, prediction.features, matches).mean()
        if self.given_cameras and posed:
            aids["given_cameras"] = self.given_cameras(prediction.features, samples).mean()
        return aids

    def predict(self, samples: Samples, posed: bool, features: Collection[int] = ()) -> Prediction:
        """The network on the samples' images, with their cameras when `posed`."""
        cameras = {}
        if posed:
            cameras = {"T_cam_world": normalise_cameras(invert_rigid(samples.T_world_cam)), "K": samples.K}
        with self.autocast(samples.images.device):
            prediction: Prediction = self.network(
                normalise_images(samples.images), reference_view="first", want=WANTED, features=features, **cameras
            )
        return prediction

    def variant(self, draw: Draw) -> Hashable | None:
        """Whether cameras are given; with a teacher's labels, unknown."""
        return self._is_posed(draw) if self.labels is ground_truth else None

    def validate(self, samples: Samples, draw: Draw) -> Values:
        """Depth and rotation errors, posed and unposed, by view count."""
        errors: Values = {}
        for name, posed in (("posed", True), ("unposed", False)):
            prediction = self.predict(samples, posed)
            truth = truth_from_samples(samples, map_size(prediction))
            found = aligned_scores(prediction, truth)
            if draw.n_views > 1:
                found |= rotation_scores(given(prediction.T_cam_world), samples.T_world_cam)
            errors |= {f"{name}/{draw.n_views}_views/{key}": value for key, value in found.items()}
        return errors

    def _is_posed(self, draw: Draw) -> bool:
        return draw.chances[0] < self.config.pose_conditioning

    def pictures(self, samples: Samples, draw: Draw) -> Values:
        """Pictures (3, H, W) in 0..1 of the first scene's first view."""
        prediction = self.predict(samples, posed=False)
        valid = samples.valid[0, 0]
        return {
            "image": samples.images[0, 0],
            "depth": depth_picture(given(prediction.depth)[0, 0], torch.ones_like(valid)),
            "truth": depth_picture(samples.depth_m[0, 0], valid),
            "confidence": depth_picture(given(prediction.confidence)[0, 0], torch.ones_like(valid)),
        }


def map_size(prediction: Prediction) -> tuple[int, int]:
    """Height and width of the predicted ray maps."""
    h, w = given(prediction.rays).shape[-3:-1]
    return h, w


def truth_from_samples(samples: Samples, rays_size: tuple[int, int]) -> AnyViewTruth:
    """Ground truth in the frame of view 0, divided by the mean distance of the scene's valid points; ray maps of `rays_size`."""
    H, W = samples.depth_m.shape[-2:]
    valid = samples.valid
    depth = torch.where(valid, samples.depth_m, 1.0)
    T_ref_cam = matrix_product(invert_rigid(samples.T_world_cam[:, :1]), samples.T_world_cam)
    scale = losses.scene_scale(points_from_rays(rays_from_cameras(T_ref_cam, samples.K, (H, W), (H, W)), depth), valid)  # (B,)
    depth = depth / scale[:, None, None, None]
    R, t = T_ref_cam[..., :3, :3], T_ref_cam[..., :3, 3] / scale[:, None, None]
    T_ref_cam = rigid_from_rt(R, t)
    rays = rays_from_cameras(T_ref_cam, samples.K, (H, W), rays_size)
    points_depth = losses.sample_depth(depth, rays_size)
    camera = torch.cat([t, quaternion_from_rotation(R), fov_from_K(samples.K, H, W)], -1)
    return AnyViewTruth(
        depth=depth,
        valid=valid,
        rays=rays,
        points=points_from_rays(rays, points_depth),
        points_depth=points_depth,
        points_valid=losses.sample_depth(valid.to(depth.dtype), rays_size) > 0.5,
        camera=camera,
    )


def measure(prediction: Prediction, samples: Samples, config: LossConfig) -> Values:
    """Means of the losses and scores of a batch."""
    truth = truth_from_samples(samples, map_size(prediction))
    means = {name: value.mean() for name, value in anyview_losses(prediction, truth, config).items()}
    return means | aligned_scores(prediction, truth)


def anyview_losses(prediction: Prediction, truth: AnyViewTruth, config: LossConfig) -> Values:
    """Every term of the objective per scene (B,), and their weighted sum as "loss"."""
    rays, depth, true_depth = given(prediction.rays).float(), given(prediction.depth).float(), truth.depth
    points = points_from_rays(rays, losses.sample_depth(depth, (rays.shape[-3], rays.shape[-2])))
    encoding = given(prediction.camera_encoding)
    relative = config.distance == "relative"
    if relative:
        depth, true_depth = depth.log(), true_depth.log()
    point_weight = truth.points_depth.reciprocal() if relative else None
    parts = {
        "depth": losses.depth_loss(depth, true_depth, given(prediction.confidence), truth.valid, config.lambda_c),
        "rays": losses.ray_loss(rays, truth.rays, given(prediction.ray_confidence), config.lambda_c),
        "points": losses.point_loss(points, truth.points, truth.points_valid, point_weight),
        "camera": losses.camera_loss(encoding, truth.camera),
        "gradient": losses.gradient_loss(depth, true_depth, truth.valid),
    }
    if encoding.shape[1] > 1:
        parts["baselines"] = losses.baseline_loss(encoding[..., :3], truth.camera[..., :3])
    if config.scene_limit > 0:
        parts |= {name: losses.limited(parts[name], config.scene_limit) for name in LIMITED if name in parts}
    weights = {
        "depth": 1.0,
        "rays": config.rays,
        "points": config.points,
        "camera": config.beta,
        "baselines": config.baselines,
        "gradient": config.alpha,
    }
    return parts | {"loss": torch.stack([weights[name] * value for name, value in parts.items()]).sum(0)}


def aligned_scores(prediction: Prediction, truth: AnyViewTruth) -> Scores:
    """Depth scores after one factor per scene."""
    depth = given(prediction.depth).detach()
    return depth_scores(median_aligned(depth, truth.depth, truth.valid), truth.depth, truth.valid)
