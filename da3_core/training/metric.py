"""Training for depth in metres from single views (paper section 4.4)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from da3_core.model import Mono, metres_from_canonical
from da3_core.model.images import normalise_images
from da3_core.scenes.sample import Samples
from da3_core.training import affine_losses, losses
from da3_core.training.config import LossConfig
from da3_core.training.data import Draw
from da3_core.training.objective import Labels, Objective, Values, autocast, depth_picture, ground_truth, masks_known
from da3_core.training.scores import depth_scores, sky_scores
from da3_core.types import CANONICAL_FOCAL_PX, SKY_THRESHOLD


class MetricTraining(Objective):
    """The network with depth, gradient and sky losses, its depth being that of a camera with a focal length of 300 pixels."""

    network: Mono

    def __init__(self, network: Mono, config: LossConfig, bf16: bool, labels: Labels) -> None:
        super().__init__()
        self.network, self.config, self.labels = network, config, labels
        self.autocast = partial(autocast, bf16)

    def forward(self, samples: Samples, draw: Draw) -> Values:
        """The losses of a batch; "loss" is their weighted sum."""
        samples, sky_known = self.labels(samples, draw)
        samples = rotate_samples(samples, self._quarters(draw))  # after labelling: no teacher is trained on turned images
        return measure(*self.predict(samples.images), samples, sky_known, self.config)

    def variant(self, draw: Draw) -> Hashable | None:
        """How far the images are rotated; with a teacher's labels, unknown."""
        return self._quarters(draw) if self.labels is ground_truth else None

    def _quarters(self, draw: Draw) -> int:
        if draw.chances[0] >= self.config.metric_rotation:
            return 0
        return 1 if draw.chances[1] < 0.5 else 3

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Canonical depth and sky (B, N, H, W) of images (B, N, 3, H, W) in 0..1."""
        with self.autocast(images.device):
            return self.network.depth_and_sky(normalise_images(images))

    def validate(self, samples: Samples, draw: Draw) -> Values:
        """Depth in metres and sky, without any alignment."""
        depth, sky = self.predict(samples.images)
        scores = depth_scores(metres_from_canonical(depth, samples.K), torch.where(samples.valid, samples.depth_m, 1), samples.valid)
        return scores | sky_scores(sky, samples.sky, masks_known(samples), SKY_THRESHOLD)

    def pictures(self, samples: Samples, draw: Draw) -> Values:
        """Pictures (3, H, W) in 0..1 of the first view."""
        depth, sky = self.predict(samples.images[:1])
        return {
            "image": samples.images[0, 0],
            "depth": depth_picture(depth[0, 0], sky[0, 0] < SKY_THRESHOLD),
            "truth": depth_picture(samples.depth_m[0, 0], samples.valid[0, 0]),
        }


def measure(depth: Tensor, sky: Tensor, samples: Samples, sky_known: Tensor, config: LossConfig) -> Values:
    """Means of the losses and scores of a batch, whose sky is known in views (B, N)."""
    truth = torch.where(samples.valid, canonical_from_metres(samples.depth_m, samples.K), 1)
    predicted, wanted = (depth.log(), truth.log()) if config.distance == "relative" else (depth, truth)
    parts = {
        "depth": losses.masked_mean((predicted - wanted).abs(), samples.valid),
        "gradient": losses.gradient_loss(predicted, wanted, samples.valid),
        "sky": affine_losses.mask_loss(sky, samples.sky, sky_known),
    }
    total = parts["depth"] + config.teacher_gradient * parts["gradient"] + parts["sky"]
    means = {name: value.mean() for name, value in (parts | {"loss": total}).items()}
    return means | depth_scores(depth, truth, samples.valid)


def canonical_from_metres(depth_m: Tensor, K: Tensor) -> Tensor:
    """Depth (..., H, W) as a camera of 300 pixels focal length would have it, K (..., 3, 3)."""
    f_px = (K[..., 0, 0] + K[..., 1, 1]) / 2
    return depth_m * (CANONICAL_FOCAL_PX / f_px)[..., None, None]


def rotate_samples(samples: Samples, quarters: int) -> Samples:
    """The samples of cameras rolled by quarter turns: images turn counter-clockwise, the world stays."""
    for _ in range(quarters):
        samples = _rotate_quarter(samples)
    return samples


def _rotate_quarter(samples: Samples) -> Samples:
    W = samples.images.shape[-1]
    maps = {name: getattr(samples, name).rot90(1, (-2, -1)) for name in ("images", "depth_m", "valid", "sky", "object", "normal_world")}
    K = torch.zeros_like(samples.K)
    K[..., 0, 0], K[..., 0, 2] = samples.K[..., 1, 1], samples.K[..., 1, 2]  # x' = y
    K[..., 1, 1], K[..., 1, 2] = samples.K[..., 0, 0], W - samples.K[..., 0, 2]  # y' = W - x
    K[..., 2, 2] = 1
    right, down, ahead, centre = samples.T_world_cam.unbind(-1)
    return replace(samples, **maps, K=K, T_world_cam=torch.stack((down, -right, ahead, centre), -1))
